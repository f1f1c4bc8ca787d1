"""What the operator needs to know of a Delta table, without Spark."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from lakeloop.adapters.object_store_protocol import StorageAccess, StorageError


class TableNotFound(StorageError):
    """There is no Delta log at the URI."""

    reason = "TableNotFound"


class VersionNotFound(StorageError):
    """The table never had this version, or its log no longer holds it."""

    reason = "VersionNotFound"


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One version of a table."""

    version: int
    timestamp: datetime
    """When it was committed."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit, as a trigger sees it."""

    version: int
    time: datetime
    """When it was written, by the store's clock."""
    counts: bool
    """Whether it changes the table's rows, and is neither maintenance nor Lakeloop's own ingestion."""
    rows: int | None = 0
    """Rows that it adds or changes; None: it does not tell, or cannot be read."""


@dataclass(frozen=True, slots=True)
class CommitPage:
    """Commits after a version, as many as one look reads."""

    commits: tuple[Commit, ...] = ()
    """Ascending."""
    missing: int = 0
    """Versions between them, or before them, that the log no longer holds."""
    more: bool = False
    """Whether there are later ones."""
    recreated: bool = False
    """The table has no such version any more: it is another table."""


@dataclass(frozen=True, slots=True)
class Removed:
    """Files of a version that a later commit removed, and that VACUUM takes one day."""

    by: int
    """The first version without them."""
    at: datetime
    """When they were removed."""
    there: bool
    """Whether they still are where they were."""
    retention: timedelta
    """How long VACUUM leaves them there."""


class DeltaLog(Protocol):
    """Reads a table's log with the given credentials. Every method raises StorageError."""

    async def resolve(
        self, access: StorageAccess, uri: str, *, version: int | None = None, timestamp: datetime | None = None
    ) -> TableVersion:
        """The version asked for; that which was current at a moment; else the latest.

        Raises TableNotFound, VersionNotFound.
        """

    async def removed_since(self, access: StorageAccess, uri: str, version: int) -> Removed | None:
        """What of a version's files was removed first since then. None: nothing, as far as is looked."""

    async def committed_by(self, access: StorageAccess, uri: str, app_id: str, *, after: int | None) -> int | None:
        """The version, above `after` (None: any), whose commit carries this `txn` application id."""

    async def known_app_ids(self, access: StorageAccess, uri: str, app_ids: Collection[str]) -> frozenset[str]:
        """Which of these application ids the table's log holds a `txn` of. Empty where there is no table."""

    async def commits(self, access: StorageAccess, uri: str, *, after: int) -> CommitPage:
        """The next commits after that version (-1: from the first one on). Raises TableNotFound."""

    async def changed(self, access: StorageAccess, uri: str, *, after: int) -> bool:
        """Whether the log holds anything else than that version at its end: one request to the store, always."""
