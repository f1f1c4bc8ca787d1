"""What every estimator's run ends with: its numbers in MLflow, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from lakeloop_trainer.attempt import Attempt
from lakeloop_trainer.cgroup import container_memory_peak
from lakeloop_trainer.result import Outcome
from lakeloop_trainer.stages import Stages

if TYPE_CHECKING:
    from lakeloop_trainer.champion import Comparison
    from lakeloop_trainer.tracking import LoggedModel


class Measured(Protocol):
    """An evaluation, of whichever library."""

    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def objective(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def measured_on(self) -> str: ...


TOLD = {"read rows": "read", "search": "search", "fit": "fit", "evaluate": "evaluate"}
"""Stages that MLflow is told of, and what they are called there."""


def own_metrics(stages: Stages, memory_peak: int | None) -> dict[str, float]:
    """What the run took: `lakeloop/<stage>_seconds`, and the most memory of the driver's container so far."""
    took = {f"lakeloop/{name}_seconds": stages.seconds(stage) for stage, name in TOLD.items()}
    found = {name: seconds for name, seconds in took.items() if seconds is not None}
    return found if memory_peak is None else {**found, "lakeloop/driver_memory_peak_bytes": float(memory_peak)}


def outcome(
    attempt: Attempt, found: Measured, model: LoggedModel, compared: Comparison | None, described: Future[None]
) -> Outcome:
    """Logs the metrics, once the parameters are logged, and gives the run's result."""
    tracker = attempt.tracker()
    with attempt.stages.measure("log metrics"):
        described.result()
        tracker.metrics(found.metrics, model.model_id)
        tags = {"lakeloop.io/objective-measured-on": found.measured_on}
        tracker.metrics(own_metrics(attempt.stages, container_memory_peak()))
        if compared is not None:
            tags["lakeloop.io/champion.version"] = str(compared.version)
            if compared.value is not None:
                tracker.metrics({f"champion.{found.objective}": compared.value})
        tracker.tags(tags)
    return Outcome(
        uid=attempt.spec.uid,
        attempt=attempt.number,
        inputs=attempt.result_inputs(),
        metrics=dict(found.metrics),
        objective={"metric": found.objective, "value": found.value},
        model=model.document(),
        champion=compared.document() if compared else None,
        search=attempt.search,
    )
