"""Where the time went: a clock that knows the run's stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stages:
    """Seconds of each named stage, in order of their start; safe to use from several threads."""

    started: float = field(default_factory=time.monotonic)
    _entries: list[tuple[str, float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measures a block; stages of different threads may overlap."""
        begin = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._entries.append((name, begin - self.started, time.monotonic() - begin))

    def seconds(self, name: str) -> float | None:
        """How long the stages of that name took together; None where there was none."""
        with self._lock:
            found = [took for each, _, took in self._entries if each == name]
        return sum(found) if found else None

    def table(self) -> str:
        """A table of all stages: when each began and how long it took, in seconds."""
        with self._lock:
            entries = sorted(self._entries, key=lambda entry: entry[1])
        lines = ["where the time went (s)        began   took"]
        lines += [f"  {name:<28} {begin:6.2f} {took:6.2f}" for name, begin, took in entries]
        lines.append(f"  {'in all':<28} {0.0:6.2f} {time.monotonic() - self.started:6.2f}")
        return "\n".join(lines)
