"""Runs that a clock and commits start, on the real node: the two samples as written, and what must start nothing."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import arro3.core as arrow
import deltalake
import pytest
from e2e.conftest import Platform

from lakeloop.cli.demo import NAMESPACE, condition, job_over

pytestmark = pytest.mark.e2e
SAMPLES = Path(__file__).parents[2] / "samples"
TABLE = "s3://lake/delta-trigger/readings"


def apply_job(platform: Platform, manifest: Path, name: str) -> None:
    """Applies a sample's Kubernetes Job, new, and waits for its end."""
    platform.kubectl("-n", NAMESPACE, "delete", "job", name, "--ignore-not-found", "--wait=true")
    platform.kubectl("apply", "-f", str(manifest))
    platform.until("job", name, job_over)


def apply_training(platform: Platform, manifest: Path, name: str) -> Mapping[str, Any]:
    """Applies a sample's TrainingJob, new, and follows its first run."""
    platform.kubectl("-n", NAMESPACE, "delete", "trainingjob", name, "--ignore-not-found", "--wait=true")
    platform.kubectl("apply", "-f", str(manifest))
    return platform.succeeded(name)


def started_by(trigger: str, number: int) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a run of that number, or a later one, is there, started by the trigger."""

    def done(obj: Mapping[str, Any]) -> bool:
        run = obj["status"]["run"]
        return bool(run["number"] >= number and run["trigger"] == trigger)

    return done


@pytest.fixture
def cron(platform: Platform) -> Iterator[None]:
    """The sample `cron`, gone afterwards: it would go on for ever."""
    apply_job(platform, SAMPLES / "cron/1-data.yaml", "cron-data")
    apply_training(platform, SAMPLES / "cron/2-train.yaml", "cron")
    yield
    platform.kubectl("-n", NAMESPACE, "delete", "tj", "cron", "--wait=true")


@pytest.fixture
def following(platform: Platform) -> Iterator[Mapping[str, Any]]:
    """The sample `delta-trigger`'s first run; the job is gone afterwards."""
    apply_job(platform, SAMPLES / "delta-trigger/1-table.yaml", "delta-trigger-table")
    yield apply_training(platform, SAMPLES / "delta-trigger/2-train.yaml", "delta-trigger")
    platform.kubectl("-n", NAMESPACE, "delete", "tj", "delta-trigger", "--wait=true")


def test_a_tick_starts_a_run(platform: Platform, cron: None) -> None:
    job = platform.until("trainingjob", "cron", lambda obj: "nextScheduleTime" in obj["status"], 30)
    assert condition(job, "Ready")["status"] == "True"
    job = platform.until("trainingjob", "cron", started_by("Schedule", 2), 180)
    run = job["status"]["run"]
    tick, begun = datetime.fromisoformat(run["triggerKey"]), datetime.fromisoformat(run["startTime"])
    assert (tick.second, tick.minute % 2) == (0, 0)
    assert 0 <= (begun - tick).total_seconds() < 10
    assert condition(job, "Ready")["status"] == "True", "the last run was good"
    platform.kubectl("-n", NAMESPACE, "annotate", "tj", "cron", "lakeloop.io/suspend=on-1", "--overwrite")
    job = platform.until("trainingjob", "cron", lambda obj: condition(obj, "Suspended").get("status") == "True", 60)
    assert "nextScheduleTime" not in job["status"]
    number = job["status"]["run"]["number"]
    platform.kubectl("-n", NAMESPACE, "annotate", "tj", "cron", "lakeloop.io/suspend=off-2", "--overwrite")
    platform.until("trainingjob", "cron", started_by("Schedule", number), 180)


def append(platform: Platform, count: int) -> int:
    """Adds rows. Returns the version."""
    minutes = arrow.Array(list(range(count)), type=arrow.DataType.int64())
    warm = arrow.Array([20.0] * count, type=arrow.DataType.float64())
    rows = arrow.Table({"minute": minutes, "temperature": warm})
    deltalake.write_deltalake(TABLE, rows, mode="append", storage_options=platform.delta)
    return int(deltalake.DeltaTable(TABLE, storage_options=platform.delta).version())


def test_a_commit_starts_a_run_and_maintenance_does_not(platform: Platform, following: Mapping[str, Any]) -> None:
    first = following["inputs"][0]["version"]
    apply_job(platform, SAMPLES / "delta-trigger/3-commit.yaml", "delta-trigger-commit")
    job = platform.until("trainingjob", "delta-trigger", started_by("DeltaCommit", 2), 60)
    assert job["status"]["run"]["triggerKey"] == f"readings@{first + 1}"
    run = platform.succeeded("delta-trigger")
    assert (run["number"], run["inputs"][0]["version"]) == (2, first + 1)
    # an OPTIMIZE and three rows are too little, eight rows more are enough
    deltalake.DeltaTable(TABLE, storage_options=platform.delta).optimize.compact()
    append(platform, 3)
    newest = append(platform, 8)
    committed = datetime.now(UTC)
    job = platform.until("trainingjob", "delta-trigger", started_by("DeltaCommit", 3), 60)
    run = job["status"]["run"]
    assert (run["number"], run["triggerKey"]) == (3, f"readings@{newest}")
    reaction = (datetime.fromisoformat(run["startTime"]) - committed).total_seconds()
    assert 3 <= reaction < 5 + 10, "after the debounce of 5 s, and soon"
