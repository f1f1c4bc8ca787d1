"""Plots of a fitted pipeline, as PNG files.

Drawn on ``matplotlib.figure.Figure`` without pyplot: no global state, no display, and a second less to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lakeloop_trainer.metrics import Scored

MAX_CLASSES_WITH_NUMBERS = 20
MAX_ROC_CLASSES = 10
MAX_DOTS = 10_000


def classifier_plots(folder: Path, classes: list[Any], scored: Scored, rows: str) -> list[Path]:
    """``confusion_matrix.png`` and, where scores and every class are there, ``roc.png``; ``rows`` names the rows."""
    from sklearn.metrics import confusion_matrix

    labels = classes + sorted(set(_list(scored.truth)) - set(classes), key=str)
    matrix = confusion_matrix(scored.truth, scored.predicted, labels=labels)
    written = [confusion_plot(folder / "confusion_matrix.png", labels, matrix, rows)]
    if scored.scores is not None and len(set(_list(scored.truth)) & set(classes)) > 1:
        written.append(roc_plot(folder / "roc.png", classes, scored, rows))
    return written


def regressor_plots(folder: Path, scored: Scored, rows: str) -> list[Path]:
    """``residuals.png``: residuals over predictions, and their histogram."""
    import numpy as np

    predicted = np.asarray(scored.predicted, dtype=float).ravel()
    residuals = np.asarray(scored.truth, dtype=float).ravel() - predicted
    figure = _figure(9, 4)
    left, right = figure.subplots(1, 2)
    shown: Any = slice(None)
    if len(predicted) > MAX_DOTS:  # in no order of the rows', and the same each time
        shown = np.random.default_rng(0).choice(len(predicted), MAX_DOTS, replace=False)
    left.scatter(predicted[shown], residuals[shown], s=12, alpha=0.6)
    left.axhline(0, color="grey", linewidth=1)
    left.set(xlabel="predicted", ylabel="true − predicted", title=f"Residuals, {rows}")
    right.hist(residuals, bins=min(30, max(5, len(residuals) // 5)))
    right.set(xlabel="true − predicted", ylabel="rows", title="Their distribution")
    return [_save(figure, folder / "residuals.png")]


def importance_plot(path: Path, names: list[str], means: list[float], deviations: list[float]) -> Path:
    """Bars, the most important feature first, 30 at most."""
    shown = list(zip(names, means, deviations, strict=True))[:30][::-1]
    figure = _figure(7, 1.5 + 0.3 * len(shown))
    axes = figure.subplots()
    axes.barh([n for n, _, _ in shown], [m for _, m, _ in shown], xerr=[d for _, _, d in shown])
    axes.axvline(0, color="grey", linewidth=1)
    axes.set(xlabel="loss of the objective when the column is shuffled", title="Permutation importance")
    return _save(figure, path)


def shap_swarm(path: Path, names: list[str], values: Any, columns: list[Any], what: str) -> Path:
    """A dot per row and feature, at its SHAP value, coloured by the feature's value; 20 features at most.

    ``values``: shape (rows, features); ``columns``: the features' values; both the most important first.
    """
    import numpy as np
    import pandas as pd

    count = min(20, len(names))
    figure = _figure(7.5, 1.5 + 0.35 * count)
    axes = figure.subplots()
    dots = None
    for place in range(count):
        found = values[:, place]
        # dots that would lie on each other are moved apart, up and down in turn
        bins = np.digitize(found, np.linspace(found.min(), found.max() + 1e-12, 60))
        seen: dict[int, int] = {}
        heights = np.zeros(len(found))
        for i, where in enumerate(bins):
            seen[where] = seen.get(where, 0) + 1
            heights[i] = (seen[where] // 2) * (1 if seen[where] % 2 else -1)
        heights *= 0.35 / max(1.0, float(np.abs(heights).max()))
        numbers = pd.to_numeric(columns[place], errors="coerce")
        known = numbers.notna().to_numpy()
        level = count - 1 - place
        axes.scatter(found[~known], level + heights[~known], s=6, color="grey", linewidths=0)
        if known.any():
            ranks = numbers[known].astype(float).rank(pct=True).to_numpy()
            dots = axes.scatter(
                found[known], level + heights[known], s=6, c=ranks, cmap="coolwarm", vmin=0, vmax=1, linewidths=0
            )
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(count), names[:count][::-1])
    axes.set(xlabel=f"SHAP value: effect on {what}", title="SHAP summary")
    if dots is not None:
        bar = figure.colorbar(dots, ax=axes, ticks=[0, 1], aspect=40)
        bar.ax.set_yticklabels(["low", "high"])
        bar.set_label("value of the column")
    return _save(figure, path)


def shap_bars(path: Path, names: list[str], means: Any, classes: list[Any], what: str) -> Path:
    """Stacked bars: the mean absolute SHAP value by class, shape (features, classes); 20 features at most."""
    count, shown = min(20, len(names)), min(MAX_ROC_CLASSES, len(classes))
    figure = _figure(7.5, 1.5 + 0.35 * count)
    axes = figure.subplots()
    left = means[:count, 0] * 0
    for index in range(shown):
        axes.barh(names[:count][::-1], means[:count, index][::-1], left=left[::-1], label=str(classes[index]))
        left = left + means[:count, index]
    axes.legend(loc="lower right")
    axes.set(xlabel=f"mean |SHAP value|: effect on {what}", title="SHAP summary")
    return _save(figure, path)


def confusion_plot(path: Path, labels: list[Any], matrix: Any, rows: str) -> Path:
    """``matrix[i][j]``: rows of class ``i`` that were taken for class ``j``."""
    side = min(12.0, 3.5 + 0.35 * len(labels))
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    figure.colorbar(axes.imshow(matrix, cmap="Blues"), ax=axes)
    if len(labels) <= MAX_CLASSES_WITH_NUMBERS:
        for i, line in enumerate(matrix):
            for j, count in enumerate(line):
                dark = count > matrix.max() / 2
                axes.text(j, i, str(count), ha="center", va="center", color="white" if dark else "black")
    ticks = range(len(labels))
    axes.set_xticks(ticks, [str(label) for label in labels], rotation=45 if len(labels) > 5 else 0)
    axes.set_yticks(ticks, [str(label) for label in labels])
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, {rows}")
    return _save(figure, path)


def roc_plot(path: Path, classes: list[Any], scored: Scored, rows: str) -> Path:
    """One curve for two classes, else one per class, ten at most."""
    import numpy as np
    from sklearn.metrics import auc, roc_curve

    figure = _figure(5, 4.5)
    axes = figure.subplots()
    truth, scores = np.asarray(scored.truth), np.asarray(scored.scores)
    if len(classes) == 2:
        curves = [(classes[1], scores[:, 1] if scores.ndim == 2 else scores)]
    else:
        curves = [(label, scores[:, index]) for index, label in enumerate(classes[:MAX_ROC_CLASSES])]
    for label, values in curves:
        positive = truth == label
        if positive.any() and not positive.all():
            false_rate, true_rate, _ = roc_curve(positive, values)
            axes.plot(false_rate, true_rate, label=f"{label} (AUC {auc(false_rate, true_rate):.3f})")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC, {rows}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    return _save(figure, path)


def _list(values: Any) -> list[Any]:
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, format="png")
    return path
