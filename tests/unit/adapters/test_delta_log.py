"""The reader of Delta logs on logs that `deltalake` wrote, and on listings that go wrong."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arro3.core import Array, DataType, RecordBatch
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.schema import Field, PrimitiveType

from lakeloop.adapters.delta_loading import storage_options
from lakeloop.adapters.delta_log import LogFiles, S3DeltaLog, chosen_version, log_files
from lakeloop.adapters.delta_log_protocol import TableNotFound, VersionNotFound
from lakeloop.adapters.object_store_protocol import ObjectStore, StorageAccess, StorageUnavailable, StoredObject

ACCESS = StorageAccess("http://minio:9000", "us-east-1", True, "me", "secret")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
URI = "s3a://lake/t"


class Folder:
    """Implements ObjectStores and ObjectStore on a folder: `s3a://lake/x` is `<folder>/x`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reads: list[str] = []
        self.lists = 0

    def connect(self, access: StorageAccess) -> ObjectStore:
        return self

    async def list(
        self, prefix_uri: str, *, start_after: str | None = None, limit: int | None = None
    ) -> Sequence[StoredObject]:
        self.lists += 1
        found = [
            StoredObject(
                f"s3a://lake/{file.relative_to(self.path).as_posix()}",
                "e",
                file.stat().st_size,
                datetime.fromtimestamp(file.stat().st_mtime, UTC),
            )
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
        ]
        return [each for each in found if each.uri.startswith(prefix_uri) and each.uri > (start_after or "")][:limit]

    async def read(self, uri: str) -> bytes | None:
        self.reads.append(uri)
        file = self.path / uri.removeprefix("s3a://lake/")
        return file.read_bytes() if file.is_file() else None

    async def write_if_absent(self, uri: str, content: bytes) -> bool:
        raise AssertionError("a reader writes nothing")


def append(folder: Path, app_id: str | None = None) -> None:
    """One commit to the table `t`."""
    rows = RecordBatch.from_arrays([Array([1, 2], DataType.int64())], names=["a"])
    transactions = [Transaction(app_id, 1)] if app_id else []
    write_deltalake(
        folder / "t", rows, mode="append", commit_properties=CommitProperties(app_transactions=transactions)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def test_latest_version_and_its_time(folder: Folder) -> None:
    for _ in range(3):
        append(folder.path)
    found = await S3DeltaLog(folder).resolve(ACCESS, URI)
    assert found.version == DeltaTable(folder.path / "t").version() == 2
    assert abs(found.timestamp - datetime.now(UTC)) < timedelta(minutes=1)


async def test_latest_version_after_a_checkpoint_and_a_clean_up(folder: Folder) -> None:
    for _ in range(4):
        append(folder.path)
    DeltaTable(folder.path / "t").create_checkpoint()
    append(folder.path)
    for version in range(3):
        (folder.path / f"t/_delta_log/{version:020d}.json").unlink()
    log = S3DeltaLog(folder)
    assert (await log.resolve(ACCESS, URI)).version == 4
    assert (await log.resolve(ACCESS, URI, version=3)).version == 3
    with pytest.raises(VersionNotFound, match="has versions 3 to 4, not 1"):
        await log.resolve(ACCESS, URI, version=1)


async def test_a_checkpoint_hint_of_a_table_that_was_made_anew(folder: Folder) -> None:
    append(folder.path)
    (folder.path / "t/_delta_log/_last_checkpoint").write_text('{"version": 40, "size": 1}')
    assert (await S3DeltaLog(folder).resolve(ACCESS, URI)).version == 0


async def test_no_table(folder: Folder) -> None:
    with pytest.raises(TableNotFound, match="there is no Delta table at s3a://lake/t"):
        await S3DeltaLog(folder).resolve(ACCESS, URI)
    assert await S3DeltaLog(folder).known_app_ids(ACCESS, URI, ["x"]) == frozenset()


async def test_which_commit_an_application_made(folder: Folder) -> None:
    for app_id in (None, "one", None, "two"):
        append(folder.path, app_id)
    log = S3DeltaLog(folder)
    assert await log.committed_by(ACCESS, URI, "one", after=None) == 1
    assert await log.committed_by(ACCESS, URI, "two", after=0) == 3
    assert await log.committed_by(ACCESS, URI, "one", after=1) is None
    assert await log.committed_by(ACCESS, URI, "nobody", after=None) is None
    assert await log.known_app_ids(ACCESS, URI, ["one", "two", "nobody"]) == {"one", "two"}


@pytest.mark.parametrize("line", ['{"txn": ', '{"txn": 3}', '{"txn": {}}', '"txn"', '["txn"' + "[" * 100_000])
async def test_a_commit_that_is_none_is_told(folder: Folder, line: str) -> None:
    await test_which_commit_an_application_made(folder)
    (commit,) = folder.path.glob("t/_delta_log/*1.json")
    commit.write_text(line)
    with pytest.raises(StorageUnavailable, match="version 1 of s3a://lake/t holds what is no Delta action"):
        await S3DeltaLog(folder).committed_by(ACCESS, URI, "nobody", after=None)
    with pytest.raises(StorageUnavailable, match="version 1 of s3a://lake/t"):
        await S3DeltaLog(folder).known_app_ids(ACCESS, URI, ["nobody"])


async def test_only_new_commits_are_read_for_an_application(folder: Folder) -> None:
    for _ in range(5):
        append(folder.path)
    append(folder.path, "mine")
    await S3DeltaLog(folder).committed_by(ACCESS, URI, "mine", after=4)
    assert [each for each in folder.reads if each.endswith(".json")] == [f"{URI}/_delta_log/{5:020d}.json"]


def test_an_empty_table_has_a_version(tmp_path: Path) -> None:
    DeltaTable.create(tmp_path / "t", DeltaSchema([Field("a", PrimitiveType("long"))]))
    names = [f"{URI}/_delta_log/{file.name}" for file in (tmp_path / "t/_delta_log").iterdir() if file.is_file()]
    assert log_files([StoredObject(name, "e", 1, NOW) for name in names]).readable == ((0, NOW),)


def at(minutes: int) -> datetime:
    return NOW + timedelta(minutes=minutes)


THREE = LogFiles(((0, at(-30)), (1, at(-20)), (2, at(-10))), frozenset())
MOMENTS = {
    "between two commits": (at(-15), 1),
    "at a commit": (at(-20), 1),
    "after the last": (at(-1), 2),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_timestamp(name: str) -> None:
    moment, version = MOMENTS[name]
    assert chosen_version(THREE, URI, None, moment, NOW).version == version


def test_timestamp_before_the_table() -> None:
    with pytest.raises(VersionNotFound, match="begins with version 0"):
        chosen_version(THREE, URI, None, at(-31), NOW)


def test_timestamp_in_the_future() -> None:
    with pytest.raises(VersionNotFound, match="in the future"):
        chosen_version(THREE, URI, None, at(1), NOW)


def test_times_never_go_back() -> None:
    """Two writers' clocks, or a copied log: were a later version earlier, a timestamp would mean two versions."""
    names = [f"{URI}/_delta_log/{version:020d}.json" for version in range(3)]
    found = log_files([StoredObject(n, "e", 1, t) for n, t in zip(names, (at(-5), at(-9), at(-9)), strict=True)])
    times = [time for _, time in found.commits]
    assert times == sorted(set(times))


READABLE = {
    "from the beginning": ([0, 1, 2], [], [0, 1, 2]),
    "beginning is gone": ([3, 4], [], []),
    "beginning is gone, with a checkpoint": ([3, 4], [3], [3, 4]),
    "checkpoint whose own commit is gone": ([4, 5], [3], [4, 5]),
    "a gap": ([0, 1, 3], [], [0, 1]),
    "a gap, then a checkpoint": ([0, 1, 5, 6], [5], [0, 1, 5, 6]),
}


@pytest.mark.parametrize("name", READABLE)
def test_which_versions_can_be_read(name: str) -> None:
    commits, checkpoints, readable = READABLE[name]
    files = LogFiles(tuple((version, NOW) for version in commits), frozenset(checkpoints))
    assert [version for version, _ in files.readable] == readable


@pytest.mark.parametrize(
    "name", ["00000000000000000003.checkpoint.parquet", "00000000000000000003.checkpoint.0000000001.0000000002.parquet"]
)
def test_names_of_checkpoints(name: str) -> None:
    assert log_files([StoredObject(f"{URI}/_delta_log/{name}", "e", 1, NOW)]).checkpoints == {3}


def test_options_for_the_library() -> None:
    options = storage_options(ACCESS)
    assert options["aws_allow_http"] == "true"
    assert options["aws_virtual_hosted_style_request"] == "false"
    assert "aws_session_token" not in options
