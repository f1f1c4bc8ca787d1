"""Bad input on the real node: each ends with the right class, a message that names the field, and no pod left."""

from collections.abc import Mapping
from typing import Any

import pytest

from lakeloop.cli.demo import condition

pytestmark = pytest.mark.e2e
SPEC: Mapping[str, Any] = {
    "inputs": [{"name": "points", "uri": "s3a://lake/quickstart/points", "version": 0}],
    "dataset": {"features": ["feature"], "target": "target", "split": {"testFraction": 0}},
    "estimator": {"library": "sklearn", "steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
    "spark": {"executor": {"instances": 0}},
}
WAITING = {
    "missing-bucket": ({"inputs": [{"name": "points", "uri": "s3a://no-such-bucket/points"}]}, "spec.inputs[0]"),
    "missing-table": ({"inputs": [{"name": "points", "uri": "s3a://lake/no/such/table"}]}, "spec.inputs[0]"),
    "missing-version": (
        {"inputs": [{"name": "points", "uri": "s3a://lake/quickstart/points", "version": 4000}]},
        "spec.inputs[0].version",
    ),
    "missing-secret": ({"storage": {"secretRef": {"name": "nobody"}}}, "spec.storage.secretRef"),
}
FAILING = {
    "missing-column": ({"dataset": {"target": "nowhere", "split": {"testFraction": 0}}}, "Data", "spec.dataset.target"),
    "unknown-class": (
        {"estimator": {"library": "sklearn", "steps": [{"class": "sklearn.linear_model.NoSuchThing"}]}},
        "Application",
        "spec.estimator.steps[0].class",
    ),
    "bad-parameter": (
        {
            "estimator": {
                "library": "sklearn",
                "steps": [{"class": "sklearn.linear_model.LogisticRegression", "params": {"C": -1}}],
            }
        },
        "Application",
        "spec.estimator.steps[0].params.C",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def table(platform: Any) -> None:
    """The quickstart's table is there (its own test made it, or this does)."""
    platform.kubectl("apply", "-f", "samples/quickstart/1-data.yaml")
    platform.kubectl("apply", "-f", "samples/quickstart/2-train.yaml")
    platform.succeeded("quickstart")


@pytest.mark.parametrize("name", WAITING)
def test_waits_and_says_for_what(platform: Any, name: str) -> None:
    change, field = WAITING[name]
    job = f"bad-{name}"
    platform.job(job, {**SPEC, **change})
    seen = platform.until("trainingjob", job, lambda obj: condition(obj, "Stalled").get("status") == "True")
    assert field in condition(seen, "Stalled")["message"]
    assert seen["status"]["run"]["phase"] == "Pending"
    assert platform.pods(f"lakeloop.io/training-job={job}") == []
    platform.kubectl("-n", "lakeloop-demo", "delete", "tj", job, "--wait=true")


@pytest.mark.parametrize("name", FAILING)
def test_fails_with_its_class(platform: Any, name: str) -> None:
    change, failure_class, field = FAILING[name]
    job = f"bad-{name}"
    platform.job(job, {**SPEC, **change})
    seen = platform.until("trainingjob", job, lambda obj: obj.get("status", {}).get("run", {}).get("phase") == "Failed")
    failure = seen["status"]["run"]["failure"]
    assert failure["class"] == failure_class
    assert field in failure["message"]
    assert condition(seen, "Stalled")["status"] == "True"
    assert [
        pod
        for pod in platform.pods(f"lakeloop.io/training-job={job}")
        if pod["status"]["phase"] in ("Pending", "Running")
    ] == []
    platform.kubectl("-n", "lakeloop-demo", "delete", "tj", job, "--wait=true")
    platform.until("namespace", "lakeloop-demo", lambda _: platform.pods(f"lakeloop.io/training-job={job}") == [], 60)
