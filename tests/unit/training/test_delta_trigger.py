"""Commits that start runs: none missed, none taken twice, whatever happens to the table, its log, and the operator."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from unit.training.fakes import START
from unit.training.world import PLATFORM, TABLE, World

RUN_NOW, STOP, SUSPEND = "lakeloop.io/run-now", "lakeloop.io/stop", "lakeloop.io/suspend"
LOOK = 4.0
OTHER = "s3a://lake/other"


def following(**delta: Any) -> dict[str, Any]:
    return {"triggers": {"delta": {"input": "customers", "debounceSeconds": 60, **delta}}}


REPLACE = {**following(), "runPolicy": {"concurrency": "Replace"}}


def events(world: World, reason: str) -> list[str]:
    return [event.message for _, event in world.kubernetes.events if event.reason == reason]


def commit(world: World, rows: int | None = 1, uri: str = TABLE) -> int:
    return world.tables.commit(uri, world.clock.now(), rows=rows)


async def finished(**parts: Any) -> World:
    """A job whose first run went well, on version 0."""
    world = World()
    await world.until_succeeded(**(parts or following()))
    return world


async def passes(world: World, seconds: float = LOOK) -> None:
    world.clock.tick(seconds)
    await world.settle()


async def run_ends(world: World) -> None:
    world.kubernetes.settle()
    await world.settle()
    world.ends(world.result())
    await world.settle()


def keys(world: World) -> list[str]:
    """Of the runs that commits started, the newest first."""
    runs = [world.run, *(each for each in world.status.get("history", []) if each["uid"] != world.run["uid"])]
    return [run["triggerKey"] for run in runs if run["trigger"] == "DeltaCommit"]


async def test_a_commit_starts_a_run_once_the_table_is_quiet() -> None:
    world = await finished()
    assert world.status["triggers"] == {"delta": {"uri": TABLE, "version": 0}}
    commit(world)
    world.clock.tick(LOOK)
    assert await world.step() == 60 - LOOK
    world.clock.tick(30)
    commit(world)
    await passes(world, 59)
    assert world.run["number"] == 1, "the table is quiet for 59 s only"
    await passes(world, 1)
    assert (world.run["number"], world.run["trigger"], world.run["triggerKey"]) == (2, "DeltaCommit", "customers@2")
    assert world.run["inputs"][0]["version"] == 2
    assert world.condition("Ready") == ("True", "RunSucceeded")
    assert (world.condition("Running") or ("",))[0] == "True"
    await run_ends(world)
    await passes(world, 600)
    assert world.run["number"] == 2
    assert events(world, "RunStarted")[-1] == "run 2: 2 commits to customers"


# what is committed, what the trigger asks for, whether a run starts
COUNTS: dict[str, tuple[list[int | None], dict[str, Any], bool]] = {
    "one": ([1], {}, True),
    "maintenance only": ([None, None, None], {}, False),
    "too few": ([1, None, 1], {"minCommits": 3}, False),
    "enough": ([1, None, 1, 1], {"minCommits": 3}, True),
    "too few rows": ([5, 4], {"minRows": 10}, False),
    "enough rows": ([5, None, 5], {"minRows": 10}, True),
    "enough rows in too few commits": ([50], {"minRows": 10, "minCommits": 2}, False),
    "many, over several looks": ([1] * 20, {"minCommits": 20}, True),
}


@pytest.mark.parametrize("name", COUNTS)
async def test_counts(name: str) -> None:
    rows, asked, starts = COUNTS[name]
    world = await finished(**following(**asked))
    for each in rows:
        commit(world, each)
    await passes(world)
    await passes(world, 60)
    assert keys(world) == ([f"customers@{len(rows)}"] if starts else [])
    assert world.tables.read == list(range(1, len(rows) + 1)), "each commit is read once"


async def test_lakeloops_own_ingestion_starts_nothing() -> None:
    world = World()
    world.stores.objects["s3a://raw/customers/a.json"] = b"1"
    load = {"from": "s3a://raw/customers/*.json", "format": "json"}
    await world.until_running(inputs=[{"name": "customers", "uri": TABLE, "ingest": load}], **following())
    assert world.status["triggers"]["delta"]["version"] == 0, "the base, until the commit is known"
    world.tables.commit(TABLE, world.clock.now(), world.run["uid"])
    world.ends(world.result(inputs=[{"name": "customers", "version": 1}]))
    await world.settle()
    assert world.status["triggers"]["delta"]["version"] == 1
    world.tables.commit(TABLE, world.clock.now(), "another-run")
    await passes(world, 120)
    assert world.run["number"] == 1
    commit(world)
    await passes(world)
    await passes(world, 60)
    assert keys(world) == ["customers@3"]


async def test_a_look_at_rest_writes_nothing_and_reads_nothing_again() -> None:
    world = await finished(**following(minCommits=100))
    for _ in range(5):
        commit(world)
    await passes(world)
    read, before = list(world.tables.read), world.writes.made
    for _ in range(5):
        await passes(world)
    assert (world.tables.read, world.writes.made) == (read, before)


async def test_looks_are_no_closer_than_the_setting() -> None:
    world = await finished()
    await passes(world)
    looks = world.tables.looks
    for _ in range(3):
        world.clock.tick(1)
        await world.step()
    assert world.tables.looks == looks
    world.clock.tick(1)
    await world.step()
    assert world.tables.looks == looks + 1


async def test_forbid_keeps_one_run_pending_with_the_newest_version() -> None:
    world = await finished()
    world.annotate(RUN_NOW, "monday")
    await world.settle()
    world.runs()
    looks = world.tables.looks
    for _ in range(3):
        commit(world)
        await passes(world, 100)
    assert (world.run["number"], world.tables.looks) == (2, looks), "nobody looks while nothing could come of it"
    await run_ends(world)
    assert keys(world) == ["customers@3"]
    assert world.run["inputs"][0]["version"] == 3
    await run_ends(world)
    await passes(world, 600)
    assert world.run["number"] == 3


async def test_replace_stops_the_active_run_for_commits_that_it_does_not_read() -> None:
    world = await finished(**REPLACE)
    world.annotate(RUN_NOW, "monday")
    await world.settle()
    world.runs()
    await passes(world, 120)
    assert world.run["number"] == 2
    commit(world)
    await passes(world)
    assert world.run["number"] == 2
    await passes(world, 60)
    assert (world.run["number"], world.run["triggerKey"]) == (3, "customers@1")
    assert [(run["number"], run["phase"]) for run in world.status["history"]] == [(2, "Stopped"), (1, "Succeeded")]
    await run_ends(world)
    await passes(world, 600)
    assert world.run["number"] == 3


@pytest.mark.parametrize("trigger", ["spec", "action"])
async def test_any_run_covers_the_commits_that_it_reads(trigger: str) -> None:
    world = await finished()
    commit(world)
    await passes(world)
    if trigger == "spec":
        world.apply(**following(), dataset={"target": "other"})
    else:
        world.annotate(RUN_NOW, "monday")
    await world.settle()
    await run_ends(world)
    await passes(world, 600)
    assert (world.run["number"], keys(world)) == (2, [])


async def test_commits_after_the_pinning_start_the_next_run() -> None:
    world = await finished()
    commit(world)
    await passes(world)
    await passes(world, 60)
    commit(world)
    await passes(world, 60)
    await run_ends(world)
    assert keys(world) == ["customers@2", "customers@1"]


async def test_a_run_that_fails_is_not_made_again_for_the_same_commits() -> None:
    world = await finished()
    commit(world)
    await passes(world)
    await passes(world, 60)
    world.ends(world.failure("Data", "EmptyTable"), code=1)
    await world.settle()
    await passes(world, 600)
    assert (keys(world), world.run["phase"]) == (["customers@1"], "Failed")


async def test_neither_is_one_that_is_stopped_before_it_pins() -> None:
    world = World()
    commit(world, uri=OTHER)
    two = [{"name": "customers", "uri": TABLE}, {"name": "other", "uri": OTHER}]
    await world.until_succeeded(inputs=two, **following())
    commit(world)
    await passes(world)
    del world.tables.tables[OTHER]
    await passes(world, 60)
    assert (world.run["number"], "inputs" in world.run) == (2, False)
    world.annotate(STOP, "1")
    await world.settle()
    await passes(world, 600)
    assert (keys(world), world.run["phase"]) == (["customers@1"], "Stopped")


async def test_suspended_it_tells_what_it_holds_back_and_runs_afterwards() -> None:
    world = await finished()
    world.apply(**following(), suspend=True)
    await world.settle()
    assert world.message("Suspended") == "held back by spec.suspend"
    for _ in range(3):
        commit(world)
    await passes(world)
    told = "held back by spec.suspend; 3 commits to customers would have started a run"
    assert world.message("Suspended") == told
    world.apply(**following())
    await passes(world, 60)
    assert keys(world) == ["customers@3"]


# -- what can be wrong with the table


def gone(world: World) -> None:
    del world.tables.tables[TABLE]


def no_secret(world: World) -> None:
    world.kubernetes.remove(("v1", "Secret", "team-a", "lakeloop-storage"))


def wrong_key(world: World) -> None:
    world.stores.secret_key = "another"


def no_bucket(world: World) -> None:
    world.stores.buckets.discard("lake")


def back(world: World) -> None:
    world.stores.secret_key = "right"
    world.stores.buckets.add("lake")
    world.secret("lakeloop-storage", AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="right")
    if TABLE not in world.tables.tables:
        commit(world)
        commit(world)


# what goes wrong, the reason, the field
WRONG: dict[str, tuple[Callable[[World], None], str, str]] = {
    "no table": (gone, "TableNotFound", "spec.inputs[0].uri"),
    "no Secret": (no_secret, "SecretNotFound", "spec.storage.secretRef"),
    "wrong key": (wrong_key, "CredentialsRefused", "spec.storage.secretRef"),
    "no bucket": (no_bucket, "BucketNotFound", "spec.inputs[0].uri"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_table_that_cannot_be_seen_is_told_and_heals(name: str) -> None:
    breaks, reason, field = WRONG[name]
    world = await finished()
    breaks(world)
    await passes(world)
    assert world.condition("Stalled") == ("True", reason)
    assert world.message("Stalled").startswith(field)
    assert world.condition("Ready") == ("True", "RunSucceeded"), "the last run was good"
    assert 0 < (await world.step() or 0) <= 300
    before = (world.writes.made, len(world.kubernetes.events))
    await passes(world, 1000)
    assert (world.writes.made, len(world.kubernetes.events)) == before, "it is said once"
    back(world)
    commit(world)
    await passes(world)
    assert world.condition("Stalled") is None
    await passes(world, 60)
    assert len(keys(world)) == 1


async def test_a_store_that_does_not_answer_for_a_moment_is_no_news() -> None:
    world = await finished()
    world.stores.down = True
    before = world.writes.made
    await passes(world)
    assert await world.step() == 15
    assert world.writes.made == before
    await passes(world, 61)
    assert world.condition("Stalled") == ("True", "StorageUnavailable")
    world.stores.down = False
    commit(world)
    await passes(world)
    await passes(world, 60)
    assert world.condition("Stalled") is None
    assert keys(world) == ["customers@1"]


async def test_a_table_that_was_made_anew_is_new_as_a_whole() -> None:
    world = await finished()
    for _ in range(4):
        commit(world)
    await passes(world)
    await passes(world, 60)
    await run_ends(world)
    assert world.status["triggers"]["delta"]["version"] == 4
    gone(world)
    commit(world)
    commit(world)
    await passes(world)
    assert "version" not in world.status["triggers"]["delta"]
    assert len(events(world, "TableRecreated")) == 1
    world.restart()
    for _ in range(6):
        commit(world)
    await passes(world)
    await passes(world, 60)
    assert keys(world) == ["customers@7", "customers@4"]
    assert events(world, "RunStarted")[-1] == "run 3: 8 commits to customers"
    await run_ends(world)
    await passes(world, 600)
    assert world.run["number"] == 3


async def test_commits_that_the_log_no_longer_holds_count() -> None:
    world = await finished(**following(minCommits=5, minRows=1000))
    for _ in range(8):
        commit(world)
    world.tables.tables[TABLE].first = 6
    await passes(world)
    await passes(world, 60)
    assert keys(world) == ["customers@8"]
    assert "8 commits (5 of them with an unknown number of rows) to customers" in events(world, "RunStarted")[-1]


async def test_a_trigger_that_is_added_counts_from_the_last_run() -> None:
    world = World()
    await world.until_succeeded()
    commit(world)
    world.apply(**following())
    await passes(world)
    await passes(world, 60)
    assert keys(world) == ["customers@1"]


async def test_a_table_that_no_run_has_read_is_new_as_a_whole() -> None:
    world = World()
    gone(world)
    world.apply(**following(), runPolicy={"startDeadlineSeconds": 30})
    await world.settle()
    await passes(world, 31)
    assert world.run["phase"] == "Failed"
    commit(world)
    await passes(world, 20)
    await passes(world, 60)
    assert keys(world) == ["customers@0"]
    await run_ends(world)
    assert world.condition("Ready") == ("True", "RunSucceeded")


async def test_without_a_warehouse_the_field_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    commit(world, uri="s3a://lake/warehouse/sales.db/customers")
    await world.until_succeeded(**following(), inputs=[{"name": "customers", "table": "sales.customers"}])
    monkeypatch.setattr("unit.training.world.PLATFORM", replace(PLATFORM, warehouse=None))
    world.restart()
    await passes(world)
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert world.message("Stalled").startswith("spec.inputs[0].table")


async def test_an_input_that_there_is_none_of_is_named() -> None:
    """The API server refuses it; a resource from before that rule would not be."""
    world = await finished()
    world.apply(**following(input="orders"))
    await passes(world)
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert world.message("Stalled").startswith("spec.triggers.delta.input")


async def test_a_store_with_a_clock_that_is_ahead_does_not_hold_a_run_back() -> None:
    world = await finished()
    world.tables.commit(TABLE, world.clock.now() + timedelta(days=1))
    await passes(world)
    await passes(world, 60)
    assert keys(world) == ["customers@1"]
    assert world.clock.now() > START


async def test_a_schedule_and_commits_at_the_same_moment_are_one_run() -> None:
    both = {"triggers": {**following()["triggers"], "schedule": {"cron": "0 * * * *"}}}
    world = await finished(**both)
    world.clock.moment = START + timedelta(minutes=59)
    commit(world)
    await world.settle()
    await passes(world, 60)
    assert (world.run["number"], world.run["trigger"]) == (2, "Schedule")
    await run_ends(world)
    await passes(world, 300)
    assert world.run["number"] == 2


async def test_replace_does_not_replace_the_run_that_is_about_to_read_the_commits() -> None:
    both = {"triggers": {**following()["triggers"], "schedule": {"cron": "0 * * * *"}}}
    world = await finished(**both, runPolicy={"concurrency": "Replace"})
    world.clock.moment = START + timedelta(minutes=59)
    commit(world)
    await world.settle()
    await passes(world, 60)
    assert (world.run["number"], world.run["trigger"]) == (2, "Schedule")


@pytest.mark.parametrize("crash_after", range(1, 16))
async def test_a_crash_after_any_write_of_a_commits_run(crash_after: int) -> None:
    world = await finished()
    commit(world)
    await passes(world)
    world.writes.crash_after = world.writes.made + crash_after
    await passes(world, 60)
    await run_ends(world)
    await passes(world, 600)
    assert keys(world) == ["customers@1"]
    assert world.status["triggers"] == {"delta": {"uri": TABLE, "version": 1}}
    assert len(world.tracking.runs) == len(world.tracking.versions) == 2
