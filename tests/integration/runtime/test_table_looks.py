"""The operator as a process that follows a table: what wakes it up, how soon, and what a look costs."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_s3 import FakeS3
from integration.runtime.test_process import Start, registry, start
from kubectl import Kubectl, busy, eventually

from builders import TRAINING_SPEC

__all__ = ["registry", "start"]
LOG = "lake/customers/_delta_log"


@pytest.fixture
def store() -> Iterator[FakeS3]:
    with FakeS3() as fake:
        yield fake


def commit(store: FakeS3, version: int, operation: str = "WRITE", *, data: bool = True) -> None:
    """One commit of ten rows, or one that changes no data."""
    add = {"path": f"{version}.parquet", "dataChange": data, "stats": json.dumps({"numRecords": 10})}
    actions: list[dict[str, Any]] = [{"commitInfo": {"operation": operation}}, {"add": add}]
    store.put(f"{LOG}/{version:020d}.json", "\n".join(map(json.dumps, actions)).encode())


def run(kubectl: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = kubectl.get("tj", "churn").get("status", {}).get("run", {})
    return found


def test_a_commit_starts_a_run_and_a_look_costs_one_request(start: Start, kubectl: Kubectl, store: FakeS3) -> None:
    commit(store, 0)
    delta = {"input": "customers", "minRows": 15, "debounceSeconds": 1}
    job = {
        "apiVersion": "lakeloop.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "churn"},
        "spec": {**TRAINING_SPEC, "explanation": {"method": "None"}, "triggers": {"delta": delta}},
    }
    start(LAKELOOP_STORAGE_ENDPOINT=store.url, LAKELOOP_DELTA_POLL_SECONDS="1").wait_until_leading()
    kubectl.apply(job)
    eventually(lambda: bool(run(kubectl).get("inputs")))
    # There is no MLflow here that would take the run: it waits, and is stopped.
    kubectl("annotate", "tj/churn", "lakeloop.io/stop=1")
    eventually(lambda: run(kubectl)["phase"] == "Stopped")
    eventually(lambda: f"LIST {LOG}/0" in store.requests)
    version, began = kubectl.get("tj", "churn")["metadata"]["resourceVersion"], len(store.requests)
    eventually(lambda: len(store.requests) >= began + 4)
    assert set(store.requests[began:]) == {f"LIST {LOG}/0"}, "nothing is read while nothing changes"
    assert kubectl.get("tj", "churn")["metadata"]["resourceVersion"] == version, "and nothing is written"

    commit(store, 1, "OPTIMIZE", data=False)
    commit(store, 2)
    eventually(lambda: f"GET {LOG}/{2:020d}.json" in store.requests)
    assert run(kubectl)["number"] == 1, "ten rows are too few"
    commit(store, 3)
    committed = time.monotonic()
    eventually(lambda: run(kubectl)["number"] == 2)
    took = time.monotonic() - committed
    assert (run(kubectl)["trigger"], run(kubectl)["triggerKey"]) == ("DeltaCommit", "customers@3")
    assert took < 1 + 5 or busy(), (
        f"{took:.1f} s: the debounce of 1 s, a look every second, and the rest is the machine's"
    )
    gets = [each for each in store.requests if each.startswith(f"GET {LOG}/0")]
    assert len(gets) == len(set(gets)) == 3, "each commit is read once"
