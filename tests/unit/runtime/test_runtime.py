"""What the runtime does with passes that end well, badly or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.reconcile.protocol import Key
from lakeloop.reconcile.queue import Backoff, WorkQueue
from lakeloop.reconcile.runtime import Runtime

KEY = Key("ModelDeployment", "team-a", "churn")


class Recorder:
    """Remembers what the runtime told."""

    def __init__(self) -> None:
        self.passes: list[tuple[str, str | None]] = []

    def passed(self, kind: str, outcome: str, waited: float, took: float, error: str | None) -> None:
        self.passes.append((outcome, error))


class Scripted:
    """A reconciler that does one thing after another."""

    def __init__(self, *steps: Callable[[], Awaitable[float | None]]) -> None:
        self.steps = list(steps)
        self.calls = 0

    async def reconcile(self, namespace: str, name: str) -> float | None:
        self.calls += 1
        return await self.steps.pop(0)() if self.steps else None


def ends(again: float | None = None) -> Callable[[], Awaitable[float | None]]:
    async def step() -> float | None:
        return again

    return step


def fails(error: Exception) -> Callable[[], Awaitable[float | None]]:
    async def step() -> float | None:
        raise error

    return step


async def run(reconciler: Scripted, *, until: int, **options: Any) -> tuple[Recorder, WorkQueue[Key]]:
    """Until so many passes were reported."""
    queue: WorkQueue[Key] = WorkQueue()
    recorder = Recorder()
    runtime = Runtime(
        queue, {KEY.kind: reconciler}, recorder, backoff=Backoff(first=0.001, jitter=0.0), workers=2, **options
    )
    queue.add(KEY)
    task = asyncio.create_task(runtime.run())
    async with asyncio.timeout(5):
        while len(recorder.passes) < until:
            await asyncio.sleep(0.001)
            assert not task.done()
    task.cancel()
    return recorder, queue


@pytest.mark.parametrize(
    ("steps", "outcomes"),
    [
        pytest.param([ends()], [("ok", None)], id="done"),
        pytest.param([ends(0.001), ends()], [("ok", None)] * 2, id="looks-again-when-asked"),
        pytest.param([fails(ValueError("x")), ends()], [("error", "ValueError"), ("ok", None)], id="tries-again"),
        pytest.param(
            [fails(KubernetesError(409, "Conflict", "changed")), ends()],
            [("conflict", "Conflict"), ("ok", None)],
            id="conflict-is-no-error",
        ),
        pytest.param(
            [fails(KubernetesError(409, "Conflict", "changed"))] * 2,
            [("conflict", "Conflict"), ("error", "Conflict")],
            id="conflict-after-conflict-is",
        ),
        pytest.param(
            [fails(KubernetesError(503, "ServiceUnavailable", "down"))],
            [("error", "ServiceUnavailable")],
            id="kubernetes-reason",
        ),
    ],
)
async def test_outcomes(
    steps: list[Callable[[], Awaitable[float | None]]], outcomes: list[tuple[str, str | None]]
) -> None:
    recorder, _ = await run(Scripted(*steps), until=len(outcomes))
    assert recorder.passes == outcomes


async def test_conflicts_in_a_row_never_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    queue: WorkQueue[Key] = WorkQueue()
    add = queue.add

    def told(key: Key, delay: float = 0.0) -> None:
        waits.append(delay)
        add(key)

    monkeypatch.setattr(queue, "add", told)
    reconciler = Scripted(*[fails(KubernetesError(409, "Conflict", "changed"))] * 20)
    task = asyncio.create_task(Runtime(queue, {KEY.kind: reconciler}, Recorder()).run())
    add(KEY)
    async with asyncio.timeout(5):
        while reconciler.steps:
            await asyncio.sleep(0)
    task.cancel()
    assert max(waits) == 5.0


async def test_pass_that_hangs_is_broken_off_and_tried_again() -> None:
    async def hang() -> float | None:
        await asyncio.Event().wait()
        return None

    recorder, _ = await run(Scripted(hang, ends()), until=2, longest_pass=0.01)
    assert recorder.passes == [("error", "TimeoutError"), ("ok", None)]


async def test_pass_that_cannot_be_broken_off_is_a_problem() -> None:
    now = 0.0
    release = asyncio.Event()

    async def stubborn() -> float | None:
        await release.wait()
        return None

    queue: WorkQueue[Key] = WorkQueue()
    runtime = Runtime(queue, {KEY.kind: Scripted(stubborn)}, Recorder(), stuck_after=300, clock=lambda: now)
    queue.add(KEY)
    task = asyncio.create_task(runtime.run())
    async with asyncio.timeout(5):
        while queue.depth():
            await asyncio.sleep(0)
    assert runtime.problems() == []
    now = 301.0
    assert runtime.problems() == ["ModelDeployment team-a/churn has been in work for 301 s"]
    release.set()
    async with asyncio.timeout(5):
        while runtime.problems():
            await asyncio.sleep(0)
    task.cancel()


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ValueError("hunter2"), "an error of the operator's own (ValueError), which its log describes"),
        (KubernetesError(403, "Forbidden", "GET /x: secrets is forbidden"), "GET /x: secrets is forbidden"),
    ],
)
async def test_what_fails_again_and_again_is_told_at_the_object(failure: Exception, told: str) -> None:
    said: list[tuple[Key, str]] = []

    async def complain(key: Key, message: str) -> None:
        said.append((key, message))
        raise RuntimeError("nor could that be told")

    await run(Scripted(*[fails(failure)] * 4, ends()), until=5, complain=complain)
    assert said == [(KEY, f"this object cannot be worked on, and is tried again: {told}")] * 2


async def test_one_object_that_fails_does_not_hold_up_another() -> None:
    other = Key(KEY.kind, "team-a", "other")
    seen: list[str] = []

    class Reconciler:
        async def reconcile(self, namespace: str, name: str) -> float | None:
            seen.append(name)
            if name == KEY.name:
                raise RuntimeError("always")
            return None

    queue: WorkQueue[Key] = WorkQueue()
    runtime = Runtime(queue, {KEY.kind: Reconciler()}, Recorder(), backoff=Backoff(first=60.0), workers=1)
    queue.add(KEY)
    queue.add(other)
    task = asyncio.create_task(runtime.run())
    async with asyncio.timeout(5):
        while "other" not in seen:
            await asyncio.sleep(0)
    assert seen == ["churn", "other"]
    task.cancel()
