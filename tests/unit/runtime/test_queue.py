"""The queue's rules, by example and by any order of calls."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lakeloop.reconcile.queue import Backoff, DueQueue, WorkQueue

KEYS = st.sampled_from("abc")
TIMES = st.integers(0, 20).map(float)


def test_earlier_time_wins() -> None:
    queue: DueQueue[str] = DueQueue()
    queue.add("a", 9.0)
    queue.add("a", 5.0)
    queue.add("a", 7.0)
    assert queue.next_due() == 5.0
    assert queue.pop(4.9) is None
    assert queue.pop(5.0) == ("a", 5.0)
    queue.done("a")
    assert queue.pop(100.0) is None, "once, not three times"


def test_key_in_work_waits_until_done() -> None:
    queue: DueQueue[str] = DueQueue()
    queue.add("a", 0.0)
    queue.pop(0.0)
    queue.add("a", 0.0)
    assert queue.pop(1.0) is None
    assert queue.next_due() is None
    queue.done("a")
    assert queue.pop(1.0) == ("a", 0.0)


def test_longest_due_comes_first() -> None:
    queue: DueQueue[str] = DueQueue()
    for key, due in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
        queue.add(key, due)
    assert [queue.pop(9.0), queue.pop(9.0), queue.pop(9.0)] == [("early", 1.0), ("middle", 2.0), ("late", 3.0)]


def test_depth_counts_what_is_due_and_free() -> None:
    queue: DueQueue[str] = DueQueue()
    queue.add("now", 0.0)
    queue.add("later", 9.0)
    queue.add("taken", -1.0)
    queue.pop(0.0)
    queue.add("taken", 0.0)
    assert queue.depth(1.0) == 1


class AnyOrder(RuleBasedStateMachine):
    """Against a model: a dict of due times and a set of keys in work."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: DueQueue[str] = DueQueue()
        self.due: dict[str, float] = {}
        self.taken: set[str] = set()
        self.now = 0.0

    @rule(key=KEYS, due=TIMES)
    def add(self, key: str, due: float) -> None:
        self.queue.add(key, due)
        self.due[key] = min(due, self.due.get(key, due))

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def pop(self) -> None:
        free = {key: due for key, due in self.due.items() if key not in self.taken and due <= self.now}
        found = self.queue.pop(self.now)
        if not free:
            assert found is None
            return
        assert found is not None
        key, due = found
        assert due == self.due[key] == min(free.values())
        del self.due[key]
        self.taken.add(key)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.taken)))
        self.queue.done(key)
        self.taken.discard(key)

    @rule(key=KEYS)
    def discard(self, key: str) -> None:
        self.queue.discard(key)
        self.due.pop(key, None)

    @invariant()
    def next_is_known(self) -> None:
        free = [due for key, due in self.due.items() if key not in self.taken]
        assert self.queue.next_due() == (min(free) if free else None)


TestAnyOrder = AnyOrder.TestCase


async def test_get_waits_for_what_is_added_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.add("a")
    assert (await waiting)[0] == "a"


async def test_get_is_woken_by_an_earlier_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("far", 3600)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("near")
    assert (await waiting)[0] == "near"


async def test_one_addition_wakes_workers_for_all_that_is_due() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in "abc":
        queue.add(key)
    found = await asyncio.gather(*workers)
    assert sorted(key for key, _ in found) == ["a", "b", "c"]


async def test_get_waits_until_it_is_due() -> None:
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    began = loop.time()
    queue.add("a", 0.02)
    await queue.get()
    assert loop.time() - began >= 0.02


def test_backoff_doubles_up_to_its_bound_and_forgets() -> None:
    backoff: Backoff[str] = Backoff(first=1.0, most=10.0, jitter=0.0)
    assert [backoff.failed("a") for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.failed("b") == 1
    backoff.succeeded("a")
    assert backoff.failures("a") == 0
    assert backoff.failed("a") == 1


@given(failures=st.integers(1, 5000))
def test_backoff_is_bounded_after_any_number_of_failures(failures: int) -> None:
    backoff: Backoff[str] = Backoff(first=0.5, most=300.0, jitter=0.2, random=Random(1))
    backoff._failures["a"] = failures
    assert 0.5 <= backoff.failed("a") <= 360.0


def test_backoff_is_not_in_step() -> None:
    backoff: Backoff[int] = Backoff(first=1.0, jitter=0.5, random=Random(1))
    waits = {backoff.failed(key) for key in range(20)}
    assert len(waits) == 20
    assert all(1.0 <= wait <= 1.5 for wait in waits)


@pytest.mark.parametrize("count", [1, 3])
async def test_no_key_is_in_two_hands(count: int) -> None:
    queue: WorkQueue[str] = WorkQueue()
    in_work: set[str] = set()
    passes = 0

    async def work() -> None:
        nonlocal passes
        while True:
            key, _ = await queue.get()
            assert key not in in_work
            in_work.add(key)
            queue.add(key)
            await asyncio.sleep(0)
            in_work.discard(key)
            passes += 1
            queue.done(key)

    for key in "abc":
        queue.add(key)
    workers = [asyncio.create_task(work()) for _ in range(count)]
    while passes < 100:
        await asyncio.sleep(0)
        assert not any(worker.done() for worker in workers)
    for worker in workers:
        worker.cancel()
