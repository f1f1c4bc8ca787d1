"""What the operator needs of an S3 object store, seen with one object's credentials."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol


class StorageError(Exception):
    """The store refused or did not answer. `reason` is CamelCase and part of the API."""

    reason: ClassVar[str] = "StorageUnavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StorageUnavailable(StorageError):
    """No answer, or one that asks to come again."""


class BucketNotFound(StorageError):
    """There is no such bucket."""

    reason = "BucketNotFound"


class StorageFull(StorageError):
    """There is no room left, or no more than a quota allows."""

    reason = "StorageFull"


class CredentialsRefused(StorageError):
    """The keys are wrong, expired, or not allowed to do this."""

    reason = "CredentialsRefused"


@dataclass(frozen=True, slots=True)
class StorageAccess:
    """Where a store is, and as whom to go there. Keys are not shown."""

    endpoint: str | None
    """URL of the S3 API; None: AWS."""
    region: str
    path_style: bool
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    """PEM file that the server's certificate is checked against; None: the system's."""
    ca: str | None = None
    """Certificates, PEM, that are the object's own: in place of that file."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object in a bucket."""

    uri: str
    """`s3a://bucket/key`."""
    etag: str
    """Without quotes."""
    size: int
    """Bytes."""
    modified: datetime


class ObjectStore(Protocol):
    """URIs are `s3a://bucket/key` (`s3://` is taken too). Every method raises StorageError, never a client's own."""

    async def list(
        self, prefix_uri: str, *, start_after: str | None = None, limit: int | None = None
    ) -> Sequence[StoredObject]:
        """All objects whose key begins with the prefix, by key; `start_after` is a whole URI.

        `limit`: only the first ones; up to 1000 are one request.
        """

    async def read(self, uri: str) -> bytes | None:
        """The object's content; None where there is none."""

    async def write_if_absent(self, uri: str, content: bytes) -> bool:
        """Puts the object where there is none (`If-None-Match: *`). False: there is one already, which stays."""


class ObjectStores(Protocol):
    """Gives a store, seen with some credentials."""

    def connect(self, access: StorageAccess) -> ObjectStore:
        """Cheap: clients are kept for the credentials used last."""
