"""What is put into the object store, and when: with a store in memory that can be down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer.log_files import Segments, lock_of
from lakeloop_trainer.log_mirror import Mirror
from lakeloop_trainer.log_source import Source
from lakeloop_trainer.log_store import StoreError
from lakeloop_trainer.log_upload import HURRY, INTERVAL, LONGEST, Uploader

TAIL = 8 << 10
SIZE = TAIL // 8


class MemoryStore:
    """Implements LogStore."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.down = False
        self.lists = True

    def _reach(self) -> None:
        if self.down:
            raise StoreError("put_object failed: ConnectTimeoutError")

    def put(self, name: str, content: bytes) -> None:
        self._reach()
        self.puts.append(name)
        self.objects[name] = content

    def delete(self, name: str) -> None:
        self._reach()
        self.objects.pop(name, None)

    def sizes(self, prefix: str) -> Mapping[str, int]:
        self._reach()
        if not self.lists:
            raise StoreError("list_objects_v2 failed: AccessDenied")
        return {name: len(content) for name, content in self.objects.items() if name.startswith(prefix)}

    def text(self, name: str = "driver-1") -> bytes:
        """As whoever reads the log puts it together."""
        return b"".join(
            self.objects[each] for each in sorted(self.objects) if each.startswith(f"{name}.") and ".log" in each
        )

    def marker(self, name: str = "driver-1") -> Any:
        return json.loads(self.objects[f"{name}.json"])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pod:
    """The volume, and the two programs that share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.clock = Clock()
        self.output = Segments(folder, TAIL)
        self.sources: list[Source] = []
        self.restart()

    def restart(self) -> None:
        """A new process of the sidecar."""
        self.source = Source(self.folder, TAIL)
        self.sources.append(self.source)
        self.mirror = Mirror(self.source, self.folder, "driver-1", TAIL, self.store, self.clock)
        self.uploader = Uploader(self.source, self.mirror)

    def dies(self) -> None:
        """The main container: nobody holds the lock, nobody writes to the pipe any more."""
        lock_of(self.folder).touch()

    def event_file(self, name: str, content: bytes) -> Path:
        path = self.folder / "events/eventlog_v2_app-1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    found = Pod(tmp_path)
    yield found
    for source in found.sources:
        os.close(source.pipe)


def test_the_marker_is_there_before_anything_is_written(pod: Pod) -> None:
    assert pod.uploader.step() == INTERVAL
    assert pod.store.marker() == {
        "container": "driver-1", "complete": False, "bytes": 0, "dropped": 0, "eventLog": False,
    }  # fmt: skip


def test_only_what_changed_is_put(pod: Pod) -> None:
    pod.output.write(b"a" * SIZE + b"b")
    pod.uploader.step()
    assert pod.store.puts == ["driver-1.json", "driver-1.000001.log", "driver-1.000002.log"]
    pod.store.puts.clear()
    pod.uploader.step()
    assert pod.store.puts == []
    pod.output.write(b"c")
    pod.uploader.step()
    assert pod.store.puts == ["driver-1.000002.log"]
    assert pod.store.text() == b"a" * SIZE + b"bc"


def test_the_end(pod: Pod) -> None:
    pod.output.write(b"hello\n")
    pod.uploader.step()
    pod.output.write(b"bye\n")
    pod.dies()
    pod.uploader.step()
    assert pod.uploader.finished
    assert pod.store.text() == b"hello\nbye\n"
    assert pod.store.marker() == {
        "container": "driver-1", "complete": True, "bytes": 10, "dropped": 0, "eventLog": False,
    }  # fmt: skip


def test_the_beginning_of_a_long_log_is_dropped_and_said_to_be(pod: Pod) -> None:
    whole = b"".join(b"%07d\n" % number for number in range(4 * TAIL // 8))
    for at in range(0, len(whole), 1000):
        pod.output.write(whole[at : at + 1000])
        pod.uploader.step()
    pod.dies()
    pod.uploader.step()
    note, _, rest = pod.store.text().partition(b"\n")
    dropped = len(whole) - len(rest)
    assert note == b"[lakeloop: the first %d bytes were not kept; runPolicy.logs.tailBytes is %d]" % (dropped, TAIL)
    assert whole.endswith(rest)
    assert TAIL - SIZE <= len(rest) <= TAIL
    assert pod.store.marker()["dropped"] == dropped
    assert pod.store.marker()["bytes"] == len(whole)
    assert pod.store.marker()["complete"] is True
    assert len(pod.store.objects) <= TAIL // SIZE + 2


def test_a_restart_goes_on(pod: Pod) -> None:
    pod.output.write(b"a" * SIZE + b"b")
    pod.uploader.step()
    pod.store.puts.clear()
    pod.restart()
    pod.output.write(b"c")
    pod.uploader.step()
    assert pod.store.puts == ["driver-1.json", "driver-1.000002.log"]
    pod.dies()
    pod.restart()
    pod.uploader.step()
    assert pod.store.text() == b"a" * SIZE + b"bc"
    assert pod.store.marker()["complete"] is True


def test_a_restart_removes_what_was_dropped_meanwhile(pod: Pod) -> None:
    pod.output.write(b"a" * TAIL)
    pod.uploader.step()
    pod.output.write(b"b" * TAIL)
    pod.restart()
    pod.uploader.step()
    assert pod.store.text().partition(b"\n")[2] == b"b" * TAIL


def test_credentials_that_may_not_list(pod: Pod) -> None:
    pod.store.lists = False
    pod.output.write(b"hello\n")
    pod.uploader.step()
    assert pod.store.text() == b"hello\n"


def test_a_store_that_is_down_for_long(pod: Pod) -> None:
    pod.output.write(b"before\n")
    pod.uploader.step()
    pod.store.down = True
    pauses = []
    for number in range(20):
        pod.output.write(b"line %d\n" % number)
        pauses.append(pod.uploader.step())
    assert pauses[0] == INTERVAL
    assert pauses[-1] == LONGEST
    pod.dies()
    assert pod.uploader.step() == HURRY
    assert not pod.uploader.finished
    pod.store.down = False
    pod.uploader.step()
    assert pod.store.text() == b"before\n" + b"".join(b"line %d\n" % number for number in range(20))
    assert pod.store.marker()["complete"] is True


def test_sigterm_while_the_container_lives_says_nothing_is_complete(pod: Pod) -> None:
    pod.output.write(b"alive\n")
    lock_of(pod.folder).touch()
    import fcntl

    with lock_of(pod.folder).open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        pod.uploader.stopping = True
        assert pod.uploader.step() == HURRY
        assert pod.store.text() == b"alive\n"
        assert pod.store.marker()["complete"] is False
        assert not pod.uploader.finished
    pod.uploader.step()
    assert pod.store.marker()["complete"] is True


def test_a_container_that_never_ran_lost_nothing(pod: Pod) -> None:
    pod.uploader.step()
    pod.uploader.stopping = True
    pod.uploader.step()
    assert pod.uploader.finished
    assert pod.store.marker()["complete"] is True


def test_what_a_full_disk_lost_is_not_called_complete(pod: Pod) -> None:
    pod.output.write(b"some\n")
    (pod.folder / "broken").touch()
    pod.dies()
    pod.uploader.step()
    assert pod.uploader.finished
    assert pod.store.marker()["complete"] is False


def test_the_event_log_grows_rolls_and_ends(pod: Pod) -> None:
    begun = pod.event_file("appstatus_app-1.inprogress", b"")
    first = pod.event_file("events_1_app-1.zstd", b"x" * (1 << 20))
    pod.event_file(".events_1_app-1.zstd.crc", b"sum")
    pod.uploader.step()
    there = "events/eventlog_v2_app-1"
    assert sorted(pod.store.objects) == [
        "driver-1.json", f"{there}/appstatus_app-1.inprogress", f"{there}/events_1_app-1.zstd",
    ]  # fmt: skip
    first.write_bytes(b"x" * (2 << 20))
    pod.uploader.step()
    assert len(pod.store.objects[f"{there}/events_1_app-1.zstd"]) == 1 << 20  # not yet: it is big
    pod.clock.now += 10
    pod.uploader.step()
    assert len(pod.store.objects[f"{there}/events_1_app-1.zstd"]) == 2 << 20
    pod.event_file("events_2_app-1.zstd", b"y")
    pod.uploader.step()
    assert not first.exists()
    begun.rename(begun.with_name("appstatus_app-1"))
    pod.event_file("events_2_app-1.zstd", b"yy")
    pod.dies()
    pod.uploader.step()
    assert {name: len(content) for name, content in pod.store.objects.items() if name.startswith("events")} == {
        f"{there}/appstatus_app-1": 0, f"{there}/events_1_app-1.zstd": 2 << 20, f"{there}/events_2_app-1.zstd": 2,
    }  # fmt: skip
    assert pod.store.marker()["eventLog"] is True
    assert pod.store.marker()["complete"] is True


def test_the_event_log_does_not_fill_the_disk_while_the_store_is_down(pod: Pod) -> None:
    pod.store.down = True
    for number in range(1, 13):
        pod.event_file(f"events_{number}_app-1.zstd", b"x")
    pod.uploader.step()
    left = sorted(int(path.name.split("_")[1]) for path in (pod.folder / "events/eventlog_v2_app-1").iterdir())
    assert left == list(range(4, 13))
    pod.store.down = False
    pod.dies()
    pod.restart()
    pod.uploader.step()
    assert pod.store.marker()["complete"] is False
