"""A driver at work: what it says goes into status."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lakeloop.api.v1alpha1.trainingjob import (
    Progress,
    Run,
    RunInput,
    RunPhase,
)
from lakeloop.domain.plan import Plan
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.driver import DriverFailure
from lakeloop.domain.training.observed import Problem
from lakeloop.domain.training.outcomes import fail, link_to_logs, wait
from lakeloop.domain.training.situation import Situation, after, seconds_until
from lakeloop.status.training import Said

SAFETY_LOOK_SECONDS = 30.0
"""A look at a running driver although nothing was heard of it: events can be lost."""
POLL_SECONDS = 2.0
"""Between looks at a pod that is on its way out."""


def watch(sit: Situation) -> Plan | None:
    """A driver that is not over: its progress goes into status, and the versions that it ingested are pinned."""
    pod = sit.driver
    if pod is None or drivers.is_terminal(pod) or drivers.is_lost(pod, sit.now):
        return None
    run = adopted(sit, pod)
    seen = drivers.progress(pod, run.uid, sit.identity.attempt) or {}
    run = run.model_copy(update={"inputs": with_versions(run.inputs, drivers.versions(seen))})
    if drivers.phase(pod) == "Pending":
        return _not_running(sit, pod, run)
    progress = _progress(seen)
    stage = progress.stage if progress else None
    phase: RunPhase = "Evaluating" if stage in ("Evaluating", "Logging") else "Running"
    running = run.model_copy(update={"phase": phase, "progress": progress})
    said = Said(
        "InProgress", "DriverRunning", f"run {run.number}, attempt {sit.identity.attempt}: {stage or 'Starting'}"
    )
    # Once, and not before the launch, which waits for nothing that it does not need.
    linked = link_to_logs(sit.active) if sit.active.phase in ("Pending", "Submitting") else []
    return sit.plan("watch", said, run=running, effects=linked, requeue_after=_until_deadline(sit, run))


def adopted(sit: Situation, pod: Mapping[str, Any]) -> Run:
    """The run as it is once its driver is there: the status may have been lost that was to say so."""
    run = sit.active
    return run.model_copy(
        update={
            "phase": "Submitting" if run.phase == "Pending" else run.phase,
            "code_digest": run.code_digest or (sit.script.digest() if sit.script else None),
            "driver_pod": pod["metadata"]["name"],
            "next_attempt_time": None,
            "launch_time": run.launch_time or sit.now,
        }
    )


def _not_running(sit: Situation, pod: Mapping[str, Any], run: Run) -> Plan:
    limit = sit.spec.run_policy.start_deadline_seconds
    created = pod["metadata"].get("creationTimestamp")
    since = datetime.fromisoformat(created) if created else sit.now
    why = drivers.waiting(pod)
    if sit.now >= after(since, limit, sit.now):
        message = f"the driver did not start within {limit} s"
        late = DriverFailure("Submission", "DriverNotStarted", message, retriable=False)
        return fail(sit, "start-deadline", why or late, run)
    left = min(SAFETY_LOOK_SECONDS, seconds_until(after(since, limit, sit.now), sit.now, least=1.0))
    submitted = run.model_copy(update={"phase": "Submitting"})
    if why is None:
        said = Said("InProgress", "DriverCreated", f"run {run.number}, attempt {run.attempt}: the driver is starting")
        return sit.plan("starting", said, run=submitted, requeue_after=left)
    problem = Problem(why.reason, why.message, why.field, why.failure)
    return wait(sit, "starting", problem, submitted, within=left)


def _progress(seen: Mapping[str, Any]) -> Progress | None:
    known = {key: seen[key] for key in ("stage", "percent", "remainingSeconds") if seen.get(key) is not None}
    if seen.get("trialsTotal"):
        known |= {"trialsTotal": seen["trialsTotal"], "trialsFinished": seen.get("trialsFinished", 0)}
    try:
        return Progress.parse(known) if known else None
    except ValueError:
        # An annotation can be written by anyone who may patch pods; what is not a progress is not shown.
        return None


def _until_deadline(sit: Situation, run: Run) -> float:
    end = after(run.launch_time, sit.spec.run_policy.active_deadline_seconds, sit.now)
    return min(SAFETY_LOOK_SECONDS, seconds_until(end, sit.now, least=0.5))


def with_versions(inputs: Sequence[RunInput] | None, found: Mapping[str, int]) -> tuple[RunInput, ...] | None:
    """The inputs, with the versions that ingestion made where none is pinned yet. A pinned one never changes."""
    if inputs is None:
        return None
    return tuple(
        each.model_copy(update={"version": found[each.name]})
        if each.version is None and each.manifest is not None and each.name in found
        else each
        for each in inputs
    )


def described(inputs: Sequence[RunInput]) -> str:
    """The inputs in a few words."""
    return ", ".join(
        f"{each.name}: {each.files} files" if each.manifest else f"{each.name}@{each.version}" for each in inputs
    )
