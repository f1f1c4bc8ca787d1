"""Ingestion with ``mode: Merge``: by its keys a row of the files replaces the table's, or is added.

Delta's MERGE takes no write options: the transaction's id, which keeps a retry from loading twice, goes through the
session's settings, and is taken away again. Columns of the table that the files do not have keep their values in rows
that were there, and are NULL in new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Input
from lakeloop_trainer.split import quoted
from lakeloop_trainer.storage import as_spark_path

_SETTINGS = {
    "txnAppId": "spark.databricks.delta.write.txnAppId",
    "txnVersion": "spark.databricks.delta.write.txnVersion",
    "userMetadata": "spark.databricks.delta.commitInfo.userMetadata",
}


def check_names(keys: Sequence[str], columns: Sequence[str], where: str, path: str) -> None:
    """Raises RunFailure (ColumnNotFound) where a key is no column; ``where`` is of what: ``the files``, say."""
    known = {name.lower() for name in columns}
    for index, key in enumerate(keys):
        if key.lower() not in known:
            field = f"{path}.ingest.keys[{index}]"
            there = ", ".join(columns[:20])
            raise RunFailure("ColumnNotFound", f"{field}: {where} have no column {key}; there are {there}", field)


def unique(rows: Any, keys: Sequence[str], path: str) -> Any:
    """The rows, each set of keys once; of rows that are equal in every column one is left.

    Raises:
        RunFailure: NullKey, DuplicateKey: which row is to count, nobody said.
    """
    field = f"{path}.ingest.keys"
    names = ", ".join(keys)
    without, repeated = _counted(rows, keys)
    if without:
        raise RunFailure(
            "NullKey",
            f"{field}: {without} rows of the files have no {names if len(keys) == 1 else f'value in one of {names}'}. "
            "They match nothing, and each load would add them once more: give them one, or leave them out",
            field,
        )
    if not repeated:
        return rows
    if not any(kind.startswith("map") for _, kind in rows.dtypes):  # Spark compares no maps
        rows = rows.distinct()
        _, repeated = _counted(rows, keys)
        if not repeated:
            return rows
    raise RunFailure(
        "DuplicateKey",
        f"{field}: {repeated} values of {names} are in the files more than once, with different rows, and nobody can "
        "say which row counts: keep one of each, or name more columns",
        field,
    )


def _counted(rows: Any, keys: Sequence[str]) -> tuple[int, int]:
    """Rows with a NULL among their keys, and keys that are there more than once."""
    from pyspark.sql import functions

    absent = functions.expr(" OR ".join(f"{quoted(key)} IS NULL" for key in keys)).alias("absent")
    found = rows.groupBy(*(functions.col(quoted(key)) for key in keys)).agg(functions.count("*").alias("n"))
    found = found.select(absent, "n").selectExpr(
        "sum(IF(absent, n, 0)) AS without", "count_if(NOT absent AND n > 1) AS repeated"
    )
    row = found.collect()[0]
    return int(row["without"] or 0), int(row["repeated"])


def commit(spark: Any, rows: Any, item: Input, keys: Sequence[str], options: Mapping[str, str]) -> None:
    """One MERGE, in one commit; raises what Delta raises. ``options``: Delta's write options that name the commit."""
    table = spark._jvm.io.delta.tables.DeltaTable.forPath(spark._jsparkSession, as_spark_path(item.uri))
    condition = " AND ".join(f"kept.{quoted(key)} = new.{quoted(key)}" for key in keys)
    values = spark._jvm.java.util.HashMap()
    for name in rows.columns:
        values.put(quoted(name), f"new.{quoted(name)}")
    with _settings(spark, options):
        merging = getattr(table, "as")("kept").merge(rows.alias("new")._jdf, condition)
        merging.whenMatched().updateExpr(values).whenNotMatched().insertExpr(values).execute()


@contextmanager
def _settings(spark: Any, options: Mapping[str, str]) -> Iterator[None]:
    for name, value in options.items():
        spark.conf.set(_SETTINGS[name], value)
    try:
        yield
    finally:
        for name in options:
            spark.conf.unset(_SETTINGS[name])
