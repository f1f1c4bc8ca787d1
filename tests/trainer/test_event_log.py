"""Spark's event log of a whole run, mirrored by the sidecar, and read again by Spark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer.log_upload import Uploader, parts

pytestmark = pytest.mark.spark
ROWS = "".join(json.dumps({"feature": n, "target": n % 2}) + "\n" for n in range(1, 6))


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def properties(log_folder: Path) -> dict[str, str]:
    """What the operator writes for a job with no executors whose logs are kept."""
    return {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{log_folder}/events",
        "spark.eventLog.rolling.enabled": "true",
        "spark.eventLog.rolling.maxFileSize": "10m",
        "spark.eventLog.compress": "true",
    }


class FolderStore:
    """Implements LogStore in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def sizes(self, prefix: str) -> dict[str, int]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        names = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
        return {name: size for name, size in names.items() if name.startswith(prefix)}


def test_output_and_event_log_of_a_run(
    drive: Any, run_document: Any, write_manifest: Any, mlflow_server: Any, tmp_path: Path, log_folder: Path
) -> None:
    raw = tmp_path / "points.json"
    raw.write_text(ROWS)
    ingest = {"format": "json", "mode": "Append", "options": {}, "baseVersion": None,
              "manifest": write_manifest("run-uid", [raw]), "committedVersion": None}  # fmt: skip
    spec = run_document(
        tracking={"uri": mlflow_server.uri, "experiment": "logs", "runId": mlflow_server.new_run("logs")},
        inputs=[{"name": "points", "uri": str(tmp_path / "points"), "version": None, "ingest": ingest}],
    )
    environ = {"LAKELOOP_LOG_FOLDER": str(log_folder), "LAKELOOP_LOG_TAIL_BYTES": "10485760"}

    attempt = drive(spec, **environ)

    assert attempt.exit_code == 0, attempt.log
    store = FolderStore(tmp_path / "store")
    uploader = Uploader(*parts({**environ, "LAKELOOP_LOG_NAME": "driver-1"}, store))
    uploader.step()
    assert uploader.finished
    assert (store.folder / "driver-1.000001.log").read_text() == attempt.log
    assert "training rows" in attempt.log
    marker = json.loads((store.folder / "driver-1.json").read_text())
    assert (marker["complete"], marker["eventLog"]) == (True, True)
    (application,) = (store.folder / "events").iterdir()
    names = sorted(path.name.split("_")[0] for path in application.iterdir())
    assert names == ["appstatus", "events"]
    assert not any(path.name.endswith(".inprogress") for path in application.iterdir())
    events = [path for path in application.iterdir() if path.name.startswith("events_1_")]
    print(f"event log: {events[0].stat().st_size} bytes, {events[0].name}")
    assert events[0].name.endswith(".zstd")
    import pyarrow as pa

    text = pa.CompressedInputStream(pa.OSFile(str(events[0])), "zstd").read().decode()
    kinds = [json.loads(line)["Event"] for line in text.splitlines()]
    assert kinds[0] == "SparkListenerLogStart"
    assert "SparkListenerTaskEnd" in kinds
    assert kinds[-1] == "SparkListenerApplicationEnd"
    assert "AWS_SECRET" not in text
