from __future__ import annotations

from typing import Any

import pytest
from lakeloop_trainer.estimator import build, effective_params, pipeline_code
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Step
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

SCALER = "sklearn.preprocessing.StandardScaler"
LOGISTIC = "sklearn.linear_model.LogisticRegression"
FOREST = "sklearn.ensemble.RandomForestClassifier"
TREE = "sklearn.tree.DecisionTreeClassifier"


def test_steps_become_a_pipeline() -> None:
    pipeline = build([Step(SCALER, {}), Step(LOGISTIC, {"C": 1})])
    assert [(name, type(step).__name__) for name, step in pipeline.steps] == [
        ("0", "StandardScaler"),
        ("1", "LogisticRegression"),
    ]
    assert effective_params(pipeline)["1.C"] == 1


@pytest.mark.parametrize(
    ("steps", "reason", "field", "says"),
    [
        pytest.param([("nowhere.Model", {})], "ImportError", "class", "cannot be imported", id="no such module"),
        pytest.param([("Ridge", {})], "ImportError", "class", "with its module", id="no module given"),
        pytest.param(
            [("sklearn.linear_model.Rigde", {})], "ImportError", "class", "mean sklearn.linear_model.Ridge", id="typo"
        ),
        pytest.param([("os.system", {})], "ImportError", "class", "not a scikit-learn estimator", id="a function"),
        pytest.param([("pathlib.Path", {})], "ImportError", "class", "not a scikit-learn estimator", id="a class"),
        pytest.param([(LOGISTIC, {"c": 1})], "InvalidParameter", "params.c", "mean C?", id="unknown parameter"),
        pytest.param([(LOGISTIC, {"C": -1})], "InvalidParameter", "params.C", "must be a float", id="out of range"),
        pytest.param([(LOGISTIC, {"C": "1"})], "InvalidParameter", "params.C", "Got '1'", id="wrong type"),
        pytest.param([(SCALER, {})], "InvalidParameter", "class", "does not predict", id="no predictor"),
        pytest.param(
            [("sklearn.cluster.KMeans", {})], "InvalidParameter", "class", "classifier or a regressor", id="clusters"
        ),
        pytest.param(
            [("sklearn.ensemble.VotingClassifier", {})], "InvalidParameter", "params", "'estimators'", id="incomplete"
        ),
        pytest.param([(f"{__name__}.Broken", {})], "InvalidParameter", "", "no such model", id="raises what it likes"),
        pytest.param(
            [(LOGISTIC, {}), (LOGISTIC, {})], "InvalidParameter", "class", "only the last", id="predictor first"
        ),
        pytest.param(
            [(FOREST, {"max_features": 1})],
            "AmbiguousNumber",
            "params.max_features",
            '{float: "1.0"}',
            id="max_features 1",
        ),
        pytest.param(
            [(FOREST, {"max_samples": 2})],
            "AmbiguousNumber",
            "params.max_samples",
            '{float: "2.0"}',
            id="max_samples 2",
        ),
        pytest.param(
            [(TREE, {"min_samples_split": 1})],
            "InvalidParameter",
            "params.min_samples_split",
            '{float: "1.0"}',
            id="an integer too small, a float just right",
        ),
    ],
)
def test_what_cannot_be_built(steps: list[tuple[str, dict[str, Any]]], reason: str, field: str, says: str) -> None:
    with pytest.raises(RunFailure) as caught:
        build([Step(*step) for step in steps])
    assert (caught.value.failure_class, caught.value.reason) == ("Application", reason)
    assert caught.value.field == f"spec.estimator.steps[0].{field}".rstrip(".")
    assert says in caught.value.message


class Broken(BaseEstimator):  # type: ignore[misc]
    def __init__(self) -> None:
        raise LookupError("no such model")

    def fit(self, _features: Any, _target: Any) -> None: ...

    def predict(self, _features: Any) -> None: ...


def test_a_class_without_parameter_constraints() -> None:
    """`LabelEncoder` declares none, and its `_validate_params` raises for that."""
    steps = [Step("sklearn.preprocessing.LabelEncoder", {}), Step(LOGISTIC, {})]
    assert len(build(steps).steps) == 2


def test_the_second_step_is_named_in_the_field() -> None:
    with pytest.raises(RunFailure) as caught:
        build([Step(SCALER, {}), Step(LOGISTIC, {"tol": "x"})])
    assert caught.value.field == "spec.estimator.steps[1].params.tol"


@pytest.mark.parametrize(
    ("class_path", "params"),
    [
        pytest.param(FOREST, {"max_features": 1.0}, id="a float says what it means"),
        pytest.param(FOREST, {"max_features": 5}, id="an integer that no fraction equals"),
        pytest.param(FOREST, {"n_estimators": 1}, id="integers only"),
        pytest.param(LOGISTIC, {"C": 1}, id="floats only"),
        pytest.param(LOGISTIC, {"fit_intercept": True}, id="a boolean is not an integer"),
        pytest.param(TREE, {"min_samples_split": 2}, id="the fraction ends at 1"),
    ],
)
def test_what_is_not_ambiguous(class_path: str, params: dict[str, Any]) -> None:
    built = build([Step(class_path, params)]).steps[0][1].get_params(deep=False)
    assert {name: built[name] for name in params} == params


def test_a_function_is_shown_by_its_name() -> None:
    """Its ``repr`` has an address in it: a second attempt would bring MLflow another value."""
    steps = [
        Step("sklearn.feature_selection.SelectKBest", {"k": 1}),
        Step("sklearn.linear_model.LogisticRegression", {}),
    ]
    assert effective_params(build(steps))["0.score_func"] == (
        "sklearn.feature_selection._univariate_selection.f_classif"
    )


def test_lists_become_tuples_where_tuples_are_meant() -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    pipeline = build(
        [Step("sklearn.feature_extraction.text.CountVectorizer", {"ngram_range": [1, 2]}), Step(LOGISTIC, {})]
    )
    assert pipeline.steps[0][1].ngram_range == (1, 2)
    assert isinstance(pipeline.steps[0][1], CountVectorizer)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            [Step(SCALER, {"with_mean": False}), Step(LOGISTIC, {"C": 0.5, "solver": "saga"})], id="two steps"
        ),
        pytest.param([Step(FOREST, {"max_features": 1.0, "class_weight": {"0": 1, "1": 2.5}})], id="a map"),
        pytest.param([Step("sklearn.neural_network.MLPClassifier", {"hidden_layer_sizes": [8, 4]})], id="a list"),
        pytest.param(
            [Step("sklearn.impute.SimpleImputer", {"missing_values": float("nan")}), Step(TREE, {})], id="NaN"
        ),
    ],
)
def test_the_code_builds_an_equal_pipeline(steps: list[Step]) -> None:
    pipeline = build(steps)
    namespace: dict[str, Any] = {"__name__": "pipeline"}
    exec(compile(pipeline_code(steps, pipeline), "pipeline.py", "exec"), namespace)  # noqa: S102
    again = namespace["build"]()
    assert isinstance(again, Pipeline)
    assert [name for name, _ in again.steps] == [name for name, _ in pipeline.steps]
    for (_, ours), (_, theirs) in zip(pipeline.steps, again.steps, strict=True):
        assert type(ours) is type(theirs)
        assert repr(ours.get_params()) == repr(theirs.get_params())
