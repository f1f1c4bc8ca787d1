"""Predictions in a bounded pool of threads, so that the event loop stays free and a crowd is told to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TypeVar

from lakeloop_server.errors import RequestError
from lakeloop_server.metrics import Metrics

T = TypeVar("T")


class Predictor:
    """At most `threads` predictions at a time and `max_queue` waiting ones."""

    def __init__(self, threads: int, max_queue: int, timeout_seconds: float, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._limit = threads + max_queue
        self._timeout = timeout_seconds
        self._metrics = metrics
        self._pending = 0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, run in a thread.

        Raises RequestError: 503 (queue full, with Retry-After), 504 (took too long: the thread goes on, and counts
        until it ends), or what `work` raises.
        """
        if self._pending >= self._limit:
            self._metrics.overloads.inc()
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "TEMPORARILY_UNAVAILABLE",
                "Too many requests are waiting. Try again after a moment",
                {"retry-after": "1"},
            )
        self._pending += 1
        self._metrics.in_flight.inc()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._done)
        try:
            # Shielded: a thread cannot be stopped, and what still runs must still be counted
            return await asyncio.wait_for(asyncio.shield(future), self._timeout)
        except TimeoutError:
            raise RequestError(
                HTTPStatus.GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", "The prediction took longer than the server allows"
            ) from None

    def _done(self, future: asyncio.Future[T]) -> None:
        self._pending -= 1
        self._metrics.in_flight.dec()
        if not future.cancelled():
            future.exception()  # read, so that asyncio does not log it, and with it a caller's values
