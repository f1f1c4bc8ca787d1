"""Plots of a fitted pipeline, as PNG files.

Drawn on ``matplotlib.figure.Figure`` without pyplot: no global state, no display, and a second less to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lakeloop_trainer.metrics import Scored

MAX_CLASSES_WITH_NUMBERS = 20
MAX_ROC_CLASSES = 10


def classifier_plots(folder: Path, classes: list[Any], scored: Scored, rows: str) -> list[Path]:
    """``confusion_matrix.png`` and, where scores and every class are there, ``roc.png``; ``rows`` names the rows."""
    written = [_confusion(folder / "confusion_matrix.png", classes, scored, rows)]
    if scored.scores is not None and len(set(_list(scored.truth)) & set(classes)) > 1:
        written.append(_roc(folder / "roc.png", classes, scored, rows))
    return written


def regressor_plots(folder: Path, scored: Scored, rows: str) -> list[Path]:
    """``residuals.png``: residuals over predictions, and their histogram."""
    import numpy as np

    predicted = np.asarray(scored.predicted, dtype=float).ravel()
    residuals = np.asarray(scored.truth, dtype=float).ravel() - predicted
    figure = _figure(9, 4)
    left, right = figure.subplots(1, 2)
    left.scatter(predicted, residuals, s=12, alpha=0.6)
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


def _confusion(path: Path, classes: list[Any], scored: Scored, rows: str) -> Path:
    from sklearn.metrics import confusion_matrix

    labels = classes + sorted(set(_list(scored.truth)) - set(classes), key=str)
    matrix = confusion_matrix(scored.truth, scored.predicted, labels=labels)
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


def _roc(path: Path, classes: list[Any], scored: Scored, rows: str) -> Path:
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
