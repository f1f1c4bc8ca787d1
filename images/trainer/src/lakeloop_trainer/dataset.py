"""From pinned tables to the rows to learn from, in memory.

One pass: the query's columns that the run needs are read once, with each row's side of the split beside them.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lakeloop_trainer import split as splitting
from lakeloop_trainer import time_split
from lakeloop_trainer.failures import Context, RunFailure, classify
from lakeloop_trainer.query import open_query
from lakeloop_trainer.run_spec import Dataset, Input, Split
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
    extra: Any = None
    """Of the test rows, or of the training rows where none is held out: columns that were asked for beside."""
    test_from: str = ""
    """With a split by time: the moment at which the test rows begin."""
    train_groups: Any | None = None
    """Of each training row, a number that rows of equal keys share; where asked for, and the split has keys."""
    train_order: Any | None = None
    """Of each training row, its time; where asked for, and the split is by time."""
    selected: Selected | None = None
    """What they were read from: the same rows, for who asks Spark once more."""


@dataclass(frozen=True)
class Selected:
    """The rows to learn from, as a DataFrame: features, target and `split.COLUMN`."""

    frame: Any
    types: Mapping[str, str]
    """Spark's type of each column of the query."""
    features: list[str]
    target: str
    extra: list[str]
    """Columns that were asked for beside."""
    test_from: str = ""
    """With a split by time: the moment at which the test rows begin."""


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
    if dataset.split.column is not None:
        keys.append(_resolve(dataset.split.column, found, time_split.FIELD))
    if dataset.features is None:
        features = [name for name in found if name != target and name not in keys]
        if not features:
            raise RunFailure(
                "ColumnNotFound",
                "The query gives no column besides the target and the split's keys and column",
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


Beside = Callable[[Sequence[str], Sequence[str]], Sequence[str]]
"""From the features and the columns that there are to the names of those that others are read too."""


def open_rows(spark: Any, dataset: Dataset, inputs: Sequence[Input]) -> Any:
    """The rows of the query as a DataFrame, nothing read yet; raises RunFailure (QueryFailed, ColumnNotFound …)."""
    if dataset.query is None and len(inputs) > 1:
        field = "spec.dataset.query"
        raise RunFailure("InvalidConf", f"{field} is needed to make one set of rows of several inputs", field)
    result = open_query(spark, dataset.query, inputs) if dataset.query else spark.table(inputs[0].name)
    if len(set(result.columns)) != len(result.columns):
        raise RunFailure("QueryFailed", "spec.dataset.query gives two columns of one name", "spec.dataset.query")
    return result


def find_side(dataset: Dataset, frame: Any, features: Sequence[str], target: str) -> time_split.Moment:
    """What tells the test rows of the frame, by hash or by time; the latter asks the rows when they begin."""
    found, split = dict(frame.dtypes), dataset.split
    if split.column is not None:
        return time_split.find(frame, split.column, found[split.column], target, split.test_fraction)
    columns = splitting.hash_columns(split.keys, features, target)
    return time_split.Moment(splitting.side_expression(found, columns, split.seed, split.test_fraction), "")


def select(
    spark: Any,
    dataset: Dataset,
    inputs: Sequence[Input],
    beside: Beside = lambda _features, _available: (),
    check: Callable[[Any], object] = lambda _frame: None,
    for_folds: bool = False,
) -> Selected:
    """The query's columns that the run needs, with each row's side; they are not read yet.

    ``check`` sees the query's rows, as a DataFrame, before anything else does.

    ``for_folds``: whether the training rows are to be divided as the split divides them all.

    Raises:
        RunFailure: QueryFailed, ColumnNotFound, NonNumericFeature or SchemaMismatch.
    """
    result = open_rows(spark, dataset, inputs)
    found = dict(result.dtypes)
    features, target = choose_columns(dataset, found)
    extra = [name for name in beside(features, list(found)) if not found[name].startswith(_UNUSABLE)]
    check(result)
    side = find_side(dataset, result, features, target)
    try:
        selection = _selection(found, [*features, target, *extra], side.expression)
        if for_folds:
            selection += splitting.fold_columns(found, dataset.split.keys, dataset.split.column)
        frame = result.selectExpr(*selection)
    except Exception as error:  # a map as a key: Spark hashes none
        keys = Context("Splitting the rows by spec.dataset.split.keys", "QueryFailed", "spec.dataset.split.keys")
        raise classify(error, keys) from error
    return Selected(frame, found, features, target, extra, side.text)


def read(
    spark: Any,
    dataset: Dataset,
    inputs: Sequence[Input],
    memory_bytes: int,
    beside: Beside = lambda _features, _available: (),
    check: Callable[[Any], object] = lambda _frame: None,
    for_folds: bool = False,
) -> Rows:
    """Runs the query and collects the rows; ``memory_bytes`` is what they may take in this process.

    Raises:
        RunFailure: QueryFailed, ColumnNotFound, EmptyTable, TargetAllNull, DatasetTooLarge, …
    """
    selected = select(spark, dataset, inputs, beside, check, for_folds)
    found, features, target, extra = selected.types, selected.features, selected.target, selected.extra
    context = Context("Reading the rows of spec.dataset.query", "QueryFailed", "spec.dataset.query")
    try:
        _guard_memory(selected.frame, found, [*features, target, *extra], memory_bytes)
        table = selected.frame.toArrow()
    except Exception as error:
        raise classify(error, context) from error
    if table.num_rows == 0:
        raise no_rows(dataset, inputs)
    rows = to_rows(table, features, target, {name: found[name] for name in [*features, target]}, extra)
    del table
    _give_back()
    return replace(rows, test_from=selected.test_from, selected=selected)


def _give_back() -> None:
    """What the rows took on their way goes back to the system: a fit takes its memory elsewhere."""
    import ctypes

    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


def split_params(split: Split, test_from: str) -> dict[str, object]:
    """The parameters that tell how the rows were split."""
    found: dict[str, object] = {"dataset.split.testFraction": split.test_fraction}
    if split.column is not None:
        return found | {"dataset.split.column": split.column, "dataset.split.testFrom": test_from}
    return found | {"dataset.split.seed": split.seed, "dataset.split.keys": ",".join(split.keys)}


def no_rows(dataset: Dataset, inputs: Sequence[Input]) -> RunFailure:
    """What is wrong where there is nothing to learn from: the query, or the table where none is written."""
    if dataset.query is not None:
        return RunFailure("EmptyTable", "spec.dataset.query gives no rows", "spec.dataset.query")
    field = f"{inputs[0].path}.uri"
    return RunFailure("EmptyTable", f"{field}: the table at {inputs[0].uri} has no rows", field)


def _selection(found: Mapping[str, str], columns: Sequence[str], side: str) -> list[str]:
    """Decimals leave Spark as doubles: neither NumPy nor a signature has them."""
    expressions = [
        f"CAST({splitting.quoted(name)} AS DOUBLE) AS {splitting.quoted(name)}"
        if found[name].startswith("decimal")
        else splitting.quoted(name)
        for name in columns
    ]
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


def to_rows(
    table: Any, features: Sequence[str], target: str, types: Mapping[str, str], extra: Sequence[str] = ()
) -> Rows:
    """Splits an Arrow table with rows and the split's column into the two sides; raises EmptyTable, TargetAllNull."""
    import pyarrow.compute as pc

    known = _with_target(table, target)
    absent = table.num_rows - known.num_rows
    if known.num_rows == 0:
        raise RunFailure("TargetAllNull", f"Every row's {target} is NULL", "spec.dataset.target")
    known = without_gaps(known)
    of_test = pc.fill_null(known.column(splitting.COLUMN), False)
    count, held_out = known.num_rows, pc.sum(of_test).as_py()
    if held_out == count:  # by time there is always an older row
        raise RunFailure(
            "EmptyTable",
            f"All {count} rows fell on the test side; lower spec.dataset.split.testFraction or change its seed",
            "spec.dataset.split.testFraction",
        )
    beside = [name for name in (splitting.GROUP, splitting.ORDER) if name in known.column_names]
    parts = {"features": list(features), "target": [target], "extra": list(extra), "beside": beside}
    train, test = _side(known, pc.invert(of_test), parts), _side(known, of_test, parts)
    return Rows(
        train["features"], train["target"][target], test["features"], test["target"][target],
        without_target=absent, types=types, extra=(test if held_out else train)["extra"],
        train_groups=train["beside"].get(splitting.GROUP), train_order=train["beside"].get(splitting.ORDER),
    )  # fmt: skip


def without_gaps(table: Any) -> Any:
    """The Arrow table with integers and booleans that have NULLs as floats, as pandas has them."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        column = table.column(index)
        if column.null_count and (pa.types.is_boolean(field.type) or pa.types.is_integer(field.type)):
            # numbers, on both sides: of booleans pandas would make objects, whose None no imputer fills, and integers
            # would be numbers of another kind on a side without a NULL
            numbers = column.cast(pa.uint8()) if pa.types.is_boolean(field.type) else column
            table = table.set_column(index, field.name, numbers.cast(pa.float64(), safe=False))
    return table


def _with_target(table: Any, target: str) -> Any:
    """The rows that have a target; the table itself, and no copy of it, where all have."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column(target)
    known = column.is_valid()
    if pa.types.is_floating(column.type):  # what pandas writes for a value that is not there
        known = pc.and_not_kleene(known, pc.fill_null(pc.is_nan(column), False))
    return table if pc.all(known).as_py() else table.filter(known)


def _side(known: Any, chosen: Any, parts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The chosen rows as pandas objects, by part. What Arrow holds of a column is freed once pandas has it."""
    rows = known.filter(chosen)
    tables = {name: rows.select(list(columns)) for name, columns in parts.items()}
    del rows
    return {name: tables.pop(name).to_pandas(self_destruct=True) for name in parts}
