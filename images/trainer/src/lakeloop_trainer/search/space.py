"""The space to search: what a point of it stands for, how many points there are, and whether it makes sense."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import Search, SearchParameter
from lakeloop_trainer.search.trial import Point

_LARGEST = 2**53


def field_of(index: int) -> str:
    """The path of a dimension in the TrainingJob."""
    return f"spec.search.parameters[{index}]"


def check(search: Search) -> None:
    """Refuses a space that cannot be searched; raises RunFailure (InvalidParameter) that names the field."""
    for index, each in enumerate(search.parameters):
        path = field_of(index)
        if each.minimum is None or each.maximum is None:
            if not each.values:
                raise _invalid(f"{path}.values", "is empty: write at least one value")
            continue
        if not (each.minimum <= each.maximum and math.isfinite(each.maximum - each.minimum)):
            raise _invalid(f"{path}.min", f"is {each.minimum:g}, and max {each.maximum:g}: write min below max")
        if each.log and each.minimum <= 0:
            raise _invalid(f"{path}.min", f"is {each.minimum:g}; scale Log needs a min above 0")
        if search.algorithm == "Grid" and not each.integer:
            raise _invalid(path, "is a range of type Float, which no grid covers: write values, or type Int")
        for name, bound in (("min", each.minimum), ("max", each.maximum)) if each.integer else ():
            if not float(bound).is_integer() or abs(bound) > _LARGEST:
                raise _invalid(f"{path}.{name}", f"is {bound:g}; a range of type Int needs an integer")


def value(parameter: SearchParameter, chosen: float | int) -> Any:
    """What a coordinate stands for; raises ValueError for one that is not in the space."""
    if parameter.minimum is None or parameter.maximum is None:
        if not (isinstance(chosen, int) and 0 <= chosen < len(parameter.values)):
            raise ValueError(f"{parameter.name}: there is no value {chosen}")
        return parameter.values[chosen]
    low, high = parameter.minimum, parameter.maximum
    slack = 1e-9 * (abs(low) + abs(high))  # a logarithm and back is not exact
    if not low - slack <= chosen <= high + slack:
        raise ValueError(f"{parameter.name}: {chosen} is out of range")
    return int(chosen) if parameter.integer else min(max(float(chosen), low), high)


def values(search: Search, point: Point) -> dict[str, Any]:
    """Name → value of a point; raises ValueError for one of another space."""
    if set(point) != {each.name for each in search.parameters}:
        raise ValueError("the point has other parameters")
    return {each.name: value(each, point[each.name]) for each in search.parameters}


def width(parameter: SearchParameter) -> int | None:
    """How many values a dimension has; None for a range of floats."""
    if parameter.minimum is None or parameter.maximum is None:
        return len(parameter.values)
    if parameter.integer:
        return int(parameter.maximum) - int(parameter.minimum) + 1
    return 1 if parameter.minimum == parameter.maximum else None


def size(search: Search) -> int | None:
    """How many points the space has; None where it has no end."""
    widths = [width(each) for each in search.parameters]
    return None if None in widths else math.prod(each for each in widths if each is not None)


def trials_in_all(search: Search) -> int:
    """How many trials there will be: no point is tried twice."""
    points = size(search)
    return search.max_trials if points is None else min(search.max_trials, points)


def grid(search: Search, seed: int) -> Iterator[dict[str, float | int]]:
    """Every point of a finite space once, in an order that the seed alone decides.

    Mixed, because the first ``maxTrials`` points of a larger grid would otherwise all have the first value of the first
    parameters. Nothing is kept but the points given so far: a grid may have more points than memory has room for.
    """
    total = size(search)
    if total is None:
        raise ValueError("a range of floats has no grid")
    order = random.Random(seed)  # noqa: S311 (an order, not a secret)
    if total <= min(100_000, sys.maxsize):
        for index in order.sample(range(total), total):
            yield _at(search.parameters, index)
        return
    seen: set[int] = set()
    while len(seen) < total:
        index = order.randrange(total)
        if index not in seen:
            seen.add(index)
            yield _at(search.parameters, index)


def _at(parameters: Sequence[SearchParameter], index: int) -> dict[str, float | int]:
    point: dict[str, float | int] = {}
    for each in parameters:
        index, digit = divmod(index, width(each) or 1)
        if each.minimum is None:
            point[each.name] = digit
        else:
            point[each.name] = int(each.minimum) + digit if each.integer else each.minimum
    return point


def _invalid(field: str, message: str) -> RunFailure:
    return RunFailure("InvalidParameter", f"{field} {message}", field)
