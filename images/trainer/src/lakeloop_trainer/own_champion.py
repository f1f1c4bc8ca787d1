"""The model that the user's own code logged, and the champion: both scored here, on the same test rows of spec.dataset.

What the code logged of its own model may be of other rows. So the objective of a run with a champion is measured here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakeloop_trainer.failures import APPLICATION, DATA, RunFailure
from lakeloop_trainer.run_spec import Champion as Pinned

if TYPE_CHECKING:
    from lakeloop_trainer.attempt import Attempt
    from lakeloop_trainer.champion import Comparison
    from lakeloop_trainer.tracking import LoggedModel

log = logging.getLogger("lakeloop_trainer")


@dataclass(frozen=True)
class Scores:
    """The champion beside the run's model, and what that one has on the same rows."""

    comparison: Comparison
    value: float | None


def compared(attempt: Attempt, model: LoggedModel, open_session: Callable[[], Any]) -> Scores | None:
    """None where there is no champion. What is wrong with either model is said in the comparison, and fails nothing.

    Raises:
        RunFailure: where the store or Spark does not answer.
    """
    pinned = attempt.spec.champion
    if pinned is None:
        return None
    from lakeloop_trainer.champion import Comparison

    try:
        with attempt.stages.measure("score the champion"):
            return _scores(attempt, pinned, model, open_session)
    except RunFailure as failure:
        if failure.failure_class not in (APPLICATION, DATA):
            raise
        log.warning("the champion, version %d, could not be compared: %s", pinned.version, failure.message)
        return Scores(Comparison(pinned.version, problem=failure.message), None)


def _scores(attempt: Attempt, pinned: Pinned, model: LoggedModel, open_session: Callable[[], Any]) -> Scores:
    from mlflow.models import get_model_info

    from lakeloop_trainer import champion, dataset
    from lakeloop_trainer.cgroup import container_memory_limit
    from lakeloop_trainer.spark_conf import memory_for_rows

    objective = attempt.spec.objective
    if objective is None:
        raise RunFailure("EvaluationFailed", "spec.objective.metric says not by what to compare", champion.FIELD)
    against = champion.fetch(pinned, attempt.work / "champion")
    own = champion.fetch(Pinned(pinned.model, 0, model.artifact_uri, model.digest), attempt.work / "own-model")

    def beside(features: Sequence[str], available: Sequence[str]) -> list[str]:
        found = [champion.extra_columns(each, features, available) for each in (against, own)]
        return list(dict.fromkeys(name for names in found for name in names))

    room = memory_for_rows(attempt.conf, container_memory_limit())
    rows = dataset.read(open_session(), attempt.spec.dataset, attempt.spec.inputs, room, beside)
    if not len(rows.test_features):
        message = "there are no test rows: raise spec.dataset.split.testFraction"
        raise RunFailure("EvaluationFailed", message, champion.FIELD)
    if champion.SparkModel in (type(against.model), type(own.model)):
        from lakeloop_trainer.spark_ml.champion import scored_beside

        local = attempt.shares_files()
        against, own = (scored_beside(each, rows, objective.metric, local=local) for each in (against, own))
    features = rows.test_features.join(rows.extra)
    try:
        value = champion.value_of(own, features, rows.test_target, objective.metric)
    except RunFailure as failure:
        raise RunFailure("EvaluationFailed", f"the run's own model: {failure.message}", champion.FIELD) from failure
    except Exception as error:  # the text may quote rows
        message = f"the run's own model raised {type(error).__name__} on the rows of spec.dataset"
        raise RunFailure("EvaluationFailed", message, champion.FIELD) from error
    signature = get_model_info(model.artifact_uri).signature
    return Scores(champion.compare(against, features, rows.test_target, objective.metric, signature), value)
