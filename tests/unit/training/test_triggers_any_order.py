"""Ticks, commits, suspensions, clocks that are set, and an operator that dies: no start is missed, and none made twice."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from unit.training.fakes import Crash
from unit.training.world import TABLE, World

from lakeloop.adapters.kubernetes_protocol import KubernetesError

FINAL = ("Succeeded", "Failed", "Stopped")
DEADLINE = 600


class Triggers(RuleBasedStateMachine):
    """One job that follows a clock and a table, and all that can come between."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.ids = 0
        self.runs: dict[str, dict[str, Any]] = {}
        self.newest_data = 0
        self.parts: dict[str, Any] = {}

    @initialize(concurrency=st.sampled_from(["Forbid", "Replace"]))
    def job(self, concurrency: str) -> None:
        triggers = {
            "schedule": {"cron": "*/5 * * * *", "timeZone": "Europe/Berlin"},
            "delta": {"input": "customers", "debounceSeconds": 10},
        }
        policy = {"concurrency": concurrency, "historyLimit": 100, "startDeadlineSeconds": DEADLINE}
        self.parts = {"triggers": triggers, "runPolicy": policy}
        self.world.apply(**self.parts)

    def teardown(self) -> None:
        if self.parts:
            self.nothing_is_missed()
        self.loop.close()

    def settle(self) -> None:
        self.world.kubernetes.settle()
        self.loop.run_until_complete(self.world.settle(80))
        self.note()

    def at_rest(self) -> bool:
        return (self.world.status.get("run") or {}).get("phase") in FINAL and not self.world.live_drivers

    def rests(self) -> None:
        """Every run comes to its end, and nothing is due."""
        for round_ in range(200):
            # what waits for a moment waits long where the clock was set back since
            self.world.clock.tick(15 if round_ < 30 else 200)
            self.settle()
            if self.driver_alive():
                self.world.ends(self.world.result())
                self.settle()
            elif self.at_rest():
                return
        raise AssertionError(f"the job never comes to rest: {self.world.status}")

    def nothing_is_missed(self) -> None:
        world = self.world
        world.writes.crash_after = None
        world.stores.down = False
        world.annotate("lakeloop.io/suspend", f"off-{self.new_id()}")
        self.rests()
        world.clock.tick(70)  # a store that was down is looked at again
        self.settle()
        self.rests()
        read = [each["version"] for run in self.runs.values() for each in run.get("inputs") or ()]
        assert max(read) >= self.newest_data, "commits that no run has read"
        upcoming = world.status["nextScheduleTime"]
        # the clock may have been set back: then the next tick is the first one that never was
        world.clock.moment = max(world.clock.now(), datetime.fromisoformat(upcoming))
        self.settle()
        assert ("Schedule", upcoming) in {(run["trigger"], run["triggerKey"]) for run in self.runs.values()}
        self.each_start_once()

    def note(self) -> None:
        """Every run that status ever showed, as it was shown last."""
        status = self.world.status
        for run in (*status.get("history", ()), *([status["run"]] if "run" in status else [])):
            self.runs[run["uid"]] = run

    def driver_alive(self) -> bool:
        pod = self.world.status.get("run", {}).get("driverPod")
        return any(each["metadata"]["name"] == pod for each in self.world.live_drivers)

    def new_id(self) -> str:
        self.ids += 1
        return f"id{self.ids}"

    @rule(crash=st.one_of(st.none(), st.integers(1, 4)), passes=st.integers(1, 6))
    def operator_works(self, crash: int | None, passes: int) -> None:
        world = self.world
        world.writes.crash_after = None if crash is None else world.writes.made + crash
        for _ in range(passes):
            try:
                self.loop.run_until_complete(world.step())
            except Crash:
                world.restart()
            except KubernetesError as error:
                if error.status != 409:
                    raise
            self.note()

    @rule()
    def operator_is_restarted(self) -> None:
        self.world.restart()

    @rule(data=st.booleans())
    def table_grows(self, data: bool) -> None:
        version = self.world.tables.commit(TABLE, self.world.clock.now(), rows=1 if data else None)
        self.newest_data = version if data else self.newest_data

    @rule(seconds=st.sampled_from([1, 5, 15, 100, 299, 300, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.tick(seconds)

    @rule(seconds=st.sampled_from([1, 100, 1000]))
    def clock_is_set_back(self, seconds: int) -> None:
        self.world.clock.tick(-seconds)

    @rule(on=st.booleans())
    def user_suspends(self, on: bool) -> None:
        self.world.annotate("lakeloop.io/suspend", f"{'on' if on else 'off'}-{self.new_id()}")

    @rule()
    def user_asks_for_a_run(self) -> None:
        self.world.annotate("lakeloop.io/run-now", self.new_id())

    @rule(column=st.sampled_from(["churned", "left"]))
    def user_edits(self, column: str) -> None:
        self.world.apply(**self.parts, dataset={"target": column})

    @rule(down=st.booleans())
    def store_comes_and_goes(self, down: bool) -> None:
        self.world.stores.down = down

    @rule()
    def kubelet_stops_pods(self) -> None:
        self.world.kubernetes.settle()

    @precondition(driver_alive)
    @rule(well=st.booleans())
    def driver_ends(self, well: bool) -> None:
        world = self.world
        if well:
            world.records(world.result())
            world.ends(world.result())
        else:
            world.ends(world.failure("Data", "EmptyTable"), code=1)

    @invariant()
    def each_start_once(self) -> None:
        triggered = [(run["trigger"], run["triggerKey"]) for run in self.runs.values()]
        once = [each for each in triggered if each[0] != "SpecChange"]
        assert len(once) == len(set(once)), once

    @invariant()
    def a_tick_is_started_in_time(self) -> None:
        for run in self.runs.values():
            if run["trigger"] == "Schedule" and run.get("attempt") == 1 and "launchTime" not in run:
                late = datetime.fromisoformat(run["startTime"]) - datetime.fromisoformat(run["triggerKey"])
                # after a suspension the time counts from its end
                assert timedelta(0) <= late

    @invariant()
    def one_live_driver(self) -> None:
        assert len(self.world.live_drivers) <= 1


TestTriggers = Triggers.TestCase
TestTriggers.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
