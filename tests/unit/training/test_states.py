"""The state table of the API, row by row: what each condition says in each state."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from unit.training.world import TABLE, World

Way = Callable[[World], Awaitable[None]]


async def first_run_in_progress(world: World) -> None:
    await world.until_running()


async def later_run_in_progress(world: World) -> None:
    await world.until_succeeded()
    world.annotate("lakeloop.io/run-now", "monday")
    await world.settle()
    world.runs()
    await world.settle()


async def first_run_waits(world: World) -> None:
    del world.tables.tables[TABLE]
    world.apply()
    await world.settle()


async def later_run_waits(world: World) -> None:
    await world.until_succeeded()
    del world.tables.tables[TABLE]
    world.annotate("lakeloop.io/run-now", "monday")
    await world.settle()


async def heals_by_itself(world: World) -> None:
    await first_run_waits(world)
    world.tables.commit(TABLE, world.clock.now())
    await world.settle()


async def finished_well(world: World) -> None:
    await world.until_succeeded()


async def finished_badly(world: World) -> None:
    await world.until_running()
    world.ends(world.failure("Data", "ColumnNotFound", "spec.dataset.target"), code=1)
    await world.settle()


async def suspended_before(world: World) -> None:
    world.apply(suspend=True)
    await world.settle()


async def suspended_after_success(world: World) -> None:
    await world.until_succeeded()
    world.apply(suspend=True)
    await world.settle()


async def resumed_after_success(world: World) -> None:
    await suspended_after_success(world)
    world.apply()
    await world.settle()


async def stopped_first_run(world: World) -> None:
    await world.until_running()
    world.annotate("lakeloop.io/stop", "now")
    await world.settle()


async def stopped_later_run(world: World) -> None:
    await later_run_in_progress(world)
    world.annotate("lakeloop.io/stop", "now")
    await world.settle()


async def not_implemented(world: World) -> None:
    world.apply(of_a_newer_release={"on": True})
    await world.settle()


async def spec_changed_while_running(world: World) -> None:
    await world.until_succeeded()
    world.annotate("lakeloop.io/run-now", "monday")
    await world.settle()
    world.runs()
    await world.settle()
    world.apply(dataset={"target": "other"})
    await world.settle()


FOLLOWING = {"triggers": {"delta": {"input": "customers", "debounceSeconds": 0}}}


async def triggered_run_in_progress(world: World) -> None:
    await world.until_succeeded(**FOLLOWING)
    world.clock.tick(10)
    world.tables.commit(TABLE, world.clock.now())
    await world.settle()
    world.runs()
    await world.settle()


async def trigger_cannot_fire(world: World) -> None:
    await world.until_succeeded(**FOLLOWING)
    del world.tables.tables[TABLE]
    world.clock.tick(10)
    await world.settle()


async def trigger_cannot_fire_after_a_failure(world: World) -> None:
    await world.until_running(**FOLLOWING)
    world.ends(world.failure("Data", "ColumnNotFound", "spec.dataset.target"), code=1)
    await world.settle()
    del world.tables.tables[TABLE]
    world.clock.tick(10)
    await world.settle()


# state: way, Ready, Reconciling, Stalled, and what else there is; a condition that is absent is None
ROWS: dict[str, tuple[Way, str, str | None, str | None, dict[str, Any]]] = {
    "first run of a new training spec in progress": (first_run_in_progress, "False", "True", None, {"Running": "True"}),
    "a later run in progress, the last one good": (later_run_in_progress, "True", None, None, {"Running": "True"}),
    "waiting, first run": (first_run_waits, "False", None, "True", {"Running": "False"}),
    "waiting, later run": (later_run_waits, "True", None, "True", {"Running": "False"}),
    "waiting, healed": (heals_by_itself, "False", "True", None, {"Running": "True"}),
    "a run that a trigger started, the last one good": (
        triggered_run_in_progress,
        "True",
        None,
        None,
        {"Running": "True"},
    ),
    "a trigger cannot fire": (trigger_cannot_fire, "True", None, "True", {"RunSucceeded": "True", "Running": "False"}),
    "neither, after a failure": (trigger_cannot_fire_after_a_failure, "False", None, "True", {"RunSucceeded": "False"}),
    "finished well": (finished_well, "True", None, None, {"RunSucceeded": "True", "DataValid": "True"}),
    "finished badly": (finished_badly, "False", None, "True", {"RunSucceeded": "False", "DataValid": "False"}),
    "suspended before any run": (suspended_before, "False", None, None, {"Suspended": "True"}),
    "suspended after a good run": (suspended_after_success, "True", None, None, {"Suspended": "True"}),
    "resumed after a good run": (resumed_after_success, "True", None, None, {"Suspended": "False"}),
    "first run stopped": (stopped_first_run, "False", None, "True", {"RunSucceeded": "False"}),
    "later run stopped": (stopped_later_run, "True", None, None, {"RunSucceeded": "False"}),
    "not implemented": (not_implemented, "False", None, "True", {}),
    "training spec changed while a run goes on": (spec_changed_while_running, "False", "True", None, {}),
}


@pytest.mark.parametrize("name", ROWS)
async def test_row(name: str) -> None:
    way, ready, reconciling, stalled, others = ROWS[name]
    world = World()
    await way(world)
    found = {kind: (world.condition(kind) or (None,))[0] for kind in ("Ready", "Reconciling", "Stalled", *others)}
    assert found == {"Ready": ready, "Reconciling": reconciling, "Stalled": stalled, **others}
    assert world.status["observedGeneration"] == world.job["metadata"]["generation"]
    assert all(each["observedGeneration"] <= world.job["metadata"]["generation"] for each in world.status["conditions"])


@pytest.mark.parametrize("name", ROWS)
async def test_a_pass_at_rest_writes_nothing(name: str) -> None:
    world = World()
    await ROWS[name][0](world)
    before = world.writes.made
    await world.step()
    assert world.writes.made == before, world.writes.log[before:]


async def test_transition_time_moves_with_the_status_only() -> None:
    world = World()
    await world.until_running()
    since = next(each for each in world.status["conditions"] if each["type"] == "Running")["lastTransitionTime"]
    world.clock.tick(30)
    world.runs(stage="Training", percent=10)
    await world.settle()
    assert "Training" in world.message("Running")
    assert next(e for e in world.status["conditions"] if e["type"] == "Running")["lastTransitionTime"] == since
    world.ends(world.result())
    await world.settle()
    assert next(e for e in world.status["conditions"] if e["type"] == "Running")["lastTransitionTime"] != since
