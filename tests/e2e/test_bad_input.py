"""Bad input on the real node: each ends with the right class, a message that names the field, and no pod left."""

from collections.abc import Iterator, Mapping
from typing import Any

import arro3.core as arrow
import deltalake
import pytest
from e2e.conftest import Platform, manifest, until

from lakeloop.cli.demo import NAMESPACE, condition

pytestmark = pytest.mark.e2e
SPEC: Mapping[str, Any] = {
    "inputs": [{"name": "points", "uri": "s3a://lake/quickstart/points", "version": 0}],
    "dataset": {"features": ["feature"], "target": "target", "split": {"testFraction": 0}},
    "estimator": {"library": "sklearn", "steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
    "spark": {"executor": {"instances": 0}},
}
MLFLOW = "app.kubernetes.io/name=mlflow"
WAITING = {
    "missing-bucket": ({"inputs": [{"name": "points", "uri": "s3a://no-such-bucket/points"}]}, "spec.inputs[0]"),
    "missing-table": ({"inputs": [{"name": "points", "uri": "s3a://lake/no/such/table"}]}, "spec.inputs[0]"),
    "missing-version": (
        {"inputs": [{"name": "points", "uri": "s3a://lake/quickstart/points", "version": 4000}]},
        "spec.inputs[0].version",
    ),
    "missing-secret": ({"storage": {"secretRef": {"name": "nobody"}}}, "spec.storage.secretRef"),
    "incomplete-secret": ({"storage": {"secretRef": {"name": "bad-incomplete"}}}, "AWS_SECRET_ACCESS_KEY"),
    "wrong-credentials": ({"storage": {"secretRef": {"name": "bad-keys"}}}, "spec.storage.secretRef"),
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
    "all-null-target": (
        {"inputs": [{"name": "points", "uri": "s3a://lake/bad/nulls"}]},
        "Data",
        "spec.dataset.target",
    ),
    "empty-table": ({"inputs": [{"name": "points", "uri": "s3a://lake/bad/empty"}]}, "Data", "spec.inputs[0]"),
}


@pytest.fixture(scope="module", autouse=True)
def tables(platform: Platform) -> Iterator[None]:
    """The quickstart's table, one without rows, one without targets; Secrets that are no good. Jobs are gone after."""
    platform.kubectl("apply", "-f", "samples/quickstart/1-data.yaml")
    platform.kubectl("apply", "-f", "samples/quickstart/2-train.yaml")
    platform.succeeded("quickstart")
    for name, targets in {"nulls": [None, None, None], "empty": []}.items():
        features = arrow.Array(list(range(len(targets))), type=arrow.DataType.int64())
        rows = arrow.Table({"feature": features, "target": arrow.Array(targets, type=arrow.DataType.int64())})
        deltalake.write_deltalake(f"s3://lake/bad/{name}", rows, mode="overwrite", storage_options=platform.delta)
    platform.secret("bad-keys", {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing-at-all"})
    platform.secret("bad-incomplete", {"AWS_ACCESS_KEY_ID": "nobody"})
    yield
    platform.kubectl("-n", NAMESPACE, "delete", "secret", "bad-keys", "bad-incomplete")


@pytest.mark.parametrize("name", WAITING)
def test_waits_and_says_for_what(platform: Platform, name: str) -> None:
    change, field = WAITING[name]
    job = f"bad-{name}"
    platform.job(job, {**SPEC, **change})
    seen = platform.until("trainingjob", job, lambda obj: condition(obj, "Stalled").get("status") == "True")
    assert field in condition(seen, "Stalled")["message"]
    assert seen["status"]["run"]["phase"] == "Pending"
    assert platform.pods(f"lakeloop.io/training-job={job}") == []
    assert condition(seen, "Stalled")["reason"] in platform.warnings(job)
    platform.kubectl("-n", NAMESPACE, "delete", "tj", job, "--wait=true")


@pytest.mark.parametrize("name", FAILING)
def test_fails_with_its_class(platform: Platform, name: str) -> None:
    change, failure_class, field = FAILING[name]
    job = f"bad-{name}"
    platform.job(job, {**SPEC, **change})
    seen = platform.until("trainingjob", job, lambda obj: obj.get("status", {}).get("run", {}).get("phase") == "Failed")
    failure = seen["status"]["run"]["failure"]
    assert failure["class"] == failure_class
    assert field in failure["message"]
    assert condition(seen, "Stalled")["status"] == "True"
    assert failure["reason"] in platform.warnings(job)
    live = [pod["status"]["phase"] for pod in platform.pods(f"lakeloop.io/training-job={job}")]
    assert set(live) <= {"Succeeded", "Failed"}
    platform.kubectl("-n", NAMESPACE, "delete", "tj", job, "--wait=true")
    until(lambda: {"pods": platform.pods(f"lakeloop.io/training-job={job}")}, lambda seen: seen["pods"] == [], 60)


def test_what_was_missing_heals_by_itself(platform: Platform) -> None:
    job = "bad-then-good"
    platform.job(job, {**SPEC, "storage": {"secretRef": {"name": "comes-later"}}})
    platform.until("trainingjob", job, lambda obj: condition(obj, "Stalled").get("status") == "True")
    platform.secret("comes-later", platform.keys)
    platform.succeeded(job)
    platform.kubectl("-n", NAMESPACE, "delete", f"tj/{job}", "secret/comes-later")


def test_a_run_waits_for_mlflow_and_goes_on(platform: Platform) -> None:
    job = "bad-no-mlflow"
    mlflow = ("-n", "lakeloop-platform", "scale", "deployment/mlflow")
    platform.kubectl(*mlflow, "--replicas=0")
    try:
        platform.kubectl("-n", "lakeloop-platform", "wait", "pod", "--for=delete", "--timeout=60s", "-l", MLFLOW)
        platform.job(job, SPEC)
        seen = platform.until(
            "trainingjob", job, lambda obj: condition(obj, "Stalled").get("reason") == "TrackingUnavailable"
        )
        assert "spec.tracking" in condition(seen, "Stalled")["message"]
        assert platform.pods(f"lakeloop.io/training-job={job}") == []
    finally:
        platform.kubectl(*mlflow, "--replicas=1")
    platform.succeeded(job)
    platform.kubectl("-n", NAMESPACE, "delete", "tj", job)


def test_two_jobs_that_register_one_name_make_two_versions(platform: Platform) -> None:
    jobs = ("bad-twin-a", "bad-twin-b")
    for job in jobs:
        platform.job(job, {**SPEC, "register": {"model": "twins"}})
    runs = [platform.succeeded(job) for job in jobs]
    assert len({run["model"]["version"] for run in runs}) == 2
    for run in runs:
        found = platform.mlflow("GET", "model-versions/get", name="twins", version=run["model"]["version"])
        tags = {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}
        assert found["model_version"]["run_id"] == run["mlflow"]["runId"]
        assert tags["lakeloop.io/run-uid"] == run["uid"]
    platform.kubectl("-n", NAMESPACE, "delete", "tj", *jobs)


def test_a_deployment_waits_for_its_model(platform: Platform) -> None:
    spec = {"model": {"name": "no-such-model", "alias": "champion"}}
    platform.apply(manifest("ModelDeployment", "bad-nothing", spec))
    seen = platform.until(
        "modeldeployment", "bad-nothing", lambda obj: condition(obj, "Stalled").get("reason") == "ModelNotFound"
    )
    assert "no-such-model" in condition(seen, "Stalled")["message"]
    assert platform.pods("lakeloop.io/model-deployment=bad-nothing") == []
    platform.kubectl("-n", NAMESPACE, "delete", "md", "bad-nothing")
