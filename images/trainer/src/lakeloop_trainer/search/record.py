"""The trials in MLflow: a nested run each, written in the background, and read by the attempt that takes over."""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from lakeloop_trainer.search.trial import FAILED, FINISHED, PRUNED, RUNNING, Trial, from_record

if TYPE_CHECKING:
    from lakeloop_trainer.tracking import Tracker

TRIAL = "lakeloop.io/trial"
RECORD = "lakeloop.io/trial-record"
PARENT = "mlflow.parentRunId"
STATUS = {RUNNING: "RUNNING", FINISHED: "FINISHED", PRUNED: "KILLED", FAILED: "FAILED"}
MAX_TAG = 5000

log = logging.getLogger(__name__)


class Record:
    """Writes trials in one thread, in order. What MLflow does not take is tried once more at the end."""

    def __init__(self, tracker: Tracker, prefix: str, objective: str) -> None:
        """``prefix``: of the runs' names, ``<job>-<run>-trial-``."""
        self._tracker = tracker
        self._prefix = prefix
        self._objective = objective
        self._runs: dict[int, str] = {}
        self._unsent: dict[int, Trial] = {}
        """By number: the newest state that MLflow did not take."""
        self._queue: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="trials", daemon=True)
        self._thread.start()

    def past(self) -> list[Trial]:
        """The trials of earlier attempts of this run."""
        found: dict[int, Trial] = {}
        token = None
        while True:
            page = self._tracker.client.search_runs(
                [self._tracker.experiment_id],
                filter_string=f"tags.`{PARENT}` = '{self._tracker.run_id}'",
                max_results=1000,
                page_token=token,
            )
            for run in page:
                tags = run.data.tags
                trial = from_record(tags.get(TRIAL, ""), tags.get(RECORD, ""), str(run.info.run_id))
                if trial is None:
                    log.warning("the MLflow run %s is below this one, and no trial's", run.info.run_id)
                    continue
                if trial.number not in found or trial.state != RUNNING:
                    found[trial.number] = trial
                    self._runs[trial.number] = str(run.info.run_id)
                if trial.state != RUNNING and run.info.status == STATUS[RUNNING]:
                    self.changed(trial)  # the driver was lost between the two
            token = page.token
            if not token:
                break
        return list(found.values())

    def abandon(self, seconds: float = 10) -> None:
        """Waits so long for what is being written."""
        self._queue.put(None)
        self._thread.join(seconds)

    def changed(self, trial: Trial) -> None:
        """Notes a trial as it now is; returns at once."""
        self._queue.put(dataclasses.replace(trial, values=list(trial.values), folds=list(trial.folds)))

    def close(self) -> None:
        """Waits until everything is written. Raises what MLflow raises."""
        self._queue.put(None)
        self._thread.join()
        for trial in self._unsent.values():
            self._write(trial)

    def _loop(self) -> None:
        while (trial := self._queue.get()) is not None:
            try:
                self._write(trial)
                self._unsent.pop(trial.number, None)
            except Exception as error:  # of the network, of MLflow: it may take it later
                log.warning("trial %d is not in MLflow yet: %s", trial.number, type(error).__name__)
                self._unsent[trial.number] = trial

    def _write(self, trial: Trial) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client: Any = self._tracker.client
        now = int(time.time() * 1000)
        record = trial.record()
        if len(record) > MAX_TAG:  # of long messages and many folds: what a resumption needs comes first
            record = dataclasses.replace(trial, message=trial.message[:100]).record()
        if trial.number not in self._runs:
            run = client.create_run(
                self._tracker.experiment_id,
                start_time=now - int(trial.seconds * 1000),
                run_name=f"{self._prefix}{trial.number}",
                tags={PARENT: self._tracker.run_id, TRIAL: str(trial.number), RECORD: record},
            )
            self._runs[trial.number] = str(run.info.run_id)
        run_id = self._runs[trial.number]
        if trial.state == RUNNING:
            client.log_batch(
                run_id,
                params=[Param(name, str(value)[:6000]) for name, value in trial.params.items()],
                tags=[RunTag(RECORD, record)],
            )
            return
        metrics = [
            Metric(f"fold_{name}", value, now, fold)
            for fold, found in enumerate(trial.folds)
            for name, value in found.items()
        ]
        if trial.value is not None:
            metrics.append(Metric(f"cv_{self._objective}", trial.value, now, 0))
            metrics.append(Metric(f"cv_{self._objective}_std", trial.deviation, now, 0))
        tags = [RunTag(RECORD, record)]
        if trial.message:
            tags.append(RunTag("mlflow.note.content", trial.message))
        client.log_batch(run_id, metrics=metrics[:1000], tags=tags)
        client.set_terminated(run_id, status=STATUS[trial.state])
