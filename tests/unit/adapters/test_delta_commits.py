"""What commits say of themselves: those that `deltalake` writes, those that Spark writes, and those that are none."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, RecordBatch
from deltalake import CommitProperties, DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st
from unit.adapters.test_delta_log import ACCESS, URI, Folder

from lakeloop.adapters.delta_commits import LARGEST_BYTES, commit_of
from lakeloop.adapters.delta_log import S3DeltaLog
from lakeloop.adapters.delta_log_protocol import Commit, CommitPage, TableNotFound

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def batch(count: int, first: int = 0) -> RecordBatch:
    ids = list(range(first, first + count))
    return RecordBatch.from_arrays([Array(ids, DataType.int64()), Array(ids, DataType.int64())], names=["id", "x"])


def append(path: Path, count: int = 2, first: int = 0, metadata: Mapping[str, str] | None = None) -> None:
    properties = CommitProperties(custom_metadata=dict(metadata)) if metadata else None
    write_deltalake(path, batch(count, first), mode="append", commit_properties=properties)


def merge(path: Path) -> None:
    """Two rows are updated, three inserted, the rest is written anew as it was."""
    merging = DeltaTable(path).merge(batch(5, 8), predicate="t.id = s.id", source_alias="s", target_alias="t")
    merging.when_matched_update_all().when_not_matched_insert_all().execute()


def properties(path: Path) -> None:
    DeltaTable(path).alter.set_table_properties({"delta.logRetentionDuration": "interval 1 days"})


def vacuum(path: Path) -> None:
    write_deltalake(path, batch(1), mode="overwrite")
    table = DeltaTable(path)
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)


def marked(path: Path) -> None:
    """As deltalake would write it; Spark's form is below."""
    append(path, metadata={"userMetadata": '{"lakeloop": {"runUid": "u", "job": "team-a/churn"}}'})


# what is done to a table of ten rows, and what of each commit counts: its rows, or None where it does not
OPERATIONS: dict[str, tuple[Callable[[Path], Any], list[int | None]]] = {
    "append": (lambda path: append(path, 3), [3]),
    "append of nothing": (lambda path: append(path, 0), [None]),
    "overwrite": (lambda path: write_deltalake(path, batch(4), mode="overwrite"), [4]),
    "overwrite with nothing": (lambda path: DeltaTable(path).delete(), [0]),
    "delete of some": (lambda path: DeltaTable(path).delete("id < 4"), [0]),
    "update": (lambda path: DeltaTable(path).update(updates={"x": "0"}, predicate="id < 4"), [4]),
    "merge": (merge, [5]),
    "optimize": (lambda path: (append(path), DeltaTable(path).optimize.compact()), [2, None]),
    "z-order": (lambda path: (append(path), DeltaTable(path).optimize.z_order(["id"])), [2, None]),
    "table properties": (properties, [None]),
    "vacuum": (vacuum, [1, None, None]),
    "restore": (lambda path: (append(path), DeltaTable(path).restore(0)), [2, 0]),
    "Lakeloop's ingestion": (marked, [None]),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operations(folder: Folder, name: str) -> None:
    operation, expected = OPERATIONS[name]
    append(folder.path / "t", 10)
    operation(folder.path / "t")
    page = await S3DeltaLog(folder).commits(ACCESS, URI, after=0)
    assert [each.rows if each.counts else None for each in page.commits] == expected
    assert (page.missing, page.more, page.recreated) == (0, False, False)


def line(**action: Any) -> str:
    return json.dumps(action)


def info(operation: str, metrics: Mapping[str, str] | None = None, **parts: Any) -> str:
    return line(commitInfo={"operation": operation, "operationMetrics": metrics or {}, **parts})


def add(rows: int | None = None, **parts: Any) -> str:
    stats = {} if rows is None else {"stats": json.dumps({"numRecords": rows})}
    return line(add={"path": "a", "dataChange": True, **stats, **parts})


REMOVE = line(remove={"path": "b", "dataChange": True})
OWN = '{"lakeloop": {"runUid": "u", "job": "a/b"}}'

# the lines of a commit as Spark writes them; whether it counts, and its rows
SPARK: dict[str, tuple[list[str], bool, int | None]] = {
    "write": ([info("WRITE", {"numOutputRows": "7"}), add(3), add(4)], True, 7),
    "write without statistics": ([info("WRITE", {"numOutputRows": "7"}), add(), add(4)], True, 7),
    "write that tells nothing": ([info("WRITE"), add()], True, None),
    "write without commitInfo": ([add(3)], True, 3),
    "streaming": ([info("STREAMING UPDATE"), line(txn={"appId": "q", "version": 1}), add(3)], True, 3),
    "merge": (
        [info("MERGE", {"numTargetRowsInserted": "2", "numTargetRowsUpdated": "1"}), add(100), REMOVE],
        True,
        3,
    ),
    "merge that tells nothing": ([info("MERGE"), add(100), REMOVE], True, None),
    "delete": ([info("DELETE", {"numDeletedRows": "2"}), add(98), REMOVE], True, 0),
    "delete of whole files": ([info("DELETE"), REMOVE], True, 0),
    "optimize": (
        [info("OPTIMIZE"), add(9, dataChange=False), line(remove={"path": "b", "dataChange": False})],
        False,
        0,
    ),
    "reorg that says that data changed": ([info("REORG"), add(9), REMOVE], False, 0),
    "vacuum start": ([info("VACUUM START")], False, 0),
    "vacuum end": ([info("VACUUM END")], False, 0),
    "properties": ([info("SET TBLPROPERTIES"), line(metaData={"id": "x"})], False, 0),
    "made, and empty": ([info("CREATE TABLE"), line(protocol={}), line(metaData={"id": "x"})], False, 0),
    "own ingestion": ([info("WRITE", userMetadata=OWN), add(3)], False, 0),
    "own ingestion, last in the file": ([add(3), info("WRITE", userMetadata=OWN)], False, 0),
    "somebody's metadata": ([info("WRITE", userMetadata="lakeloop"), add(3)], True, 3),
    "somebody's JSON": ([info("WRITE", userMetadata='{"lakeloop": true}'), add(3)], True, 3),
    "nothing at all": ([], True, None),
    "no JSON": (["{"], True, None),
    "no action": (["3"], True, None),
    "an add that is none": ([line(add=3)], True, None),
    "statistics that are none": ([line(add={"stats": "[1", "dataChange": True})], True, None),
    "statistics that are a list": ([line(add={"stats": "[1]", "dataChange": True})], True, None),
    "as many rows as there cannot be": ([add(10**400)], True, 2**53),
    "fewer than no rows": ([add(-3)], True, None),
}


@pytest.mark.parametrize("name", SPARK)
def test_what_spark_writes(name: str) -> None:
    lines, counts, rows = SPARK[name]
    assert commit_of(4, NOW, "\n".join(lines).encode()) == Commit(4, NOW, counts, rows)


WORDS = ["add", "remove", "commitInfo", "stats", "dataChange", "operation", "operationMetrics", "userMetadata"]
DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text(), lambda each: st.dictionaries(st.sampled_from(WORDS), each, max_size=4)
)


@given(st.binary(max_size=80) | DOCUMENTS.map(lambda each: json.dumps(each).encode()))
def test_whatever_a_commit_holds_is_read(content: bytes) -> None:
    found = commit_of(1, NOW, content)
    assert found.rows is None or 0 <= found.rows <= 2**53


async def test_only_what_is_new_is_read_and_by_one_listing(folder: Folder) -> None:
    for each in range(5):
        append(folder.path / "t", first=each * 2)
    log = S3DeltaLog(folder)
    page = await log.commits(ACCESS, URI, after=2)
    assert [each.version for each in page.commits] == [3, 4]
    assert (len(folder.reads), folder.lists) == (2, 1)
    assert await log.commits(ACCESS, URI, after=4) == CommitPage()
    assert (len(folder.reads), folder.lists) == (2, 2)


async def test_whether_anything_is_new_is_one_listing(folder: Folder) -> None:
    for _ in range(3):
        append(folder.path / "t")
    DeltaTable(folder.path / "t").create_checkpoint()
    log = S3DeltaLog(folder)
    assert [await log.changed(ACCESS, URI, after=each) for each in (1, 2, 3)] == [True, False, True]
    assert (folder.reads, folder.lists) == ([], 3)
    DeltaTable(folder.path / "t").optimize.compact()
    assert await log.changed(ACCESS, URI, after=2)


async def test_a_thousand_commits_is_read_in_bounded_looks(folder: Folder) -> None:
    append(folder.path / "t")
    content = (folder.path / f"t/_delta_log/{0:020d}.json").read_bytes()
    for version in range(1, 1100):
        (folder.path / f"t/_delta_log/{version:020d}.json").write_bytes(content)
    log, seen, looks, counted = S3DeltaLog(folder), 0, 0, 0
    while True:
        page = await log.commits(ACCESS, URI, after=seen)
        looks, counted = looks + 1, counted + len(page.commits)
        assert len(page.commits) <= 200
        if page.commits:
            seen = page.commits[-1].version
        if not page.more:
            break
    assert (seen, counted, looks) == (1099, 1099, 6)
    assert len(folder.reads) == len(set(folder.reads)) == 1099


async def test_a_cleaned_up_log(folder: Folder) -> None:
    for _ in range(6):
        append(folder.path / "t")
    table = DeltaTable(folder.path / "t")
    table.create_checkpoint()
    append(folder.path / "t")
    for version in range(5):
        (folder.path / f"t/_delta_log/{version:020d}.json").unlink()
    page = await S3DeltaLog(folder).commits(ACCESS, URI, after=2)
    assert ([each.version for each in page.commits], page.missing) == ([5, 6], 2)
    page = await S3DeltaLog(folder).commits(ACCESS, URI, after=-1)
    assert ([each.version for each in page.commits], page.missing) == ([5, 6], 5)
    assert (await S3DeltaLog(folder).commits(ACCESS, URI, after=4)).missing == 0


async def test_a_table_made_anew(folder: Folder) -> None:
    append(folder.path / "t")
    assert (await S3DeltaLog(folder).commits(ACCESS, URI, after=5)).recreated
    assert await S3DeltaLog(folder).changed(ACCESS, URI, after=5)


async def test_no_table(folder: Folder) -> None:
    for after in (-1, 4):
        with pytest.raises(TableNotFound, match="there is no Delta table at s3a://lake/t"):
            await S3DeltaLog(folder).commits(ACCESS, URI, after=after)


async def test_a_huge_commit_is_not_read_and_counts(folder: Folder) -> None:
    append(folder.path / "t")
    append(folder.path / "t")
    commit = folder.path / f"t/_delta_log/{1:020d}.json"
    commit.write_bytes(commit.read_bytes() + b" " * LARGEST_BYTES)
    (found,) = (await S3DeltaLog(folder).commits(ACCESS, URI, after=0)).commits
    assert (found.counts, found.rows, folder.reads) == (True, None, [])


async def test_a_page_of_checkpoint_parts_hides_no_commit(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakeloop.adapters.delta_log._LISTED", 20)
    append(folder.path / "t")
    append(folder.path / "t")
    for part in range(1, 31):
        (folder.path / f"t/_delta_log/{1:020d}.checkpoint.{part:010d}.{30:010d}.parquet").write_bytes(b"x")
    page = await S3DeltaLog(folder).commits(ACCESS, URI, after=0)
    assert [each.version for each in page.commits] == [1]
