"""Conditions in the sense of kstatus: a list-map by type, each written only where it says something.

`Ready` is always there. `Reconciling` and `Stalled` are abnormal-true: there while true, absent otherwise, which is how
`kubectl wait`, Flux, Argo CD and Helm's wait read them (sigs.k8s.io/cli-utils, pkg/kstatus).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lakeloop.api.v1alpha1.common import Condition, ConditionStatus

READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
SUSPENDED: Final = "Suspended"

MAX_MESSAGE = 1024
"""Characters that a message is cut to; the schema allows more, but a person reads no more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A condition to write. `status` None: the condition keeps its status, reason and message; it is new as False."""

    type: str
    status: ConditionStatus | None
    reason: str = ""
    message: str = ""


def find(conditions: Iterable[Condition] | None, kind: str) -> Condition | None:
    """The condition of that type."""
    return next((each for each in conditions or () if each.type == kind), None)


def is_true(conditions: Iterable[Condition] | None, kind: str) -> bool:
    """Whether there is a condition of that type, and it is True."""
    found = find(conditions, kind)
    return found is not None and found.status == "True"


def updated(
    before: Iterable[Condition] | None,
    wanted: Iterable[Wanted],
    *,
    absent: Iterable[str] = (),
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """The next conditions: those before, with the wanted ones in place and the absent ones gone, sorted by type.

    `lastTransitionTime` moves only where the status changes.
    """
    known = {each.type: each for each in before or ()}
    for kind in absent:
        known.pop(kind, None)
    for each in wanted:
        known[each.type] = _next(known.get(each.type), each, generation, now)
    return tuple(known[kind] for kind in sorted(known))


def _next(before: Condition | None, wanted: Wanted, generation: int, now: datetime) -> Condition:
    if wanted.status is None and before is not None:
        return before.model_copy(update={"observed_generation": generation})
    status = wanted.status or "False"
    same = before is not None and before.status == status and before.last_transition_time is not None
    return Condition(
        type=wanted.type,
        status=status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if same and before else now.replace(microsecond=0),
        reason=wanted.reason or "Unknown",
        message=shortened(wanted.message),
    )


def shortened(message: str, limit: int = MAX_MESSAGE) -> str:
    """The message, cut to so many characters."""
    return message if len(message) <= limit else message[: limit - 1] + "…"


def summary(
    before: Iterable[Condition] | None,
    ready: Wanted,
    *,
    reconciling: Wanted | None = None,
    stalled: Wanted | None = None,
    others: Iterable[Wanted] = (),
    absent: Iterable[str] = (),
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """The three kstatus conditions as one decision, and others beside them. What is None is taken away."""
    gone = [kind for kind, each in ((RECONCILING, reconciling), (STALLED, stalled)) if each is None]
    wanted = [each for each in (ready, reconciling, stalled) if each is not None]
    return updated(before, [*wanted, *others], absent=[*gone, *absent], generation=generation, now=now)
