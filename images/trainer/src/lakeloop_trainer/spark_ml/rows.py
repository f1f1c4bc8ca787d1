"""The rows to learn from, which stay on the executors: counted, kept there, never collected."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lakeloop_trainer import dataset as datasets
from lakeloop_trainer.failures import Context, RunFailure, classify
from lakeloop_trainer.run_spec import Dataset, Input
from lakeloop_trainer.split import COLUMN, has_value, quoted

MAX_CLASSES = 1000
_TEXT = ("string", "varchar", "char")
_CONTEXT = Context("Reading the rows of spec.dataset.query", "QueryFailed", "spec.dataset.query")


@dataclass(frozen=True)
class Rows:
    """Rows with a target, on both sides of the split, kept by the executors until `release`."""

    frame: Any
    """Features, target and `split.COLUMN`."""
    features: Mapping[str, str]
    """Spark's type of each feature."""
    target: str
    train_count: int
    test_count: int
    without_target: int
    classes: tuple[Any, ...]
    """What the training rows' target can be, sorted; empty where the learner is no classifier."""
    kept: Any = None
    """What the executors keep; ``frame`` is some of its rows."""

    def side(self, *, test: bool) -> Any:
        return self.frame.filter(quoted(COLUMN) if test else f"NOT {quoted(COLUMN)}")

    def labelled(self, frame: Any, label: str) -> Any:
        """The rows with the learner's label beside the target: the class's index, NULL for one never seen."""
        from pyspark.sql import functions as f

        target = f.col(quoted(self.target))
        if not self.classes:
            return frame.withColumn(label, target.cast("double"))
        values = f.array(*[f.lit(value) for value in self.classes])
        index = f.array_position(values, target).cast("double") - 1
        # Spark takes the number of classes from here instead of looking for it in the rows
        names = {"ml_attr": {"name": label, "type": "nominal", "vals": [str(value) for value in self.classes]}}
        known = f.when(index >= 0, index)
        return frame.withColumn(label, known.alias(label, metadata=names))

    def sample(self, frame: Any, rows: int, count: int, seed: int) -> Any:
        """At most so many of the frame's ``count`` rows, as an Arrow table."""
        if count > rows:
            # a few more than asked for: a fraction is met roughly
            frame = frame.sample(fraction=min(1.0, (rows + 10 * math.sqrt(rows)) / count), seed=seed).limit(rows)
        return frame.toArrow()

    def null_columns(self) -> list[str]:
        """Features that are NULL or NaN in a training row."""
        from pyspark.sql import functions as f

        def absent(name: str, kind: str) -> Any:
            column = f.col(quoted(name))
            missing = column.isNull() | f.isnan(column) if kind in ("float", "double") else column.isNull()
            return f.max(missing)

        found = self.side(test=False).agg(*[absent(*each) for each in self.features.items()]).first()
        return [name for name, is_absent in zip(self.features, found or (), strict=True) if is_absent]

    def release(self) -> None:
        if self.kept is not None:
            self.kept.unpersist()


def select(
    spark: Any,
    dataset: Dataset,
    inputs: Sequence[Input],
    beside: datasets.Beside,
    check: Callable[[Any], object],
    for_folds: bool = False,
) -> datasets.Selected:
    """The run's columns, each of a type that a model's signature knows; ``check`` sees the query's rows before."""
    selected = datasets.select(spark, dataset, inputs, beside, check, for_folds)
    types = dict(selected.frame.dtypes)  # decimals are doubles by now
    return dataclasses.replace(selected, types=types)


def read(selected: datasets.Selected, dataset: Dataset, inputs: Sequence[Input], *, classifier: bool) -> Rows:
    """Counts the rows and keeps them on the executors.

    Raises:
        RunFailure: EmptyTable, TargetAllNull, SingleClass, SchemaMismatch, …
    """
    from pyspark import StorageLevel

    target, types = selected.target, selected.types
    if not classifier and types[target].startswith(_TEXT):
        raise RunFailure(
            "SchemaMismatch",
            f"spec.dataset.target: column {target} is text, and a regressor learns numbers; make it a number in "
            "spec.dataset.query, or end spec.estimator.steps with a classifier",
            "spec.dataset.target",
        )
    kept = selected.frame.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        known = has_value(types, target)
        counted = _counts(kept, known, target, classifier=classifier)
    except Exception as error:
        raise classify(error, _CONTEXT) from error
    train = sum(n for _, is_known, test, n in counted if is_known and not test)
    test = sum(n for _, is_known, test, n in counted if is_known and test)
    absent = sum(n for _, is_known, _, n in counted if not is_known)
    _check_counts(train, test, absent, dataset, inputs, target)
    classes: list[Any] = []
    if classifier:
        classes = sorted({value for value, is_known, is_test, _ in counted if is_known and not is_test})
        _check_classes(classes, counted, train, target)
    return Rows(
        kept.filter(known), {name: types[name] for name in selected.features}, target, train, test, absent,
        tuple(classes), kept,
    )  # fmt: skip


def _counts(frame: Any, known: str, target: str, *, classifier: bool) -> list[tuple[Any, bool, bool, int]]:
    """(target's value where the learner is a classifier, whether it is known, whether a test row, rows)."""
    value = f"IF({known}, {quoted(target)}, NULL)" if classifier else "NULL"
    keys = frame.selectExpr(f"{value} AS value", f"{known} AS known", f"{quoted(COLUMN)} AS test")
    found = keys.groupBy("value", "known", "test").count().limit(2 * MAX_CLASSES + 4).collect()
    return [(row["value"], bool(row["known"]), bool(row["test"]), row["count"]) for row in found]


def _check_counts(train: int, test: int, absent: int, dataset: Dataset, inputs: Sequence[Input], target: str) -> None:
    if not train + test + absent:
        raise datasets.no_rows(dataset, inputs)
    if not train + test:
        raise RunFailure("TargetAllNull", f"Every row's {target} is NULL", "spec.dataset.target")
    if not train:
        raise RunFailure(
            "EmptyTable",
            f"All {test} rows fell on the test side; lower spec.dataset.split.testFraction or change its seed",
            "spec.dataset.split.testFraction",
        )


def _check_classes(classes: Sequence[Any], counted: Sequence[Any], train: int, target: str) -> None:
    if len(classes) > MAX_CLASSES or len(counted) > 2 * MAX_CLASSES + 2:
        raise RunFailure(
            "SchemaMismatch",
            f"spec.dataset.target: column {target} has more than {MAX_CLASSES} values, which are too many classes; "
            "end spec.estimator.steps with a regressor, or group them in spec.dataset.query",
            "spec.dataset.target",
        )
    if len(classes) < 2:
        raise RunFailure(
            "SingleClass",
            f"The {train} training rows have one class of {target} only; a classifier needs two. With few rows, "
            "lower spec.dataset.split.testFraction or change its seed",
            "spec.dataset.target",
        )


_VALUES = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|\[[^\]\n]*\]|(?<=Unseen label: )[^.\n]*")


def without_values(line: str) -> str:
    """An exception's text without what it may quote of a row."""
    return _VALUES.sub("…", line)
