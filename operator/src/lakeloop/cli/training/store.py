"""The object store, as far as the command line reads it. Every method raises CliError."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from lakeloop.cli.errors import CliError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """Where the store is and how it is opened. The keys are not shown."""

    endpoint: str | None
    region: str
    path_style: bool
    keys: Mapping[str, str] | None = field(repr=False)
    """`AWS_ACCESS_KEY_ID` and so on; None: whatever boto finds of the user's own."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object."""

    uri: str
    size: int
    etag: str


class Store:
    """One store, with one set of credentials."""

    def __init__(self, access: StoreAccess) -> None:
        # Imported when a store is opened: most commands need none, and boto3 takes half of a second.
        import boto3
        from botocore.config import Config

        keys = access.keys or {}
        self._where = access.endpoint or "S3"
        self._client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=access.endpoint,
            region_name=access.region,
            aws_access_key_id=keys.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=keys.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=keys.get("AWS_SESSION_TOKEN"),
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                retries={"total_max_attempts": 3, "mode": "standard"},
                s3={"addressing_style": "path" if access.path_style else "virtual"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def _asked(self, uri: str, call: Callable[[], T]) -> T | None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call()
        except ClientError as error:
            said: Any = error.response.get("Error", {})
            if said.get("Code") in ("NoSuchKey", "NoSuchBucket", "404", "NotFound"):
                return None
            raise CliError(f"the store refuses {uri}: {said.get('Code')}: {said.get('Message', '')}") from error
        except BotoCoreError as error:
            raise CliError(
                f"the store at {self._where} does not answer: {error}; --storage-endpoint says where it is"
            ) from error

    def read(self, uri: str) -> bytes | None:
        """An object's content; None where there is none."""
        from lakeloop.adapters.object_store import bucket_and_key

        bucket, key = bucket_and_key(uri)
        return self._asked(uri, lambda: self._client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def list(self, uri: str) -> Sequence[Stored]:
        """The objects below a folder, by name."""
        from lakeloop.adapters.object_store import bucket_and_key

        bucket, prefix = bucket_and_key(f"{uri.rstrip('/')}/")

        def pages() -> list[Stored]:
            found = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [
                Stored(f"s3a://{bucket}/{each['Key']}", each["Size"], each.get("ETag", "").strip('"'))
                for page in found
                for each in page.get("Contents") or ()
            ]

        return self._asked(uri, pages) or []
