"""What an S3 store's answers mean. The calls themselves are tested against a real store, end to end."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.stub import Stubber

from lakeloop.adapters.object_store import S3Store, S3Stores, bucket_and_key, classified
from lakeloop.adapters.object_store_protocol import (
    BucketNotFound,
    CredentialsRefused,
    StorageAccess,
    StorageError,
    StorageFull,
    StorageUnavailable,
)

ACCESS = StorageAccess("http://minio:9000", "us-east-1", True, "me", "hunter2")
URI = "s3a://lake/a/b.json"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3a://lake/a/b", ("lake", "a/b")),
        ("s3://lake/a/b", ("lake", "a/b")),
        ("s3a://lake/", ("lake", "")),
        ("s3a://raw/what?/[a]#1.json", ("raw", "what?/[a]#1.json")),
        ("s3a://lake/lake/x", ("lake", "lake/x")),
        ("s3a://s3a/x", ("s3a", "x")),
    ],
)
def test_bucket_and_key(uri: str, expected: tuple[str, str]) -> None:
    assert bucket_and_key(uri) == expected


@pytest.mark.parametrize("uri", ["/lake/a", "https://lake/a", "s3a:///a"])
def test_what_is_no_uri(uri: str) -> None:
    with pytest.raises(ValueError, match="s3a://"):
        bucket_and_key(uri)


CODES: dict[str, type[StorageError]] = {
    "NoSuchBucket": BucketNotFound,
    "InvalidAccessKeyId": CredentialsRefused,
    "SignatureDoesNotMatch": CredentialsRefused,
    "AccessDenied": CredentialsRefused,
    "ExpiredToken": CredentialsRefused,
    "XMinioStorageFull": StorageFull,
    "XMinioAdminBucketQuotaExceeded": StorageFull,
    "SlowDown": StorageUnavailable,
    "InternalError": StorageUnavailable,
    "XMinioServerNotInitialized": StorageUnavailable,
}


@pytest.mark.parametrize("code", CODES)
def test_classified(code: str) -> None:
    found = classified(ClientError({"Error": {"Code": code}}, "GetObject"), URI)
    assert type(found) is CODES[code]
    assert "lake" in found.message


@pytest.fixture
def store() -> tuple[S3Store, Stubber]:
    made = S3Stores().connect(ACCESS)
    assert isinstance(made, S3Store)
    stubber = Stubber(made._client)
    stubber.activate()
    return made, stubber


async def test_an_object_that_is_not_there(store: tuple[S3Store, Stubber]) -> None:
    store[1].add_client_error("get_object", "NoSuchKey", http_status_code=404)
    assert await store[0].read(URI) is None


async def test_an_object_that_is_there_already(store: tuple[S3Store, Stubber]) -> None:
    expected = {"Bucket": "lake", "Key": "a/b.json", "Body": b"x", "IfNoneMatch": "*"}
    store[1].add_client_error("put_object", "PreconditionFailed", http_status_code=412, expected_params=expected)
    store[1].add_response("put_object", {}, expected)
    assert await store[0].write_if_absent(URI, b"x") is False
    assert await store[0].write_if_absent(URI, b"x") is True


async def test_an_object_that_would_fill_the_memory(store: tuple[S3Store, Stubber]) -> None:
    store[1].add_response("get_object", {"ContentLength": 10**12})
    with pytest.raises(StorageUnavailable, match=r"s3a://lake/a/b\.json has 1000000000000 bytes"):
        await store[0].read(URI)


async def test_a_missing_bucket(store: tuple[S3Store, Stubber]) -> None:
    store[1].add_client_error("list_objects_v2", "NoSuchBucket", http_status_code=404)
    with pytest.raises(BucketNotFound, match="there is no bucket 'lake'"):
        await store[0].list("s3a://lake/a/")


async def test_nobody_there() -> None:
    access = StorageAccess("http://127.0.0.1:9", "us-east-1", True, "me", "hunter2")
    with pytest.raises(StorageUnavailable, match=r"http://127\.0\.0\.1:9 does not answer") as down:
        await S3Stores().connect(access).read(URI)
    assert isinstance(down.value.__cause__, EndpointConnectionError)


@pytest.mark.parametrize(
    "access",
    [
        pytest.param(StorageAccess("http://a_b:9000", "us-east-1", True, "me", "hunter2"), id="address"),
        pytest.param(StorageAccess("http://127.0.0.1:9", "us-east-1", True, "ключ", "hunter2"), id="key"),
        pytest.param(
            StorageAccess("http://127.0.0.1:9", "us-east-1", True, "me", "hunter2", "hunter3\nx"), id="session token"
        ),
    ],
)
async def test_what_cannot_be_sent_is_an_error_of_the_store(access: StorageAccess) -> None:
    """Not one of the operator: that would be tried again without a word to the user."""
    with pytest.raises(StorageUnavailable, match=f"^{access.endpoint} ") as caught:
        await S3Stores().connect(access).read(URI)
    assert "hunter" not in str(caught.value)


def test_keys_are_not_shown() -> None:
    assert "hunter2" not in repr(ACCESS)


def test_clients_are_kept_for_the_same_credentials_only() -> None:
    stores = S3Stores()
    other = StorageAccess("http://minio:9000", "us-east-1", True, "me", "another")
    assert stores.connect(ACCESS) is stores.connect(ACCESS)
    assert stores.connect(other) is not stores.connect(ACCESS)


async def test_a_bounded_list_is_one_request(store: tuple[S3Store, Stubber]) -> None:
    """More than one would be an error of the stubber's: it has one answer."""
    entry = {"Key": "a/1", "ETag": '"e"', "Size": 1, "LastModified": datetime(2026, 11, 24, tzinfo=UTC)}
    expected = {"Bucket": "lake", "Prefix": "a/", "StartAfter": "a/0", "MaxKeys": 2}
    contents = [entry, {**entry, "Key": "a/2"}]
    answer = {"Contents": contents, "IsTruncated": True, "NextContinuationToken": "more"}
    store[1].add_response("list_objects_v2", answer, expected)
    found = await store[0].list("s3a://lake/a/", start_after="s3a://lake/a/0", limit=2)
    assert [each.uri for each in found] == ["s3a://lake/a/1", "s3a://lake/a/2"]


def test_clients_share_what_they_know_of_s3_and_no_keys() -> None:
    stores = S3Stores()
    keys = [f"key{number}" for number in range(20)]
    clients = [stores.connect(replace(ACCESS, access_key=key)) for key in keys]
    made = [each._client for each in clients if isinstance(each, S3Store)]
    assert [each._request_signer._credentials.access_key for each in made] == keys  # type: ignore[attr-defined]
