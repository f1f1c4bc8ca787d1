"""Explanations of a model: how much each column counts, in a table, a plot and plain words.

The model is asked through the whole pipeline, so the columns are those of the data, whatever the steps make of them.
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakeloop_trainer import plots

if TYPE_CHECKING:
    from lakeloop_trainer.attempt import Attempt

REPEATS = 5
BUDGET_SECONDS = 60.0
STACKED_ROWS = 200_000
"""Shuffled rows in one question to a model that answers many as fast as few."""
BACKGROUND_ROWS = 100
LISTED_CLASSES = 50
TAG = "lakeloop.io/explanation"

SCORERS = {
    "accuracy": "accuracy",
    "f1": "f1_weighted",
    "precision": "precision_weighted",
    "recall": "recall_weighted",
    "roc_auc": "roc_auc_ovr_weighted",
    "log_loss": "neg_log_loss",
    "r2": "r2",
    "rmse": "neg_root_mean_squared_error",
    "mae": "neg_mean_absolute_error",
}
_LOWER_IS_BETTER = ("log_loss", "rmse", "mae")

log = logging.getLogger(__name__)


class LeftOut(Exception):
    """There is no explanation, for a reason that is told."""


@dataclass(frozen=True)
class Answers:
    """What a model said of some rows: predictions, and scores where it has them."""

    predicted: Any
    """A classifier's as indexes of its classes."""
    scores: Any | None
    """Shape (rows, classes), or (rows,) for a decision function of two classes."""


Ask = Callable[[Any], Answers]
"""From cells, as in `shapley`, to the model's answers."""


def explained(attempt: Attempt, folder: Path, explain: Callable[[], Sequence[Path]]) -> dict[str, Path]:
    """The explanation's files by their names in MLflow. One that fails is told (log, run tag) and fails no run."""
    method = attempt.spec.explanation.method
    if method == "None":
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    files: Sequence[Path] = ()
    try:
        files, told = explain(), method
    except LeftOut as reason:
        told = f"none: {reason}"
    except Exception as error:  # a model without its explanation is still a model
        told = f"none: {method} raised {type(error).__name__}"
    if not files:
        log.warning("explanation: %s", told)
    attempt.tracker().tags({TAG: told})
    return {f"explanation/{path.name}": path for path in files}


def asks_pipeline(pipeline: Any, sample: Any) -> Ask:
    """Asks a scikit-learn pipeline; ``sample``: a pandas DataFrame of its features."""
    import numpy as np

    from lakeloop_trainer.metrics import class_scores, is_classifier

    columns = [sample.iloc[:, j] for j in range(sample.shape[1])]
    classes = pipeline.classes_ if is_classifier(pipeline) else None

    def ask(cells: Any) -> Answers:
        import pandas as pd

        rows = pd.concat([column.take(cells[:, j]).reset_index(drop=True) for j, column in enumerate(columns)], axis=1)
        scores = class_scores(pipeline, rows) if classes is not None else None
        if scores is not None:
            return Answers(None, scores)
        predicted = pipeline.predict(rows)
        return Answers(predicted if classes is None else np.searchsorted(classes, predicted), None)

    return ask


# Permutation importance


def repeats_within(seconds_per_score: float, columns: int, budget: float = BUDGET_SECONDS) -> int:
    """How often each column can be shuffled within the budget: from `REPEATS` down to 0, which means: leave it."""
    affordable = int(budget / max(seconds_per_score * columns, 1e-9))
    return min(REPEATS, affordable)


def permutation(
    folder: Path, pipeline: Any, features: Any, truth: Any, metric: str, sample_rows: int, seed: int, rows: str
) -> list[Path]:
    """Writes ``permutation_importance.{csv,png,txt}`` of a scikit-learn pipeline; raises LeftOut."""
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import get_scorer

    if len(features) > sample_rows:
        sample = features.sample(n=sample_rows, random_state=seed).index
        features, truth = features.loc[sample], truth.loc[sample]
    scorer = get_scorer("roc_auc" if metric == "roc_auc" and len(pipeline.classes_) == 2 else SCORERS[metric])
    started = time.monotonic()
    base = scorer(pipeline, features, truth)
    repeats = repeats_within(time.monotonic() - started, features.shape[1])
    _check(base, repeats, metric)
    found = permutation_importance(pipeline, features, truth, scoring=scorer, n_repeats=repeats, random_state=seed)
    return _write_permutation(folder, list(features.columns), found.importances, metric, base, len(features), rows)


def stacked_permutation(
    folder: Path, names: Sequence[str], ask: Ask, truth: Any, classes: int, metric: str, seed: int, rows: str
) -> list[Path]:
    """The same of a model that is asked through ``ask``, many shuffled copies of the rows at a time.

    ``truth``: for a classifier (``classes`` above 0) the indexes of the classes. Raises LeftOut.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    count, columns = len(truth), len(names)
    straight = np.tile(np.arange(count)[:, None], (1, columns))
    ask(straight)  # the first question has to wait for code to be made
    started = time.monotonic()
    base = measure(metric, truth, ask(straight), classes)
    at_once = max(1, STACKED_ROWS // count)
    # a question of many copies takes longer than one of one copy, though not that many times
    repeats = repeats_within((time.monotonic() - started) / min(at_once, 4), columns)
    _check(base, repeats, metric)
    jobs = [(column, repeat) for column in range(columns) for repeat in range(repeats)]
    losses = np.zeros((columns, repeats))
    for first in range(0, len(jobs), at_once):
        batch = jobs[first : first + at_once]
        cells = np.tile(straight, (len(batch), 1))
        for block, (column, _) in enumerate(batch):
            cells[block * count : (block + 1) * count, column] = generator.permutation(count)
        answers = ask(cells)
        for block, (column, repeat) in enumerate(batch):
            here = slice(block * count, (block + 1) * count)
            part = Answers(answers.predicted[here], None if answers.scores is None else answers.scores[here])
            losses[column, repeat] = base - measure(metric, truth, part, classes)
    return _write_permutation(folder, names, losses, metric, base, count, rows)


def measure(metric: str, truth: Any, answers: Answers, classes: int) -> float:
    """The metric, higher for a better model; NaN where it is not defined on these rows."""
    import numpy as np
    from sklearn import metrics as sk

    predicted, scores = answers.predicted, answers.scores
    if metric in ("r2", "rmse", "mae"):
        of_numbers = {"r2": sk.r2_score, "rmse": sk.root_mean_squared_error, "mae": sk.mean_absolute_error}
        found = float(of_numbers[metric](truth, predicted))
        return -found if metric in _LOWER_IS_BETTER else found
    if metric == "accuracy":
        return float(sk.accuracy_score(truth, predicted))
    if metric in ("f1", "precision", "recall"):
        found = sk.precision_recall_fscore_support(truth, predicted, average="weighted", zero_division=0)
        return float(found[("precision", "recall", "f1").index(metric)])
    if scores is None or len(np.unique(truth)) < (classes if metric == "roc_auc" else 1):
        return float("nan")
    if metric == "log_loss":
        return -float(sk.log_loss(truth, scores, labels=list(range(classes))))
    if classes == 2:
        return float(sk.roc_auc_score(truth, scores[:, 1]))
    return float(sk.roc_auc_score(truth, scores, multi_class="ovr", average="weighted", labels=list(range(classes))))


def _check(base: float, repeats: int, metric: str) -> None:
    if base != base:
        raise LeftOut(f"{metric} is not defined on the rows looked at")
    if repeats == 0:
        raise LeftOut(f"shuffling every column would take longer than {BUDGET_SECONDS:.0f} s")


def _write_permutation(
    folder: Path, columns: Sequence[Any], losses: Any, metric: str, base: float, count: int, rows: str
) -> list[Path]:
    means, deviations = losses.mean(axis=1), losses.std(axis=1)
    order = means.argsort()[::-1]
    names = [str(columns[i]) for i in order]
    mean, deviation = [float(means[i]) for i in order], [float(deviations[i]) for i in order]
    folder.mkdir(parents=True, exist_ok=True)
    table, words = folder / "permutation_importance.csv", folder / "permutation_importance.txt"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["feature", "importance_mean", "importance_std"])
        writer.writerows(zip(names, mean, deviation, strict=True))
    words.write_text(in_words(names, mean, deviation, metric, float(base), count, rows))
    return [table, words, plots.importance_plot(folder / "permutation_importance.png", names, mean, deviation)]


def in_words(
    names: list[str], means: list[float], deviations: list[float], metric: str, base: float, count: int, rows: str
) -> str:
    """The table in sentences, for those who do not read tables of importances every day."""
    sign = -1 if metric in _LOWER_IS_BETTER else 1
    lines = [
        f"On {count} {rows} the model's {metric} is {sign * base:.4g}. Shuffling one column at a time shows how much "
        "of it the column carries.",
    ]
    for name, mean, deviation in list(zip(names, means, deviations, strict=True))[:10]:
        if mean > 2 * deviation and mean > 0:
            worse = "rises" if sign < 0 else "falls"
            lines.append(f"- Without {name}, {metric} {worse} by {mean:.4g} (± {deviation:.2g}).")
        else:
            lines.append(f"- {name} makes no difference that can be told from chance ({mean:.2g} ± {deviation:.2g}).")
    if len(names) > 10:
        lines.append(f"- {len(names) - 10} more columns are in the table.")
    lines.append(
        "Columns that say the same as another look less important than they are: the model can fall back on the other."
    )
    return "\n".join(lines) + "\n"
