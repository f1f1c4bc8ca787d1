"""Logs in the object store: the same as the pod's own, there to the last seconds, and bounded."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lakeloop.cli.demo import NAMESPACE, fresh, job_over

pytestmark = pytest.mark.e2e
DATA = Path(__file__).parents[2] / "samples/quickstart/1-data.yaml"
SPEC: Mapping[str, Any] = {
    "inputs": [
        {
            "name": "points",
            "uri": "s3a://lake/logs-points",
            "ingest": {"from": "s3a://raw/quickstart/*.json", "format": "json"},
        }
    ],
    "dataset": {"features": ["feature"], "target": "target", "split": {"testFraction": 0}},
    "estimator": {"steps": [{"class": "sklearn.linear_model.LogisticRegression", "params": {"C": 1}}]},
    "explanation": {"method": "None"},
    "spark": {"executor": {"instances": 0}},
}


@pytest.fixture(scope="module", autouse=True)
def data(platform: Any) -> None:
    """The quickstart's rows."""
    platform.kubectl("apply", "-f", str(DATA))
    platform.until("job", "quickstart-data", job_over)


def stored(platform: Any, uri: str) -> dict[str, bytes]:
    """Name below the folder → content. The last part of a log goes as the log grows, and so do event logs in progress."""
    bucket, _, prefix = uri.removeprefix("s3a://").partition("/")
    pages = platform.store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
    found = {}
    for key in keys:
        with suppress(platform.store.exceptions.NoSuchKey):
            found[key[len(prefix) + 1 :]] = platform.store.get_object(Bucket=bucket, Key=key)["Body"].read()
    return found


def log_of(objects: Mapping[str, bytes], name: str) -> bytes:
    return b"".join(objects[key] for key in sorted(objects) if key.startswith(f"{name}.") and key.endswith(".log"))


def settled(obj: Mapping[str, Any]) -> bool:
    """Whether it is said if the logs are whole."""
    run = obj.get("status", {}).get("run", {})
    return fresh(obj) and run.get("logs", {}).get("complete") is not None


@pytest.fixture(scope="module")
def run(platform: Any) -> Any:
    """A run with an executor, and its logs' state known."""
    platform.job("logs", {**SPEC, "spark": {"executor": {"instances": 1}}})
    platform.succeeded("logs")
    return platform.until("trainingjob", "logs", settled, 120)["status"]["run"]


def test_they_are_whole_and_linked(platform: Any, run: Any) -> None:
    mlflow = platform.mlflow("GET", "runs/get", run_id=run["mlflow"]["runId"])["run"]
    artifacts = mlflow["info"]["artifact_uri"].replace("s3://", "s3a://")
    assert run["logs"] == {"uri": f"{artifacts}/logs", "complete": True}
    assert {"key": "lakeloop.io/logs", "value": run["logs"]["uri"]} in mlflow["data"]["tags"]
    files = platform.mlflow("GET", "artifacts/list", run_id=run["mlflow"]["runId"], path="logs")["files"]
    assert "logs/driver-1.000001.log" in {each["path"] for each in files}


def test_the_stored_log_is_the_pods(platform: Any, run: Any) -> None:
    objects = stored(platform, run["logs"]["uri"])
    shown = platform.kubectl("-n", NAMESPACE, "logs", run["driverPod"])
    assert log_of(objects, "driver-1").decode().replace("\r\n", "\n").replace("\r", "\n") == shown
    assert "training rows" in shown
    assert json.loads(objects["driver-1.json"])["bytes"] == len(shown.encode())


def test_executor_and_event_log_are_there(platform: Any, run: Any) -> None:
    objects = stored(platform, run["logs"]["uri"])
    assert "executor-1-1.json" in objects
    assert b"Executor" in log_of(objects, "executor-1-1") or b"WARN" in log_of(objects, "executor-1-1")
    events = [name for name in objects if name.startswith("events/")]
    assert any("/events_1_" in name for name in events)
    assert not any(name.endswith(".inprogress") for name in events)


def test_no_credential_is_in_them(platform: Any, run: Any) -> None:
    everything = b"".join(stored(platform, run["logs"]["uri"]).values())
    assert platform.keys["AWS_SECRET_ACCESS_KEY"].encode() not in everything


def test_a_driver_deleted_without_grace(platform: Any) -> None:
    """Its log is there up to the last seconds; whether it is whole is said, whichever it is."""
    platform.job("logs-killed", {**SPEC, "runPolicy": {"retries": {"infrastructure": 0}}})

    def at_work(obj: Mapping[str, Any]) -> bool:
        found = obj.get("status", {}).get("run", {})
        if not found.get("logs") or found.get("phase") not in ("Running", "Evaluating"):
            return False
        return b"INFO" in log_of(stored(platform, found["logs"]["uri"]), "driver-1")

    uri = ""
    try:
        before = platform.until("trainingjob", "logs-killed", at_work, 180)["status"]["run"]
        uri = before["logs"]["uri"]
        shown = platform.kubectl("-n", NAMESPACE, "logs", before["driverPod"])
        platform.kubectl("-n", NAMESPACE, "delete", "pod", before["driverPod"], "--grace-period=0", "--force")
        after = platform.until("trainingjob", "logs-killed", settled, 180)["status"]["run"]
        assert after["phase"] in ("Failed", "Succeeded")  # it may have been done before the deletion came
        kept = log_of(stored(platform, uri), "driver-1").decode()
        assert kept.startswith(shown[: len(kept)])
        assert len(kept) >= len(shown) or not after["logs"]["complete"]
        assert json.loads(stored(platform, uri)["driver-1.json"])["complete"] is after["logs"]["complete"]
    finally:
        platform.kubectl("-n", NAMESPACE, "delete", "trainingjob", "logs-killed", "--wait=true")


def test_a_driver_that_is_stopped_has_its_last_words_kept(platform: Any) -> None:
    platform.job("logs-stopped", SPEC)
    platform.until(
        "trainingjob",
        "logs-stopped",
        lambda obj: fresh(obj) and obj.get("status", {}).get("run", {}).get("phase") == "Running",
        180,
    )
    platform.kubectl("-n", NAMESPACE, "annotate", "tj/logs-stopped", f"lakeloop.io/stop={time.time_ns()}")
    run = platform.until("trainingjob", "logs-stopped", settled, 180)["status"]["run"]
    if run["phase"] == "Stopped":
        assert run["logs"]["complete"] is True
        assert b"terminated" in log_of(stored(platform, run["logs"]["uri"]), "driver-1")


def test_tail_bytes(platform: Any) -> None:
    policy = {"logs": {"tailBytes": 512}}
    platform.job("logs-tail", {**SPEC, "runPolicy": policy})
    platform.succeeded("logs-tail")
    run = platform.until("trainingjob", "logs-tail", settled, 120)["status"]["run"]
    objects = stored(platform, run["logs"]["uri"])
    marker = json.loads(objects["driver-1.json"])
    note, _, kept = log_of(objects, "driver-1").partition(b"\n")
    assert marker["dropped"] > 0
    assert note.decode() == (
        f"[lakeloop: the first {marker['dropped']} bytes were not kept; runPolicy.logs.tailBytes is 512]"
    )
    assert len(kept) == marker["bytes"] - marker["dropped"] <= 512
    assert platform.kubectl("-n", NAMESPACE, "logs", run["driverPod"]).encode().endswith(kept)


def test_no_logs(platform: Any) -> None:
    policy = {"logs": {"tailBytes": 0}}
    platform.job("logs-none", {**SPEC, "runPolicy": policy})
    run = platform.succeeded("logs-none")
    assert "logs" not in run
    (pod,) = platform.pods("lakeloop.io/training-job=logs-none,lakeloop.io/role=driver")
    assert "initContainers" not in pod["spec"]
