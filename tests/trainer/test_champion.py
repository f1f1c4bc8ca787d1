"""The champion, scored on the run's own test rows: real Spark, a real MLflow server, real model files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.spark

FEATURES = ["mean_radius", "mean_texture", "mean_smoothness"]


@pytest.fixture(scope="module")
def tumours(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast-cancer data as a Delta table."""
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame
    frame.columns = [name.replace(" ", "_") for name in frame.columns]
    table = tmp_path_factory.mktemp("champion") / "tumours"
    spark.createDataFrame(frame).write.format("delta").save(str(table))
    return table


SKLEARN = [
    {"class": "sklearn.preprocessing.StandardScaler", "params": {}},
    {"class": "sklearn.linear_model.LogisticRegression", "params": {}},
]
SPARK = [{"class": "pyspark.ml.classification.LogisticRegression", "params": {"maxIter": 5}}]


def run(
    document: Any, server: Any, table: Path, features: list[str], champion: dict[str, Any] | None, experiment: str,
    library: str = "sklearn",
) -> Any:  # fmt: skip
    return document(
        tracking={"uri": server.uri, "experiment": experiment, "runId": server.new_run(experiment)},
        inputs=[{"name": "tumours", "uri": str(table), "version": 0}],
        dataset={"query": None, "features": features, "target": "target",
                 "split": {"by": "Random", "testFraction": 0.3, "seed": 7, "keys": []}},
        estimator={"library": library, "steps": SPARK if library == "spark" else SKLEARN},
        objective={"metric": "roc_auc", "goal": "Maximize"},
        explanation={"method": "None"},
        champion=champion,
    )  # fmt: skip


def test_a_champion_with_other_columns_is_scored_on_the_same_rows(
    drive_here: Any, run_document: Any, mlflow_server: Any, tumours: Path, tmp_path: Path
) -> None:
    first = drive_here(run(run_document, mlflow_server, tumours, [*FEATURES, "mean_area"], None, "first"))
    assert first.exit_code == 0, first.log
    model = first.result["model"]
    pinned = {"model": "tumours", "version": 1, "artifactUri": model["artifactUri"], "digest": model["digest"]}

    second = drive_here(run(run_document, mlflow_server, tumours, [*FEATURES, "worst_area"], pinned, "second"))

    assert second.exit_code == 0, second.log
    found = second.result["champion"]
    assert (found["version"], found["problem"]) == (1, None)
    assert sorted(found["schemaChanges"]) == ["mean_area: removed (double)", "worst_area: added (double)"]
    # the same split of the same table: were the same columns hashed, the rows would be the same, and so the number
    third = run(run_document, mlflow_server, tumours, [*FEATURES, "mean_area"], pinned, "third")
    same = drive_here(third)
    assert same.result["champion"]["value"] == pytest.approx(first.result["objective"]["value"], abs=1e-12)
    assert same.result["champion"]["schemaChanges"] == []
    logged = mlflow_server.call(f"runs/get?run_id={third['tracking']['runId']}")["run"]["data"]
    metrics = {each["key"]: each["value"] for each in logged["metrics"]}
    assert metrics["champion.roc_auc"] == same.result["champion"]["value"]

    broken = tmp_path / "broken"
    shutil.copytree(model["artifactUri"].removeprefix("file://"), broken)
    (broken / "requirements.txt").write_text("changed")
    cases = {
        "digest": {**pinned, "artifactUri": str(broken)},
        "gone": {**pinned, "artifactUri": str(tmp_path / "gone")},
    }
    (tmp_path / "gone").mkdir()
    for word, changed in cases.items():
        done = drive_here(run(run_document, mlflow_server, tumours, FEATURES, changed, f"case {word}"))
        assert done.exit_code == 0, done.log
        assert done.result["champion"]["value"] is None
        assert word in done.result["champion"]["problem"]


def test_a_champion_of_the_other_library_is_scored_on_the_same_rows(
    drive_here: Any, run_document: Any, mlflow_server: Any, tumours: Path
) -> None:
    """Each run has the same test rows: so each champion has the number that it had in its own run."""
    columns = [*FEATURES, "mean_area"]

    def pinned(done: Any, version: int) -> dict[str, Any]:
        model = done.result["model"]
        return {
            "model": "tumours", "version": version, "artifactUri": model["artifactUri"], "digest": model["digest"]
        }  # fmt: skip

    first = drive_here(run(run_document, mlflow_server, tumours, columns, None, "first of two"))
    assert first.exit_code == 0, first.log
    second = drive_here(
        run(run_document, mlflow_server, tumours, columns, pinned(first, 1), "second of two", library="spark")
    )
    assert second.exit_code == 0, second.log
    found = second.result["champion"]
    assert (found["version"], found["problem"], found["schemaChanges"]) == (1, None, [])
    assert found["value"] == pytest.approx(first.result["objective"]["value"], abs=1e-9)

    # fewer features than its champion, whose own are read beside: other rows are held out, and it is scored on those
    third = drive_here(run(run_document, mlflow_server, tumours, columns, pinned(second, 2), "third of two"))
    fourth = drive_here(run(run_document, mlflow_server, tumours, FEATURES, pinned(second, 2), "fourth of two"))
    for done in (third, fourth):
        assert done.exit_code == 0, done.log
        assert (done.result["champion"]["version"], done.result["champion"]["problem"]) == (2, None)
    assert third.result["champion"]["value"] == pytest.approx(second.result["objective"]["value"], abs=1e-9)
    assert third.result["champion"]["schemaChanges"] == []
    assert fourth.result["champion"]["value"] > 0.9
    assert fourth.result["champion"]["schemaChanges"] == ["mean_area: removed (double)"]
