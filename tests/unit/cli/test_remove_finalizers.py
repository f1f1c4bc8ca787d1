"""What the pre-delete hook does, on a cluster of dictionaries."""

from collections.abc import Sequence
from typing import Any

import pytest

from lakeloop.cli.remove_finalizers import Conflict, free, remaining, stop_operator

OURS, OTHER = "lakeloop.io/cleanup", "example.com/other"


def obj(name: str, *finalizers: str, namespace: str = "a") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "finalizers": list(finalizers)}}


class Objects:
    """Objects by kind. `busy` of them are changed by somebody else before our first write."""

    def __init__(self, pods: Sequence[int] = (0,), busy: int = 0, **kinds: list[dict[str, Any]]) -> None:
        self.pods, self.busy, self.kinds = list(pods), busy, kinds
        self.writes = 0

    def stop_operator(self, namespace: str) -> int:
        assert namespace == "lakeloop-system"
        return self.pods.pop(0) if len(self.pods) > 1 else self.pods[0]

    def list(self, kind: str, namespace: str | None) -> Any:
        return [each for each in self.kinds.get(kind, []) if namespace in (None, each["metadata"]["namespace"])]

    def set_finalizers(self, kind: str, found: Any, finalizers: Sequence[str]) -> None:
        self.writes += 1
        if self.busy:
            self.busy -= 1
            raise Conflict
        found["metadata"]["finalizers"] = [*finalizers]


@pytest.mark.parametrize(
    ("finalizers", "expected"),
    [([], None), ([OTHER], None), ([OURS], []), ([OTHER, OURS], [OTHER])],
)
def test_remaining(finalizers: list[str], expected: list[str] | None) -> None:
    assert remaining(obj("x", *finalizers)) == expected


def test_both_kinds_are_freed_and_others_left() -> None:
    jobs = [obj("one", OURS), obj("two", OTHER), obj("three", OTHER, OURS, namespace="b")]
    deployments = [obj("four", OURS)]
    objects = Objects(trainingjobs=jobs, modeldeployments=deployments)
    assert free(objects, ()) == 3
    assert [each["metadata"]["finalizers"] for each in [*jobs, *deployments]] == [[], [OTHER], [OTHER], []]
    assert objects.writes == 3


def test_only_in_the_namespaces_that_were_watched() -> None:
    jobs = [obj("one", OURS, namespace="a"), obj("two", OURS, namespace="b")]
    assert free(Objects(trainingjobs=jobs), ["b"]) == 1
    assert [each["metadata"]["finalizers"] for each in jobs] == [[OURS], []]


def test_a_change_by_somebody_else_is_tried_again() -> None:
    jobs = [obj("one", OURS), obj("two", OURS)]
    objects = Objects(busy=1, trainingjobs=jobs)
    assert free(objects, ()) == 2
    assert objects.writes == 3
    assert all(each["metadata"]["finalizers"] == [] for each in jobs)


def test_waits_until_the_operator_is_gone() -> None:
    slept: list[float] = []
    stop_operator(Objects(pods=[2, 1, 0]), "lakeloop-system", 60, lambda: sum(slept), slept.append)
    assert slept == [1, 1]


def test_gives_up_on_an_operator_that_stays() -> None:
    slept: list[float] = []
    with pytest.raises(TimeoutError, match="1 pods of the operator are still there after 5 s"):
        stop_operator(Objects(pods=[1]), "lakeloop-system", 5, lambda: sum(slept), slept.append)
