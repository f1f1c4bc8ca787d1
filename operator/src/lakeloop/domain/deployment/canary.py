"""A change-over in steps: what share of the traffic the candidate should have now, and what it waits for.

Without a gateway shares are made of servers: the Service gives each ready one as much. So that no request lacks a
server, the sum never falls below the number wanted, and a share is as exact as whole servers allow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lakeloop.api.v1alpha1.actions import PREFIX
from lakeloop.api.v1alpha1.deployment_rollout import CanaryStep
from lakeloop.domain.deployment.gates import Hold

PROMOTE = "promote"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a candidate is on its way."""

    step: int
    """Index of the step that is under way."""
    of: int
    since: datetime
    """When that step began."""
    share: int | None
    """Percent of the requests that the candidate should have; None: all steps are done."""
    pause: Hold | None = None


def split(wanted: int, share: int) -> tuple[int, int]:
    """Servers of the stable version and of the candidate. One of both has all that are wanted."""
    if share <= 50:
        return wanted, max(1, round(wanted * share / (100 - share)))
    return max(1, round(wanted * (100 - share) / share)), wanted


def stage_of(
    steps: Sequence[CanaryStep],
    step: int,
    since: datetime,
    reached: Callable[[int], bool],
    now: datetime,
    analysed: Callable[[datetime], Hold | None] = lambda since: None,
) -> Stage:
    """The step that is under way, from the one that was when the last pass looked.

    `reached` tells of a share whether the candidate has it; `analysed`, of when a step with a share began, what its
    analysis waits for.
    """
    count = len(steps)
    while step < count:
        here, pause = steps[step], None
        if here.set_weight is not None:
            if not reached(here.set_weight):
                return Stage(step, count, since, here.set_weight)
        else:
            pause = _pause(here, since, now)
        share = share_at(steps, step)
        # A person's word is enough.
        if pause is None and here.pause is None and share > 0:
            pause = analysed(since)
        if pause is not None:
            return Stage(step, count, since, share, pause)
        step, since = step + 1, now
    return Stage(count, count, since, None)


def share_at(steps: Sequence[CanaryStep], step: int) -> int:
    """The share that the steps before have set; 0 before the first."""
    return next((each.set_weight for each in reversed(steps[: step + 1]) if each.set_weight is not None), 0)


def is_pause(steps: Sequence[CanaryStep], step: int | None) -> bool:
    """Whether that step waits for time to pass, or for a person."""
    return step is not None and step < len(steps) and steps[step].set_weight is None


def _pause(here: CanaryStep, since: datetime, now: datetime) -> Hold | None:
    """None: it is over."""
    if here.pause_seconds is None:
        return Hold("Paused", f"waits for {PREFIX}{PROMOTE}", pauses=True)
    left = (since + timedelta(seconds=here.pause_seconds) - now).total_seconds()
    if left <= 0:
        return None
    return Hold("Paused", f"waits for {here.pause_seconds} s, or for {PREFIX}{PROMOTE}", left, pauses=True)
