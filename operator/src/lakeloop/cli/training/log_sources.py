"""Which pods' logs are meant, and what is said of those that have none: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lakeloop.cli.archived_logs import ArchivedLog

Pod = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asks for, of one run."""

    attempt: int | None = None
    executor: int | None = None
    everything: bool = False

    def takes(self, role: str, attempt: int, executor: int | None) -> bool:
        """Whether this container's log is meant."""
        if self.attempt is not None and attempt != self.attempt:
            return False
        if self.everything:
            return True
        return role == "driver" if self.executor is None else role == "executor" and executor == self.executor

    @property
    def text(self) -> str:
        """The driver, executor 2, any pod."""
        if self.everything:
            return "pod"
        return "driver" if self.executor is None else f"executor {self.executor}"


@dataclass(frozen=True, slots=True)
class Source:
    """A container whose log can be read from its pod."""

    pod: str
    container: str
    attempt: int
    executor: int | None
    started: bool

    @property
    def label(self) -> str:
        """`driver`, `executor 2`, with the attempt where it is not the first."""
        name = "driver" if self.executor is None else f"executor {self.executor}"
        return name if self.attempt == 1 else f"{name}, attempt {self.attempt}"


def label(log: ArchivedLog) -> str:
    """The same of an archived one."""
    return Source("", "", log.attempt, log.executor, True).label


def selector(job: str, number: int) -> str:
    """What selects the run's pods."""
    return f"lakeloop.io/training-job={job},lakeloop.io/run={number},app.kubernetes.io/managed-by=lakeloop"


def sources(pods: Sequence[Pod], wanted: Wanted) -> list[Source]:
    """The pods that are meant, oldest attempt first, drivers before executors."""
    found = [each for pod in pods if (each := _source(pod)) is not None]
    meant = [
        each
        for each in found
        if wanted.takes("driver" if each.executor is None else "executor", each.attempt, each.executor)
    ]
    return sorted(meant, key=lambda each: (each.attempt, each.executor is not None, each.executor or 0))


def _source(pod: Pod) -> Source | None:
    labels, name = pod["metadata"].get("labels") or {}, str(pod["metadata"]["name"])
    role, attempt = labels.get("lakeloop.io/role"), str(labels.get("lakeloop.io/attempt", ""))
    if role not in ("driver", "executor") or not attempt.isdecimal():
        return None
    number = str(labels.get("spark-exec-id") or name.rpartition("-")[2])
    if role == "executor" and not number.isdecimal():
        return None
    executor = int(number) if role == "executor" else None
    return Source(name, role, int(attempt), executor, _started(pod, role))


def _started(pod: Pod, container: str) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    state: Mapping[str, Any] = next((each.get("state") or {} for each in statuses if each["name"] == container), {})
    return "running" in state or "terminated" in state


def is_alive(pod: Pod, container: str) -> bool:
    """Whether the container is at work."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any("running" in (each.get("state") or {}) for each in statuses if each["name"] == container)


def newest_attempt(attempts: Sequence[int], wanted: Wanted) -> int | None:
    """Without a wish for one attempt, the last one is printed; None where there is none."""
    return wanted.attempt if wanted.attempt is not None else max(attempts, default=None)
