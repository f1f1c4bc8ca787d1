"""Which rows are held out for testing.

A row's side is a function of the seed and of the row alone: ``pmod(xxhash64(seed, columns…), 1000000)`` below
``testFraction`` · 1,000,000 is a test row. So it stays on its side as the table grows, is compacted or is read in
another order, and it moves only from training to test when the fraction rises. Rows with equal keys stay together.

The columns are the split's keys or, without keys, all columns that the run reads (features and target), sorted by
name. Integers are hashed as 64-bit and floats as double, so that widening a column moves no row; NULL counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BUCKETS = 1_000_000
COLUMN = "__lakeloop_test"
GROUP = "__lakeloop_group"
"""Equal for rows of equal keys."""
ORDER = "__lakeloop_order"
"""A row's time."""
PLACES = 1 << 52
"""As many places as a double tells apart."""

_WIDENED = {"tinyint": "bigint", "smallint": "bigint", "int": "bigint", "float": "double"}


def quoted(column: str) -> str:
    """A column's name as Spark SQL writes it."""
    return "`" + column.replace("`", "``") + "`"


def has_value(types: Mapping[str, str], column: str) -> str:
    """A Spark SQL expression that is true of rows where the column is neither NULL nor NaN."""
    known = f"{quoted(column)} IS NOT NULL"
    return f"{known} AND NOT isnan({quoted(column)})" if types[column] in ("float", "double") else known


def hash_columns(keys: Sequence[str], features: Sequence[str], target: str) -> list[str]:
    """The columns that decide a row's side."""
    return list(keys) if keys else sorted([*features, target])


def side_expression(types: Mapping[str, str], columns: Sequence[str], seed: int, test_fraction: float) -> str:
    """A Spark SQL expression that is true for test rows; ``types`` maps columns to Spark's simple type names."""
    threshold = round(test_fraction * BUCKETS)
    if threshold == 0:
        return "false"
    values = _widened(types, columns)
    return f"pmod(xxhash64({', '.join([f'{seed}L', *values])}), {BUCKETS}L) < {threshold}L"


def fold_columns(types: Mapping[str, str], keys: Sequence[str], time: str | None) -> list[str]:
    """The columns, as Spark SQL, that tell how training rows are divided further: `GROUP`, `ORDER`."""
    group = [f"xxhash64({', '.join(_widened(types, keys))}) AS {quoted(GROUP)}"] if keys else []
    return group + ([f"{quoted(time)} AS {quoted(ORDER)}"] if time is not None else [])


def place_expression(types: Mapping[str, str], columns: Sequence[str], seed: int) -> str:
    """Where a row lies from 0 to below `PLACES`, as Spark SQL: evenly by the seed and the columns' values, whatever
    side of the split they put it on."""
    values = ", ".join([f"{seed}L", "'fold'", *_widened(types, columns)])
    return f"shiftrightunsigned(xxhash64({values}), 12)"


def _widened(types: Mapping[str, str], columns: Sequence[str]) -> list[str]:
    return [
        f"CAST({quoted(column)} AS {_WIDENED[types[column]]})" if types[column] in _WIDENED else quoted(column)
        for column in columns
    ]
