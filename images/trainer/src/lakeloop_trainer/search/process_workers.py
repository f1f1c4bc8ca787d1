"""Trials in processes beside the driver, for a run without executors.

Not threads: scikit-learn holds the interpreter's lock for much of a fit (measured on two cores: two threads are 1.0 to
1.7 times as fast as one, two processes 1.3 to 2.2 times), no thread can be ended when the time is over, and what
crashes or runs out of memory in a fit takes its process along. Forked from one that has imported the libraries and
nothing else: 80 MB each, beside the rows.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lakeloop_trainer.search.loop import TrialError
from lakeloop_trainer.search.scoring import Folds, outcome
from lakeloop_trainer.search.trial import Trial

PRELOADED = ["pandas", "sklearn.pipeline", "sklearn.metrics", "lakeloop_trainer.search.scoring"]


def warm_up() -> None:
    """Begins to load the libraries, in the background, while there are no rows yet."""
    from multiprocessing import forkserver

    _context()
    forkserver.ensure_running()


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class ProcessWorkers:
    """So many processes, each with the rows; one that ends is replaced when there is work."""

    def __init__(self, folds: Folds, folder: Path, slots: int) -> None:
        """``folder``: where the rows are left for the processes to read."""
        self.slots = slots
        self._rows = folder / "search-rows"
        self._rows.write_bytes(pickle.dumps(folds, protocol=5))
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}
        """By the trial's number."""
        self._cancelled: set[int] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="trial")

    def submit(self, trial: Trial, fold: int) -> Future[Mapping[str, float]]:
        return self._threads.submit(self._score, trial.number, dict(trial.params), fold)

    def cancel(self, trial: Trial) -> None:
        with self._lock:
            self._cancelled.add(trial.number)
            worker = self._busy.get(trial.number)
        if worker is not None:
            worker.end()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.end()
        self._threads.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(OSError):
            self._rows.unlink()

    def _score(self, number: int, params: dict[str, Any], fold: int) -> Mapping[str, float]:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or _Worker(self._rows)
        with self._lock:
            self._busy[number] = worker
            too_late = self._closed or number in self._cancelled
        if too_late:  # while the process was made
            worker.end()
        try:
            metrics, message = worker.ask(params, fold)
        finally:
            with self._lock:
                del self._busy[number]
                if worker.alive:
                    self._idle.append(worker)
        if metrics is None:
            raise TrialError(message)
        return metrics


class _Worker:
    """One process, asked by one thread at a time."""

    def __init__(self, rows: Path) -> None:
        context = _context()
        self._ours, theirs = context.Pipe()
        # daemon: it ends with the driver, and what a pipeline would start for itself (n_jobs) stays in the process
        self._process = context.Process(target=_serve, args=(theirs, str(rows)), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def alive(self) -> bool:
        return bool(self._process.is_alive())

    def ask(self, params: dict[str, Any], fold: int) -> tuple[dict[str, float] | None, str]:
        """The fold's metrics, or None and why there are none."""
        try:
            self._ours.send((params, fold))
            wait([self._ours, self._process.sentinel])
            found: tuple[dict[str, float] | None, str] = self._ours.recv()
            return found
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            hint = "; out of memory? Raise spec.spark.driver.memoryOverhead" if code == -9 else ""
            return None, f"its process ended ({how}){hint}"

    def end(self) -> None:
        self._process.kill()
        self._process.join(5)


def _serve(pipe: Connection, rows: str) -> None:
    """A worker's life: the driver's death ends it too."""
    with contextlib.suppress(OSError):
        os.nice(1)  # the driver's own threads, few and short, go first
    with Path(rows).open("rb") as file:
        folds: Folds = pickle.load(file)  # noqa: S301 (the driver has just written it)
    with contextlib.suppress(EOFError, OSError):
        while True:
            params, fold = pipe.recv()
            pipe.send(outcome(folds, params, fold))
