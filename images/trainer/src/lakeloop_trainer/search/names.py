"""What a search may name, and the values that it may try: looked at one by one, before any trial, for every library."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import SearchParameter
from lakeloop_trainer.search.space import field_of

_NAME = re.compile(r"(0|[1-9][0-9]{0,3})\.([A-Za-z_][A-Za-z0-9_]*)")


def split(name: str) -> tuple[int, str]:
    """The step's index and the parameter, of a name that `check` let pass."""
    index, _, key = name.partition(".")
    return int(index), key


def check(parameters: Sequence[SearchParameter], steps: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Looks at the names. ``steps``: each step's class and its parameters.

    Raises:
        RunFailure: InvalidParameter, with the path below `spec.search.parameters`.
    """
    seen: set[str] = set()
    for index, each in enumerate(parameters):
        path = f"{field_of(index)}.name"
        if each.name in seen:
            raise RunFailure("InvalidParameter", f"{path} is {each.name}, which is there twice", path)
        seen.add(each.name)
        found = _NAME.fullmatch(each.name)
        if found is None or int(found[1]) >= len(steps):
            last = len(steps) - 1
            example = next(iter(steps[-1][1]), "C")
            raise RunFailure(
                "InvalidParameter",
                f"{path} is {each.name}: write <step index>.<parameter>, such as {last}.{example}; the steps are 0"
                + (f" to {last}" if last else ""),
                path,
            )
        cls, known = steps[int(found[1])]
        if found[2] not in known:
            raise RunFailure(
                "InvalidParameter", f"{path} is {each.name}: {cls} has {', '.join(known) or 'no parameters'}", path
            )


def check_values(parameters: Sequence[SearchParameter], use: Callable[[SearchParameter, Any], object]) -> None:
    """Looks at every value and at both ends of every range. ``use`` raises where the steps refuse one.

    Raises:
        RunFailure: what ``use`` raises, else InvalidParameter, with the path below `spec.search.parameters`.
    """
    for index, each in enumerate(parameters):
        tried: list[tuple[str, Any]] = [(f"values[{place}]", value) for place, value in enumerate(each.values)]
        if each.minimum is not None and each.maximum is not None:
            kind = int if each.integer else float
            tried = [("min", kind(each.minimum)), ("max", kind(each.maximum)), *tried]
        for name, value in tried:
            path = f"{field_of(index)}.{name}"
            try:
                use(each, value)
            except RunFailure as failure:
                told = failure.message.removeprefix(f"{failure.field}: ") if failure.field else failure.message
                raise RunFailure(failure.reason, f"{path} is {value!r}: {told}"[:1000], path) from failure
            except Exception as error:  # the library's, or that of an estimator from elsewhere
                raise RunFailure("InvalidParameter", f"{path} is {value!r}: {str(error)[:500]}", path) from error
