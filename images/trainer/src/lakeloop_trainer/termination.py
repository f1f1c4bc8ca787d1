"""What SIGTERM does to a driver."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

EXIT_TERMINATED = 143

log = logging.getLogger("lakeloop_trainer")


class Termination:
    """What SIGTERM does, in a thread of its own: the pod is going away, and whoever sent the signal knows why.

    An exception in the main thread would not do: it waits for C code to return (a fit can take hours), and where it
    comes up in a callback of the interpreter's own it is lost.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._close: Callable[[], None] | None = None
        self._signals, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        threading.Thread(target=self._wait, name="termination", daemon=True).start()

    def closes(self, close: Callable[[], None]) -> None:
        """What is to be closed before the process ends."""
        self._close = close

    def _wait(self) -> None:
        while os.read(self._signals, 1) != bytes([signal.SIGTERM]):
            pass
        self.begun.set()
        log.warning("terminated: Spark is stopped, no result is written")
        try:
            if self._close is not None:
                self._close()
        finally:
            os._exit(EXIT_TERMINATED)
