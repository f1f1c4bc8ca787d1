"""What a point of the space means to stages of Spark ML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec import SearchParameter, Step
from lakeloop_trainer.search import names
from lakeloop_trainer.spark_ml import steps as checking


def with_params(steps: Sequence[Step], params: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps with the parameters of a trial; `spark_ml.steps.check` gives them the types that Spark wants."""
    written = [dict(step.params) for step in steps]
    for name, value in params.items():
        index, key = names.split(name)
        written[index][key] = value
    return tuple(replace(step, params=each) for step, each in zip(steps, written, strict=True))


def check(steps: Sequence[Step], parameters: Sequence[SearchParameter], seed: int) -> None:
    """Looks at every name, value and bound by itself. Only their types: no session is needed for it.

    Raises:
        RunFailure: InvalidParameter, with the path below `spec.search.parameters`.
    """
    from pyspark.ml.param import TypeConverters

    found = checking.check(steps, seed)
    known = [checking.parameters_of(stage.cls) for stage in found]
    free = [[name for name in each if name not in checking.OWNED] for each in known]
    names.check(parameters, [(stage.name, each) for stage, each in zip(found, free, strict=True)])

    whole = TypeConverters.toInt

    def use(parameter: SearchParameter, value: Any) -> None:
        index, key = names.split(parameter.name)
        # the ends may be whole, and what lies between them is not
        if parameter.minimum is not None and not parameter.integer and known[index][key].typeConverter is whole:
            raise RunFailure("InvalidParameter", f"{key} takes whole numbers: write type: Int")
        checking.check(with_params(steps, {parameter.name: value}), seed)

    names.check_values(parameters, use)
