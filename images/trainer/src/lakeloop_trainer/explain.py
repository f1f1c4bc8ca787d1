"""Permutation importance: how much each column counts, in a table, a plot and plain words."""

from __future__ import annotations

import csv
import logging
import time
from pathlib import Path
from typing import Any

from lakeloop_trainer import plots

REPEATS = 5
BUDGET_SECONDS = 60.0

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

log = logging.getLogger(__name__)


def repeats_within(seconds_per_score: float, columns: int, budget: float = BUDGET_SECONDS) -> int:
    """How often each column can be shuffled within the budget: from `REPEATS` down to 0, which means: leave it."""
    affordable = int(budget / max(seconds_per_score * columns, 1e-9))
    return min(REPEATS, affordable)


def permutation(
    folder: Path, pipeline: Any, features: Any, truth: Any, metric: str, sample_rows: int, seed: int, rows: str
) -> list[Path]:
    """Writes ``permutation_importance.{csv,png,txt}``; nothing where it is not defined or would take too long."""
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import get_scorer

    if len(features) > sample_rows:
        sample = features.sample(n=sample_rows, random_state=seed).index
        features, truth = features.loc[sample], truth.loc[sample]
    scorer = get_scorer("roc_auc" if metric == "roc_auc" and len(pipeline.classes_) == 2 else SCORERS[metric])
    started = time.monotonic()
    base = scorer(pipeline, features, truth)
    repeats = repeats_within(time.monotonic() - started, features.shape[1])
    if base != base or repeats == 0:
        log.warning("no permutation importance: %s", "the objective is not defined" if repeats else "it takes too long")
        return []
    found = permutation_importance(pipeline, features, truth, scoring=scorer, n_repeats=repeats, random_state=seed)
    order = found.importances_mean.argsort()[::-1]
    names = [str(features.columns[i]) for i in order]
    means = [float(found.importances_mean[i]) for i in order]
    deviations = [float(found.importances_std[i]) for i in order]
    folder.mkdir(parents=True, exist_ok=True)
    table, words = folder / "permutation_importance.csv", folder / "permutation_importance.txt"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["feature", "importance_mean", "importance_std"])
        writer.writerows(zip(names, means, deviations, strict=True))
    words.write_text(in_words(names, means, deviations, metric, float(base), len(features), rows))
    return [table, words, plots.importance_plot(folder / "permutation_importance.png", names, means, deviations)]


def in_words(
    names: list[str], means: list[float], deviations: list[float], metric: str, base: float, count: int, rows: str
) -> str:
    """The table in sentences, for those who do not read tables of importances every day."""
    sign = -1 if metric in ("log_loss", "rmse", "mae") else 1
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
