"""What a ModelDeployment's pass does: from what was observed to a plan."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from lakeloop.api.v1alpha1.actions import PREFIX
from lakeloop.api.v1alpha1.deployment_status import (
    Candidate,
    LastRollout,
    ModelDeploymentStatus,
    RejectedVersion,
    ServedVersion,
)
from lakeloop.domain.deployment.actions import ABORT, RETRY, handled
from lakeloop.domain.deployment.analysis import described
from lakeloop.domain.deployment.canary import Stage
from lakeloop.domain.deployment.children import child_plan, servers_ref
from lakeloop.domain.deployment.course import ROLLED_BACK, Course, course_of, kept_of, rejected_of, version_of, whole
from lakeloop.domain.deployment.effects import TagVersion
from lakeloop.domain.deployment.observed import DIGEST_TAG, Observed, Problem, rejected_tag
from lakeloop.domain.deployment.progress import fleet_of, stage_now, with_analysis
from lakeloop.domain.deployment.rollout import Step, next_step
from lakeloop.domain.deployment.verdict import hindrance
from lakeloop.domain.plan import Effect, Event, Plan
from lakeloop.render.serving import names
from lakeloop.render.serving.service import internal_url
from lakeloop.settings import Settings
from lakeloop.status.conditions import STALLED, SUSPENDED, find, is_true, shortened
from lakeloop.status.deployment import (
    State,
    deployment_conditions,
    recorded,
    version_text,
    with_rejected,
)

LOOK_AGAIN_SECONDS: Final = 1.0
REPORT_SECONDS: Final = 10.0


def decide(observed: Observed, now: datetime, settings: Settings) -> Plan:
    """The plan for one pass over a ModelDeployment that is not being deleted, and whose spec can be acted on."""
    status, answers = handled(observed, now)
    # What was left of a version that failed goes when that is tried again: it would be judged by how it died.
    left = _left_of(observed, status)
    there = {revision: each for revision, each in observed.servers.items() if revision not in left}
    plan = _decided(replace(observed, servers=there), status, now, settings)
    gone = [servers_ref(each) for revision, each in observed.servers.items() if revision in left]
    return replace(plan, delete=(*plan.delete, *gone), events=[*plan.events, *answers])


def _left_of(observed: Observed, status: ModelDeploymentStatus) -> set[str | None]:
    """Revisions whose rejection is taken back in this pass, and that have servers left."""
    taken_back = [each for each in observed.deployment.status.rejected or () if each not in (status.rejected or ())]
    undone = {each.revision for each in status.rejected or ()}
    return {kept_of(observed, each) for each in taken_back if each.revision not in undone}


def _decided(observed: Observed, status: ModelDeploymentStatus, now: datetime, settings: Settings) -> Plan:
    if observed.spec.suspend:
        return _suspended(observed, status, now)
    status = with_analysis(observed, _with_clock_reset(status, now), now)
    course = course_of(observed, status, now, partial(stage_now, observed, status, now))
    revision = course.revision
    if revision is None:
        return _nothing_to_run(observed, status, course, now)
    step = next_step(fleet_of(observed, status, course, revision, now))
    next_status = _next_status(observed, status, course, step, now)
    children = child_plan(observed, step, next_status, settings, now)
    return Plan(
        policy="promote" if step.promoted else "roll-out" if next_status.candidate else "serve",
        reason=_reason(observed, course, step),
        status=next_status.wire(),
        effects=_effects(observed, next_status),
        apply=children.apply,
        delete=children.delete,
        requeue_after=_again(observed, course, step, next_status, bool(children.apply)),
        events=_events(observed, next_status, course, step),
    )


def _with_clock_reset(status: ModelDeploymentStatus, now: datetime) -> ModelDeploymentStatus:
    """A suspension does not count towards the deadline."""
    if status.candidate is None or not is_true(status.conditions, SUSPENDED):
        return status
    return status.model_copy(update={"candidate": status.candidate.model_copy(update={"start_time": now})})


def _next_status(
    observed: Observed, status: ModelDeploymentStatus, course: Course, step: Step, now: datetime
) -> ModelDeploymentStatus:
    revision = course.revision or ""
    stable, history, rollout = status.stable, status.history, status.last_rollout
    candidate: Candidate | None = None
    rolling = stable is None or stable.revision != revision
    if rolling:
        candidate = _candidate(observed, status, revision, course, now)
        if status.candidate is None or status.candidate.revision != revision:
            rollout = LastRollout(alias_moved_time=observed.alias_moved, observed_time=now)
        elif rollout is not None and rollout.alias_moved_time is None and observed.alias_moved:
            rollout = rollout.model_copy(update={"alias_moved_time": observed.alias_moved})
    if candidate is not None and step.promoted:
        why = _why_changed(observed, status, candidate)
        stable = ServedVersion.model_validate(
            candidate.model_dump(include=set(ServedVersion.model_fields)), by_name=True
        )
        history = recorded(history, stable, why, now)
        rollout = (rollout or LastRollout(observed_time=now)).model_copy(update={"serving_time": now})
        candidate = None
    stable = _with_figures(observed, stable, candidate, step)
    if stable is not None and candidate is not None and course.stage is not None and course.stage.share is not None:
        stable = stable.model_copy(update={"weight": 100 - course.stage.share})
    return _summed_up(
        observed,
        status.model_copy(
            update={
                "stable": stable,
                "candidate": candidate,
                "history": history,
                "last_rollout": rollout,
                "rejected": _rejections(observed, status, course),
            }
        ),
        course,
        step.pinned,
        now,
    )


def _candidate(
    observed: Observed, status: ModelDeploymentStatus, revision: str, course: Course, now: datetime
) -> Candidate:
    before = status.candidate if status.candidate and status.candidate.revision == revision else None
    target = observed.described(revision)
    ready = observed.servers[revision].ready if revision in observed.servers else 0
    if target is not None:
        registered = target.registered
        found = Candidate(
            version=registered.version,
            digest=(before.digest if before else None) or registered.digest or _reported(observed, revision),
            run_id=registered.run_id,
            inputs=registered.inputs or None,
            training_job=registered.training_job,
            revision=revision,
        )
    else:
        found = before or Candidate(version=version_of(observed, status, revision), revision=revision)
    start = before.start_time if before and before.start_time else now
    stage = course.stage
    at = {"step": stage.step, "step_time": whole(stage.since)} if stage else {"step": None, "step_time": None}
    kept = before or Candidate(version=found.version)
    figures = {each: getattr(kept, each) for each in ("analysis", "analysis_time", "analysis_failures")}
    return found.model_copy(update={"start_time": start, "ready_replicas": ready, **at, **figures})


def _reported(observed: Observed, revision: str) -> str | None:
    report = observed.reports.get(revision)
    return report.digest if report else None


def _why_changed(observed: Observed, status: ModelDeploymentStatus, candidate: Candidate) -> str:
    if status.stable is None:
        return "FirstRollout"
    if (undone := rejected_of(status, status.stable.revision or "")) is not None and undone.reason == ROLLED_BACK:
        return ROLLED_BACK
    if status.stable.version != candidate.version and observed.spec.model.alias:
        return "AliasMoved"
    return "SpecChange"


def _with_figures(
    observed: Observed, stable: ServedVersion | None, candidate: Candidate | None, step: Step
) -> ServedVersion | None:
    """The stable version with what can be counted now. Without a gateway, weights follow from ready servers."""
    if stable is None:
        return None
    servers = observed.servers.get(stable.revision or "")
    ready = servers.ready if servers else 0
    digest = stable.digest or _reported(observed, stable.revision or "")
    weight = 100
    if candidate is not None and step.pinned is None:
        both = ready + (candidate.ready_replicas or 0)
        weight = round(100 * ready / both) if both else 100
    return stable.model_copy(update={"ready_replicas": ready, "weight": weight, "digest": digest})


def _rejections(
    observed: Observed, status: ModelDeploymentStatus, course: Course
) -> tuple[RejectedVersion, ...] | None:
    """Once something else should be served, what should have been before may be tried again."""
    kept: Iterable[RejectedVersion] = status.rejected or ()
    if observed.target is not None:
        kept = [each for each in kept if observed.described(each.revision or "")]
    return with_rejected(tuple(kept), course.rejection if course.new_rejection else None)


def _summed_up(
    observed: Observed, status: ModelDeploymentStatus, course: Course, pinned: str | None, now: datetime
) -> ModelDeploymentStatus:
    """`pinned`: the revision that has the traffic; None: all have."""
    meta, spec = observed.deployment.metadata, observed.spec
    candidate, stable = status.candidate, status.stable
    if candidate is not None:
        weight = 100 - (stable.weight or 0) if stable else 100
        real = _real_share(observed, stable, candidate, pinned)
        candidate = candidate.model_copy(update={"weight": weight, "effective_weight": real})
    serving = observed.servers.get(stable.revision or "") if stable else None
    ready = sum(each.ready for each in observed.servers.values() if pinned in (None, each.revision))
    state = State(
        wanted=spec.replicas,
        stable=version_text(spec.model.name, stable.version) if stable else None,
        ready=ready,
        rolling_out=_rolling_out(observed, candidate, course) if candidate else None,
        held=(course.hold.reason, course.hold.message) if course.hold else None,
        waiting=_told(course.waiting),
        rejected=_rejected_text(observed, course.rejection),
        fixed=spec.model.version is not None,
        suspended=bool(spec.suspend),
        scaling=hindrance(serving),
    )
    url = internal_url(meta.namespace, meta.name)
    return status.model_copy(
        update={
            "candidate": candidate,
            "conditions": deployment_conditions(status.conditions, state, generation=meta.generation, now=now),
            "observed_generation": meta.generation,
            "url": url,
            "internal_url": url,
            "replicas": sum(len(each.pods) for each in observed.servers.values()),
            "selector": ",".join(f"{key}={value}" for key, value in names.selector(meta.name).items()),
        }
    )


def _real_share(observed: Observed, stable: ServedVersion | None, candidate: Candidate, pinned: str | None) -> int:
    """Percent of the requests that the candidate gets: as many as each ready server that the Service selects."""
    if pinned is not None or stable is None:
        return 100 if pinned in (None, candidate.revision) else 0
    new = candidate.ready_replicas or 0
    both = new + (stable.ready_replicas or 0)
    return round(100 * new / both) if both else 0


def _rolling_out(observed: Observed, candidate: Candidate, course: Course) -> tuple[str, str]:
    model = observed.spec.model.name
    if course.hold is not None and course.hold.pauses:
        return course.hold.reason, course.hold.message
    why = hindrance(observed.servers.get(candidate.revision or ""))
    if (stage := course.stage) is not None and stage.share is not None:
        return _on_its_way(observed, candidate, stage, why)
    ready = f"{candidate.ready_replicas or 0} of {observed.spec.replicas} servers are ready"
    return "RollingOut", f"to {version_text(model, candidate.version)}: {ready}" + (f": {why}" if why else "")


def _on_its_way(observed: Observed, candidate: Candidate, stage: Stage, why: str) -> tuple[str, str]:
    share = f"{candidate.effective_weight or 0} % of the requests"
    if candidate.effective_weight != stage.share:
        share += f" ({stage.share} % wanted)"
    told = (
        f"{version_text(observed.spec.model.name, candidate.version)} has {share}, step {stage.step + 1} of {stage.of}"
    )
    if stage.pause is not None:
        return stage.pause.reason, f"{told}: {stage.pause.message}"
    return "RollingOut", f"{told}: {why}" if why else told


def _told(problem: Problem | None) -> tuple[str, str] | None:
    return (problem.reason, f"{problem.path}: {problem.message}") if problem else None


def _rejected_text(observed: Observed, rejected: RejectedVersion | None) -> tuple[str, str] | None:
    if rejected is None:
        return None
    told = f"{version_text(observed.spec.model.name, rejected.version)} was rejected: {rejected.message}"
    if observed.deployment.status.stable is not None and kept_of(observed, rejected) is not None:
        told += (
            f"; a server of it is left, as spec.strategy.onFailure says: {PREFIX}{RETRY} tries again, {PREFIX}{ABORT}"
            " takes it away"
        )
    return rejected.reason, told


def _suspended(observed: Observed, status: ModelDeploymentStatus, now: datetime) -> Plan:
    stable = _with_figures(observed, status.stable, None, Step({}, frozenset(), None, promoted=False))
    stable = stable.model_copy(update={"weight": status.stable.weight}) if stable and status.stable else stable
    course = Course(None, rejection=rejected_of(status, observed.target.revision) if observed.target else None)
    next_status = _summed_up(observed, status.model_copy(update={"stable": stable}), course, observed.pinned, now)
    return Plan("suspended", "spec.suspend is set: the servers stay as they are", status=next_status.wire())


def _nothing_to_run(observed: Observed, status: ModelDeploymentStatus, course: Course, now: datetime) -> Plan:
    """Nothing has ever served, and what should cannot."""
    left = Step({}, frozenset(observed.servers), None, promoted=False)
    status = status.model_copy(update={"candidate": None, "rejected": _rejections(observed, status, course)})
    next_status = _summed_up(observed, status, course, None, now)
    children = child_plan(observed, left, next_status, None, now)
    return Plan(
        policy="reject" if course.rejection else "wait",
        reason=_reason(observed, course, left),
        status=next_status.wire(),
        effects=_effects(observed, next_status),
        delete=children.delete,
        requeue_after=course.waiting.retry_seconds if course.waiting else None,
        events=_events(observed, next_status, course, left),
    )


def _effects(observed: Observed, status: ModelDeploymentStatus) -> list[Effect]:
    """Tags of the target that are not as they should be."""
    if observed.target is None:
        return []
    registered, meta = observed.target.registered, observed.deployment.metadata
    wanted: dict[str, str | None] = {}
    rejected = next((each for each in status.rejected or () if each.version == registered.version), None)
    wanted[rejected_tag(meta.namespace, meta.name)] = rejected.reason if rejected else None
    for served in (status.stable, status.candidate):
        if served is not None and served.version == registered.version and served.digest and not registered.digest:
            wanted[DIGEST_TAG] = served.digest
    return [
        TagVersion(registered.name, registered.version, key, value)
        for key, value in wanted.items()
        if registered.tags.get(key) != value
    ]


def _again(
    observed: Observed, course: Course, step: Step, status: ModelDeploymentStatus, applied: bool
) -> float | None:
    """Pods and our own objects report their changes; the rest has to be looked at."""
    waits = [course.seconds_left, course.waiting.retry_seconds if course.waiting else None]
    waits.append(course.hold.again if course.hold else None)
    waits.append(course.stage.pause.again if course.stage and course.stage.pause else None)
    if observed.spec.analysis is not None and status.candidate is not None:
        waits.append(float(observed.spec.analysis.interval_seconds))
    if step.unsettled or step.promoted or (applied and step.pinned is None):
        waits.append(LOOK_AGAIN_SECONDS)
    served = [each for each in (status.stable, status.candidate) if each is not None]
    if any(each.digest is None and (each.ready_replicas or 0) > 0 for each in served):
        waits.append(REPORT_SECONDS)
    return min((each for each in waits if each is not None), default=None)


def _reason(observed: Observed, course: Course, step: Step) -> str:
    if course.new_rejection and course.rejection:
        return f"version {course.rejection.version} is rejected: {course.rejection.reason}"
    if course.waiting:
        return f"waiting: {course.waiting.path}: {course.waiting.message}"
    if step.promoted:
        return f"revision {course.revision} is ready and serves alone"
    return f"servers wanted: {dict(step.replicas)}, selected: {step.pinned or 'all'}"


def _events(observed: Observed, status: ModelDeploymentStatus, course: Course, step: Step) -> list[Event]:
    """What changed with this pass."""
    before, model = observed.deployment.status, observed.spec.model.name
    events: list[Event] = []
    begun = before.candidate.revision if before.candidate else None
    if status.candidate is not None and status.candidate.revision != begun:
        events.append(Event("Normal", "RolloutStarted", f"starting {version_text(model, status.candidate.version)}"))
    if step.promoted and status.stable is not None:
        text = f"{version_text(model, status.stable.version)} serves"
        events.append(Event("Normal", "RolloutCompleted", text))
    if (stage := course.stage) is not None and status.candidate is not None and stage.pause is not None:
        was = before.candidate.step if before.candidate and begun == status.candidate.revision else None
        if was != stage.step:
            told_of = _on_its_way(observed, status.candidate, stage, "")
            events.append(Event("Normal", *told_of))
    if observed.counted is not None and observed.spec.analysis is not None and status.candidate is not None:
        told_off = described(status.candidate, observed.spec.analysis)
        if told_off:
            events.append(Event("Warning", "MeasurementFailed", told_off))
    if course.new_rejection and (text_of := _rejected_text(observed, course.rejection)) is not None:
        events.append(Event("Warning", "VersionRejected", f"{text_of[0]}: {text_of[1]}"))
    if (told := _told(course.waiting)) is not None:
        stalled = find(before.conditions, STALLED)
        if stalled is None or (stalled.reason, stalled.message) != (told[0], shortened(told[1])):
            events.append(Event("Warning", told[0], told[1]))
    if step.promoted:
        report = observed.reports.get(course.revision or "")
        events += [Event("Warning", "ServerWarning", each) for each in (report.warnings if report else ())]
    return events
