"""Executors that come as they are needed, and code that raises once and is tried again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lakeloop.cli.demo import NAMESPACE, job_over

pytestmark = pytest.mark.e2e
NAME = "run-policy"
DATA = Path(__file__).parents[2] / "samples/quickstart/1-data.yaml"
CODE = """
import mlflow
from pyspark.sql import SparkSession

from lakeloop_run import train_rows

spark = SparkSession.builder.getOrCreate()


def slow(rows):
    import time

    time.sleep(10)  # work enough that an executor is asked for, and that it gets some of it
    return rows


with mlflow.start_run() as run:
    tried = mlflow.MlflowClient().get_run(run.info.run_id).data.tags.get("tried")
    mlflow.set_tag("tried", "yes")
    if tried is None:
        raise ConnectionError("the other side is not there yet")
    spark.sparkContext.parallelize(range(4), 4).mapPartitions(slow).count()
    mlflow.log_metric("rows", train_rows().count())
"""
SPEC: Mapping[str, Any] = {
    "inputs": [
        {
            "name": "points",
            "uri": "s3a://lake/run-policy-points",
            "ingest": {"from": "s3a://raw/quickstart/*.json", "format": "json", "mode": "Overwrite"},
        }
    ],
    "dataset": {"split": {"testFraction": 0}},
    "script": {"configMapRef": {"name": NAME}, "path": "train.py"},
    "spark": {
        "executor": {"cores": 1, "memory": "1Gi"},
        "dynamicAllocation": {"enabled": True, "minExecutors": 0, "maxExecutors": 2},
    },
    "runPolicy": {"retries": {"application": 1}},
}


@pytest.fixture(scope="module")
def run(platform: Any) -> Iterator[Mapping[str, Any]]:
    """The run, once it went well."""
    platform.kubectl("apply", "-f", str(DATA))
    platform.until("job", "quickstart-data", job_over)
    metadata = {"name": NAME, "namespace": NAMESPACE}
    platform.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"train.py": CODE}})
    platform.job(NAME, SPEC)
    yield platform.succeeded(NAME, timeout=600)
    platform.kubectl("-n", NAMESPACE, "delete", "tj,configmap", NAME)


def test_the_second_attempt_went_well(platform: Any, run: Mapping[str, Any]) -> None:
    assert (run["attempt"], run["metrics"]) == (2, {"rows": 5})
    pods = {
        pod["metadata"]["name"] for pod in platform.pods(f"lakeloop.io/training-job={NAME},lakeloop.io/role=driver")
    }
    assert f"{NAME}-{run['number']}-2-driver" in pods


def test_another_executor_came_when_there_was_work_for_it(platform: Any, run: Mapping[str, Any]) -> None:
    """A run begins with one; four tasks of ten seconds are too many for it."""
    files = platform.mlflow("GET", "artifacts/list", run_id=run["mlflow"]["runId"], path="logs")["files"]
    logs = {Path(each["path"]).name for each in files}
    assert {"executor-2-1.000001.log", "executor-2-2.000001.log"} <= logs
    assert "executor-2-3.000001.log" not in logs
