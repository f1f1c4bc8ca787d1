"""The object store, for the few small things that need no Spark: manifests, etags, the head of a Delta log.

Asking it while the JVM starts also finds a refused key, a missing bucket or a store that is down within a second,
in words that are clearer than those of a Java stack trace.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

_COMMIT = re.compile(r"(\d{20})\.json$")


class ObjectStore(Protocol):
    """What this program asks of a store; every method takes full URIs and may raise the store's own errors."""

    def read(self, uri: str) -> bytes: ...

    def etag(self, uri: str) -> str | None:
        """The object's etag without quotes; None where there is no such object."""

    def list_names(self, uri: str, after: str = "", limit: int | None = None) -> Iterator[str]:
        """Names directly below a folder, sorted, greater than ``after``."""

    def files(self, uri: str) -> Iterator[tuple[str, int]]:
        """Every file below a folder, in folders of its own too: relative path and size."""

    def size(self, uri: str) -> int | None:
        """The object's size; None where there is no such object."""


class S3Store:
    """S3 through boto3: credentials, region and endpoint come from the standard AWS variables."""

    def __init__(self, path_style: bool) -> None:
        self._path_style = path_style
        self._made: Any = None
        self._lock = threading.Lock()

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                import boto3
                from botocore.config import Config

                self._made = boto3.client(
                    "s3",
                    config=Config(
                        s3={"addressing_style": "path" if self._path_style else "auto"},
                        retries={"mode": "standard", "max_attempts": 4},
                        connect_timeout=5,
                        read_timeout=30,
                        max_pool_connections=16,
                    ),
                )
            return self._made

    def read(self, uri: str) -> bytes:
        bucket, key = s3_parts(uri)
        body: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def etag(self, uri: str) -> str | None:
        head = self._head(uri)
        return str(head["ETag"]).strip('"') if head else None

    def size(self, uri: str) -> int | None:
        head = self._head(uri)
        return int(head["ContentLength"]) if head else None

    def _head(self, uri: str) -> Any:
        from botocore.exceptions import ClientError

        bucket, key = s3_parts(uri)
        try:
            return self._client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                return None
            raise

    def files(self, uri: str) -> Iterator[tuple[str, int]]:
        bucket, key = s3_parts(uri)
        prefix = key.rstrip("/") + "/" if key else ""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):  # what a browser of buckets makes for a folder
                    yield item["Key"][len(prefix) :], int(item["Size"])

    def list_names(self, uri: str, after: str = "", limit: int | None = None) -> Iterator[str]:
        bucket, key = s3_parts(uri)
        prefix = key.rstrip("/") + "/"
        arguments: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
        if after:
            arguments["StartAfter"] = prefix + after
        if limit:
            arguments["MaxKeys"] = limit
        left = limit
        for page in self._client.get_paginator("list_objects_v2").paginate(**arguments):
            for item in page.get("Contents", ()):
                yield item["Key"][len(prefix) :]
                if left is not None:
                    left -= 1
                    if left == 0:
                        return


class FileStore:
    """A folder of this machine (``file:///…`` or a plain path), in which the etag is the content's MD5, as in S3."""

    def read(self, uri: str) -> bytes:
        return _local(uri).read_bytes()

    def etag(self, uri: str) -> str | None:
        path = _local(uri)
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else None

    def list_names(self, uri: str, after: str = "", limit: int | None = None) -> Iterator[str]:
        folder = _local(uri)
        names = sorted(p.name for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
        yield from [name for name in names if name > after][:limit]

    def files(self, uri: str) -> Iterator[tuple[str, int]]:
        folder = _local(uri)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.stat().st_size

    def size(self, uri: str) -> int | None:
        path = _local(uri)
        return path.stat().st_size if path.is_file() else None


def store_for(uri: str, path_style: bool = True) -> ObjectStore:
    """The store that a table's or a file's URI lies in."""
    scheme = urlparse(uri).scheme
    return S3Store(path_style) if scheme in ("s3", "s3a", "s3n") else FileStore()


def s3_parts(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3a://bucket/key``; a key is taken as written, not URL-decoded."""
    scheme, _, rest = uri.partition("://")
    if scheme not in ("s3", "s3a", "s3n"):
        raise ValueError(f"{uri} is not an S3 address")
    bucket, _, key = rest.partition("/")
    return bucket, key


def as_spark_path(uri: str) -> str:
    """The URI as Hadoop knows it: S3A is the one connector in the image."""
    return re.sub(r"^s3n?://", "s3a://", uri)


def has_delta_log(store: ObjectStore, table: str) -> bool:
    """Whether there is a Delta table; the store's errors (credentials, bucket, connection) come through."""
    return next(iter(store.list_names(f"{table}/_delta_log", limit=1)), None) is not None


def version_of_transaction(store: ObjectStore, table: str, app_id: str, after: int | None) -> int | None:
    """The version above ``after`` (None: from 0) whose commit holds a ``txn`` action of the application, or None.

    Reads the log's JSON commits (Delta protocol, "Transaction Identifiers") by hand: Spark tells that a transaction
    is in the log, but only a job over the table's history tells in which version.
    """
    previous = f"{after:020d}.json" if after is not None else ""
    for name in store.list_names(f"{table}/_delta_log", after=previous):
        match = _COMMIT.fullmatch(name)
        if not match:
            continue
        for line in store.read(f"{table}/_delta_log/{name}").splitlines():
            if b'"txn"' in line and json.loads(line).get("txn", {}).get("appId") == app_id:
                return int(match.group(1))
    return None


def _local(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path)) if uri.startswith("file:") else Path(uri)
