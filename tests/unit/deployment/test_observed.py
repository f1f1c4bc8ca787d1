"""Reading pods and Deployments, and telling drift from what is only different in form."""

import json
from typing import Any

import pytest

from lakeloop.domain.covers import covers
from lakeloop.domain.deployment.observed import Death, pod_of, servers_of


def pod(name: str = "p", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": {"lakeloop.io/revision": "r1"},
            "creationTimestamp": "2026-11-24T08:00:01Z",
        },
        "status": {"phase": "Running", "podIP": "10.0.0.9"} | status,
    }


def container(**parts: Any) -> list[dict[str, Any]]:
    return [{"name": "sidecar"}, {"name": "server"} | parts]


def ended(**parts: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": 3, "reason": "Error"} | parts}


LAST_WORDS = json.dumps({"reason": "LoadFailed", "message": "no such class"})


@pytest.mark.parametrize(
    ("status", "death", "waiting"),
    [
        pytest.param({}, None, None, id="nothing-known"),
        pytest.param(
            {"containerStatuses": container(state=ended(message=LAST_WORDS))},
            Death("LoadFailed", "no such class", 0),
            None,
            id="last-words",
        ),
        pytest.param(
            {
                "containerStatuses": container(
                    restartCount=4,
                    state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    lastState=ended(message=LAST_WORDS),
                )
            },
            Death("LoadFailed", "no such class", 4),
            "CrashLoopBackOff: back-off",
            id="between-two-tries",
        ),
        pytest.param(
            {"containerStatuses": container(restartCount=3, lastState=ended(exitCode=137, reason="OOMKilled"))},
            Death("", "the server ended with exit code 137, OOMKilled", 3, out_of_memory=True),
            None,
            id="out-of-memory",
        ),
        pytest.param(
            {"containerStatuses": container(lastState=ended(message='["not", "ours"]'))},
            Death("", "the server ended with exit code 3, Error", 0),
            None,
            id="words-of-something-else",
        ),
        pytest.param(
            {"containerStatuses": container(state={"waiting": {"reason": "ContainerCreating"}})},
            None,
            None,
            id="starting",
        ),
        pytest.param(
            {"containerStatuses": container(state={"waiting": {"reason": "ImagePullBackOff"}})},
            None,
            "ImagePullBackOff",
            id="no-image",
        ),
        pytest.param(
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
                ]
            },
            None,
            "Unschedulable: 0/1 nodes",
            id="no-room",
        ),
        pytest.param({"containerStatuses": []}, None, None, id="empty-statuses"),
    ],
)
def test_pod(status: dict[str, Any], death: Death | None, waiting: str | None) -> None:
    found = pod_of(pod(**status))
    assert found is not None
    assert (found.death, found.waiting, found.ready, found.ip) == (death, waiting, False, "10.0.0.9")


def test_ready_pod() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-24T08:00:05Z"}
    found = pod_of(pod(conditions=[ready]))
    assert found is not None
    assert found.ready
    assert found.ready_since is not None
    assert found.ready_since.second == 5


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param({"metadata": {"deletionTimestamp": "2026-11-24T08:00:09Z"}}, id="deleted"),
        pytest.param({"status": {"phase": "Failed"}}, id="evicted"),
    ],
)
def test_pod_on_its_way_out(gone: dict[str, Any]) -> None:
    leaving = pod()
    for part, values in gone.items():
        leaving[part] = leaving[part] | values
    assert pod_of(leaving) is None


def deployment(created: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "churn-r1",
            "creationTimestamp": created,
            "labels": {"lakeloop.io/revision": "r1", "lakeloop.io/model-version": "5"},
        },
        "spec": {"replicas": 2},
        "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]},
    }


def test_deployment() -> None:
    mine = pod_of(pod())
    assert mine is not None
    servers = servers_of(deployment("2026-11-24T08:00:00Z"), (mine,))
    assert (servers.version, servers.replicas, servers.pods, servers.refused) == (5, 2, (mine,), "exceeded quota")


def test_pods_of_an_earlier_deployment_of_that_name_are_not_its() -> None:
    old = pod_of(pod())
    assert old is not None
    assert servers_of(deployment("2026-11-24T09:00:00Z"), (old,)).pods == ()


@pytest.mark.parametrize(
    ("live", "wanted", "same"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, True, id="others-may-add"),
        pytest.param({"a": 1}, {"a": 2}, False, id="changed"),
        pytest.param({}, {"a": 1}, False, id="missing"),
        pytest.param(None, {"a": 1}, False, id="no-object"),
        pytest.param({"l": [{"x": 1, "default": 0}]}, {"l": [{"x": 1}]}, True, id="defaults-in-lists"),
        pytest.param({"l": [1, 2]}, {"l": [1]}, False, id="longer-list"),
        pytest.param({"l": [1]}, {"l": (1,)}, True, id="tuple"),
        pytest.param({"selector": {"a": "1", "b": "2"}}, {"selector": {"a": "1"}}, False, id="selector-is-exact"),
        pytest.param({"data": {"digest": "x", "y": "z"}}, {"data": {"digest": "x"}}, False, id="data-is-exact"),
        pytest.param(
            {"selector": {"matchLabels": {"a": "1"}, "x": 1}},
            {"selector": {"matchLabels": {"a": "1"}}},
            True,
            id="nested",
        ),
    ],
)
def test_covers(live: Any, wanted: Any, same: bool) -> None:
    assert covers(live, wanted) is same
