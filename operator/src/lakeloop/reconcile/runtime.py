"""Takes keys from the queue and has them reconciled, a bounded number at a time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.reconcile.protocol import Key, Reconciler
from lakeloop.reconcile.queue import Backoff, WorkQueue

logger = logging.getLogger(__name__)

CONFLICT_SECONDS = 0.1
"""Wait after a conflict: somebody else wrote, and the news of it is on its way to us."""
LONGEST_CONFLICT_SECONDS = 5.0
"""However often it happens in a row: nothing is wrong, and the next pass may be the one that gets through."""
LONGEST_PASS_SECONDS = 120.0
"""A pass that takes longer is cancelled and counts as failed."""
STUCK_SECONDS = 300.0
"""A pass that is still there after this did not let itself be cancelled: only a restart helps."""


Complain = Callable[[Key, str], Awaitable[None]]
"""Has the user told, at the object itself, that its passes fail."""
COMPLAIN_AFTER = 3
"""Failures in a row; fewer are a blip."""


class Observer(Protocol):
    """Who wants to know how passes go."""

    def passed(self, kind: str, outcome: str, waited: float, took: float, error: str | None) -> None:
        """`outcome` is `ok`, `conflict` or `error`; `waited` and `took` are seconds."""


class Runtime:
    """The workers. One per process, in one event loop with kopf."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        reconcilers: Mapping[str, Reconciler],
        observer: Observer,
        *,
        workers: int = 4,
        backoff: Backoff[Key] | None = None,
        longest_pass: float = LONGEST_PASS_SECONDS,
        stuck_after: float = STUCK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        complain: Complain | None = None,
    ) -> None:
        self._queue = queue
        self._reconcilers = reconcilers
        self._observer = observer
        self._workers = workers
        self._backoff: Backoff[Key] = backoff or Backoff()
        self._longest_pass = longest_pass
        self._stuck_after = stuck_after
        self._clock = clock
        self._complain = complain
        self._in_work: dict[Key, float] = {}

    async def run(self) -> None:
        """Works until cancelled; passes in work are cancelled with it, which the next start repairs."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    def problems(self) -> list[str]:
        """Passes that hang."""
        now = self._clock()
        return [
            f"{key} has been in work for {now - since:.0f} s"
            for key, since in self._in_work.items()
            if now - since > self._stuck_after
        ]

    async def _work(self) -> None:
        while True:
            key, waited = await self._queue.get()
            try:
                await self._pass(key, waited)
            finally:
                self._queue.done(key)

    async def _pass(self, key: Key, waited: float) -> None:
        began = self._in_work[key] = self._clock()
        outcome, error = "ok", None
        try:
            async with asyncio.timeout(self._longest_pass):
                again = await self._reconcilers[key.kind].reconcile(key.namespace, key.name)
            self._backoff.succeeded(key)
            if again is not None:
                self._queue.add(key, again)
        except Exception as failure:
            # Whatever went wrong with one object must not stop the others; it is logged, counted and tried again.
            outcome, error = self._after(key, failure)
            if outcome == "error":
                await self._tell_user(key, failure)
        finally:
            del self._in_work[key]
        self._observer.passed(key.kind, outcome, waited, self._clock() - began, error)

    def _after(self, key: Key, failure: Exception) -> tuple[str, str]:
        context = {"kind": key.kind, "namespace": key.namespace, "object": key.name}
        if isinstance(failure, KubernetesError) and failure.status == 409 and self._backoff.failures(key) == 0:
            self._backoff.failed(key)
            self._queue.add(key, CONFLICT_SECONDS)
            logger.debug("changed by somebody else meanwhile", extra=context)
            return "conflict", "Conflict"
        wait = self._backoff.failed(key)
        if isinstance(failure, KubernetesError) and failure.reason == "Conflict":
            wait = min(wait, LONGEST_CONFLICT_SECONDS)
        self._queue.add(key, wait)
        name = failure.reason if isinstance(failure, KubernetesError) else type(failure).__name__
        known = isinstance(failure, (KubernetesError, TimeoutError))
        logger.error(
            "reconcile failed: %s: %s; next try in %.1f s", name, failure, wait, extra=context, exc_info=not known
        )
        return "error", name

    async def _tell_user(self, key: Key, failure: Exception) -> None:
        """What nobody foresaw has no place in status, and must not be silent for that."""
        if self._complain is None or self._backoff.failures(key) < COMPLAIN_AFTER:
            return
        told = (
            failure.message
            if isinstance(failure, KubernetesError)
            # The text of any other could hold anything.
            else f"an error of the operator's own ({type(failure).__name__}), which its log describes"
        )
        try:
            async with asyncio.timeout(self._longest_pass):
                await self._complain(key, f"this object cannot be worked on, and is tried again: {told}")
        except Exception as error:
            logger.warning("%s: that it fails was not told: %s", key, error)
