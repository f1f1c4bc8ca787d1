"""The parent of all serving processes: opens the socket, loads the model once, forks, replaces what dies.

A fork needs a process without threads of its own and without a used OpenMP pool, so that the parent never serves and
never predicts: what answers during the load is a child forked before it, and each worker warms up for itself.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from lakeloop_server.errors import LoadError, Reason

logger = logging.getLogger(__name__)
# A worker that keeps dying is a broken container: the kubelet's back-off is better at that
_MAX_DEATHS = 5
_DEATHS_WINDOW_SECONDS = 60.0
_STOP_MARGIN_SECONDS = 4.0
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_HANDLED = _STOP_SIGNALS | {signal.SIGCHLD}


@dataclass
class Child:
    """A forked process and the parent's end of the line to it."""

    pid: int
    line: socket.socket


def fork(run: Callable[[socket.socket], None], open_lines: list[socket.socket]) -> Child:
    """Forks a child that calls `run` with its end of a socket pair and exits: 0, or 1 if `run` raised.

    `open_lines` are the parent's ends to other children: the child closes them, so that each child sees
    the end of its own line when the parent is gone.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return Child(pid, ours)
    code = 1
    try:
        for line in [*open_lines, ours]:
            line.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        run(theirs)
        code = 0
    except BaseException:
        logger.exception("a serving process failed")
    finally:
        for handler in logging.getLogger().handlers:
            handler.flush()
        # No atexit handlers of the parent, and no waiting for a thread that is stuck in a prediction
        os._exit(code)


@dataclass
class Supervisor:
    """Keeps `count` workers; `run_worker` is what each of them runs."""

    count: int
    drain_seconds: float
    run_worker: Callable[[socket.socket], None]
    on_death: Callable[[int], None]
    workers: dict[int, Child] = field(default_factory=dict)
    _deaths: list[float] = field(default_factory=list)

    def start(self, stop_starting: Callable[[], None], sock: socket.socket) -> int:
        """Forks the workers, hands over from the starting process, and watches until all is over; the exit code.

        Raises LoadError if the first workers cannot answer.
        """
        # Signals wait until `_watch` asks for them: none is lost between two system calls
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        gc.collect()
        gc.freeze()  # so that the collector's marks don't copy the shared pages
        for _ in range(self.count):
            self._fork()
        try:
            warm = all(self._await_warm(child) for child in self.workers.values())
        except LoadError:
            self._kill()
            raise
        stop_starting()
        if not warm:
            self._kill()
            return 0
        for child in self.workers.values():
            child.line.sendall(b"go")
        return self._watch(sock)

    def _fork(self) -> Child:
        child = fork(self.run_worker, [worker.line for worker in self.workers.values()])
        self.workers[child.pid] = child
        return child

    def _await_warm(self, child: Child) -> bool:
        """Waits for a worker's first answer; False if the process is told to stop meanwhile. Raises LoadError."""
        while not select.select([child.line], [], [], 0.2)[0]:
            if signal.sigpending() & _STOP_SIGNALS:
                return False
        with child.line.makefile("rb") as lines:
            answer = lines.readline()
        if not answer:
            raise LoadError(Reason.WARMUP_FAILED, "The process died when the model answered its first request")
        content = json.loads(answer)
        if content["reason"] is not None:
            raise LoadError(Reason(content["reason"]), content["message"])
        return True

    def _watch(self, sock: socket.socket) -> int:
        while self.workers:
            info = signal.sigtimedwait(_HANDLED, 1.0)
            if info is not None and info.si_signo != signal.SIGCHLD:
                return self._stop(sock)
            for child in self._reap():
                self.on_death(child.pid)
                self._deaths = [when for when in self._deaths if time.monotonic() - when < _DEATHS_WINDOW_SECONDS]
                self._deaths.append(time.monotonic())
                if len(self._deaths) > _MAX_DEATHS:
                    logger.error("serving processes keep dying: giving up")
                    self._stop(sock)
                    return 1
                logger.error("the serving process %s died: starting another one", child.pid)
                replacement = self._fork()
                try:
                    if self._await_warm(replacement):
                        replacement.line.sendall(b"go")
                except (LoadError, OSError) as error:
                    logger.error("the new serving process cannot answer: %s", error)
        return 1

    def _reap(self) -> list[Child]:
        dead = []
        for pid in list(self.workers):
            if os.waitpid(pid, os.WNOHANG)[0]:
                child = self.workers.pop(pid)
                child.line.close()
                dead.append(child)
        return dead

    def _stop(self, sock: socket.socket) -> int:
        """Lets the workers drain; kills what is left after that."""
        sock.close()  # the workers' copies are what accepts
        for pid in self.workers:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + self.drain_seconds + _STOP_MARGIN_SECONDS
        while self.workers and time.monotonic() < deadline:
            signal.sigtimedwait({signal.SIGCHLD}, 0.2)
            self._reap()
        if self.workers:
            logger.warning("%s serving processes did not stop in time", len(self.workers))
        self._kill()
        return 0

    def _kill(self) -> None:
        for pid in self.workers:
            os.kill(pid, signal.SIGKILL)


def stop_child(child: Child, seconds: float = 3.0) -> None:
    """Ends a child and reaps it: SIGTERM, then SIGKILL."""
    os.kill(child.pid, signal.SIGTERM)
    # The child's end of the line closes when it exits
    if not select.select([child.line], [], [], seconds)[0]:
        os.kill(child.pid, signal.SIGKILL)
    child.line.close()
    os.waitpid(child.pid, 0)


def exit_now(code: int) -> NoReturn:
    """Ends the process without waiting for threads."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(code)
