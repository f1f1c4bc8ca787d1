"""What must be true of the rows of the query, checked before anything is learned from them.

All expectations are counted in one aggregate job, and not by an observation that rides on the read: it reads their
columns alone, no row has come into this process when one fails, a task that runs twice counts once, and every way to
train has it in front of its own way to read. An expectation that is NULL for a row is violated by it: a rule that
cannot be told to hold does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lakeloop_trainer.failures import DATA, Context, RunFailure, classify
from lakeloop_trainer.query import forbid_functions, plan_nodes
from lakeloop_trainer.run_spec import Expectation

FIELD = "spec.dataset.expectations"


@dataclass(frozen=True)
class Checked:
    """What became of one expectation."""

    name: str
    violations: int
    rows: int
    """Rows that were looked at."""
    fatal: bool

    def document(self) -> dict[str, Any]:
        """As in the run's result."""
        return {"name": self.name, "violations": self.violations, "rows": self.rows}


def check(spark: Any, frame: Any, expectations: Sequence[Expectation]) -> tuple[Checked, ...]:
    """Counts the rows of ``frame``, and of each expectation those that violate it.

    Raises:
        RunFailure: ExpectationInvalid with the expression's field, else what the store or Spark say.
    """
    if not expectations:
        return ()
    forbid_functions(spark)
    holds = [_condition(spark, frame, index, each) for index, each in enumerate(expectations)]
    try:
        row = counting(frame, holds).collect()[0]
    except Exception as error:
        raise _failed(frame, holds, error) from error
    return tuple(Checked(each.name, int(row[i + 1]), int(row[0]), each.fatal) for i, each in enumerate(expectations))


def counting(frame: Any, conditions: Sequence[Any]) -> Any:
    """One row: the number of rows, and of each condition that of the rows for which it is false or NULL."""
    from pyspark.sql import functions

    counts = [functions.count_if(~functions.coalesce(each, functions.lit(False))) for each in conditions]
    return frame.agg(functions.count(functions.lit(1)), *counts)


def violated(checked: Sequence[Checked]) -> RunFailure | None:
    """The failure that the counts stand for; None where no expectation with ``onViolation: Fail`` is violated."""
    broken = [each for each in checked if each.fatal and each.violations]
    if not broken:
        return None
    words = [f"{each.name} ({each.violations} of {each.rows} rows)" for each in broken]
    shown = ", ".join(words[:8]) + (f" and {len(words) - 8} more, see status.run.expectations" if words[8:] else "")
    return RunFailure("ExpectationViolated", f"{FIELD}: the data violates {shown}", FIELD)


def metrics(checked: Sequence[Checked]) -> dict[str, float]:
    """The counts as MLflow has them."""
    return {f"expectations.{each.name}.violations": float(each.violations) for each in checked} | {
        "expectations.rows": float(checked[0].rows)
    }


def field(index: int) -> str:
    """The path of an expectation's expression in the TrainingJob."""
    return f"{FIELD}[{index}].expression"


def _condition(spark: Any, frame: Any, index: int, expectation: Expectation) -> Any:
    """The expression as a column: one boolean of each row, from this row alone."""
    from pyspark.sql import functions

    def refused(what: str) -> RunFailure:
        message = f"{field(index)} ({expectation.name}) {what}; write a condition on the columns of one row"
        return RunFailure("ExpectationInvalid", message, field(index))

    context = Context(f"Reading {field(index)}", "ExpectationInvalid", field(index), values_may_leak=False)
    try:
        state = spark._jsparkSession.sessionState()
        state.sqlParser().parseExpression(expectation.expression)
        column = functions.expr(expectation.expression)
        selected = frame.select(column)
        plan = selected._jdf.queryExecution().analyzed()
    except Exception as error:
        failure = classify(error, context)
        if failure.failure_class != DATA:  # the store, say
            raise failure from error
        raise RunFailure("ExpectationInvalid", failure.message, field(index)) from error
    if not plan.subqueries().isEmpty():
        raise refused("holds a query of its own")
    below = [str(node.nodeName()) for node in plan_nodes(frame._jdf.queryExecution().analyzed())]
    if [str(node.nodeName()) for node in plan_nodes(plan)] != ["Project", *below] or len(selected.columns) != 1:
        raise refused("is more than a condition (an aggregate, a window, a generator or several columns)")
    if not plan.expressions().apply(0).deterministic():
        raise refused("says something else each time it is asked")
    if selected.dtypes[0][1] != "boolean":
        raise refused(f"is of type {selected.dtypes[0][1]}, not boolean")
    return column


def _failed(frame: Any, conditions: Sequence[Any], error: Exception) -> RunFailure:
    """What broke the job: an expression that cannot be computed of some row is named."""
    context = Context("Checking spec.dataset.expectations", "QueryFailed", FIELD)
    failure = classify(error, context)
    if failure.reason != "QueryFailed":  # the store, the executors: no expression's fault
        return failure
    for index, each in enumerate(conditions):
        try:
            counting(frame, [each]).collect()
        except Exception as own:
            context = Context(f"Checking {field(index)}", "ExpectationInvalid", field(index))
            return classify(own, context)
    return failure
