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
        self.threads = threads
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

    def admit(self) -> None:
        """Counts a request that waits for a thread. Raises RequestError (503, with Retry-After) if too many do."""
        if self._pending >= self._limit:
            raise self.overload()
        self._pending += 1
        self._metrics.in_flight.inc()
        self._metrics.waiting.inc()

    def release(self, future: asyncio.Future[Any]) -> None:
        """To be called once a request that was admitted waits and runs no more."""
        self._pending -= 1
        self._metrics.in_flight.dec()
        if not future.cancelled():
            future.exception()  # read, so that asyncio does not log it, and with it a caller's values

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Has `work` run in a thread, as soon as one is free."""
        return self._pool.submit(work)

    async def wait(self, future: asyncio.Future[T]) -> T:
        """The future's result; raises RequestError (504) if it takes too long, and lets it go on."""
        try:
            # Shielded: what still runs must still be counted
            return await asyncio.wait_for(asyncio.shield(future), self._timeout)
        except TimeoutError:
            raise RequestError(
                HTTPStatus.GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", "The prediction took longer than the server allows"
            ) from None

    def late(self, job: Future[Any]) -> None:
        """To be called when a caller waits no more for a job that has begun."""
        asyncio.get_running_loop().call_later(self._timeout, self._look_again, job)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, run in a thread.

        Raises RequestError: 503 (queue full, with Retry-After), 504 (took too long: the thread goes on, and counts
        until it ends), or what `work` raises.
        """

        def begin() -> T:
            self._metrics.waiting.dec()
            return work()

        self.admit()
        job = self.submit(begin)
        future = asyncio.wrap_future(job, loop=asyncio.get_running_loop())
        future.add_done_callback(self.release)
        try:
            return await self.wait(future)
        except RequestError as error:
            if error.status == HTTPStatus.GATEWAY_TIMEOUT and not future.done():
                # What nobody waits for any more is not begun
                if job.cancel():
                    self._metrics.waiting.dec()
                else:
                    self.late(job)
            raise

    def _look_again(self, job: Future[Any]) -> None:
        self._stuck = {one for one in {*self._stuck, job} if not one.done()}
        if len(self._stuck) >= self.threads:
            self._on_stuck()
