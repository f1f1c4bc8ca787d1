"""The registered version to beat, where Spark has a part in it: the champion's learner is Spark ML's, or the run's is.

A Spark ML model is scored on the executors, whatever the run's own library is. A model of another library can only be
asked in the driver: the test rows of a Spark ML run are brought there for it, where there is room for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakeloop_trainer import champion, dataset
from lakeloop_trainer.champion import FIELD, METADATA, Champion, SparkModel
from lakeloop_trainer.failures import INFRASTRUCTURE, SUBMISSION, Context, RunFailure, classify
from lakeloop_trainer.split import COLUMN, has_value, quoted
from lakeloop_trainer.storage import as_spark_path

if TYPE_CHECKING:
    from lakeloop_trainer.spark_ml.rows import Rows
    from lakeloop_trainer.spark_ml.wiring import Wiring


def metadata_of(wiring: Wiring, classes: tuple[Any, ...]) -> dict[str, Any]:
    """What a later run needs to score this model by its classes' scores."""
    return {
        METADATA: {
            "predicted": wiring.raw_prediction,
            "scores": wiring.scores,
            "probabilities": wiring.probabilities,
            "classes": list(classes),
        }
    }


def scored(found: Champion, rows: Rows, metric: str, *, local: bool, room: int) -> Champion:
    """The champion with its value on the side that the new model is judged on, or with why it has none.

    ``local``: executors see the driver's files; ``room``: bytes that rows may take in the driver.

    Raises:
        RunFailure: where the rows cannot be brought to the driver, and that is not the champion's fault.
    """
    if found.problem is not None:
        return found
    frame = rows.side(test=rows.test_count > 0)
    there = set(frame.columns) - {COLUMN}
    missing = [name for name in found.inputs or {} if name not in there]
    if missing:
        return _without(found, f"it needs column(s) {', '.join(missing[:10])}, which the query does not give")
    try:
        if isinstance(found.model, SparkModel):
            value = _by_spark(found.model, rows, frame, metric, local=local)
        else:
            value = champion.value_of(found, *_brought(found, rows, frame, room), metric)
    except RunFailure as failure:
        if failure.failure_class in (INFRASTRUCTURE, SUBMISSION):
            raise
        return _without(found, failure.message)
    except Exception as error:  # another's model can raise anything, and the text may quote rows
        return _without(found, f"it raised {type(error).__name__}")
    if value is None:
        return _without(found, f"its {metric} is not defined on these rows")
    return dataclasses.replace(found, value=value)


def scored_beside(found: Champion, rows: dataset.Rows, metric: str, *, local: bool) -> Champion:
    """A champion of Spark ML with its value on the rows that the driver has, read again by the executors.

    While Spark is there. Any other champion is given back as it is.
    """
    selected = rows.selected
    if not isinstance(found.model, SparkModel) or selected is None:
        return found
    from lakeloop_trainer.spark_ml.rows import Rows

    frame = selected.frame.filter(has_value(selected.types, selected.target))
    features = {name: selected.types[name] for name in selected.features}
    train, test = len(rows.train_target), len(rows.test_target)
    spread = Rows(frame, features, selected.target, train, test, rows.without_target, ())
    return scored(found, spread, metric, local=local, room=0)


def _without(found: Champion, problem: str) -> Champion:
    return dataclasses.replace(found, problem=problem)


def _by_spark(model: SparkModel, rows: Rows, frame: Any, metric: str, *, local: bool) -> float | None:
    from pyspark.ml import PipelineModel

    from lakeloop_trainer.spark_ml.evaluation import score
    from lakeloop_trainer.spark_ml.wiring import Wiring

    # executors of other pods read the files themselves; the driver has checked its copy of them
    source = f"file://{model.folder}" if local else as_spark_path(model.artifact_uri)
    loaded = PipelineModel.load(f"{source}/sparkml")
    known: Mapping[str, Any] = model.known
    same = dataclasses.replace(rows, frame=frame, classes=tuple(known["classes"]))
    wiring = Wiring((), "__lakeloop_label", known["predicted"], known["scores"], bool(known["probabilities"]))
    return score(loaded, wiring, same)[rows.test_count > 0].get(metric)


def _brought(found: Champion, rows: Rows, frame: Any, room: int) -> tuple[Any, Any]:
    """The champion's columns and the target, as pandas objects; raises RunFailure (DatasetTooLarge, …)."""
    columns = list(found.inputs) if found.inputs is not None else list(rows.features)
    count = rows.test_count or rows.train_count
    needed = count * dataset.row_bytes(dict(frame.dtypes), [*columns, rows.target])
    if needed > room:
        raise RunFailure(
            "DatasetTooLarge",
            f"it is asked in the driver, and the {count} rows take {needed >> 20} MiB there, of {room >> 20}: raise "
            "spec.spark.driver.memoryOverhead",
            FIELD,
        )
    try:
        wanted = list(dict.fromkeys([*columns, rows.target]))
        table = dataset.without_gaps(frame.select(*[quoted(name) for name in wanted]).toArrow())
    except Exception as error:
        raise classify(error, Context("Bringing the rows to the driver", "EvaluationFailed", FIELD)) from error
    brought = table.to_pandas()
    return brought[columns], brought[rows.target]
