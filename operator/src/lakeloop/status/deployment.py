"""A ModelDeployment's conditions and summaries, as the state table of the API has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lakeloop.api.v1alpha1.common import Condition
from lakeloop.api.v1alpha1.deployment_status import (
    ModelDeploymentStatus,
    RejectedVersion,
    ServedVersion,
    ServingRecord,
)
from lakeloop.status import conditions
from lakeloop.status.conditions import READY, RECONCILING, STALLED, SUSPENDED, Wanted

ROLLING_OUT: Final = "RollingOut"
GATES_PASSED: Final = "GatesPassed"
NO_SERVER_READY: Final = "NoServerReady"
HISTORY_LIMIT: Final = 10
REJECTED_LIMIT: Final = 10


@dataclass(frozen=True, slots=True)
class State:
    """What the conditions are made of. A `(reason, message)` says that something is so, and why."""

    wanted: int
    """Servers that should be ready."""
    stable: str | None
    """The version that serves, in words; None before anything has."""
    ready: int
    """Ready servers that have traffic."""
    rolling_out: tuple[str, str] | None = None
    waiting: tuple[str, str] | None = None
    """Something is missing; heals by itself or by the user's hand."""
    rejected: tuple[str, str] | None = None
    """The version that should be served was rejected."""
    held: tuple[str, str] | None = None
    """It has not passed its gates yet."""
    fixed: bool = False
    """The version is fixed in spec, not followed by an alias."""
    suspended: bool = False
    scaling: str = ""
    """What keeps the missing servers from being ready, as far as is known."""


def deployment_conditions(
    before: Sequence[Condition] | None, state: State, *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The next conditions."""
    reconciling = _reconciling(state)
    others = [
        *([Wanted(ROLLING_OUT, "True", *state.rolling_out)] if state.rolling_out else []),
        *([Wanted(SUSPENDED, "True", "Suspended", "spec.suspend: roll-outs are frozen")] if state.suspended else []),
        *_gates(state),
    ]
    absent = [
        *([] if state.rolling_out else [ROLLING_OUT]),
        *([] if state.suspended else [SUSPENDED]),
    ]
    return conditions.summary(
        before,
        _ready(state, before),
        reconciling=reconciling,
        stalled=_stalled(state),
        others=others,
        absent=absent,
        generation=generation,
        now=now,
    )


def _ready(state: State, before: Sequence[Condition] | None) -> Wanted:
    stalled = state.rejected if state.fixed or state.stable is None else None
    if stalled:
        return Wanted(READY, "False", *stalled)
    if state.stable is None:
        why = state.waiting or state.rolling_out
        if why is None and state.suspended:
            why = ("Suspended", "nothing is served while spec.suspend is set")
        return Wanted(READY, "False", *(why or ("NotStarted", "nothing has been served yet")))
    if state.wanted == 0:
        return Wanted(READY, "True", "ScaledToZero", f"{state.stable} has no servers, as spec.replicas says")
    if state.ready == 0:
        told = f": {state.scaling}" if state.scaling else ""
        return Wanted(READY, "False", NO_SERVER_READY, f"no server of {state.stable} is ready{told}")
    if state.ready < state.wanted and not _was_whole(before):
        return Wanted(READY, "False", "Scaling", _missing(state))
    return Wanted(READY, "True", "Serving", f"serving {state.stable}")


def _was_whole(before: Sequence[Condition] | None) -> bool:
    """Whether the first roll-out came to its end once: from then on, one server that answers is enough."""
    known = conditions.find(before, READY)
    return known is not None and (known.status == "True" or known.reason == NO_SERVER_READY)


def _missing(state: State) -> str:
    told = f": {state.scaling}" if state.scaling else ""
    return f"{state.ready} of {state.wanted} servers are ready{told}"


def _stalled(state: State) -> Wanted | None:
    if state.rejected and (state.fixed or state.stable is None):
        return Wanted(STALLED, "True", *state.rejected)
    return Wanted(STALLED, "True", *state.waiting) if state.waiting else None


def _reconciling(state: State) -> Wanted | None:
    # kstatus takes Stalled for final, so that both together would contradict each other.
    if _stalled(state) is not None or state.suspended:
        return None
    if state.rolling_out:
        return Wanted(RECONCILING, "True", *state.rolling_out)
    if state.stable is not None and state.ready < state.wanted:
        return Wanted(RECONCILING, "True", "Scaling", _missing(state))
    return None


def _gates(state: State) -> list[Wanted]:
    if state.rejected:
        return [Wanted(GATES_PASSED, "False", *state.rejected)]
    if state.held:
        return [Wanted(GATES_PASSED, "Unknown", *state.held)]
    if state.stable is not None and not state.rolling_out and not state.waiting:
        return [Wanted(GATES_PASSED, "True", "Passed", f"{state.stable} has passed")]
    return []


def recorded(
    history: Sequence[ServingRecord] | None, served: ServedVersion, reason: str, now: datetime
) -> tuple[ServingRecord, ...]:
    """The history, newest first, after `served` has begun to serve."""
    begun = ServingRecord(
        version=served.version, digest=served.digest, revision=served.revision, reason=reason, start_time=now
    )
    ended = [record if record.end_time else record.model_copy(update={"end_time": now}) for record in history or ()]
    return (begun, *ended)[:HISTORY_LIMIT]


def with_rejected(
    rejected: Sequence[RejectedVersion], added: RejectedVersion | None
) -> tuple[RejectedVersion, ...] | None:
    """The list with one more in front; None where it is empty."""
    kept = [each for each in rejected if added is None or each.revision != added.revision]
    return (*([added] if added else []), *kept)[:REJECTED_LIMIT] or None


def version_text(model: str, version: int) -> str:
    """`churn/5`."""
    return f"{model}/{version}"


def stalled_status(
    status: ModelDeploymentStatus, reason: str, message: str, *, generation: int, now: datetime
) -> ModelDeploymentStatus:
    """The status where the spec itself cannot be acted on; what serves goes on."""
    before = status.conditions
    known = conditions.find(before, READY)
    # As before, where something serves; no roll-out can be under way any longer.
    ready = Wanted(READY, None, "", "") if status.stable and known else Wanted(READY, "False", reason, message)
    now_so = conditions.summary(
        before,
        ready,
        stalled=Wanted(STALLED, "True", reason, message),
        absent=[ROLLING_OUT],
        generation=generation,
        now=now,
    )
    return status.model_copy(update={"conditions": now_so, "observed_generation": generation})
