"""Ingestion with `mode: Merge` on real Delta tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakeloop_trainer import ingest
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Ingest, Input
from lakeloop_trainer.storage import FileStore

pytestmark = pytest.mark.spark
STORE = FileStore()
Load = Callable[..., int]


@pytest.fixture
def load(spark: Any, tmp_path: Path, write_manifest: Any) -> Load:
    """What a driver does for one input: look, and merge if there is still something to merge."""

    def run(
        uid: str, content: Path | list[Mapping[str, Any]], base: int | None, keys: tuple[str, ...] = ("id",)
    ) -> int:
        raw = content if isinstance(content, Path) else tmp_path / f"{uid}.json"
        if not isinstance(content, Path):
            raw.write_text("".join(json.dumps(row) + "\n" for row in content))
        wanted = Ingest(raw.suffix[1:], "Merge", {}, base, write_manifest(uid, [raw]), None, keys)
        item = Input(0, "points", str(tmp_path / "points"), None, wanted)
        prepared = ingest.prepare(item, uid, STORE)
        if prepared.version is not None:
            return prepared.version
        assert prepared.manifest is not None
        return ingest.load(spark, item, prepared.manifest, uid, "team-a/churn", STORE)

    return run


@pytest.fixture
def rows(spark: Any, tmp_path: Path) -> Callable[[], list[tuple[Any, ...]]]:
    """The table's rows as they now are."""

    def read() -> list[tuple[Any, ...]]:
        found = spark.read.format("delta").load(str(tmp_path / "points")).select("id", "spend", "name").collect()
        return sorted(tuple(row) for row in found)

    return read


def commits(table: Path) -> int:
    return len(list((table / "_delta_log").glob("*.json")))


FIRST = [{"id": 1, "spend": 1.5, "name": "a"}, {"id": 2, "spend": 2.5, "name": "b"}]


def test_rows_are_replaced_by_their_keys_or_added(load: Load, rows: Any, tmp_path: Path, spark: Any) -> None:
    assert load("run-0", FIRST, None) == 0  # makes the table
    assert load("run-1", [{"id": 2, "spend": 9, "name": "B"}, {"id": 3, "spend": 3, "name": "c"}], 0) == 1
    assert rows() == [(1, 1.5, "a"), (2, 9.0, "B"), (3, 3.0, "c")]
    # columns that the files do not have stay, and are NULL in a new row; names in another case are the same
    assert load("run-2", [{"ID": 3, "Spend": 7.0}, {"ID": 4, "Spend": 1.0}], 1) == 2
    assert rows()[2:] == [(3, 7.0, "c"), (4, 1.0, None)]
    # a row that is there twice is one row
    assert load("run-3", [FIRST[0], FIRST[0], {"id": 5, "spend": 5.0, "name": "e"}], 2) == 3
    assert rows()[0] == (1, 1.5, "a")
    assert len(rows()) == 5
    # of no row at all there is a commit too: the files count as loaded
    empty = pa.schema([("id", pa.int64()), ("spend", pa.float64())]).empty_table()
    pq.write_table(empty, tmp_path / "empty.parquet")
    assert load("run-4", tmp_path / "empty.parquet", 3) == 4
    assert len(rows()) == 5
    actions = [
        json.loads(line) for line in (tmp_path / "points/_delta_log" / f"{3:020d}.json").read_text().splitlines()
    ]
    assert [each["txn"]["appId"] for each in actions if "txn" in each] == ["run-3"]
    info = next(each["commitInfo"] for each in actions if "commitInfo" in each)
    assert (info["operation"], json.loads(info["userMetadata"])["lakeloop"]["runUid"]) == ("MERGE", "run-3")
    for name in ("spark.databricks.delta.write.txnAppId", "spark.databricks.delta.write.txnVersion"):
        assert spark.conf.get(name, None) is None  # the next table's commit is its own


def test_a_retry_after_the_commit_merges_nothing_twice(load: Load, rows: Any, spark: Any, tmp_path: Path) -> None:
    load("run-0", FIRST, None)
    assert load("run-1", [{"id": 2, "spend": 9.0, "name": "B"}], 0) == 1
    # somebody changes the row before the operator, or the next attempt, has seen the version
    later = spark.sql("SELECT 2L AS id, 10.0D AS spend, 'later' AS name")
    later.write.format("delta").mode("append").save(str(tmp_path / "points"))
    assert load("run-1", [{"id": 2, "spend": 9.0, "name": "B"}], 0) == 1
    assert commits(tmp_path / "points") == 3
    # a driver that was slow to die merges once more: Delta knows the transaction
    raw = tmp_path / "run-1.json"
    wanted = Ingest("json", "Merge", {}, 0, "", None, ("id",))
    item = Input(0, "points", str(tmp_path / "points"), None, wanted)
    again = ingest.load(spark, item, ingest.Manifest(((str(raw), ""),), 1), "run-1", "team-a/churn", STORE)
    assert again == 1
    assert commits(tmp_path / "points") == 3
    assert rows() == [(1, 1.5, "a"), (2, 9.0, "B"), (2, 10.0, "later")]


def test_a_table_that_somebody_made_meanwhile_is_merged_into(load: Load, rows: Any, spark: Any, tmp_path: Path) -> None:
    made = spark.sql("SELECT 2L AS id, 10.0D AS spend, 'there' AS name")
    made.write.format("delta").save(str(tmp_path / "points"))
    assert load("run-0", FIRST, None) == 1
    assert rows() == [(1, 1.5, "a"), (2, 2.5, "b")]


# rows, keys, reason, field, what the message says
REFUSED: dict[str, tuple[Any, tuple[str, ...], str, str, str]] = {
    "a key that is NULL": (
        [{"id": None, "spend": 1.0}, {"id": 5, "spend": 1.0}], ("id",), "NullKey", "ingest.keys", "1 rows .* have no id"),
    "two rows of one key": (
        [{"id": 6, "spend": 1.0}, {"id": 6, "spend": 2.0}], ("id",), "DuplicateKey", "ingest.keys",
        "1 values of id are in the files more than once"),
    "no such column in the files": (
        [{"spend": 1.0}], ("id",), "ColumnNotFound", "ingest.keys[0]", "the files have no column id"),
    "no such column in the table": (
        [{"id": 1, "day": 1}], ("id", "day"), "ColumnNotFound", "ingest.keys[1]", "the table's rows have no column day"),
    "a new column": (
        [{"id": 1, "more": 1}], ("id",), "SchemaMismatch", "ingest", "column more is not in the table"),
    "another type": (
        [{"id": 1, "spend": "1.5"}], ("id",), "SchemaMismatch", "ingest", "column spend is string in the files"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged_is_told_and_changes_nothing(load: Load, rows: Any, tmp_path: Path, name: str) -> None:
    content, keys, reason, field, says = REFUSED[name]
    load("run-0", FIRST, None)
    with pytest.raises(RunFailure, match=says) as caught:
        load("run-1", content, 0, keys)
    assert (caught.value.failure_class, caught.value.reason) == ("Data", reason)
    assert caught.value.field == f"spec.inputs[0].{field}"
    assert commits(tmp_path / "points") == 1
