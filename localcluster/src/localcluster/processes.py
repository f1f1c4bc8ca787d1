"""Processes by identity: a pid and the moment it started, so that a reused pid is never taken for ours."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessId:
    """A process: its pid, and its start time in clock ticks since boot (field 22 of /proc/<pid>/stat), and the boot."""

    pid: int
    start: int
    boot: str

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        now = start_time(self.pid)
        return now == self.start and boot_id() == self.boot

    def save(self, path: Path) -> None:
        """Write the pid file, whole or not at all."""
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(asdict(self)) + "\n")
        scratch.rename(path)


def boot_id() -> str:
    """The kernel's id of this boot: pids and ticks mean nothing after a reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def parse_stat(stat: str) -> tuple[str, int]:
    """State letter and start time of the text of /proc/<pid>/stat; the command in parentheses may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def start_time(pid: int) -> int | None:
    """Start time of a running process, None when there is none or it is a zombie."""
    try:
        state, start = parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else start


def identify(pid: int) -> ProcessId | None:
    """The identity of a running process, None when it is gone."""
    start = start_time(pid)
    return None if start is None else ProcessId(pid, start, boot_id())


def load(path: Path) -> ProcessId | None:
    """The process that a pid file names if it still runs; None for a missing, torn or outdated file."""
    try:
        process = ProcessId(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return process if process.alive() else None


def stop(process: ProcessId, grace: float) -> None:
    """SIGTERM, then SIGKILL after ``grace`` seconds; returns when it is gone."""
    for sig, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 30.0)):
        if not process.alive():
            return
        try:
            os.kill(process.pid, sig)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while process.alive() and time.monotonic() < deadline:
            time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Direct children of a process, empty when it is gone."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def argument_zero(pid: int) -> str:
    """The first argument that a process was started with, empty when it is gone."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])
    except OSError:
        return ""
