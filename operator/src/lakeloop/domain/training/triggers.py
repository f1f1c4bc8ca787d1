"""What the clock and the commits ask for, and how it is kept that each of them starts one run.

`status.triggers` holds the newest tick that was acted on, and up to which version commits are in a run. Both move in
the same write as what was done about them, so that no restart misses one or takes one twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from lakeloop.api.v1alpha1.trainingjob import (
    TERMINAL_PHASES,
    DeltaState,
    Run,
    RunTrigger,
    ScheduleState,
    TriggerState,
)
from lakeloop.domain.plan import Event, Plan
from lakeloop.domain.training.observed import FailedLook, NewCommits, Problem
from lakeloop.domain.training.schedule import InvalidSchedule, Schedule, rfc3339, schedule
from lakeloop.domain.training.situation import Situation, normal, seconds_until, warning
from lakeloop.render.errors import Unrenderable
from lakeloop.render.training.storage import input_uri
from lakeloop.status.conditions import SUSPENDED, is_true

LONGEST_SLEEP_SECONDS: Final = 600.0
"""Between looks at the clock, which may be set meanwhile."""
MOST_COUNTED: Final = 100
"""Missed ticks that are counted; of more it is said that there are more."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A run that a trigger asks for."""

    trigger: RunTrigger
    key: str
    """What makes it unique."""
    why: str


@dataclass(frozen=True, slots=True)
class Clock:
    """A schedule, and where the job stands in it."""

    schedule: Schedule
    state: ScheduleState
    due: datetime | None
    """The newest tick that was not acted on."""


def wish(sit: Situation) -> Wish | None:
    """What the triggers ask for now. With a run at work, only what that run does not cover."""
    return _tick(sit) or _commits(sit)


def _tick(sit: Situation) -> Wish | None:
    clock = _clock(sit)
    if not isinstance(clock, Clock) or clock.due is None or _too_late(sit, clock.due):
        return None
    tick = rfc3339(clock.due)
    return Wish("Schedule", tick, f"the schedule's tick of {tick}")


def _too_late(sit: Situation, tick: datetime) -> bool:
    return sit.now - tick > timedelta(seconds=sit.spec.run_policy.start_deadline_seconds)


def _clock(sit: Situation) -> Clock | InvalidSchedule | None:
    wanted = sit.spec.triggers.schedule
    if wanted is None:
        return None
    try:
        found = schedule(wanted.cron, wanted.time_zone)
    except InvalidSchedule as error:
        return error
    known = sit.status.triggers.schedule if sit.status.triggers else None
    if known is None or (known.cron, known.time_zone) != (wanted.cron, wanted.time_zone):
        # A schedule counts from when it is seen: what it would have done before is nobody's wish. Nor may a clock that
        # was set back make a tick come twice.
        since = max(sit.now, known.last_time) if known else sit.now
        return Clock(found, ScheduleState(cron=wanted.cron, time_zone=wanted.time_zone, last_time=since), None)
    due = _newest(found, sit.now)
    return Clock(found, known, due if due is not None and due > known.last_time else None)


@lru_cache(maxsize=8192)
def _newest(found: Schedule, now: datetime) -> datetime | None:
    return found.last(now)


def _commits(sit: Situation) -> Wish | None:
    trigger, seen = sit.spec.triggers.delta, sit.observed.commits
    if trigger is None or not isinstance(seen, NewCommits) or not enough(sit):
        return None
    if (sit.run is not None and sit.run.inputs is None) or sit.now < _quiet_from(sit, seen):
        return None
    return Wish("DeltaCommit", f"{trigger.input}@{seen.version}", f"{_counted(seen)} to {trigger.input}")


def enough(sit: Situation) -> bool:
    """Whether so much was committed that, once the table is quiet, a run starts."""
    trigger, seen = sit.spec.triggers.delta, sit.observed.commits
    if trigger is None or not isinstance(seen, NewCommits) or seen.more or not seen.commits:
        return False
    return seen.commits >= trigger.min_commits and (seen.rows >= trigger.min_rows or seen.unknown > 0)


def _quiet_from(sit: Situation, seen: NewCommits) -> datetime:
    trigger = sit.spec.triggers.delta
    return (seen.newest or sit.now) + timedelta(seconds=trigger.debounce_seconds if trigger else 0)


def _counted(seen: NewCommits) -> str:
    text = f"{seen.commits} commit{'' if seen.commits == 1 else 's'}"
    return f"{text} ({seen.unknown} of them with an unknown number of rows)" if seen.unknown else text


def problem(sit: Situation) -> Problem | None:
    """Why a trigger cannot fire."""
    clock, seen = _clock(sit), sit.observed.commits
    if isinstance(clock, InvalidSchedule):
        return Problem("InvalidSchedule", clock.message, clock.field, "Submission")
    return seen.problem if isinstance(seen, FailedLook) else None


def held_back(sit: Situation) -> str:
    """What would have started a run, were the job not suspended."""
    if sit.run is not None:
        return ""
    clock, trigger, seen = _clock(sit), sit.spec.triggers.delta, sit.observed.commits
    told = []
    if isinstance(clock, Clock) and clock.due is not None:
        told.append(f"the schedule would have started a run at {rfc3339(clock.due)}")
    if trigger is not None and isinstance(seen, NewCommits) and enough(sit):
        told.append(f"{_counted(seen)} to {trigger.input} would have started a run")
    found = problem(sit)
    if found is not None:
        told.append(found.text)
    return "".join(f"; {each}" for each in told)


# -- the delta trigger's table


def table(sit: Situation) -> tuple[int, str] | None:
    """The trigger's input, by its place in the spec, and where it lies. Raises Unrenderable."""
    trigger = sit.spec.triggers.delta
    for index, each in enumerate(sit.spec.inputs):
        if trigger is not None and each.name == trigger.input:
            return index, input_uri(index, each, sit.spec.storage, sit.observed.platform)
    return None


def baseline(sit: Situation, uri: str) -> int | None:
    """Commits up to this version are in a run; None: there is no run that read the table."""
    state = sit.status.triggers.delta if sit.status.triggers else None
    if state is not None and state.uri == uri:
        return state.version
    runs = (sit.status.run, *(sit.status.history or ()))
    return next((version for run in runs if run is not None and (version := pinned(run, uri)) is not None), None)


def pinned(run: Run, uri: str) -> int | None:
    """The version of the table that the run reads, as far as that is known."""
    found = [each for each in run.inputs or () if each.uri == uri]
    versions = [each.base_version if each.version is None else each.version for each in found]
    return max((each for each in versions if each is not None), default=None)


# -- what is remembered


def accounted(sit: Situation, plan: Plan) -> Plan:
    """The plan, whose status holds what was done about ticks and commits too, and which looks again in time."""
    if plan.status is None or sit.observed.job.metadata.deletion_timestamp is not None:
        return plan
    after = Run.parse(plan.status["run"]) if plan.status.get("run") else None
    clock, clock_events, upcoming = _next_clock(sit, plan)
    delta, delta_events = _next_delta(sit, plan, after)
    state = TriggerState(schedule=clock, delta=delta)
    written: Mapping[str, Any] = {
        "triggers": state.wire() or None,
        "nextScheduleTime": rfc3339(upcoming) if upcoming is not None and not sit.suspended else None,
    }
    kept = {key: value for key, value in plan.status.items() if key not in written}
    return replace(
        plan,
        status=kept | {key: value for key, value in written.items() if value is not None},
        requeue_after=_look_again(sit, plan, after, upcoming),
        events=[*plan.events, *clock_events, *delta_events],
    )


def _next_clock(sit: Situation, plan: Plan) -> tuple[ScheduleState | None, list[Event], datetime | None]:
    """What is remembered of the schedule, what is said, and the next tick."""
    clock = _clock(sit)
    if not isinstance(clock, Clock):
        known = sit.status.triggers.schedule if sit.status.triggers else None
        return (known if clock is not None else None), [], None
    upcoming = _upcoming(clock.schedule, max(sit.now, clock.state.last_time))
    if clock.due is None or sit.suspended:
        return clock.state, [], upcoming
    acted = clock.state.model_copy(update={"last_time": clock.due})
    if is_true(sit.status.conditions, SUSPENDED) or plan.policy == "refusal":
        return acted, [], upcoming  # not replayed: what was held back was told while it was
    earlier = clock.schedule.count(clock.state.last_time, clock.due - timedelta(seconds=1), MOST_COUNTED)
    if plan.policy == "start":
        return acted, _missed(clock.state.last_time, earlier), upcoming
    tick = rfc3339(clock.due)
    if sit.run is not None and sit.spec.run_policy.concurrency == "Forbid":
        message = f"the tick of {tick} starts no run: run {sit.run.number} is not over (runPolicy.concurrency: Forbid)"
        return acted, [*_missed(clock.state.last_time, earlier), normal("ScheduleSkipped", message)], upcoming
    if _too_late(sit, clock.due):
        limit = sit.spec.run_policy.start_deadline_seconds
        message = f"the tick of {tick} was missed by more than spec.runPolicy.startDeadlineSeconds, {limit} s"
        return acted, [*_missed(clock.state.last_time, earlier), warning("ScheduleMissed", message)], upcoming
    return clock.state, [], upcoming  # the run that it replaces is being stopped


def _upcoming(found: Schedule, after: datetime) -> datetime | None:
    try:
        return found.next(after)
    except StopIteration:
        return None


def _missed(since: datetime, count: int) -> list[Event]:
    if not count:
        return []
    ticks = f"{'more than ' if count == MOST_COUNTED else ''}{count} tick{'' if count == 1 else 's'}"
    return [warning("ScheduleMissed", f"{ticks} after {rfc3339(since)} passed unseen: only the newest one counts")]


def _next_delta(sit: Situation, plan: Plan, after: Run | None) -> tuple[DeltaState | None, list[Event]]:
    """What is remembered of the table, and what is said."""
    known = sit.status.triggers.delta if sit.status.triggers else None
    try:
        found = table(sit)
    except Unrenderable:
        return known, []
    if found is None:
        return None, []
    uri, events = found[1], []
    version = baseline(sit, uri)
    seen = sit.observed.commits
    if isinstance(seen, NewCommits) and seen.recreated and version is not None:
        message = f"the table at {uri} was made anew (it no longer has version {version}): all of its commits are new"
        events = [warning("TableRecreated", message)]
        version = None
    if after is not None:
        before = sit.status.run
        was = pinned(before, uri) if before is not None and before.uid == after.uid else None
        read = pinned(after, uri)
        if read is not None and read != was:
            version = read
        if plan.policy == "start" and after.trigger == "DeltaCommit" and isinstance(seen, NewCommits):
            version = seen.version
    return DeltaState(uri=uri, version=version), events


def _look_again(sit: Situation, plan: Plan, after: Run | None, upcoming: datetime | None) -> float | None:
    triggers, seen = sit.spec.triggers, sit.observed.commits
    due = [] if plan.requeue_after is None else [plan.requeue_after]
    over = sit.run is not None and after is not None and after.phase in TERMINAL_PHASES
    if over and (triggers.schedule is not None or triggers.delta is not None):
        due.append(0.0)  # what waited for the run to end may start now
    if upcoming is not None:
        due.append(min(seconds_until(upcoming, sit.now, least=0.5), LONGEST_SLEEP_SECONDS))
    if isinstance(seen, FailedLook):
        due.append(seen.again)
    elif isinstance(seen, NewCommits) and seen.more:
        due.append(0.0)
    elif isinstance(seen, NewCommits) and enough(sit) and sit.now < _quiet_from(sit, seen):
        due.append(seconds_until(_quiet_from(sit, seen), sit.now, least=0.5))
    return min(due, default=None)
