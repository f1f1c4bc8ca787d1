"""Shapley values: against their definition, and what is written of them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lakeloop_trainer import explain, shapley
from lakeloop_trainer.explain import Answers
from lakeloop_trainer.shap_report import shap
from sklearn import datasets
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC


def exact(model: Any, row: Any, other: Any) -> list[float]:
    """By the definition: over all orders of the columns."""
    columns = len(row)
    total = np.zeros(columns)
    for order in itertools.permutations(range(columns)):
        mixed = other.copy()
        before = model(mixed[None])[0]
        for column in order:
            mixed[column] = row[column]
            after = model(mixed[None])[0]
            total[column] += after - before
            before = after
    return list(total / math.factorial(columns))


def interaction(rows: Any) -> Any:
    return rows[:, 0] * rows[:, 1] + 2 * rows[:, 2] + rows[:, 0] * rows[:, 1] * rows[:, 2]


def test_the_estimate_is_that_of_the_definition() -> None:
    sample = np.random.default_rng(1).normal(size=(40, 3))

    def outputs(cells: Any) -> Any:
        return interaction(np.take_along_axis(sample, cells, axis=0)).reshape(-1, 1)

    runs = [shapley.shapley(outputs, 40, 1, 3, seed, 60) for seed in range(10)]
    assert {run.orders for run in runs} == {100}
    found = np.mean([run.values[:, :, 0] for run in runs], axis=0)
    expected = np.array([exact(interaction, row, sample[0]) for row in sample])
    assert np.abs(found - expected).max() < 0.15
    # for every run and row, to the last digit: what it moves, all together, is what was to be explained
    for run in runs:
        moved = run.values[:, :, 0].sum(axis=1)
        assert moved == pytest.approx(interaction(sample) - run.average[0])


def test_a_linear_model_is_explained_by_its_coefficients() -> None:
    data = datasets.load_diabetes(as_frame=True)
    model = LinearRegression().fit(data.data, data.target)
    ask = explain.asks_pipeline(model, data.data)
    found = shapley.shapley(lambda cells: ask(cells).predicted.reshape(-1, 1), 50, 1, 10, 0, 60)
    expected = (data.data.to_numpy()[:50] - data.data.to_numpy()[0]) * model.coef_
    assert np.abs(found.values[:, :, 0] - expected).max() < 1e-9


def test_what_takes_too_long_is_cut_or_left() -> None:
    def slow(cells: Any) -> Any:
        spent[0] += len(cells)
        return np.zeros((len(cells), 1))

    spent = [0]
    found = shapley.shapley(slow, 30, 5, 4, 0, budget_seconds=1e-9 + 0.5)
    assert len(found.values) == 30
    with pytest.raises(shapley.TooSlow):
        shapley.shapley(slow, 30, 5, 4, 0, budget_seconds=0)


def written(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().splitlines()


def test_two_classes_with_text_among_the_columns(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"colour": generator.choice(["red", "blue"], 200), "noise": generator.choice(["a", "b"], 200)})
    truth = np.where(frame["colour"] == "red", "buys", "leaves")
    pipeline = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, truth)
    ask = explain.asks_pipeline(pipeline, frame)

    paths = shap(tmp_path, frame, ask, pipeline.classes_.tolist(), 0, "test rows")

    assert {path.name for path in paths} == {"shap_importance.csv", "shap_importance.txt", "shap_summary.png"}
    assert written(tmp_path, "shap_importance.csv")[0] == "feature,mean_abs_shap"
    assert written(tmp_path, "shap_importance.csv")[1].startswith("colour,0.4")
    words = "\n".join(written(tmp_path, "shap_importance.txt"))
    assert "SHAP values of 200 test rows: how far each column's value moves the probability of leaves" in words
    assert "- colour moves it by 0.4" in words
    assert (tmp_path / "shap_summary.png").read_bytes().startswith(b"\x89PNG")


def test_more_classes_have_a_column_each(tmp_path: Path) -> None:
    data = datasets.load_iris(as_frame=True)
    pipeline = LogisticRegression(max_iter=1000).fit(data.data, data.target)
    shap(tmp_path, data.data, explain.asks_pipeline(pipeline, data.data), [0, 1, 2], 0, "test rows")
    header = "feature,mean_abs_shap,mean_abs_shap[0],mean_abs_shap[1],mean_abs_shap[2]"
    assert written(tmp_path, "shap_importance.csv")[0] == header
    assert written(tmp_path, "shap_importance.csv")[1].startswith("petal length")
    assert "the probability of a class." in written(tmp_path, "shap_importance.txt")[0]


def test_numbers_and_their_direction(tmp_path: Path) -> None:
    data = datasets.load_diabetes(as_frame=True)
    pipeline = LinearRegression().fit(data.data, data.target)
    shap(tmp_path, data.data, explain.asks_pipeline(pipeline, data.data), [], 0, "test rows")
    words = "\n".join(written(tmp_path, "shap_importance.txt"))
    assert "moves the prediction, which is 1" in words
    assert "higher values raise it" in words


def test_a_classifier_without_probabilities(tmp_path: Path) -> None:
    data = datasets.load_breast_cancer(as_frame=True)
    frame = data.data.iloc[:, :4]
    pipeline = LinearSVC().fit(frame, data.target)
    shap(tmp_path, frame.head(50), explain.asks_pipeline(pipeline, frame), [0, 1], 0, "test rows")
    assert "the score of 1" in written(tmp_path, "shap_importance.txt")[0]


@pytest.mark.parametrize("metric", ["accuracy", "f1", "precision", "recall", "roc_auc", "log_loss"])
def test_stacked_permutation_finds_what_decides(metric: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"noise": generator.normal(size=300), "signal": generator.normal(size=300)})
    truth = (frame["signal"] > 0).astype(int).to_numpy()
    model = LogisticRegression().fit(frame, truth)
    of_pipeline = explain.asks_pipeline(model, frame)

    def ask(cells: Any) -> Answers:
        scores = of_pipeline(cells).scores
        return Answers(scores.argmax(axis=1), scores)

    explain.stacked_permutation(tmp_path, list(frame.columns), ask, truth, 2, metric, 0, "test rows")
    table = written(tmp_path, "permutation_importance.csv")
    assert table[1].startswith("signal,")
    words = "\n".join(written(tmp_path, "permutation_importance.txt"))
    assert f"Without signal, {metric} {'rises' if metric == 'log_loss' else 'falls'} by" in words


def test_an_importance_that_is_not_defined_says_so(tmp_path: Path) -> None:
    def ask(cells: Any) -> Answers:
        return Answers(np.zeros(len(cells), dtype=int), None)

    with pytest.raises(explain.LeftOut, match="roc_auc is not defined"):
        explain.stacked_permutation(tmp_path, ["a"], ask, np.zeros(5, dtype=int), 2, "roc_auc", 0, "test rows")
