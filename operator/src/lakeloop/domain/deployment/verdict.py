"""Whether a candidate is to be rejected, is held up by something that heals, or just needs more time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lakeloop.domain.deployment.observed import Death, Problem, Servers

AT_ONCE: Final = frozenset({"DigestMismatch", "ModelNotFound", "EnvironmentMismatch", "SignatureMissing"})
"""Reasons of the server that another try will not change."""
TRIED_AGAIN: Final = frozenset({"LoadFailed", "WarmupFailed"})
"""Reasons that a second try may change."""
HEALS: Final = {"CredentialsRefused": "spec.storage.secretRef", "StorageUnavailable": "spec.storage.endpoint"}
"""Reasons that lie in the surroundings, with the field that names them: no fault of the model's."""
SILENT_DEATHS: Final = 3


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate does not become stable. `reason` is part of the API."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """At most one of both is there; neither: go on."""

    rejection: Rejection | None = None
    waiting: Problem | None = None
    seconds_left: float | None = None
    """Until the deadline; None where it does not run."""


def judge(servers: Servers | None, started: datetime, deadline_seconds: float, now: datetime) -> Verdict:
    """`started`: when the roll-out began, or its clock was last set. Each server that became ready is progress."""
    if servers is not None:
        for death in _deaths(servers):
            if (rejection := _rejection(death)) is not None:
                return Verdict(rejection)
        for death in _deaths(servers):
            if (path := HEALS.get(death.reason)) is not None:
                return Verdict(waiting=Problem(path, death.reason, death.message))
    progress = [started, *(pod.ready_since for pod in (servers.pods if servers else ()) if pod.ready_since)]
    left = (max(progress) + timedelta(seconds=deadline_seconds) - now).total_seconds()
    if left > 0:
        return Verdict(seconds_left=left)
    why = _why(servers)
    return Verdict(
        Rejection(
            "ProgressDeadlineExceeded",
            f"no server became ready within {deadline_seconds:.0f} s (spec.strategy.progressDeadlineSeconds)"
            + (f": {why}" if why else ""),
        )
    )


def _deaths(servers: Servers) -> list[Death]:
    return [pod.death for pod in servers.pods if pod.death is not None and not pod.ready]


def _rejection(death: Death) -> Rejection | None:
    if death.reason in AT_ONCE or (death.reason in TRIED_AGAIN and death.restarts >= 1):
        return Rejection(death.reason, death.message)
    if not death.reason and death.restarts >= SILENT_DEATHS:
        if death.out_of_memory:
            return Rejection("OutOfMemory", f"{death.message}; raise spec.server.resources.limits.memory")
        return Rejection("CrashLoop", death.message)
    return None


def _why(servers: Servers | None) -> str:
    if servers is None:
        return ""
    told = [servers.refused, *(pod.waiting for pod in servers.pods), *(death.message for death in _deaths(servers))]
    return next((each for each in told if each), "")


def hindrance(servers: Servers | None) -> str:
    """What keeps servers from being ready, as far as can be seen; for messages."""
    return _why(servers)
