"""The samples of ingestion and of time travel, as written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Platform

from lakeloop.cli.demo import NAMESPACE, condition, fresh, job_over

pytestmark = pytest.mark.e2e
SAMPLES = Path(__file__).parents[2] / "samples"


def begin(platform: Platform, sample: str, *jobs: str) -> None:
    """The raw data is there, and nothing of an earlier run of this test."""
    for job in jobs:
        platform.kubectl("-n", NAMESPACE, "delete", "trainingjob", job, "--ignore-not-found", "--wait=true")
    for found in platform.store.list_objects_v2(Bucket="lake", Prefix=f"{sample}/").get("Contents", []):
        platform.store.delete_object(Bucket="lake", Key=found["Key"])
    platform.kubectl("apply", "-f", str(SAMPLES / sample / "1-data.yaml"))
    platform.until("job", f"{sample}-data", job_over)


def apply(platform: Platform, sample: str, file: str, job: str) -> Mapping[str, Any]:
    """The run that the file starts, once it went well."""
    platform.kubectl("apply", "-f", str(SAMPLES / sample / file))
    return platform.succeeded(job)


def logged(platform: Platform, run: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, float]]:
    """Parameters and metrics in MLflow."""
    data = platform.mlflow("GET", "runs/get", run_id=run["mlflow"]["runId"])["run"]["data"]
    params = {each["key"]: each["value"] for each in data.get("params", [])}
    return params, {each["key"]: each["value"] for each in data.get("metrics", [])}


def rows(params: Mapping[str, str]) -> int:
    return int(params["dataset.rows.train"]) + int(params["dataset.rows.test"])


def test_append_merge_and_overwrite(platform: Platform) -> None:
    begin(platform, "ingestion", "ingestion-append", "ingestion-merge", "ingestion-overwrite", "ingestion-violated")

    appended = apply(platform, "ingestion", "2-append.yaml", "ingestion-append")
    params, metrics = logged(platform, appended)
    assert (appended["inputs"][0]["version"], appended["inputs"][0]["files"], rows(params)) == (0, 2, 32)
    assert (params["dataset.split.column"], params["dataset.split.testFrom"]) == ("day", "2026-02-06")
    assert int(params["dataset.rows.test"]) == 8
    counted = {each["name"]: (each["violations"], each["rows"]) for each in appended["expectations"]}
    assert counted["visitors-known"] == counted["sold-positive"] == (0, 32)
    assert metrics["expectations.shop-busy.violations"] == counted["shop-busy"][0] > 0
    job = platform.kubectl.get("trainingjob", "ingestion-append")
    assert "shop-busy" in condition(job, "DataValid")["message"]
    assert "ExpectationViolated" in platform.warnings("ingestion-append")

    merged = apply(platform, "ingestion", "3-merge.yaml", "ingestion-merge")
    params, _ = logged(platform, merged)
    assert (merged["inputs"][0]["version"], rows(params)) == (1, 33)  # one row replaced, one added

    anew = apply(platform, "ingestion", "4-overwrite.yaml", "ingestion-overwrite")
    params, _ = logged(platform, anew)
    assert (anew["inputs"][0]["version"], rows(params)) == (2, 16)


def test_data_with_faults_is_not_learned_from(platform: Platform) -> None:
    begin(platform, "ingestion", "ingestion-violated")
    platform.kubectl("apply", "-f", str(SAMPLES / "ingestion/5-violated.yaml"))
    job = platform.until(
        "trainingjob",
        "ingestion-violated",
        lambda obj: fresh(obj) and obj["status"].get("run", {}).get("phase") in ("Failed", "Succeeded"),
    )
    run = job["status"]["run"]
    assert (run["failure"]["class"], run["failure"]["reason"]) == ("Data", "ExpectationViolated"), run
    assert "visitors-known (1 of 4 rows), sold-positive (2 of 4 rows)" in run["failure"]["message"]
    assert condition(job, "DataValid")["status"] == "False"
    assert {each["name"]: each["violations"] for each in run["expectations"]} == {
        "visitors-known": 1, "sold-positive": 2, "shop-busy": 2,
    }  # fmt: skip
    _, metrics = logged(platform, run)
    assert metrics["expectations.sold-positive.violations"] == 2


def test_back_to_the_first_version(platform: Platform) -> None:
    begin(platform, "time-travel", "time-travel", "time-travel-then")
    first = apply(platform, "time-travel", "2-first.yaml", "time-travel")
    second = apply(platform, "time-travel", "3-second.yaml", "time-travel")
    then = apply(platform, "time-travel", "4-then.yaml", "time-travel-then")
    assert [each["inputs"][0]["version"] for each in (first, second, then)] == [0, 1, 0]
    assert [rows(logged(platform, each)[0]) for each in (first, second, then)] == [4, 7, 4]
    assert then["metrics"] == first["metrics"] != second["metrics"]
