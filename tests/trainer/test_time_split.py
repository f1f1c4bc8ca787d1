"""The split by time, and that rows keep their side whatever happens to the table's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer import dataset
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Dataset, Input, Split

pytestmark = pytest.mark.spark
PLENTY = 1 << 30


def rows_of(spark: Any, path: Path, version: int, wanted: Dataset) -> dataset.Rows:
    item = Input(0, "points", str(path), version, None)
    dataset.register_views(spark, [item], {"points": version})
    return dataset.read(spark, wanted, [item], PLENTY)


def test_rows() -> None:
    """What `find` promises, in plain Python, for the tests below."""
    assert newest([1, 2, 3, 4, 5], 0.4) == {4, 5}
    assert newest([1, 1, 1, 2, 2], 0.2) == {2}
    assert newest([1, 2, 2, 2], 0.2) == {2}


def newest(times: list[int], fraction: float) -> set[int]:
    """The moments of the test rows: those from the one on at which the share is nearest; never the first one."""
    moments = sorted(set(times))[1:]
    best = min(reversed(moments), key=lambda each: abs(sum(t >= each for t in times) - fraction * len(times)))
    return {each for each in moments if each >= best}


# Spark type of the column → SQL that makes it of `n`, in which the order is that of n
TYPES = {
    "timestamp": "timestamp_micros(CAST(n AS BIGINT) * 977)",
    "timestamp_ntz": "CAST(timestamp_seconds(1761438600 + CAST(n AS BIGINT) * 60) AS TIMESTAMP_NTZ)",
    "date": "date_add(DATE'2024-01-01', CAST(n AS INT))",
    "bigint": "CAST(n AS BIGINT) * 1000000000000",
    "int": "CAST(n - 500 AS INT)",
}


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize(("times", "fraction"), [("n", 0.2), ("n DIV 70", 0.3), ("IF(n < 990, 1, n)", 0.25)])
def test_the_newest_rows_are_the_test_rows(
    spark: Any, tmp_path: Path, type_name: str, times: str, fraction: float
) -> None:
    table = tmp_path / "points"
    made = spark.sql("SELECT id AS n FROM range(1000)").selectExpr("n AS feature", "n % 2 AS target", f"{times} AS n")
    rows_in_time = made.selectExpr("feature", "target", f"{TYPES[type_name]} AS day")
    rows_in_time.repartition(4).write.format("delta").save(str(table))
    plain = [row.n for row in made.orderBy("feature").collect()]
    held_out = newest(plain, fraction)
    rows = rows_of(spark, table, 0, Dataset(None, None, "target", Split(fraction, by="Time", column="day")))
    assert list(rows.train_features.columns) == ["feature"]  # the column is no feature
    side = {n: plain[n] in held_out for n in range(1000)}
    assert set(rows.test_features["feature"]) == {n for n in side if side[n]}
    assert set(rows.train_features["feature"]) == {n for n in side if not side[n]}
    assert rows.test_from


def test_what_cannot_be_split_by_time_is_told(spark: Any, tmp_path: Path) -> None:
    table = tmp_path / "points"
    spark.range(10).selectExpr(
        "id AS feature", "IF(id > 7, NULL, id % 2) AS target", "IF(id = 2, NULL, id) AS gap", "1 AS same",
        "CAST(id AS STRING) AS words", "IF(id > 7, NULL, id) AS labelled",
    ).write.format("delta").save(str(table))  # fmt: skip

    def asked(column: str, fraction: float = 0.5) -> tuple[str, str]:
        with pytest.raises(RunFailure) as caught:
            rows_of(spark, table, 0, Dataset(None, ("feature",), "target", Split(fraction, by="Time", column=column)))
        assert caught.value.field == "spec.dataset.split.column"
        return caught.value.reason, caught.value.message

    reason, message = asked("gap")
    assert (reason, "1 of 8 rows have no gap" in message) == ("NullTime", True)
    assert asked("same")[0] == "EmptyTable"
    assert asked("words")[0] == "SchemaMismatch"
    reason, message = asked("labeled")
    assert (reason, "labelled" in message) == ("ColumnNotFound", True)
    # rows without a target take no part: neither their times nor their number matters
    split = Split(0.25, by="Time", column="labelled")
    rows = rows_of(spark, table, 0, Dataset(None, ("feature",), "target", split))
    assert set(rows.test_features["feature"]) == {6, 7}


def test_rows_keep_their_side_whatever_becomes_of_the_files(spark: Any, tmp_path: Path) -> None:
    """Grown, compacted, clustered, rewritten, widened, a column added: the same rows are held out, by hash and time."""
    table = tmp_path / "points"
    path = str(table)
    columns = ("CAST(id AS INT) AS id", "CAST(id * 0.5 AS FLOAT) AS feature", "id % 2 AS target", "id DIV 10 AS day")
    widening = {"delta.enableTypeWidening": "true"}
    writer = spark.range(400).selectExpr(*columns).repartition(5).write.format("delta")
    writer.options(**widening).save(path)
    splits: dict[str, Callable[[], Split]] = {
        "keys": lambda: Split(0.25, 3, ("id",)),
        "row": lambda: Split(0.25, 3),
    }

    def held_out(split: Split) -> dict[float, bool]:
        version = max(int(each.stem) for each in (table / "_delta_log").glob("*.json"))
        features = ("id", "feature", "day")
        rows = rows_of(spark, table, version, Dataset(None, features, "target", split))
        sides = dict.fromkeys(rows.train_features["id"], False) | dict.fromkeys(rows.test_features["id"], True)
        assert len(sides) == len(rows.train_features) + len(rows.test_features)
        return {int(each): side for each, side in sides.items()}

    first = {name: held_out(split()) for name, split in splits.items()}
    by_time = held_out(Split(0.25, by="Time", column="day"))
    table_of = f"delta.`{path}`"
    spark.conf.set("spark.sql.runSQLOnFiles", "true")  # for this test's own statements
    try:
        steps = [
            f"OPTIMIZE {table_of}",
            f"ALTER TABLE {table_of} ALTER COLUMN id TYPE BIGINT",
            f"ALTER TABLE {table_of} ALTER COLUMN feature TYPE DOUBLE",
            f"ALTER TABLE {table_of} ADD COLUMN more STRING",
            f"UPDATE {table_of} SET more = 'x' WHERE id % 3 = 0",  # noqa: S608 (this test's own)
            f"OPTIMIZE {table_of} ZORDER BY (feature)",
        ]
        for step in steps:
            spark.sql(step)
            assert {name: held_out(split()) for name, split in splits.items()} == first, step
            assert held_out(Split(0.25, by="Time", column="day")) == by_time, step
    finally:
        spark.conf.set("spark.sql.runSQLOnFiles", "false")
    grown = spark.range(400, 800).selectExpr(
        "id", "CAST(id * 0.5 AS DOUBLE) AS feature", "id % 2 AS target", "id DIV 10 AS day", "'y' AS more"
    )
    grown.write.format("delta").mode("append").save(path)
    for name, split in splits.items():
        after = held_out(split())
        assert len(after) == 800
        assert {each: side for each, side in after.items() if each < 400} == first[name], name
