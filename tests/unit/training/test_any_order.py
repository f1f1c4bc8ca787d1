"""Events in any order, a crash after any write: one MLflow run and one model version per run, one live driver."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.training.fakes import Crash
from unit.training.world import TABLE, World

from lakeloop.adapters.kubernetes_protocol import KubernetesError

FINAL = ("Succeeded", "Failed", "Stopped")


def without_log_verdict(run: dict[str, Any]) -> dict[str, Any]:
    """A run, but for what is said of its logs after its end."""
    return {**run, "logs": {"uri": run.get("logs", {}).get("uri")}}


class AnyOrder(RuleBasedStateMachine):
    """One job, its user, its driver and a mortal operator."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.world.apply()
        self.ids = 0
        self.pinned: dict[str, Any] = {}
        self.over: dict[str, dict[str, Any]] = {}
        self.verdicts: dict[str, bool] = {}

    def teardown(self) -> None:
        self.heal()
        self.loop.close()

    def heal(self) -> None:
        """Everything is there again, and pods do their work: every run comes to its end."""
        world = self.world
        world.writes.crash_after = None
        world.tracking.down = world.stores.down = False
        for _ in range(20):
            world.clock.tick(400)
            world.kubernetes.settle()
            self.loop.run_until_complete(world.settle(80))
            if self.driver_alive():
                world.ends(world.result())
            run = world.status.get("run")
            suspended = (world.condition("Suspended") or ("False",))[0] == "True"
            if suspended or (run and run["phase"] in FINAL and not world.live_drivers):
                return
        raise AssertionError(f"the job never comes to rest: {world.status}")

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

    @rule(column=st.sampled_from(["churned", "left", "stayed"]))
    def user_edits(self, column: str) -> None:
        self.world.apply(dataset={"target": column})

    @rule()
    def user_asks_for_a_run(self) -> None:
        self.world.annotate("lakeloop.io/run-now", self.new_id())

    @rule()
    def user_stops(self) -> None:
        self.world.annotate("lakeloop.io/stop", self.new_id())

    @rule(on=st.booleans())
    def user_suspends(self, on: bool) -> None:
        self.world.annotate("lakeloop.io/suspend", f"{'on' if on else 'off'}-{self.new_id()}")

    @rule()
    def table_grows(self) -> None:
        self.world.tables.commit(TABLE, self.world.clock.now())

    @rule(seconds=st.sampled_from([1, 15, 90]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.tick(seconds)

    @rule()
    def kubelet_stops_pods(self) -> None:
        self.world.kubernetes.settle()

    @rule(down=st.booleans())
    def mlflow_comes_and_goes(self, down: bool) -> None:
        self.world.tracking.down = down

    @rule(down=st.booleans())
    def store_comes_and_goes(self, down: bool) -> None:
        self.world.stores.down = down

    @precondition(driver_alive)
    @rule()
    def driver_runs(self) -> None:
        self.world.runs(stage="Training", percent=10)

    @precondition(driver_alive)
    @rule()
    def driver_succeeds(self) -> None:
        self.world.records(self.world.result())
        self.world.ends(self.world.result())

    @precondition(driver_alive)
    @rule(how=st.sampled_from(["evicted", "killed", "data", "stale"]))
    def driver_dies(self, how: str) -> None:
        world = self.world
        if how == "evicted":
            world.pod_status(phase="Failed", reason="Evicted")
        elif how == "killed":
            ref = world.pod_ref()
            world.kubernetes.remove((ref.api_version, ref.kind, ref.namespace, ref.name))
        elif how == "data":
            world.ends(world.failure("Data", "EmptyTable"), code=1)
        else:
            world.ends(world.result(attempt=99))

    @invariant()
    def one_live_driver(self) -> None:
        assert len(self.world.live_drivers) <= 1

    @invariant()
    def one_mlflow_run_and_one_version_per_run(self) -> None:
        world = self.world
        for what in (world.tracking.runs.values(), world.tracking.versions.values()):
            counts = Counter(each.tags["lakeloop.io/run-uid"] for each in what)
            assert all(count == 1 for count in counts.values()), counts

    @invariant()
    def pinned_inputs_never_change(self) -> None:
        run = self.world.status.get("run") or {}
        if run.get("inputs"):
            assert self.pinned.setdefault(run["uid"], run["inputs"]) == run["inputs"]

    @invariant()
    def a_driver_has_pinned_inputs_and_an_mlflow_run(self) -> None:
        status = self.world.status
        known = {run["uid"]: run for run in (*status.get("history", ()), *([status["run"]] if "run" in status else []))}
        for pod in self.world.live_drivers:
            run = known[pod["metadata"]["labels"]["lakeloop.io/run-uid"]]
            assert run["inputs"][0]["version"] is not None
            assert run["mlflow"]["runId"] in self.world.tracking.runs

    @invariant()
    def a_finished_run_stays_as_it_is(self) -> None:
        run = self.world.status.get("run") or {}
        for each in (run, *self.world.status.get("history", ())):
            if each.get("phase") in FINAL:
                assert without_log_verdict(self.over.setdefault(each["uid"], each)) == without_log_verdict(each)
                verdict = each.get("logs", {}).get("complete")
                if verdict is not None:  # it comes after the end, once
                    assert self.verdicts.setdefault(each["uid"], verdict) == verdict

    @invariant()
    def numbers_count_up(self) -> None:
        numbers = [run["number"] for run in self.world.status.get("history", ())]
        assert numbers == sorted(numbers, reverse=True)
        assert len(set(numbers)) == len(numbers)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("crash_after", range(1, 26))
async def test_a_crash_after_any_write_ends_in_the_same_state(crash_after: int) -> None:
    """The whole way from apply to the end of a retried run, once undisturbed and once with a crash."""
    ends = []
    for crash in (None, crash_after):
        world = World()
        world.writes.crash_after = crash
        world.apply()
        await world.settle()
        world.runs()
        await world.settle()
        world.pod_status(phase="Failed", reason="Evicted")
        await world.settle()
        world.clock.tick(12)
        await world.settle()
        world.ends(world.result())
        await world.settle()
        ends.append((world.status, world.tracking.runs, world.tracking.versions, world.tracking.aliases))
        assert [pod["metadata"]["name"] for pod in world.drivers] == ["churn-1-1-driver", "churn-1-2-driver"]
    undisturbed, disturbed = ({**dict(end[0]["run"]), "uid": ""} for end in ends)
    without_uid = {key: value for key, value in disturbed.items() if key != "uid"}
    assert without_uid == {key: value for key, value in undisturbed.items() if key != "uid"}
    assert len(ends[1][1]) == len(ends[1][2]) == 1
    assert ends[1][3] == {("churn", "champion"): 1}
