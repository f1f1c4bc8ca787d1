"""From pinned tables to the rows to learn from, in memory.

One pass: the query's columns that the run needs are read once, with each row's side of the split beside them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakeloop_trainer import split as splitting
from lakeloop_trainer.failures import Context, RunFailure, classify
from lakeloop_trainer.query import open_query
from lakeloop_trainer.run_spec import Dataset, Input
from lakeloop_trainer.storage import as_spark_path

# Parquet is compressed and Spark's estimate is of files: above this share of the limit the rows are counted first.
_CERTAIN_SHARE = 8
_BYTES_PER_VALUE = {"tinyint": 8, "smallint": 8, "int": 8, "bigint": 8, "float": 8, "double": 8, "boolean": 1}
_BYTES_PER_STRING = 80
_UNUSABLE = ("array", "map", "struct", "binary", "interval", "variant", "date", "time", "void", "geo")


@dataclass(frozen=True)
class Rows:
    """The rows to learn from, both sides of the split, as pandas objects with a fresh index on each side."""

    train_features: Any
    train_target: Any
    test_features: Any
    test_target: Any
    without_target: int
    """Rows that were left out because their target is NULL."""
    types: Mapping[str, str]
    """Spark's type of each column."""


def register_views(
    spark: Any, inputs: Sequence[Input], versions: Mapping[str, int]
) -> dict[str, list[tuple[str, str]]]:
    """Makes each input a temporary view at its version, and gives each one's (column, type) list."""
    columns = {}
    for item in inputs:
        version = versions[item.name]
        field = f"{item.path}.version" if item.ingest is None else f"{item.path}.uri"
        try:
            frame = spark.read.format("delta").option("versionAsOf", version).load(as_spark_path(item.uri))
            frame.createOrReplaceTempView(item.name)
            columns[item.name] = list(frame.dtypes)
        except Exception as error:
            context = Context(f"Reading {item.uri} at version {version}", "TableNotFound", field, values_may_leak=False)
            failure = classify(error, context)
            if failure.reason == "TableNotFound":
                failure.field = f"{item.path}.uri"
            raise failure from error
    return columns


def query_of(dataset: Dataset, inputs: Sequence[Input]) -> str:
    """The query; by default all columns of the one input."""
    return dataset.query or f"TABLE {splitting.quoted(inputs[0].name)}"


def choose_columns(dataset: Dataset, found: Mapping[str, str]) -> tuple[list[str], str]:
    """Feature columns and target, checked against the query's columns (names to Spark types).

    Raises:
        RunFailure: ColumnNotFound or NonNumericFeature, with the field's path.
    """
    target = _resolve(dataset.target, found, "spec.dataset.target")
    keys = [_resolve(name, found, f"spec.dataset.split.keys[{i}]") for i, name in enumerate(dataset.split.keys)]
    if dataset.features is None:
        features = [name for name in found if name != target and name not in keys]
        if not features:
            raise RunFailure(
                "ColumnNotFound",
                "The query gives no column besides the target and the split's keys",
                "spec.dataset.query",
            )
    else:
        features = [_resolve(n, found, f"spec.dataset.features[{i}]") for i, n in enumerate(dataset.features)]
    for index, name in enumerate(features):
        if found[name].startswith(_UNUSABLE):
            field = f"spec.dataset.features[{index}]" if dataset.features is not None else "spec.dataset.features"
            raise RunFailure(
                "NonNumericFeature",
                f"{field}: column {name} is of type {found[name]}; turn it into numbers in spec.dataset.query "
                "(unix_timestamp(…), size(…), element_at(…)), or leave it out",
                field,
            )
    if found[target].startswith(_UNUSABLE):
        raise RunFailure(
            "SchemaMismatch",
            f"spec.dataset.target: column {target} is of type {found[target]}; "
            "it must be a number, a string or a boolean",
            "spec.dataset.target",
        )
    return features, target


def _resolve(name: str, found: Mapping[str, str], field: str) -> str:
    if name in found:
        return name
    near = difflib.get_close_matches(name, found, n=1) or [c for c in found if c.lower() == name.lower()]
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list(found)[:20])}"
    raise RunFailure("ColumnNotFound", f"{field}: the data has no column {name}; {hint}", field)


def read(spark: Any, dataset: Dataset, inputs: Sequence[Input], memory_bytes: int) -> Rows:
    """Runs the query and collects the rows; ``memory_bytes`` is what they may take in this process.

    Raises:
        RunFailure: QueryFailed, ColumnNotFound, EmptyTable, TargetAllNull, DatasetTooLarge, …
    """
    result = open_query(spark, dataset.query, inputs) if dataset.query else spark.table(inputs[0].name)
    found = dict(result.dtypes)
    if len(found) != len(result.columns):
        raise RunFailure("QueryFailed", "spec.dataset.query gives two columns of one name", "spec.dataset.query")
    features, target = choose_columns(dataset, found)
    try:
        selected = result.selectExpr(*_selection(dataset, found, features, target))
    except Exception as error:  # a map as a key: Spark hashes none
        keys = Context("Splitting the rows by spec.dataset.split.keys", "QueryFailed", "spec.dataset.split.keys")
        raise classify(error, keys) from error
    context = Context("Reading the rows of spec.dataset.query", "QueryFailed", "spec.dataset.query")
    try:
        _guard_memory(selected, found, [*features, target], memory_bytes)
        table = selected.toArrow()
    except Exception as error:
        raise classify(error, context) from error
    if table.num_rows == 0:
        raise no_rows(dataset, inputs)
    return to_rows(table, features, target, {name: found[name] for name in [*features, target]})


def no_rows(dataset: Dataset, inputs: Sequence[Input]) -> RunFailure:
    """What is wrong where there is nothing to learn from: the query, or the table where none is written."""
    if dataset.query is not None:
        return RunFailure("EmptyTable", "spec.dataset.query gives no rows", "spec.dataset.query")
    field = f"{inputs[0].path}.uri"
    return RunFailure("EmptyTable", f"{field}: the table at {inputs[0].uri} has no rows", field)


def _selection(dataset: Dataset, found: Mapping[str, str], features: Sequence[str], target: str) -> list[str]:
    """Decimals leave Spark as doubles: neither NumPy nor a signature has them."""
    expressions = [
        f"CAST({splitting.quoted(name)} AS DOUBLE) AS {splitting.quoted(name)}"
        if found[name].startswith("decimal")
        else splitting.quoted(name)
        for name in [*features, target]
    ]
    columns = splitting.hash_columns(dataset.split.keys, features, target)
    side = splitting.side_expression(found, columns, dataset.split.seed, dataset.split.test_fraction)
    return [*expressions, f"{side} AS {splitting.quoted(splitting.COLUMN)}"]


def row_bytes(types: Mapping[str, str], columns: Sequence[str]) -> int:
    """What a row takes in pandas, roughly."""
    return 8 + sum(_BYTES_PER_VALUE.get(types[name].split("(")[0], _BYTES_PER_STRING) for name in columns)


def _guard_memory(selected: Any, types: Mapping[str, str], columns: Sequence[str], memory_bytes: int) -> None:
    estimate = int(str(selected._jdf.queryExecution().optimizedPlan().stats().sizeInBytes()))
    if estimate * _CERTAIN_SHARE <= memory_bytes:
        return
    rows = selected.count()
    needed = rows * row_bytes(types, columns)
    if needed > memory_bytes:
        raise RunFailure(
            "DatasetTooLarge",
            f"The query gives {rows} rows, about {needed >> 20} MiB in memory, and the driver has room for "
            f"{memory_bytes >> 20} MiB: select fewer columns or rows in spec.dataset.query, or raise "
            "spec.spark.driver.memoryOverhead",
            "spec.dataset.query",
        )


def to_rows(table: Any, features: Sequence[str], target: str, types: Mapping[str, str]) -> Rows:
    """Splits an Arrow table with rows and the split's column into the two sides; raises EmptyTable, TargetAllNull."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = table.filter(table.column(target).is_valid())
    if pa.types.is_floating(known.schema.field(target).type):  # what pandas writes for a value that is not there
        known = known.filter(pc.invert(pc.is_nan(known.column(target))))
    if known.num_rows == 0:
        raise RunFailure("TargetAllNull", f"Every row's {target} is NULL", "spec.dataset.target")
    for index, field in enumerate(known.schema):
        # as with integers: a number, where pandas would have objects, whose None no imputer fills
        if pa.types.is_boolean(field.type) and known.column(index).null_count:
            known = known.set_column(index, field.name, known.column(index).cast(pa.uint8()).cast(pa.float64()))
    frame = known.to_pandas()
    test = frame[splitting.COLUMN].to_numpy(dtype=bool)
    train_rows = frame[~test].reset_index(drop=True)
    test_rows = frame[test].reset_index(drop=True)
    if train_rows.empty:
        raise RunFailure(
            "EmptyTable",
            f"All {len(frame)} rows fell on the test side; lower spec.dataset.split.testFraction or change its seed",
            "spec.dataset.split.testFraction",
        )
    columns = list(features)
    return Rows(
        train_rows[columns], train_rows[target], test_rows[columns], test_rows[target],
        without_target=table.num_rows - known.num_rows, types=types,
    )  # fmt: skip


def container_memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The container's memory limit in bytes (cgroup v2, then v1); None where there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None
