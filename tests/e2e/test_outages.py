"""MLflow, the object store and the operator gone for a while: runs wait, and nothing is lost or made twice."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from e2e.conftest import Platform, until
from e2e.faults import MLFLOW, OPERATOR, ended_well, quickstart, scale, upload_rows
from e2e.test_logs import log_of, settled, stored

from lakeloop.cli.demo import NAMESPACE, condition

pytestmark = pytest.mark.e2e
OUTAGE_SECONDS = 120
"""Of MLflow: the only time that is waited for, and not polled."""
UNTIL_MLFLOW_IS_GONE = """\
import os, time, urllib.request
import mlflow, numpy
from sklearn.linear_model import LogisticRegression

def answers():
    try:
        urllib.request.urlopen(os.environ["MLFLOW_TRACKING_URI"] + "/health", timeout=2)
    except OSError:
        return False
    return True

rows = numpy.arange(6).reshape(-1, 1)
model = LogisticRegression().fit(rows, [0, 0, 0, 1, 1, 1])
print("trained", flush=True)
while os.environ["LAKELOOP_ATTEMPT"] == "1" and answers():
    time.sleep(0.2)
mlflow.log_metric("accuracy", 1.0)
mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
print("logged", flush=True)
"""
THROUGH_A_RESTART = """\
import os, socket, threading, time, urllib.parse
import mlflow
from pyspark.sql import SparkSession
from sklearn.linear_model import LogisticRegression

store = urllib.parse.urlparse(os.environ["AWS_ENDPOINT_URL_S3"])
back = threading.Event()

def watch():
    gone = os.environ["LAKELOOP_ATTEMPT"] != "1"
    while not back.is_set():
        try:
            socket.create_connection((store.hostname, store.port), timeout=1).close()
        except OSError:
            gone = True
        else:
            if gone:
                back.set()
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
spark = SparkSession.builder.getOrCreate()
rounds = 0
while not back.is_set():
    rows = spark.table("points").count()
    spark.range(rows).write.mode("overwrite").parquet("s3a://lake/outage/written")
    rounds += 1
    print(f"round {rounds}: {rows} rows", flush=True)
mlflow.log_metric("rounds", rounds)
model = LogisticRegression().fit([[0], [1]], [0, 1])
mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
"""


@pytest.fixture(scope="module")
def outage(platform: Platform) -> Iterator[None]:
    """Both are gone at once: MLflow for two minutes, MinIO for as long as a killed pod takes to come back.

    One driver wants to log, one reads and writes, and of a third run, whose driver ended while no operator was there,
    the operator that comes back wants to register the model.
    """
    upload_rows(platform)
    try:
        begin_outage(platform)
        yield
    finally:
        jobs = ("tj/outage-registering", "tj/outage-logging", "tj/outage-reading")
        scripts = ("configmap/outage-logging", "configmap/outage-reading")
        platform.kubectl("-n", NAMESPACE, "delete", *jobs, *scripts, "--ignore-not-found", "--wait=true")


def begin_outage(platform: Platform) -> None:
    """Until everything is back."""
    script(platform, "outage-logging", UNTIL_MLFLOW_IS_GONE)
    script(platform, "outage-reading", THROUGH_A_RESTART)
    platform.job("outage-registering", quickstart("outage-registering"))
    platform.until("trainingjob", "outage-registering", launched, 300)
    try:
        scale(platform, OPERATOR, 0)
        until(lambda: driver(platform, "registering"), lambda pod: pod["status"]["phase"] == "Succeeded", 300)
        until(lambda: {"log": log(platform, "logging")}, lambda seen: "trained" in seen["log"], 300)
        until(lambda: {"log": log(platform, "reading")}, lambda seen: "round 2" in seen["log"], 300)
        scale(platform, MLFLOW, 0)
        gone = time.monotonic()
        platform.kubectl("-n", "lakeloop-platform", "delete", "pod", "minio-0", "--grace-period=0", "--force")
        scale(platform, OPERATOR, 1)
        seen = platform.until("trainingjob", "outage-registering", waits_for_mlflow, 300)
        assert seen["status"]["run"]["phase"] == "Evaluating"
        time.sleep(max(0.0, gone + OUTAGE_SECONDS - time.monotonic()))
    finally:
        scale(platform, OPERATOR, 1)
        scale(platform, MLFLOW, 1)
        platform.kubectl("-n", "lakeloop-platform", "rollout", "status", "statefulset/minio", "--timeout=300s")


def script(platform: Platform, name: str, text: str) -> None:
    """Applies a job with that script."""
    code = {"name": name, "namespace": NAMESPACE}
    platform.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": code, "data": {"train.py": text}})
    found = {**quickstart(name), "script": {"configMapRef": {"name": name}, "path": "train.py"}}
    del found["estimator"]
    platform.job(name, found)
    platform.until("trainingjob", name, launched, 300)


def launched(obj: Mapping[str, Any]) -> bool:
    return "driverPod" in obj.get("status", {}).get("run", {})


def waits_for_mlflow(obj: Mapping[str, Any]) -> bool:
    return bool(condition(obj, "Stalled").get("reason") == "TrackingUnavailable")


def driver(platform: Platform, job: str) -> Mapping[str, Any]:
    (found,) = platform.pods(f"lakeloop.io/training-job=outage-{job},lakeloop.io/role=driver")
    return found


def log(platform: Platform, job: str) -> str:
    pod = driver(platform, job)
    return (
        ""
        if pod["status"]["phase"] == "Pending"
        else platform.kubectl("-n", NAMESPACE, "logs", pod["metadata"]["name"])
    )


def test_a_model_is_registered_when_mlflow_is_back(platform: Platform, outage: None) -> None:
    assert ended_well(platform, "outage-registering")["attempt"] == 1


def test_what_was_trained_is_logged_when_mlflow_is_back(platform: Platform, outage: None) -> None:
    run = ended_well(platform, "outage-logging")
    assert run["attempt"] == 1, "what was trained is not trained again"
    assert run["metrics"] == {"accuracy": 1.0}


def test_spark_goes_on_when_the_store_is_back(platform: Platform, outage: None) -> None:
    run = ended_well(platform, "outage-reading")
    assert run["attempt"] > 1 or run["metrics"]["rounds"] > 2, "a store that takes long to come back costs an attempt"
    run = platform.until("trainingjob", "outage-reading", settled, 120)["status"]["run"]
    objects, name = stored(platform, run["logs"]["uri"]), f"driver-{run['attempt']}"
    assert json.loads(objects[f"{name}.json"])["complete"] or not run["logs"]["complete"]
    kept = log_of(objects, name).decode().replace("\r\n", "\n").replace("\r", "\n")
    shown = platform.kubectl("-n", NAMESPACE, "logs", run["driverPod"])
    assert kept == shown if run["logs"]["complete"] else shown.startswith(kept)
