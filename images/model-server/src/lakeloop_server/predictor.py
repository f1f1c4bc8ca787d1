"""Predictions in a bounded pool of threads, so that the event loop stays free and a crowd is told to come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, TypeVar

from lakeloop_server.errors import RequestError
from lakeloop_server.metrics import Metrics

T = TypeVar("T")


class Predictor:
    """At most `threads` predictions at a time and `max_queue` waiting ones.

    A thread cannot be stopped. `on_stuck` is called when each of them is held by a prediction that is twice as late as
    any caller waits: nothing would ever be answered again.
    """

    def __init__(
        self, threads: int, max_queue: int, timeout_seconds: float, metrics: Metrics, on_stuck: Callable[[], None]
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        # Begun now, while there surely is memory for them
        begun = threading.Barrier(threads + 1)
        for _ in range(threads):
            self._pool.submit(begun.wait)
        begun.wait()
        self._threads = threads
        self._limit = threads + max_queue
        self._timeout = timeout_seconds
        self._metrics = metrics
        self._on_stuck = on_stuck
        self._pending = 0
        self._stuck: set[Future[Any]] = set()

    def overload(self, headers: dict[str, str] | None = None) -> RequestError:
        """Counts a refused request, and gives what it is answered with (503)."""
        self._metrics.overloads.inc()
        return RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "TEMPORARILY_UNAVAILABLE",
            "Too many requests are waiting. Try again after a moment",
            {"retry-after": "1", **(headers or {})},
        )

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, run in a thread.

        Raises RequestError: 503 (queue full, with Retry-After), 504 (took too long: the thread goes on, and counts
        until it ends), or what `work` raises.
        """
        if self._pending >= self._limit:
            raise self.overload()
        self._pending += 1
        self._metrics.in_flight.inc()
        loop = asyncio.get_running_loop()
        job = self._pool.submit(work)
        future = asyncio.wrap_future(job, loop=loop)
        future.add_done_callback(self._done)
        try:
            # Shielded: what still runs must still be counted
            return await asyncio.wait_for(asyncio.shield(future), self._timeout)
        except TimeoutError:
            # What nobody waits for any more is not begun
            if not job.cancel():
                loop.call_later(self._timeout, self._look_again, job)
            raise RequestError(
                HTTPStatus.GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", "The prediction took longer than the server allows"
            ) from None

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._pending -= 1
        self._metrics.in_flight.dec()
        if not future.cancelled():
            future.exception()  # read, so that asyncio does not log it, and with it a caller's values

    def _look_again(self, job: Future[Any]) -> None:
        self._stuck = {one for one in {*self._stuck, job} if not one.done()}
        if len(self._stuck) >= self._threads:
            self._on_stuck()
