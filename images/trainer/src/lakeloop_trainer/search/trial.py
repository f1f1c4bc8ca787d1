"""A trial: one set of parameters and what cross-validation said of it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RUNNING, FINISHED, PRUNED, FAILED = "Running", "Finished", "Pruned", "Failed"
STATES = (RUNNING, FINISHED, PRUNED, FAILED)
MAX_MESSAGE = 500

Point = Mapping[str, float | int]
"""Name → a number of the range, or the index of one of the values."""


@dataclass
class Trial:
    """One trial, from 1."""

    number: int
    point: Point
    params: Mapping[str, Any]
    """Name → the value that the point stands for."""
    state: str = RUNNING
    folds: list[dict[str, float]] = field(default_factory=list)
    """Every metric of each fold that is over."""
    values: list[float] = field(default_factory=list)
    """The objective of each fold that is over."""
    message: str = ""
    """Why it failed."""
    seconds: float = 0.0
    at: float = 0.0
    """Seconds that the search had taken, over all attempts, when this was last written."""
    tries: int = 1
    """Attempts of the run that began it: each but the last was cut off."""
    run_id: str | None = None
    """Its run in MLflow."""

    @property
    def value(self) -> float | None:
        """The objective's mean over the folds that are over."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float:
        """The objective's standard deviation over the folds that are over."""
        return statistics.pstdev(self.values) if self.values else 0.0

    def record(self) -> str:
        """What a later attempt needs to know of it, as JSON."""
        return json.dumps(
            {
                "point": dict(self.point), "state": self.state, "values": self.values, "message": self.message,
                "seconds": round(self.seconds, 3), "at": round(self.at, 3), "tries": self.tries,
            },
            separators=(",", ":"),
        )  # fmt: skip


def from_record(number: str, text: str, run_id: str) -> Trial | None:
    """The trial of a record; None where this is none that `Trial.record` wrote. Its ``params`` are empty."""
    try:
        found = json.loads(text)
        trial = Trial(
            number=int(number),
            point={str(name): _number(value) for name, value in found["point"].items()},
            params={},
            state=found["state"],
            values=[float(_number(value)) for value in found["values"]],
            message=str(found["message"]),
            seconds=float(_number(found["seconds"])),
            at=float(_number(found["at"])),
            tries=int(_number(found["tries"])),
            run_id=run_id,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    sound = trial.number > 0 and trial.state in STATES and (trial.state != FINISHED or trial.values)
    return trial if sound else None


def _number(value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return value


def best(trials: Sequence[Trial], maximize: bool) -> Trial | None:
    """The finished trial with the best mean, of equal ones the first; None where none is finished."""
    scored = [(each.value, each) for each in trials if each.state == FINISHED and each.value is not None]
    if not scored:
        return None
    return min(scored, key=lambda pair: (-pair[0] if maximize else pair[0], pair[1].number))[1]


def count(trials: Sequence[Trial], state: str) -> int:
    """How many are in that state."""
    return sum(each.state == state for each in trials)
