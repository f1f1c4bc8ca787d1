"""Metrics of a fitted pipeline, counted on the executors: same names and meaning as `lakeloop_trainer.metrics`."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from lakeloop_trainer import metrics as measures
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Objective
from lakeloop_trainer.spark_ml.rows import Rows
from lakeloop_trainer.spark_ml.wiring import Wiring
from lakeloop_trainer.split import COLUMN, quoted

PLOTTED_ROWS = 5000
ROWS_IN_ORDER = 250_000
MOST_RANGES = 64
_EPSILON = 2.220446049250313e-16  # to where scikit-learn clips probabilities of 64 bits
_TRUTH, _GUESS, _SCORES = "truth", "guess", "scores"


@dataclass(frozen=True)
class Evaluation:
    """As `training.Evaluation`; of the rows themselves only counts and a sample are here."""

    metrics: Mapping[str, float]
    objective: str
    value: float | None
    measured_on: str
    confusion: Sequence[tuple[Any, Any, int]]
    """(true class, predicted class, rows) of the side that was measured."""
    sample: measures.Scored
    """Some of its rows, for plots of scores and residuals."""


def objective_of(objective: Objective | None, *, classifier: bool, classes: int) -> str:
    """The objective's name; raises EvaluationFailed where it is not one of this model's."""
    names = measures.CLASSIFICATION if classifier else measures.REGRESSION
    wanted = objective.metric if objective else measures.default_objective(classifier, classes)
    if wanted not in names:
        kind = "classifier" if classifier else "regressor"
        raise RunFailure(
            "EvaluationFailed", f"spec.objective.metric is {wanted}; a {kind} has {', '.join(names)}",
            "spec.objective.metric",
        )  # fmt: skip
    return wanted


def evaluate(model: Any, wiring: Wiring, rows: Rows, objective: Objective | None, seed: int) -> Evaluation:
    """Scores both sides; raises RunFailure (EvaluationFailed), or what Spark raises."""
    from pyspark import StorageLevel

    classifier = bool(rows.classes)
    wanted = objective_of(objective, classifier=classifier, classes=len(rows.classes))
    scored = _scored(model, wiring, rows).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        confusion: dict[bool, list[tuple[Any, Any, int]]] = {False: [], True: []}
        found = _classification(scored, wiring, rows, confusion) if classifier else _regression(scored)
        on_test = rows.test_count > 0
        side = scored.filter(COLUMN if on_test else f"NOT {COLUMN}").drop(COLUMN)
        sample = rows.sample(side, PLOTTED_ROWS, rows.test_count if on_test else rows.train_count, seed)
    finally:
        scored.unpersist()
    names = {False: "train", True: "test"}
    metrics = {
        f"{names[test]}_{name}": value
        for test in (False, True)
        for name, value in found.get(test, {}).items()
        if math.isfinite(value)
    }
    value = metrics.get(f"{names[on_test]}_{wanted}")
    if value is not None:
        metrics[wanted] = value
    return Evaluation(metrics, wanted, value, names[on_test], confusion[on_test], _sampled(sample, rows.classes))


def score(model: Any, wiring: Wiring, rows: Rows) -> dict[bool, dict[str, float]]:
    """The metrics alone, by side (True: the test rows)."""
    from pyspark import StorageLevel

    scored = _scored(model, wiring, rows)
    if not rows.classes:
        return _regression(scored)
    scored = scored.persist(StorageLevel.MEMORY_AND_DISK)  # counted more than once
    try:
        return _classification(scored, wiring, rows, {False: [], True: []})
    finally:
        scored.unpersist()


def _scored(model: Any, wiring: Wiring, rows: Rows) -> Any:
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as f

    frame = model.transform(rows.labelled(rows.frame, wiring.label))
    columns = [
        f.col(quoted(COLUMN)).alias(COLUMN),
        f.col(wiring.label).alias("label"),
        f.col(quoted(rows.target)).alias(_TRUTH),
        f.col(quoted(wiring.raw_prediction)).cast("double").alias(_GUESS),
    ]
    if wiring.scores:
        columns.append(vector_to_array(f.col(quoted(wiring.scores))).alias(_SCORES))
    return frame.select(*columns)


def _classification(
    scored: Any, wiring: Wiring, rows: Rows, confusion: dict[bool, list[tuple[Any, Any, int]]]
) -> dict[bool, dict[str, float]]:
    from pyspark.sql import functions as f

    loss = f.lit(None).cast("double")
    if wiring.probabilities:
        of_truth = f.element_at(_SCORES, (f.col("label") + 1).cast("int"))
        loss = -f.log(f.least(f.greatest(of_truth, f.lit(_EPSILON)), f.lit(1 - _EPSILON)))
    counted = scored.groupBy(COLUMN, _TRUTH, _GUESS).agg(f.count("*").alias("rows"), f.sum(loss).alias("loss"))
    losses: dict[bool, list[float | None]] = {False: [], True: []}
    for row in counted.collect():
        test = bool(row[COLUMN])
        confusion[test].append((row[_TRUTH], rows.classes[int(row[_GUESS])], row["rows"]))
        losses[test].append(row["loss"])
    found = {}
    for test, counts in confusion.items():
        if not counts:
            continue
        values = _of_counts(counts)
        present = {truth for truth, _, _ in counts}
        known = present <= set(rows.classes)  # a class that training never saw: neither is defined
        total = [loss for loss in losses[test] if loss is not None]
        if known and len(total) == len(losses[test]):
            values["log_loss"] = sum(total) / sum(count for _, _, count in counts)
        if wiring.scores and known and len(present) == len(rows.classes):
            side = scored.filter(COLUMN if test else f"NOT {COLUMN}")
            if len(rows.classes) == 2:
                values["roc_auc"] = _binary_auc(side, sum(n for _, _, n in counts))
            elif wiring.probabilities:
                weights = {k: sum(n for truth, _, n in counts if truth == v) for k, v in enumerate(rows.classes)}
                values["roc_auc"] = _ovr_auc(side, weights)
        found[test] = values
    return found


def _of_counts(counts: Sequence[tuple[Any, Any, int]]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 weighted by the true classes' rows; 0 where one is not defined."""
    total = sum(n for _, _, n in counts)
    precision = recall = f1 = 0.0
    for label in {truth for truth, _, _ in counts}:
        right = sum(n for truth, guess, n in counts if truth == guess == label)
        support = sum(n for truth, _, n in counts if truth == label)
        guessed = sum(n for _, guess, n in counts if guess == label)
        of_label = right / guessed if guessed else 0.0
        precision += support * of_label
        recall += right
        f1 += support * 2 * right / (support + guessed)
    accuracy = sum(n for truth, guess, n in counts if truth == guess) / total
    return {"accuracy": accuracy, "precision": precision / total, "recall": recall / total, "f1": f1 / total}


def _binary_auc(side: Any, rows: int) -> float:
    from pyspark.sql import functions as f

    return _aucs(side.select("label", f.lit(1).alias("class"), f.col(_SCORES)[1].alias("score")), rows)[1]


def _ovr_auc(side: Any, weights: Mapping[int, int]) -> float:
    """One versus rest, weighted by the classes' rows."""
    from pyspark.sql import functions as f

    total = sum(weights.values())
    found = _aucs(side.select("label", f.posexplode(_SCORES).alias("class", "score")), total * len(weights))
    return sum(weights[k] * found[k] for k in weights) / total


def _aucs(scores: Any, rows: int) -> dict[int, float]:
    """Of each class the share of pairs, of a row of it and one of another, in which its row has the higher score.

    Every score counts as a threshold, and ties count half. `scores`: label, class, score. MLlib's own evaluator, asked
    for as much, takes minutes for ten million rows: it sorts them as objects.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    cuts: Sequence[float] = []
    if rows > ROWS_IN_ORDER:
        # a window has its rows in order in one task: each has those of a range of scores
        parts = min(MOST_RANGES, rows // ROWS_IN_ORDER + 1)
        shares = [part / parts for part in range(1, parts)]
        cuts = sorted(set(scores.agg(f.percentile_approx("score", shares, 1000)).first()[0]))
    place = reduce(operator.add, [(f.col("score") > cut).cast("int") for cut in cuts], f.lit(0))
    hit = (f.col("label") == f.col("class")).cast("long")
    counted = scores.groupBy("class", "score").agg(f.sum(hit).alias("hits"), f.count("*").alias("rows"))
    below = Window.partitionBy("class", "place").orderBy("score").rowsBetween(Window.unboundedPreceding, -1)
    misses = f.col("rows") - f.col("hits")
    won = f.col("hits") * (f.coalesce(f.sum(misses).over(below), f.lit(0)) + misses / 2)
    pairs = counted.withColumn("place", place).select(
        "class", "place", "hits", misses.alias("misses"), won.alias("won")
    )
    ranges = pairs.groupBy("class", "place").agg(*[f.sum(name).alias(name) for name in ("won", "hits", "misses")])
    totals: dict[int, tuple[float, int, int]] = {}
    for row in sorted(ranges.collect(), key=lambda row: int(row["place"])):
        total, hits, passed = totals.get(row["class"], (0.0, 0, 0))
        # all misses of the ranges below are won against, too
        total += row["won"] + row["hits"] * passed
        totals[row["class"]] = (total, hits + row["hits"], passed + row["misses"])
    return {index: total / (hits * passed) for index, (total, hits, passed) in totals.items() if hits and passed}


def _regression(scored: Any) -> dict[bool, dict[str, float]]:
    from pyspark.sql import functions as f

    error = f.col("label") - f.col(_GUESS)
    counted = scored.groupBy(COLUMN).agg(
        f.count("*").alias("rows"), f.sum(error * error).alias("squares"), f.avg(f.abs(error)).alias("mae"),
        f.var_pop("label").alias("variance"),
    )  # fmt: skip
    found = {}
    for row in counted.collect():
        values = {"rmse": math.sqrt(row["squares"] / row["rows"]), "mae": row["mae"]}
        spread = row["variance"] * row["rows"]
        if row["rows"] > 1:  # as scikit-learn has it where all are the same
            values["r2"] = 1 - row["squares"] / spread if spread else float(row["squares"] == 0)
        found[bool(row[COLUMN])] = values
    return found


def _sampled(table: Any, classes: Sequence[Any]) -> measures.Scored:
    import numpy as np

    frame = table.to_pandas()
    if not classes:
        return measures.Scored({}, frame["label"].to_numpy(), frame[_GUESS].to_numpy(), None)
    guesses = np.array(classes, dtype=object)[frame[_GUESS].to_numpy(dtype=int)]
    scores = np.stack([np.asarray(row, dtype=float) for row in frame[_SCORES]]) if _SCORES in frame else None
    return measures.Scored({}, np.array(frame[_TRUTH].tolist(), dtype=object), guesses, scores)
