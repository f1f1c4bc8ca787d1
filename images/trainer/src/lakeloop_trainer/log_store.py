"""A folder in the object store that logs are put into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from lakeloop_trainer.storage import s3_parts

_TEXT = "text/plain; charset=utf-8"


class StoreError(Exception):
    """The store refused or did not answer. The text holds no key of anyone's."""


class LogStore(Protocol):
    """Names are relative to the folder. Every method raises StoreError."""

    def put(self, name: str, content: bytes) -> None: ...

    def delete(self, name: str) -> None: ...

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """Name → bytes of the objects whose names begin so."""


class S3LogStore:
    """S3 by boto3: credentials, region, endpoint and CA come from the standard AWS variables."""

    def __init__(self, uri: str, path_style: bool) -> None:
        self._bucket, key = s3_parts(uri)
        self._prefix = f"{key.strip('/')}/" if key.strip("/") else ""
        self._path_style = path_style
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            import boto3  # half a second: not before there is something to upload
            from botocore.config import Config

            self._made = boto3.client(
                "s3",
                config=Config(
                    s3={"addressing_style": "path" if self._path_style else "auto"},
                    # whoever calls tries again, and must hear of a SIGTERM meanwhile
                    retries={"mode": "standard", "total_max_attempts": 1},
                    connect_timeout=3,
                    read_timeout=10,
                    max_pool_connections=1,
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        return self._made

    def put(self, name: str, content: bytes) -> None:
        kind = "application/json" if name.endswith(".json") else _TEXT if name.endswith(".log") else None
        more = {"ContentType": kind} if kind else {}
        self._call("put_object", name, Body=content, **more)

    def delete(self, name: str) -> None:
        self._call("delete_object", name)

    def sizes(self, prefix: str) -> Mapping[str, int]:
        found: dict[str, int] = {}
        more: dict[str, Any] = {}
        while True:
            page = self._raised("list_objects_v2", Bucket=self._bucket, Prefix=self._prefix + prefix, **more)
            found |= {each["Key"][len(self._prefix) :]: each["Size"] for each in page.get("Contents", ())}
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _call(self, operation: str, name: str, **arguments: Any) -> None:
        self._raised(operation, Bucket=self._bucket, Key=self._prefix + name, **arguments)

    def _raised(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, operation)(**arguments)
        except Exception as error:  # botocore's, urllib3's, and those of a value that fits into no request
            response = getattr(error, "response", None)
            code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
            # not its text, which may quote a header
            raise StoreError(f"{operation} failed: {code or type(error).__name__}") from None
