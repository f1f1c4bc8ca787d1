"""Predictions of known estimators from an array, with the same bits as from a DataFrame of the same numbers.

scikit-learn looks at its input at every step of a pipeline: names, types, values. For one row that is a hundred times
the arithmetic. The reader of the body has looked already, so that a few common estimators are computed here as
scikit-learn computes them; of others a twin without names is asked, which is still cheaper than with a DataFrame. What
is on no list here has no kernel. `lakeloop_server.fast` compares each with the model's own answers before it is used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lakeloop_server.model import ServedModel

Array = np.ndarray[Any, Any]
# None: not sure, ask the model itself. Exceptions mean the same.
Function = Callable[[Array], Array | None]

_PREDICTIONS = ("predict", "predict_proba", "predict_log_proba")
# Look at numbers alone once they are fitted: no code of users, no columns by name, no output whose type is the input's,
# nothing random
_TRANSFORMERS = frozenset(
    (
        *("Binarizer", "KBinsDiscretizer", "MaxAbsScaler", "MinMaxScaler", "Normalizer", "PCA", "PolynomialFeatures"),
        *(
            "PowerTransformer",
            "QuantileTransformer",
            "RobustScaler",
            "SelectKBest",
            "SelectPercentile",
            "SplineTransformer",
        ),
        *("StandardScaler", "TruncatedSVD", "VarianceThreshold"),
    )
)
_TREES = frozenset(f"{tree}{kind}" for tree in ("DecisionTree", "ExtraTree") for kind in ("Classifier", "Regressor"))
_FORESTS = frozenset(
    f"{forest}{kind}" for forest in ("RandomForest", "ExtraTrees") for kind in ("Classifier", "Regressor")
)
_BOOSTED = frozenset(
    f"{boosting}{kind}"
    for boosting in ("GradientBoosting", "HistGradientBoosting")
    for kind in ("Classifier", "Regressor")
)
_LINEAR_REGRESSORS = frozenset(
    ("ElasticNet", "ElasticNetCV", "Lasso", "LassoCV", "LassoLars", "Lars", "LinearRegression", "Ridge", "RidgeCV")
)
_LINEAR_CLASSIFIERS = frozenset(("LinearSVC", "LogisticRegression", "LogisticRegressionCV", "SGDClassifier"))
_OTHERS = frozenset(
    (
        *("ARDRegression", "BayesianRidge", "BernoulliNB", "GammaRegressor", "GaussianNB", "HuberRegressor", "KMeans"),
        *("KNeighborsClassifier", "KNeighborsRegressor", "LinearDiscriminantAnalysis", "LinearSVR", "MLPClassifier"),
        *(
            "MLPRegressor",
            "PassiveAggressiveClassifier",
            "Perceptron",
            "PoissonRegressor",
            "QuadraticDiscriminantAnalysis",
        ),
        *("RidgeClassifier", "RidgeClassifierCV", "SGDRegressor", "SVC", "SVR", "NuSVC", "NuSVR", "TweedieRegressor"),
    )
)
_PREDICTORS = _TREES | _FORESTS | _BOOSTED | _LINEAR_REGRESSORS | _LINEAR_CLASSIFIERS | _OTHERS


@dataclass(frozen=True)
class Kernel:
    """A model's predictions from an array of rows.

    ``independent``: a row's answer is the same to the last bit, whatever rows are beside it.
    """

    run: Function
    independent: bool


def kernel(model: ServedModel) -> Kernel | None:
    """What computes this model's predictions, if its flavor and all its parts are known to need no DataFrame."""
    pyfunc, schema = model.pyfunc, model.input_schema
    flavor = pyfunc.metadata.flavors.get("python_function", {})
    method = flavor.get("predict_fn", "predict")
    if schema is None or method not in _PREDICTIONS or model.params_schema is not None:
        return None
    width = len(schema.inputs) if not schema.is_tensor_spec() else int(schema.inputs[0].shape[-1])
    names = None if schema.is_tensor_spec() else schema.input_names()
    if flavor.get("loader_module") == "mlflow.sklearn":
        return _of_sklearn(pyfunc.get_raw_model(), method, names, width)
    if flavor.get("loader_module") == "mlflow.lightgbm" and names is not None and method == "predict":
        return _of_lightgbm(pyfunc.get_raw_model(), names, width)
    return None


def _class_of(estimator: Any) -> str:
    """The name of a class of scikit-learn's own; empty for any other."""
    kind = type(estimator)
    return kind.__name__ if kind.__module__.startswith("sklearn.") else ""


def _of_sklearn(estimator: Any, method: str, names: Sequence[str] | None, width: int) -> Kernel | None:
    steps = [step for _, step in estimator.steps] if _class_of(estimator) == "Pipeline" else [estimator]
    steps = [step for step in steps if step not in (None, "passthrough")]
    if not steps or not _takes(steps[0], names, width):
        return None
    *transformers, last = steps
    if not all(_class_of(step) in _TRANSFORMERS for step in transformers) or _class_of(last) not in _PREDICTORS:
        return None
    if any(hasattr(step, "_sklearn_output_config") for step in [*steps, estimator]) or not hasattr(last, method):
        return None
    predict = _predicting(last, method)
    if predict is None:
        return None
    row_by_row = {"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"}
    independent = _class_of(last) in _TREES | _FORESTS | _BOOSTED and {*map(_class_of, transformers)} <= row_by_row
    functions = [_transforming(step) for step in transformers]
    return Kernel(_chained(functions, predict) if functions else predict, independent)


def _takes(step: Any, names: Sequence[str] | None, width: int) -> bool:
    """Whether a first step was fitted on these columns in this order; another order is refused by scikit-learn."""
    fitted = getattr(step, "feature_names_in_", None)
    if fitted is not None and names is not None and list(fitted) != list(names):
        return False
    return bool(getattr(step, "n_features_in_", None) == width)


def _chained(functions: Sequence[Function], last: Function) -> Function:
    def run(rows: Array) -> Array | None:
        for function in functions:
            found = function(rows)
            # scikit-learn refuses at the next step what has overflowed at this one
            if found is None or not np.isfinite(found).all():
                return None
            rows = found
        return last(rows)

    return run


def _nameless(estimator: Any) -> Any:
    """The same estimator as one that has never seen names, and so does not miss them; its arrays are shared."""
    twin = copy.copy(estimator)
    vars(twin).pop("feature_names_in_", None)
    return twin


def _transforming(step: Any) -> Function:
    if _class_of(step) != "StandardScaler":
        twin: Function = _nameless(step).transform
        return twin
    mean, scale = step.mean_ if step.with_mean else None, step.scale_ if step.with_std else None

    def transform(rows: Array) -> Array:
        scaled = rows.copy(order="K") if rows.dtype.kind == "f" else rows.astype(np.float64)
        if mean is not None:
            scaled -= mean.astype(scaled.dtype, copy=False)
        if scale is not None:
            scaled /= scale.astype(scaled.dtype, copy=False)
        return scaled

    return transform


def _predicting(estimator: Any, method: str) -> Function | None:
    name = _class_of(estimator)
    if name in _TREES | _FORESTS and estimator.n_outputs_ == 1 and method in ("predict", "predict_proba"):
        return _of_trees(estimator, method)
    if name in _LINEAR_REGRESSORS and isinstance(estimator.coef_, np.ndarray):
        return _linear(estimator)
    if name in _LINEAR_CLASSIFIERS and method == "predict" and isinstance(estimator.coef_, np.ndarray):
        return _linear_classes(estimator)
    if name == "LogisticRegression" and method == "predict_proba" and len(estimator.classes_) == 2:
        return _logistic(estimator)
    if name in _FORESTS and estimator.n_jobs not in (None, 1):
        return None  # its sum is in the order in which its threads end
    if name.startswith("GradientBoosting") and _class_of(estimator.init_) not in ("DummyClassifier", "DummyRegressor"):
        return None
    if name.startswith("HistGradientBoosting") and estimator.is_categorical_ is not None:
        return None
    twin: Function = getattr(_nameless(estimator), method)
    return twin


def _linear(estimator: Any) -> Function:
    coefficients = estimator.coef_ if estimator.coef_.ndim == 1 else estimator.coef_.T
    intercept = estimator.intercept_

    def predict(rows: Array) -> Array:
        found: Array = rows @ coefficients + intercept
        return found

    return predict


def _decision(estimator: Any) -> Callable[[Array], Array]:
    coefficients, intercept = estimator.coef_.T, estimator.intercept_

    def decide(rows: Array) -> Array:
        scores: Array = rows @ coefficients + intercept
        return scores.reshape(-1) if scores.shape[1] == 1 else scores

    return decide


def _linear_classes(estimator: Any) -> Function:
    decide, classes = _decision(estimator), estimator.classes_

    def predict(rows: Array) -> Array:
        scores = decide(rows)
        indices = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        found: Array = classes.take(indices, axis=0)
        return found

    return predict


def _logistic(estimator: Any) -> Function:
    from scipy.special import expit

    decide = _decision(estimator)

    def predict(rows: Array) -> Array:
        scores = decide(rows)
        expit(scores, out=scores)
        return np.stack([1 - scores, scores], axis=1)

    return predict


def _of_trees(estimator: Any, method: str) -> Function | None:
    name = _class_of(estimator)
    if name in _FORESTS and estimator.n_jobs not in (None, 1):
        return None  # its sum is in the order in which its threads end
    trees = [one.tree_ for one in (estimator.estimators_ if name in _FORESTS else [estimator])]
    classes = getattr(estimator, "classes_", None)
    width = 1 if classes is None else len(classes)
    divided = name in _FORESTS

    def predict(rows: Array) -> Array | None:
        narrow = rows.astype(np.float32)
        if not np.isfinite(narrow).all():
            return None
        if divided:
            total = np.zeros((len(narrow), width))
            for tree in trees:
                total += tree.predict(narrow)[:, :width]
            total /= len(trees)
        else:
            total = trees[0].predict(narrow)[:, :width]
        if classes is None:
            return total[:, 0]
        if method == "predict_proba":
            return total
        found: Array = classes.take(total.argmax(axis=1), axis=0)
        return found

    return predict


def _of_lightgbm(model: Any, names: Sequence[str], width: int) -> Kernel | None:
    """LightGBM's own boosters, and its classifiers and regressors for scikit-learn, where no column is a category."""
    kind = f"{type(model).__module__}.{type(model).__name__}"
    if kind == "lightgbm.basic.Booster":
        booster, options = model, {}
    elif kind in ("lightgbm.sklearn.LGBMRegressor", "lightgbm.sklearn.LGBMClassifier") and isinstance(
        model.objective_, str
    ):
        booster, options = model.booster_, _options(model, names)
    else:
        return None
    if booster.num_feature() != width or booster.pandas_categorical:
        return None
    classes = model.classes_ if kind.endswith("LGBMClassifier") else None

    def predict(rows: Array) -> Array:
        # As LightGBM makes an array of a table: whole numbers beside nothing else become doubles
        found: Array = booster.predict(rows.astype(np.result_type(rows.dtype, np.float32), copy=False), **options)
        if classes is None:
            return found
        shares = found if found.ndim == 2 else np.vstack((1.0 - found, found)).transpose()
        labels: Array = classes.take(shares.argmax(axis=1))
        return labels

    return Kernel(predict, independent=True)


class _Asked(Exception):
    pass


def _options(model: Any, names: Sequence[str]) -> dict[str, Any]:
    """What a wrapper for scikit-learn hands its booster beside the rows."""
    import pandas as pd

    options: dict[str, Any] = {}

    class Recorder:
        def predict(self, _: Any, **found: Any) -> Any:
            options.update(found)
            raise _Asked

    twin = copy.copy(model)
    twin._Booster = Recorder()
    try:
        twin.predict(pd.DataFrame([[0.0] * len(names)], columns=list(names)))
    except _Asked:
        return options
    raise TypeError(f"{type(model).__name__} did not ask its booster")
