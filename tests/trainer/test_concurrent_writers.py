"""Writers that do not know of each other, on one table: no commit is lost."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trainer.s3 import s3_stub, use_store

pytestmark = pytest.mark.spark
COMMITS = 10


@dataclass
class Disturbed:
    """A store of one test, in which something else happens just before a put."""

    bucket: str
    objects: dict[str, bytes]
    before_put: Callable[[Any, str], bool] = lambda _handler, _key: False
    """Of the request's handler and the key; True where it has answered the request itself."""


@pytest.fixture
def disturbed(spark: Any, request: pytest.FixtureRequest) -> Iterator[Disturbed]:
    server, endpoint = s3_stub().serve({})
    handler: Any = server.RequestHandlerClass
    # S3A keeps its client of a bucket
    found = Disturbed(hashlib.sha256(request.node.name.encode()).hexdigest()[:16], handler.objects)
    plain = handler.do_PUT

    def put(self: Any) -> None:
        if not found.before_put(self, self._where()[1]):
            plain(self)

    handler.do_PUT = put
    use_store(spark, found.bucket, endpoint)
    yield found
    server.shutdown()


def test_a_commit_of_somebody_else_is_not_put_over(spark: Any, disturbed: Disturbed) -> None:
    """Between looking for the commit's file and putting it, another writer commits that version."""
    add = {"path": "other.parquet", "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": True}
    info = {"timestamp": 0, "operation": "WRITE", "operationParameters": {}, "isBlindAppend": True}
    theirs = b"".join(json.dumps(each).encode() + b"\n" for each in ({"commitInfo": info}, {"add": add}))
    waiting = {"t/_delta_log/00000000000000000001.json": theirs}

    def commit(handler: Any, key: str) -> bool:
        if key in waiting:
            handler.objects[key] = waiting.pop(key)
        return False

    disturbed.before_put = commit
    rows = spark.range(1).coalesce(1)
    rows.write.format("delta").save(f"s3a://{disturbed.bucket}/t")
    rows.write.format("delta").mode("append").save(f"s3a://{disturbed.bucket}/t")
    assert disturbed.objects["t/_delta_log/00000000000000000001.json"] == theirs
    assert b'"add"' in disturbed.objects["t/_delta_log/00000000000000000002.json"]


def test_a_put_that_meets_another_one_is_tried_again(spark: Any, disturbed: Disturbed) -> None:
    """S3 answers 409 as long as it cannot say which of two puts is first."""
    answers = [409, 409]

    def conflict(handler: Any, key: str) -> bool:
        if not key.endswith("0.json") or not answers:
            return False
        handler._body()
        handler._error(answers.pop(), "ConditionalRequestConflict")
        return True

    disturbed.before_put = conflict
    spark.range(1).write.format("delta").save(f"s3a://{disturbed.bucket}/t")
    assert answers == []
    assert "t/_delta_log/00000000000000000000.json" in disturbed.objects


def test_a_put_whose_answer_was_lost_finds_itself(spark: Any, disturbed: Disturbed) -> None:
    """It did what it was to do: neither a conflict, after which the rows would be there twice, nor an error."""
    lost = ["t/_delta_log/00000000000000000000.json"]

    def cut(handler: Any, key: str) -> bool:
        if key not in lost:
            return False
        lost.remove(key)
        handler.objects[key] = handler._body()
        handler._error(503, "SlowDown")
        return True

    disturbed.before_put = cut
    spark.range(1).coalesce(1).write.format("delta").save(f"s3a://{disturbed.bucket}/t")
    assert lost == []
    assert [key for key in disturbed.objects if key.startswith("t/_delta_log/0") and key.endswith(".json")] == [
        "t/_delta_log/00000000000000000000.json"
    ]


def test_two_drivers_lose_no_commit_on_minio(minio: Any, tmp_path: Path) -> None:
    """Two real drivers append to one table at once, from its creation on."""
    go = tmp_path / "go"
    properties = {"spark.master": "local[1]", "spark.driver.memory": "512m", **minio.spark_properties}
    environment = {**os.environ, **minio.environment, "SPARK_PROPERTIES": json.dumps(properties)}
    command = [sys.executable, str(Path(__file__).with_name("append_to_s3.py"))]
    writers = {
        name: subprocess.Popen(
            [*command, name, str(COMMITS), str(go)],
            env=environment, stdout=subprocess.PIPE, stderr=(tmp_path / f"{name}.log").open("w"), text=True,
        )
        for name in ("one", "other")
    }  # fmt: skip
    for name, writer in writers.items():
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n", (tmp_path / f"{name}.log").read_text()[-3000:]
    go.touch()
    for name, writer in writers.items():
        assert writer.wait(300) == 0, (tmp_path / f"{name}.log").read_text()[-3000:]

    store = minio.client()
    listed = store.list_objects_v2(Bucket="lake", Prefix="points/_delta_log/")["Contents"]
    commits = sorted(each["Key"] for each in listed if each["Key"].endswith(".json"))
    assert len(commits) == 2 * COMMITS
    actions = [
        json.loads(line)
        for key in commits
        for line in store.get_object(Bucket="lake", Key=key)["Body"].read().splitlines()
    ]
    wanted = sorted(f"{name}-{number}" for name in writers for number in range(COMMITS))
    assert sorted(each["txn"]["appId"] for each in actions if "txn" in each) == wanted
    assert len([each for each in actions if "add" in each]) == 2 * COMMITS
