"""How a container's output lies on the volume shared with the sidecar: what `log_tee` writes, `log_upload` reads.

```
<folder>/output/000001.log   segments of a fixed size; only the newest ones are kept, so that a disk is never filled
<folder>/pipe                what the container writes and nobody has read yet
<folder>/lock                held by whoever copies the output, as long as it lives
<folder>/broken              is there where output could not be written (a full disk)
<folder>/events/             Spark's event log
```
Segments have fixed borders: from the numbers alone follows which bytes of the output a segment holds. So neither
program has anything to remember over a restart.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

FOLDER_VARIABLE = "LAKELOOP_LOG_FOLDER"
TAIL_VARIABLE = "LAKELOOP_LOG_TAIL_BYTES"
LARGEST_SEGMENT = 1 << 20
"""As much is uploaded again every few seconds while a segment grows."""
SMALLEST_SEGMENT = 256
_SEGMENT = re.compile(r"(\d{6,})\.log")
_SHARED = 0o660
"""The containers of a pod share a group (fsGroup), whatever user an overlay gives one of them."""


def segment_size(tail: int) -> int:
    """Bytes of a full segment where `tail` bytes are to be kept: an eighth, so at least seven eighths are there."""
    return max(1, min(tail, LARGEST_SEGMENT, max(tail // 8, SMALLEST_SEGMENT)))


def pipe_of(folder: Path) -> Path:
    """The named pipe; made where it is not there, whoever comes first."""
    path = folder / "pipe"
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
        path.chmod(_SHARED)
    return path


def lock_of(folder: Path) -> Path:
    return folder / "lock"


def broken_of(folder: Path) -> Path:
    return folder / "broken"


def events_of(folder: Path) -> Path:
    return folder / "events"


class Segments:
    """The last bytes of an output. One program writes at a time."""

    def __init__(self, folder: Path, tail: int) -> None:
        self.size = segment_size(tail)
        self._kept = max(1, tail // self.size)
        self._folder = folder / "output"
        self._file = -1
        self._index = 0
        self._used = 0

    def present(self) -> dict[int, int]:
        """Number → bytes of each segment that is there, in order."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                match = _SEGMENT.fullmatch(path.name)
                with contextlib.suppress(FileNotFoundError):  # the writer has just dropped it
                    if match:
                        found[int(match[1])] = path.stat().st_size
        return dict(sorted(found.items()))

    def read(self, index: int) -> bytes | None:
        """A segment's bytes; None where it was dropped."""
        try:
            return self._path(index).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Appends, and drops the oldest segments. Raises OSError (a full disk)."""
        rest = memoryview(content)
        while rest:
            self._make_room()
            written = os.pwrite(self._file, rest[: self.size - self._used], self._used)
            self._used += written
            rest = rest[written:]

    def take(self, pipe: int, most: int) -> bytes:
        """Moves what is in the pipe to the end, and gives it; empty where nobody writes to the pipe any more.

        The kernel moves it: whoever is killed meanwhile has lost none of it. Raises BlockingIOError where there is
        nothing, and OSError (a full disk), which leaves it in the pipe.
        """
        self._make_room()
        most = min(most, self.size - self._used)
        try:
            count = os.splice(pipe, self._file, most, offset_dst=self._used)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            content = os.read(pipe, most)  # a volume that cannot do that
            self.write(content)
            return content
        content = os.pread(self._file, count, self._used)
        self._used += count
        return content

    def _make_room(self) -> None:
        if self._file < 0:
            self._open_last()
        if self._used >= self.size:
            self._open(self._index + 1)

    def _open_last(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o770)
        self._open(max(self.present(), default=1))

    def _open(self, index: int) -> None:
        path = self._path(index)
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _SHARED)
        with contextlib.suppress(PermissionError):  # another user's, who did it
            os.fchmod(opened, _SHARED)  # whatever the umask says
        if self._file >= 0:
            os.close(self._file)
        self._file, self._index = opened, index
        self._used = os.fstat(opened).st_size
        self._path(index - self._kept).unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:06d}.log"
