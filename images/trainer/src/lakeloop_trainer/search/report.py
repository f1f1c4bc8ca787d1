"""A search as files: a table of the trials, how the objective came to be what it is, and what led to it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lakeloop_trainer.run_spec import Search, SearchParameter
from lakeloop_trainer.search.trial import FAILED, FINISHED, Trial, best

MAX_LABEL = 24
MAX_LINES = 2000
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}


def write(folder: Path, search: Search, trials: Sequence[Trial], objective: str, maximize: bool) -> dict[str, Path]:
    """Writes everything; gives the files by their names among the run's artifacts."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(trials, key=lambda each: each.number)
    files = {"search/trials.csv": _table(folder / "trials.csv", search, ordered, objective)}
    files["search/history.png"] = _history(folder / "history.png", ordered, objective, maximize)
    files["search/parallel_coordinates.png"] = _coordinates(
        folder / "parallel_coordinates.png", search, ordered, objective, maximize
    )
    return files


def _table(path: Path, search: Search, trials: Sequence[Trial], objective: str) -> Path:
    names = [each.name for each in search.parameters]
    folds = [f"fold_{fold + 1}" for fold in range(search.folds)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", objective, "std", *folds, "seconds", *names, "message"])
        for each in trials:
            value = "" if each.value is None else repr(each.value)
            values = [repr(found) for found in each.values]
            padded = values + [""] * (search.folds - len(values))
            deviation = repr(each.deviation) if each.values else ""
            params = [each.params.get(name, "") for name in names]
            row = [each.number, each.state, value, deviation, *padded, round(each.seconds, 3), *params, each.message]
            writer.writerow(row)
    return path


def _history(path: Path, trials: Sequence[Trial], objective: str, maximize: bool) -> Path:
    figure = _figure(7, 4)
    axes = figure.subplots()
    scored = [each for each in trials if each.values and each.state != FAILED]
    for finished, mark, label in ((True, "o", "finished"), (False, "x", "pruned")):
        found = [each for each in scored if (each.state == FINISHED) is finished]
        if found:
            numbers, values = [each.number for each in found], [each.value for each in found]
            axes.scatter(numbers, values, s=18, marker=mark, label=label, alpha=0.7)
    steps: list[tuple[int, float]] = []
    for each in scored:
        value = each.value
        if each.state == FINISHED and value is not None:
            last = steps[-1][1] if steps else value
            steps.append((each.number, max(last, value) if maximize else min(last, value)))
    if steps:
        axes.step([at for at, _ in steps], [value for _, value in steps], where="post", label="best so far")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="trial", ylabel=f"{objective}, mean of the folds", title="Search")
    return _save(figure, path)


def _coordinates(path: Path, search: Search, trials: Sequence[Trial], objective: str, maximize: bool) -> Path:
    """One axis a parameter and one of the objective; a line a trial, the best one thick."""
    from matplotlib import colormaps

    finished = [each for each in trials if each.state == FINISHED][-MAX_LINES:]
    figure = _figure(max(5.0, 2.0 * (len(search.parameters) + 1)), 4.5)
    axes = figure.subplots()
    values = [float(each.value or 0.0) for each in finished]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    winner = best(finished, maximize)
    across = list(range(len(search.parameters) + 1))
    for each in finished:
        share = _share(float(each.value or 0.0), low, high)
        heights = [_height(parameter, each.point[parameter.name]) for parameter in search.parameters]
        color = "black" if each is winner else colormaps["viridis"](share if maximize else 1 - share)
        axes.plot(across, [*heights, share], color=color, linewidth=2.5 if each is winner else 1, alpha=0.7)
    for position, parameter in enumerate(search.parameters):
        axes.axvline(position, color="grey", linewidth=0.8)
        for height, text in _ticks(parameter):
            axes.text(position + 0.03, height, text, fontsize=7, va="center", bbox=_PAPER)
    axes.axvline(across[-1], color="grey", linewidth=0.8)
    for height, text in ((0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")):
        axes.text(across[-1] + 0.03, height, text, fontsize=7, va="center", bbox=_PAPER)
    axes.set_xticks(across, [*(each.name for each in search.parameters), objective], rotation=20)
    axes.set_yticks([])
    axes.set_xlim(-0.1, across[-1] + 0.4)
    axes.set_title("Trials that finished; the best one in black")
    return _save(figure, path)


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _height(parameter: SearchParameter, chosen: float | int) -> float:
    if parameter.minimum is None or parameter.maximum is None:
        return _share(chosen, 0, len(parameter.values) - 1)
    if parameter.log:
        return _share(math.log(chosen), math.log(parameter.minimum), math.log(parameter.maximum))
    return _share(chosen, parameter.minimum, parameter.maximum)


def _ticks(parameter: SearchParameter) -> list[tuple[float, str]]:
    if parameter.minimum is None or parameter.maximum is None:
        return [
            (_share(index, 0, len(parameter.values) - 1), str(value)[:MAX_LABEL])
            for index, value in enumerate(parameter.values)
        ]
    return [(0.0, f"{parameter.minimum:g}"), (1.0, f"{parameter.maximum:g}")]


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=100, format="png")
    return path
