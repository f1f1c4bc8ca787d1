"""What the operator needs to know of a Delta table, without Spark."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
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


class DeltaLog(Protocol):
    """Reads a table's log with the given credentials. Every method raises StorageError."""

    async def resolve(
        self, access: StorageAccess, uri: str, *, version: int | None = None, timestamp: datetime | None = None
    ) -> TableVersion:
        """The version asked for; that which was current at a moment; else the latest.

        Raises TableNotFound, VersionNotFound.
        """

    async def committed_by(self, access: StorageAccess, uri: str, app_id: str, *, after: int | None) -> int | None:
        """The version, above `after` (None: any), whose commit carries this `txn` application id."""

    async def known_app_ids(self, access: StorageAccess, uri: str, app_ids: Collection[str]) -> frozenset[str]:
        """Which of these application ids the table's log holds a `txn` of. Empty where there is no table."""
