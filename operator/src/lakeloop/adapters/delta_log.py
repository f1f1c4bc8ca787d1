"""The Delta log of a table on S3.

Versions are told from the names of the log's files (Delta protocol, "Delta Log Entries" and "Checkpoints"), which
costs a listing; loading the table would hold the metadata of all its files. Application ids may lie in a checkpoint:
for these, and only for these, the table is loaded by `deltalake`.
"""

import asyncio
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lakeloop.adapters.delta_commits import LARGEST_BYTES, commit_of
from lakeloop.adapters.delta_loading import load
from lakeloop.adapters.delta_log_protocol import (
    Commit,
    CommitPage,
    Removed,
    TableNotFound,
    TableVersion,
    VersionNotFound,
)
from lakeloop.adapters.delta_retention import Removals, actions, configuration, retention
from lakeloop.adapters.object_store_protocol import (
    ObjectStore,
    ObjectStores,
    StorageAccess,
    StorageUnavailable,
    StoredObject,
)

_COMMIT = re.compile(r"/_delta_log/(\d{20})\.json$")
_CHECKPOINT = re.compile(r"/_delta_log/(\d{20})\.checkpoint(?:\.[^/]+)?\.(?:parquet|json)$")
_LISTED = 1000
"""Objects that a look lists: one request."""
_READ_AT_ONCE = 8
_READ = 200
"""Commits that a look reads, and"""
_READ_BYTES = 64 * 1024 * 1024
"""how much of them at most; the next look goes on from there."""
_MOST_COMMITS = 64
"""Read one by one; a longer log is loaded, or not looked through to its end."""
_MOST_FILES = 4


@dataclass(frozen=True, slots=True)
class LogFiles:
    """What a listing of `_delta_log/` tells."""

    commits: tuple[tuple[int, datetime], ...]
    """Version and time of each commit file, ascending. Times never go back: Delta raises a later commit's by 1 ms."""
    checkpoints: frozenset[int]

    @property
    def readable(self) -> tuple[tuple[int, datetime], ...]:
        """The versions that can be put together: each has, going back without a gap, a checkpoint or version 0."""
        found: list[tuple[int, datetime]] = []
        previous: int | None = None
        for version, time in self.commits:
            if (
                version == 0
                or version in self.checkpoints
                or previous == version - 1
                or version - 1 in self.checkpoints
            ):
                found.append((version, time))
                previous = version
        return tuple(found)


def log_files(objects: Sequence[StoredObject]) -> LogFiles:
    """Sorts a listing of `_delta_log/`. Pure."""
    commits: list[tuple[int, datetime]] = []
    for each in sorted(objects, key=lambda one: one.uri):
        match = _COMMIT.search(each.uri)
        if match:
            earliest = commits[-1][1] + timedelta(milliseconds=1) if commits else each.modified
            commits.append((int(match[1]), max(each.modified, earliest)))
    checkpoints = (_CHECKPOINT.search(each.uri) for each in objects)
    return LogFiles(tuple(commits), frozenset(int(match[1]) for match in checkpoints if match))


def chosen_version(
    files: LogFiles, uri: str, version: int | None, timestamp: datetime | None, now: datetime
) -> TableVersion:
    """The version asked for. Pure. Raises TableNotFound, VersionNotFound with the range that there is."""
    readable = files.readable
    if not readable:
        raise TableNotFound(f"there is no Delta table at {uri}")
    first, last = readable[0], readable[-1]
    if version is not None:
        for number, time in readable:
            if number == version:
                return TableVersion(number, time)
        raise VersionNotFound(f"{uri} has versions {first[0]} to {last[0]}, not {version}")
    if timestamp is not None:
        if timestamp > now:
            raise VersionNotFound(f"{timestamp.isoformat()} lies in the future: {uri} may still change until then")
        until = [each for each in readable if each[1] <= timestamp]
        if not until:
            raise VersionNotFound(
                f"{uri} begins with version {first[0]} of {first[1].isoformat()}, after {timestamp.isoformat()}"
            )
        return TableVersion(*until[-1])
    return TableVersion(*last)


class S3DeltaLog:
    """Implements DeltaLog on any S3."""

    def __init__(self, stores: ObjectStores) -> None:
        self._stores = stores

    async def resolve(
        self, access: StorageAccess, uri: str, *, version: int | None = None, timestamp: datetime | None = None
    ) -> TableVersion:
        files = await self._files(self._stores.connect(access), uri, newest_only=version is None and timestamp is None)
        return chosen_version(files, uri, version, timestamp, datetime.now(UTC))

    async def _files(self, store: ObjectStore, uri: str, *, newest_only: bool) -> LogFiles:
        log = f"{uri.rstrip('/')}/_delta_log/"
        start = None
        if newest_only:
            # A long log need not be listed from its beginning. The hint is optional and may be stale.
            checkpoint = _last_checkpoint(await store.read(f"{log}_last_checkpoint"))
            start = f"{log}{checkpoint:020d}" if checkpoint else None
        files = log_files(await store.list(log, start_after=start))
        return files if files.readable or start is None else log_files(await store.list(log))

    async def removed_since(self, access: StorageAccess, uri: str, version: int) -> Removed | None:
        store = self._stores.connect(access)
        log = f"{uri.rstrip('/')}/_delta_log/"
        listed = await store.list(log, start_after=f"{log}{version:020d}.json", limit=_LISTED)
        later = log_files(listed).commits[:_MOST_COMMITS]
        removals = Removals()
        for start in range(0, len(later), _READ_AT_ONCE):
            some = later[start : start + _READ_AT_ONCE]
            contents = await asyncio.gather(*(store.read(f"{log}{number:020d}.json") for number, _ in some))
            for (number, time), content in zip(some, contents, strict=True):
                try:
                    found = removals.look(number, time, _actions(content, uri, number))
                except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
                    raise _no_action(uri, number) from error
                if found is not None:
                    there = await self._there(store, uri, found.paths[:_MOST_FILES])
                    properties = await self._properties(access, store, uri)
                    return Removed(found.version, found.at, there, retention(properties))
        return None

    async def _there(self, store: ObjectStore, uri: str, paths: Sequence[str]) -> bool:
        files = [path if "://" in path else f"{uri.rstrip('/')}/{path}" for path in paths]
        # A listing from a whole name on, since a store gives no cheaper answer to whether an object is there.
        listed = await asyncio.gather(*(store.list(file, limit=1) for file in files))
        return all(
            any(same_object(each.uri, file) for each in found) for file, found in zip(files, listed, strict=True)
        )

    async def _properties(self, access: StorageAccess, store: ObjectStore, uri: str) -> Mapping[str, Any]:
        """The table's properties as they are now: from the commits, or for a long log by loading the table."""
        files = await self._files(store, uri, newest_only=False)
        if not files.commits or files.commits[0][0] > 0 or len(files.commits) > _MOST_COMMITS:
            return (await load(access, uri)).properties
        log = f"{uri.rstrip('/')}/_delta_log/"
        for version, _ in reversed(files.commits):
            found = configuration(_actions(await store.read(f"{log}{version:020d}.json"), uri, version))
            if found is not None:
                return found
        return {}

    async def committed_by(self, access: StorageAccess, uri: str, app_id: str, *, after: int | None) -> int | None:
        store = self._stores.connect(access)
        log = f"{uri.rstrip('/')}/_delta_log/"
        start = f"{log}{after:020d}.json" if after is not None else None
        for version, _ in log_files(await store.list(log, start_after=start)).commits:
            if after is not None and version <= after:
                continue
            if app_id in _app_ids(await store.read(f"{log}{version:020d}.json"), uri, version):
                return version
        return None

    async def known_app_ids(self, access: StorageAccess, uri: str, app_ids: Collection[str]) -> frozenset[str]:
        if not app_ids:
            return frozenset()
        store = self._stores.connect(access)
        files = await self._files(store, uri, newest_only=False)
        if not files.readable:
            return frozenset()
        if files.commits[0][0] > 0 or len(files.commits) > _MOST_COMMITS:
            return (await load(access, uri, app_ids)).app_ids
        log = f"{uri.rstrip('/')}/_delta_log/"
        contents = await asyncio.gather(*(store.read(f"{log}{version:020d}.json") for version, _ in files.commits))
        found = (_app_ids(each, uri, version) for each, (version, _) in zip(contents, files.commits, strict=True))
        return frozenset(app_ids) & frozenset().union(*found)

    async def changed(self, access: StorageAccess, uri: str, *, after: int) -> bool:
        store = self._stores.connect(access)
        found = await store.list(_numbered(uri), start_after=_just_before(uri, after), limit=2)
        return [_version(each) for each in found] != [after]

    async def commits(self, access: StorageAccess, uri: str, *, after: int) -> CommitPage:
        store = self._stores.connect(access)
        start = _just_before(uri, after)
        listed = await store.list(_numbered(uri), start_after=start, limit=_LISTED)
        more = len(listed) >= _LISTED
        if more and not _later(listed, after):
            # Nothing but the parts of a checkpoint.
            listed, more = await store.list(_numbered(uri), start_after=start), False
        new = _later(listed, after)
        if not new:
            if any(_version(each) == after for each in listed):
                return CommitPage()
            newest = await self.resolve(access, uri)
            return CommitPage(recreated=newest.version < after)
        chosen = _within(new)
        commits = [each for part in _parts(chosen) for each in await self._read(store, part)]
        missing = chosen[-1][0] - after - len(chosen)
        return CommitPage(tuple(commits), missing, more=more or len(chosen) < len(new))

    async def _read(self, store: ObjectStore, part: Sequence[tuple[int, StoredObject]]) -> list[Commit]:
        async def one(version: int, file: StoredObject) -> Commit:
            content = await store.read(file.uri) if file.size <= LARGEST_BYTES else None
            return await asyncio.to_thread(commit_of, version, file.modified, content)

        return list(await asyncio.gather(*(one(version, file) for version, file in part)))


def _numbered(uri: str) -> str:
    """What all commits begin with, and neither the hint nor sidecars do."""
    return f"{uri.rstrip('/')}/_delta_log/0"


def _just_before(uri: str, version: int) -> str | None:
    return f"{uri.rstrip('/')}/_delta_log/{version:020d}.jso" if version >= 0 else None


def _version(file: StoredObject) -> int | None:
    match = _COMMIT.search(file.uri)
    return int(match[1]) if match else None


def _later(objects: Sequence[StoredObject], after: int) -> list[tuple[int, StoredObject]]:
    """The commits among them, ascending as the listing is."""
    return [(version, each) for each in objects if (version := _version(each)) is not None and version > after]


def _within(files: Sequence[tuple[int, StoredObject]]) -> Sequence[tuple[int, StoredObject]]:
    """As many of the first as may be read at one look, at least one."""
    size = 0
    for count, (_, file) in enumerate(files[:_READ]):
        size += min(file.size, LARGEST_BYTES)
        if count and size > _READ_BYTES:
            return files[:count]
    return files[:_READ]


def _parts(files: Sequence[tuple[int, StoredObject]]) -> Iterator[Sequence[tuple[int, StoredObject]]]:
    """What is read, and held in memory, at one time."""
    part: list[tuple[int, StoredObject]] = []
    for each in files:
        if len(part) == _READ_AT_ONCE or sum(file.size for _, file in [*part, each]) > LARGEST_BYTES:
            if part:
                yield part
            part = []
        part.append(each)
    yield part


def _last_checkpoint(content: bytes | None) -> int | None:
    try:
        return int(json.loads(content)["version"]) if content else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _app_ids(commit: bytes | None, uri: str, version: int) -> frozenset[str]:
    try:
        actions = [json.loads(line) for line in (commit or b"").splitlines() if b'"txn"' in line]
        return frozenset(str(action["txn"]["appId"]) for action in actions if "txn" in action)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_action(uri, version) from error


def _actions(commit: bytes | None, uri: str, version: int) -> Sequence[Mapping[str, Any]]:
    try:
        return actions(commit or b"")
    except (ValueError, RecursionError) as error:
        raise _no_action(uri, version) from error


def _no_action(uri: str, version: int) -> StorageUnavailable:
    return StorageUnavailable(f"version {version} of {uri} holds what is no Delta action")


def same_object(one: str, other: str) -> bool:
    """Whether two URIs name one object: `s3`, `s3a` and `s3n` are the same."""
    return one.partition("://")[2] == other.partition("://")[2]
