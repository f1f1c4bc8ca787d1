"""The quickstart's TrainingJob, with a place of its own in the object store and in the registry."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import yaml
from cluster import ROOT, Cluster, empty_folder

SAMPLES = ROOT / "samples/quickstart"
FOLDER = "lakeloop-bench/"


def spec(name: str, model: str) -> dict[str, Any]:
    """As the sample has it, but for places and names: a new table for each `name`."""
    sample = yaml.safe_load((SAMPLES / "2-train.yaml").read_text())["spec"]
    found: dict[str, Any] = deepcopy(sample)
    found["inputs"][0] |= {"uri": f"s3a://lake/{FOLDER}{name}/points"}
    found["inputs"][0]["ingest"] |= {"from": f"s3a://raw/{FOLDER}*.json"}
    found["register"] |= {"model": model}
    return found


def rows() -> str:
    """The sample's raw file: five rows of JSON."""
    first: Mapping[str, Any] = next(yaml.safe_load_all((SAMPLES / "1-data.yaml").read_text()))
    return str(first["data"]["points.json"])


@contextmanager
def raw_data(cluster: Cluster) -> Iterator[None]:
    """The raw file in the bucket `raw`; afterwards the file and all tables that were made of it are gone."""
    store = cluster.store()
    store.put_object(Bucket="raw", Key=f"{FOLDER}points.json", Body=rows().encode())
    try:
        yield
    finally:
        for bucket in ("raw", "lake"):
            empty_folder(store, bucket, FOLDER)
