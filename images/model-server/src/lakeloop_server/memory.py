"""A limit on what one process may ask for, so that a request that is too large fails instead of the container.

A small body can stand for a huge table: a thousand records with a name of their own each are a million cells. Without a
limit the kernel kills the whole container for it, and with it every other request.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

_SHARE = 0.9


def _numbers(path: Path) -> Mapping[str, int]:
    """The lines `name 123` or `name: 123 kB` of a file of the kernel's."""
    lines = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def available(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that the container may still take: up to its limit (cgroup v2 or v1), else those of the machine."""
    free = _numbers(meminfo)["MemAvailable"] * 1024
    for limit, stat, used in (
        ("memory.max", "memory.stat", ("anon", "shmem")),
        ("memory/memory.limit_in_bytes", "memory/memory.stat", ("total_rss", "total_shmem")),
    ):
        try:
            most = int((cgroup / limit).read_text())
            numbers = _numbers(cgroup / stat)
        except (OSError, ValueError):
            continue
        return max(0, min(free, most - sum(numbers.get(name, 0) for name in used)))
    return free


def limit_process(more: int, status: Path = Path("/proc/self/status")) -> None:
    """Lets this process ask for `more` bytes beyond what it has, less a reserve for the others; then MemoryError."""
    has = _numbers(status)["VmData"] * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = has + int(more * _SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
