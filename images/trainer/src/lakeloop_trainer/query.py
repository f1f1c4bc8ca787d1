"""The run's query: it reads the pinned inputs, and neither reads nor does anything else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lakeloop_trainer.failures import Context, RunFailure, classify
from lakeloop_trainer.run_spec import Input

FIELD = "spec.dataset.query"
# Java code by name (`SELECT reflect('java.lang.System', 'getenv', …)` gives the keys), and tables by path.
_FUNCTIONS = ("reflect", "java_method", "try_reflect")
_TABLE_FUNCTIONS = ("table_changes", "table_changes_by_path")
_CONSTANTS = frozenset({"OneRowRelation", "LocalRelation", "Range", "CTERelationRef", "UnionLoopRef"})


def open_query(spark: Any, text: str, inputs: Sequence[Input]) -> Any:
    """The query as a DataFrame; its inputs are views already.

    Raises:
        RunFailure: QueryFailed where it is none or reads something else; else what Spark's error stands for.
    """
    text = text.rstrip().rstrip(";")
    forbid_functions(spark)
    state = spark._jsparkSession.sessionState()
    allowed = {source for item in inputs for source in _sources(spark.table(item.name))}
    context = Context("Running spec.dataset.query", "QueryFailed", FIELD, values_may_leak=False)
    try:
        # Spark runs a statement as soon as it sees one (INSERT, VACUUM, SET); parentheses hold queries alone.
        if _is_statement(spark, state.sqlParser().parsePlan(text)):
            raise _not_a_query()
        try:
            frame = spark.sql(f"SELECT * FROM (\n{text}\n)")  # noqa: S608 (the user's query, as the user)
        except Exception as error:
            if "PARSE_SYNTAX_ERROR" in str(error):  # alone it was parsed
                raise _not_a_query() from error
            failure = classify(error, context)
            # the user's own lines begin at the second one
            message = re.sub(r"\bline (\d+)", lambda m: f"line {int(m[1]) - 1}", failure.message)
            raise RunFailure(failure.reason, message, failure.field) from error
        foreign = sorted(set(_sources(frame)) - allowed)
    except Exception as error:
        raise classify(error, context) from error
    if foreign:
        raise RunFailure(
            "QueryFailed",
            f"{FIELD} uses {', '.join(foreign)}; it may read spec.inputs by their names and nothing else",
            FIELD,
        )
    return frame


def forbid_functions(spark: Any) -> None:
    """Takes away what a query or an expression could read something else with, or run code of its own."""
    state = spark._jsparkSession.sessionState()
    identifier = spark._jvm.org.apache.spark.sql.catalyst.FunctionIdentifier
    for registry, names in (
        (state.functionRegistry(), _FUNCTIONS),
        (state.tableFunctionRegistry(), _TABLE_FUNCTIONS),
    ):
        for name in names:
            registry.dropFunction(identifier(name))


def _not_a_query() -> RunFailure:
    return RunFailure(
        "QueryFailed", f"{FIELD} is a statement that does something; write a query, SELECT …, over spec.inputs", FIELD
    )


def _is_statement(spark: Any, parsed: Any) -> bool:
    command = spark._jvm.java.lang.Class.forName("org.apache.spark.sql.catalyst.plans.logical.Command")
    return bool(command.isInstance(parsed))


def _sources(frame: Any) -> Iterator[str]:
    """What the query reads: the folders of tables, and by its kind whatever is neither a table nor a constant."""
    for node in plan_nodes(frame._jdf.queryExecution().analyzed()):
        kind = str(node.nodeName())
        if kind == "LogicalRelation":
            yield _folder(node)
        elif "ScriptTransformation" in kind or (node.children().isEmpty() and kind not in _CONSTANTS):
            yield kind


def _folder(relation: Any) -> str:
    try:
        return str(relation.relation().location().rootPaths().mkString(","))
    except Exception:  # not of files: a JDBC catalog of spark.conf, say
        return str(relation.relation().getClass().getName())


def plan_nodes(plan: Any) -> Iterator[Any]:
    """The plan's nodes, those of subqueries and of common table expressions too."""
    todo = [plan]
    while todo:
        node = todo.pop()
        yield node
        for below in (node.children(), node.subqueries()):
            todo += [below.apply(index) for index in range(below.size())]
