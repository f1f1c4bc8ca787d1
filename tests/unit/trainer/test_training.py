"""Metrics against scikit-learn's own scorers, plots, explanations, and what a bad fit is called."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lakeloop_trainer import dataset, explain, metrics, plots, split, tracking, training
from lakeloop_trainer.cgroup import container_memory_limit, container_memory_peak
from lakeloop_trainer.dataset import Rows
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Dataset, Input, Objective, Split
from sklearn import datasets, svm
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.pipeline import Pipeline


def rows_of(loaded: Any, test: int = 50) -> Rows:
    frame, target = loaded.data, loaded.target
    order = np.random.default_rng(0).permutation(len(frame))
    frame, target = frame.iloc[order].reset_index(drop=True), target.iloc[order].reset_index(drop=True)
    types = dict.fromkeys(frame.columns, "double")
    return Rows(frame[test:], target[test:], frame[:test], target[:test], 0, types)


def fitted(model: Any, rows: Rows) -> Pipeline:
    pipeline = Pipeline([("0", model)])
    training.fit(pipeline, rows)
    return pipeline


# As other solvers do on columns this unlike, but at once
QUICK = LogisticRegression(solver="liblinear")
SCORERS = {
    "accuracy": "accuracy", "f1": "f1_weighted", "precision": "precision_weighted", "recall": "recall_weighted",
    "log_loss": "neg_log_loss", "roc_auc": "roc_auc_ovr_weighted", "r2": "r2", "mae": "neg_mean_absolute_error",
    "rmse": "neg_root_mean_squared_error",
}  # fmt: skip


@pytest.mark.parametrize(
    ("loader", "model", "objective"),
    [
        pytest.param(datasets.load_breast_cancer, QUICK, "roc_auc", id="two classes"),
        pytest.param(datasets.load_iris, LogisticRegression(max_iter=5000), "f1", id="three classes"),
        pytest.param(datasets.load_diabetes, LinearRegression(), "r2", id="numbers"),
    ],
)
def test_metrics_are_scikit_learns(loader: Any, model: Any, objective: str) -> None:
    rows = rows_of(loader(as_frame=True))
    pipeline = fitted(model, rows)
    found = training.evaluate(pipeline, rows, None)
    assert found.objective == objective
    assert found.measured_on == "test"
    names = metrics.CLASSIFICATION if objective != "r2" else metrics.REGRESSION
    assert {name.removeprefix("test_") for name in found.metrics if name.startswith("test_")} == set(names)
    for name in names:
        scorer = "roc_auc" if name == "roc_auc" and objective == "roc_auc" else SCORERS[name]
        theirs = get_scorer(scorer)(pipeline, rows.test_features, rows.test_target)
        assert found.metrics[f"test_{name}"] == pytest.approx(-theirs if name in metrics.LOWER_IS_BETTER else theirs), (
            name
        )
    assert found.metrics[objective] == found.value == found.metrics[f"test_{objective}"]


def test_without_test_rows_the_training_rows_are_measured() -> None:
    rows = rows_of(datasets.load_iris(as_frame=True), test=0)
    found = training.evaluate(fitted(LogisticRegression(max_iter=5000), rows), rows, Objective("accuracy", "Maximize"))
    assert found.measured_on == "train"
    assert found.value == found.metrics["train_accuracy"]
    assert not [name for name in found.metrics if name.startswith("test_")]


def test_a_metric_that_is_not_defined_is_left_out() -> None:
    rows = rows_of(datasets.load_breast_cancer(as_frame=True), test=1)
    found = training.evaluate(fitted(QUICK, rows), rows, None)
    assert found.value is None
    assert "test_roc_auc" not in found.metrics
    assert "roc_auc" not in found.metrics
    assert "test_accuracy" in found.metrics


def test_string_classes_and_a_decision_function() -> None:
    rows = rows_of(datasets.load_breast_cancer(as_frame=True))
    named = Rows(rows.train_features, rows.train_target.map({0: "no", 1: "yes"}), rows.test_features,
                 rows.test_target.map({0: "no", 1: "yes"}), 0, rows.types)  # fmt: skip
    found = training.evaluate(fitted(svm.LinearSVC(), named), named, None)
    assert found.value is not None
    assert found.value > 0.9
    assert "test_log_loss" not in found.metrics


def test_an_objective_of_the_other_kind() -> None:
    rows = rows_of(datasets.load_iris(as_frame=True))
    with pytest.raises(RunFailure, match="a classifier has accuracy") as caught:
        training.evaluate(fitted(LogisticRegression(max_iter=5000), rows), rows, Objective("r2", "Maximize"))
    assert (caught.value.reason, caught.value.field) == ("EvaluationFailed", "spec.objective.metric")


def plain_rows(features: dict[str, list[Any]], target: list[Any], types: dict[str, str]) -> Rows:
    frame = pd.DataFrame(features)
    return Rows(frame, pd.Series(target, name="target"), frame.head(0), pd.Series([], name="target"), 0, types)


@pytest.mark.parametrize(
    ("rows", "reason", "says"),
    [
        pytest.param(
            plain_rows({"a": ["x", "secret", "z"]}, [0, 1, 0], {"a": "string"}),
            "NonNumericFeature",
            "column(s) a",
            id="text",
        ),
        pytest.param(
            plain_rows({"a": [1.0, None, 2.0]}, [0, 1, 0], {"a": "double"}), "NullFeature", "SimpleImputer", id="NULLs"
        ),
        pytest.param(
            plain_rows({"a": [1.0, 2.0]}, [1, 1], {"a": "double"}), "SingleClass", "needs two", id="one class"
        ),
        pytest.param(
            plain_rows({"a": [1.0, 2.0]}, [0.1, 0.2], {"a": "double"}),
            "FitFailed",
            "Unknown label type",
            id="numbers to classify",
        ),
    ],
)
def test_what_a_bad_fit_is_called(rows: Rows, reason: str, says: str) -> None:
    with pytest.raises(RunFailure) as caught:
        training.fit(Pipeline([("0", LogisticRegression())]), rows)
    assert caught.value.reason == reason
    assert says in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("loader", "model", "expected"),
    [
        (datasets.load_breast_cancer, QUICK, {"confusion_matrix.png", "roc.png"}),
        (datasets.load_iris, LogisticRegression(max_iter=5000), {"confusion_matrix.png", "roc.png"}),
        (datasets.load_diabetes, LinearRegression(), {"residuals.png"}),
    ],
)
def test_plots_are_pngs(loader: Any, model: Any, expected: set[str], tmp_path: Path) -> None:
    rows = rows_of(loader(as_frame=True))
    pipeline = fitted(model, rows)
    written = training.draw(tmp_path, pipeline, training.evaluate(pipeline, rows, None))
    assert {path.name for path in written} == expected
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in written)


def test_the_column_that_decides_comes_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"noise": rng.normal(size=300), "signal": rng.normal(size=300)})
    truth = pd.Series((frame["signal"] > 0).astype(int))
    pipeline = Pipeline([("0", LogisticRegression())]).fit(frame, truth)
    written = explain.permutation(tmp_path, pipeline, frame, truth, "roc_auc", 100, 0, "test rows")
    assert {path.suffix for path in written} == {".csv", ".txt", ".png"}
    table = (tmp_path / "permutation_importance.csv").read_text().splitlines()
    assert table[1].startswith("signal,")
    words = (tmp_path / "permutation_importance.txt").read_text()
    assert "On 100 test rows" in words
    assert "Without signal, roc_auc falls by" in words
    assert "noise makes no difference" in words


@pytest.mark.parametrize(("seconds", "columns", "expected"), [(0.001, 30, 5), (1.0, 30, 2), (3.0, 30, 0)])
def test_explaining_keeps_to_its_budget(seconds: float, columns: int, expected: int) -> None:
    assert explain.repeats_within(seconds, columns, budget=60) == expected


def test_what_skops_can_write_is_written_so() -> None:
    rows = rows_of(datasets.load_iris(as_frame=True))
    assert tracking.serialization(fitted(LogisticRegression(max_iter=5000), rows)) == ("skops", [])
    form, trusted = tracking.serialization(fitted(GradientBoostingClassifier(n_estimators=2), rows))
    assert form == "skops"
    assert all(name.startswith(("sklearn.", "numpy.")) for name in trusted)


class Homemade(LogisticRegression):
    """An estimator of a package that skops does not know."""


def test_other_peoples_classes_are_pickled() -> None:
    rows = rows_of(datasets.load_iris(as_frame=True))
    assert tracking.serialization(fitted(Homemade(max_iter=5000), rows))[0] == "cloudpickle"


def test_requirements_are_pinned_from_what_is_installed() -> None:
    found = tracking.requirements(["sklearn.linear_model.Ridge"], "skops")
    assert found[0] == "mlflow==3.17.2"
    assert {item.partition("==")[0] for item in found} == {
        "mlflow",
        "numpy",
        "pandas",
        "scikit-learn",
        "scipy",
        "skops",
    }
    assert all(item.partition("==")[2] for item in found)


def test_the_signature_knows_nulls_that_the_first_rows_do_not_have() -> None:
    features = pd.DataFrame(
        {
            "always": np.arange(20, dtype="int32"),
            "late": [1.0] * 19 + [np.nan],
            "yes": pd.Series([True] * 19 + [None], dtype=object),
            "name": pd.Series([None] * 12 + ["a"] * 8, dtype="str"),
        }
    )
    found = tracking.signature_of(features, np.array([0, 1])).inputs
    assert {column.name: (column.type.name, column.required) for column in found.inputs} == {
        "always": ("integer", True),
        "late": ("double", False),
        "yes": ("boolean", False),
        "name": ("string", False),
    }


FOUND = {"id": "bigint", "tenure": "int", "day": "date", "churned": "boolean"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(Dataset(None, ("tenure",), "churned"), (["tenure"], "churned"), id="given"),
        pytest.param(
            Dataset(None, None, "churned", Split(keys=("id", "day"))),
            (["tenure"], "churned"),
            id="all but target and keys",
        ),
    ],
)
def test_columns_are_chosen(wanted: Dataset, expected: tuple[list[str], str]) -> None:
    assert dataset.choose_columns(wanted, FOUND) == expected


@pytest.mark.parametrize(
    ("wanted", "reason", "field", "says"),
    [
        pytest.param(
            Dataset(None, ("tenur",), "churned"),
            "ColumnNotFound",
            "spec.dataset.features[0]",
            "mean tenure?",
            id="typo",
        ),
        pytest.param(
            Dataset(None, None, "Churned"), "ColumnNotFound", "spec.dataset.target", "mean churned?", id="case"
        ),
        pytest.param(
            Dataset(None, ("tenure",), "churned", Split(keys=("x",))),
            "ColumnNotFound",
            "spec.dataset.split.keys[0]",
            "there are id",
            id="key",
        ),
        pytest.param(
            Dataset(None, ("day",), "churned"),
            "NonNumericFeature",
            "spec.dataset.features[0]",
            "unix_timestamp",
            id="a date",
        ),
        pytest.param(
            Dataset(None, ("tenure",), "day"),
            "SchemaMismatch",
            "spec.dataset.target",
            "type date",
            id="a date as target",
        ),
    ],
)
def test_columns_that_will_not_do(wanted: Dataset, reason: str, field: str, says: str) -> None:
    with pytest.raises(RunFailure) as caught:
        dataset.choose_columns(wanted, FOUND)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert says in caught.value.message


def arrow(target: list[Any], side: list[bool]) -> Any:
    import pyarrow as pa

    return pa.table(
        {"a": pa.array(range(len(side)), pa.int64()), "t": pa.array(target, pa.int64()), split.COLUMN: side}
    )


def test_sides_and_rows_without_a_target() -> None:
    rows = dataset.to_rows(arrow([0, None, 1, 0], [False, False, True, False]), ["a"], "t", {})
    assert rows.train_features["a"].tolist() == [0, 3]
    assert rows.test_target.tolist() == [1]
    assert rows.without_target == 1


def test_a_target_that_is_not_a_number_is_none() -> None:
    import pyarrow as pa

    table = pa.table({"a": [1, 2, 3], "t": [0.5, float("nan"), None], split.COLUMN: [False, False, True]})
    rows = dataset.to_rows(table, ["a"], "t", {})
    assert (rows.train_target.tolist(), rows.without_target) == ([0.5], 2)


def test_booleans_with_nulls_are_numbers_that_an_imputer_fills() -> None:
    import pyarrow as pa

    table = pa.table({"a": [True, None, False], "b": [True, False, True], "t": [0, 1, 0], split.COLUMN: [False] * 3})
    rows = dataset.to_rows(table, ["a", "b"], "t", {})
    assert rows.train_features["b"].dtype == bool
    training.fit(Pipeline([("0", SimpleImputer(strategy="most_frequent")), ("1", LogisticRegression())]), rows)


def test_a_null_on_one_side_makes_numbers_of_both() -> None:
    import pyarrow as pa

    table = pa.table({"a": [1, 2, None], "t": [0, 1, 0], split.COLUMN: [False, False, True]})
    rows = dataset.to_rows(table, ["a"], "t", {})
    assert (rows.train_features["a"].dtype, rows.test_features["a"].dtype) == (float, float)


KEPT: list[Any] = []


def test_rows_come_over_without_more_copies_than_they_need() -> None:
    import pyarrow as pa

    count = 200_000
    batches = [
        pa.record_batch({**{name: np.arange(1000.0) for name in "abcdefgh"}, "t": [0, 1] * 500,
                         split.COLUMN: [False] * 800 + [True] * 200})
        for _ in range(count // 1000)
    ]  # fmt: skip
    table = pa.Table.from_batches(batches)
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    KEPT.append(pool)  # it must outlive what was taken from it
    pa.set_memory_pool(pool)
    try:
        tracemalloc.start()
        rows = dataset.to_rows(table, list("abcdefgh"), "t", {})
        elsewhere = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert len(rows.train_target) == 160_000
    assert (pool.max_memory() + elsewhere) / table.nbytes < 2, "each side is cut out, and made pandas, one by one"


def test_many_residuals_are_drawn_as_some_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure) or path)
    truth = np.arange(3.0 * plots.MAX_DOTS)
    plots.regressor_plots(tmp_path, metrics.Scored({}, truth, truth[::-1].copy(), None), "test rows")
    dots, bars = drawn[0].axes
    assert len(dots.collections[0].get_offsets()) == plots.MAX_DOTS
    assert sum(bar.get_height() for bar in bars.patches) == len(truth), "all rows count"


def test_a_regressor_of_text_names_the_target() -> None:
    rows = plain_rows({"a": [1.0, 2.0]}, ["x", "y"], {"a": "double", "target": "string"})
    with pytest.raises(RunFailure, match="column target is text") as caught:
        training.fit(Pipeline([("0", LinearRegression())]), rows)
    assert (caught.value.reason, caught.value.field) == ("SchemaMismatch", "spec.dataset.target")


def test_text_is_blamed_for_what_text_does_alone() -> None:
    rows = plain_rows({"a": ["x", "y"]}, [0, 1], {"a": "string"})
    found = training.fit_failure(ValueError("the distribution has no strategy"), rows)
    assert found.reason == "FitFailed"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        pytest.param(arrow([None, None], [False, True]), "TargetAllNull", id="no target"),
        pytest.param(arrow([0, 1], [True, True]), "EmptyTable", id="nothing to train on"),
    ],
)
def test_rows_that_will_not_do(table: Any, reason: str) -> None:
    with pytest.raises(RunFailure) as caught:
        dataset.to_rows(table, ["a"], "t", {})
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        pytest.param(None, "spec.inputs[0].uri", "the table at s3a://lake/t has no rows", id="the whole table"),
        pytest.param("SELECT * FROM t", "spec.dataset.query", "gives no rows", id="a query"),
    ],
)
def test_no_rows_names_what_is_empty(query: str | None, field: str, words: str) -> None:
    inputs = [Input(index=0, name="t", uri="s3a://lake/t", version=0, ingest=None)]
    failure = dataset.no_rows(Dataset(query=query, features=None, target="y"), inputs)
    assert (failure.reason, failure.field) == ("EmptyTable", field)
    assert words in str(failure)


@pytest.mark.parametrize(
    ("ask", "old", "new"),
    [
        pytest.param(container_memory_limit, "memory.limit_in_bytes", "memory.max", id="limit"),
        pytest.param(container_memory_peak, "memory.max_usage_in_bytes", "memory.peak", id="peak"),
    ],
)
def test_the_containers_memory(ask: Callable[[Path], int | None], old: str, new: str, tmp_path: Path) -> None:
    assert ask(tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / old).write_text("1468006400\n")
    assert ask(tmp_path) == 1468006400
    (tmp_path / new).write_text("max\n")
    assert ask(tmp_path) == 1468006400
    (tmp_path / "memory" / old).write_text("9223372036854771712\n")
    assert ask(tmp_path) is None
    (tmp_path / new).write_text("1000\n")
    assert ask(tmp_path) == 1000
