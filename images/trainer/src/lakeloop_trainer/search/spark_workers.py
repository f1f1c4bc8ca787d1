"""scikit-learn's trials on the executors: each fold is a Spark job of one task. The rows are broadcast once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lakeloop_trainer.failures import exception_line, scrub
from lakeloop_trainer.search.loop import TrialError
from lakeloop_trainer.search.scoring import Folds, outcome
from lakeloop_trainer.search.trial import Trial

_LOST_CONTEXT = re.compile(
    r"stopped SparkContext|SparkContext (was|has been) shut ?down|Py4JNetworkError|Answer from Java"
)


class SparkWorkers:
    """So many tasks at one time as the executors have cores.

    In an executor each task has a Python worker of its own with a copy of the rows, outside of the heap: that is
    ``spark.executor.memoryOverhead``'s.
    """

    def __init__(self, spark: Any, folds: Folds, slots: int, broken: Callable[[], bool]) -> None:
        """``broken`` tells whether a failed job is Spark's own fault, as where there are no executors."""
        self.slots = slots
        self._context = spark.sparkContext
        self._folds = self._context.broadcast(folds)
        self._broken = broken
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="trial")

    def submit(self, trial: Trial, fold: int) -> Future[Mapping[str, float]]:
        return self._threads.submit(self._score, trial.number, dict(trial.params), fold)

    def cancel(self, trial: Trial) -> None:
        self._context.cancelJobGroup(group_of(trial.number))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _score(self, number: int, params: dict[str, Any], fold: int) -> Mapping[str, float]:
        # of this thread alone: each Python thread has a thread of the JVM's
        self._context.setJobGroup(group_of(number), f"trial {number}, fold {fold + 1}", interruptOnCancel=True)
        try:
            task = self._context.parallelize([(params, fold)], 1).mapPartitions(_task(self._folds))
            metrics, message = task.collect()[0]
        except Exception as error:
            line = exception_line(error)
            if is_lost(error, self._broken):
                raise
            raise TrialError(scrub(re.sub(r"'[^'\n]*'", "'…'", f"its Spark task failed: {line}"))) from error
        if metrics is None:
            raise TrialError(message)
        found: Mapping[str, float] = metrics
        return found


def is_lost(error: Exception, broken: Callable[[], bool]) -> bool:
    """Whether a job failed because Spark itself is gone: that is no trial's fault, and ends the search."""
    if broken() or isinstance(error, ConnectionError | EOFError):  # Python's own: to the JVM, and to nothing else
        return True
    return _LOST_CONTEXT.search(f"{type(error).__name__}: {exception_line(error)}") is not None


def group_of(number: int) -> str:
    """The group of a trial's Spark jobs."""
    return f"lakeloop-trial-{number}"


def _task(folds: Any) -> Callable[[Iterable[tuple[dict[str, Any], int]]], Iterator[Any]]:
    def run(asked: Iterable[tuple[dict[str, Any], int]]) -> Iterator[Any]:
        known: Folds = folds.value
        for params, fold in asked:
            yield outcome(known, params, fold)

    return run
