"""The Delta log of a table on S3.

Versions are told from the names of the log's files (Delta protocol, "Delta Log Entries" and "Checkpoints"), which
costs a listing; loading the table would hold the metadata of all its files. Application ids may lie in a checkpoint:
for these, and only for these, the table is loaded by `deltalake`.
"""

import asyncio
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lakeloop.adapters.delta_log_protocol import TableNotFound, TableVersion, VersionNotFound
from lakeloop.adapters.object_store_protocol import (
    ObjectStore,
    ObjectStores,
    StorageAccess,
    StorageUnavailable,
    StoredObject,
)

_COMMIT = re.compile(r"/_delta_log/(\d{20})\.json$")
_CHECKPOINT = re.compile(r"/_delta_log/(\d{20})\.checkpoint(?:\.[^/]+)?\.(?:parquet|json)$")
_LOAD_SECONDS = 60.0


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
        if files.commits[0][0] > 0 or len(files.commits) > 64:
            return await self._known_by_loading(access, uri, app_ids)
        log = f"{uri.rstrip('/')}/_delta_log/"
        contents = await asyncio.gather(*(store.read(f"{log}{version:020d}.json") for version, _ in files.commits))
        found = (_app_ids(each, uri, version) for each, (version, _) in zip(contents, files.commits, strict=True))
        return frozenset(app_ids) & frozenset().union(*found)

    async def _known_by_loading(self, access: StorageAccess, uri: str, app_ids: Collection[str]) -> frozenset[str]:
        try:
            return await asyncio.wait_for(asyncio.to_thread(_load_app_ids, access, uri, app_ids), _LOAD_SECONDS)
        except Exception as error:  # deltalake's errors have no common base below Exception
            raise StorageUnavailable(
                f"the log of {uri} cannot be read: {str(error) or type(error).__name__}"
            ) from error


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
        raise StorageUnavailable(f"version {version} of {uri} holds what is no Delta action") from error


def _load_app_ids(access: StorageAccess, uri: str, app_ids: Collection[str]) -> frozenset[str]:
    from deltalake import DeltaTable  # tens of megabytes that most operators never need

    table = DeltaTable(uri, storage_options=storage_options(access))
    return frozenset(app_id for app_id in app_ids if table.transaction_version(app_id) is not None)


def storage_options(access: StorageAccess) -> dict[str, Any]:
    """The options of deltalake's object store for these credentials."""
    options = {
        "aws_access_key_id": access.access_key,
        "aws_secret_access_key": access.secret_key,
        "aws_region": access.region,
        "aws_virtual_hosted_style_request": "false" if access.path_style else "true",
        "connect_timeout": "5s",
        "timeout": "20s",
    }
    if access.session_token:
        options["aws_session_token"] = access.session_token
    if access.endpoint:
        options["aws_endpoint"] = access.endpoint
        options["aws_allow_http"] = "true" if access.endpoint.startswith("http://") else "false"
    return options
