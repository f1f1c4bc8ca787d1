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

_WIDENED = {"tinyint": "bigint", "smallint": "bigint", "int": "bigint", "float": "double"}


def quoted(column: str) -> str:
    """A column's name as Spark SQL writes it."""
    return "`" + column.replace("`", "``") + "`"


def hash_columns(keys: Sequence[str], features: Sequence[str], target: str) -> list[str]:
    """The columns that decide a row's side."""
    return list(keys) if keys else sorted([*features, target])


def side_expression(types: Mapping[str, str], columns: Sequence[str], seed: int, test_fraction: float) -> str:
    """A Spark SQL expression that is true for test rows; ``types`` maps columns to Spark's simple type names."""
    threshold = round(test_fraction * BUCKETS)
    if threshold == 0:
        return "false"
    values = [
        f"CAST({quoted(column)} AS {_WIDENED[types[column]]})" if types[column] in _WIDENED else quoted(column)
        for column in columns
    ]
    return f"pmod(xxhash64({', '.join([f'{seed}L', *values])}), {BUCKETS}L) < {threshold}L"
