"""Trials in threads of the driver, for a library whose fits are at work elsewhere (Spark ML, on the executors)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lakeloop_trainer.search.trial import Trial

Score = Callable[[int, Mapping[str, Any], int], Mapping[str, float]]
"""(trial, params, fold) → metrics; raises TrialError where the trial failed."""


class ThreadWorkers:
    """Calls a function in so many threads."""

    def __init__(self, score: Score, slots: int, cancel: Callable[[int], None]) -> None:
        """``cancel`` ends what the trial of that number has running; the function is to raise then."""
        self.slots = slots
        self._score = score
        self._cancel = cancel
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="trial")

    def submit(self, trial: Trial, fold: int) -> Future[Mapping[str, float]]:
        return self._threads.submit(self._score, trial.number, dict(trial.params), fold)

    def cancel(self, trial: Trial) -> None:
        self._cancel(trial.number)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
