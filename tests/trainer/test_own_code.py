"""Scripts of the user's, in real runs of the program."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.spark

TRAIN = """
import sys

import mlflow
import mlflow.sklearn
from pyspark.sql import SparkSession
from sklearn.linear_model import LogisticRegression

import helpers
from lakeloop_run import inputs, test_rows, train_rows

spark = SparkSession.builder.getOrCreate()
assert spark.table("points").count() == helpers.ROWS
assert inputs["points"].version == 0, inputs
assert sys.argv[1:] == ["--C", "2"], sys.argv
train, test = train_rows().toPandas(), test_rows().toPandas()
assert len(train) + len(test) == helpers.ROWS
assert list(train.columns) == ["feature", "target"]

with mlflow.start_run():  # what most training scripts begin with: it is the run that is there
    mlflow.log_param("C", 2)
    model = LogisticRegression(C=2).fit(train[["feature"]], train["target"])
    accuracy = model.score(train[["feature"]], train["target"])
    mlflow.log_metric("accuracy", accuracy)
    mlflow.log_metric("rows", spark.udf.register("twice", helpers.twice) and float(
        spark.sql("SELECT sum(twice(feature)) FROM points").first()[0]))
with mlflow.start_run(nested=True, run_name="below") as below:
    mlflow.log_metric("nested", 1.0)
assert below.info.run_id != mlflow.start_run().info.run_id
signature = mlflow.models.infer_signature(train[["feature"]], model.predict(train[["feature"]]))
known = {"signature": signature, "pip_requirements": ["scikit-learn"]}  # MLflow need not look for what is imported
mlflow.sklearn.log_model(model, name="other", **known)
mlflow.sklearn.log_model(model, name="model", signature=signature, input_example=train[["feature"]].head(2))
mlflow.sklearn.log_model(model, name="later", **known)
mlflow.start_run(nested=True)  # left open
open("left.txt", "w").write("the folder can be written to")
sys.exit(0)
"""
HELPERS = "ROWS = 40\n\n\ndef twice(x):\n    import helpers\n    return str(2 * x * (helpers.ROWS // 40))\n"


@pytest.fixture
def points(spark: Any, tmp_path: Path) -> str:
    table = str(tmp_path / "points")
    spark.range(40).selectExpr("id AS feature", "CAST(id > 20 AS INT) AS target").write.format("delta").save(table)
    return table


@pytest.fixture
def script_run(drive: Any, run_document: Any, mlflow_server: Any, tmp_path: Path, points: str) -> Any:
    """Runs a script out of a folder that looks as the kubelet mounts a ConfigMap."""
    mounted = tmp_path / "script"

    def run(files: dict[str, str | bytes], path: str = "train.py", attempt: int = 1, **changes: Any) -> Any:
        versions = mounted / "..2026_11_25"
        versions.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (versions / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            if not (mounted / name).is_symlink():
                (mounted / name).symlink_to(versions / name)
        run_id = changes.pop("run_id", None) or mlflow_server.new_run(f"script-{tmp_path.name}-{path}-{attempt}")
        script = {"path": path, "args": ["--C", "2"], "uri": None, **changes.pop("script", {})}
        spec = run_document(**{
            "tracking": {"uri": mlflow_server.uri, "experiment": "s", "runId": run_id}, "estimator": None,
            "script": script, "dataset": {"query": None, "features": ["feature"], "target": "target",
                                          "split": {"testFraction": 0.25, "seed": 1}}, **changes,
        })  # fmt: skip
        work = tmp_path / f"work-{attempt}"
        return drive(spec, attempt, LAKELOOP_SCRIPT_DIR=str(mounted), LAKELOOP_WORK_DIR=str(work)), run_id

    return run


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def test_a_script_of_a_config_map(script_run: Any, mlflow_server: Any) -> None:
    from lakeloop_trainer.digest import model_digest

    files = {"train.py": TRAIN, "helpers.py": HELPERS}
    done, run_id = script_run(files, objective={"metric": "accuracy", "goal": "Maximize"})

    print(done.log)
    assert done.exit_code == 0, done.log
    result = done.result
    assert result["metrics"].keys() == {"accuracy", "rows"}
    assert result["metrics"]["rows"] == 2 * sum(range(40))
    assert result["objective"] == {"metric": "accuracy", "value": result["metrics"]["accuracy"]}
    assert result["inputs"] == [{"name": "points", "version": 0}]
    model = result["model"]
    assert model["signature"] is True
    assert model["digest"] == model_digest(local(model["artifactUri"]))
    logged = mlflow_server.call(f"logged-models/{model['modelId']}")["model"]
    assert logged["info"]["name"] == "model"
    run = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]
    params = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert (params["script.path"], params["script.args"], params["C"]) == ("train.py", "--C 2", "2")
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    assert tags["lakeloop.io/code-files-digest"].startswith("sha256:")
    artifacts = local(run["info"]["artifact_uri"])
    assert (artifacts / "code/train.py").read_text() == TRAIN
    assert (artifacts / "code/helpers.py").is_file()
    assert not (artifacts / "code/left.txt").exists()

    # another attempt of the same run, with other code: it is not the run that was asked for
    changed, _ = script_run(files | {"helpers.py": HELPERS + "#"}, attempt=2, run_id=run_id)
    assert changed.result["failure"]["reason"] == "CodeChanged", changed.log


EXPECTATIONS = [
    {"name": "known", "expression": "target IS NOT NULL", "onViolation": "Fail"},
    {"name": "small", "expression": "feature < 30", "onViolation": "Warn"},
]


def test_what_is_expected_of_the_data_is_checked_before_the_script_runs(script_run: Any, mlflow_server: Any) -> None:
    rows = {"query": "SELECT * FROM points WHERE feature < 36", "features": None, "target": None, "split": None}
    files = {"train.py": "import mlflow\nmlflow.log_metric('accuracy', 1.0)\n"}
    alone: dict[str, Any] = {"objective": None, "register": None}
    done, run_id = script_run(files, dataset={**rows, "expectations": EXPECTATIONS}, **alone)
    assert done.exit_code == 0, done.log
    assert done.result["expectations"] == [
        {"name": "known", "violations": 0, "rows": 36},
        {"name": "small", "violations": 6, "rows": 36},
    ]
    metrics = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]["data"]["metrics"]
    assert {each["key"]: each["value"] for each in metrics}["expectations.small.violations"] == 6

    fatal = [{**each, "onViolation": "Fail"} for each in EXPECTATIONS]
    done, run_id = script_run(files, attempt=2, dataset={**rows, "expectations": fatal}, **alone)
    assert done.result["failure"]["reason"] == "ExpectationViolated", done.log
    metrics = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]["data"]["metrics"]
    assert "accuracy" not in {each["key"] for each in metrics}


AUTOLOG = """
import mlflow
from sklearn.linear_model import LogisticRegression

from lakeloop_run import train_rows

mlflow.autolog()
frame = train_rows().toPandas()
model = LogisticRegression().fit(frame[["feature"]], frame["target"])
mlflow.end_run()  # nobody asked for that, and nothing comes of it
mlflow.set_experiment("another")
with mlflow.start_run():
    mlflow.log_metric("mine", 0.5)
"""


def packed(path: Path, files: dict[str, str]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return str(path)


def test_an_archive_and_autologging(script_run: Any, mlflow_server: Any, tmp_path: Path) -> None:
    uri = packed(tmp_path / "code.tar.gz", {"pkg/train.py": AUTOLOG, "pkg/more.py": ""})
    objective = {"metric": "mine", "goal": "Maximize"}
    done, run_id = script_run({}, "pkg/train.py", script={"uri": uri}, objective=objective)
    assert done.exit_code == 0, done.log
    assert done.result["objective"] == {"metric": "mine", "value": 0.5}
    assert "training_accuracy_score" in done.result["metrics"]
    assert done.result["model"]["modelId"]
    run = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]
    assert (local(run["info"]["artifact_uri"]) / "code/pkg/train.py").read_text() == AUTOLOG


@pytest.mark.parametrize(
    ("text", "reason", "field", "said"),
    [
        ("x = {}\nx['secret']\n", "ScriptFailed", "spec.script", "train.py, line 2: KeyError: …"),
        ("import mlflow\nmlflow.log_metric('a', 1)\n", "NoModelLogged", "spec.register", "log_model"),
        (
            "from lakeloop_run import train_rows\ntrain_rows()\n",
            "ColumnNotFound",
            "spec.dataset.target",
            "no column none",
        ),
    ],
)
def test_a_script_that_fails(script_run: Any, text: str, reason: str, field: str, said: str) -> None:
    changes = {"dataset": {"target": "none"}} if reason == "ColumnNotFound" else {}
    done, _ = script_run({"train.py": text}, **changes)
    assert done.exit_code == 1, done.log
    failure = done.result["failure"]
    assert (failure["reason"], failure["field"]) == (reason, field)
    assert said in failure["message"]


def test_a_script_without_a_model_and_with_a_metric_that_is_not_there(script_run: Any) -> None:
    text = "import mlflow\nmlflow.log_metrics({'a': 1, 'b': float('nan')})\n"
    done, _ = script_run({"train.py": text}, register=None, objective={"metric": "roc_auc", "goal": "Maximize"})
    failure = done.result["failure"]
    assert (failure["class"], failure["reason"]) == ("Application", "MetricMissing")
    assert "the code logged a, b" in failure["message"]
    again, _ = script_run({"train.py": text}, attempt=2, register=None, objective={"metric": "b", "goal": "Maximize"})
    assert again.exit_code == 0, again.log
    assert again.result["model"] is None
    assert again.result["metrics"] == {"a": 1.0}
    assert again.result["objective"] == {"metric": "b", "value": None}


def test_a_script_that_kills_its_process_leaves_no_result(script_run: Any) -> None:
    done, _ = script_run({"train.py": "import os\nos._exit(9)\n"})
    assert (done.exit_code, done.result) == (9, None)


ESTIMATOR = """
from sklearn.linear_model import LogisticRegression

class Mine(LogisticRegression):
    pass
"""


def test_an_estimator_of_a_package_that_the_image_lacks(
    drive: Any, run_document: Any, mlflow_server: Any, tmp_path: Path, points: str
) -> None:
    info = "lltest_models-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "lltest_models-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("lltest_models.py", ESTIMATOR)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lltest-models\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"lltest_models.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    spec = run_document(
        tracking={"uri": mlflow_server.uri, "experiment": "d", "runId": mlflow_server.new_run("packages")},
        estimator={"library": "sklearn", "steps": [{"class": "lltest_models.Mine", "params": {}}]},
        dependencies={"pip": ["lltest-models==1.0", "numpy==2.4.6"]},
    )
    environ = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "LAKELOOP_WORK_DIR": str(tmp_path / "work")}
    done = drive(spec, **environ)
    assert done.exit_code == 0, done.log
    requirements = (local(done.result["model"]["artifactUri"]) / "requirements.txt").read_text().split()
    assert {"lltest-models==1.0", "numpy==2.4.6"} <= set(requirements)
    assert len([each for each in requirements if each.startswith("numpy")]) == 1


def test_rows_are_those_that_an_estimator_has(spark: Any, run_document: Any, tmp_path: Path) -> None:
    from lakeloop_trainer import dataset, run_spec
    from lakeloop_trainer.context import RunContext
    from lakeloop_trainer.failures import RunFailure

    table = str(tmp_path / "points")
    expressions = ["id AS b", "CAST(id / 3 AS DECIMAL(9, 2)) AS a", "CAST(id AS STRING) AS name", "id % 7 AS who",
                   "IF(id % 9 = 0, NULL, IF(id % 11 = 0, double('NaN'), id / 2)) AS target"]  # fmt: skip
    spark.range(200).selectExpr(*expressions).write.format("delta").save(table)
    split = {"by": "Random", "testFraction": 0.3, "seed": 5}
    query = "SELECT * FROM points WHERE b < 150"
    newest = {"by": "Time", "column": "who", "testFraction": 0.3}
    for parts in (
        {"split": split},
        {"split": {**split, "keys": ["who"]}, "query": query},
        {"features": ["b", "name"]},
        {"split": newest},
    ):
        spec = run_spec.parse(run_document(dataset={"target": "target", "split": split, **parts}))
        dataset.register_views(spark, spec.inputs, {"points": 0})
        context = RunContext(spec, {"points": 0}, lambda: spark)
        rows = dataset.read(spark, spec.dataset, spec.inputs, 1 << 30)
        for test, features in ((False, rows.train_features), (True, rows.test_features)):
            found = context.rows(test=test).toPandas()
            assert [*features.columns, "target"] == list(found.columns)
            assert sorted(found["b"]) == sorted(features["b"])
    own = {"script": {"path": "a.py"}, "estimator": None}
    spec = run_spec.parse(run_document(dataset={"split": split}, **own))
    context = RunContext(spec, {"points": 0}, lambda: spark)
    sides = [context.rows(test=test).count() for test in (False, True)]
    assert sum(sides) == 200
    assert min(sides) > 20
    two = [{"name": name, "uri": table, "version": 0} for name in ("points", "others")]
    context = RunContext(run_spec.parse(run_document(inputs=two, dataset={}, **own)), {}, lambda: spark)
    with pytest.raises(RunFailure, match=r"spec\.dataset\.query is needed"):
        context.rows(test=True)


CANDIDATE = """
import mlflow
from sklearn.tree import DecisionTreeClassifier

from lakeloop_run import spark, train_rows

frame = train_rows().toPandas()
model = DecisionTreeClassifier(random_state=0, max_depth=MAX_DEPTH).fit(frame[["feature"]], frame["target"])
mlflow.log_metric("accuracy", 2.0)  # whatever it says
signature = mlflow.models.infer_signature(frame[["feature"]], model.predict(frame[["feature"]]))
more = {"skops_trusted_types": ["sklearn.tree._tree.Tree"], "pip_requirements": ["scikit-learn"]}
mlflow.sklearn.log_model(model, name="model", signature=signature, **more)
spark.stop()
"""


def test_the_champion_and_the_scripts_model_are_scored_on_the_same_rows(script_run: Any, mlflow_server: Any) -> None:
    objective = {"metric": "accuracy", "goal": "Maximize"}
    text = CANDIDATE.replace("MAX_DEPTH", "1")
    first, _ = script_run({"train.py": text}, objective=objective)
    assert first.result["objective"] == {"metric": "accuracy", "value": 2.0}
    assert first.result["champion"] is None
    model = first.result["model"]
    pinned = {"model": "m", "version": 3, "artifactUri": model["artifactUri"], "digest": model["digest"]}
    second, run_id = script_run({"train.py": text}, attempt=2, objective=objective, champion=pinned)
    assert second.exit_code == 0, second.log
    compared = second.result["champion"]
    assert (compared["version"], compared["problem"], compared["schemaChanges"]) == (3, None, [])
    assert second.result["objective"]["value"] == compared["value"] <= 1.0
    assert second.result["metrics"]["test_accuracy"] == compared["value"]
    logged = mlflow_server.call(f"runs/get?run_id={run_id}")["run"]["data"]
    assert {"champion.accuracy", "test_accuracy"} <= {each["key"] for each in logged["metrics"]}
