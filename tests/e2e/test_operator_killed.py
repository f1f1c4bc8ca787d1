"""The operator killed in the middle of a run: whenever that is, the next one ends the run as if nothing had been."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from e2e.conftest import Platform, until
from e2e.faults import OPERATOR, ended_well, kill, operators, quickstart, rows, selector_of, upload_rows

from lakeloop.cli.demo import NAMESPACE

pytestmark = pytest.mark.e2e


def run_of(platform: Platform, job: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = platform.get("trainingjob", job).get("status", {}).get("run", {})
    return found


def versions(platform: Platform, job: str) -> set[str]:
    """The versions of the job's model."""
    found = platform.mlflow("GET", "model-versions/search", filter=f"name = '{job}'").get("model_versions", [])
    return {each["version"] for each in found}


POINTS: Mapping[str, Callable[[Platform, str, set[str]], bool]] = {
    "applied": lambda platform, job, old: True,
    "pinned": lambda platform, job, old: "inputs" in run_of(platform, job),
    "submitted": lambda platform, job, old: "driverPod" in run_of(platform, job),
    "running": lambda platform, job, old: run_of(platform, job).get("phase") == "Running",
    # the alias is still to be moved, and the run to be ended
    "registering": lambda platform, job, old: versions(platform, job) > old,
}
RUNS: Mapping[str, tuple[str, ...]] = {
    "killed-a": ("applied", "registering"),
    "killed-b": ("pinned", "running"),
    "killed-c": ("submitted",),
}
"""Which run is seen through which of them. Few at a time: the kubelet waits longer before each restart."""


@pytest.fixture(scope="module", autouse=True)
def data(platform: Platform) -> Iterator[None]:
    """The quickstart's rows; the jobs are gone afterwards."""
    upload_rows(platform)
    yield
    platform.kubectl("-n", NAMESPACE, "delete", "tj", *RUNS, "--ignore-not-found", "--wait=true")


@pytest.fixture
def pod(platform: Platform) -> Iterator[str]:
    """The operator's. Afterwards another one is there, whose restarts the kubelet does not delay yet."""
    namespace, name = OPERATOR
    selector = selector_of(platform, OPERATOR)  # not all pods: that of `helm test` stays there, and is over
    (found,) = json.loads(platform.kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "json"))["items"]
    own: str = found["metadata"]["name"]
    yield own
    platform.kubectl("-n", namespace, "delete", "pod", own, "--wait=true")
    platform.kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=300s")


@pytest.mark.parametrize("job", RUNS)
def test_the_end_is_the_same(platform: Platform, pod: str, job: str) -> None:
    before, old = rows(platform, job), versions(platform, job)
    platform.job(job, quickstart(job))
    for kills, point in enumerate(RUNS[job]):
        processes = running(platform, pod, kills)
        end = time.monotonic() + 300
        while not POINTS[point](platform, job, old):
            assert time.monotonic() < end
            time.sleep(0.01)  # a poll, and a short one: what follows may be done within milliseconds
        kill(processes)
    run = ended_well(platform, job)
    assert (run["number"], run["attempt"]) == (1, 1)
    assert rows(platform, job) == before + 5, "the raw data is loaded once"
    running(platform, pod, len(RUNS[job]))


def running(platform: Platform, pod: str, restarts: int) -> list[int]:
    """The operator's processes, once it has been restarted that often."""

    def up(obj: Mapping[str, Any]) -> bool:
        (container,) = obj["status"]["containerStatuses"]
        return bool(container["restartCount"] == restarts and "running" in container["state"])

    found = until(lambda: platform.get("pod", pod, OPERATOR[0]), up, 120)
    return operators(found["metadata"]["uid"])
