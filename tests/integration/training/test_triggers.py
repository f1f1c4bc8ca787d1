"""Runs that a clock and commits start, on a real API server. What a kill after any write does: `test_kinds_of_run`."""

from datetime import datetime, timedelta
from typing import Any

from integration.training.test_trainingjob import cluster
from training_cluster import Cluster
from unit.training.world import TABLE

from lakeloop.domain.training.schedule import rfc3339

__all__ = ["cluster"]
HOURLY = {
    "triggers": {"schedule": {"cron": "0 * * * *", "timeZone": "Europe/Berlin"}},
    # The API server stamps pods with its own time, which lies hours back.
    "runPolicy": {"startDeadlineSeconds": 100_000},
}
FOLLOWING = {"triggers": {"delta": {"input": "customers", "debounceSeconds": 10}}}


async def finished(cluster: Cluster, **parts: Any) -> None:
    """A job whose first run went well."""
    await cluster.apply(**parts)
    await cluster.settle()
    await cluster.driver_ends()
    await cluster.settle()


async def run_ends(cluster: Cluster) -> None:
    await cluster.settle()
    await cluster.driver_ends()
    await cluster.settle()


async def starts(cluster: Cluster) -> list[tuple[str, str]]:
    """Trigger and key of each finished run but the first, the oldest first."""
    return [(run["trigger"], run["triggerKey"]) for run in reversed((await cluster.status())["history"])][1:]


async def to_the_next_tick(cluster: Cluster) -> str:
    """Sets the clock to the tick that status tells of."""
    tick = str((await cluster.status())["nextScheduleTime"])
    cluster.clock.moment = datetime.fromisoformat(tick)
    return tick


async def test_a_schedule(cluster: Cluster) -> None:
    await finished(cluster, **HOURLY)
    ticks = []
    for _ in range(3):
        ticks.append(await to_the_next_tick(cluster))
        await run_ends(cluster)
    assert await starts(cluster) == [("Schedule", tick) for tick in ticks]
    status = await cluster.status()
    assert status["triggers"]["schedule"]["lastTime"] == ticks[-1]
    assert datetime.fromisoformat(status["nextScheduleTime"]) - cluster.clock.now() == timedelta(hours=1)
    assert (await cluster.condition("Ready"))["status"] == "True"
    before = cluster.writes.made
    await cluster.settle()
    assert cluster.writes.made == before, "a job at rest is left alone"


async def test_commits(cluster: Cluster) -> None:
    await finished(cluster, **FOLLOWING)
    cluster.tables.commit(TABLE, cluster.clock.now())
    for seconds in (5, 6):
        cluster.clock.tick(seconds)
        await cluster.settle()
    await run_ends(cluster)
    assert await starts(cluster) == [("DeltaCommit", "customers@1")]
    assert (await cluster.status())["triggers"] == {"delta": {"uri": TABLE, "version": 1}}
    cluster.clock.tick(20)  # by then it is said that no sidecar brought the logs
    await cluster.settle()
    before = cluster.writes.made
    for _ in range(3):
        cluster.clock.tick(5)
        await cluster.settle()
    assert cluster.writes.made == before, "a look writes nothing"


async def test_the_operator_was_down_and_the_clock_went_on(cluster: Cluster) -> None:
    await finished(cluster, **HOURLY)
    await to_the_next_tick(cluster)
    cluster.clock.tick(2 * 3600 + 300)
    cluster.restart()
    await run_ends(cluster)
    newest = cluster.clock.now() - timedelta(seconds=300)
    assert await starts(cluster) == [("Schedule", rfc3339(newest))]
    events = await cluster.api.list("v1", "Event", cluster.namespace, {})
    assert [each["message"].split(" after")[0] for each in events if each["reason"] == "ScheduleMissed"] == ["2 ticks"]


async def test_an_invalid_schedule_is_told_at_the_object(cluster: Cluster) -> None:
    await finished(cluster, triggers={"schedule": {"cron": "0 0 30 2 *"}})
    stalled = await cluster.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSchedule")
    assert stalled["message"].startswith("spec.triggers.schedule.cron: ")
    assert (await cluster.condition("Ready"))["status"] == "True"
