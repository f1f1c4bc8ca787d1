"""What a driver pod says of its attempt: waiting, at work, done with a result, or dead without one.

The driver runs the user's code, which may write what the driver itself would not: nothing that it says is taken before
it was looked at.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, get_args

from lakeloop.api.v1alpha1.trainingjob import FailureClass
from lakeloop.domain.plan import Manifest
from lakeloop.render.training.names import DRIVER, PROGRESS, ROLE, RUN_UID

_IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_EVICTIONS: Final = frozenset({"Evicted", "Preempting", "Terminated", "NodeShutdown", "Shutdown"})
_REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,127}")
_MOST_METRICS: Final = 64
"""Kept in status; MLflow has them all."""
_LONGEST_NAME: Final = 250
_LARGEST_VERSION: Final = 2**53
LOST_AFTER: Final = timedelta(seconds=60)
"""Beyond its grace period: a kubelet that is there needs seconds."""
_FINAL_PHASES: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Result:
    """What a driver says of its attempt at the end."""

    succeeded: bool
    inputs: Mapping[str, int]
    metrics: Mapping[str, float]
    objective: tuple[str, float] | None
    model: Mapping[str, Any] | None
    failure: "DriverFailure | None"


@dataclass(frozen=True, slots=True)
class DriverFailure:
    """Why an attempt failed. `retriable` False: not even where the class has retries left."""

    failure: FailureClass
    reason: str
    message: str
    field: str | None = None
    retriable: bool = True

    @property
    def text(self) -> str:
        """The message, which names the field."""
        return f"{self.field}: {self.message}" if self.field and self.field not in self.message else self.message


def is_driver(pod: Manifest) -> bool:
    """Whether this is a driver's pod, and not an executor's."""
    return bool(labels(pod).get(ROLE) == DRIVER)


def labels(pod: Manifest) -> Mapping[str, str]:
    """The pod's labels."""
    return pod["metadata"].get("labels") or {}


def is_terminal(pod: Manifest) -> bool:
    """Whether nothing of the pod runs any more. The phase is trusted: container statuses may be empty by then."""
    return phase(pod) in _FINAL_PHASES


def phase(pod: Manifest) -> str:
    """The pod's phase."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def is_terminating(pod: Manifest) -> bool:
    """Whether somebody deleted it."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_lost(pod: Manifest, now: datetime) -> bool:
    """Whether the pod's node does not answer: it was to be gone by now, and the kubelet has not said that it is.

    Such a pod stays for as long as its node does. It may even be at work still: what it says is another attempt's then.
    """
    due = pod["metadata"].get("deletionTimestamp")  # the grace period is in it
    return bool(due) and not is_terminal(pod) and now > datetime.fromisoformat(due) + LOST_AFTER


def progress(pod: Manifest, uid: str, attempt: int) -> Mapping[str, Any] | None:
    """What the driver wrote of its progress; None where there is none of this attempt, or it cannot be read."""
    return _own(_parsed((pod["metadata"].get("annotations") or {}).get(PROGRESS)), uid, attempt)


def result(pod: Manifest, uid: str, attempt: int) -> Result | None:
    """The driver's termination message as a result; None where there is none of this attempt."""
    state = _terminated(pod)
    document = _own(_parsed(state.get("message")), uid, attempt)
    return read_result(document, uid, attempt) if document else None


def read_result(document: Mapping[str, Any] | None, uid: str, attempt: int) -> Result | None:
    """A result as the driver wrote it; None where it is another attempt's or no result."""
    own = _own(document, uid, attempt)
    if own is None or own.get("outcome") not in ("Succeeded", "Failed"):
        return None
    succeeded = own["outcome"] == "Succeeded"
    objective = own.get("objective")
    return Result(
        succeeded=succeeded,
        inputs=versions(own),
        metrics=dict(itertools.islice(_metrics(_map(own.get("metrics"))), _MOST_METRICS)),
        objective=(str(objective["metric"])[:_LONGEST_NAME], float(objective["value"]))
        if isinstance(objective, Mapping) and "metric" in objective and _is_number(objective.get("value"))
        else None,
        model={k: v for k, v in _map(own.get("model")).items() if isinstance(v, str)} or None,
        failure=None if succeeded else _failure(_map(own.get("failure"))),
    )


def _metrics(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    return ((key, float(value)) for key, value in found.items() if _is_number(value) and len(key) <= _LONGEST_NAME)


def versions(document: Mapping[str, Any]) -> Mapping[str, int]:
    """Input → version, of what a progress or a result says of its inputs."""
    found = document.get("inputs")
    return {
        str(each["name"]): each["version"]
        for each in (found if isinstance(found, Sequence) else ())
        if isinstance(each, Mapping) and "name" in each and _is_version(each.get("version"))
    }


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_VERSION


def waiting(pod: Manifest) -> tuple[str, str] | None:
    """Why a pod that does not run yet does not: reason and message; None where it is on its way."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return "DriverUnschedulable", str(condition.get("message") or condition.get("reason") or "no node fits")
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state = (container.get("state") or {}).get("waiting") or {}
        reason = state.get("reason", "")
        detail = f"{reason}: {state.get('message', '')}".strip(": ")
        if reason in _IMAGE_REASONS:
            return "ImagePullFailed", f"image {container.get('image', '')} cannot be had: {detail}"
        if reason in _CONFIG_REASONS:
            return "DriverConfigError", f"the driver's container cannot be started: {detail}"
    return None


def death(pod: Manifest | None) -> DriverFailure:
    """Why a driver ended without a result; None: the pod is gone."""
    if pod is None:
        return _infrastructure("DriverLost", "the driver's pod is gone, and it left no result")
    if not is_terminal(pod):
        node = (pod.get("spec") or {}).get("nodeName", "")
        return _infrastructure("DriverLost", f"the driver was to end, and its node {node} does not answer")
    status = pod.get("status") or {}
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    if reason == "NodeLost":
        return _infrastructure("DriverLost", f"the driver's node is gone: {message}".rstrip(": "))
    if reason in _EVICTIONS:
        return _infrastructure("DriverEvicted", f"the driver was evicted: {message or reason}")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            detail = condition.get("message") or condition.get("reason", "")
            return _infrastructure("DriverEvicted", f"the driver was evicted: {detail}")
    state = _terminated(pod)
    code = state.get("exitCode")
    if state.get("reason") == "OOMKilled":
        return _infrastructure(
            "DriverOOMKilled",
            "the driver needed more memory than it may have: raise it, or memory for the JVM's heap",
            "spec.spark.driver.memoryOverhead",
        )
    if code is None:
        return _infrastructure("DriverDied", f"the driver ended ({phase(pod)}) and left no result")
    return _infrastructure("DriverDied", f"the driver ended with exit code {code} and left no result")


def executors_of(pods: Sequence[Manifest], uid: str) -> list[Manifest]:
    """The executor pods of a run."""
    return [pod for pod in pods if not is_driver(pod) and labels(pod).get(RUN_UID) == uid]


def _infrastructure(reason: str, message: str, field: str | None = None) -> DriverFailure:
    return DriverFailure("Infrastructure", reason, message, field)


def _failure(failure: Mapping[str, Any]) -> DriverFailure:
    known: tuple[FailureClass, ...] = get_args(FailureClass)
    kind: FailureClass = next((each for each in known if each == failure.get("class")), "Application")
    told = failure.get("reason")
    reason = told if isinstance(told, str) and _REASON.fullmatch(told) else "DriverFailed"
    field = failure.get("field")
    return DriverFailure(
        failure=kind,
        reason=reason,
        message=str(failure.get("message") or "the driver gave no reason"),
        field=str(field) if field else None,
        # What is wrong in the spec stays wrong.
        retriable=reason != "InvalidConf",
    )


def _terminated(pod: Manifest) -> Mapping[str, Any]:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if container.get("name") == DRIVER:
            return _map((container.get("state") or {}).get("terminated"))
    return {}


def _own(document: Mapping[str, Any] | None, uid: str, attempt: int) -> Mapping[str, Any] | None:
    if document is None or document.get("uid") != uid or document.get("attempt") != attempt:
        return None
    return document


def _parsed(text: Any) -> Mapping[str, Any] | None:
    try:
        document = json.loads(text) if text else None
    except (ValueError, TypeError, RecursionError):
        return None
    return document if isinstance(document, Mapping) else None


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        # A NaN is JSON to Python and to nobody else.
        return math.isfinite(value)
    except OverflowError:
        return False
