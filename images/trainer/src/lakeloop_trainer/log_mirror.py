"""Brings the object store up to date with what a container has written.

Objects, below the run's folder for logs:

```
driver-1.000000.log  a line that says how much of the beginning is not kept; only where that is so
driver-1.000007.log  segments; whoever reads them in the order of their names, and this line first, has the output
driver-1.json        {"container": "driver-1", "complete": true, "bytes": 7340500, "dropped": 6291456, "eventLog": …}
events/eventlog_v2_<application>/…  Spark's event log, as its history server reads it
```
S3 cannot append: the last segment is put again while it grows, and never again once it is full. So a log of any length
costs the same, and there are few objects.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

from lakeloop_trainer.log_files import events_of
from lakeloop_trainer.log_source import Source
from lakeloop_trainer.log_store import LogStore, StoreError

EVENTS = "events"
_BYTES_A_SECOND = 1 << 18
"""A file of the event log that grows is put again after its size divided by this."""
_WAITING_EVENT_FILES = 8
"""Full files of 10 MiB that wait for a store which does not answer; then the oldest is given up."""
_NUMBERED = re.compile(r"events_(\d+)_")

log = logging.getLogger(__name__)


class Mirror:
    """One container's output, and its Spark event log where it has one."""

    def __init__(
        self, source: Source, folder: Path, name: str, tail: int, store: LogStore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._source = source
        self._segments = source.segments
        self._name = name
        self._tail = tail
        self._store = store
        self._known = False
        self._uploaded: dict[int, int] = {}
        self._dropped = 0
        self.events = Events(events_of(folder), store, clock)

    def step(self, *, everything: bool = False) -> None:
        """Puts what has changed; `everything`: also what would be put later. Raises StoreError."""
        if not self._known:
            self._look()
        self._put_segments()
        self.events.step(everything=everything)

    def finish(self) -> None:
        """Says that this is all. Raises StoreError."""
        self._mark(complete=not self._source.broken)

    def give_up_oldest(self) -> None:
        """While the store does not answer: what waits for it must not fill the disk."""
        if self.events.give_up_oldest():
            self._source.broken = True

    def _look(self) -> None:
        """What an earlier process of this program has put already."""
        pattern = re.compile(rf"{re.escape(self._name)}\.(\d+)\.log")
        try:
            found = self._store.sizes(f"{self._name}.")
            self.events.look()
        except StoreError as error:
            if "AccessDenied" not in str(error):
                raise
            found = {}  # then it is put once more
        self._uploaded = {int(match[1]): size for name, size in found.items() if (match := pattern.fullmatch(name))}
        self._uploaded.pop(0, None)
        # Before anything else: a container that is never heard of again is then one whose end is missing.
        self._mark(complete=False)
        self._known = True

    def _put_segments(self) -> None:
        present = self._segments.present()
        for index, size in present.items():
            if self._uploaded.get(index, -1) >= size:
                continue
            content = self._segments.read(index)
            if content is not None:
                self._store.put(self._object(index), content)
                self._uploaded[index] = len(content)
        first = min(present, default=1)
        dropped = (first - 1) * self._segments.size
        if dropped > self._dropped:
            note = f"[lakeloop: the first {dropped} bytes were not kept; runPolicy.logs.tailBytes is {self._tail}]\n"
            self._store.put(self._object(0), note.encode())
            self._dropped = dropped
        for index in sorted(each for each in self._uploaded if each < first):
            self._store.delete(self._object(index))
            del self._uploaded[index]

    def _mark(self, *, complete: bool) -> None:
        present = self._segments.present()
        last = max(present, default=1)
        document = {
            "container": self._name,
            "complete": complete,
            "bytes": (last - 1) * self._segments.size + present.get(last, 0),
            "dropped": (min(present, default=1) - 1) * self._segments.size,
            "eventLog": self.events.found,
        }
        self._store.put(f"{self._name}.json", json.dumps(document).encode())

    def _object(self, index: int) -> str:
        return f"{self._name}.{index:06d}.log"


class Events:
    """Spark's event log: rolled, compressed files. What was put and is full is removed here."""

    def __init__(self, folder: Path, store: LogStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self._uploaded: dict[str, int] = {}
        self._when: dict[str, float] = {}
        self.found = False

    def look(self) -> None:
        """What was put already. Raises StoreError."""
        for each in self._applications():
            self._uploaded |= {
                name.removeprefix(f"{EVENTS}/"): size
                for name, size in self._store.sizes(f"{EVENTS}/{each.name}/").items()
            }

    def step(self, *, everything: bool) -> None:
        """See Mirror.step."""
        for application in self._applications():
            self.found = True
            files = sorted(path for path in application.iterdir() if path.is_file() and path.name[0] != ".")
            full = _full(files)
            for path in files:
                self._put(path, at_once=everything or path in full)
            self._forget(application, files)
            self._tidy(full)

    def _applications(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.is_dir())

    def _put(self, path: Path, *, at_once: bool) -> None:
        name, now = f"{path.parent.name}/{path.name}", self._clock()
        try:
            size = path.stat().st_size
            if self._uploaded.get(name) == size:
                return
            if not at_once and name in self._when and now < self._when[name] + size / _BYTES_A_SECOND:
                return
            content = path.read_bytes()
        except FileNotFoundError:  # it was renamed
            return
        self._store.put(f"{EVENTS}/{name}", content)
        self._uploaded[name], self._when[name] = len(content), now

    def _forget(self, application: Path, files: list[Path]) -> None:
        """The file whose name says that the application runs is renamed at its end."""
        present = {path.name for path in files}
        for name in [each for each in self._uploaded if each.endswith(".inprogress")]:
            folder, _, base = name.partition("/")
            if folder == application.name and base not in present:
                self._store.delete(f"{EVENTS}/{name}")
                del self._uploaded[name]

    def _tidy(self, full: list[Path]) -> None:
        for path in full:
            if self._uploaded.get(f"{path.parent.name}/{path.name}") == path.stat().st_size:
                path.unlink()

    def give_up_oldest(self) -> bool:
        """Whether something was given up."""
        given_up = [
            path for each in self._applications() for path in _full(list(each.iterdir()))[:-_WAITING_EVENT_FILES]
        ]
        for path in given_up:
            log.warning("%s is given up: the store has not answered for too long", path.name)
            path.unlink(missing_ok=True)
        return bool(given_up)


def _full(files: list[Path]) -> list[Path]:
    """The files that Spark writes no more into: all but the newest, oldest first."""
    numbered = [(int(match[1]), path) for path in files if (match := _NUMBERED.match(path.name))]
    return [path for _, path in sorted(numbered)][:-1]
