"""Two runs side by side: what differs, and whether metrics are equal within a tolerance. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lakeloop.cli.training.records import ROWS, Record
from lakeloop.cli.training.tables import Column, Row

COLUMNS = (
    Column("WHAT"),
    Column("NAME", cut=True),
    Column("A", cut=True),
    Column("B", cut=True),
    Column("SAME", drop=1),
)
_OF_OTHERS = ("champion.", "system/", "lakeloop/")
"""Metrics of another model, or of the machine: they say nothing of what was learned."""
_CODE = ("code-digest", "code-files-digest", "image", "image-id", "spec-hash", "seed")


@dataclass(frozen=True, slots=True)
class Pair:
    """One thing of both runs. None: the run has no such thing."""

    what: str
    name: str
    a: Any
    b: Any
    same: bool


def pairs_of(a: Record, b: Record) -> list[Pair]:
    """Everything, in the order in which one would look for the reason."""
    return [
        *_pairs("run", _run(a), _run(b)),
        *_pairs("data", _data(a), _data(b)),
        *_pairs("code", _code(a), _code(b)),
        *_pairs("parameter", _parameters(a), _parameters(b)),
        *_pairs("metric", dict(sorted(a.metrics.items())), dict(sorted(b.metrics.items()))),
        *_pairs("model", {"digest": a.digest or None}, {"digest": b.digest or None}),
    ]


def _pairs(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Pair]:
    names = [*a, *(name for name in b if name not in a)]
    return [Pair(what, name, a.get(name), b.get(name), _equal(a.get(name), b.get(name))) for name in names]


def _equal(a: Any, b: Any) -> bool:
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or bool(a == b)


def _run(record: Record) -> dict[str, Any]:
    return {"phase": record.phase or None, "trigger": record.trigger or None, "model": record.model or None}


def _data(record: Record) -> dict[str, Any]:
    tables = {each.name: f"{each.uri}@{'?' if each.version is None else each.version}" for each in record.tables}
    return {**tables, **{f"rows.{name}": count for name, count in record.rows.items()}}


def _code(record: Record) -> dict[str, Any]:
    return {name: record.tags[name] for name in _CODE if record.tags.get(name)}


def _parameters(record: Record) -> dict[str, Any]:
    # Tables and rows are told as data.
    return {key: value for key, value in sorted(record.parameters.items()) if not key.startswith((ROWS, "inputs."))}


def rows(pairs: Sequence[Pair]) -> list[Row]:
    """Cells of the table."""
    return [
        {
            "WHAT": each.what,
            "NAME": each.name,
            "A": _text(each.a),
            "B": _text(each.b),
            "SAME": "yes" if each.same else "no",
        }
        for each in pairs
    ]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def document(each: Pair) -> dict[str, Any]:
    """As `-o json` prints it."""
    return {"what": each.what, "name": each.name, "a": each.a, "b": each.b, "same": each.same}


METRIC_COLUMNS = (
    Column("METRIC", cut=True),
    Column("RECORDED"),
    Column("REPRODUCED"),
    Column("DIFFERENCE", drop=1),
    Column("EQUAL"),
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it was recorded and as it came out again."""

    name: str
    recorded: float | None
    reproduced: float | None
    equal: bool

    def document(self) -> dict[str, Any]:
        """As `-o json` prints it."""
        return {"name": self.name, "recorded": self.recorded, "reproduced": self.reproduced, "equal": self.equal}


def within(a: float, b: float, tolerance: float) -> bool:
    """Equal within the tolerance, relative to the larger one or absolute; not a number equals itself."""
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


def metrics(recorded: Mapping[str, float], again: Mapping[str, float], tolerance: float) -> list[Metric]:
    """All metrics of the record's model; what only the new run has is no part of the question."""
    return [
        Metric(name, value, again.get(name), name in again and within(value, again[name], tolerance))
        for name, value in sorted(recorded.items())
        if not name.startswith(_OF_OTHERS)
    ]


def metric_rows(found: Sequence[Metric]) -> list[Row]:
    """Cells of the table, with every digit."""
    return [
        {
            "METRIC": each.name,
            "RECORDED": repr(each.recorded),
            "REPRODUCED": "" if each.reproduced is None else repr(each.reproduced),
            "DIFFERENCE": ""
            if each.recorded is None or each.reproduced is None
            else f"{each.reproduced - each.recorded:.3g}",
            "EQUAL": "yes" if each.equal else "no",
        }
        for each in found
    ]
