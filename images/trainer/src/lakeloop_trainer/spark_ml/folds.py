"""How the training rows are divided for cross-validation, on the executors. The test rows are not seen.

A row's fold is a function of the seed and of the row alone, as its side of the split is: so every attempt of a run, and
every trial, has the same folds, and equal rows are in one. Nothing is shuffled or kept beside the rows; what comes to
the driver is where the folds end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lakeloop_trainer import time_split
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Split
from lakeloop_trainer.search.folds import FIELD
from lakeloop_trainer.spark_ml.rows import Rows
from lakeloop_trainer.split import GROUP, ORDER, PLACES, hash_columns, place_expression, quoted

FOLD = "__lakeloop_fold"
EVEN = 5000
"""Of more rows of a class than these, or keys, each fold has its share by chance; of fewer their places are counted."""
_PLACE, _CLASS = "__lakeloop_place", "__lakeloop_class"
_EXACT = 10_000  # of a percentile's accuracy: no error at all with `EVEN` values

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folds:
    """The training rows with their fold, in the column `FOLD`."""

    frame: Any
    by_time: bool

    def sides(self, fold: int) -> tuple[Any, Any]:
        """The rows to fit on and those to score, of a fold (from 0)."""
        if self.by_time:  # part 0 is older than every row that is scored
            return self.frame.filter(f"{FOLD} <= {fold}"), self.frame.filter(f"{FOLD} = {fold + 1}")
        return self.frame.filter(f"{FOLD} <> {fold}"), self.frame.filter(f"{FOLD} = {fold}")


def folds(rows: Rows, split: Split, wanted: int) -> Folds:
    """Divides the training rows of a run that reads them ``for_folds``.

    Each class has its share of each fold; rows of equal keys are in one, where there are keys enough; with a split by
    time every fold is scored on rows that are later than those it learns from.

    Raises:
        RunFailure: InvalidParameter where the rows do not fill so many folds; what Spark raises.
    """
    by_time = split.column is not None
    if rows.train_count < wanted + by_time:
        text = f"{FIELD} is {wanted}, for {rows.train_count} training rows: lower it"
        raise RunFailure("InvalidParameter", text, FIELD)
    frame = rows.side(test=False)
    divided = _by_time(frame, wanted) if by_time else _by_place(rows, split, frame, wanted)
    if divided is None or divided.select(FOLD).distinct().count() < wanted + by_time:
        text = f"{FIELD} is {wanted}, and the training rows do not fill so many"
        raise RunFailure("InvalidParameter", text, FIELD)
    return Folds(divided, by_time)


def _by_time(frame: Any, wanted: int) -> Any | None:
    """In ``wanted`` + 1 parts of equal size, the oldest first; rows of one moment are in one, those of none oldest."""
    number = f"CAST({time_split.number_of(ORDER, dict(frame.dtypes)[ORDER])} AS BIGINT)"
    known = frame.selectExpr(f"{number} AS t").where("t IS NOT NULL")
    first, last, count = known.selectExpr("min(t)", "max(t)", "count(1)").collect()[0]
    if not count or first == last:
        return None
    parts = range(wanted, 0, -1)
    begins = [time_split.begin_of(known, first, last, count * part / (wanted + 1)) for part in parts]
    later = " + ".join(f"IF({number} >= {begin}L, 1, 0)" for begin in begins)
    return frame.selectExpr("*", f"{later} AS {FOLD}")


def _by_place(rows: Rows, split: Split, frame: Any, wanted: int) -> Any:
    from pyspark.sql import functions as f

    if split.keys:
        placed = frame.selectExpr("*", f"{place_expression({GROUP: 'bigint'}, [GROUP], split.seed)} AS {_PLACE}")
        keys = placed.select(_PLACE).distinct().limit(EVEN + 1).agg(f.count("*"), _ends(wanted)).first()
        if keys[0] >= wanted:
            ends = [list(keys[1]) if keys[0] <= EVEN else _even(wanted)]
            return placed.selectExpr("*", f"{fold_expression(ends, '0')} AS {FOLD}").drop(_PLACE)
        log.warning("spec.dataset.split.keys: fewer keys than folds; the folds of the search do not keep them together")
    columns = hash_columns((), list(rows.features), rows.target)
    types = dict(frame.dtypes)
    placed = frame.selectExpr("*", f"{place_expression(types, columns, split.seed)} AS {_PLACE}")
    placed = rows.labelled(placed, _CLASS) if rows.classes else placed.withColumn(_CLASS, f.lit(0.0))
    counted = {row[0]: row[1] for row in placed.groupBy(_CLASS).count().collect()}
    few = [index for index, count in counted.items() if count <= EVEN]
    ends = [_even(wanted)] * max(1, len(rows.classes))
    if few:
        of_few = placed.filter(f.col(_CLASS).isin(few)).groupBy(_CLASS).agg(_ends(wanted))
        for row in of_few.collect():
            ends[int(row[0])] = list(row[1])
    return placed.selectExpr("*", f"{fold_expression(ends, _CLASS)} AS {FOLD}").drop(_PLACE, _CLASS)


def _ends(wanted: int) -> Any:
    """An aggregate: the last place of each fold but the last one."""
    from pyspark.sql import functions as f

    return f.percentile_approx(quoted(_PLACE), [part / wanted for part in range(1, wanted)], _EXACT)


def _even(wanted: int) -> list[int]:
    return [PLACES * part // wanted - 1 for part in range(1, wanted)]


def fold_expression(ends: Sequence[Sequence[int]], index: str) -> str:
    """Spark SQL for a row's fold. ``ends``: of each class the last places of the folds; ``index``: the row's class.

    A look-up in a constant, and not a case for each of a thousand classes.
    """
    known = ", ".join(f"array({', '.join(f'{end}L' for end in each)})" for each in ends)
    own = f"array({known})[CAST({index} AS INT)]"
    return " + ".join(f"IF({_PLACE} > {own}[{part}], 1, 0)" for part in range(len(ends[0])))
