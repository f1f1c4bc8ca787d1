"""What there is when a ModelDeployment is reconciled, read once and then looked at only."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from lakeloop.api.v1alpha1.defaults import EffectiveDeploymentSpec
from lakeloop.api.v1alpha1.deployment_status import TrainedOn
from lakeloop.api.v1alpha1.modeldeployment import ModelDeployment
from lakeloop.domain.deployment.analysis import Counters
from lakeloop.domain.deployment.signature import Signature
from lakeloop.render.serving import names

DIGEST_TAG: Final = "lakeloop.io/digest"
INPUT_TAG: Final = "lakeloop.io/input."
_REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,127}")
_LARGEST_VERSION: Final = 2**53
JOB_TAG: Final = "lakeloop.io/training-job"


def rejected_tag(namespace: str, deployment: str) -> str:
    """The registry tag by which this deployment says that it has rejected a version."""
    return f"lakeloop.io/rejected.{namespace}.{deployment}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not there, or not as it must be. `path` is the field of the resource that asks for it."""

    path: str
    reason: str
    """CamelCase; part of the API."""
    message: str
    retry_seconds: float | None = 15.0
    """When to look again; None: only the user can help, and the API server tells us when he does."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A model version, as the registry has it."""

    name: str
    version: int
    uri: str
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str | None:
        return self.tags.get(DIGEST_TAG) or None

    @property
    def training_job(self) -> str | None:
        return self.tags.get(JOB_TAG) or None

    @property
    def inputs(self) -> tuple[TrainedOn, ...]:
        """From the tags `lakeloop.io/input.<name>` = `<uri>@<version>`."""
        return tuple(
            _trained_on(key.removeprefix(INPUT_TAG), value)
            for key, value in sorted(self.tags.items())
            if key.startswith(INPUT_TAG)
        )


def _trained_on(name: str, value: str) -> TrainedOn:
    uri, at, version = value.rpartition("@")
    if not at or not re.fullmatch(r"[0-9]{1,16}", version) or int(version) > _LARGEST_VERSION:
        return TrainedOn(name=name, uri=value)
    return TrainedOn(name=name, uri=uri, version=int(version))


@dataclass(frozen=True, slots=True)
class Target:
    """The version that should be served, and the pods that would serve it. `template` has its revision in it."""

    registered: Registered
    revision: str
    template: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Death:
    """How a server's process ended last. `reason` is the server's own, or empty where it left none."""

    reason: str
    message: str
    restarts: int
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class ServerPod:
    """A server pod that is not being deleted."""

    name: str
    revision: str
    ready: bool
    created: datetime | None = None
    ready_since: datetime | None = None
    ip: str | None = None
    death: Death | None = None
    waiting: str | None = None
    """Why the kubelet or the scheduler has not started it."""


@dataclass(frozen=True, slots=True)
class Servers:
    """The Deployment of a revision, with its pods."""

    live: Mapping[str, Any]
    revision: str
    version: int
    replicas: int
    """Wanted, by its spec."""
    pods: tuple[ServerPod, ...] = ()
    refused: str | None = None
    """Why its pods cannot even be created: a quota, Pod Security."""

    @property
    def ready(self) -> int:
        return sum(pod.ready for pod in self.pods)


@dataclass(frozen=True, slots=True)
class Report:
    """What a ready server says of its model."""

    digest: str | None
    warnings: tuple[str, ...] = ()
    signature: Signature | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What the servers of a revision have answered in a while."""

    revision: str
    counters: Counters


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that the decision may depend on, but the time."""

    deployment: ModelDeployment
    spec: EffectiveDeploymentSpec
    target: Target | None
    problem: Problem | None
    """Why there is no target."""
    recovery: Target | None = None
    """Another version under the present spec: the stable one, where its own Deployment is gone; or the one that a
    rollback goes back to."""
    servers: Mapping[str, Servers] = field(default_factory=dict)
    """By revision."""
    live: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """The other children, by kind and name."""
    reports: Mapping[str, Report] = field(default_factory=dict)
    """By revision."""
    counted: Counted | None = None
    """What the candidate's servers have answered since they were last looked at; None where it is not time yet."""
    alias_moved: datetime | None = None
    """When the alias was moved to the target, where the registry told us."""

    def described(self, revision: str) -> Target | None:
        """The revision, where the present spec describes it."""
        return next((each for each in (self.target, self.recovery) if each and each.revision == revision), None)

    @property
    def service(self) -> Mapping[str, Any] | None:
        return self.live.get(("Service", self.deployment.metadata.name))

    @property
    def pinned(self) -> str | None:
        """The revision that the Service selects; None: all servers, or there is no Service."""
        return pinned_by(self.service)


def pinned_by(service: Mapping[str, Any] | None) -> str | None:
    """The revision that a Service selects; None: all servers, or there is no Service."""
    selector = ((service or {}).get("spec") or {}).get("selector") or {}
    revision: str | None = selector.get(names.REVISION)
    return revision


def servers_of(deployment: Mapping[str, Any], pods: tuple[ServerPod, ...]) -> Servers:
    """Reads an apps/v1 Deployment of ours."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    revision = metadata["labels"][names.REVISION]
    made = _time(metadata.get("creationTimestamp"))
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    return Servers(
        live=deployment,
        revision=revision,
        version=int(metadata["labels"][names.MODEL_VERSION]),
        replicas=int(spec.get("replicas", 1)),
        # Pods of an earlier Deployment of that name, not yet collected, say nothing of this one.
        pods=tuple(
            pod for pod in pods if pod.revision == revision and not (made and pod.created and pod.created < made)
        ),
        refused=next(
            (str(c.get("message")) for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), None
        ),
    )


def pod_of(pod: Mapping[str, Any]) -> ServerPod | None:
    """Reads a server pod; None where it is on its way out, or has ended."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    if metadata.get("deletionTimestamp") or status.get("phase") in ("Failed", "Succeeded"):
        return None
    ready: Mapping[str, Any] = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
    statuses = status.get("containerStatuses") or ()
    container: Mapping[str, Any] = next((c for c in statuses if c["name"] == names.SERVER), {})
    is_ready = ready.get("status") == "True"
    return ServerPod(
        name=metadata["name"],
        revision=(metadata.get("labels") or {}).get(names.REVISION, ""),
        ready=is_ready,
        created=_time(metadata.get("creationTimestamp")),
        ready_since=_time(ready.get("lastTransitionTime")) if is_ready else None,
        ip=status.get("podIP"),
        death=_death(container),
        waiting=_waiting(container, status),
    )


def _death(container: Mapping[str, Any]) -> Death | None:
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        if (ended := state.get("terminated")) is None:
            continue
        reason, message = _last_words(ended.get("message") or "")
        told = message or f"the server ended with exit code {ended.get('exitCode')}, {ended.get('reason') or 'Error'}"
        return Death(
            reason=reason,
            message=told,
            restarts=int(container.get("restartCount") or 0),
            out_of_memory=ended.get("reason") == "OOMKilled",
        )
    return None


def _last_words(message: str) -> tuple[str, str]:
    """Reason and message of the server's termination message; empty where it is not one."""
    try:
        value = json.loads(message)
        reason, told = str(value["reason"]), str(value["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", ""
    return (reason, told) if _REASON.fullmatch(reason) else ("", "")


def _waiting(container: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    waiting = (container.get("state") or {}).get("waiting")
    if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
        return f"{waiting.get('reason')}: {waiting.get('message') or ''}".rstrip(": ")
    unscheduled = next(
        (c for c in status.get("conditions") or () if c["type"] == "PodScheduled" and c["status"] == "False"), None
    )
    return f"{unscheduled.get('reason')}: {unscheduled.get('message') or ''}".rstrip(": ") if unscheduled else None


def _time(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
