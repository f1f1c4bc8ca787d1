"""Searches as the driver makes them: real Spark, a real MLflow server, real processes."""

from __future__ import annotations

import csv
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer.conftest import FRUGAL
from trainer.searches import dimension, driver, parent, trials_of

pytestmark = pytest.mark.spark

STEPS = [
    {"class": "sklearn.preprocessing.StandardScaler", "params": {}},
    {"class": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 1000}},
]


@pytest.fixture(scope="module")
def tumours(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's breast cancer data as a Delta table, each row with the patient that it is of."""
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame
    frame.columns = [name.replace(" ", "_") for name in frame.columns]
    frame["patient"] = [index // 3 for index in range(len(frame))]
    table = tmp_path_factory.mktemp("lake") / "tumours"
    spark.createDataFrame(frame).coalesce(1).write.format("delta").save(str(table))
    return table


@pytest.fixture
def document(run_document: Any, mlflow_server: Any, tumours: Path) -> Callable[..., dict[str, Any]]:
    """A run spec with a search over the tumours; keyword arguments replace keys of the search."""

    def build(steps: Any = STEPS, **search: Any) -> dict[str, Any]:
        run_id = mlflow_server.new_run(f"search-{time.monotonic_ns()}")
        return dict(
            run_document(
                tracking={"uri": mlflow_server.uri, "experiment": "search", "runId": run_id},
                inputs=[{"name": "tumours", "uri": str(tumours), "version": 0}],
                dataset={"query": None, "features": None, "target": "target", "expectations": [],
                         "split": {"by": "Random", "testFraction": 0.25, "seed": 7, "keys": ["patient"]}},
                estimator={"library": "sklearn", "steps": steps},
                objective={"metric": "roc_auc", "goal": "Maximize"},
                search={"algorithm": "TPE", "folds": 3, "maxTrials": 8, "parallelism": 2, "pruning": False,
                        "timeoutSeconds": 600, "parameters": [dimension("1.C", min=0.001, max=100, scale="Log")],
                        **search},
            )
        )  # fmt: skip

    return build


def test_a_search_finds_refits_and_leaves_its_trials(document: Any, drive_here: Any, mlflow_server: Any) -> None:
    spec = document()
    run_id = spec["tracking"]["runId"]

    done = drive_here(spec)

    print(done.log)
    assert done.exit_code == 0, done.log
    search = done.result["search"]
    assert {key: search[key] for key in ("trials", "finished", "pruned", "failed")} == {
        "trials": 8, "finished": 8, "pruned": 0, "failed": 0,
    }  # fmt: skip
    trials = trials_of(mlflow_server, run_id)
    assert [each["number"] for each in trials] == list(range(1, 9))
    assert {each["info"]["status"] for each in trials} == {"FINISHED"}
    assert trials[0]["info"]["run_name"] == "quickstart-1-trial-1"
    assert all({"cv_roc_auc", "cv_roc_auc_std", "fold_roc_auc", "fold_log_loss"} <= set(e["metrics"]) for e in trials)
    best = max(trials, key=lambda each: float(each["metrics"]["cv_roc_auc"]))
    assert search["best"]["trial"] == best["number"]
    assert search["best"]["value"] == pytest.approx(float(best["metrics"]["cv_roc_auc"]))
    assert search["best"]["params"] == best["params"]

    params, artifacts = parent(mlflow_server, run_id)
    assert params["search.best.1.C"] == params["1.C"] == best["params"]["1.C"]
    code = (artifacts / "code/pipeline.py").read_text()
    assert f"C={best['params']['1.C']}" in code
    for name in ("search/history.png", "search/parallel_coordinates.png"):
        assert (artifacts / name).read_bytes().startswith(b"\x89PNG")
    with (artifacts / "search/trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["trial"] for row in table] == [str(number) for number in range(1, 9)]
    assert table[best["number"] - 1]["1.C"] == best["params"]["1.C"]
    # evaluated as any model
    assert done.result["objective"]["value"] == done.result["metrics"]["test_roc_auc"] > 0.98


def test_the_score_of_a_trial_is_cross_validation_by_hand(
    document: Any, drive_here: Any, mlflow_server: Any, spark: Any, tumours: Path
) -> None:
    """On the training rows alone, with the rows of a patient in one fold."""
    from lakeloop_trainer import dataset, run_spec
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    spec = document(algorithm="Grid", maxTrials=5, parameters=[dimension("1.C", values=[0.1, 10])])
    done = drive_here(spec)
    assert done.exit_code == 0, done.log
    assert done.result["search"]["trials"] == 2  # the grid's size, below maxTrials

    parsed = run_spec.parse(spec)
    dataset.register_views(spark, parsed.inputs, {"tumours": 0})
    rows = dataset.read(spark, parsed.dataset, parsed.inputs, 1 << 30, for_folds=True)
    assert rows.train_groups is not None
    splitter = StratifiedGroupKFold(3, shuffle=True, random_state=7)
    for trial in trials_of(mlflow_server, spec["tracking"]["runId"]):
        scores = []
        for fit, held_out in splitter.split(rows.train_features, rows.train_target, rows.train_groups):
            assert not set(rows.train_groups.iloc[fit]) & set(rows.train_groups.iloc[held_out])
            model = make_pipeline(
                StandardScaler(), LogisticRegression(max_iter=1000, C=float(trial["params"]["1.C"]))
            ).fit(rows.train_features.iloc[fit], rows.train_target.iloc[fit])
            scored = model.predict_proba(rows.train_features.iloc[held_out])[:, 1]
            scores.append(roc_auc_score(rows.train_target.iloc[held_out], scored))
        assert trial["record"]["values"] == pytest.approx(scores, abs=1e-6)


def test_trials_that_raise_crash_or_hang_are_failed_trials(
    document: Any, drive: Any, mlflow_server: Any, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "moody.py").write_text(MOODY)
    steps = [{"class": "moody.Moody", "params": {}}]
    moods = ["good", "raise", "crash", "hang"]
    spec = document(
        steps, algorithm="Grid", timeoutSeconds=20, parallelism=4, parameters=[dimension("0.mood", values=moods)]
    )

    done = drive(spec, PYTHONPATH=str(code))

    assert done.exit_code == 0, done.log
    assert done.result["search"]["failed"] == 3
    assert done.result["search"]["best"]["params"] == {"0.mood": "good"}
    found = {each["params"]["0.mood"]: each for each in trials_of(mlflow_server, spec["tracking"]["runId"])}
    assert {mood: each["info"]["status"] for mood, each in found.items()} == {
        "good": "FINISHED", "raise": "FAILED", "crash": "FAILED", "hang": "FAILED",
    }  # fmt: skip
    assert found["raise"]["record"]["message"] == "ValueError: I do not feel like it, '…'"
    assert "signal 11" in found["crash"]["record"]["message"]
    assert "timeoutSeconds" in found["hang"]["record"]["message"]


MOODY = """
import os, signal, time
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier

class Moody(ClassifierMixin, BaseEstimator):
    def __init__(self, mood="good"):
        self.mood = mood

    def fit(self, X, y):
        if self.mood == "raise":
            raise ValueError("I do not feel like it, 'Ms Secret'")
        if self.mood == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.mood == "hang":
            time.sleep(600)
        if self.mood == "slow":
            time.sleep(0.5)
        self.inner_ = DummyClassifier().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict(self, X):
        return self.inner_.predict(X)

    def predict_proba(self, X):
        return self.inner_.predict_proba(X)
"""


def test_a_search_without_a_winner_says_why(
    document: Any, drive_here: Any, mlflow_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moody.py").write_text(MOODY)
    monkeypatch.syspath_prepend(tmp_path)
    spec = document(
        [{"class": "moody.Moody", "params": {}}], algorithm="Random", maxTrials=3,
        parameters=[dimension("0.mood", values=["raise"])],
    )  # fmt: skip
    done = drive_here(spec, PYTHONPATH=str(tmp_path))
    assert done.exit_code == 1
    failure = done.result["failure"]
    assert (failure["class"], failure["reason"], failure["field"]) == ("Application", "SearchFailed", "spec.search")
    assert "ValueError: I do not feel like it" in failure["message"]
    assert "Ms Secret" not in done.message
    assert [each["info"]["status"] for each in trials_of(mlflow_server, spec["tracking"]["runId"])] == ["FAILED"]


def test_an_attempt_after_a_killed_driver_goes_on_where_it_was(
    document: Any, drive: Any, mlflow_server: Any, tmp_path: Path, properties: dict[str, str]
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "moody.py").write_text(MOODY)
    steps = [*STEPS[:1], {"class": "moody.Moody", "params": {"mood": "slow"}}]
    spec = document(
        steps, algorithm="Grid", maxTrials=8, parameters=[
            dimension("0.with_mean", values=[True, False]), dimension("0.with_std", values=[True, False]),
            dimension("0.copy", values=[True, False]),
        ],
    )  # fmt: skip
    run_id = spec["tracking"]["runId"]

    def over() -> list[dict[str, Any]]:
        return [each for each in trials_of(mlflow_server, run_id) if each["info"]["status"] == "FINISHED"]

    with driver(spec, tmp_path / "first", properties, PYTHONPATH=str(code)) as process:
        deadline = time.monotonic() + 300
        while len(over()) < 3:
            assert process.poll() is None, (tmp_path / "first/log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "first/log").read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {each["number"]: each for each in trials_of(mlflow_server, run_id)}
    finished = {number for number, each in before.items() if each["info"]["status"] == "FINISHED"}
    cut_off = {number for number, each in before.items() if each["info"]["status"] == "RUNNING"}
    assert 3 <= len(finished) < 8
    assert cut_off

    done = drive(spec, attempt=2, PYTHONPATH=str(code))

    assert done.exit_code == 0, done.log
    assert done.result["search"]["finished"] == 8
    after = trials_of(mlflow_server, run_id)
    assert [each["number"] for each in after] == list(range(1, 9))
    assert {each["info"]["status"] for each in after} == {"FINISHED"}
    assert len({tuple(sorted(each["params"].items())) for each in after}) == 8
    for each in after:
        if each["number"] in finished:
            assert each["info"]["end_time"] == before[each["number"]]["info"]["end_time"]
        assert each["record"]["tries"] == (2 if each["number"] in cut_off else 1)

    # the driver dies after the search: nothing is tried again
    third = drive(spec, attempt=3, PYTHONPATH=str(code))
    assert third.exit_code == 0, third.log
    assert third.result["search"] == done.result["search"]
    assert trials_of(mlflow_server, run_id) == after


def test_with_executors_the_trials_run_there(
    document: Any, mlflow_server: Any, tmp_path: Path, properties: dict[str, str]
) -> None:
    """One executor with two cores, in a process of its own; its Python workers have no rows but the broadcast ones."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "moody.py").write_text(MOODY)
    moods = ["good", "raise", "crash", "slow"]
    steps = [{"class": "moody.Moody", "params": {}}]
    spec = document(steps, algorithm="Grid", parallelism=3, parameters=[dimension("0.mood", values=moods)])
    cluster = {
        **properties, "spark.master": "local-cluster[1,2,1024]", "spark.executor.instances": "1",
        "spark.executor.cores": "2", "spark.executor.memory": "512m",
        "spark.executor.extraJavaOptions": FRUGAL, "spark.executorEnv.PYTHONPATH": str(code),
    }  # fmt: skip
    environ = {"PYTHONPATH": str(code), "PYSPARK_PYTHON": sys.executable, "SPARK_SCALA_VERSION": "2.13"}
    with driver(spec, tmp_path / "run", cluster, **environ) as process:
        code_of = process.wait(600)
    log = (tmp_path / "run/log").read_text()
    print(log)
    assert code_of == 0, log
    result = json.loads((tmp_path / "run/termination").read_text())
    counts = {key: result["search"][key] for key in ("trials", "finished", "failed")}
    assert counts == {"trials": 4, "finished": 2, "failed": 2}
    found = {each["params"]["0.mood"]: each["record"] for each in trials_of(mlflow_server, spec["tracking"]["runId"])}
    assert found["raise"]["message"] == "ValueError: I do not feel like it, '…'"
    assert found["crash"]["message"].startswith("its Spark task failed")


def test_a_task_that_hangs_is_ended_and_the_next_one_runs(spark: Any, tmp_path: Path) -> None:
    """The workers of a run with executors, on a local Spark."""
    import numpy as np
    import pandas as pd
    from lakeloop_trainer.run_spec import SearchParameter, Step
    from lakeloop_trainer.search.loop import TrialError
    from lakeloop_trainer.search.scoring import Folds
    from lakeloop_trainer.search.spark_workers import SparkWorkers
    from lakeloop_trainer.search.trial import Trial

    (tmp_path / "moody_there.py").write_text(MOODY)
    spark.sparkContext.addPyFile(str(tmp_path / "moody_there.py"))
    features, target = pd.DataFrame({"a": range(20)}), pd.Series([0, 1] * 10)
    moods = SearchParameter("0.mood", None, None, False, False, ("good", "hang"))
    rows = [(np.arange(10), np.arange(10, 20))]
    workers = SparkWorkers(
        spark, Folds(features, target, rows, [Step("moody_there.Moody", {})], [moods], 1), 2, lambda: False
    )
    hanging = Trial(1, {"0.mood": 1}, {"0.mood": "hang"})
    future = workers.submit(hanging, 0)
    deadline = time.monotonic() + 150
    while not spark.sparkContext.statusTracker().getActiveJobsIds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers.cancel(hanging)
    with pytest.raises(TrialError, match="its Spark task failed"):
        future.result(150)
    good = workers.submit(Trial(2, {"0.mood": 0}, {"0.mood": "good"}), 0).result(150)
    assert good["accuracy"] == 0.5
    workers.close()
