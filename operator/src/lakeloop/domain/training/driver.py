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

from lakeloop.api.v1alpha1.trainingjob import ExpectationResult, FailureClass, RunSearch
from lakeloop.domain.plan import Manifest
from lakeloop.render.training.logs import CONTAINER as LOGS
from lakeloop.render.training.names import DRIVER, PROGRESS, ROLE, RUN_UID

_IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_OWN_CONTAINERS: Final = frozenset({DRIVER, LOGS})
_EVICTIONS: Final = frozenset({"Evicted", "Preempting", "Terminated", "NodeShutdown", "Shutdown"})
_OWN_LIMIT: Final = re.compile(r"exceeds the (total )?limit|exceeded its local ephemeral storage limit")
"""In a kubelet's words: the pod wrote more than its own limits allow, however much room the node has."""
_REASON: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_METRICS: Final = 64
"""Kept in status; MLflow has them all."""
_MOST_EXPECTATIONS: Final = 32
_MOST_PARAMETERS: Final = 16
_LONGEST_NAME: Final = 250
_LONGEST_VALUE: Final = 100
_LARGEST_COUNT: Final = 2**53
LOST_AFTER: Final = timedelta(seconds=60)
"""Beyond its grace period: a kubelet that is there needs seconds."""
_WRONG_IN_SPEC: Final = frozenset({"InvalidConf", "InvalidParameter", "AmbiguousNumber"})
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
    champion: "ScoredChampion | None" = None
    """What it was compared with."""
    expectations: Sequence[ExpectationResult] = ()
    """What became of the expectations that were checked."""
    search: RunSearch | None = None
    whole: bool = True
    """Whether metrics and expectations are all there: a long result loses them, and the record in MLflow has them."""


@dataclass(frozen=True, slots=True)
class ScoredChampion:
    """The champion on this run's test rows."""

    version: int
    value: float | None
    """Its objective; None where it could not be scored."""
    problem: str | None
    """Why not."""
    schema_changes: Sequence[str] = ()
    """How the model's signature differs from its, column by column."""


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


@dataclass(frozen=True, slots=True)
class RunningImage:
    """The image that a driver runs from, as its node says it."""

    reference: str
    """As launched, and with `@sha256:…` where it can be pulled by that."""
    id: str | None
    """`sha256:…`: the manifest's digest of a pulled image, the configuration's of one that was loaded into the node."""


def running_image(pod: Manifest | None, launched: str) -> RunningImage:
    """What is known of the image by now."""
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or []
    found = next((str(each.get("imageID") or "") for each in statuses if each.get("name") == DRIVER), "")
    repository, _, digest = found.rpartition("@")
    digest = digest.rpartition("//")[2]
    if not _DIGEST.fullmatch(digest):
        return RunningImage(launched, None)
    name, colon, tag = launched.rpartition(":")
    named = name if colon and "/" not in tag else launched
    repository = repository.rpartition("//")[2]
    pulled = repository == named or repository.endswith(f"/{named}")
    return RunningImage(f"{launched}@{digest}" if pulled and "@" not in launched else launched, digest)


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
        champion=_champion(_map(own.get("champion"))),
        search=_search(_map(own.get("search"))) if succeeded else None,
        expectations=_expectations(own.get("expectations")),
        whole=(not succeeded or "metrics" in own) and own.get("expectations", ()) is not None,
    )


def _expectations(found: Any) -> list[ExpectationResult]:
    return [
        ExpectationResult(name=each["name"], violations=each["violations"], rows=each["rows"])
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, Mapping)
        and isinstance(each.get("name"), str)
        and len(each["name"]) <= _LONGEST_NAME
        and _is_count(each.get("violations"))
        and _is_count(each.get("rows"))
    ][:_MOST_EXPECTATIONS]


def _champion(found: Mapping[str, Any]) -> ScoredChampion | None:
    version, value, problem = found.get("version"), found.get("value"), found.get("problem")
    if not _is_count(version):
        return None
    changes = found.get("schemaChanges")
    return ScoredChampion(
        version=int(version or 0),
        value=float(value) if value is not None and _is_number(value) else None,
        problem=problem[:_LONGEST_NAME] if isinstance(problem, str) else None,
        schema_changes=[
            each[:_LONGEST_NAME] for each in (changes if isinstance(changes, list) else ()) if isinstance(each, str)
        ][:_MOST_METRICS],
    )


def _search(found: Mapping[str, Any]) -> RunSearch | None:
    """What the driver says of its search; None where it says nothing that can be read."""
    best = _map(found.get("best"))
    params = {
        key: value[:_LONGEST_VALUE]
        for key, value in itertools.islice(_map(best.get("params")).items(), _MOST_PARAMETERS)
        if isinstance(value, str) and len(key) <= _LONGEST_NAME
    }
    names = {"trials": "trials", "trialsFinished": "finished", "trialsPruned": "pruned", "trialsFailed": "failed"}
    counts = {name: found[key] for name, key in names.items() if _is_count(found.get(key))}
    if not counts:
        return None
    trial = best.get("trial")
    return RunSearch.parse(
        {
            "bestValue": float(best["value"]) if _is_number(best.get("value")) else None,
            "bestTrial": trial if _is_count(trial) and trial else None,
            "bestParams": params or None,
            **counts,
        }
    )


def _metrics(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    return ((key, float(value)) for key, value in found.items() if _is_number(value) and len(key) <= _LONGEST_NAME)


def versions(document: Mapping[str, Any]) -> Mapping[str, int]:
    """Input → version, of what a progress or a result says of its inputs."""
    found = document.get("inputs")
    return {
        str(each["name"]): each["version"]
        for each in (found if isinstance(found, Sequence) else ())
        if isinstance(each, Mapping) and "name" in each and _is_count(each.get("version"))
    }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_COUNT


def waiting(pod: Manifest) -> DriverFailure | None:
    """Why a pod that does not run yet does not; None where it is on its way."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            detail = str(condition.get("message") or condition.get("reason") or "no node fits")
            return _submission("DriverUnschedulable", detail, "spec.spark.driver")
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state = (container.get("state") or {}).get("waiting") or {}
        reason = state.get("reason", "")
        detail = f"{reason}: {state.get('message', '')}".strip(": ")
        if reason in _IMAGE_REASONS:
            message = f"image {container.get('image', '')} cannot be had: {detail}"
            field = "spec.spark.image" if container.get("name") in _OWN_CONTAINERS else None  # else the template's
            return _submission("ImagePullFailed", message, field)
        if reason in _CONFIG_REASONS:
            name = container.get("name", DRIVER)
            message = f"container {name} of the driver's pod cannot be started: {detail}"
            return _submission("DriverConfigError", message, None)
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
        return _evicted(message or reason)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            detail = condition.get("message") or condition.get("reason", "")
            if condition.get("reason") == "DeletionByPodGC":
                return _infrastructure("DriverLost", f"the driver's node is gone: {detail}")
            return _evicted(detail)
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


def _evicted(detail: str) -> DriverFailure:
    if _OWN_LIMIT.search(detail):
        told = f"the driver was evicted: {detail.strip()} Raise that limit, or write less"
        return _infrastructure("DriverEvicted", told, "spec.spark.driver.template")
    return _infrastructure("DriverEvicted", f"the driver was evicted: {detail}")


def _submission(reason: str, message: str, field: str | None) -> DriverFailure:
    return DriverFailure("Submission", reason, message, field, retriable=False)


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
        retriable=reason not in _WRONG_IN_SPEC,
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
