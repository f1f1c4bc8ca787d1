"""Metrics of a fitted pipeline, by the names of the TrainingJob's objective."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lakeloop_trainer.failures import RunFailure

CLASSIFICATION = ("accuracy", "f1", "precision", "recall", "roc_auc", "log_loss")
REGRESSION = ("r2", "rmse", "mae")
LOWER_IS_BETTER = frozenset({"log_loss", "rmse", "mae"})


@dataclass(frozen=True)
class Scored:
    """Metrics over some rows, and what they were computed from (for the plots)."""

    metrics: dict[str, float]
    """Only those that are defined: ROC AUC needs two classes, R² two rows."""
    truth: Any
    predicted: Any
    scores: Any | None
    """Probabilities (or decision values), shape (rows, classes) or (rows,) for a decision function of two classes."""


def is_classifier(pipeline: Any) -> bool:
    """Whether the pipeline classifies; raises InvalidParameter where it neither classifies nor regresses."""
    from sklearn.base import is_classifier as classifies
    from sklearn.base import is_regressor as regresses

    if classifies(pipeline):
        return True
    if regresses(pipeline):
        return False
    index = len(pipeline.steps) - 1
    field = f"spec.estimator.steps[{index}].class"
    raise RunFailure(
        "InvalidParameter",
        f"{field} is {type(pipeline.steps[-1][1]).__name__}: end with a classifier or a regressor",
        field,
    )


def default_objective(classifier: bool, classes: int) -> str:
    """``roc_auc`` for two classes, ``f1`` for more, ``r2`` for numbers."""
    if not classifier:
        return "r2"
    return "roc_auc" if classes == 2 else "f1"


def score(pipeline: Any, features: Any, truth: Any) -> Scored:
    """Scores the rows: f1, precision and recall weighted by class, ROC AUC one-versus-rest and weighted."""
    if not is_classifier(pipeline):
        predicted = pipeline.predict(features)
        return Scored(_regression(truth, predicted), truth, predicted, None)
    scores, predicted = class_scores(pipeline, features), pipeline.predict(features)
    return Scored(_classification(pipeline, truth, predicted, scores), truth, predicted, scores)


def score_any(model: Any, features: Any, truth: Any, metric: str) -> Scored:
    """Scores a model of any origin; raises RunFailure where it can have no such metric.

    One that is no scikit-learn estimator has predictions and no class scores.
    """
    if hasattr(model, "get_params"):
        names = CLASSIFICATION if is_classifier(model) else REGRESSION
        if metric not in names:
            raise RunFailure("EvaluationFailed", f"it has {', '.join(names)}, and no {metric}")
        return score(model, features, truth)
    predicted = model.predict(features)
    if metric in REGRESSION:
        return Scored(_regression(truth, predicted), truth, predicted, None)
    return Scored(_classification(model, truth, predicted, None), truth, predicted, None)


def class_scores(pipeline: Any, features: Any) -> Any | None:
    """Class probabilities, else decision values, else None."""
    for method in ("predict_proba", "decision_function"):
        if hasattr(pipeline, method):
            return getattr(pipeline, method)(features)
    return None


def _regression(truth: Any, predicted: Any) -> dict[str, float]:
    from sklearn import metrics as sk

    values = {
        "rmse": float(sk.root_mean_squared_error(truth, predicted)),
        "mae": float(sk.mean_absolute_error(truth, predicted)),
    }
    if len(truth) > 1:
        values["r2"] = float(sk.r2_score(truth, predicted))
    return _finite(values)


def _classification(pipeline: Any, truth: Any, predicted: Any, scores: Any | None) -> dict[str, float]:
    from sklearn import metrics as sk

    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, predicted, average="weighted", zero_division=0)
    values = {
        "accuracy": float(sk.accuracy_score(truth, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }
    if scores is None:
        return _finite(values)
    classes = list(pipeline.classes_)
    known = set(classes)
    present = set(truth.tolist() if hasattr(truth, "tolist") else truth)
    if not present <= known:  # a class that training never saw: neither is defined
        return _finite(values)
    if hasattr(pipeline, "predict_proba"):
        values["log_loss"] = float(sk.log_loss(truth, scores, labels=classes))
    if len(classes) == 2 and len(present) == 2:
        positive = scores[:, 1] if scores.ndim == 2 else scores
        values["roc_auc"] = float(sk.roc_auc_score(truth == classes[1], positive))
    elif len(classes) > 2 and present == known and hasattr(pipeline, "predict_proba"):
        values["roc_auc"] = float(
            sk.roc_auc_score(truth, scores, multi_class="ovr", average="weighted", labels=classes)
        )
    return _finite(values)


def _finite(values: dict[str, float]) -> dict[str, float]:
    """JSON and the result have no NaN: what is not defined is left out."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
