"""The output of the main container, as the sidecar sees it: how much there is, and whether there will be more."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path

from lakeloop_trainer.log_files import Segments, broken_of, lock_of, pipe_of

_CHUNK = 1 << 16

log = logging.getLogger(__name__)


class Source:
    """Segments, and the pipe that they come from, held open: what is in it outlives whoever was to read it."""

    def __init__(self, folder: Path, tail: int) -> None:
        """Raises OSError where the volume cannot be used."""
        self.segments = Segments(folder, tail)
        self._folder = folder
        self.pipe = os.open(pipe_of(folder), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        """Tells a poll that it was hung up when the last process has closed it that wrote to it."""
        self._over = False

    @property
    def broken(self) -> bool:
        """Whether something of the output was lost before it came here."""
        return broken_of(self._folder).exists()

    @broken.setter
    def broken(self, _: bool) -> None:
        with contextlib.suppress(OSError):
            broken_of(self._folder).touch()

    @property
    def began(self) -> bool:
        """Whether the main container has ever run."""
        return lock_of(self._folder).exists()

    def over(self) -> bool:
        """Whether the main container is dead and all that it has written is in the segments."""
        if not self._over and self._orphaned():
            self._over = self._read_the_rest()
        return self._over

    def _orphaned(self) -> bool:
        try:
            lock = os.open(lock_of(self._folder), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    def _read_the_rest(self) -> bool:
        """False: somebody may still write."""
        while True:
            try:
                content = self.segments.take(self.pipe, _CHUNK)
            except BlockingIOError:
                return False
            except OSError as error:
                log.warning("the last output cannot be kept: %s", error)
                self.broken = True
                return True
            if not content:
                return True
