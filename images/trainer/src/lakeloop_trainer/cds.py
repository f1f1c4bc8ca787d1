"""Makes the class-data archive (AppCDS) of Spark's JVM, at image build: ``python -m lakeloop_trainer.cds FILE``.

A small run mostly loads and verifies classes. The archive has those of a run that writes and reads a Delta table,
already parsed, and is good for every JVM with the same class path: the driver's, and an executor's that is started
with the same jars in the same order.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from lakeloop_trainer.session import ARCHIVE_VARIABLE, Jvm, Session
from lakeloop_trainer.spark_conf import driver_conf

ROWS = 5


def exercise(folder: Path, extra_options: list[str]) -> None:
    """Starts a JVM and does what a small run does: JSON in, Delta commit, pinned read, and a try at S3A."""
    conf = driver_conf(
        {
            "spark.master": "local[1]",
            # of a store that nobody listens to: its classes are loaded, the error is expected
            "spark.hadoop.fs.s3a.endpoint": "http://127.0.0.1:9",
            "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.attempts.maximum": "1",
            "spark.hadoop.fs.s3a.retry.limit": "0",
        },
        {},
        "class-data-archive",
        None,
    )
    jvm = Jvm(conf, extra_options)
    try:
        spark = Session(jvm).get()
        raw, table = folder / "raw.json", str(folder / "table")
        raw.write_text("".join(json.dumps({"feature": i, "target": i % 2}) + "\n" for i in range(ROWS)))
        for _ in range(2):
            rows = spark.read.json(str(raw)).coalesce(1)
            rows.write.format("delta").mode("append").option("userMetadata", "{}").save(table)
        spark.read.format("delta").option("versionAsOf", 1).load(table).createOrReplaceTempView("t")
        read = spark.sql("SELECT feature, target, pmod(xxhash64(0L, feature), 10L) < 2L AS side FROM t").toArrow()
        if read.num_rows != 2 * ROWS:
            raise RuntimeError(f"read {read.num_rows} rows of {2 * ROWS}")
        try:
            spark.read.format("delta").load("s3a://nowhere/table")
        except Exception as error:  # what it takes to get here is the point
            print("S3A answered, as expected:", type(error).__name__)
        spark.stop()
    finally:
        jvm.stop(grace_seconds=180)  # the archive is written at exit


def main() -> None:
    """Writes the archive to the path given."""
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    os.environ[ARCHIVE_VARIABLE] = "/nonexistent"
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "none")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "none")
    with tempfile.TemporaryDirectory() as folder:
        exercise(Path(folder), [f"-XX:ArchiveClassesAtExit={target}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"])
    if not target.is_file():
        raise SystemExit(f"{target} was not written")
    print(f"{target}: {target.stat().st_size >> 20} MiB")
    os._exit(0)


if __name__ == "__main__":
    main()
