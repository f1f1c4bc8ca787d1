"""What tests of searches share: dimensions of a run spec, trials as MLflow has them, a driver that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def dimension(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "min": None, "max": None, "scale": "Linear", "type": "Float", "values": None, **fields}


def trials_of(server: Any, run_id: str) -> list[dict[str, Any]]:
    """The nested runs, by their number."""
    experiment = server.call(f"runs/get?run_id={run_id}")["run"]["info"]["experiment_id"]
    body = {
        "experiment_ids": [experiment], "max_results": 1000, "filter": f"tags.`mlflow.parentRunId` = '{run_id}'",
    }  # fmt: skip
    found = []
    for run in server.call("runs/search", body).get("runs", []):
        data = {
            part: {e["key"]: e["value"] for e in run["data"].get(part, [])} for part in ("tags", "params", "metrics")
        }
        record = json.loads(data["tags"]["lakeloop.io/trial-record"])
        found.append({**data, "info": run["info"], "record": record, "number": int(data["tags"]["lakeloop.io/trial"])})
    return sorted(found, key=lambda each: each["number"])


def parent(server: Any, run_id: str) -> tuple[dict[str, str], Path]:
    """The run's parameters, and the folder of its artifacts."""
    run = server.call(f"runs/get?run_id={run_id}")["run"]
    params = {item["key"]: item["value"] for item in run["data"].get("params", [])}
    return params, Path(run["info"]["artifact_uri"].removeprefix("file://"))


@contextlib.contextmanager
def driver(spec: dict[str, Any], folder: Path, properties: dict[str, str], **environ: str) -> Iterator[Any]:
    """A driver that runs; killed at the end, if it still does."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(spec))
    (folder / "spark.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    environment = {
        **os.environ, "LAKELOOP_RUN_FILE": str(folder / "run.json"), "LAKELOOP_ATTEMPT": "1",
        "LAKELOOP_TERMINATION_LOG": str(folder / "termination"), "MLFLOW_TRACKING_URI": spec["tracking"]["uri"],
        "MLFLOW_RUN_ID": spec["tracking"]["runId"], **environ,
    }  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "lakeloop-driver")], env=environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
