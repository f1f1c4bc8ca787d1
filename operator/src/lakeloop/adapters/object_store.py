"""S3 by boto3, in threads."""

import asyncio
import functools
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from lakeloop.adapters.object_store_protocol import (
    BucketNotFound,
    CredentialsRefused,
    ObjectStore,
    StorageAccess,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StoredObject,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_Result = TypeVar("_Result")

_REFUSED = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnauthorizedAccess",
        "401",
        "403",
    }
)
_FULL = frozenset(
    {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage", "507"}
)
_ABSENT = frozenset({"NoSuchKey", "NotFound", "404"})
_PRESENT = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
_CLIENTS_KEPT = 128
"""A sixth of a megabyte each. Tables that triggers follow are looked at in turn, each with its own credentials."""
_THREADS = 8
LARGEST_BYTES = 32 * 1024 * 1024
"""Whoever may write to a bucket must not be able to fill the operator's memory."""
_CALL_SECONDS = 60.0
"""Longest call as a whole, retries included. The thread itself ends by the client's own timeouts."""


def bucket_and_key(uri: str) -> tuple[str, str]:
    """`s3a://bucket/a/b` → `("bucket", "a/b")`."""
    parts = urlsplit(uri, allow_fragments=False)
    if parts.scheme not in ("s3", "s3a") or not parts.netloc:
        raise ValueError(f"{uri!r} is not an s3a:// URI")
    # A `?` is a legal character of a key, and of a glob.
    return parts.netloc, uri.partition("://")[2].partition("/")[2].lstrip("/")


class _Sessions:
    """One session for all clients: it knows the S3 API, which takes 12 MiB and a sixth of a second to learn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: boto3.session.Session | None = None

    def client(self, access: StorageAccess, verify: str | None) -> "S3Client":
        with self._lock:  # making clients is not safe from several threads; they themselves are
            self._made = self._made or boto3.session.Session()
            return _client(self._made, access, verify)


class S3Stores:
    """Implements ObjectStores. `close` ends the threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="object-store")
        self._sessions = _Sessions()
        self._clients: OrderedDict[StorageAccess, ObjectStore] = OrderedDict()

    def connect(self, access: StorageAccess) -> ObjectStore:
        store = self._clients.pop(access, None) or S3Store(access, self._threads, self._sessions)
        self._clients[access] = store
        while len(self._clients) > _CLIENTS_KEPT:
            self._clients.popitem(last=False)
        return store

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._clients.clear()


class S3Store:
    """Implements ObjectStore."""

    def __init__(self, access: StorageAccess, threads: ThreadPoolExecutor, sessions: _Sessions) -> None:
        self._access = access
        self._threads = threads
        self._sessions = sessions
        self._made: S3Client | None = None
        self._ca = _file_of(access.ca) if access.ca else None

    @property
    def _client(self) -> "S3Client":
        # Made in the thread of the first call: it costs milliseconds. Two at once are harmless.
        if self._made is None:
            self._made = self._sessions.client(self._access, self._ca.name if self._ca else self._access.ca_file)
        return self._made

    async def _run(self, uri: str, call: Callable[[], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._threads, call), _CALL_SECONDS)
        except ClientError as error:
            raise classified(error, uri) from error
        except (BotoCoreError, OSError, TimeoutError, ValueError) as error:
            if isinstance(error, ValueError) or type(error) is HTTPClientError:
                # No request came of it. The text may hold a header, and that a session token.
                told = "the address, or a key, holds what does not fit into a request"
                raise StorageUnavailable(f"{self._where} cannot be asked: {told}") from None
            raise StorageUnavailable(f"{self._where} does not answer: {str(error) or type(error).__name__}") from error

    @property
    def _where(self) -> str:
        return self._access.endpoint or "S3"

    async def list(
        self, prefix_uri: str, *, start_after: str | None = None, limit: int | None = None
    ) -> Sequence[StoredObject]:
        return await self._run(prefix_uri, functools.partial(self._list, prefix_uri, start_after, limit))

    def _list(self, prefix_uri: str, start_after: str | None, limit: int | None) -> Sequence[StoredObject]:
        bucket, prefix = bucket_and_key(prefix_uri)
        after = bucket_and_key(start_after)[1] if start_after else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket,
            Prefix=prefix,
            StartAfter=after,
            PaginationConfig={} if limit is None else {"MaxItems": limit, "PageSize": min(limit, 1000)},
        )
        return [
            StoredObject(
                uri=f"s3a://{bucket}/{each['Key']}",
                etag=each["ETag"].strip('"'),
                size=each["Size"],
                modified=each["LastModified"].astimezone(UTC),
            )
            for page in pages
            for each in page.get("Contents") or ()
        ]

    async def read(self, uri: str) -> bytes | None:
        return await self._run(uri, functools.partial(self._read, uri))

    def _read(self, uri: str) -> bytes | None:
        bucket, key = bucket_and_key(uri)
        try:
            found = self._client.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _code(error) in _ABSENT:
                return None
            raise
        if found["ContentLength"] > LARGEST_BYTES:
            raise StorageUnavailable(f"{uri} has {found['ContentLength']} bytes; at most {LARGEST_BYTES} are read")
        return found["Body"].read()

    async def write_if_absent(self, uri: str, content: bytes) -> bool:
        return await self._run(uri, functools.partial(self._write_if_absent, uri, content))

    def _write_if_absent(self, uri: str, content: bytes) -> bool:
        bucket, key = bucket_and_key(uri)
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except ClientError as error:
            if _code(error) in _PRESENT:
                return False
            raise
        return True


def _client(session: boto3.session.Session, access: StorageAccess, verify: str | None) -> "S3Client":
    return session.client(
        "s3",
        endpoint_url=access.endpoint,
        region_name=access.region,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        aws_session_token=access.session_token,
        verify=verify,
        config=Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"total_max_attempts": 2, "mode": "standard"},
            s3={"addressing_style": "path" if access.path_style else "virtual"},
            # Not every S3 server knows the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _file_of(ca: str) -> "tempfile._TemporaryFileWrapper[str]":
    """A file that is there for as long as it is held: a client reads it anew for each connection."""
    file = tempfile.NamedTemporaryFile("w", prefix="ca-", suffix=".pem", encoding="ascii")  # noqa: SIM115
    file.write(ca)
    file.flush()
    return file


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def classified(error: ClientError, uri: str) -> StorageError:
    """Which StorageError the store's answer stands for. Names the URI, never a key."""
    code = _code(error)
    bucket = bucket_and_key(uri)[0]
    if code == "NoSuchBucket":
        return BucketNotFound(f"there is no bucket {bucket!r}")
    if code in _REFUSED:
        return CredentialsRefused(f"the store refuses these credentials for {uri} ({code})")
    if code in _FULL:
        return StorageFull(f"the store has no room left for {uri} ({code}): make some")
    return StorageUnavailable(f"the store answered {code or 'an error'} for {uri}")
