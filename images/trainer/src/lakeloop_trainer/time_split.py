"""The split by time: the newest rows are held out.

Whatever the rows' order, their files and the number of tasks, the split of one version is the same: it is a moment, and
a row's side is whether it lies at or after that moment. So rows of one moment stay together; of the two moments that
come nearest to ``testFraction`` the nearer one is taken (the later one of two equally near).
Only rows with a target count: the newest ones often have none yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lakeloop_trainer.failures import Context, RunFailure, classify
from lakeloop_trainer.split import has_value, quoted

FIELD = "spec.dataset.split.column"
BUCKETS = 1024
"""Parts that a span of time is counted in, pass by pass, until one holds a single moment: bounded memory, exact."""
_WHOLE = ("tinyint", "smallint", "int", "bigint")
_EPOCH = "TIMESTAMP_NTZ'1970-01-01 00:00:00'"


@dataclass(frozen=True)
class Moment:
    """Where the test rows begin."""

    expression: str
    """Spark SQL, true of test rows."""
    text: str
    """For people."""


def number_of(column: str, type_name: str) -> str:
    """A Spark SQL expression for the column's place in time, as a BIGINT; raises RunFailure (SchemaMismatch)."""
    name = quoted(column)
    if type_name == "timestamp":
        return f"unix_micros({name})"
    if type_name == "timestamp_ntz":  # as written: a session's time zone has hours that come twice
        return f"CAST(CAST({name} - {_EPOCH} AS INTERVAL SECOND) AS DECIMAL(38, 6)) * 1000000"
    if type_name == "date":
        return f"CAST(unix_date({name}) AS BIGINT)"
    if type_name in _WHOLE:
        return f"CAST({name} AS BIGINT)"
    raise RunFailure(
        "SchemaMismatch",
        f"{FIELD}: column {column} is of type {type_name}; it must be a timestamp, a date or a whole number. "
        "Make it one in spec.dataset.query: to_timestamp(…)",
        FIELD,
    )


def find(frame: Any, column: str, type_name: str, target: str, test_fraction: float) -> Moment:
    """Where the newest ``test_fraction`` of the frame's rows begins.

    Raises:
        RunFailure: SchemaMismatch, NullTime, EmptyTable (all rows at one moment), or what Spark says.
    """
    number = number_of(column, type_name)
    if test_fraction == 0:
        return Moment("false", "")
    context = Context(f"Splitting the rows by {FIELD}", "QueryFailed", FIELD)
    try:
        known = frame.where(has_value(dict(frame.dtypes), target)).selectExpr(f"CAST({number} AS BIGINT) AS t")
        first, last, rows, times = known.selectExpr("min(t)", "max(t)", "count(1)", "count(t)").collect()[0]
        if rows > times:
            raise RunFailure(
                "NullTime",
                f"{FIELD}: {rows - times} of {rows} rows have no {column}, so that nobody can say on which side of the "
                f"split they are; leave them out in spec.dataset.query: WHERE {quoted(column)} IS NOT NULL",
                FIELD,
            )
        if rows == 0:  # told where the rows are read
            return Moment("false", "")
        if first == last:
            raise RunFailure("EmptyTable", f"{FIELD}: all {rows} rows have the same {column}; split by Random", FIELD)
        begin = begin_of(known, first, last, test_fraction * rows)
    except Exception as error:
        raise classify(error, context) from error
    return Moment(f"{number} >= {begin}L", _text(begin, type_name))


def begin_of(known: Any, first: int, last: int, wanted: float) -> int:
    """The moment, later than ``first``, from which on the number of rows is nearest to ``wanted``.

    ``known``: the rows' moments, as a column ``t``, from ``first`` to ``last``, which is later.
    `low` to `high` holds the moment at which the rows, counted from the newest one, become more than ``wanted``.
    """
    from pyspark.sql import functions

    low, high = first, last
    newer = 0
    """Rows after `high`."""
    later: int | None = None
    """The first moment after `high` that has rows."""
    count = 0
    while count == 0 or low < high:
        width = (high - low) // BUCKETS + 1
        place = functions.expr(f"(t - {low}L) DIV {width}L")
        ends = (functions.min("t"), functions.max("t"), functions.count("t"))
        for row in sorted(
            known.where(f"t BETWEEN {low}L AND {high}L").groupBy(place).agg(*ends).collect(), reverse=True
        ):
            low, high, count = row[1], row[2], row[3]
            if newer + count > wanted:
                break
            newer, later = newer + count, low
    if later is None or (low > first and newer + count - wanted < wanted - newer):
        return low
    return later


def _text(begin: int, type_name: str) -> str:
    if type_name.startswith("timestamp"):
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=begin)).isoformat()
    if type_name == "date":
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=begin)).date().isoformat()
    return str(begin)
