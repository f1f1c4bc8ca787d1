"""What an exception of Spark ML's stands for."""

from __future__ import annotations

from lakeloop_trainer.failures import Context, RunFailure, classify, exception_line, scrub
from lakeloop_trainer.spark_ml.rows import Rows, without_values


def failure_of(error: Exception, doing: str, reason: str, rows: Rows) -> RunFailure:
    """What an exception of Spark's stands for: executors, storage, the data's fault where it can be shown, else
    ``reason``, without a value of a row."""
    known = classify(error, Context(doing, reason, "spec.estimator"))
    if known.reason != reason:
        return known
    line = exception_line(error)
    if "Unseen label" in line:
        return RunFailure(
            reason,
            f"{doing} met a text that StringIndexer did not learn, in a row held out: write handleInvalid: keep in "
            "its params",
            "spec.estimator.steps",
        )
    if any(word in line for word in ("null", "Null", "NaN")) and (absent := rows.null_columns()):
        return RunFailure(
            "NullFeature",
            f"The pipeline cannot take missing values; column(s) {', '.join(absent[:10])} have NULLs. Add a step "
            "pyspark.ml.feature.Imputer (numbers) or handleInvalid: keep (StringIndexer), or filter them in "
            "spec.dataset.query",
            "spec.dataset.features",
        )
    return RunFailure(reason, scrub(f"{doing} raised {without_values(line)}")[:1000], "spec.estimator")
