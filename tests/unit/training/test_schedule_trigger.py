"""A clock that starts runs: each tick at most once, over restarts, clocks that are set, and suspensions."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from unit.training.fakes import START
from unit.training.world import World

RUN_NOW, STOP, SUSPEND = "lakeloop.io/run-now", "lakeloop.io/stop", "lakeloop.io/suspend"
NINE, TEN, ELEVEN = (f"2026-11-24T{hour:02}:00:00Z" for hour in (9, 10, 11))
HOURLY = {"triggers": {"schedule": {"cron": "0 * * * *"}}}
REPLACE = {**HOURLY, "runPolicy": {"concurrency": "Replace"}}


def events(world: World, reason: str) -> list[str]:
    return [event.message for _, event in world.kubernetes.events if event.reason == reason]


def at(world: World, text: str, seconds: float = 0) -> None:
    """Sets the clock."""
    world.clock.moment = datetime.fromisoformat(text) + timedelta(seconds=seconds)


async def finished(**parts: Any) -> World:
    """A job whose first run went well, at 08:00."""
    world = World()
    await world.until_succeeded(**{**HOURLY, **parts})
    return world


async def run_ends(world: World) -> None:
    world.kubernetes.settle()
    await world.settle()
    world.ends(world.result())
    await world.settle()


def started(world: World) -> list[tuple[str, str]]:
    """Trigger and key of the runs, the newest first."""
    runs = [world.run, *(each for each in world.status.get("history", []) if each["uid"] != world.run["uid"])]
    return [(run["trigger"], run["triggerKey"]) for run in runs]


async def test_a_finished_job_is_ready_and_tells_its_next_run() -> None:
    world = await finished()
    assert world.condition("Ready") == ("True", "RunSucceeded")
    assert world.status["nextScheduleTime"] == NINE
    assert await world.step() == 600, "the clock may be set meanwhile"
    at(world, NINE, -20)
    assert await world.step() == 20


async def test_a_tick_starts_one_run() -> None:
    world = await finished()
    at(world, NINE, -1)
    await world.settle()
    assert world.run["number"] == 1
    at(world, NINE)
    await world.settle()
    assert (world.run["number"], world.run["trigger"], world.run["triggerKey"]) == (2, "Schedule", NINE)
    assert world.status["nextScheduleTime"] == TEN
    assert world.condition("Ready") == ("True", "RunSucceeded"), "the last run was good"
    assert (world.condition("Running") or ("",))[0] == "True"
    await run_ends(world)
    world.clock.tick(10)
    world.restart()
    await world.settle()
    assert world.run["number"] == 2
    assert events(world, "ScheduleMissed") == events(world, "ScheduleSkipped") == []


async def test_time_zone() -> None:
    world = await finished(triggers={"schedule": {"cron": "0 3 * * *", "timeZone": "America/New_York"}})
    assert world.status["nextScheduleTime"] == "2026-11-24T08:00:00Z".replace("24T", "25T")
    at(world, "2026-11-25T08:00:00Z")
    await world.settle()
    assert world.run["triggerKey"] == "2026-11-25T08:00:00Z"


async def test_forbid_skips_a_tick_while_a_run_is_active_and_says_so_once() -> None:
    world = await finished()
    at(world, NINE, -600)
    world.annotate(RUN_NOW, "monday")
    await world.settle()
    world.runs()
    at(world, NINE)
    await world.settle()
    for _ in range(3):
        world.clock.tick(5)
        await world.settle()
    assert [NINE in each and "run 2 is not over" in each for each in events(world, "ScheduleSkipped")] == [True]
    await run_ends(world)
    assert (world.run["number"], world.status["nextScheduleTime"]) == (2, TEN)


async def test_replace_stops_the_active_run_for_the_tick() -> None:
    world = await finished(**REPLACE)
    at(world, NINE, -600)
    world.annotate(RUN_NOW, "monday")
    await world.settle()
    world.runs()
    at(world, NINE)
    await world.settle()
    assert (world.run["number"], world.run["trigger"], world.run["triggerKey"]) == (3, "Schedule", NINE)
    assert [(run["number"], run["phase"]) for run in world.status["history"]] == [(2, "Stopped"), (1, "Succeeded")]
    world.kubernetes.settle()
    await world.settle()
    assert [pod["metadata"]["name"] for pod in world.live_drivers] == ["churn-3-1-driver"]


async def test_replace_lets_a_run_that_is_over_end_as_it_did() -> None:
    world = await finished(**REPLACE)
    at(world, NINE, -600)
    world.annotate(RUN_NOW, "monday")
    await world.settle()
    world.ends(world.result())
    at(world, NINE)
    await world.settle()
    assert [run["phase"] for run in world.status["history"]] == ["Succeeded", "Succeeded"]
    assert started(world)[0] == ("Schedule", NINE)


# how long the operator was down after 11:00, the key of the run that starts, ticks that are told of as missed
DOWN: dict[str, tuple[float, str | None, list[str]]] = {
    "a moment": (0, ELEVEN, ["2 ticks after"]),
    "up to the deadline": (600, ELEVEN, ["2 ticks after"]),
    "longer than the deadline": (601, None, ["2 ticks after", f"the tick of {ELEVEN} was missed"]),
}


@pytest.mark.parametrize("name", DOWN)
async def test_after_the_operator_was_down(name: str) -> None:
    seconds, key, told = DOWN[name]
    world = await finished()
    at(world, ELEVEN, seconds)
    world.restart()
    await world.settle()
    assert [each[0] for each in started(world)] == (["Schedule", "SpecChange"] if key else ["SpecChange"])
    if key:
        assert world.run["triggerKey"] == key
        await run_ends(world)
    messages = events(world, "ScheduleMissed")
    assert [expected in got for expected, got in zip(told, messages, strict=True)] == [True] * len(told), messages
    world.restart()
    await world.settle()
    assert world.run["number"] == (2 if key else 1)
    assert events(world, "ScheduleMissed") == messages, "once"


async def test_of_a_long_absence_ticks_are_counted_up_to_a_bound() -> None:
    world = await finished(triggers={"schedule": {"cron": "* * * * *"}})
    world.clock.tick(400 * 86400)
    await world.settle()
    assert [each.split(" after")[0] for each in events(world, "ScheduleMissed")] == ["more than 100 ticks"]
    assert started(world)[0][0] == "Schedule"


async def spec_changes(world: World) -> None:
    world.apply(**HOURLY, dataset={"target": "other"})


async def run_is_asked_for(world: World) -> None:
    world.annotate(RUN_NOW, "monday")


BESIDE: dict[str, tuple[Callable[[World], Awaitable[None]], str]] = {
    "a change of the training spec": (spec_changes, "SpecChange"),
    "an action": (run_is_asked_for, "Manual"),
}


@pytest.mark.parametrize("name", BESIDE)
async def test_a_tick_at_the_same_moment_is_the_same_run(name: str) -> None:
    beside, trigger = BESIDE[name]
    world = await finished()
    await beside(world)
    at(world, NINE)
    await world.settle()
    await run_ends(world)
    world.clock.tick(30)
    await world.settle()
    assert [each[0] for each in started(world)] == [trigger, "SpecChange"]
    assert world.status["nextScheduleTime"] == TEN


@pytest.mark.parametrize("by", ["spec", "action"])
async def test_a_suspended_job_tells_what_it_holds_back_and_does_not_replay_it(by: str) -> None:
    world = await finished()
    world.apply(**HOURLY, suspend=True) if by == "spec" else world.annotate(SUSPEND, "on-1")
    await world.settle()
    named = "spec.suspend" if by == "spec" else f"the action {SUSPEND}"
    assert world.message("Suspended") == f"held back by {named}"
    assert "nextScheduleTime" not in world.status
    at(world, NINE, 5)
    await world.settle()
    assert world.message("Suspended") == f"held back by {named}; the schedule would have started a run at {NINE}"
    at(world, TEN, 5)
    await world.settle()
    assert world.message("Suspended").endswith(f"would have started a run at {TEN}")
    world.apply(**HOURLY) if by == "spec" else world.annotate(SUSPEND, "off-2")
    world.clock.tick(5)
    await world.settle()
    assert world.run["number"] == 1
    assert world.condition("Suspended") == ("False", "Resumed")
    assert world.status["nextScheduleTime"] == ELEVEN
    at(world, ELEVEN)
    await world.settle()
    assert started(world)[0] == ("Schedule", ELEVEN)
    assert events(world, "ScheduleMissed") == []


async def test_a_schedule_counts_from_when_it_is_seen() -> None:
    world = World()
    await world.until_succeeded()
    at(world, NINE, 30)
    world.apply(**HOURLY)
    await world.settle()
    assert (world.run["number"], world.status["nextScheduleTime"]) == (1, TEN)
    at(world, TEN, 30)
    world.apply(triggers={"schedule": {"cron": "0 * * * *", "timeZone": "Europe/Berlin"}})
    await world.settle()
    assert (world.run["number"], world.status["nextScheduleTime"]) == (1, ELEVEN)


async def test_without_the_schedule_nothing_is_left_of_it() -> None:
    world = await finished()
    world.apply()
    await world.settle()
    assert "nextScheduleTime" not in world.status
    assert "triggers" not in world.status


async def test_a_clock_that_is_set_back_makes_no_tick_come_twice() -> None:
    world = await finished()
    at(world, NINE)
    await world.settle()
    await run_ends(world)
    at(world, NINE, -1800)
    await world.settle()
    assert world.status["nextScheduleTime"] == TEN
    # neither does another schedule, nor the same one again
    for cron in ("*/30 * * * *", "0 * * * *"):
        world.apply(triggers={"schedule": {"cron": cron}})
        await world.settle()
    at(world, NINE)
    await world.settle()
    assert [key for trigger, key in started(world) if trigger == "Schedule"] == [NINE]


# the schedule, the field that is named
INVALID: dict[str, tuple[dict[str, str], str]] = {
    "a day that never comes": ({"cron": "0 0 30 2 *"}, "spec.triggers.schedule.cron"),
    "no such zone": ({"cron": "@daily", "timeZone": "Europe/Atlantis"}, "spec.triggers.schedule.timeZone"),
}


@pytest.mark.parametrize("name", INVALID)
async def test_an_invalid_schedule_is_told_and_stops_no_other_run(name: str) -> None:
    wrong, field = INVALID[name]
    world = World()
    await world.until_succeeded(triggers={"schedule": wrong})
    assert world.condition("Stalled") == ("True", "InvalidSchedule")
    assert world.message("Stalled").startswith(f"{field}: ")
    assert world.condition("Ready") == ("True", "RunSucceeded")
    assert world.condition("RunSucceeded") == ("True", "RunSucceeded")
    world.annotate(RUN_NOW, "monday")
    await world.settle()
    await run_ends(world)
    assert world.run["number"] == 2
    world.apply(triggers={"schedule": wrong}, dataset={"target": "other"})
    await world.settle()
    await run_ends(world)
    assert (world.run["number"], world.run["phase"]) == (3, "Succeeded")
    before = world.writes.made
    await world.step()
    assert world.writes.made == before, "it is said once"
    world.apply(**HOURLY, dataset={"target": "other"})
    await world.settle()
    assert world.condition("Stalled") is None
    assert world.status["nextScheduleTime"] == NINE


async def test_a_failed_run_and_an_invalid_schedule_are_both_told() -> None:
    world = World()
    await world.until_running(triggers={"schedule": {"cron": "0 0 30 2 *"}})
    world.ends(world.failure("Data", "EmptyTable"), code=1)
    await world.settle()
    assert world.condition("Stalled") == ("True", "EmptyTable")
    assert "EmptyTable happened" in world.message("Stalled")
    assert "spec.triggers.schedule.cron" in world.message("Stalled")
    before = (world.writes.made, len(world.kubernetes.events))
    await world.step()
    assert (world.writes.made, len(world.kubernetes.events)) == before


async def test_a_failed_run_is_followed_by_the_next_tick() -> None:
    world = World()
    await world.until_running(**HOURLY)
    world.ends(world.failure("Data", "EmptyTable"), code=1)
    await world.settle()
    assert world.condition("Ready") == ("False", "EmptyTable")
    at(world, NINE)
    await world.settle()
    await run_ends(world)
    assert world.condition("Ready") == ("True", "RunSucceeded")


async def test_a_stop_ends_the_run_of_a_tick_for_good() -> None:
    world = await finished()
    at(world, NINE)
    await world.settle()
    world.annotate(STOP, "1")
    await world.settle()
    world.kubernetes.settle()
    await world.settle()
    assert (world.run["number"], world.run["phase"]) == (2, "Stopped")


@pytest.mark.parametrize("crash_after", range(1, 16))
async def test_a_crash_after_any_write_of_a_tick(crash_after: int) -> None:
    world = await finished()
    at(world, NINE)
    world.writes.crash_after = world.writes.made + crash_after
    await world.settle()
    await run_ends(world)
    world.clock.tick(60)
    await world.settle()
    assert started(world) == [("Schedule", NINE), ("SpecChange", started(world)[1][1])]
    assert len(world.tracking.runs) == len(world.tracking.versions) == 2
    assert world.clock.now() > START
