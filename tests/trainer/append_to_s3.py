"""Appends to ``s3a://lake/points``, one commit a row, as the driver's ingestion does: append_to_s3.py NAME COMMITS GO.

Prints a line once Spark is up, waits for the file GO, and then writes as fast as it can.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from lakeloop_trainer import ingest
from lakeloop_trainer.run_spec import Ingest, Input
from lakeloop_trainer.session import Jvm, Session
from lakeloop_trainer.spark_conf import driver_conf


def main(name: str, commits: int, go: Path) -> None:
    jvm = Jvm(driver_conf(json.loads(os.environ["SPARK_PROPERTIES"]), {}, name, None))
    spark = Session(jvm).get()
    load = Ingest("json", "Append", {}, None, None, None)
    table = Input(0, "points", "s3a://lake/points", None, load)
    print("ready", flush=True)
    while not go.exists():
        time.sleep(0.01)
    for number in range(commits):
        rows = spark.range(1).selectExpr(f"'{name}' AS writer", f"{number}L AS number").coalesce(1)
        ingest._commit(spark, rows, table, load, f"{name}-{number}", "team-a/churn")
    spark.stop()
    jvm.stop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
