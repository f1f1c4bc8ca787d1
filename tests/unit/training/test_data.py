"""What a run says of its data: expectations that the rows violate, and a pinned version that VACUUM may take."""

from datetime import timedelta
from typing import Any

import pytest
from unit.training.world import TABLE, World

from lakeloop.adapters.delta_log_protocol import Removed
from lakeloop.domain.training.driver import read_result

COUNTED = [
    {"name": "tenure-known", "violations": 3, "rows": 100},
    {"name": "spend-positive", "violations": 0, "rows": 100},
]


def expectations(kind: str) -> dict[str, Any]:
    rule = {"name": "tenure-known", "expression": "tenure IS NOT NULL", "onViolation": kind}
    return {"dataset": {"target": "churned", "expectations": [rule]}}


async def test_what_only_warns_is_told_by_condition_and_event() -> None:
    world = World()
    await world.until_running(**expectations("Warn"))
    world.ends(world.result(expectations=COUNTED))
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert world.run["expectations"] == COUNTED
    assert world.condition("DataValid") == ("True", "RunSucceeded")
    assert world.message("DataValid") == "the data violates tenure-known (3 of 100 rows), which only warns"
    told = [event for _, event in world.kubernetes.events if event.reason == "ExpectationViolated"]
    assert [event.type for event in told] == ["Warning"]
    assert world.status["history"][0]["expectations"] == COUNTED


async def test_what_fails_is_final() -> None:
    world = World()
    await world.until_running(**expectations("Fail"))
    failed = world.failure("Data", "ExpectationViolated", "spec.dataset.expectations")
    world.ends(failed | {"expectations": COUNTED}, code=1)
    await world.settle()
    assert world.run["phase"] == "Failed"
    assert world.run["expectations"] == COUNTED
    assert world.condition("DataValid") == ("False", "ExpectationViolated")
    assert world.condition("Stalled") == ("True", "ExpectationViolated")


async def test_counts_that_the_message_lost_are_those_of_the_record() -> None:
    world = World()
    await world.until_running(**expectations("Fail"))
    failed = world.failure("Data", "ExpectationViolated", "spec.dataset.expectations")
    world.records(failed | {"expectations": COUNTED})
    world.ends(failed | {"expectations": None}, code=1)
    await world.settle()
    assert world.run["expectations"] == COUNTED
    assert world.run["failure"]["reason"] == "ExpectationViolated"


@pytest.mark.parametrize(
    "said",
    [3, "x", [3], [{}], [{"name": 1, "violations": 1, "rows": 1}], [{"name": "a", "violations": -1, "rows": 1}],
     [{"name": "a", "violations": True, "rows": 1}], [{"name": "a", "violations": 1.5, "rows": 1}],
     [{"name": "a" * 300, "violations": 1, "rows": 1}], [{"name": "a", "violations": 1, "rows": 10**30}]],
)  # fmt: skip
def test_counts_that_are_none(said: Any) -> None:
    """Status would not take them, and every later pass would end there."""
    found = read_result({"uid": "u", "attempt": 1, "outcome": "Succeeded", "metrics": {}, "expectations": said}, "u", 1)
    assert found is not None
    assert list(found.expectations) == []
    assert found.whole


def pinned(**parts: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "customers", "uri": TABLE, **parts}]}


VACUUMED = {
    "taken": (False, timedelta(0), "VersionVacuumed"),
    "may be taken": (True, timedelta(days=8), "VersionMayBeVacuumed"),
}


@pytest.mark.parametrize("name", VACUUMED)
@pytest.mark.parametrize("by", ["version", "timestamp"])
async def test_a_version_that_vacuum_takes_fails_before_launch(name: str, by: str) -> None:
    there, ago, reason = VACUUMED[name]
    world = World()
    world.tables.commit(TABLE, world.clock.now())
    removed = Removed(1, world.clock.now() - ago, there, timedelta(days=7))
    world.tables.removed[TABLE, 0 if by == "version" else 1] = removed
    world.apply(**pinned(**({"version": 0} if by == "version" else {"timestamp": world.clock.now().isoformat()})))
    await world.settle()
    assert world.run["phase"] == "Failed"
    assert (world.run["failure"]["class"], world.run["failure"]["reason"]) == ("Data", reason)
    assert world.run["failure"]["field"] == f"spec.inputs[0].{by}"
    assert world.condition("DataValid") == ("False", reason)
    assert world.drivers == []


async def test_the_latest_version_is_not_looked_into() -> None:
    world = World()
    world.tables.removed[TABLE, 0] = Removed(1, world.clock.now(), False, timedelta(days=7))
    await world.until_succeeded(**pinned())
    assert world.run["phase"] == "Succeeded"


async def test_a_version_that_is_kept_is_read() -> None:
    world = World()
    world.tables.removed[TABLE, 0] = Removed(1, world.clock.now(), True, timedelta(days=7))
    await world.until_succeeded(**pinned(version=0))
    assert world.run["phase"] == "Succeeded"
