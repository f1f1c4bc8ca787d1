"""What code that a TrainingJob runs (`spec.script`, `spec.project`) may ask of its run.

A script needs none of it: `SparkSession.builder.getOrCreate()` is the run's session, each input is a view at its pinned
version, and `mlflow` logs into the run. This module has what only the spec knows::

    from lakeloop_run import spark, train_rows, test_rows

    learned_from = train_rows().toPandas()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakeloop_trainer import context as _context

__all__ = ["Input", "args", "dataset", "inputs", "objective", "parameters", "spark", "test_rows", "train_rows"]

if TYPE_CHECKING:
    spark: Any
    """The run's Spark session. In a project it is started when it is first asked for."""
    inputs: Mapping[str, Input]
    """The input tables by their names in spec.inputs."""
    dataset: Mapping[str, Any]
    """spec.dataset: query, features, target, split."""
    parameters: Mapping[str, Any]
    """spec.project.parameters."""
    args: Sequence[str]
    """spec.script.args."""
    objective: Mapping[str, str] | None
    """spec.objective: metric and goal, or None."""


@dataclass(frozen=True)
class Input:
    """A Delta table, at the version that this run reads."""

    name: str
    uri: str
    version: int


def train_rows() -> Any:
    """The rows to learn from, by spec.dataset, as a Spark DataFrame: features, then the target.

    The same rows, on the same side, as an estimator with this spec would have.
    """
    return _context.current().rows(test=False)


def test_rows() -> Any:
    """The rows that are held out, as a Spark DataFrame."""
    return _context.current().rows(test=True)


def __getattr__(name: str) -> Any:
    run = _context.current if name in __all__ else None
    if run is None:
        raise AttributeError(f"module lakeloop_run has no attribute {name!r}; it has {', '.join(__all__)}")
    spec = run().spec
    match name:
        case "spark":
            return run().spark
        case "inputs":
            return {each.name: Input(each.name, each.uri, run().versions[each.name]) for each in spec.inputs}
        case "dataset":
            return dict(spec.raw["dataset"])
        case "parameters":
            return run().parameters
        case "args":
            return run().args
        case _:
            return {"metric": spec.objective.metric, "goal": spec.objective.goal} if spec.objective else None
