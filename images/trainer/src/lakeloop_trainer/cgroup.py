"""What the container's control group tells of its memory (version 2, then 1)."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def container_memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that the container may use; None where there is no limit."""
    return _bytes(root, "memory.max", "memory/memory.limit_in_bytes")


def container_memory_peak(root: Path = ROOT) -> int | None:
    """The most bytes that the container has used so far, files that the kernel keeps included; None if not told."""
    return _bytes(root, "memory.peak", "memory/memory.max_usage_in_bytes")


def _bytes(root: Path, *names: str) -> int | None:
    for name in names:
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None
