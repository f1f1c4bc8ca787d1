"""The search itself: so many trials at one time, until there are enough or the time is over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Protocol

from lakeloop_trainer.run_spec import Search
from lakeloop_trainer.search.study import Study
from lakeloop_trainer.search.trial import FAILED, FINISHED, MAX_MESSAGE, PRUNED, RUNNING, Trial

OUT_OF_TIME = "it was not over when spec.search.timeoutSeconds were"


class TrialError(Exception):
    """A trial failed; the text says why, without a value of a row."""


class Workers(Protocol):
    """What scores trials, ``slots`` at one time."""

    slots: int

    def submit(self, trial: Trial, fold: int) -> Future[Mapping[str, float]]:
        """Begins to fit and score one fold (from 0); the future gives its metrics.

        Or raises TrialError where the trial failed; anything else that it raises ends the search.
        """

    def cancel(self, trial: Trial) -> None:
        """Ends what runs of the trial, so that its future is over soon."""

    def close(self) -> None:
        """Frees what is held."""


@dataclass(frozen=True)
class Budget:
    """The time that a search has. ``spent``: seconds that earlier attempts took of it."""

    seconds: float
    spent: float
    began: float
    clock: Callable[[], float] = time.monotonic

    @property
    def taken(self) -> float:
        """Seconds that the search has taken by now, over all attempts."""
        return self.spent + self.clock() - self.began

    @property
    def left(self) -> float:
        """Seconds in which trials may still begin."""
        return max(0.0, self.seconds - self.taken)

    @property
    def grace(self) -> float:
        """Seconds until what still runs is ended: a quarter of the time, but 10 seconds at least, beyond the time."""
        return max(0.0, self.seconds + max(10.0, self.seconds / 4) - self.taken)


def run(
    search: Search,
    study: Study,
    workers: Workers,
    budget: Budget,
    objective: str,
    changed: Callable[[Trial], None],
) -> None:
    """Runs the trials. ``changed`` is called at each one's begin and end, in this thread."""
    running: dict[Future[Mapping[str, float]], Trial] = {}
    began: dict[int, float] = {}
    slots = max(1, min(search.parallelism, workers.slots))
    try:
        while True:
            while len(running) < slots and budget.left > 0 and (trial := study.ask()) is not None:
                began[trial.number] = budget.clock()
                trial.at = budget.taken
                changed(trial)
                running[workers.submit(trial, 0)] = trial
            if not running:
                return
            over, _ = wait(running, timeout=budget.grace, return_when=FIRST_COMPLETED)
            late = not over
            for future in over or list(running):
                trial = running.pop(future)
                if late:
                    workers.cancel(trial)
                elif not _goes_on(search, study, trial, future, objective):
                    pass
                elif budget.grace > 0:
                    running[workers.submit(trial, len(trial.values))] = trial
                    continue
                if trial.state == RUNNING:
                    trial.state, trial.message = FAILED, OUT_OF_TIME
                trial.seconds = budget.clock() - began[trial.number]
                trial.at = budget.taken
                study.tell(trial)
                changed(trial)
    finally:
        for trial in running.values():
            workers.cancel(trial)


def _goes_on(search: Search, study: Study, trial: Trial, future: Future[Mapping[str, float]], objective: str) -> bool:
    """Takes the result of a fold; gives whether another one is to follow, else the trial's state is set."""
    try:
        metrics = dict(future.result())
        value = metrics.get(objective, math.nan)
        if not math.isfinite(value):
            raise TrialError(f"{objective} is not defined on the rows of fold {len(trial.values) + 1}")
    except TrialError as error:
        trial.state, trial.message = FAILED, str(error)[:MAX_MESSAGE]
        return False
    trial.folds.append(metrics)
    trial.values.append(value)
    if len(trial.values) == search.folds:
        trial.state = FINISHED
        return False
    if study.report(trial):
        trial.state = PRUNED
        return False
    return True


def remaining_seconds(over: int, elapsed: float, left: int, time_left: float) -> float | None:
    """An estimate of what is left: the pace so far, and no more than the time. None before a trial is over."""
    if left <= 0:
        return 0.0
    return min(elapsed / over * left, time_left) if over else None
