"""Conditions and summary of a TrainingJob: the state table of the API, row by row."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from lakeloop.api.v1alpha1.common import Condition
from lakeloop.api.v1alpha1.trainingjob import Run, Summary
from lakeloop.status.conditions import READY, RECONCILING, STALLED, SUSPENDED, Wanted, is_true, summary

RUNNING: Final = "Running"
RUN_SUCCEEDED: Final = "RunSucceeded"
DATA_VALID: Final = "DataValid"
MODEL_ACCEPTED: Final = "ModelAccepted"

State = Literal["InProgress", "Waiting", "Succeeded", "Failed", "Stopped", "Suspended", "Refused"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the gates said of the run's model: the condition `ModelAccepted`."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Said:
    """What a state says of itself."""

    state: State
    reason: str
    message: str
    data_failed: bool = False
    """Whether it failed with class Data."""
    data_note: str = ""
    """What is to be said of data that was good enough: the message of `DataValid`."""
    accepted: Accepted | None = None
    blocked: tuple[str, str] | None = None
    """Reason and message of what keeps a trigger from firing, while no run is at work."""


def job_conditions(
    before: Iterable[Condition] | None, said: Said, *, same_spec: bool, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The next conditions. `same_spec`: the training spec is still the one that `Ready` was said of."""
    known = tuple(before or ())
    good = is_true(known, READY) and same_spec
    reason, message = said.reason, said.message
    kept = Wanted(READY, None)
    not_ready = Wanted(READY, "False", reason, message)
    stalled = Wanted(STALLED, "True", reason, message)
    resumed = [Wanted(SUSPENDED, "False", "Resumed", "")] if is_true(known, SUSPENDED) else []
    running = Wanted(RUNNING, "True", reason, message)
    idle = Wanted(RUNNING, "False", reason, message)
    unknown = Wanted(RUN_SUCCEEDED, "Unknown", reason, message)
    judged = _judged(said.accepted)

    def made(
        ready: Wanted, others: list[Wanted], *, reconciling: Wanted | None = None, stalled: Wanted | None = None
    ) -> tuple[Condition, ...]:
        if said.blocked is not None:
            blocked, told = said.blocked
            stalled = (
                Wanted(STALLED, "True", blocked, told)
                if stalled is None
                else replace(stalled, message=f"{stalled.message}; {told}")
            )
        return summary(
            known,
            ready,
            reconciling=reconciling,
            stalled=stalled,
            others=[*resumed, *others],
            generation=generation,
            now=now,
        )

    match said.state:
        case "InProgress" if good:
            return made(kept, [running, unknown])
        case "InProgress":
            return made(not_ready, [running, unknown], reconciling=Wanted(RECONCILING, "True", reason, message))
        case "Waiting":
            return made(kept if good else not_ready, [idle, unknown], stalled=stalled)
        case "Succeeded":
            data = Wanted(DATA_VALID, "True", reason, said.data_note)
            succeeded = Wanted(RUN_SUCCEEDED, "True", reason, message)
            return made(Wanted(READY, "True", reason, message), [idle, succeeded, data, *judged])
        case "Failed":
            data_failed = [Wanted(DATA_VALID, "False", reason, message)] if said.data_failed else []
            failed = Wanted(RUN_SUCCEEDED, "False", reason, message)
            return made(not_ready, [idle, failed, *data_failed, *judged], stalled=stalled)
        case "Stopped":
            stopped = Wanted(RUN_SUCCEEDED, "False", reason, message)
            if good:
                return made(kept, [idle, stopped])
            return made(not_ready, [idle, stopped], stalled=stalled)
        case "Suspended":
            resumed = [Wanted(SUSPENDED, "True", reason, message)]
            return made(kept if is_true(known, READY) else not_ready, [idle])
        case "Refused":
            return made(not_ready, [], stalled=stalled)


def _judged(accepted: Accepted | None) -> list[Wanted]:
    return [] if accepted is None else [Wanted(MODEL_ACCEPTED, accepted.status, accepted.reason, accepted.message)]


def violations(run: Run) -> str:
    """What the data of a run that went on violates; empty where it violates nothing."""
    broken = [each for each in run.expectations or () if each.violations]
    words = ", ".join(f"{each.name} ({each.violations} of {each.rows} rows)" for each in broken)
    return f"the data violates {words}, which only warns" if words else ""


def run_summary(run: Run, objective: tuple[str, float] | None, before: Summary | None) -> Summary:
    """What `kubectl get` prints of the run. `objective` is told at the run's end; until then `before` has it."""
    first = run.inputs[0] if run.inputs else None
    table = None
    if first is not None:
        table = first.name if first.version is None else f"{first.name}@{first.version}"
    model = run.model
    return Summary(
        table=table,
        metric=f"{objective[0]} {objective[1]:.4g}" if objective else before.metric if before else None,
        model=f"{model.name}/{model.version}" if model is not None and model.version is not None else None,
    )
