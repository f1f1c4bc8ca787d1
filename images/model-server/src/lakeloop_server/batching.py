"""Predictions of several callers at once: what waits while every thread is busy goes together into the next free one.

A request that finds a free thread is begun at once, so that nobody waits for company, unless a delay is configured.
Only models whose answer to a row does not depend on the rows beside it come here (`Kernel.independent`): each caller
gets the bytes that he would get alone. Where a batch cannot be answered as one, each request is asked for by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from lakeloop_server.errors import RequestError
from lakeloop_server.fast import Array, FastPath
from lakeloop_server.metrics import Metrics
from lakeloop_server.predictor import Predictor

Answers = list[bytes | None]


@dataclass(eq=False)
class Entry:
    """A request that waits, or is being predicted by `job`."""

    rows: Array
    since: float
    future: asyncio.Future[bytes | None]
    job: Future[Any] | None = None


class Batcher:
    """At most `max_rows` rows in a batch, unless one request has more; `delay_seconds`: longest wait for it to fill."""

    def __init__(
        self, path: FastPath, predictor: Predictor, max_rows: int, delay_seconds: float, metrics: Metrics
    ) -> None:
        self._path = path
        self._predictor = predictor
        self._max_rows = max_rows
        self._delay = delay_seconds
        self._metrics = metrics
        self._waiting: deque[Entry] = deque()
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None

    async def answer(self, rows: Array) -> bytes | None:
        """The answer's body for these rows, or None: it is not known here. Raises RequestError: 503, 504."""
        self._predictor.admit()
        loop = asyncio.get_running_loop()
        entry = Entry(rows, loop.time(), loop.create_future())
        entry.future.add_done_callback(self._predictor.release)
        self._waiting.append(entry)
        self._start()
        try:
            return await self._predictor.wait(entry.future)
        except RequestError:
            # What nobody waits for any more is not begun
            if entry.job is None:
                self._waiting.remove(entry)
                self._metrics.waiting.dec()
                entry.future.cancel()
            else:
                self._predictor.late(entry.job)
            raise

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._running < self._predictor.threads:
            due = self._waiting[0].since + self._delay
            if loop.time() < due and sum(len(entry.rows) for entry in self._waiting) < self._max_rows:
                if self._timer is None:
                    self._timer = loop.call_at(due, self._due)
                return
            batch = self._take()
            self._running += 1
            job = self._predictor.submit(partial(self._predict, [entry.rows for entry in batch]))
            for entry in batch:
                entry.job = job
            asyncio.wrap_future(job, loop=loop).add_done_callback(self._ended(batch))

    def _due(self) -> None:
        self._timer = None
        self._start()

    def _take(self) -> list[Entry]:
        batch = [self._waiting.popleft()]
        rows = len(batch[0].rows)
        while self._waiting and rows + len(self._waiting[0].rows) <= self._max_rows:
            entry = self._waiting.popleft()
            rows += len(entry.rows)
            batch.append(entry)
        self._metrics.waiting.dec(len(batch))
        self._metrics.batch_rows.observe(rows)
        return batch

    def _predict(self, tables: list[Array]) -> Answers:
        if len(tables) > 1:
            found = self._path.answers(tables)
            if found is not None:
                return found
        return [self._path.answer(rows) for rows in tables]

    def _ended(self, batch: list[Entry]) -> Callable[[asyncio.Future[Answers]], None]:
        def end(job: asyncio.Future[Answers]) -> None:
            self._running -= 1
            failed = job.cancelled() or job.exception() is not None
            answers: Answers = [None] * len(batch) if failed else job.result()
            for entry, answer in zip(batch, answers, strict=True):
                if not entry.future.done():
                    entry.future.set_result(answer)
            self._start()

        return end
