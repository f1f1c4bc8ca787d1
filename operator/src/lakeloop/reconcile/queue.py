"""One queue for all objects: each key at most once, at the moment it is due, and never in two hands at a time."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar

K = TypeVar("K")


class DueQueue(Generic[K]):
    """The queue's rules, without waiting. Times are seconds on any one clock.

    A key that is added twice is due at the earlier of both times. One that is added while it is being worked on is
    handed out again only after `done`.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._taken: set[K] = set()
        self._order = itertools.count()

    def add(self, key: K, due: float) -> None:
        """Have the key handed out at `due` or, where it already waits for an earlier moment, then."""
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        if key not in self._taken:
            heapq.heappush(self._heap, (due, next(self._order), key))

    def pop(self, now: float) -> tuple[K, float] | None:
        """The key that has been due longest, with the time at which it was; None when none is."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        due, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._taken.add(key)
        return key, due

    def done(self, key: K) -> None:
        """The key that `pop` gave is no longer worked on."""
        self._taken.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], next(self._order), key))

    def next_due(self) -> float | None:
        """When the next key can be handed out; None when none waits."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def depth(self, now: float) -> int:
        """How many keys are due and not yet in work."""
        return sum(1 for key, due in self._due.items() if due <= now and key not in self._taken)

    def discard(self, key: K) -> None:
        """Forget that the key waits."""
        self._due.pop(key, None)

    def _drop_stale(self) -> None:
        # An entry is stale when its key was moved to an earlier time, is in work, or was discarded.
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) == due and key not in self._taken:
                return
            heapq.heappop(self._heap)


class WorkQueue(Generic[K]):
    """DueQueue with waiting, for one event loop."""

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now
        self._queue: DueQueue[K] = DueQueue()
        self._changed = asyncio.Event()

    def add(self, key: K, delay: float = 0.0) -> None:
        """Hand the key out after `delay` seconds. Must be called in the event loop's thread."""
        self._queue.add(key, self.now() + max(0.0, delay))
        self._changed.set()

    async def get(self) -> tuple[K, float]:
        """Waits for a key to be due. Returns it with the seconds that it has been."""
        while True:
            now = self.now()
            if (found := self._queue.pop(now)) is not None:
                # Another worker may wait for this very wake-up while more keys are due.
                self._changed.set()
                return found[0], max(0.0, now - found[1])
            due = self._queue.next_due()
            self._changed.clear()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - now)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """Every `get` must be followed by this."""
        self._queue.done(key)
        self._changed.set()

    def discard(self, key: K) -> None:
        """Forget that the key waits."""
        self._queue.discard(key)

    def depth(self) -> int:
        """How many keys are due and not yet in work."""
        return self._queue.depth(self.now())

    def now(self) -> float:
        """Seconds on the queue's clock: the event loop's, unless another was given."""
        return asyncio.get_running_loop().time() if self._now is None else self._now()


@dataclass(slots=True)
class Backoff(Generic[K]):
    """How long to wait before a key that failed is tried again: doubled each time, bounded, and never in step."""

    first: float = 0.5
    most: float = 300.0
    jitter: float = 0.2
    """Share by which a wait may be longer."""
    random: Random = field(default_factory=Random)
    _failures: dict[K, int] = field(default_factory=dict)

    def failed(self, key: K) -> float:
        """Counts one more failure. Returns the seconds to wait."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        # The exponent is bounded too: a float overflows after a thousand failures.
        wait = min(self.most, self.first * 2.0 ** min(count, 32))
        return wait * (1.0 + self.jitter * self.random.random())

    def succeeded(self, key: K) -> None:
        """Forgets the key's failures."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often in a row the key failed."""
        return self._failures.get(key, 0)
