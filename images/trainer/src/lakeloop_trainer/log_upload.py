"""``lakeloop-logs``: the sidecar that brings a container's output to the object store while it runs, and to its end.

It never ends by itself before it is told to: as a native sidecar (an init container that is restarted) it is stopped
once the main container has ended, and has the rest of the pod's grace period for what is left.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from lakeloop_trainer.log_files import FOLDER_VARIABLE, TAIL_VARIABLE
from lakeloop_trainer.log_mirror import Mirror
from lakeloop_trainer.log_source import Source
from lakeloop_trainer.log_store import LogStore, S3LogStore, StoreError

INTERVAL = 5.0
FIRST = 2.0
"""The main container's own start comes first."""
HURRY = 0.5
"""Between tries once there is nothing more to come, or the pod is going."""
MOMENT = 0.1
LONGEST = 30.0
"""Between tries at a store that does not answer."""

log = logging.getLogger("lakeloop_logs")


class Uploader:
    """When to upload: regularly, at once at the end, and again where the store did not answer."""

    def __init__(self, source: Source, mirror: Mirror) -> None:
        self._source = source
        self._mirror = mirror
        self.stopping = False
        self.finished = False
        self.tried_at_end = False
        """Whether it has looked since there is nothing more to come."""
        self._failures = 0
        self._told = ""

    def step(self) -> float:
        """One look; gives the seconds until the next."""
        over = self._source.over() or (self.stopping and not self._source.began)
        self.tried_at_end = over
        try:
            self._mirror.step(everything=over or self.stopping)
            if over and not self.finished:
                self._mirror.finish()
                self.finished = True
        except StoreError as error:
            return self._failed(str(error), hurry=over or self.stopping)
        except OSError as error:  # the volume's: a disk error is no reason to lose what comes after it
            return self._failed(f"{type(error).__name__}: {error.strerror}", hurry=False)
        if self._failures:
            log.info("the store answers again")
        self._failures, self._told = 0, ""
        return HURRY if self.stopping else INTERVAL

    def _failed(self, what: str, *, hurry: bool) -> float:
        self._failures += 1
        if what != self._told:
            log.warning("not uploaded, tried again: %s", what)
            self._told = what
        self._mirror.give_up_oldest()
        return HURRY if hurry else min(INTERVAL * 2 ** min(self._failures - 1, 8), LONGEST)


def main() -> None:
    """Entry point. Ends after SIGTERM: exit code 0 when all is in the store, else only when it is killed."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("botocore", "boto3", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    terminated = _signal_pipe()
    try:
        source, mirror = parts(os.environ)
    except (OSError, KeyError, ValueError) as error:
        # A sidecar that does not come up would hold back the main container, for the sake of its log.
        log.error("no log is uploaded: %s: %s", type(error).__name__, error)
        os.read(terminated, 1)
        return
    run(Uploader(source, mirror), source, terminated)


def parts(environ: Mapping[str, str], store: LogStore | None = None) -> tuple[Source, Mirror]:
    """What the operator's variables ask for. Raises OSError, KeyError, ValueError."""
    folder, tail = Path(environ[FOLDER_VARIABLE]), int(environ[TAIL_VARIABLE])
    if store is None:
        path_style = environ.get("LAKELOOP_STORAGE_PATH_STYLE", "true") == "true"
        store = S3LogStore(environ["LAKELOOP_LOG_URI"], path_style)
    source = Source(folder, tail)
    return source, Mirror(source, folder, environ["LAKELOOP_LOG_NAME"], tail, store)


def run(uploader: Uploader, source: Source, terminated: int) -> None:
    """Until SIGTERM, and then until everything is in the store."""
    poll = select.poll()
    poll.register(terminated, select.POLLIN)
    poll.register(source.pipe, 0)  # tells when it is hung up, and nothing else
    due, hung_up = time.monotonic() + FIRST, False
    while not (uploader.finished and uploader.stopping):
        wait = max(0.0, due - time.monotonic())
        if hung_up and not uploader.finished:
            wait = min(wait, MOMENT)  # until the process is gone too that was to read the pipe
        for at, _ in poll.poll(int(wait * 1000) + 1):
            if at == terminated:
                poll.unregister(terminated)
                uploader.stopping, due = True, 0.0
            else:
                poll.unregister(source.pipe)  # or it would be told over and over
                hung_up = True
        if hung_up and not uploader.tried_at_end and source.over():
            due = 0.0
        if not uploader.finished and time.monotonic() >= due:
            due = time.monotonic() + uploader.step()
        elif uploader.finished:
            due = time.monotonic() + LONGEST


def _signal_pipe() -> int:
    """Becomes readable at SIGTERM."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    return reading


if __name__ == "__main__":
    main()
