"""The tables that triggers follow: what was committed since a version, and a look at their logs every few seconds.

All of it may be lost: what must not be is the version to count from, which is in each object's status.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from lakeloop.adapters.clock import Clock
from lakeloop.adapters.delta_log_protocol import CommitPage, DeltaLog
from lakeloop.adapters.object_store_protocol import StorageAccess, StorageError
from lakeloop.domain.training.observed import NewCommits
from lakeloop.reconcile.protocol import Key
from lakeloop.reconcile.queue import WorkQueue

logger = logging.getLogger(__name__)

POLL_SECONDS = 4.0
_AT_ONCE = 4
"""Looks at the same time: the store's threads are for others too."""
_LONGEST_LOOK_SECONDS = 20.0

Enqueue = Callable[[Key], None]


@dataclass(slots=True)
class _Watched:
    access: StorageAccess
    uri: str
    since: int | None
    """The version that commits are counted from."""
    commits: NewCommits
    looked: datetime
    stale: bool = False
    """Whether there is something new."""


class TableWatch:
    """What is known of each object's table. For one event loop."""

    def __init__(self, tables: DeltaLog, clock: Clock, poll_seconds: float = POLL_SECONDS) -> None:
        self._tables = tables
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._watched: dict[Key, _Watched] = {}
        self._failing: dict[Key, datetime] = {}
        self._queue: WorkQueue[Key] | None = None

    async def look(self, key: Key, access: StorageAccess, uri: str, since: int | None) -> NewCommits:
        """What was committed after version `since` (None: ever). No commit is read twice. Raises StorageError."""
        now = self._clock.now()
        known = self._known(key, uri, since)
        if known is not None and known.access == access and not self._due(known, now):
            return known.commits
        before = known.commits if known is not None else NewCommits(-1 if since is None else since)
        page = await self._tables.commits(access, uri, after=before.version)
        if page.recreated:
            # Told until `since` is None: then it is known.
            page = await self._tables.commits(access, uri, after=-1)
            after = replace(_with(NewCommits(-1), page, now), recreated=since is not None)
            since = None
        else:
            after = replace(_with(before, page, now), recreated=False)
        self._watched[key] = _Watched(access, uri, since, after, now)
        self._failing.pop(key, None)
        if self._queue is not None:
            self._queue.add(key, self._poll_seconds)
        return after

    def _known(self, key: Key, uri: str, since: int | None) -> _Watched | None:
        found = self._watched.get(key)
        if found is None or found.uri != uri:
            return None
        return found if found.since == since else None

    def _due(self, known: _Watched, now: datetime) -> bool:
        passed = (now - known.looked).total_seconds()
        return known.stale or known.commits.more or not 0 <= passed < self._poll_seconds

    def failed(self, key: Key) -> float:
        """A look failed. Returns for how many seconds they have."""
        now = self._clock.now()
        self._unwatch(key)
        since = self._failing.setdefault(key, now)
        return max(0.0, (now - since).total_seconds())

    def forget(self, key: Key) -> None:
        """Nobody waits for commits to that object's table."""
        self._unwatch(key)
        self._failing.pop(key, None)

    def _unwatch(self, key: Key) -> None:
        self._watched.pop(key, None)
        if self._queue is not None:
            self._queue.discard(key)

    async def run(self, enqueue: Enqueue) -> None:
        """Looks at the end of each table's log, and has its object looked at when there is something new."""
        self._queue = WorkQueue()
        for key in self._watched:
            self._queue.add(key, self._poll_seconds)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(self._work(self._queue, enqueue))
        finally:
            self._queue = None

    async def _work(self, queue: WorkQueue[Key], enqueue: Enqueue) -> None:
        while True:
            key, _ = await queue.get()
            try:
                await self._poll(key, queue, enqueue)
            finally:
                queue.done(key)

    async def _poll(self, key: Key, queue: WorkQueue[Key], enqueue: Enqueue) -> None:
        known = self._watched.get(key)
        if known is None:
            return
        try:
            async with asyncio.timeout(_LONGEST_LOOK_SECONDS):
                changed = await self._tables.changed(known.access, known.uri, after=known.commits.version)
        except (StorageError, TimeoutError) as error:
            logger.debug("%s: the log of %s cannot be looked at: %s", key, known.uri, error)
            changed = True  # the object's own pass finds out why, and tells it
        except Exception:
            logger.exception("%s: the log of %s cannot be looked at", key, known.uri)
            changed = True
        if self._watched.get(key) is not known:
            return  # looked at meanwhile
        if changed:
            known.stale = True
            enqueue(key)
        else:
            known.looked = self._clock.now()
            queue.add(key, self._poll_seconds)


def _with(before: NewCommits, page: CommitPage, now: datetime) -> NewCommits:
    counting = [each for each in page.commits if each.counts]
    # A store whose clock is ahead must not keep a table from ever being quiet.
    times = [min(each.time, now) for each in counting] + ([before.newest] if before.newest else [])
    if page.missing and not times:
        times = [now]
    return NewCommits(
        version=page.commits[-1].version if page.commits else before.version,
        commits=before.commits + len(counting) + page.missing,
        rows=before.rows + sum(each.rows or 0 for each in counting),
        unknown=before.unknown + sum(each.rows is None for each in counting) + page.missing,
        newest=max(times, default=None),
        more=page.more,
    )
