"""Makes the buckets and the least-privilege users of the platform's MinIO. Safe to run again.

Runs in a Job with botocore and cryptography, which MLflow's image carries; MinIO's own client is not there. The
administrative calls and their encryption are MinIO's admin API v3 as github.com/minio/madmin-go speaks it.

Reads /etc/minio-setup/setup.json, {"buckets": ["lake"], "users": [{"name": "mlflow", "buckets": ["mlflow"]}]}, each
user's key from /etc/minio-users/<name>/, and MINIO_ENDPOINT, MINIO_REGION, MINIO_ROOT_USER and MINIO_ROOT_PASSWORD.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, HTTPClientError
from botocore.httpsession import URLLib3Session
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# madmin-go, encrypt.go: salt | algorithm | nonce | fragments of at most 16 KiB, each with a tag.
PBKDF2_AES_GCM = b"\x02"
PBKDF2_ROUNDS = 8192
FRAGMENT = 1 << 14


def encrypt(password: str, payload: bytes, salt: bytes, nonce: bytes) -> bytes:
    """`payload` as MinIO's admin API wants it: `salt` 32 bytes, `nonce` 8 bytes, both fresh and random."""
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", password.encode(), salt, PBKDF2_ROUNDS, 32))
    tag = cipher.encrypt(nonce + bytes(4), b"", b"")
    fragments = [payload[i : i + FRAGMENT] for i in range(0, len(payload), FRAGMENT)] or [b""]
    sealed = [
        cipher.encrypt(
            nonce + number.to_bytes(4, "little"),
            fragment,
            (b"\x80" if number == len(fragments) else b"\x00") + tag,
        )
        for number, fragment in enumerate(fragments, start=1)
    ]
    return salt + PBKDF2_AES_GCM + nonce + b"".join(sealed)


def policy(buckets: list[str]) -> dict[str, object]:
    """An IAM policy: read, write and list these buckets, and nothing else."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": [f"arn:aws:s3:::{bucket}" for bucket in buckets],
            },
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                ],
                "Resource": [f"arn:aws:s3:::{bucket}/*" for bucket in buckets],
            },
        ],
    }


class Admin:
    """MinIO's admin API. Its methods raise RuntimeError with MinIO's own words."""

    def __init__(self, endpoint: str, region: str, user: str, password: str) -> None:
        self._endpoint, self._region, self._password = endpoint, region, password
        self._credentials = Credentials(user, password)

    def _put(self, path: str, query: dict[str, str], body: bytes = b"") -> None:
        url = f"{self._endpoint}/minio/admin/v3/{path}?{urlencode(query)}"
        request = AWSRequest("PUT", url, data=body, headers={"X-Amz-Content-Sha256": hashlib.sha256(body).hexdigest()})
        SigV4Auth(self._credentials, "s3", self._region).add_auth(request)
        answer = URLLib3Session(timeout=30).send(request.prepare())
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: HTTP {answer.status_code}: {answer.text}")

    def ensure_user(self, name: str, access_key: str, secret_key: str, buckets: list[str]) -> None:
        """The user with that key may use these buckets, whatever it was allowed before."""
        self._put("add-canned-policy", {"name": f"lakeloop-{name}"}, json.dumps(policy(buckets)).encode())
        payload = json.dumps({"secretKey": secret_key, "status": "enabled"}).encode()
        body = encrypt(self._password, payload, os.urandom(32), os.urandom(8))
        self._put("add-user", {"accessKey": access_key}, body)
        self._put(
            "set-user-or-group-policy",
            {"policyName": f"lakeloop-{name}", "userOrGroup": access_key, "isGroup": "false"},
        )


def wait_ready(endpoint: str, seconds: float) -> None:
    """Returns once MinIO is ready; raises TimeoutError after `seconds`."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            answer = URLLib3Session(timeout=5).send(AWSRequest("GET", f"{endpoint}/minio/health/ready").prepare())
            if answer.status_code == 200:
                return
            last = f"HTTP {answer.status_code}"
        except HTTPClientError as error:
            last = str(error)
        time.sleep(1)
    raise TimeoutError(f"MinIO at {endpoint} was not ready after {seconds:.0f} s: {last}")


def ensure_bucket(s3: object, bucket: str) -> bool:
    """True when it was made, False when it was there."""
    try:
        s3.head_bucket(Bucket=bucket)  # type: ignore[attr-defined]
        return False
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
    s3.create_bucket(Bucket=bucket)  # type: ignore[attr-defined]
    return True


def main() -> None:
    endpoint, region = os.environ["MINIO_ENDPOINT"], os.environ["MINIO_REGION"]
    user, password = os.environ["MINIO_ROOT_USER"], os.environ["MINIO_ROOT_PASSWORD"]
    setup = json.loads(Path("/etc/minio-setup/setup.json").read_text())
    wait_ready(endpoint, 300)
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=user,
        aws_secret_access_key=password,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10, "mode": "standard"}),
    )
    for bucket in setup["buckets"]:
        print(f"bucket {bucket}: {'made' if ensure_bucket(s3, bucket) else 'there already'}")
    admin = Admin(endpoint, region, user, password)
    for one in setup["users"]:
        keys = Path("/etc/minio-users") / one["name"]
        access_key, secret_key = (
            (keys / name).read_text().strip() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        )
        admin.ensure_user(one["name"], access_key, secret_key, one["buckets"])
        print(f"user {one['name']}: may use {', '.join(one['buckets'])}")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, TimeoutError, ClientError, HTTPClientError) as error:
        sys.exit(f"minio-setup: {error}")
