"""MLflow projects, in real runs of the program: out of a folder, out of an archive, out of git."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.spark

MLPROJECT = """
name: points
python_env: python_env.yaml
entry_points:
  main:
    parameters:
      C: float
      rounds: {type: int, default: 3}
      note: {type: string, default: plain}
    command: "python train.py --C {C} --rounds {rounds} --note {note}"
  hang:
    command: "python hang.py"
  fail:
    command: "python -c 'import sys; sys.exit(7)'"
"""
ENVIRONMENT = "python: '3.11'\nbuild_dependencies: [pip]\ndependencies: [mlflow, scikit-learn, -r more.txt]\n"
TRAIN = """
import argparse
import os

import mlflow
import mlflow.sklearn
from sklearn.linear_model import LogisticRegression

from lakeloop_run import inputs, objective, parameters, spark, test_rows, train_rows

parser = argparse.ArgumentParser()
parser.add_argument("--C", type=float)
parser.add_argument("--rounds", type=int)
parser.add_argument("--note")
args, rest = parser.parse_known_args()
with mlflow.start_run() as run:
    assert run.info.run_id == os.environ["RUN_ID"]
    assert spark.table("points").count() == 40
    assert inputs["points"].version == 0
    assert parameters["C"] == 0.5, parameters
    assert objective == {"metric": "accuracy", "goal": "Maximize"}
    frame, held_out = train_rows().toPandas(), test_rows().toPandas()
    assert len(frame) + len(held_out) == 40 and len(held_out) > 0
    model = LogisticRegression(C=args.C).fit(frame[["feature"]], frame["target"])
    mlflow.log_params({"C": args.C, "rounds": args.rounds})
    mlflow.log_metric("accuracy", model.score(frame[["feature"]], frame["target"]))
    signature = mlflow.models.infer_signature(frame[["feature"]], model.predict(frame[["feature"]]))
    mlflow.sklearn.log_model(model, name="model", signature=signature, pip_requirements=["scikit-learn"])
print("note:", args.note, rest)
"""
HANG = """
import os, subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(os.environ["PIDS"], "w").write(f"{os.getpid()} {below.pid}\\n")
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project."""
    found = tmp_path / "project"
    found.mkdir()
    files = {"MLproject": MLPROJECT, "python_env.yaml": ENVIRONMENT, "more.txt": "numpy>=2  # any\n# pandas\n",
             "train.py": TRAIN, "hang.py": HANG}  # fmt: skip
    for name, text in files.items():
        (found / name).write_text(text)
    return found


@pytest.fixture
def project_spec(run_document: Any, mlflow_server: Any, spark: Any, tmp_path: Path) -> Any:
    """A run spec with a project, over a table of forty rows."""
    table = tmp_path / "points"
    rows = spark.range(40).selectExpr("id AS feature", "CAST(id > 20 AS INT) AS target")
    rows.write.format("delta").mode("ignore").save(str(table))

    def build(project: dict[str, Any], **changes: Any) -> dict[str, Any]:
        run_id = mlflow_server.new_run(f"project-{tmp_path.name}-{time.monotonic_ns()}")
        return run_document(**{
            "tracking": {"uri": mlflow_server.uri, "experiment": "p", "runId": run_id}, "estimator": None,
            "project": {"version": None, "entryPoint": "main", "parameters": {}, **project},
            "dataset": {"query": None, "features": ["feature"], "target": "target",
                        "split": {"testFraction": 0.25, "seed": 1}},
            "objective": {"metric": "accuracy", "goal": "Maximize"}, **changes,
        })  # fmt: skip

    return build


def test_a_project_out_of_a_folder(drive: Any, project_spec: Any, mlflow_server: Any, folder: Path) -> None:
    spec = project_spec({"uri": str(folder), "parameters": {"C": 0.5, "note": "it's $HOME; ls", "extra": "x y"}})
    run_id = spec["tracking"]["runId"]

    done = drive(spec, LAKELOOP_WORK_DIR=str(folder.parent / "work"), RUN_ID=run_id)

    print(done.log)
    assert done.exit_code == 0, done.log
    assert "note: it's $HOME; ls ['--extra', 'x y']" in done.log
    assert done.result["objective"]["metric"] == "accuracy"
    assert done.result["metrics"].keys() == {"accuracy"}
    assert done.result["model"]["signature"] is True
    run = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]
    params = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert {"C": "0.5", "rounds": "3", "note": "it's $HOME; ls", "extra": "x y"}.items() <= params.items()
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    assert tags["mlflow.project.entryPoint"] == "main"
    assert tags["lakeloop.io/code-files-digest"].startswith("sha256:")
    artifacts = Path(run["info"]["artifact_uri"].removeprefix("file://"))
    assert (artifacts / "code/MLproject").is_file()


def test_what_is_expected_of_the_data_is_checked_before_the_project_runs(
    drive: Any, project_spec: Any, folder: Path
) -> None:
    expected = [{"name": "small", "expression": "feature < 30", "onViolation": "Fail"}]
    spec = project_spec({"uri": str(folder), "parameters": {"C": 0.5}})
    spec["dataset"]["expectations"] = expected

    done = drive(spec, LAKELOOP_WORK_DIR=str(folder.parent / "work"), RUN_ID=spec["tracking"]["runId"])

    assert done.result["failure"]["reason"] == "ExpectationViolated", done.log
    assert done.result["expectations"] == [{"name": "small", "violations": 10, "rows": 40}]
    assert "note:" not in done.log


def test_an_archive_after_an_ingestion(
    drive: Any, project_spec: Any, write_manifest: Any, mlflow_server: Any, folder: Path, tmp_path: Path
) -> None:
    """The driver loads the rows, its JVM goes, and the project's own reads the version that was made."""
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.iterdir():
            packed.write(path, f"points-main/{path.name}")  # as a forge packs a repository
    raw = tmp_path / "points.json"
    raw.write_text("".join(json.dumps({"feature": i, "target": int(i > 20)}) + "\n" for i in range(40)))
    ingest = {"format": "json", "mode": "Append", "options": {}, "baseVersion": None, "committedVersion": None,
              "manifest": write_manifest("run-uid", [raw])}  # fmt: skip
    inputs = [{"name": "points", "uri": str(tmp_path / "new"), "version": None, "ingest": ingest}]
    spec = project_spec({"uri": str(archive), "parameters": {"C": 0.5}}, inputs=inputs)

    done = drive(spec, LAKELOOP_WORK_DIR=str(tmp_path / "work"), RUN_ID=spec["tracking"]["runId"])

    assert done.exit_code == 0, done.log
    assert done.result["inputs"] == [{"name": "points", "version": 0}]


def test_what_is_wrong_is_named(drive: Any, project_spec: Any, folder: Path, tmp_path: Path) -> None:
    cases = {
        "exit code": ({"entryPoint": "fail"}, "ProjectFailed", "spec.project", "exit code 7"),
        "missing": ({}, "InvalidParameter", "spec.project.parameters.C", "is missing"),
        "no entry point": ({"entryPoint": "mian"}, "InvalidProject", "spec.project.entryPoint", "fail, hang, main"),
    }
    for number, (name, (project, reason, field, said)) in enumerate(cases.items(), start=1):
        done = drive(project_spec({"uri": str(folder), **project}), number, LAKELOOP_WORK_DIR=str(tmp_path / name))
        assert done.exit_code == 1, done.log
        failure = done.result["failure"]
        assert (failure["class"], failure["reason"], failure["field"]) == ("Application", reason, field), name
        assert said in failure["message"], failure["message"]


def test_sigterm_ends_the_project_and_what_it_started(
    project_spec: Any, folder: Path, tmp_path: Path, properties: dict[str, str]
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(project_spec({"uri": str(folder), "entryPoint": "hang"})))
    pids = tmp_path / "pids"
    driver = subprocess.Popen(
        [str(Path(sys.executable).parent / "lakeloop-driver")],
        env={**os.environ, "LAKELOOP_RUN_FILE": str(tmp_path / "run.json"), "PIDS": str(pids),
             "LAKELOOP_TERMINATION_LOG": str(tmp_path / "end"), "LAKELOOP_WORK_DIR": str(tmp_path / "work")},
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not pids.is_file() or not pids.read_text().endswith("\n"):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(150) == 143
    assert not (tmp_path / "end").exists()
    for pid in pids.read_text().split():
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
