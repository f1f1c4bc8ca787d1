"""Whole runs of the program: real Spark, real Delta, a real MLflow server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.spark

FIVE_ROWS = "".join(
    json.dumps({"feature": f, "target": t}) + "\n" for f, t in zip(range(1, 6), [0, 1, 0, 1, 0], strict=True)
)


def quickstart(document: Callable[..., dict[str, Any]], manifest: str, table: Path, server: Any, run_id: str) -> Any:
    ingest = {"format": "json", "mode": "Append", "options": {}, "baseVersion": None, "manifest": manifest,
              "committedVersion": None}  # fmt: skip
    return document(
        tracking={"uri": server.uri, "experiment": "quickstart", "runId": run_id},
        inputs=[{"name": "points", "uri": str(table), "version": None, "ingest": ingest}],
    )


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def test_quickstart_from_json_to_a_logged_model(
    drive: Any, run_document: Any, write_manifest: Any, mlflow_server: Any, tmp_path: Path
) -> None:
    from lakeloop_trainer.digest import model_digest

    raw = tmp_path / "points.json"
    raw.write_text(FIVE_ROWS)
    run_id = mlflow_server.new_run("quickstart")
    table = tmp_path / "points"
    spec = quickstart(run_document, write_manifest("run-uid", [raw]), table, mlflow_server, run_id)

    first = drive(spec)

    print(first.log)
    assert first.exit_code == 0, first.log
    assert first.result is not None
    assert len(first.message.encode()) <= 4096
    assert first.result["outcome"] == "Succeeded"
    assert (first.result["uid"], first.result["attempt"]) == ("run-uid", 1)
    assert first.result["inputs"] == [{"name": "points", "version": 0}]
    assert first.result["objective"]["metric"] == "roc_auc"
    model = first.result["model"]
    assert model["signature"] is True
    assert model["digest"] == model_digest(local(model["artifactUri"]))

    import mlflow.sklearn
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    served = mlflow.sklearn.load_model(str(local(model["artifactUri"])))
    frame = pd.DataFrame({"feature": [1, 2, 3, 4, 5]})
    by_hand = LogisticRegression(C=1).fit(frame, [0, 1, 0, 1, 0])
    assert served.predict_proba(frame).ravel().tolist() == pytest.approx(by_hand.predict_proba(frame).ravel().tolist())

    run = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]
    params = {item["key"]: item["value"] for item in run["data"]["params"]}
    assert params["steps.0.class"] == "sklearn.linear_model.LogisticRegression"
    assert params["0.C"] == "1"
    assert params["dataset.target"] == "target"
    metrics = {item["key"] for item in run["data"]["metrics"]}
    assert {"train_roc_auc", "train_accuracy", "roc_auc"} <= metrics
    assert run["info"]["status"] == "RUNNING"  # the operator ends it
    dataset = run["inputs"]["dataset_inputs"][0]
    assert dataset["dataset"]["name"] == "points"
    assert {t["key"]: t["value"] for t in dataset["tags"]}["lakeloop.io/version"] == "0"
    assert run["outputs"]["model_outputs"][0]["model_id"] == model["modelId"]
    artifacts = local(run["info"]["artifact_uri"])
    found = {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()}
    assert found >= {
        "lakeloop/run.json", "lakeloop/result.json", "code/pipeline.py", "plots/confusion_matrix.png", "plots/roc.png",
        "explanation/permutation_importance.csv", "explanation/permutation_importance.txt",
    }  # fmt: skip
    assert (artifacts / "plots/roc.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((artifacts / "lakeloop/result.json").read_text())["model"] == model
    requirements = (local(model["artifactUri"]) / "requirements.txt").read_text().split()
    assert {"mlflow==3.17.2", "scikit-learn==1.9.1"} <= set(requirements)
    logged = json.loads((local(model["artifactUri"]) / "input_example.json").read_text())
    assert logged["columns"] == ["feature"]

    # an operator that died after the commit starts a second attempt: the same version, no second load
    second = drive(spec, attempt=2)
    assert second.exit_code == 0, second.log
    assert second.result is not None
    assert second.result["inputs"] == [{"name": "points", "version": 0}]
    assert second.result["attempt"] == 2
    assert len(list((table / "_delta_log").glob("*.json"))) == 1


def test_breast_cancer_learns_what_there_is(
    drive: Any, run_document: Any, write_manifest: Any, mlflow_server: Any, tmp_path: Path
) -> None:
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame
    frame.columns = [name.replace(" ", "_") for name in frame.columns]
    raw = tmp_path / "tumours.json"
    frame.to_json(raw, orient="records", lines=True, double_precision=15)
    run_id = mlflow_server.new_run("breast-cancer")
    spec = quickstart(run_document, write_manifest("run-uid", [raw]), tmp_path / "tumours", mlflow_server, run_id)
    spec["dataset"] = {"query": None, "features": None, "target": "target",
                       "split": {"by": "Random", "testFraction": 0.25, "seed": 7, "keys": []}}  # fmt: skip
    spec["estimator"]["steps"].insert(0, {"class": "sklearn.preprocessing.StandardScaler"})
    spec["objective"] = {"metric": "roc_auc", "goal": "Maximize"}

    done = drive(spec)

    print(done.log)
    assert done.exit_code == 0, done.log
    assert done.result is not None
    assert done.result["objective"]["value"] == done.result["metrics"]["test_roc_auc"] > 0.98


IN_A_PROCESS = ("a file is gone", "MLflow down", "refused parameter")


def test_failures_say_class_reason_and_field(
    drive: Any, drive_here: Any, run_document: Any, spark: Any, mlflow_server: Any, tmp_path: Path
) -> None:
    """The rows of "Bad input" that the driver finds; one of each class in a process of its own."""
    table = tmp_path / "points"
    rows = "VALUES (1, 'a', NULL, 0), (2, 'b', NULL, 1), (3, 'c', NULL, 0), (4, 'd', 1.0D, 1)"
    spark.sql(f"SELECT * FROM {rows} AS t(feature, name, gap, target)").write.format("delta").save(str(table))  # noqa: S608
    gone = tmp_path / "gone"
    spark.range(9).selectExpr("id AS feature", "id % 2 AS target").write.format("delta").save(str(gone))
    next(gone.glob("*.parquet")).unlink()
    step = {"class": "sklearn.linear_model.LogisticRegression", "params": {}}
    cases = {
        "a file is gone": ({"inputs": [{"name": "points", "uri": str(gone), "version": 0}]},
                           ("Data", "VersionVacuumed", "spec.inputs[0].version")),
        "no table": ({"inputs": [{"name": "points", "uri": str(tmp_path / "nothing"), "version": 0}]},
                     ("Data", "TableNotFound", "spec.inputs[0].uri")),
        "no such version": ({"inputs": [{"name": "points", "uri": str(table), "version": 7}]},
                            ("Data", "VersionNotFound", "spec.inputs[0].version")),
        "no such target": ({"dataset": {"target": "goal", "features": None}},
                           ("Data", "ColumnNotFound", "spec.dataset.target")),
        "no such column in the query": ({"dataset": {"target": "target", "query": "SELECT featur, target FROM points"}},
                                        ("Data", "ColumnNotFound", "spec.dataset.query")),
        "the query reads past the inputs": (
            {"dataset": {"target": "target", "query": f"SELECT * FROM delta.`{table}`"}},  # noqa: S608
            ("Data", "TableNotFound", "spec.dataset.query")),
        "no row": ({"dataset": {"target": "target", "query": "SELECT * FROM points WHERE feature > 9"}},
                   ("Data", "EmptyTable", "spec.dataset.query")),
        "every target null": (
            {"dataset": {"target": "target", "query": "SELECT feature, CAST(NULL AS INT) AS target FROM points"}},
            ("Data", "TargetAllNull", "spec.dataset.target")),
        "text": ({"dataset": {"target": "target", "features": ["name"], "split": {"testFraction": 0}}},
                 ("Data", "NonNumericFeature", "spec.dataset.features")),
        "nulls": ({"dataset": {"target": "target", "features": ["gap"], "split": {"testFraction": 0}}},
                  ("Data", "NullFeature", "spec.dataset.features")),
        "one class": ({"dataset": {"target": "target", "query": "SELECT * FROM points WHERE target = 0"}},
                      ("Data", "SingleClass", "spec.dataset.target")),
        "MLflow down": ({"tracking": {"uri": "http://127.0.0.1:9", "runId": "none"}},
                        ("Infrastructure", "TrackingUnavailable", "spec.tracking")),
        "class not there": ({"estimator": {"steps": [{**step, "class": "sklearn.linear_model.LogisticRegresion"}]}},
                            ("Application", "ImportError", "spec.estimator.steps[0].class")),
        "refused parameter": ({"estimator": {"steps": [{**step, "params": {"C": -1}}]}},
                              ("Application", "InvalidParameter", "spec.estimator.steps[0].params.C")),
    }  # fmt: skip
    found = {}
    tracking = {"uri": mlflow_server.uri, "runId": mlflow_server.new_run("bad input")}
    for name, (changes, _) in cases.items():
        run = drive if name in IN_A_PROCESS else drive_here
        document = run_document(**{"tracking": tracking, **changes})
        done = run(document, AWS_SECRET_ACCESS_KEY="hidden-secret", MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
        assert done.exit_code == 1, done.log
        assert done.result is not None
        assert "Traceback" not in done.message
        assert "hidden-secret" not in done.log
        assert "SQLQueryContextLogger" not in done.log
        failure = done.result["failure"]
        print(name, "→", failure)
        found[name] = (failure["class"], failure["reason"], failure["field"])
    assert found == {name: expected for name, (_, expected) in cases.items()}


@pytest.fixture
def stuck_driver(
    spark: Any, run_document: Any, properties: dict[str, str], tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A driver that reads a table of which one file never answers."""
    (tmp_path / "run.json").write_text(json.dumps(run_document()))
    (tmp_path / "spark.properties").write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
    table = tmp_path / "points"
    rows = spark.range(4).selectExpr("id AS feature", "id % 2 AS target")
    rows.coalesce(1).write.format("delta").save(str(table))
    for file in [*table.glob(".*.crc"), *table.glob("*.parquet")]:
        file.unlink()
        if file.suffix == ".parquet":
            os.mkfifo(file)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LAKELOOP_RUN_FILE": str(tmp_path / "run.json"),
                   "LAKELOOP_TERMINATION_LOG": str(tmp_path / "termination"), "LAKELOOP_ATTEMPT": "1",
                   "SPARK_HOME": os.environ["SPARK_HOME"]}  # fmt: skip
    driver = subprocess.Popen([str(Path(sys.executable).parent / "lakeloop-driver")], env=environment)
    yield driver
    driver.kill()
    driver.wait()


def jvm_of(driver: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
    deadline = time.monotonic() + 150
    while not (jvms := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return int(jvms[0])


@contextlib.contextmanager
def reading(table: Path) -> Iterator[None]:
    """The stuck file, held open for writing from the moment that somebody reads it."""
    file, deadline = next(table.glob("*.parquet")), time.monotonic() + 300
    writer = None
    while writer is None and time.monotonic() < deadline:
        try:
            writer = os.open(file, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            time.sleep(0.05)
    assert writer is not None
    yield
    os.close(writer)


@pytest.mark.parametrize("moment", ["starting", "reading"])
def test_sigterm_stops_spark_and_leaves_no_result(
    stuck_driver: subprocess.Popen[bytes], tmp_path: Path, moment: str
) -> None:
    jvm = jvm_of(stuck_driver)
    with reading(tmp_path / "points") if moment == "reading" else contextlib.nullcontext():
        stuck_driver.send_signal(signal.SIGTERM)
        assert stuck_driver.wait(150) == 143
    assert not Path(f"/proc/{jvm}").exists()
    assert not (tmp_path / "termination").exists()


def test_a_sigterm_that_python_would_lose_is_heard(tmp_path: Path) -> None:
    """In a callback of the interpreter's own an exception is ignored: a handler that raises one is not enough."""
    program = """
import os, signal, time, weakref
from lakeloop_trainer.termination import Termination
class Thing: pass
thing = Thing()
termination = Termination()
ref = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
del thing
time.sleep(60)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=50, check=False).returncode == 143


def test_a_jvm_that_is_killed_is_not_taken_for_a_store_that_is_down(
    stuck_driver: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    jvm = jvm_of(stuck_driver)
    with reading(tmp_path / "points"):
        os.kill(jvm, signal.SIGKILL)
    assert stuck_driver.wait(150) == 1
    failure = json.loads((tmp_path / "termination").read_text())["failure"]
    assert (failure["class"], failure["reason"]) == ("Infrastructure", "DriverError")
    assert "JVM was killed by signal 9" in failure["message"]
