"""What a point of the space means to a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lakeloop_trainer.estimator import build
from lakeloop_trainer.run_spec import SearchParameter, Step
from lakeloop_trainer.search import names


def with_params(
    steps: Sequence[Step], parameters: Sequence[SearchParameter], params: Mapping[str, Any]
) -> tuple[tuple[Step, ...], Any]:
    """The steps with the parameters of a trial, and the pipeline that they make.

    A number of a range has its type from the range. A value of a list is read as one in the step's ``params`` is.
    Raises RunFailure (InvalidParameter, AmbiguousNumber).
    """
    ranges = {each.name for each in parameters if each.minimum is not None}
    written = [dict(step.params) for step in steps]
    for name, value in params.items():
        index, key = names.split(name)
        if name in ranges:
            written[index].pop(key, None)
        else:
            written[index][key] = value
    pipeline = build([replace(step, params=each) for step, each in zip(steps, written, strict=True)])
    for name in sorted(ranges & set(params)):
        index, key = names.split(name)
        step = pipeline.steps[index][1]
        step.set_params(**{key: params[name]})
        written[index][key] = params[name]
        # what is wrong with a value that came from its constructor is known from `build`
        if getattr(step, "_parameter_constraints", None) and hasattr(step, "_validate_params"):
            step._validate_params()
    return tuple(replace(step, params=each) for step, each in zip(steps, written, strict=True)), pipeline


def check(steps: Sequence[Step], parameters: Sequence[SearchParameter]) -> None:
    """Looks at every name, value and bound by itself, before any data is read.

    Raises:
        RunFailure: InvalidParameter or AmbiguousNumber, with the path below `spec.search.parameters`.
    """
    found = [each for _, each in build(steps).steps]
    names.check(parameters, [(type(each).__name__, sorted(each.get_params(deep=False))) for each in found])
    names.check_values(parameters, lambda each, value: with_params(steps, [each], {each.name: value}))
