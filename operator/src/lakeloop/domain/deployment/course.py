"""Where a pass is going: which revision should serve, and why another does not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lakeloop.api.v1alpha1.deployment_status import ModelDeploymentStatus, RejectedVersion
from lakeloop.domain.deployment.analysis import complaint
from lakeloop.domain.deployment.canary import Stage
from lakeloop.domain.deployment.gates import Hold, pass_gates
from lakeloop.domain.deployment.observed import Observed, Problem
from lakeloop.domain.deployment.verdict import Rejection, judge
from lakeloop.status.conditions import shortened

ROLLED_BACK = "RolledBack"
"""Why a version that was good enough to serve does not: a person's wish."""
ABORTED = "Aborted"
"""The same, of one that was on its way."""


@dataclass(frozen=True, slots=True)
class Course:
    """Where the pass is going: which revision should serve, and what is known of why another does not."""

    revision: str | None
    """None: there is nothing to run."""
    rejection: RejectedVersion | None = None
    """Of the version that should be served."""
    waiting: Problem | None = None
    hold: Hold | None = None
    """Why the revision that should serve has no traffic yet."""
    stage: Stage | None = None
    """Where a canary is on its way."""
    seconds_left: float | None = None
    new_rejection: bool = False


StageAt = Callable[[Course, str], Stage | None]
"""Where a canary is with that course and revision."""


def course_of(observed: Observed, status: ModelDeploymentStatus, now: datetime, stage_at: StageAt) -> Course:
    """What the registry, the rejections and the servers' fates come to. `status`: with actions already handled."""
    stable = status.stable.revision if status.stable else None
    target = observed.target
    if target is None:
        # What was begun is finished, and what serves goes on: only the registry's news is missing.
        begun = status.candidate.revision if status.candidate else None
        going_on = begun in observed.servers and begun is not None and rejected_of(status, begun) is None
        course = Course(begun if going_on else stable, waiting=observed.problem)
    else:
        known_bad = rejected_of(status, target.revision)
        course = Course(target.revision)
        if known_bad is not None:
            course = Course(_way_back(observed, status, known_bad) or stable, rejection=known_bad)
    recovery = observed.recovery
    lost = course.revision == stable and stable not in observed.servers
    if lost and recovery is not None and rejected_of(status, recovery.revision) is None:
        course = replace(course, revision=recovery.revision)
    if course.revision is None or course.revision == stable:
        return course
    return _judged(observed, status, course, course.revision, now, stage_at)


def _way_back(observed: Observed, status: ModelDeploymentStatus, rejected: RejectedVersion) -> str | None:
    """The revision that a rollback is on its way to."""
    candidate, back = status.candidate, observed.recovery
    if rejected.reason != ROLLED_BACK or candidate is None or back is None or candidate.revision != back.revision:
        return None
    return back.revision if rejected_of(status, back.revision) is None else None


def _judged(
    observed: Observed,
    status: ModelDeploymentStatus,
    course: Course,
    revision: str,
    now: datetime,
    stage_at: StageAt,
) -> Course:
    stable = status.stable.revision if status.stable else None
    gate = pass_gates(observed, status, revision, now)
    hold = gate if isinstance(gate, Hold) else None
    stage = stage_at(replace(course, hold=hold), revision)
    paused = any(each is not None and each.pauses for each in (hold, stage.pause if stage else None))
    verdict = judge(
        observed.servers.get(revision),
        now if paused else _started(status, revision, stage) or now,
        observed.spec.strategy.progress_deadline_seconds,
        now,
    )
    rejection = verdict.rejection or (gate if isinstance(gate, Rejection) else None) or _off(observed, status, revision)
    if rejection is not None:
        rejected = _rejection(observed, status, revision, rejection, now)
        return replace(course, revision=stable, rejection=rejected, new_rejection=True)
    if verdict.waiting is not None:
        return replace(course, waiting=course.waiting or verdict.waiting)
    return replace(course, hold=hold, stage=stage, seconds_left=None if paused else verdict.seconds_left)


def _off(observed: Observed, status: ModelDeploymentStatus, revision: str) -> Rejection | None:
    """What the analysis says against it."""
    candidate, analysis = status.candidate, observed.spec.analysis
    if candidate is None or candidate.revision != revision or analysis is None:
        return None
    told = complaint(candidate, analysis)
    return Rejection("AnalysisFailed", told) if told is not None else None


def kept_of(observed: Observed, rejected: RejectedVersion | None) -> str | None:
    """The revision of the version that failed, where `onFailure: Pause` leaves its servers for people to look at."""
    if rejected is None or observed.spec.strategy.on_failure != "Pause" or rejected.reason in (ABORTED, ROLLED_BACK):
        return None
    return rejected.revision if rejected.revision in observed.servers else None


def rejected_of(status: ModelDeploymentStatus, revision: str) -> RejectedVersion | None:
    """Why that revision was rejected; None where it was not."""
    return next((each for each in status.rejected or () if each.revision == revision), None)


def _started(status: ModelDeploymentStatus, revision: str, stage: Stage | None) -> datetime | None:
    """When the roll-out began, or the step of a canary that is under way."""
    candidate = status.candidate
    if candidate is None or candidate.revision != revision:
        return None
    return max((each for each in (candidate.start_time, stage.since if stage else None) if each), default=None)


def _rejection(
    observed: Observed, status: ModelDeploymentStatus, revision: str, why: Rejection, now: datetime
) -> RejectedVersion:
    version = version_of(observed, status, revision)
    return RejectedVersion(
        version=version, reason=why.reason, message=shortened(why.message), revision=revision, time=whole(now)
    )


def version_of(observed: Observed, status: ModelDeploymentStatus, revision: str) -> int:
    """The registry version that the revision serves."""
    if (described := observed.described(revision)) is not None:
        return described.registered.version
    if status.candidate is not None and status.candidate.revision == revision:
        return status.candidate.version
    return observed.servers[revision].version


def whole(now: datetime) -> datetime:
    """Without a fraction of a second, as it is stored."""
    return now - timedelta(microseconds=now.microsecond)
