"""A search from its spec to its winner, whatever the library: resume, run, tell, report."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lakeloop_trainer import metrics as measures
from lakeloop_trainer.attempt import Attempt, tracking_errors
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Objective, Search
from lakeloop_trainer.search import loop, report, space
from lakeloop_trainer.search.record import Record
from lakeloop_trainer.search.study import Study
from lakeloop_trainer.search.trial import FAILED, FINISHED, PRUNED, RUNNING, Trial, best, count

FIRST_PERCENT, LAST_PERCENT = 30, 68
MAX_TEXT = 100

log = logging.getLogger("lakeloop_trainer")


def find(attempt: Attempt, workers: loop.Workers, objective: str, maximize: bool) -> Trial:
    """Runs the search of the attempt's spec and gives the best trial; ``attempt.search`` is what it came to.

    Raises RunFailure: SearchFailed where no trial finished. The workers are closed in any case.
    """
    search = attempt.spec.search
    if search is None:
        raise ValueError("the run spec has no search")
    record = None
    try:
        tracker = attempt.tracker()
        record = Record(tracker, f"{attempt.spec.job}-{attempt.spec.number}-trial-", objective)
        with tracking_errors("Looking for the trials of earlier attempts"):
            past = known(search, record.past())
        if past:
            log.info("%d trials of earlier attempts are taken over", len(past))
        with attempt.stages.measure("import Optuna"):
            study = Study(search, attempt.spec.dataset.split.seed, maximize, past)
        spent = max((each.at for each in past), default=0.0)
        budget = loop.Budget(search.timeout_seconds, spent, time.monotonic())
        before = _over(study.trials)

        def changed(trial: Trial) -> None:
            record.changed(trial)
            _tell(attempt, study, budget, before)

        for trial in study.given_up:
            record.changed(trial)
        _tell(attempt, study, budget, before)
        with attempt.stages.measure("search"):
            loop.run(search, study, workers, budget, objective, changed)
        # what was cut off and had no time to be begun again
        for trial in study.trials:
            if trial.state == RUNNING:
                trial.state, trial.message = FAILED, loop.OUT_OF_TIME
                record.changed(trial)
    except BaseException:
        if record is not None:  # what is over need not be tried again by the next attempt
            record.abandon()
        raise
    finally:
        workers.close()
    with attempt.stages.measure("wait for trials logged"), tracking_errors("Logging the trials"):
        record.close()
        folder = attempt.work / "search"
        tracker.artifacts(report.write(folder, search, study.trials, objective, maximize))
    winner = best(study.trials, maximize)
    if winner is None:
        raise failure(study.trials)
    attempt.search = summary(study.trials, winner)
    log.info(
        "search: %d trials, %d finished, %d pruned, %d failed; the best is trial %d, %s %.6g",
        len(study.trials), *(count(study.trials, state) for state in (FINISHED, PRUNED, FAILED)),
        winner.number, objective, winner.value,
    )  # fmt: skip
    with tracking_errors("Logging the best parameters"):
        tracker.params({"search.best.trial": winner.number, **best_params(winner)})
        tracker.metrics({f"cv_{objective}": float(winner.value or 0.0), f"cv_{objective}_std": winner.deviation})
    return winner


def maximizes(wanted: Objective | None, objective: str) -> bool:
    """Whether more of the objective is better."""
    return wanted.goal == "Maximize" if wanted else objective not in measures.LOWER_IS_BETTER


def known(search: Search, past: Sequence[Trial]) -> list[Trial]:
    """The trials that are points of this space, with their parameters."""
    found = []
    for trial in past:
        try:
            trial.params = space.values(search, trial.point)
        except ValueError as error:
            log.warning("trial %d is left out: %s", trial.number, error)
            continue
        found.append(trial)
    return found


def summary(trials: Sequence[Trial], winner: Trial) -> dict[str, Any]:
    """As in the run's result."""
    return {
        "trials": len(trials),
        "finished": count(trials, FINISHED),
        "pruned": count(trials, PRUNED),
        "failed": count(trials, FAILED),
        "best": {
            "trial": winner.number,
            "value": winner.value,
            "params": {name: str(value)[:MAX_TEXT] for name, value in winner.params.items()},
        },
    }


def best_params(winner: Trial) -> Mapping[str, object]:
    """The winner's parameters, as the run's."""
    return {f"search.best.{name}": value for name, value in winner.params.items()}


def failure(trials: Sequence[Trial]) -> RunFailure:
    """Why a search has no winner: what most of its trials say."""
    messages = Counter(each.message for each in trials if each.state == FAILED)
    if not messages:
        return RunFailure(
            "SearchFailed",
            "No trial was begun within spec.search.timeoutSeconds: raise it",
            "spec.search.timeoutSeconds",
        )
    message, times = messages.most_common(1)[0]
    if message == loop.OUT_OF_TIME:
        text = f"No trial was over within spec.search.timeoutSeconds; {times} were begun: raise it"
        return RunFailure("SearchFailed", text, "spec.search.timeoutSeconds")
    text = f"None of the {len(trials)} trials finished; {times} failed with: {message}"
    return RunFailure("SearchFailed", text[:1000], "spec.search")


def _over(trials: Sequence[Trial]) -> int:
    return sum(each.state != RUNNING for each in trials)


def _tell(attempt: Attempt, study: Study, budget: loop.Budget, before: int) -> None:
    over, total = _over(study.trials), study.total
    percent = FIRST_PERCENT + (LAST_PERCENT - FIRST_PERCENT) * over // max(1, total)
    took = budget.taken - budget.spent
    left = loop.remaining_seconds(over - before, took, total - over, budget.left)
    attempt.progress.trials(over, total, percent, left)
