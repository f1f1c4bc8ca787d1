"""What is read of a wide table: the columns and the files that the run needs, by the executed plan and by the bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer import dataset, expectations
from lakeloop_trainer.run_spec import Dataset, Expectation, Input, Split
from trainer.s3 import s3_stub, use_store

pytestmark = pytest.mark.spark
COLUMNS, FILES, ROWS = 200, 4, 2000


@dataclass
class Counted:
    """A store that counts what it serves."""

    objects: dict[str, bytes]
    served: Counter[str]

    def data_files(self) -> dict[str, float]:
        """Of each data file that was asked for: the share of its bytes that was served."""
        return {key: n / len(self.objects[key]) for key, n in self.served.items() if key.endswith(".parquet")}


@pytest.fixture(scope="module")
def store(spark: Any) -> Iterator[Counted]:
    """With the table `s3a://counted/wide`: 200 columns of numbers that do not compress, four files by `id`."""
    stub = s3_stub()
    server, endpoint = stub.serve({})
    handler: Any = server.RequestHandlerClass
    served: Counter[str] = Counter()
    plain = handler._answer

    def answer(self: Any, status: int, body: bytes = b"", **more: Any) -> None:
        if self.command == "GET" and "checkpoint" not in self.path:
            served[self._where()[1]] += len(body)
        plain(self, status, body, **more)

    handler._answer = answer
    use_store(spark, "counted", endpoint)
    numbers = [f"rand({seed}) AS c{seed}" for seed in range(COLUMNS - 2)]
    # one file of each partition, which are exactly of that size: repartitionByRange guesses its limits from a sample
    rows = spark.range(0, FILES * ROWS, 1, FILES).selectExpr("id", "id % 2 AS target", *numbers)
    rows.write.format("delta").save("s3a://counted/wide")
    yield Counted(handler.objects, served)
    server.shutdown()


def read(spark: Any, store: Counted, wanted: Dataset, rules: list[Expectation] | None = None) -> tuple[Any, list[str]]:
    """Reads as a run does; gives the rows and the descriptions of the plans that were executed over the data."""
    item = Input(0, "wide", "s3a://counted/wide", 0, None)
    dataset.register_views(spark, [item], {"wide": 0})
    status = spark._jsparkSession.sharedState().statusStore()
    before = status.executionsCount()
    store.served.clear()
    found = dataset.read(
        spark, wanted, [item], 1 << 30, check=lambda frame: expectations.check(spark, frame, rules or [])
    )
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    executions = status.executionsList()
    plans = [executions.apply(index).physicalPlanDescription() for index in range(before, executions.size())]
    # Delta reads its log by plans of its own
    return found, [plan for plan in plans if "DeltaFileIndex" in plan or "TahoeLogFileIndex" in plan]


def scanned(plan: str) -> set[str]:
    """The columns that the plan's scans read."""
    return {
        column.partition(":")[0]
        for each in re.findall(r"ReadSchema: struct<(.*?)>", plan)
        for column in each.split(",")
    }


def test_only_the_columns_of_the_run_are_read(spark: Any, store: Counted) -> None:
    wanted = Dataset(None, ("c1", "c2"), "target", Split(0.2, 0, ("id",)))
    rows, plans = read(spark, store, wanted)
    assert len(rows.train_target) + len(rows.test_target) == FILES * ROWS
    assert [scanned(plan) for plan in plans] == [{"id", "target", "c1", "c2"}]
    hashed = re.findall(r"xxhash64\((.*?)\)", plans[0])
    assert hashed
    assert not [each for each in hashed if "c1" in each or "target" in each]  # the keys alone
    shares = store.data_files()
    print(shares)
    assert len(shares) == FILES
    assert max(shares.values()) < 0.06  # 4 of 200 columns, and the footer, which tells of all 200


def test_only_the_files_that_a_filter_needs_are_read(spark: Any, store: Counted) -> None:
    query = "SELECT id, c1, target FROM (SELECT * FROM wide) WHERE id >= 2000 AND id < 2500 AND c2 IS NOT NULL"
    rows, plans = read(spark, store, Dataset(query, None, "target", Split(0.2, 0, ("id",))))
    assert len(rows.train_target) + len(rows.test_target) == 500
    (plan,) = plans
    assert scanned(plan) == {"id", "target", "c1", "c2"}
    pushed = re.findall(r"PushedFilters: \[(.*?)\]\n", plan)
    assert any("LessThan(id,2500)" in each and "IsNotNull(c2)" in each for each in pushed), plan
    shares = store.data_files()
    print(shares)
    assert len(shares) == 1  # the others by the statistics in the log: not even their footers
    assert max(shares.values()) < 0.08


def test_expectations_and_a_split_by_time_read_their_columns_alone(spark: Any, store: Counted) -> None:
    rules = [Expectation("known", "c9 IS NOT NULL AND c9 < 1", True)]
    wanted = Dataset(None, ("c1",), "target", Split(0.25, by="Time", column="id"))
    rows, plans = read(spark, store, wanted, rules)
    assert len(rows.test_target) == ROWS
    assert scanned(plans[0]) == {"c9"}
    assert {frozenset(scanned(plan)) for plan in plans[1:-1]} == {frozenset({"id", "target"})}
    assert scanned(plans[-1]) == {"id", "target", "c1"}


def test_what_ingestion_writes_is_compressed_by_snappy(spark: Any, tmp_path: Path, write_manifest: Any) -> None:
    import pyarrow.parquet as pq
    from lakeloop_trainer import ingest
    from lakeloop_trainer.run_spec import Ingest
    from lakeloop_trainer.storage import FileStore

    raw = tmp_path / "raw.json"
    for number, (mode, keys) in enumerate({"Append": (), "Overwrite": (), "Merge": ("id",)}.items()):
        raw.write_text(f'{{"id": {number}, "name": "x"}}\n')
        uid = f"run-{number}"
        wanted = Ingest("json", mode, {}, number - 1 if number else None, write_manifest(uid, [raw]), None, keys)
        item = Input(0, "points", str(tmp_path / "points"), None, wanted)
        manifest = ingest.prepare(item, uid, FileStore()).manifest
        assert manifest is not None
        assert ingest.load(spark, item, manifest, uid, "team-a/churn", FileStore()) == number
    files = list((tmp_path / "points").glob("*.parquet"))
    assert len(files) == 3
    for file in files:
        group = pq.ParquetFile(file).metadata.row_group(0)
        assert {group.column(index).compression for index in range(group.num_columns)} == {"SNAPPY"}
