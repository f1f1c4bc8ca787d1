"""The samples of ingestion as a driver sees them: their files, queries, splits and expectations, without a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lakeloop_trainer import dataset, expectations, ingest
from lakeloop_trainer.run_spec import Dataset, Expectation, Ingest, Input, Split
from lakeloop_trainer.storage import FileStore

pytestmark = pytest.mark.spark
SAMPLE = Path(__file__).resolve().parents[2] / "samples/ingestion"
# file → what becomes of it: version, rows, rows tested on, violations
SEEN = {
    "2-append.yaml": (0, 32, 8, {"visitors-known": 0, "sold-positive": 0, "shop-busy": 12}),
    "3-merge.yaml": (1, 33, 9, {"visitors-known": 0, "sold-positive": 0, "shop-busy": 11}),
    "4-overwrite.yaml": (2, 16, 4, {"visitors-known": 0, "sold-positive": 0, "shop-busy": 6}),
    "5-violated.yaml": (0, 4, 0, {"visitors-known": 1, "sold-positive": 2, "shop-busy": 2}),
}


def test_the_ingestion_sample(spark: Any, tmp_path: Path, write_manifest: Any) -> None:
    (files, _) = yaml.safe_load_all((SAMPLE / "1-data.yaml").read_text())
    for name, content in files["data"].items():
        (tmp_path / name).write_text(content)
    found = {}
    for number, name in enumerate(SEEN):
        spec = yaml.safe_load((SAMPLE / name).read_text())["spec"]
        source, data = spec["inputs"][0], spec["dataset"]
        load, uid = source["ingest"], f"run-{number}"
        raw = sorted(tmp_path.glob(load["from"].rpartition("/")[2]))
        table = tmp_path / source["uri"].removeprefix("s3a://lake/")
        versions = len(list((table / "_delta_log").glob("*.json")))
        wanted = Ingest(
            load["format"], load["mode"], {}, versions - 1 if versions else None, write_manifest(uid, raw), None,
            tuple(load.get("keys", ())),
        )  # fmt: skip
        item = Input(0, source["name"], str(table), None, wanted)
        manifest = ingest.prepare(item, uid, FileStore()).manifest
        assert manifest is not None
        version = ingest.load(spark, item, manifest, uid, "lakeloop-demo/x", FileStore())
        dataset.register_views(spark, [item], {item.name: version})
        split = data["split"]
        rules = [Expectation(each["name"], each["expression"], True) for each in data["expectations"]]
        asked = Dataset(
            data["query"], None, data["target"], Split(split["testFraction"], by="Time", column=split["column"])
        )
        counted = expectations.check(spark, dataset.open_rows(spark, asked, [item]), rules)
        tested = 0
        if expectations.violated(counted[:2]) is None:
            rows = dataset.read(spark, asked, [item], 1 << 30)
            tested = len(rows.test_target)
            assert list(rows.train_features.columns) == ["visitors", "south"]
        found[name] = (version, counted[0].rows, tested, {each.name: each.violations for each in counted})
    assert found == SEEN
