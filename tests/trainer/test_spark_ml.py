"""`library: spark`: whole runs with real Spark, and its metrics beside scikit-learn's on the same predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from trainer.conftest import FRUGAL

pytestmark = pytest.mark.spark

LOGISTIC = "pyspark.ml.classification.LogisticRegression"


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


@pytest.fixture
def spark_run(
    drive: Any, run_document: Any, write_manifest: Any, mlflow_server: Any, tmp_path: Path
) -> Callable[..., tuple[Any, str]]:
    """Writes rows as JSON, trains on them with the given steps, and gives the attempt and its MLflow run's id."""

    def run(
        rows: Sequence[Mapping[str, Any]], steps: Sequence[tuple[str, Mapping[str, Any]]], target: str = "target",
        explanation: Mapping[str, Any] | None = None, **changes: Any,
    ) -> tuple[Any, str]:  # fmt: skip
        raw = tmp_path / "rows.json"
        raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run_id = mlflow_server.new_run(tmp_path.name)
        ingest = {"format": "json", "mode": "Append", "options": {}, "baseVersion": None,
                  "manifest": write_manifest("run-uid", [raw]), "committedVersion": None}  # fmt: skip
        spec = run_document(
            tracking={"uri": mlflow_server.uri, "experiment": tmp_path.name, "runId": run_id},
            inputs=[{"name": "points", "uri": str(tmp_path / "points"), "version": None, "ingest": ingest}],
            dataset={"query": None, "features": None, "target": target, "expectations": [],
                     "split": {"by": "Random", "testFraction": 0.25, "seed": 1, "keys": []}},
            estimator={"library": "spark", "steps": [{"class": name, "params": params} for name, params in steps]},
            explanation=explanation or {"method": "None"},
            **changes,
        )  # fmt: skip
        return drive(spec), run_id

    return run


def flowers() -> list[dict[str, Any]]:
    from sklearn.datasets import load_iris

    iris = load_iris(as_frame=True)
    frame = iris.frame.drop(columns="target")
    frame.columns = [name.removesuffix(" (cm)").replace(" ", "_") for name in frame.columns]
    frame["species"] = [str(iris.target_names[i]) for i in iris.target]
    return frame.to_dict(orient="records")


def test_text_classes_from_rows_to_a_model_that_answers_in_them(
    spark_run: Any, mlflow_server: Any, tmp_path: Path
) -> None:
    from lakeloop_trainer.digest import model_digest

    rows = flowers()
    attempt, run_id = spark_run(
        rows, [("pyspark.ml.feature.StandardScaler", {}), (LOGISTIC, {"regParam": 0.01})], "species",
        {"method": "Permutation", "sampleRows": 1000},
    )  # fmt: skip

    print(attempt.log)
    assert attempt.exit_code == 0, attempt.log
    result = attempt.result
    assert result["objective"]["metric"] == "f1"
    assert result["objective"]["value"] > 0.9
    metrics = ("accuracy", "f1", "precision", "recall", "roc_auc", "log_loss")
    assert set(result["metrics"]) == {"f1", *(f"{side}_{name}" for side in ("train", "test") for name in metrics)}
    model = result["model"]
    folder = local(model["artifactUri"])
    assert model["digest"] == model_digest(folder)
    requirements = (folder / "requirements.txt").read_text().split()
    assert {"mlflow==3.17.2", "pyspark==4.1.4"} <= set(requirements)

    run = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]
    params = {item["key"]: item["value"] for item in run["data"]["params"]}
    assert params["steps.0.class"] == "pyspark.ml.feature.StandardScaler"
    assert params["1.regParam"] == "0.01"
    tags = {item["key"]: item["value"] for item in run["data"]["tags"]}
    assert tags["lakeloop.io/explanation"] == "Permutation"
    artifacts = local(run["info"]["artifact_uri"])
    found = {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()}
    assert found == {
        "lakeloop/run.json", "lakeloop/result.json", "code/pipeline.py", "plots/confusion_matrix.png", "plots/roc.png",
        *(f"explanation/permutation_importance.{kind}" for kind in ("csv", "txt", "png")),
    }  # fmt: skip
    table = (artifacts / "explanation/permutation_importance.csv").read_text().splitlines()
    assert table[1].split(",")[0] in ("petal_length", "petal_width")
    code = (artifacts / "code/pipeline.py").read_text()
    compile(code, "pipeline.py", "exec")
    assert "pyspark.ml.classification.LogisticRegression(regParam=0.01" in code
    served = answers_of(folder, [{k: v for k, v in row.items() if k != "species"} for row in rows], tmp_path)
    right = [answer == row["species"] for answer, row in zip(served["pyfunc"], rows, strict=True)]
    assert sum(right) / len(right) > 0.9
    assert served["pyfunc"] == served["transform"]
    assert not served["lakeloop"], "the served model asked for Lakeloop's code"
    assert served["inputs"] == sorted(name for name in rows[0] if name != "species")  # as Spark reads JSON


def answers_of(folder: Path, rows: Sequence[Mapping[str, Any]], tmp_path: Path) -> Any:
    """What the model answers in a process of its own, as any MLflow server would ask it."""
    import os
    import subprocess
    import sys

    (tmp_path / "rows-to-serve.json").write_text(json.dumps(rows))
    program = """
import concurrent.futures, json, sys, pandas, mlflow.pyfunc
folder, rows = sys.argv[1:]
frame = pandas.DataFrame(json.load(open(rows)))
model = mlflow.pyfunc.load_model(folder)
with concurrent.futures.ThreadPoolExecutor(1) as pool:  # as a server asks: in another thread than the one that loaded
    answers = list(pool.submit(model.predict, frame).result())
inner = model.get_raw_model()
from pyspark.sql import SparkSession
plain = [row["prediction"] for row in inner.transform(SparkSession.getActiveSession().createDataFrame(frame)).collect()]
print("ANSWERS " + json.dumps({
    "pyfunc": answers, "transform": plain, "lakeloop": [m for m in sys.modules if m.startswith("lakeloop")],
    "inputs": model.metadata.signature.inputs.input_names(),
    "types": [str(item.type) for item in model.metadata.signature.inputs.inputs],
    "output": str(model.metadata.signature.outputs.inputs[0].type)}, default=lambda v: v.item()))
"""
    # not in the JVM of this process's own session
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYSPARK_GATEWAY")}
    environment["JAVA_TOOL_OPTIONS"] = FRUGAL
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(tmp_path / "rows-to-serve.json")],
        capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path, env=environment,
    )  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")), None)
    assert line, done.stdout + done.stderr
    return json.loads(line.removeprefix("ANSWERS "))


def fitted(spark: Any, frame: Any, steps: Sequence[tuple[str, Mapping[str, Any]]], target: str, keys: Any = ()) -> Any:
    """(pipeline, wiring, rows) over a pandas frame, as the program makes them; a fourth of the rows held out."""
    from lakeloop_trainer.methods import spark_pipeline
    from lakeloop_trainer.run_spec import Dataset, Input, Split, Step
    from lakeloop_trainer.spark_ml import pipeline
    from lakeloop_trainer.spark_ml import rows as reading
    from lakeloop_trainer.spark_ml import steps as checking

    spark.createDataFrame(frame).createOrReplaceTempView("points")
    stages = checking.check([Step(name, params) for name, params in steps], 0)
    dataset, inputs = Dataset(None, None, target, Split(0.25, 1, keys)), (Input(0, "points", "memory", 0, None),)
    selected = reading.select(spark, dataset, inputs, lambda _features, _available: (), lambda _rows: None)
    wiring, built = pipeline.of_columns(stages, selected, named=False)
    rows = reading.read(selected, dataset, inputs, classifier=checking.classifies(stages[-1].cls))
    return spark_pipeline._fit(wiring, built, rows), wiring, rows


def predictions(found: Any, wiring: Any, rows: Any, *, test: bool) -> Any:
    """What the served pipeline says of one side, in pandas: the same rows as the metrics are of."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as f

    frame = found.served.transform(rows.side(test=test))
    columns = [f.col(rows.target).alias("truth"), f.col("prediction")]
    if wiring.scores:
        columns.append(vector_to_array(f.col(wiring.scores)).alias("scores"))
    return frame.select(*columns).toPandas()


def tumours(**columns: Any) -> Any:
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 1, 2, 4, 30]]
    frame.columns = [name.replace(" ", "_") for name in frame.columns]
    return frame.assign(**columns)


TREES = ("pyspark.ml.classification.RandomForestClassifier", {"numTrees": 5, "maxDepth": 3})
CLASSIFIED = {
    "numbers as classes, ties among the scores": (tumours(), TREES),
    "booleans as classes": (tumours(target=lambda frame: frame["target"] == 1), (LOGISTIC, {})),
    "decision values": (tumours(), ("pyspark.ml.classification.LinearSVC", {"maxIter": 10})),
    "classes that do not begin at 0": (tumours(target=lambda frame: frame["target"] * 7 - 3), TREES),
    "more classes": (tumours(target=lambda frame: frame["mean_radius"].astype(int) % 3 + frame["target"] * 10), TREES),
    "text": (tumours(target=lambda frame: frame["target"].map({0: "it's", 1: '"no" \\'})), TREES),
}


@pytest.mark.parametrize(
    ("case", "in_order"),
    [*((case, 250_000) for case in CLASSIFIED), *((case, 40) for case in ("booleans as classes", "more classes"))],
)
def test_classification_metrics_are_scikit_learns(
    spark: Any, case: str, in_order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from lakeloop_trainer.spark_ml import evaluation
    from lakeloop_trainer.spark_ml.evaluation import evaluate
    from sklearn import metrics as sk

    monkeypatch.setattr(evaluation, "ROWS_IN_ORDER", in_order)
    frame, step = CLASSIFIED[case]
    found, wiring, rows = fitted(spark, frame, [step], "target")
    metrics = dict(evaluate(found.learned, wiring, rows, None, 0).metrics)
    rows.release()
    for test in (False, True):
        seen = predictions(found, wiring, rows, test=test)
        truth, guess, scores = seen["truth"].to_numpy(), seen["prediction"].to_numpy(), np.stack(seen["scores"])
        assert seen["truth"].dtype.kind == seen["prediction"].dtype.kind
        precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, guess, average="weighted", zero_division=0)
        expected = {"accuracy": sk.accuracy_score(truth, guess), "precision": precision, "recall": recall, "f1": f1}
        if len(rows.classes) == 2:
            expected["roc_auc"] = sk.roc_auc_score(truth == rows.classes[1], scores[:, 1])
        else:
            expected["roc_auc"] = sk.roc_auc_score(truth, scores, multi_class="ovr", average="weighted")
        if wiring.probabilities:
            expected["log_loss"] = sk.log_loss(truth, scores, labels=list(rows.classes))
        side = "test" if test else "train"
        for name, value in expected.items():
            assert metrics.pop(f"{side}_{name}") == pytest.approx(value, abs=1e-6), name
    assert set(metrics) == {"roc_auc" if len(rows.classes) == 2 else "f1"}


def test_regression_metrics_are_scikit_learns(spark: Any) -> None:
    from lakeloop_trainer.spark_ml.evaluation import evaluate
    from sklearn import metrics as sk
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True).frame
    found, wiring, rows = fitted(spark, frame, [("pyspark.ml.regression.LinearRegression", {})], "target")
    metrics = evaluate(found.learned, wiring, rows, None, 0).metrics
    rows.release()
    assert metrics["r2"] == metrics["test_r2"]
    for side, test in (("train", False), ("test", True)):
        seen = predictions(found, wiring, rows, test=test)
        expected = {
            "r2": sk.r2_score(seen["truth"], seen["prediction"]),
            "mae": sk.mean_absolute_error(seen["truth"], seen["prediction"]),
            "rmse": sk.root_mean_squared_error(seen["truth"], seen["prediction"]),
        }
        for name, value in expected.items():
            assert metrics[f"{side}_{name}"] == pytest.approx(value, rel=1e-9), name


def test_a_class_that_only_the_test_rows_have_is_wrong_and_no_error(spark: Any) -> None:
    from lakeloop_trainer.spark_ml.evaluation import evaluate

    frame = tumours(number=lambda frame: range(len(frame)))
    _, _, rows = fitted(spark, frame, [TREES], "target", keys=("number",))
    held_out = rows.side(test=True).agg({"mean_radius": "max"}).first()[0]
    rows.release()
    frame.loc[frame["mean_radius"] == held_out, "target"] = 9
    found, wiring, rows = fitted(spark, frame, [TREES], "target", keys=("number",))
    evaluation = evaluate(found.learned, wiring, rows, None, 0)
    rows.release()
    assert rows.classes == (0, 1)
    assert 0 < evaluation.metrics["test_accuracy"] < 1
    assert "train_roc_auc" in evaluation.metrics
    assert "test_roc_auc" not in evaluation.metrics
    assert "test_log_loss" not in evaluation.metrics
    assert evaluation.value is None
    assert (9, 0, 1) in evaluation.confusion or (9, 1, 1) in evaluation.confusion


@pytest.mark.parametrize(
    ("changed", "steps", "reason", "says"),
    [
        pytest.param(
            {"mean_radius": lambda frame: frame["mean_radius"].where(frame["mean_radius"] > 10)}, [(LOGISTIC, {})],
            "NullFeature", "mean_radius have NULLs. Add a step pyspark.ml.feature.Imputer", id="missing values",
        ),
        pytest.param({"target": 1}, [(LOGISTIC, {})], "SingleClass", "one class", id="one class"),
        pytest.param({"target": None}, [(LOGISTIC, {})], "TargetAllNull", "target is NULL", id="no target"),
        pytest.param(
            {"target": lambda frame: frame["target"].map(str)}, [("pyspark.ml.regression.LinearRegression", {})],
            "SchemaMismatch", "is text", id="text to a regressor",
        ),
        pytest.param(
            {"target": lambda frame: frame["mean_radius"].astype(int)},
            [("pyspark.ml.classification.GBTClassifier", {})], "InvalidParameter", "GBTClassifier tells two classes apart, and target has", id="too many classes",
        ),
        pytest.param(
            {}, [(LOGISTIC, {"regParam": -1})], "InvalidParameter", "spec.estimator.steps[0].params.regParam",
            id="out of its range",
        ),
        pytest.param(
            {}, [("pyspark.ml.feature.PCA", {"k": 99}), (LOGISTIC, {})], "FitFailed", "The pipeline's fit", id="a fit that fails",
        ),
    ],
)  # fmt: skip
def test_what_fails_is_told_as_for_scikit_learn(
    spark: Any, changed: Mapping[str, Any], steps: Any, reason: str, says: str
) -> None:
    from lakeloop_trainer.failures import RunFailure

    frame = tumours(**changed)
    frame["target"] = frame["target"].astype("float64") if changed.get("target", 0) is None else frame["target"]
    with pytest.raises(RunFailure) as caught:
        fitted(spark, frame, steps, "target")
    spark.catalog.clearCache()
    assert caught.value.reason == reason, caught.value.message
    assert says in caught.value.message
    assert "py4j" not in caught.value.message.lower()
    assert "\n" not in caught.value.message


class Remembering(dict[str, bytes]):
    """Objects, and the names of all that were ever there."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __setitem__(self, key: str, value: bytes) -> None:
        self.seen.add(key)
        super().__setitem__(key, value)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, properties: dict[str, str]) -> Iterator[Remembering]:
    """An S3 store, and executors that are processes of their own."""
    import sys

    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "images/trainer/cds"))
    from s3_stub import serve

    server, endpoint = serve({})
    objects = Remembering()
    server.RequestHandlerClass.objects = objects  # type: ignore[attr-defined]
    for name, value in {
        "spark.master": "local-cluster[1,1,768]", "spark.executor.memory": "768m",
        "spark.executor.extraJavaOptions": FRUGAL,
        "spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true",
    }.items():  # fmt: skip
        monkeypatch.setitem(properties, name, value)
    objects.environment = {  # type: ignore[attr-defined]
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": endpoint, "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path", "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_HOSTNAME": "127.0.0.1",
        "SPARK_SCALA_VERSION": "2.13", "PYSPARK_PYTHON": sys.executable,
    }  # fmt: skip
    yield objects
    server.shutdown()


def test_executors_elsewhere_write_the_model_through_the_store(
    drive: Any, run_document: Any, mlflow_server: Any, store: Any, spark: Any, tmp_path: Path
) -> None:
    """Text, gaps and numbers; regression; then the same again with the first model as its champion."""
    import random

    chosen = random.Random(0)
    table = tmp_path / "points"
    rows = [
        {"size": float(i % 50), "kind": "abc"[i % 3], "age": None if i % 10 == 0 else i % 7,
         "price": 3.0 * (i % 50) + 20 * (i % 3) + chosen.random()}
        for i in range(400)
    ]  # fmt: skip
    spark.createDataFrame(rows, "size double, kind string, age bigint, price double").write.format("delta").save(
        str(table)
    )

    def spec(name: str, champion: Any = None) -> Any:
        body = {"name": name, "artifact_location": f"s3://mlflow/{name}"}
        experiment = mlflow_server.call("experiments/create", body)["experiment_id"]
        run = mlflow_server.call("runs/create", {"experiment_id": experiment, "start_time": 0})["run"]
        feature = "pyspark.ml.feature"
        return run_document(
            tracking={"uri": mlflow_server.uri, "experiment": name, "runId": run["info"]["run_id"]},
            inputs=[{"name": "points", "uri": str(table), "version": 0}],
            dataset={"query": None, "features": ["size", "kind", "age"], "target": "price", "expectations": [],
                     "split": {"by": "Random", "testFraction": 0.3, "seed": 1, "keys": []}},
            estimator={"library": "spark", "steps": [
                {"class": f"{feature}.StringIndexer", "params": {}}, {"class": f"{feature}.OneHotEncoder", "params": {}},
                {"class": f"{feature}.Imputer", "params": {}},
                {"class": "pyspark.ml.regression.LinearRegression", "params": {"regParam": 0.01}}]},
            explanation={"method": "SHAP", "sampleRows": 30},
            champion=champion,
        )  # fmt: skip

    first = drive(spec("elsewhere"), **store.environment)

    print(first.log)
    assert first.exit_code == 0, first.log
    assert first.result["objective"]["metric"] == "r2"
    assert first.result["objective"]["value"] > 0.95
    through = [key for key in store.seen if "/lakeloop/saving-1/" in key]
    assert any("/data/part-" in key for key in through), "the model did not go through the store"
    assert not [key for key in store if "/saving-" in key]
    names = {key.rpartition("/")[2] for key in store if "/artifacts/explanation/" in key}
    assert names == {"shap_importance.csv", "shap_importance.txt", "shap_summary.png"}
    table_of = next(value for key, value in store.items() if key.endswith("shap_importance.csv")).decode().splitlines()
    assert [line.split(",")[0] for line in table_of[1:3]] == ["size", "kind"]

    model = first.result["model"]
    prefix = model["artifactUri"].removeprefix("s3://mlflow/") + "/"
    folder = tmp_path / "fetched"
    for key, value in store.items():
        if key.startswith(prefix):
            path = folder / key.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
    from lakeloop_trainer.digest import model_digest

    assert model_digest(folder) == model["digest"]
    served = answers_of(folder, [{"size": 10.0, "kind": "b", "age": 3.0}, {"size": 10.0, "kind": "a"}], tmp_path)
    assert served["pyfunc"] == pytest.approx([50.5, 30.5], abs=2)

    pinned = {"model": "points", "version": 3, "artifactUri": model["artifactUri"], "digest": model["digest"]}
    second = drive(spec("again", pinned), **store.environment)

    assert second.exit_code == 0, second.log
    found = second.result["champion"]
    assert (found["version"], found["problem"], found["schemaChanges"]) == (3, None, [])
    assert found["value"] == pytest.approx(first.result["objective"]["value"], abs=1e-9)
