"""SHAP: what each column's value adds to the model's output, row by row, in a table, a plot and plain words."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lakeloop_trainer import plots
from lakeloop_trainer.explain import BACKGROUND_ROWS, BUDGET_SECONDS, LISTED_CLASSES, Answers, Ask, LeftOut
from lakeloop_trainer.shapley import Shapley, TooSlow, shapley


def shap(folder: Path, sample: Any, ask: Ask, classes: Sequence[Any], seed: int, rows: str) -> list[Path]:
    """Writes ``shap_importance.{csv,txt}`` and ``shap_summary.png``; raises LeftOut.

    ``sample``: the rows to explain, a pandas DataFrame of the features in an order that says nothing; ``classes``: of
    a classifier.
    """
    probabilities = True

    def outputs(cells: Any) -> Any:
        nonlocal probabilities
        answers = ask(cells)
        probabilities = probabilities and _are_probabilities(answers)
        return output_matrix(answers, len(classes))

    try:
        found = shapley(outputs, len(sample), min(len(sample), BACKGROUND_ROWS), sample.shape[1], seed, BUDGET_SECONDS)
    except TooSlow as slow:
        raise LeftOut(f"SHAP values would take longer than {BUDGET_SECONDS:.0f} s ({slow})") from slow
    explained = sample.iloc[: len(found.values)]
    kept = list(classes) if found.values.shape[2] > 1 else []
    import numpy as np

    per_output = np.abs(found.values).mean(axis=0)
    importance = per_output.mean(axis=1)
    order = importance.argsort()[::-1]
    names = [str(name) for name in sample.columns]
    table, words = folder / "shap_importance.csv", folder / "shap_importance.txt"
    folder.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        listed = kept[:LISTED_CLASSES]
        writer.writerow(["feature", "mean_abs_shap", *(f"mean_abs_shap[{label}]" for label in listed)])
        for i in order:
            writer.writerow([names[i], float(importance[i]), *map(float, per_output[i][: len(listed)])])
    what = _what(classes, probabilities)
    directions = [_direction(explained.iloc[:, i], found.values[:, i, 0]) if not kept else "" for i in order]
    words.write_text(in_words([names[i] for i in order], importance[order], directions, found, what, rows))
    plot = folder / "shap_summary.png"
    if kept:
        plots.shap_bars(plot, [names[i] for i in order], per_output[order], kept, what)
    else:
        columns = [explained.iloc[:, i] for i in order]
        plots.shap_swarm(plot, [names[i] for i in order], found.values[:, order, 0], columns, what)
    return [table, words, plot]


def output_matrix(answers: Answers, classes: int) -> Any:
    """What is explained, shape (rows, outputs): the number, the second of two classes' score, or every class's."""
    import numpy as np

    if classes == 0:
        return np.asarray(answers.predicted, dtype=float).reshape(-1, 1)
    scores = answers.scores
    if scores is None:  # a classifier that only says which
        scores = np.eye(classes)[np.asarray(answers.predicted, dtype=int)]
    if scores.ndim == 1:
        return scores.reshape(-1, 1)
    return scores[:, 1:2] if classes == 2 else scores


def _are_probabilities(answers: Answers) -> bool:
    import numpy as np

    scores = answers.scores
    return scores is not None and scores.ndim == 2 and bool(np.allclose(scores.sum(axis=1), 1))


def _what(classes: Sequence[Any], probabilities: bool) -> str:
    if not classes:
        return "the prediction"
    kind = "probability" if probabilities else "score"
    return f"the {kind} of {classes[1]}" if len(classes) == 2 else f"the {kind} of a class"


def _direction(column: Any, values: Any) -> str:
    """Whether higher values raise the output; empty where it cannot be said."""
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(numbers)
    if known.sum() < 3 or np.ptp(numbers[known]) == 0 or np.ptp(values[known]) == 0:
        return ""
    together = float(np.corrcoef(numbers[known], values[known])[0, 1])
    return "" if abs(together) < 0.5 else "; higher values raise it" if together > 0 else "; higher values lower it"


def in_words(
    names: Sequence[str], importance: Sequence[float], directions: Sequence[str], found: Shapley, what: str, rows: str
) -> str:
    """The table in sentences."""
    start = f", which is {float(found.average[0]):.4g} on average" if len(found.average) == 1 else ""
    lines = [
        f"SHAP values of {len(found.values)} {rows}: how far each column's value moves {what}{start}.",
    ]
    for name, size, direction in list(zip(names, importance, directions, strict=True))[:10]:
        if size > 0:
            lines.append(f"- {name} moves it by {size:.4g} on average{direction}.")
        else:
            lines.append(f"- {name} does not move it.")
    if len(names) > 10:
        lines.append(f"- {len(names) - 10} more columns are in the table.")
    lines.append(
        f"Estimated from {found.orders} orders of adding the columns per row. It tells what the model does with a "
        "column, not what the column causes; columns that say the same share what they say."
    )
    return "\n".join(lines) + "\n"
