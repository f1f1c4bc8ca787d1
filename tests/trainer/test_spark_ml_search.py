"""Searches over stages of Spark ML: real Spark, real folds on the executors, a real MLflow server."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from trainer.conftest import FRUGAL
from trainer.searches import dimension, driver, parent, trials_of

pytestmark = pytest.mark.spark

SCALER, LOGISTIC = "pyspark.ml.feature.StandardScaler", "pyspark.ml.classification.LogisticRegression"
STEPS = [{"class": SCALER, "params": {}}, {"class": LOGISTIC, "params": {"elasticNetParam": 0, "maxIter": 5}}]
COLUMNS = ["mean_radius", "mean_texture", "mean_smoothness", "worst_area"]


def tumours() -> Any:
    """scikit-learn's breast cancer data, each row with the patient that it is of, and a day."""
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame
    frame.columns = [name.replace(" ", "_") for name in frame.columns]
    frame = frame[[*COLUMNS, "target"]]
    return frame.assign(patient=[i // 3 for i in range(len(frame))], day=[i // 2 for i in range(len(frame))])


@pytest.fixture(scope="module")
def table(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lake") / "tumours"
    spark.createDataFrame(tumours()).coalesce(2).write.format("delta").save(str(path))
    return path


@pytest.fixture
def document(run_document: Any, mlflow_server: Any, table: Path) -> Callable[..., dict[str, Any]]:
    """A run spec with a search over the tumours; keyword arguments replace keys of the search."""

    def build(steps: Any = STEPS, **search: Any) -> dict[str, Any]:
        run_id = mlflow_server.new_run(f"spark-search-{time.monotonic_ns()}")
        return dict(
            run_document(
                tracking={"uri": mlflow_server.uri, "experiment": "search", "runId": run_id},
                inputs=[{"name": "tumours", "uri": str(table), "version": 0}],
                dataset={"query": None, "features": COLUMNS, "target": "target", "expectations": [],
                         "split": {"by": "Random", "testFraction": 0.25, "seed": 7, "keys": ["patient"]}},
                estimator={"library": "spark", "steps": steps},
                objective={"metric": "roc_auc", "goal": "Maximize"},
                explanation={"method": "None"},
                search={"algorithm": "TPE", "folds": 2, "maxTrials": 4, "parallelism": 2, "pruning": False,
                        "timeoutSeconds": 600, "parameters": [dimension("1.regParam", min=0.001, max=10, scale="Log")],
                        **search},
            )
        )  # fmt: skip

    return build


def cached(spark: Any) -> set[int]:
    """What is kept, beside Delta's own lists of files."""
    found = spark.sparkContext._jsc.getPersistentRDDs()
    return {number for number in found if not str(found[number].name()).startswith("Delta")}


def test_a_search_finds_refits_and_leaves_its_trials_and_no_cache(
    document: Any, drive_here: Any, mlflow_server: Any, spark: Any
) -> None:
    spec = document(
        maxTrials=3, parameters=[
            dimension("1.regParam", min=0.001, max=10, scale="Log"), dimension("1.maxIter", min=2, max=9, type="Int"),
            dimension("1.elasticNetParam", values=[1]), dimension("0.withMean", values=[True, False]),
        ],
    )  # fmt: skip
    spec["explanation"] = {"method": "Permutation", "sampleRows": 20}
    run_id = spec["tracking"]["runId"]
    before = cached(spark)

    done = drive_here(spec)

    print(done.log)
    assert done.exit_code == 0, done.log
    assert cached(spark) == before
    search = done.result["search"]
    assert {key: search[key] for key in ("trials", "finished", "pruned", "failed")} == {
        "trials": 3, "finished": 3, "pruned": 0, "failed": 0,
    }  # fmt: skip
    trials = trials_of(mlflow_server, run_id)
    assert [each["number"] for each in trials] == [1, 2, 3]
    assert {each["info"]["status"] for each in trials} == {"FINISHED"}
    assert trials[0]["info"]["run_name"] == "quickstart-1-trial-1"
    assert all({"cv_roc_auc", "cv_roc_auc_std", "fold_roc_auc", "fold_log_loss"} <= set(e["metrics"]) for e in trials)
    assert len({each["params"]["1.maxIter"] for each in trials}) > 1
    best = max(trials, key=lambda each: float(each["metrics"]["cv_roc_auc"]))
    assert search["best"]["trial"] == best["number"]
    assert search["best"]["params"] == best["params"]

    params, artifacts = parent(mlflow_server, run_id)
    for name in ("1.regParam", "1.maxIter", "0.withMean"):
        assert params[name] == params[f"search.best.{name}"] == best["params"][name]
    assert params["1.elasticNetParam"] == "1.0"
    code = (artifacts / "code/pipeline.py").read_text()
    assert f"regParam={best['params']['1.regParam']}" in code
    assert f"maxIter={best['params']['1.maxIter']}," in code
    names = {path.name for path in (artifacts / "search").iterdir()}
    assert names == {"trials.csv", "history.png", "parallel_coordinates.png"}
    assert (artifacts / "explanation/permutation_importance.csv").is_file()
    # evaluated as any model
    assert done.result["objective"]["value"] == done.result["metrics"]["test_roc_auc"] > 0.9


def test_the_score_of_a_trial_is_cross_validation_by_hand(
    document: Any, drive_here: Any, mlflow_server: Any, spark: Any
) -> None:
    """On the training rows alone, with the rows of a patient in one fold."""
    import numpy as np
    from lakeloop_trainer import run_spec
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import StandardScaler, VectorAssembler
    from pyspark.ml.functions import vector_to_array
    from sklearn.metrics import roc_auc_score

    spec = document(algorithm="Grid", folds=3, parameters=[dimension("1.regParam", values=[0, 1])])
    done = drive_here(spec)
    assert done.exit_code == 0, done.log
    assert done.result["search"]["trials"] == 2  # the grid's size, below maxTrials

    divided, rows = divide(spark, run_spec.parse(spec).dataset, tumours(), 3)
    scores: dict[str, list[float]] = {}
    for fold in range(3):
        learned_from, held_out = divided.sides(fold)
        for penalty in ("0", "1"):
            stages = [
                VectorAssembler(inputCols=COLUMNS, outputCol="raw"), StandardScaler(inputCol="raw", outputCol="scaled"),
                LogisticRegression(
                    featuresCol="scaled", labelCol="target", regParam=float(penalty), elasticNetParam=0.0, maxIter=5
                ),
            ]  # fmt: skip
            model = Pipeline(stages=stages).fit(learned_from)
            seen = model.transform(held_out).select("target", vector_to_array("probability").alias("p")).toPandas()
            scores.setdefault(penalty, []).append(roc_auc_score(seen["target"], np.stack(seen["p"])[:, 1]))
    rows.release()
    for trial in trials_of(mlflow_server, spec["tracking"]["runId"]):
        assert trial["record"]["values"] == pytest.approx(scores[trial["params"]["1.regParam"]], abs=1e-6)


def divide(spark: Any, dataset: Any, frame: Any, wanted: int, *, classifier: bool = True) -> tuple[Any, Any]:
    """(folds, rows) of a pandas frame, as a search makes them."""
    from lakeloop_trainer.run_spec import Input
    from lakeloop_trainer.spark_ml import rows as reading
    from lakeloop_trainer.spark_ml.folds import folds

    spark.createDataFrame(frame).createOrReplaceTempView("tumours")
    inputs = (Input(0, "tumours", "memory", 0, None),)
    selected = reading.select(spark, dataset, inputs, lambda *_: (), lambda _: None, for_folds=True)
    rows = reading.read(selected, dataset, inputs, classifier=classifier)
    return folds(rows, dataset.split, wanted), rows


def dataset_of(features: Sequence[str], **split: Any) -> Any:
    from lakeloop_trainer.run_spec import Dataset, Split

    return Dataset(None, tuple(features), "target", Split(**{"test_fraction": 0.25, "seed": 7, **split}))


def parts(divided: Any, *columns: str) -> list[tuple[int, ...]]:
    """(fold, the columns) of every row."""
    from lakeloop_trainer.spark_ml.folds import FOLD

    return [tuple(row) for row in divided.frame.select(FOLD, *columns).collect()]


@pytest.mark.parametrize("even", [5000, 100, 0])
def test_folds_have_their_share_of_each_class_and_are_the_same_again(
    spark: Any, even: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``even``: whether all classes, the smaller one alone, or none are counted; by chance the shares differ more."""
    from lakeloop_trainer.spark_ml import folds

    monkeypatch.setattr(folds, "EVEN", even)
    frame = tumours().assign(target=lambda f: ["rare" if i % 7 == 0 else f"t{t}" for i, t in enumerate(f["target"])])
    divided, rows = divide(spark, dataset_of(COLUMNS), frame, 3)
    found = sorted(parts(divided, "target", *COLUMNS))
    again, others = divide(spark, dataset_of(COLUMNS), frame.sample(frac=1, random_state=1), 3)
    assert sorted(parts(again, "target", *COLUMNS)) == found
    rows.release()
    others.release()
    assert len(found) == rows.train_count < len(frame)
    for target in ("rare", "t0", "t1"):
        counts = Counter(each[0] for each in found if each[1] == target)
        total = sum(counts.values())
        slack = 1 if total <= even else total / 6
        assert all(abs(counts[fold] - total / 3) <= slack for fold in range(3)), (target, counts)
    for fold in range(3):
        learned_from, held_out = divided.sides(fold)
        assert learned_from.count() + held_out.count() == rows.train_count


def test_rows_of_one_key_are_in_one_fold_where_there_are_keys_enough(spark: Any) -> None:
    divided, rows = divide(spark, dataset_of([*COLUMNS, "patient"], keys=("patient",)), tumours(), 5)
    pairs = set(parts(divided, "patient"))
    assert len(pairs) == len({patient for _, patient in pairs})
    counts = Counter(fold for fold, _ in pairs)
    assert max(counts[fold] for fold in range(5)) - min(counts[fold] for fold in range(5)) <= 1
    rows.release()
    few = tumours().assign(patient=lambda frame: frame.index % 4)
    divided, rows = divide(spark, dataset_of([*COLUMNS, "patient"], keys=("patient",)), few, 5)
    assert {fold for fold, _ in parts(divided, "patient")} == set(range(5))
    rows.release()


def test_by_time_each_fold_is_scored_on_later_rows(spark: Any) -> None:
    split = {"by": "Time", "column": "day"}
    divided, rows = divide(spark, dataset_of([*COLUMNS, "day"], **split), tumours(), 3)
    days = {part: {day for fold, day in parts(divided, "day") if fold == part} for part in range(4)}
    sizes = Counter(fold for fold, _ in parts(divided, "day"))
    assert all(max(days[part]) < min(days[part + 1]) for part in range(3))
    assert max(sizes.values()) - min(sizes.values()) <= 4  # two rows a day
    for fold in range(3):
        learned_from, held_out = divided.sides(fold)
        assert learned_from.agg({"day": "max"}).first()[0] < held_out.agg({"day": "min"}).first()[0]
    rows.release()


def test_rows_that_do_not_fill_the_folds_are_refused(spark: Any) -> None:
    from lakeloop_trainer.failures import RunFailure

    few = tumours().head(30).assign(target=1.5, **dict.fromkeys(COLUMNS, 1.0))
    one_day = tumours().assign(day=lambda frame: (frame.index > 500).astype(int))
    for dataset, frame, wanted in (
        (dataset_of(["patient"], test_fraction=0.0), tumours().head(3), 4),
        (dataset_of(COLUMNS, test_fraction=0.0), few, 3),
        (dataset_of(COLUMNS, test_fraction=0.0, by="Time", column="day"), one_day, 2),
    ):
        with pytest.raises(RunFailure) as caught:
            divide(spark, dataset, frame, wanted, classifier=False)
        assert (caught.value.reason, caught.value.field) == ("InvalidParameter", "spec.search.validation.folds")
        assert str(wanted) in caught.value.message
    spark.catalog.clearCache()


def test_a_trial_that_fails_is_a_failed_trial(document: Any, drive_here: Any, mlflow_server: Any, spark: Any) -> None:
    steps = [{"class": "pyspark.ml.feature.PCA", "params": {}}, {"class": LOGISTIC, "params": {"maxIter": 3}}]
    spec = document(steps, algorithm="Grid", parameters=[dimension("0.k", values=[2, 99])])
    before = cached(spark)

    done = drive_here(spec)

    assert done.exit_code == 0, done.log
    assert cached(spark) == before
    search = done.result["search"]
    assert (search["finished"], search["failed"], search["best"]["params"]) == (1, 1, {"0.k": "2"})
    found = {each["params"]["0.k"]: each for each in trials_of(mlflow_server, spec["tracking"]["runId"])}
    assert {k: each["info"]["status"] for k, each in found.items()} == {"2": "FINISHED", "99": "FAILED"}
    assert "The pipeline's fit" in found["99"]["record"]["message"]


def test_a_trial_that_is_cancelled_ends_and_another_runs(spark: Any) -> None:
    from lakeloop_trainer.run_spec import Step
    from lakeloop_trainer.search.loop import TrialError
    from lakeloop_trainer.search.spark_ml_search import Trials, nothing_left
    from lakeloop_trainer.spark_ml import pipeline
    from lakeloop_trainer.spark_ml import steps as checking
    from lakeloop_trainer.spark_ml.wiring import wire

    divided, rows = divide(spark, dataset_of(COLUMNS), tumours(), 2)

    def build(params: Any) -> Any:
        # without a tolerance it goes on for as many iterations as it may: thousands of jobs, none of them long
        stages = checking.check([Step(LOGISTIC, {"tol": 0, "standardization": False, **params})], 0)
        wiring = wire(stages, rows.features, rows.target, named=True)
        return wiring, pipeline.build(wiring)

    trials = Trials(spark.sparkContext, divided, rows, build, lambda: False, lambda _: None)
    tracker = spark.sparkContext.statusTracker()
    before = cached(spark)
    with nothing_left(spark.sparkContext), ThreadPoolExecutor(2) as pool:
        endless = pool.submit(trials.score, 1, {"maxIter": 10_000_000, "regParam": 0.0}, 0)
        deadline = time.monotonic() + 150
        while len(tracker.getJobIdsForGroup("lakeloop-trial-1")) < 5:
            assert time.monotonic() < deadline
            assert not endless.done() or endless.result() is None
            time.sleep(0.02)
        trials.cancel(1)
        with pytest.raises(TrialError, match="The pipeline's fit"):
            endless.result(150)
        assert pool.submit(trials.score, 2, {"maxIter": 3}, 0).result(150)["roc_auc"] > 0.8
        with pytest.raises(TrialError):  # nor does it begin again
            pool.submit(trials.score, 1, {"maxIter": 3}, 1).result(150)
    assert cached(spark) == before
    rows.release()


@pytest.mark.parametrize(
    ("parameter", "field", "says"),
    [
        pytest.param({"name": "1.regParam", "values": [0.1, -1]}, "values[1]", "regParam", id="out of its range"),
        pytest.param(
            {"name": "1.featuresCol", "values": ["nothing"]}, "values[0]", "no column nothing", id="no column"
        ),
    ],
)
def test_a_value_that_spark_refuses_is_refused_before_any_trial(
    document: Any, drive_here: Any, mlflow_server: Any, parameter: Any, field: str, says: str
) -> None:
    spec = document(parameters=[dimension(**parameter)], algorithm="Grid")
    done = drive_here(spec)
    assert done.exit_code == 1
    failure = done.result["failure"]
    assert (failure["class"], failure["reason"]) == ("Application", "InvalidParameter"), failure
    assert failure["field"] == f"spec.search.parameters[0].{field}"
    assert says in failure["message"]
    assert trials_of(mlflow_server, spec["tracking"]["runId"]) == []


def test_on_executors_an_attempt_after_a_killed_driver_goes_on_where_it_was(
    document: Any, mlflow_server: Any, tmp_path: Path, properties: dict[str, str]
) -> None:
    """One executor with two cores, in a process of its own."""
    spec = document(
        algorithm="Random", maxTrials=6, parallelism=2, pruning=True,
        parameters=[dimension("1.regParam", min=0.001, max=10, scale="Log")],
    )  # fmt: skip
    run_id = spec["tracking"]["runId"]
    cluster = {
        **properties, "spark.master": "local-cluster[1,2,1024]", "spark.executor.instances": "1",
        "spark.executor.cores": "2", "spark.executor.memory": "768m", "spark.executor.extraJavaOptions": FRUGAL,
    }  # fmt: skip
    environ = {"PYSPARK_PYTHON": sys.executable, "SPARK_SCALA_VERSION": "2.13"}

    def over() -> list[dict[str, Any]]:
        return [each for each in trials_of(mlflow_server, run_id) if each["info"]["status"] != "RUNNING"]

    with driver(spec, tmp_path / "first", cluster, **environ) as process:
        deadline = time.monotonic() + 600
        while len(over()) < 2:
            assert process.poll() is None, (tmp_path / "first/log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "first/log").read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {each["number"]: each for each in trials_of(mlflow_server, run_id)}
    done = {number for number, each in before.items() if each["info"]["status"] != "RUNNING"}
    assert 2 <= len(done) < 6

    with driver(spec, tmp_path / "second", cluster, LAKELOOP_ATTEMPT="2", **environ) as process:
        code = process.wait(600)

    log = (tmp_path / "second/log").read_text()
    print(log)
    assert code == 0, log
    result = json.loads((tmp_path / "second/termination").read_text())
    after = trials_of(mlflow_server, run_id)
    assert [each["number"] for each in after] == list(range(1, 7))
    assert result["search"]["finished"] + result["search"]["pruned"] == 6
    assert len({each["params"]["1.regParam"] for each in after}) == 6
    for each in after:
        cut_off = each["number"] in before and each["number"] not in done
        assert each["record"]["tries"] == (2 if cut_off else 1)
        if each["number"] in done:
            assert each["info"]["end_time"] == before[each["number"]]["info"]["end_time"]
