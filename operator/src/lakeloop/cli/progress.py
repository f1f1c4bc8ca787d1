"""What pods are doing, in words: pure, from pods as the API server has them."""

from collections.abc import Mapping, Sequence
from typing import Any

Pod = Mapping[str, Any]

_PULL = "the image cannot be pulled: load it (`make images`), or check its name and imagePullSecrets"

# Reasons that waiting does not cure, each with what to do.
_HOPELESS = {
    "ErrImageNeverPull": "the image is not on the node: load it (`make images`) or set imagePullPolicy",
    "ImagePullBackOff": _PULL,
    "ErrImagePull": _PULL,
    "InvalidImageName": "the image's name is wrong",
    "CreateContainerConfigError": "a Secret or ConfigMap that it needs is not there",
}
_CRASHES = 4


def name(pod: Pod) -> str:
    """`namespace/name`."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def statuses(pod: Pod) -> list[Mapping[str, Any]]:
    """Of all containers, initial ones first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def is_ready(pod: Pod) -> bool:
    """Ready, or finished well."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return True
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])


def state(pod: Pod) -> str:
    """Ready, what it waits for, or what went wrong; a few words."""
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return "stopping"
    if status.get("phase") == "Succeeded":
        return "done"
    if is_ready(pod):
        return "ready"
    for one in statuses(pod):
        waiting = one.get("state", {}).get("waiting") or {}
        ended = one.get("state", {}).get("terminated") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f"{one['name']}: {waiting['reason']}"
        if ended and ended.get("exitCode"):
            return f"{one['name']}: ended with exit code {ended['exitCode']} ({ended.get('reason', 'Error')})"
        if "running" in one.get("state", {}) and not one.get("ready"):
            return f"{one['name']}: starting"
    scheduled: Mapping[str, Any] = next((c for c in status.get("conditions") or [] if c["type"] == "PodScheduled"), {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message', scheduled.get('reason', ''))}"
    return "creating"


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is new since the last look, as (pod, state), by name; a pod that is gone is `gone`."""
    changed = [(pod, after[pod]) for pod in after if before.get(pod) != after[pod]]
    return sorted([*changed, *((pod, "gone") for pod in before if pod not in after)])


def newest(pods: Sequence[Pod]) -> list[Pod]:
    """Without those of a Deployment's older revisions, which are on their way out."""

    def revision(pod: Pod) -> str:
        return str(pod["metadata"].get("labels", {}).get("pod-template-hash", ""))

    def workload(pod: Pod) -> str:
        return name(pod).partition(f"-{revision(pod)}-")[0] if revision(pod) else name(pod)

    youngest: dict[str, str] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
        youngest[workload(pod)] = revision(pod)
    return [pod for pod in pods if youngest[workload(pod)] == revision(pod)]


def hopeless(pods: Sequence[Pod]) -> list[str]:
    """Why waiting on makes no sense, one line per pod; empty: wait on."""
    found = []
    for pod in newest(pods):
        for one in statuses(pod):
            reason = (one.get("state", {}).get("waiting") or {}).get("reason", "")
            where = f"{name(pod)} ({one['name']}, {one.get('image', '')})"
            if reason in _HOPELESS:
                found.append(f"{where}: {reason}: {_HOPELESS[reason]}")
            elif reason == "CrashLoopBackOff" and one.get("restartCount", 0) >= _CRASHES:
                found.append(f"{where}: ended {one['restartCount']} times; its log is above")
    return found
