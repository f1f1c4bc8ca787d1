"""What VACUUM may take of an old version, on logs that `deltalake` wrote."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, RecordBatch
from deltalake import DeltaTable, write_deltalake
from unit.adapters.test_delta_log import ACCESS, URI, Folder

from lakeloop.adapters.delta_log import S3DeltaLog
from lakeloop.adapters.delta_retention import retention
from lakeloop.adapters.object_store_protocol import StorageUnavailable
from lakeloop.domain.training.retention import vacuum_problem

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def write(folder: Folder, mode: Any, number: int, **options: Any) -> None:
    """One commit to the table `t`."""
    rows = RecordBatch.from_arrays([Array([number, number + 1], DataType.int64())], names=["a"])
    write_deltalake(folder.path / "t", rows, mode=mode, **options)


async def test_nothing_is_removed_by_appends(folder: Folder) -> None:
    for number in range(12):
        write(folder, "append", number)
    assert await S3DeltaLog(folder).removed_since(ACCESS, URI, 2) is None
    assert len(folder.reads) == 9
    folder.reads.clear()
    assert await S3DeltaLog(folder).removed_since(ACCESS, URI, 11) is None
    assert folder.reads == []


async def test_the_first_removal_of_the_versions_own_files_counts(folder: Folder) -> None:
    write(folder, "append", 0, configuration={"delta.deletedFileRetentionDuration": "interval 2 days"})
    write(folder, "append", 10)
    write(folder, "append", 20)
    DeltaTable(folder.path / "t").delete("a >= 20")  # only what came after version 1
    before = datetime.now(UTC)
    DeltaTable(folder.path / "t").delete("a = 10")
    write(folder, "overwrite", 30)
    found = await S3DeltaLog(folder).removed_since(ACCESS, URI, 1)
    assert found is not None
    assert (found.by, found.there, found.retention) == (4, True, timedelta(days=2))
    assert before - timedelta(seconds=1) <= found.at <= datetime.now(UTC)
    assert (await S3DeltaLog(folder).removed_since(ACCESS, URI, 5)) is None


async def test_files_that_vacuum_took_are_missed(folder: Folder) -> None:
    write(folder, "append", 0)
    write(folder, "overwrite", 10)
    table = DeltaTable(folder.path / "t")
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    found = await S3DeltaLog(folder).removed_since(ACCESS, URI, 0)
    assert found is not None
    assert (found.by, found.there) == (1, False)


async def test_few_commits_are_read_of_a_long_log(folder: Folder) -> None:
    for number in range(70):
        write(folder, "append", number)
    assert await S3DeltaLog(folder).removed_since(ACCESS, URI, 0) is None
    assert len(folder.reads) == 64


def commit(folder: Folder, *actions: Any) -> None:
    log = folder.path / "t/_delta_log"
    version = len(list(log.glob("*.json")))
    (log / f"{version:020d}.json").write_text("".join(json.dumps(each) + "\n" for each in actions))


async def test_a_new_deletion_vector_removes_no_file(folder: Folder) -> None:
    write(folder, "append", 0)
    (file,) = (each.name for each in (folder.path / "t").glob("*.parquet"))
    commit(folder, {"remove": {"path": file, "deletionTimestamp": 1}}, {"add": {"path": file}})
    assert await S3DeltaLog(folder).removed_since(ACCESS, URI, 0) is None


@pytest.mark.parametrize(
    "action", [3, {"remove": {}}, {"add": {}}, {"remove": {"path": "x", "deletionTimestamp": 10**40}}]
)
async def test_a_commit_that_is_none_is_told(folder: Folder, action: Any) -> None:
    write(folder, "append", 0)
    commit(folder, action)
    with pytest.raises(StorageUnavailable, match="version 1 of s3a://lake/t"):
        await S3DeltaLog(folder).removed_since(ACCESS, URI, 0)


RETENTIONS: dict[str, timedelta] = {
    "": timedelta(days=7),
    "interval 30 days": timedelta(days=30),
    "interval 1 week": timedelta(weeks=1),
    "INTERVAL '168' HOURS": timedelta(days=7),
    "interval 1 day 12 hours": timedelta(hours=36),
    "interval 0 seconds": timedelta(0),
    "for ever": timedelta(days=7),
    f"interval {'9' * 40} weeks": timedelta(days=365_000),
}


@pytest.mark.parametrize("written", RETENTIONS)
def test_retention(written: str) -> None:
    assert retention({"delta.deletedFileRetentionDuration": written}) == RETENTIONS[written]


# removed so long ago, still there, kept so long, seconds to the deadline → reason
DECIDED: dict[str, tuple[timedelta, bool, timedelta, int, str | None]] = {
    "removed a moment ago": (timedelta(0), True, timedelta(days=7), 3600, None),
    "just long enough": (timedelta(days=7, hours=-1), True, timedelta(days=7), 3600, None),
    "not to the deadline": (timedelta(days=7, hours=-1), True, timedelta(days=7), 3601, "VersionMayBeVacuumed"),
    "long ago": (timedelta(days=30), True, timedelta(days=7), 3600, "VersionMayBeVacuumed"),
    "long ago, and kept": (timedelta(days=30), True, timedelta(days=365), 3600, None),
    "gone": (timedelta(0), False, timedelta(days=365), 3600, "VersionVacuumed"),
}


@pytest.mark.parametrize("name", DECIDED)
def test_decided(name: str) -> None:
    ago, there, kept, seconds, reason = DECIDED[name]
    found = vacuum_problem("s3a://lake/t", 3, 4, NOW - ago, there, kept, NOW + timedelta(seconds=seconds))
    assert (found[0] if found else None) == reason
    assert found is None or "version 3 of s3a://lake/t" in found[1]
