"""The search for a scikit-learn pipeline: what is checked before any data is read, and what scores the trials."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lakeloop_trainer import metrics as measures
from lakeloop_trainer import training
from lakeloop_trainer.attempt import Attempt
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Search
from lakeloop_trainer.search import sklearn_space, space
from lakeloop_trainer.search.scoring import Folds
from lakeloop_trainer.spark_conf import memory_left, total_cores

if TYPE_CHECKING:
    from lakeloop_trainer.dataset import Rows
    from lakeloop_trainer.search.loop import Workers

log = logging.getLogger("lakeloop_trainer")


def check(attempt: Attempt, pipeline: Any) -> None:
    """Refuses what the search cannot do with this pipeline. Before any data is read; without a search, nothing."""
    search = attempt.spec.search
    if search is None:
        return
    space.check(search)
    sklearn_space.check(attempt.spec.steps, search.parameters)
    classifier = measures.is_classifier(pipeline)
    objective = attempt.spec.objective
    names = measures.CLASSIFICATION if classifier else measures.REGRESSION
    if objective is not None and objective.metric not in names:
        kind = "classifier" if classifier else "regressor"
        text = f"spec.objective.metric is {objective.metric}; a {kind} has {', '.join(names)}"
        raise RunFailure("EvaluationFailed", text, "spec.objective.metric")
    if not on_executors(attempt.conf):
        from lakeloop_trainer.search import process_workers

        process_workers.warm_up()


def best(attempt: Attempt, pipeline: Any, rows: Rows, spark: Any) -> Any:
    """The pipeline with the best parameters, not yet fitted; without a search, the one that is given.

    From then on the attempt's spec has those parameters in its steps. Spark is needed until this is over.
    """
    search = attempt.spec.search
    if search is None:
        return pipeline
    from lakeloop_trainer.search import core
    from lakeloop_trainer.search.folds import folds

    attempt.progress.stage("Training", core.FIRST_PERCENT)
    training.check_rows(pipeline, rows)
    classifier = measures.is_classifier(pipeline)
    wanted = attempt.spec.objective
    objective = wanted.metric if wanted else measures.default_objective(classifier, rows.train_target.nunique())
    seed = attempt.spec.dataset.split.seed
    made = folds(rows.train_target, search.folds, classifier, seed, rows.train_groups, rows.train_order)
    found = Folds(rows.train_features, rows.train_target, made, attempt.spec.steps, search.parameters, 1)
    maximize = core.maximizes(wanted, objective)
    winner = core.find(attempt, _workers(attempt, search, found, spark), objective, maximize)
    steps, pipeline = sklearn_space.with_params(attempt.spec.steps, search.parameters, winner.params)
    if attempt.spec.estimator is not None:
        attempt.spec = replace(attempt.spec, estimator=replace(attempt.spec.estimator, steps=steps))
    return pipeline


def on_executors(conf: Any) -> bool:
    """Whether there are executors to work on."""
    master = conf.get("spark.master", "local")
    return not master.startswith("local") or master.startswith("local-cluster")


def _workers(attempt: Attempt, search: Search, found: Folds, spark: Any) -> Workers:
    if on_executors(attempt.conf):
        from lakeloop_trainer.search.spark_workers import SparkWorkers

        slots = max(1, total_cores(attempt.conf) // int(attempt.conf.get("spark.task.cpus", "1")))
        return SparkWorkers(
            spark, found, min(search.parallelism, slots),
            lambda: attempt.executors_missing or attempt.jvm_death() is not None,
        )  # fmt: skip
    from lakeloop_trainer.cgroup import container_memory_limit
    from lakeloop_trainer.search.process_workers import ProcessWorkers

    slots = min(search.parallelism, _copies(attempt, found, container_memory_limit()))
    if slots < search.parallelism:
        log.warning("spec.search.parallelism is %d; the memory is enough for %d", search.parallelism, slots)
    threads = max(1, len(os.sched_getaffinity(0)) // slots)
    return ProcessWorkers(replace(found, threads=threads), attempt.work, slots)


def _copies(attempt: Attempt, found: Folds, limit: int | None) -> int:
    """How many processes have room for the rows and for what a fit makes of them."""
    size = int(found.features.memory_usage(deep=True).sum()) + int(found.target.memory_usage(deep=True))
    return max(1, memory_left(attempt.conf, limit) // max(1, 4 * size))
