"""Brings the model's files from the object store to the pod, hashing them on the way."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

from lakeloop_server.digest import digest_of, hash_folder
from lakeloop_server.errors import LoadError, Reason
from lakeloop_server.settings import Settings

_PARALLEL = 8
_CHUNK = 1024 * 1024
_REFUSED = {
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "401",
    "403",
}
_ABSENT = {"NoSuchBucket", "NoSuchKey", "404"}


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/some/prefix` (or `s3a://`) → bucket and prefix with one trailing slash (`""` for the root).

    Raises LoadError (ModelNotFound) for any other URI.
    """
    parsed = urlparse(uri)
    if parsed.scheme not in ("s3", "s3a") or not parsed.netloc:
        raise LoadError(Reason.MODEL_NOT_FOUND, f"LAKELOOP_MODEL_URI is {uri!r}: write s3://<bucket>/<path>")
    prefix = parsed.path.strip("/")
    return parsed.netloc, f"{prefix}/" if prefix else ""


def relative_path(key: str, prefix: str) -> str | None:
    """A key's path below the prefix; None for a folder marker. Raises LoadError for one that would leave the folder."""
    relative = key.removeprefix(prefix)
    if not relative or relative.endswith("/"):
        return None
    parts = relative.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in relative:
        raise LoadError(Reason.LOAD_FAILED, f"The model holds a file with an unusable name: {key!r}")
    return str(PurePosixPath(*parts))


def fetch(settings: Settings) -> tuple[Path, str]:
    """The model's folder on this machine, and its digest.

    Files that an earlier container of the same pod left are used again if they have the expected digest.
    Raises LoadError: ModelNotFound, CredentialsRefused, StorageUnavailable, DigestMismatch.
    """
    if settings.model_uri.startswith("file://"):
        folder = Path(unquote(urlparse(settings.model_uri).path))
        if not folder.is_dir():
            raise LoadError(Reason.MODEL_NOT_FOUND, f"There is no folder {settings.model_uri}")
        return folder, _verified(digest_of(hash_folder(folder)), settings)
    folder = settings.model_dir / "files"
    if settings.model_digest and folder.is_dir() and digest_of(hash_folder(folder)) == settings.model_digest:
        return folder, settings.model_digest
    if folder.exists():
        shutil.rmtree(folder)
    return folder, _verified(digest_of(_download(settings, folder)), settings)


def _verified(found: str, settings: Settings) -> str:
    if settings.model_digest and found != settings.model_digest:
        raise LoadError(
            Reason.DIGEST_MISMATCH,
            f"The files of {settings.model_name} version {settings.model_version} are not those that were recorded: "
            f"expected {settings.model_digest}, found {found}. Register the model again, or restore its files",
        )
    return found


def _client(settings: Settings) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        max_pool_connections=_PARALLEL,
        retries={"mode": "standard", "total_max_attempts": 5},
        connect_timeout=5,
        read_timeout=30,
        # The digest covers every byte, and not every store answers with the same checksums
        response_checksum_validation="when_required",
        request_checksum_calculation="when_required",
        s3={"addressing_style": settings.s3_addressing_style},
    )
    return boto3.client("s3", endpoint_url=settings.s3_endpoint or None, config=config)


def _download(settings: Settings, folder: Path) -> dict[str, str]:
    """Downloads every object below the URI; relative path → hex SHA-256."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

    bucket, prefix = parse_s3_uri(settings.model_uri)
    try:
        client = _client(settings)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        files = {path: key for key in keys if (path := relative_path(key, prefix)) is not None}
        if not files:
            raise LoadError(Reason.MODEL_NOT_FOUND, f"There is nothing at {settings.model_uri}")
        folder.mkdir(parents=True)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            hashes = pool.map(lambda path: _download_one(client, bucket, files[path], folder / path), files)
            return dict(zip(files, hashes, strict=True))
    except NoCredentialsError:
        raise LoadError(
            Reason.CREDENTIALS_REFUSED, "There are no storage credentials: check the Secret of spec.storage.secretRef"
        ) from None
    except ClientError as error:
        raise _classified(error.response, settings.model_uri) from None
    except (BotoCoreError, HTTPClientError) as error:
        kind = type(error).__name__
        raise LoadError(Reason.STORAGE_UNAVAILABLE, f"The object store did not answer ({kind})") from error
    except OSError as error:
        raise LoadError(Reason.LOAD_FAILED, f"Cannot write the model's files: {error.strerror}") from error


def _classified(response: Any, uri: str) -> LoadError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _ABSENT:
        return LoadError(Reason.MODEL_NOT_FOUND, f"There is nothing at {uri} ({code})")
    if code in _REFUSED or status in (401, 403):
        return LoadError(
            Reason.CREDENTIALS_REFUSED,
            f"The object store refuses to give {uri} ({code}): check the Secret of spec.storage.secretRef",
        )
    return LoadError(Reason.STORAGE_UNAVAILABLE, f"The object store answered {code or status} for {uri}")


def _download_one(client: Any, bucket: str, key: str, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    hashed = hashlib.sha256()
    body = client.get_object(Bucket=bucket, Key=key)["Body"]
    with target.open("wb") as file:
        for chunk in body.iter_chunks(_CHUNK):
            hashed.update(chunk)
            file.write(chunk)
    return hashed.hexdigest()
