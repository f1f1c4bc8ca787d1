"""Wrong values are refused by the schema, with the place; right ones are linted clean."""

import subprocess
from typing import Any

import pytest
from charts.rendering import CHARTS, Rejected, render


@pytest.mark.parametrize(
    ("chart", "values", "place"),
    [
        ("lakeloop", {"replica": 2}, "replica"),
        ("lakeloop", {"replicas": "2"}, "/replicas"),
        ("lakeloop", {"images": {"operator": {"repository": "r", "version": "1"}}}, "/images/operator"),
        ("lakeloop", {"tracking": {"uri": "mlflow:5000"}}, "/tracking/uri"),
        ("lakeloop", {"tracking": {"uri": "http://user:password@mlflow"}}, "/tracking/uri"),
        ("lakeloop", {"storage": {"warehouse": "/data"}}, "/storage/warehouse"),
        ("lakeloop", {"watchNamespaces": ["Team_A"]}, "/watchNamespaces/0"),
        ("lakeloop", {"server": {"serviceType": "LoadBalancer"}}, "/server/serviceType"),
        ("lakeloop", {"log": {"level": "loud"}}, "/log/level"),
        ("lakeloop", {"imagePullPolicy": "Sometimes"}, "/imagePullPolicy"),
        ("lakeloop-platform", {"minio": {"enabled": "no"}}, "/minio/enabled"),
        ("lakeloop-platform", {"minio": {"buckets": ["Lake!"]}}, "/minio/buckets/0"),
        ("lakeloop-platform", {"minio": {"users": [{"name": "a"}]}}, "/minio/users/0"),
        ("lakeloop-platform", {"minio": {"users": [{"name": "mlflow", "namespace": "x"}]}}, "/minio/users/0/name"),
        ("lakeloop-platform", {"minio": {"service": {"nodePort": 80}}}, "/minio/service/nodePort"),
        ("lakeloop-platform", {"mlflow": {"workers": 0}}, "/mlflow/workers"),
        ("lakeloop-platform", {"mlflow": {"defaultArtifactRoot": "mlflow"}}, "/mlflow/defaultArtifactRoot"),
        ("lakeloop-platform", {"mlflow": {"extraAllowedHosts": ["http://x"]}}, "/mlflow/extraAllowedHosts/0"),
        ("lakeloop-platform", {"postgresql": {"enabled": False}}, "/mlflow/backendStore/existingSecret"),
        ("lakeloop-platform", {"postgresql": {"database": "a b"}}, "/postgresql/database"),
        ("lakeloop-platform", {"postgres": {"enabled": False}}, "postgres"),
    ],
)
def test_refused(chart: str, values: dict[str, Any], place: str) -> None:
    """One row per mistake."""
    with pytest.raises(Rejected) as refusal:
        render(chart, **values)
    assert "values don't meet the specifications of the schema" in str(refusal.value)
    assert place in str(refusal.value)


@pytest.mark.parametrize("chart", ["lakeloop", "lakeloop-platform"])
@pytest.mark.parametrize("file", ["values.yaml", "values-local.yaml", "values-kind.yaml"])
def test_lint(helm: str, chart: str, file: str) -> None:
    """`helm lint --strict` has nothing to say."""
    command = [helm, "lint", "--strict", "--quiet", "--values", str(CHARTS / chart / file), str(CHARTS / chart)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
