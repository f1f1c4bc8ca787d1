"""Fitting and scoring, between the rows and the record: no Spark and no MLflow in here."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakeloop_trainer import metrics as measures
from lakeloop_trainer import plots
from lakeloop_trainer.dataset import Rows
from lakeloop_trainer.failures import RunFailure, exception_line, scrub
from lakeloop_trainer.run_spec import Objective

_TEXT = ("string", "varchar", "char")


@dataclass(frozen=True)
class Evaluation:
    """A fitted pipeline's metrics. ``measured_on`` is the side that the objective and the plots are of."""

    metrics: Mapping[str, float]
    """``train_<name>``, ``test_<name>`` and the objective's plain name."""
    objective: str
    value: float | None
    """None where the objective is not defined on its rows (ROC AUC of one class)."""
    measured_on: str
    """``test``, or ``train`` where no row was held out."""
    scored: measures.Scored


def check_rows(pipeline: Any, rows: Rows) -> None:
    """Finds what would make the fit fail in worse words: SingleClass, SchemaMismatch."""
    target = str(rows.train_target.name)
    if not measures.is_classifier(pipeline):
        if rows.types.get(target, "").startswith(_TEXT):
            raise RunFailure(
                "SchemaMismatch",
                f"spec.dataset.target: column {target} is text, and a regressor learns numbers; make it a number in "
                "spec.dataset.query, or end spec.estimator.steps with a classifier",
                "spec.dataset.target",
            )
    elif rows.train_target.nunique() < 2:
        raise RunFailure(
            "SingleClass",
            f"The {len(rows.train_target)} training rows have one class of {rows.train_target.name} only; a classifier "
            "needs two. With few rows, lower spec.dataset.split.testFraction or change its seed",
            "spec.dataset.target",
        )


def fit(pipeline: Any, rows: Rows) -> None:
    """Fits the pipeline on the training rows; raises RunFailure (NonNumericFeature, NullFeature, FitFailed …)."""
    check_rows(pipeline, rows)
    try:
        with warnings.catch_warnings(action="default"):
            pipeline.fit(rows.train_features, rows.train_target)
    except MemoryError as error:
        raise RunFailure(
            "DatasetTooLarge", "The fit ran out of memory; raise spec.spark.driver.memoryOverhead", "spec.spark.driver"
        ) from error
    except Exception as error:
        raise fit_failure(error, rows) from error


def fit_failure(error: Exception, rows: Rows) -> RunFailure:
    """The failure that an exception of ``fit`` stands for: the data's fault where it can be shown, else FitFailed."""
    text = str(error)
    features = rows.train_features
    strings = [str(name) for name in features.columns if rows.types.get(str(name), "").startswith(_TEXT)]
    if strings and re.search(r"could not convert string|Cannot use|\bstr(ing)?s?\b", text, re.IGNORECASE):
        return RunFailure(
            "NonNumericFeature",
            f"The pipeline cannot take text; column(s) {', '.join(strings[:10])} are strings. Encode them in a step, "
            "turn them into numbers in spec.dataset.query, or leave them out of spec.dataset.features",
            "spec.dataset.features",
        )
    nulls = [str(name) for name, count in features.isna().sum().items() if count]
    if nulls and ("NaN" in text or "missing values" in text or "infinity" in text):
        return RunFailure(
            "NullFeature",
            f"The pipeline cannot take missing values; column(s) {', '.join(nulls[:10])} have NULLs. Add a step "
            "sklearn.impute.SimpleImputer, or filter them in spec.dataset.query",
            "spec.dataset.features",
        )
    # the text can quote values of rows: only what stands outside of quotes is told
    line = _without_values(exception_line(error))
    return RunFailure("FitFailed", scrub(f"The pipeline's fit raised {line}")[:1000], "spec.estimator")


def evaluate(pipeline: Any, rows: Rows, objective: Objective | None) -> Evaluation:
    """Scores both sides; raises RunFailure (EvaluationFailed) where the objective is not one of this model's."""
    classifier = measures.is_classifier(pipeline)
    names = measures.CLASSIFICATION if classifier else measures.REGRESSION
    wanted = objective.metric if objective else measures.default_objective(classifier, rows.train_target.nunique())
    if wanted not in names:
        kind = "classifier" if classifier else "regressor"
        raise RunFailure(
            "EvaluationFailed",
            f"spec.objective.metric is {wanted}; a {kind} has {', '.join(names)}",
            "spec.objective.metric",
        )
    measured_on = "test" if len(rows.test_features) else "train"
    try:
        train = measures.score(pipeline, rows.train_features, rows.train_target)
        test = measures.score(pipeline, rows.test_features, rows.test_target) if measured_on == "test" else None
    except Exception as error:
        line = _without_values(exception_line(error))
        raise RunFailure("EvaluationFailed", f"Scoring the model raised {line}", "spec.estimator") from error
    scored = test or train
    found = {f"train_{name}": value for name, value in train.metrics.items()}
    found |= {f"test_{name}": value for name, value in (test.metrics if test else {}).items()}
    value = scored.metrics.get(wanted)
    if value is not None:
        found[wanted] = value
    return Evaluation(found, wanted, value, measured_on, scored)


def draw(folder: Path, pipeline: Any, evaluation: Evaluation) -> list[Path]:
    """The plots of the evaluation as PNG files."""
    rows = "test rows" if evaluation.measured_on == "test" else "training rows"
    if measures.is_classifier(pipeline):
        return plots.classifier_plots(folder, list(pipeline.classes_.tolist()), evaluation.scored, rows)
    return plots.regressor_plots(folder, evaluation.scored, rows)


def _without_values(line: str) -> str:
    return re.sub(r"'[^'\n]*'", "'…'", line)
