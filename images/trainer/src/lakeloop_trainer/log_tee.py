"""Keeps a copy of a container's output, and passes it on to the pod's own log.

The program whose output is kept runs as a child of this one and writes to a named pipe, which this process reads. What
the program has written is in the pipe, and so in the kernel, the moment that `write` returns, and the kernel moves
it from there to the file: nothing of it is ever in this process alone. It is read to its end whatever became of the
program. Where this process dies with it (out of memory: the kernel kills the whole container),
the sidecar, which holds the pipe open too, reads the rest.

Standard output and standard error go through the one pipe, in their order, to standard output.

Imports little: it stays for as long as the program does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from lakeloop_trainer.log_files import (
    FOLDER_VARIABLE,
    TAIL_VARIABLE,
    Segments,
    broken_of,
    events_of,
    lock_of,
    pipe_of,
)

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_WATCHED = (*FORWARDED, signal.SIGCHLD)
_CHUNK = 1 << 16
_DRAIN_SECONDS = 1.0
"""What a program's own children may go on writing after its end, until they are killed with the container."""


def driver() -> None:
    """``lakeloop-driver``."""
    keep(os.environ)
    from lakeloop_trainer.main import main

    main()


def command() -> None:
    """``lakeloop-logged COMMAND…``: for programs that are not ours."""
    keep(os.environ)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 (the command is the image's own)


def keep(environ: Mapping[str, str]) -> None:
    """Returns in a child process, whose output is kept; the calling process ends as the child ends.

    Where nothing is to be kept, or the volume cannot be used, it returns in the calling process: no run fails for want
    of a copy of its log.
    """
    folder, tail = environ.get(FOLDER_VARIABLE), int(environ.get(TAIL_VARIABLE) or 0)
    if not folder or tail <= 0:
        return
    try:
        copier = _Copier(Path(folder), tail)
    except OSError as error:
        sys.stderr.write(f"lakeloop: this output is not kept in the object store: {error}\n")
        return
    if copier.fork():
        os._exit(copier.run())


class _Copier:
    """Reads the pipe, writes the segments and standard output, and passes signals on."""

    def __init__(self, folder: Path, tail: int) -> None:
        """Raises OSError."""
        with contextlib.suppress(FileExistsError):
            events_of(folder).mkdir()  # Spark wants to find it
            events_of(folder).chmod(0o770)
        self._broken = broken_of(folder)
        self._segments: Segments | None = Segments(folder, tail)
        self._lock = _locked(folder)
        pipe = pipe_of(folder)
        self._reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._writing = os.open(pipe, os.O_WRONLY | os.O_CLOEXEC)
        self._signals, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._child = 0
        self._code: int | None = None
        self._passes = True

    def fork(self) -> bool:
        """False in the child, whose output goes into the pipe."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)  # one that comes in between is not lost
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in _WATCHED:
            signal.signal(number, lambda _number, _frame: None)
        self._child = os.fork()
        if self._child:
            os.close(self._writing)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            return True
        for number in _WATCHED:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.dup2(self._writing, 1)
        os.dup2(self._writing, 2)
        # the lock above all: it says that the parent lives
        for each in (self._writing, self._reading, self._lock, self._signals, self._wakeup):
            os.close(each)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        return False

    def run(self) -> int:
        """Copies until the child has ended; gives the exit code, as a shell gives it."""
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        while self._code is None:
            for at, what in poll.poll():
                if at == self._signals:
                    self._handle()
                elif not self._copy() and what & select.POLLHUP:
                    poll.unregister(self._reading)  # the child has closed it, and lives on
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._copy() and time.monotonic() < deadline:
            pass
        return self._code

    def _copy(self) -> bool:
        """Whether there was something."""
        try:
            if self._segments is not None:
                content = self._segments.take(self._reading, _CHUNK)
            else:
                content = os.read(self._reading, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            self._segments = None
            with contextlib.suppress(OSError):  # so that no one takes what is there for all
                self._broken.touch()
            content = f"lakeloop: the rest of this output is not kept in the object store: {error}\n".encode()
        self._pass_on(content)
        return bool(content)

    def _pass_on(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest and self._passes:
            try:
                rest = rest[os.write(1, rest) :]
            except OSError:  # nobody reads it any more; the program goes on
                self._passes = False

    def _handle(self) -> None:
        for number in os.read(self._signals, 256):
            if number == signal.SIGCHLD:
                self._reap()
            elif self._code is None:
                os.kill(self._child, number)

    def _reap(self) -> None:
        """The child, and whoever lost its parent: as the first process of a container this is its new one."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._child:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = code if code >= 0 else 128 - code


def _locked(folder: Path) -> int:
    """The lock, held. Under its name it is never there without being held, unless its holder is dead."""
    own = folder / f"lock.{os.getpid()}"
    lock = os.open(own, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    fcntl.flock(lock, fcntl.LOCK_EX)
    own.rename(lock_of(folder))
    return lock


if __name__ == "__main__":
    command()
