"""What a candidate must pass before it gets traffic: its signature, and a person's approval."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lakeloop.api.v1alpha1.actions import APPROVE
from lakeloop.api.v1alpha1.deployment_status import ModelDeploymentStatus
from lakeloop.domain.deployment.observed import Observed
from lakeloop.domain.deployment.signature import Change, compare
from lakeloop.domain.deployment.verdict import Rejection
from lakeloop.status.conditions import shortened
from lakeloop.status.deployment import version_text

REPORT_PATIENCE_SECONDS: Final = 10.0
"""For which a server may keep silent about its model. Where the operator reaches no server at all, roll-outs go on."""
ASK_AGAIN_SECONDS: Final = 1.0
MOST_TOLD: Final = 8
ALLOW: Final = "spec.gates.signature.allowBreakingChange"


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a candidate that could answer has no traffic yet."""

    reason: str
    """CamelCase; part of the API."""
    message: str
    again: float | None = None
    """Seconds until the next look; None: something will happen."""
    pauses: bool = False
    """Whether the progress deadline does not run meanwhile."""


def pass_gates(
    observed: Observed, status: ModelDeploymentStatus, revision: str, now: datetime
) -> Rejection | Hold | None:
    """None: it may have traffic. Only the version that the spec asks for is looked at: a way back is never barred."""
    target, stable = observed.target, status.stable
    if target is None or target.revision != revision:
        return None
    version = target.registered.version
    if stable is not None and stable.version == version:
        return None  # other servers of what serves
    if stable is not None and not observed.spec.gates.signature.allow_breaking_change:
        found = _signature(observed, stable.revision or "", revision, stable.version, now)
        if found is not None:
            return found
    if observed.spec.gates.approval == "Required" and (status.last_handled or {}).get(APPROVE) != str(version):
        message = f'{version_text(target.registered.name, version)} waits for lakeloop.io/{APPROVE}: "{version}"'
        return Hold("AwaitingApproval", message, pauses=True)
    return None


def breaking_changes(observed: Observed, stable: str, candidate: str) -> list[Change] | None:
    """None where one of the two has not told of its signature, or has none."""
    old, new = observed.reports.get(stable), observed.reports.get(candidate)
    if old is None or new is None or old.signature is None or new.signature is None:
        return None
    return [each for each in compare(old.signature, new.signature) if each.breaking]


def _signature(
    observed: Observed, stable: str, candidate: str, stable_version: int, now: datetime
) -> Rejection | Hold | None:
    found = breaking_changes(observed, stable, candidate)
    if found is None:
        wait = _may_still_tell(observed, stable, candidate, now) and not _has_traffic(observed, stable)
        told = "the servers are asked for their models' signatures"
        return Hold("ComparingSignatures", told, ASK_AGAIN_SECONDS) if wait else None
    if not found:
        return None
    told = "; ".join(str(each) for each in found[:MOST_TOLD])
    more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    before = version_text(observed.spec.model.name, stable_version)
    message = f"callers of {before} would break: {told}{more}. Set {ALLOW}: true where they are ready for it"
    return Rejection("SignatureBreaking", shortened(message))


def _may_still_tell(observed: Observed, stable: str, candidate: str, now: datetime) -> bool:
    """Whether a server that is ready has not answered, and the candidate's have not been ready for long."""
    new = observed.servers.get(candidate)
    since = [pod.ready_since for pod in (new.pods if new else ()) if pod.ready_since]
    if not since or (now - min(since)).total_seconds() >= REPORT_PATIENCE_SECONDS:
        return False
    return any(
        revision in observed.servers and observed.servers[revision].ready and revision not in observed.reports
        for revision in (stable, candidate)
    )


def _has_traffic(observed: Observed, stable: str) -> bool:
    """Whether the Service selects more than the stable servers: the gates were passed before."""
    return observed.service is not None and observed.pinned != stable
