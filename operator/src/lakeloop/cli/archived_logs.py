"""Logs of a run as its sidecars leave them in the object store; they outlive the pods.

Below the run's folder (`status.run.logs.uri`) each container has `<name>.<number>.log`, which in the order of their
names are its output, and `<name>.json`, which says whether that is all of it. A driver is named `driver-<attempt>`,
an executor `executor-<attempt>-<id>`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_SEGMENT = re.compile(r"(?P<name>[^/]+)\.(?P<number>[0-9]{6,})\.log")
_DRIVER = re.compile(r"driver-(?P<attempt>[0-9]+)")
_EXECUTOR = re.compile(r"(executor-|.*-)?(?P<attempt>[0-9]+)-(exec-)?(?P<id>[0-9]+)")


class Stored(Protocol):
    """An object of the store."""

    @property
    def uri(self) -> str:
        """Where it is."""


class Reads(Protocol):
    """What this needs of a store."""

    def read(self, uri: str) -> bytes | None:
        """An object's content."""


@dataclass(frozen=True, slots=True)
class ArchivedLog:
    """One container's output."""

    name: str
    role: str
    """`driver` or `executor`."""
    attempt: int
    executor: int | None
    segments: tuple[str, ...]
    """URIs, in order."""


def found_in(objects: Sequence[Stored]) -> list[ArchivedLog]:
    """The logs among the objects of a run's folder, drivers first; what is no log is left out."""
    segments: dict[str, list[tuple[int, str]]] = {}
    for each in objects:
        match = _SEGMENT.fullmatch(each.uri.rpartition("/")[2])
        if match:
            segments.setdefault(match["name"], []).append((int(match["number"]), each.uri))
    found = []
    for name, parts in segments.items():
        identity = _identity(name)
        if identity is not None:
            found.append(ArchivedLog(name, *identity, tuple(uri for _, uri in sorted(parts))))
    return sorted(found, key=lambda each: (each.attempt, each.executor is not None, each.executor or 0))


def _identity(name: str) -> tuple[str, int, int | None] | None:
    driver = _DRIVER.fullmatch(name)
    if driver:
        return "driver", int(driver["attempt"]), None
    executor = _EXECUTOR.fullmatch(name)
    return ("executor", int(executor["attempt"]), int(executor["id"])) if executor else None


def last_lines(log: ArchivedLog, store: Reads, tail: int | None) -> list[str]:
    """The log's lines, or its last ones: then no more segments are fetched than these need."""
    if tail == 0:
        return []
    content = b""
    for uri in reversed(log.segments):
        content = (store.read(uri) or b"") + content
        if tail is not None and content.count(b"\n") > tail:
            break
    lines = content.decode(errors="replace").splitlines()
    return lines if tail is None else lines[-tail:]


def is_complete(log: ArchivedLog, folder: str, store: Reads) -> bool:
    """Whether that is all that the container wrote; what does not say so is not."""
    try:
        marker: Any = json.loads(store.read(f"{folder.rstrip('/')}/{log.name}.json") or b"null")
    except ValueError:
        return False
    return isinstance(marker, Mapping) and marker.get("complete") is True
