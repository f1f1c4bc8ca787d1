"""What is said of pods, and when waiting is given up."""

from typing import Any

import pytest

from lakeloop.cli.progress import changes, hopeless, newest, state


def pod(name: str = "p", *, born: str = "2026-01-01T00:00:00Z", revision: str = "", **status: Any) -> dict[str, Any]:
    labels = {"pod-template-hash": revision} if revision else {}
    meta = {"name": name, "namespace": "ns", "creationTimestamp": born, "labels": labels}
    return {"metadata": meta, "status": status}


def container(name: str = "c", ready: bool = False, restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": name, "image": "i:1", "ready": ready, "restartCount": restarts, "state": state}


def waiting(reason: str, restarts: int = 0) -> dict[str, Any]:
    return container(restarts=restarts, waiting={"reason": reason})


READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, "creating"),
        ({"phase": "Running", "conditions": READY}, "ready"),
        ({"phase": "Succeeded"}, "done"),
        ({"containerStatuses": [waiting("ContainerCreating")]}, "creating"),
        ({"containerStatuses": [waiting("PodInitializing")]}, "creating"),
        ({"containerStatuses": [waiting("ImagePullBackOff")]}, "c: ImagePullBackOff"),
        ({"containerStatuses": [container(running={})]}, "c: starting"),
        ({"containerStatuses": [container(terminated={"exitCode": 3})]}, "c: ended with exit code 3 (Error)"),
        ({"initContainerStatuses": [container("init", running={})]}, "init: starting"),
        (
            {
                "initContainerStatuses": [container("init", ready=True, terminated={"exitCode": 0})],
                "containerStatuses": [container(running={})],
            },
            "c: starting",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no memory"}]},
            "not scheduled: no memory",
        ),
    ],
)
def test_state(status: dict[str, Any], expected: str) -> None:
    assert state(pod(**status)) == expected


def test_a_pod_that_goes_is_stopping_however_ready() -> None:
    going = pod(conditions=READY)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert state(going) == "stopping"


def test_changes_are_told_once() -> None:
    assert changes({}, {"b": "creating", "a": "ready"}) == [("a", "ready"), ("b", "creating")]
    assert changes({"a": "creating", "b": "ready"}, {"a": "ready", "b": "ready"}) == [("a", "ready")]
    assert changes({"a": "ready"}, {}) == [("a", "gone")]
    assert changes({"a": "ready"}, {"a": "ready"}) == []


@pytest.mark.parametrize(
    ("status", "part"),
    [
        (waiting("ErrImageNeverPull"), "load it"),
        (waiting("ImagePullBackOff"), "imagePullSecrets"),
        (waiting("CreateContainerConfigError"), "Secret or ConfigMap"),
        (waiting("CrashLoopBackOff", restarts=4), "ended 4 times"),
    ],
)
def test_hopeless(status: dict[str, Any], part: str) -> None:
    (line,) = hopeless([pod(containerStatuses=[status])])
    assert line.startswith("ns/p (c, i:1): ")
    assert part in line


@pytest.mark.parametrize("status", [waiting("CrashLoopBackOff", restarts=3), waiting("ContainerCreating")])
def test_not_hopeless_yet(status: dict[str, Any]) -> None:
    assert hopeless([pod(containerStatuses=[status])]) == []


def test_pods_of_an_older_revision_do_not_count() -> None:
    old = pod("web-a1-x", revision="a1", born="2026-01-01T00:00:00Z", containerStatuses=[waiting("ImagePullBackOff")])
    new = pod("web-b2-y", revision="b2", born="2026-01-01T00:01:00Z", conditions=READY)
    other = pod("store-0", containerStatuses=[waiting("ContainerCreating")])
    assert newest([new, old, other]) == [new, other]
    assert hopeless([old, new, other]) == []
    assert hopeless([old])
