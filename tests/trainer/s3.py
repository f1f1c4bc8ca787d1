"""The store in memory, for tests that count or disturb what Spark asks of S3."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def s3_stub() -> ModuleType:
    """The store in memory that the image's build uses."""
    spec = importlib.util.spec_from_file_location("s3_stub", ROOT / "images/trainer/cds/s3_stub.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def use_store(spark: Any, bucket: str, endpoint: str) -> None:
    """Has a session that is up read and write this one bucket there."""
    conf = spark.sparkContext._jsc.hadoopConfiguration()
    for name, value in {
        "endpoint": endpoint, "path.style.access": "true", "endpoint.region": "us-east-1",
        "access.key": "a", "secret.key": "b",
        "aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
    }.items():  # fmt: skip
        conf.set(f"fs.s3a.bucket.{bucket}.{name}", value)
