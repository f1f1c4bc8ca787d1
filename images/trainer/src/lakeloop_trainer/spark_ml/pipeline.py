"""The stages with their columns as one Pipeline, and the classes' names put back at its end.

Spark's classifiers know classes as 0, 1, …; the fitted PipelineModel answers in the target's own values, by stages
that every Spark has: nothing of this program is needed to serve it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakeloop_trainer.failures import RunFailure, exception_line
from lakeloop_trainer.spark_ml.steps import Stage
from lakeloop_trainer.spark_ml.wiring import PREDICTION, Wiring, wire

if TYPE_CHECKING:
    from lakeloop_trainer.dataset import Selected
    from lakeloop_trainer.spark_ml.rows import Rows

_NAMED_PARAMETER = re.compile(r"parameter (\w+) given invalid value")
_SQL = "pyspark.ml.feature.SQLTransformer"
_TWO_CLASSES = frozenset({"LinearSVC", "GBTClassifier", "FMClassifier"})


def of_columns(steps: Sequence[Stage], selected: Selected, *, named: bool) -> tuple[Wiring, list[Any]]:
    """The steps wired to the selected columns, and built; ``named``: whether the user listed the features.

    Raises:
        RunFailure: as `wire` and `build` do.
    """
    wiring = wire(steps, {name: selected.types[name] for name in selected.features}, selected.target, named=named)
    return wiring, build(wiring)


def check_classes(wiring: Wiring, rows: Rows) -> None:
    """Refuses more classes than the learner can tell apart; raises RunFailure (InvalidParameter)."""
    learner = wiring.stages[-1][0]
    if learner.name in _TWO_CLASSES and len(rows.classes) > 2:
        raise RunFailure(
            "InvalidParameter",
            f"{learner.path}.class: {learner.name} tells two classes apart, and {rows.target} has {len(rows.classes)}",
            f"{learner.path}.class",
        )


def fit(wiring: Wiring, built: Sequence[Any], rows: Rows, frame: Any) -> Any:
    """The pipeline fitted on some of the rows, up to the learner; raises what Spark raises."""
    from pyspark.ml import Pipeline

    return Pipeline(stages=list(built)).fit(rows.labelled(frame, wiring.label))


def build(wiring: Wiring) -> list[Any]:
    """The stages, their parameters checked by the JVM; raises RunFailure (InvalidParameter)."""
    return [_instance(step.cls, params, step.path) for step, params in wiring.stages]


def _instance(cls: type, params: Any, path: str) -> Any:
    stage = cls()
    stage._set(**params)
    try:
        stage._transfer_params_to_java()  # what a fit would do first, and the only check of ranges there is
    except Exception as error:
        line = exception_line(error)
        named = _NAMED_PARAMETER.search(line)
        field = f"{path}.params.{named.group(1)}" if named else f"{path}.params"
        raise RunFailure("InvalidParameter", f"{field}: {line}"[:1000], field) from error
    return stage


def answer(wiring: Wiring, classes: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    """The stages after a classifier, as (class path, parameters): from the class's index to the class."""
    if wiring.raw_prediction == PREDICTION:
        return []
    # not IndexToString, although it is made for texts: of a last stage with an outputCol, MLflow looks up the session
    # of the thread, and a server's threads have none
    values = ", ".join(_sql(value) for value in classes)
    index = f"CAST(`{wiring.raw_prediction}` AS INT) + 1"
    # the stage's own language; names and numbers are this program's
    statement = f"SELECT *, element_at(array({values}), {index}) AS `{PREDICTION}` FROM __THIS__"  # noqa: S608
    return [(_SQL, {"statement": statement})]


def answer_stages(wiring: Wiring, classes: Sequence[Any]) -> list[Any]:
    from pyspark.ml import feature

    return [getattr(feature, path.rpartition(".")[2])(**params) for path, params in answer(wiring, classes)]


def _sql(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # whatever is in it, no quote ends it
        plain = "".join(c if c.isalnum() or c in " _-" or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in value)
        return f"'{plain}'"
    return f"{value}L" if isinstance(value, int) else f"CAST({float(value)!r} AS DOUBLE)"


def effective_params(wiring: Wiring, stages: Sequence[Any]) -> dict[str, Any]:
    """Every parameter of the user's steps, defaults too, as ``<step index>.<name>``."""
    found = {}
    for (step, _), stage in zip(wiring.stages, stages, strict=True):
        if step.index < 0:
            continue
        for param in stage.params:
            if stage.isDefined(param):
                found[f"{step.index}.{param.name}"] = stage.getOrDefault(param)
    return found
