"""The search for a pipeline of Spark ML: what is checked before any trial, and what scores one.

A trial runs in a thread of the driver, which does nothing but wait: fits and metrics are Spark jobs on the rows that
the executors keep. Trials beside one another share the executors, as those of pyspark's `CrossValidator` do.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lakeloop_trainer.attempt import Attempt
from lakeloop_trainer.failures import INFRASTRUCTURE, SUBMISSION, RunFailure
from lakeloop_trainer.spark_conf import total_cores

if TYPE_CHECKING:
    from lakeloop_trainer.dataset import Selected
    from lakeloop_trainer.run_spec import Step
    from lakeloop_trainer.spark_ml.folds import Folds
    from lakeloop_trainer.spark_ml.rows import Rows
    from lakeloop_trainer.spark_ml.wiring import Wiring

Built = tuple["Wiring", Sequence[Any]]
"""A pipeline's columns, and its stages."""


def check(attempt: Attempt) -> None:
    """Refuses names and types that the steps do not have. Before any data is read; without a search, nothing."""
    search = attempt.spec.search
    if search is None:
        return
    from lakeloop_trainer.search import space, spark_ml_space

    space.check(search)
    spark_ml_space.check(attempt.spec.steps, search.parameters, attempt.spec.dataset.split.seed)


def check_values(attempt: Attempt, selected: Selected) -> None:
    """Refuses values that Spark refuses: ranges, and columns that are not there. Before any row is read."""
    search = attempt.spec.search
    if search is None:
        return
    from lakeloop_trainer.search import names

    names.check_values(search.parameters, lambda each, value: _built(attempt, selected, {each.name: value}))


def best(attempt: Attempt, spark: Any, selected: Selected, given: Built, rows: Rows) -> Built:
    """The pipeline with the best parameters, not yet fitted; without a search, the one that is given.

    From then on the attempt's spec has those parameters in its steps.
    """
    search = attempt.spec.search
    if search is None:
        return given
    from lakeloop_trainer.search import core
    from lakeloop_trainer.search.thread_workers import ThreadWorkers
    from lakeloop_trainer.spark_ml import pipeline
    from lakeloop_trainer.spark_ml.evaluation import objective_of
    from lakeloop_trainer.spark_ml.folds import folds
    from lakeloop_trainer.spark_ml.trouble import failure_of

    attempt.progress.stage("Training", core.FIRST_PERCENT)
    pipeline.check_classes(given[0], rows)
    wanted = attempt.spec.objective
    objective = objective_of(wanted, classifier=bool(rows.classes), classes=len(rows.classes))
    with attempt.stages.measure("divide into folds"):
        try:
            divided = folds(rows, attempt.spec.dataset.split, search.folds)
        except Exception as error:
            raise failure_of(error, "Dividing the training rows into folds", "SearchFailed", rows) from error
    trials = Trials(
        spark.sparkContext, divided, rows, lambda params: _built(attempt, selected, params),
        lambda: attempt.executors_missing, attempt.vacuumed,
    )  # fmt: skip
    workers = ThreadWorkers(trials.score, min(search.parallelism, total_cores(attempt.conf)), trials.cancel)
    with nothing_left(spark.sparkContext):
        winner = core.find(attempt, workers, objective, core.maximizes(wanted, objective))
    if attempt.spec.estimator is not None:
        steps = _steps(attempt, winner.params)
        attempt.spec = replace(attempt.spec, estimator=replace(attempt.spec.estimator, steps=steps))
    return _built(attempt, selected, {})


class Trials:
    """Scores one fold of one trial; called by several threads."""

    def __init__(
        self,
        context: Any,
        folds: Folds,
        rows: Rows,
        build: Callable[[Mapping[str, Any]], Built],
        broken: Callable[[], bool],
        vacuumed: Callable[[BaseException], RunFailure | None],
    ) -> None:
        """``build`` makes the pipeline of a trial's parameters; ``broken`` tells whether there are no executors."""
        self._context = context
        self._folds = folds
        self._rows = rows
        self._build = build
        self._broken = broken
        self._vacuumed = vacuumed

    def score(self, number: int, params: Mapping[str, Any], fold: int) -> Mapping[str, float]:
        """Fits on the fold's rows and gives the metrics of the others.

        Raises TrialError; what is not the trial's fault (storage, the JVM, no executors) as it is.
        """
        from lakeloop_trainer.search.loop import TrialError
        from lakeloop_trainer.search.spark_workers import group_of, is_lost
        from lakeloop_trainer.spark_ml import pipeline
        from lakeloop_trainer.spark_ml.evaluation import score
        from lakeloop_trainer.spark_ml.trouble import failure_of

        # of this thread alone: each Python thread has a thread of the JVM's
        self._context.setJobGroup(group_of(number), f"trial {number}, fold {fold + 1}", interruptOnCancel=True)
        learned_from, held_out = self._folds.sides(fold)
        doing = "The pipeline's fit"
        try:
            wiring, stages = self._build(params)
            model = pipeline.fit(wiring, stages, self._rows, learned_from)
            doing = "Scoring the held-out rows"
            return score(model, wiring, dataclasses.replace(self._rows, frame=held_out))[False]
        except Exception as error:
            if is_lost(error, self._broken):
                raise
            if gone := self._vacuumed(error):
                raise gone from error
            failure = failure_of(error, doing, "FitFailed", self._rows)
            # an executor may be lost because of the trial; Spark has tried it on others
            if failure.failure_class in (INFRASTRUCTURE, SUBMISSION) and failure.reason != "ExecutorsUnavailable":
                raise failure from error
            raise TrialError(failure.message) from error

    def cancel(self, number: int) -> None:
        """Ends the trial's jobs, and lets none of its later ones begin: a fit is many."""
        from lakeloop_trainer.search.spark_workers import group_of

        self._context._jsc.sc().cancelJobGroupAndFutureJobs(group_of(number))


@contextlib.contextmanager
def nothing_left(context: Any) -> Iterator[None]:
    """Frees what was cached in the block and is so still: a fit that fails, or is ended, leaves its own rows behind."""
    before = set(context._jsc.getPersistentRDDs())
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # of a JVM that is gone: so is its cache
            cached = context._jsc.getPersistentRDDs()
            for number in set(cached) - before:
                cached[number].unpersist(False)


def _built(attempt: Attempt, selected: Selected, params: Mapping[str, Any]) -> Built:
    from lakeloop_trainer.spark_ml import pipeline
    from lakeloop_trainer.spark_ml import steps as checking

    dataset = attempt.spec.dataset
    stages = checking.check(_steps(attempt, params), dataset.split.seed)
    return pipeline.of_columns(stages, selected, named=dataset.features is not None)


def _steps(attempt: Attempt, params: Mapping[str, Any]) -> tuple[Step, ...]:
    from lakeloop_trainer.search.spark_ml_space import with_params

    return with_params(attempt.spec.steps, params)
