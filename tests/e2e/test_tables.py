"""Raw files into a Delta table, run after run, and back in time: what each run learned from is what it says."""

from collections.abc import Mapping
from typing import Any

import pytest
from e2e.conftest import Platform

from lakeloop.cli.demo import NAMESPACE

pytestmark = pytest.mark.e2e
JOB = "tables"
TABLE = "s3a://lake/warehouse/e2e.db/readings"
ROWS = "t,y\n1,2\n2,4\n3,6\n4,9\n"


def spec(**source: Any) -> Mapping[str, Any]:
    """A regression over `readings`; everything happens in the driver."""
    return {
        "inputs": [{"name": "readings", **source}],
        "dataset": {"target": "y", "split": {"testFraction": 0}},
        "estimator": {"library": "sklearn", "steps": [{"class": "sklearn.linear_model.LinearRegression"}]},
        "spark": {"executor": {"instances": 0}},
    }


def learned(platform: Platform, run: Mapping[str, Any]) -> tuple[int, int]:
    """The table's version, and how many rows of it the run learned from."""
    logged = platform.mlflow("GET", "runs/get", run_id=run["mlflow"]["runId"])["run"]
    params = {each["key"]: each["value"] for each in logged["data"]["params"]}
    (entry,) = logged["inputs"]["dataset_inputs"]
    tags = {each["key"]: each["value"] for each in entry["tags"]}
    (pinned,) = run["inputs"]
    assert (tags["lakeloop.io/uri"], tags["lakeloop.io/version"]) == (TABLE, str(pinned["version"]))
    return pinned["version"], int(params["dataset.rows.train"])


def again(platform: Platform, action: str) -> Mapping[str, Any]:
    """The run that the action starts, once it went well."""
    before = platform.kubectl.get("trainingjob", JOB)["status"]["run"]["number"]
    platform.kubectl("-n", NAMESPACE, "annotate", "tj", JOB, f"lakeloop.io/run-now={action}", "--overwrite")
    platform.until("trainingjob", JOB, lambda obj: obj["status"]["run"]["number"] == before + 1, 30)
    return platform.succeeded(JOB)


@pytest.fixture(scope="module")
def runs(platform: Platform) -> Mapping[str, Mapping[str, Any]]:
    """Three runs of a job that appends new files: the first file, a second one beside it, and nothing new."""
    store = platform.store
    for bucket, prefix in (("raw", "e2e-readings/"), ("lake", "warehouse/e2e.db/readings/")):
        for found in store.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []):
            store.delete_object(Bucket=bucket, Key=found["Key"])
    store.put_object(Bucket="raw", Key="e2e-readings/a.csv", Body=ROWS.encode())
    load = {"from": "s3a://raw/e2e-readings/*.csv", "format": "csv", "mode": "Append"}
    platform.job(JOB, spec(table="e2e.readings", ingest=load))
    first = platform.succeeded(JOB)
    store.put_object(Bucket="raw", Key="e2e-readings/b.csv", Body=b"t,y\n5,11\n6,13\n")
    return {"first": first, "second": again(platform, "more"), "third": again(platform, "nothing-new")}


def test_only_new_files_are_loaded(platform: Platform, runs: Mapping[str, Mapping[str, Any]]) -> None:
    assert {name: learned(platform, run) for name, run in runs.items()} == {
        "first": (0, 4),
        "second": (1, 6),
        "third": (1, 6),
    }


def test_overwrite_loads_all_files_into_one_new_version(platform: Platform, runs: object) -> None:
    load = {"from": "s3a://raw/e2e-readings/a.csv", "format": "csv", "mode": "Overwrite"}
    platform.job("tables-anew", spec(uri=TABLE, ingest=load))
    assert learned(platform, platform.succeeded("tables-anew")) == (2, 4)
    platform.kubectl("-n", NAMESPACE, "delete", "tj", "tables-anew")


@pytest.mark.parametrize("by", ["version", "timestamp"])
def test_back_in_time(platform: Platform, runs: Mapping[str, Mapping[str, Any]], by: str) -> None:
    # The second run began after the first one's commit and before its own.
    moment = {"version": {"version": 0}, "timestamp": {"timestamp": runs["second"]["startTime"]}}[by]
    platform.job("tables-then", spec(uri=TABLE, **moment))
    assert learned(platform, platform.succeeded("tables-then")) == (0, 4)
    platform.kubectl("-n", NAMESPACE, "delete", "tj", "tables-then")
