"""Shapley values of any model's columns, by sampling.

The Shapley value of a column is what it changes when it is added to the columns known so far, averaged over all orders
in which columns can be added; a column not yet known has the value of a background row. Here some random orders stand
for all: Castro, Gómez, Tejada, "Polynomial calculation of the Shapley value based on sampling" (2009), with each order
also taken backwards (antithetic sampling: Mitchell, Cooper, Frank, Holmes, "Sampling Permutations for Shapley Value
Estimation", 2022). For one row, the values add up to its output minus that of its background rows, exactly.

Of the package shap this needs nothing: it brings a compiler (numba and LLVM, 190 MB) and compiles for ten seconds in
each new container; and on the columns of a table, asked through the whole pipeline, its fast ways for single kinds of
models do not apply.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FEWEST_PAIRS, MOST_PAIRS, QUESTIONS = 10, 50, 500_000
"""Orders per row, each taken forwards and backwards: as many as make so many rows for the model to answer."""
MIN_ROWS = 20
MAX_CELLS = 4_000_000
"""Of one question to the model: rows × columns."""


@dataclass(frozen=True)
class Shapley:
    """Values of shape (rows, columns, outputs), and how they were sampled."""

    values: Any
    average: Any
    """The outputs of the background rows, averaged: what the values start from."""
    orders: int


class TooSlow(Exception):
    """Not even a few rows can be explained within the budget."""


def shapley(
    outputs: Callable[[Any], Any], rows: int, background: int, columns: int, seed: int, budget_seconds: float
) -> Shapley:
    """The values of the sample's rows ``0 … rows-1``, against random ones of its first ``background`` rows.

    ``outputs(cells)`` gives the model's outputs, shape (n, outputs), for rows made of the sample's cells:
    ``cells[i, j]`` is the sample's row from which row ``i`` has column ``j``. Fewer rows and orders are taken where
    the budget asks for it. Raises TooSlow.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    end = time.monotonic() + budget_seconds
    trial = min(rows, MIN_ROWS)
    per_row, fixed = _seconds(outputs, trial, background, columns)
    rows = min(rows, int((end - time.monotonic() - fixed) / per_row))
    if rows < trial:
        raise TooSlow(f"{per_row:.1g} s per row")
    wanted = min(MOST_PAIRS, max(FEWEST_PAIRS, QUESTIONS // (2 * rows * (columns + 1))))
    total: Any = 0
    average: Any = 0
    pairs = 0
    while pairs < wanted:
        # many at once: some models answer a hundred thousand rows almost as fast as one
        affordable = int((end - time.monotonic() - fixed) / (rows * per_row))
        if pairs and affordable < 1:
            break
        at_once = max(1, min(wanted - pairs, affordable, MAX_CELLS // (2 * rows * (columns + 1) * columns)))
        explained = np.tile(np.arange(rows), at_once)
        values, start = _pair(outputs, explained, background, columns, generator)
        total = total + values.reshape(at_once, rows, columns, -1).sum(axis=0)
        average, pairs = average + start * at_once, pairs + at_once
    return Shapley(total / pairs, average / pairs, 2 * pairs)


def _seconds(outputs: Callable[[Any], Any], trial: int, background: int, columns: int) -> tuple[float, float]:
    """What a pair takes per row, and each question besides."""
    import numpy as np

    spent = []
    for count in (1, 1, trial):  # the first one may have to wait for code to be made
        started = time.monotonic()
        _pair(outputs, np.arange(count), background, columns, np.random.default_rng(0))
        spent.append(time.monotonic() - started)
    fixed = spent[1]
    return max(spent[2] - fixed, 1e-6) / trial, fixed


def _pair(outputs: Callable[[Any], Any], explained: Any, background: int, columns: int, generator: Any) -> Any:
    """One order per row and its reverse; gives (values, average output of the background rows)."""
    import numpy as np

    at_once = max(1, MAX_CELLS // (2 * (columns + 1) * columns))
    values, starts = [], []
    for first in range(0, len(explained), at_once):
        rows = explained[first : first + at_once]
        ranks = generator.permuted(np.tile(np.arange(columns), (len(rows), 1)), axis=1)
        ranks = np.concatenate([ranks, columns - 1 - ranks])
        own, other = np.tile(rows, 2), np.tile(generator.integers(background, size=len(rows)), 2)
        # step k of a row: the k columns of the lowest ranks are its own
        known = ranks[:, None, :] < np.arange(columns + 1)[None, :, None]
        cells = np.where(known, own[:, None, None], other[:, None, None]).reshape(-1, columns)
        found = np.asarray(outputs(cells), dtype=float).reshape(len(own), columns + 1, -1)
        gains = np.take_along_axis(np.diff(found, axis=1), ranks[:, :, None], axis=1)
        values.append((gains[: len(rows)] + gains[len(rows) :]) / 2)
        starts.append(found[: len(rows), 0])
    return np.concatenate(values), np.concatenate(starts).mean(axis=0)
