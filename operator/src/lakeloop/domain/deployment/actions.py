"""What people ask of a deployment by annotations: taken note of once, before anything else is decided."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lakeloop.api.v1alpha1.actions import APPROVE, PREFIX, refusals, request_id
from lakeloop.api.v1alpha1.deployment_status import Candidate, ModelDeploymentStatus, RejectedVersion
from lakeloop.api.v1alpha1.modeldeployment import ModelDeployment
from lakeloop.domain.deployment.canary import PROMOTE, is_pause
from lakeloop.domain.deployment.course import ABORTED, ROLLED_BACK, kept_of, rejected_of
from lakeloop.domain.deployment.observed import Observed
from lakeloop.domain.plan import Event
from lakeloop.status.conditions import shortened
from lakeloop.status.deployment import version_text, with_rejected

RETRY: Final = "retry"
ABORT: Final = "abort"
ROLLBACK: Final = "rollback"
_CHOSEN: Final = re.compile(r"to-([1-9][0-9]{0,15})(-.*)?")
"""A rollback to one version of the history. Any other id: to the one that served before."""


@dataclass(frozen=True, slots=True)
class _Handled:
    """What an action comes to."""

    status: ModelDeploymentStatus
    event: Event


def handled(observed: Observed, now: datetime) -> tuple[ModelDeploymentStatus, list[Event]]:
    """The status with new actions taken note of, and the answers to them."""
    status, annotations = observed.deployment.status, observed.deployment.metadata.annotations
    answers: list[Event] = []
    for refused in refusals("ModelDeployment", annotations, status.last_handled):
        status = _noted(status, refused.key, refused.id)
        answers.append(Event("Warning", refused.reason, shortened(refused.message)))
    for action, act in _ACTS.items():
        asked = request_id(annotations, action)
        if asked is None or (status.last_handled or {}).get(action) == asked:
            continue
        done = act(observed, status, asked, now)
        if done is not None:
            status = _noted(done.status, action, asked)
            answers.append(Event(done.event.type, done.event.reason, shortened(done.event.message)))
    return status, answers


def returns_to(deployment: ModelDeployment) -> int | None:
    """The version that a rollback goes back to, as far as the object itself says: `gather` has to look it up."""
    status, candidate = deployment.status, deployment.status.candidate
    if candidate is not None:
        undone = any(each.reason == ROLLED_BACK for each in status.rejected or ())
        return candidate.version if undone else None
    asked = request_id(deployment.metadata.annotations, ROLLBACK)
    if asked is None or (status.last_handled or {}).get(ROLLBACK) == asked:
        return None
    return _before(status, asked)


def _noted(status: ModelDeploymentStatus, action: str, asked: str) -> ModelDeploymentStatus:
    return status.model_copy(update={"last_handled": {**(status.last_handled or {}), action: asked}})


def _retry(observed: Observed, status: ModelDeploymentStatus, asked: str, now: datetime) -> _Handled:
    """Nothing is rejected any longer."""
    event = Event("Normal", "Retried", f"{PREFIX}{RETRY}: {asked}: what was rejected may be tried again")
    return _Handled(status.model_copy(update={"rejected": None}), event)


def _abort(observed: Observed, status: ModelDeploymentStatus, asked: str, now: datetime) -> _Handled:
    by, left = f"{PREFIX}{ABORT}: {asked}", status.candidate or _left(observed, status)
    if left is None:
        return _Handled(status, Event("Warning", "NothingToAbort", f"{by}: nothing is rolled out"))
    return _undone(observed, status, left.version, left.revision, ABORTED, by, now)


def _left(observed: Observed, status: ModelDeploymentStatus) -> RejectedVersion | None:
    """The version that failed, and of which a server is left."""
    rejected = rejected_of(status, observed.target.revision) if observed.target else None
    return rejected if kept_of(observed, rejected) is not None else None


def _roll_back(observed: Observed, status: ModelDeploymentStatus, asked: str, now: datetime) -> _Handled | None:
    """Away from what serves, or from what is about to. None: the registry has to be asked first."""
    by, stable, candidate = f"{PREFIX}{ROLLBACK}: {asked}", status.stable, status.candidate

    def refused(why: str) -> _Handled:
        return _Handled(status, Event("Warning", "RollbackRefused", f"{by}: {why}"))

    if observed.spec.model.version is not None:
        return refused("spec.model.version is fixed: write the version that should serve there")
    if candidate is not None and stable is not None:
        return _undone(observed, status, candidate.version, candidate.revision, ROLLED_BACK, by, now)
    version = _before(status, asked)
    if stable is None or version is None:
        known = sorted({each.version for each in status.history or ()} - {stable.version if stable else 0})
        return refused(f"of what served before there is {', '.join(map(str, known)) or 'nothing'}")
    if observed.target is None:
        return None
    back = observed.recovery
    if back is None or back.registered.version != version:
        return refused(f"the registry has no version {version} of {observed.spec.model.name} that could be served")
    undone = _undone(observed, status, stable.version, stable.revision, ROLLED_BACK, by, now).status
    if observed.target.revision != stable.revision and rejected_of(undone, observed.target.revision) is None:
        # The alias has moved this very moment: what it names now is what is not wanted either.
        undone = _undone(
            observed, undone, observed.target.registered.version, observed.target.revision, ROLLED_BACK, by, now
        ).status
    begun = Candidate(version=version, revision=back.revision, start_time=now)
    told = f"{by}: from {_text(observed, stable.version)} to {_text(observed, version)}"
    return _Handled(undone.model_copy(update={"candidate": begun}), Event("Normal", "RollingBack", told))


def _approve(observed: Observed, status: ModelDeploymentStatus, asked: str, now: datetime) -> _Handled | None:
    """None: another version than the one that waits; it may come yet."""
    target = observed.target
    if target is None or str(target.registered.version) != asked:
        return None
    if status.candidate is not None and status.candidate.revision == target.revision:
        # The time of waiting for a person does not count.
        status = status.model_copy(update={"candidate": status.candidate.model_copy(update={"start_time": now})})
    text = _text(observed, target.registered.version)
    return _Handled(status, Event("Normal", "Approved", f"{text} may serve: {PREFIX}{APPROVE}: {asked}"))


def _promote(observed: Observed, status: ModelDeploymentStatus, asked: str, now: datetime) -> _Handled:
    """The pause of a canary is over."""
    by, candidate, canary = f"{PREFIX}{PROMOTE}: {asked}", status.candidate, observed.spec.strategy.canary
    if candidate is None or canary is None or not is_pause(canary.steps, candidate.step):
        return _Handled(status, Event("Warning", "NothingToPromote", f"{by}: no canary pauses"))
    step = (candidate.step or 0) + 1
    gone_on = candidate.model_copy(update={"step": step, "step_time": now})
    told = f"{by}: {_text(observed, candidate.version)} goes on to step {step + 1} of {len(canary.steps)}"
    if step == len(canary.steps):
        told = f"{by}: {_text(observed, candidate.version)} gets everything"
    return _Handled(status.model_copy(update={"candidate": gone_on}), Event("Normal", "Promoted", told))


def _undone(
    observed: Observed,
    status: ModelDeploymentStatus,
    version: int,
    revision: str | None,
    reason: str,
    by: str,
    now: datetime,
) -> _Handled:
    """The version is rejected; what serves, or served before, does."""
    when = now.replace(microsecond=0)
    rejected = RejectedVersion(version=version, reason=reason, message=by, revision=revision, time=when)
    event = Event("Warning", "VersionRejected", f"{_text(observed, version)}: {reason}: {by}")
    update = {"rejected": with_rejected(status.rejected or (), rejected), "candidate": None}
    return _Handled(status.model_copy(update=update), event)


def _before(status: ModelDeploymentStatus, asked: str) -> int | None:
    """The version of the history that is asked for; None where there is none but the one that serves."""
    now = status.stable.version if status.stable else None
    there = [each.version for each in status.history or () if each.version != now]
    chosen = _CHOSEN.fullmatch(asked)
    if chosen is not None:
        return int(chosen[1]) if int(chosen[1]) in there else None
    return there[0] if there else None


def _text(observed: Observed, version: int) -> str:
    return version_text(observed.spec.model.name, version)


_ACTS: Final[Mapping[str, Callable[[Observed, ModelDeploymentStatus, str, datetime], _Handled | None]]] = {
    RETRY: _retry,
    ABORT: _abort,
    ROLLBACK: _roll_back,
    APPROVE: _approve,
    PROMOTE: _promote,
}
"""In the order in which they are honoured."""
