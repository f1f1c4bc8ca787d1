"""The program of the job minio-setup, apart from MinIO."""

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError
from charts.rendering import CHARTS
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TAG = 16


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup = load(CHARTS / "lakeloop-platform" / "files" / "minio_setup.py")


def decrypt(password: str, sealed: bytes) -> bytes:
    """As madmin-go's DecryptData with PBKDF2 and AES-256-GCM, read from the format's description."""
    salt, algorithm, nonce, stream = sealed[:32], sealed[32], sealed[33:41], sealed[41:]
    assert algorithm == 2
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 8192, 32))
    header = cipher.encrypt(nonce + b"\0\0\0\0", b"", b"")
    plain, number = b"", 0
    while stream:
        number += 1
        fragment, stream = stream[: 2**14 + TAG], stream[2**14 + TAG :]
        last = b"\0" if stream else b"\x80"
        plain += cipher.decrypt(nonce + number.to_bytes(4, "little"), fragment, last + header)
    return plain


@pytest.mark.parametrize("size", [0, 1, 40, 2**14 - 1, 2**14, 2**14 + 1, 3 * 2**14])
def test_encryption_is_read_by_the_other_side(size: int) -> None:
    """Of any size, at the edges of a fragment too."""
    payload = bytes(each % 251 for each in range(size))
    assert decrypt("secret", setup.encrypt("secret", payload, b"s" * 32, b"n" * 8)) == payload


def test_another_password_reads_nothing() -> None:
    """The root password is the key."""
    with pytest.raises(InvalidTag):
        decrypt("other", setup.encrypt("secret", b"x", b"s" * 32, b"n" * 8))


def test_policy_names_these_buckets_alone() -> None:
    """No wildcard over buckets, no right to make or delete one, or to change who may do what."""
    policy = setup.policy(["lake", "raw"])
    resources = {each for statement in policy["Statement"] for each in statement["Resource"]}
    assert resources == {f"arn:aws:s3:::{bucket}{rest}" for bucket in ("lake", "raw") for rest in ("", "/*")}
    actions = {each for statement in policy["Statement"] for each in statement["Action"]}
    assert not [each for each in actions if "*" in each or each in ("s3:CreateBucket", "s3:DeleteBucket")]
    assert json.dumps(policy)


class Store:
    """Buckets, and what head_bucket answers for one that is missing."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.made: list[str] = ["there"]

    def head_bucket(self, Bucket: str) -> None:
        if Bucket not in self.made:
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "HeadBucket")

    def create_bucket(self, Bucket: str) -> None:
        self.made.append(Bucket)


@pytest.mark.parametrize(("bucket", "made"), [("there", False), ("new", True)])
def test_buckets_are_made_once(bucket: str, made: bool) -> None:
    """One that is there stays as it is."""
    store: Any = Store("404")
    assert setup.ensure_bucket(store, bucket) is made
    assert store.made.count(bucket) == 1


def test_other_errors_are_told() -> None:
    """Wrong credentials are no reason to make a bucket."""
    store: Any = Store("403")
    with pytest.raises(ClientError):
        setup.ensure_bucket(store, "new")
