"""Fetches the record of a run from wherever it still is: the job's status, MLflow, the object store."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lakeloop.cli.errors import CliError
from lakeloop.cli.training import records
from lakeloop.cli.training.jobs import Jobs
from lakeloop.cli.training.mlflow import Mlflow, NotFound
from lakeloop.cli.training.platform import Platform
from lakeloop.cli.training.records import Record
from lakeloop.cli.training.runs import run_numbered
from lakeloop.cli.training.store import Store

_NAMED = re.compile(r"(?P<job>[a-z0-9]([-a-z0-9.]*[a-z0-9])?):(?P<number>[1-9][0-9]*)")
LARGEST_MODEL = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class RunName:
    """A run: `churn:7`."""

    job: str
    number: int


def named(words: Sequence[str], numbers: Sequence[int]) -> tuple[RunName, RunName]:
    """Two runs: `churn --run 3 --run 4`, or `churn:3 other:4`. Raises CliError with what to write."""
    if len(words) == 1 and len(numbers) == 2 and ":" not in words[0]:
        return RunName(words[0], numbers[0]), RunName(words[0], numbers[1])
    found = [_NAMED.fullmatch(each) for each in words]
    if len(found) == 2 and not numbers and found[0] and found[1]:
        return (
            RunName(found[0]["job"], int(found[0]["number"])),
            RunName(found[1]["job"], int(found[1]["number"])),
        )
    raise CliError("write two runs: `diff JOB --run 3 --run 4`, or `diff JOB:3 OTHER:4`")


class Memory:
    """What is known of runs, of one namespace."""

    def __init__(self, jobs: Jobs, platform: Platform, namespace: str) -> None:
        self._jobs = jobs
        self._platform = platform
        self._namespace = namespace
        self._mlflow: Mlflow | None = None
        self._stores: dict[str, Store] = {}

    @property
    def mlflow(self) -> Mlflow:
        """MLflow, asked when it is needed."""
        if self._mlflow is None:
            self._mlflow = self._platform.mlflow(self._namespace)
        return self._mlflow

    def job(self, name: str) -> Mapping[str, Any] | None:
        """The TrainingJob, where it is still there."""
        return self._jobs.find(self._namespace, name)

    def record(self, job: str, number: int) -> Record:
        """All that is known of the run. Raises CliError where nobody knows it."""
        found = self.job(job)
        run = run_numbered(found, number) if found is not None else None
        if found is not None and run is not None:
            record = records.of_status(found, run)
            if record.run_id:
                try:
                    record = records.with_run(record, self.mlflow.run(record.run_id))
                except NotFound:
                    record = replace(record, run_id="")
        else:
            record = self._from_mlflow(job, number)
        return self._with_version(record)

    def _from_mlflow(self, job: str, number: int) -> Record:
        tags = {"lakeloop.io/training-job": f"{self._namespace}/{job}", "lakeloop.io/run": str(number)}
        # A job that was deleted and made anew counts from 1 again: the newest is meant.
        found = self.mlflow.runs_tagged(tags, limit=1)
        if not found:
            raise CliError(
                f"there is no run {number} of {job} in namespace {self._namespace}, neither in its status nor in"
                f" MLflow: `kubectl lakeloop runs -n {self._namespace}` lists what there is"
            )
        return records.of_mlflow(max(found, key=lambda run: int(run["info"].get("start_time") or 0)))

    def _with_version(self, record: Record) -> Record:
        try:
            if record.model:
                name, _, version = record.model.rpartition("/")
                return records.with_version(record, self.mlflow.version(name, int(version)))
            if record.run_id:
                registered = self.mlflow.versions(run_id=record.run_id)
                return records.with_version(record, registered[0]) if registered else record
        except NotFound:
            pass  # the version was deleted; the run is still a record
        return record

    def store(self, record: Record) -> Store:
        """The object store as the run's job sees it."""
        if record.job not in self._stores:
            spec = (self.job(record.job) or {}).get("spec") or {}
            self._stores[record.job] = self._platform.store(record.namespace, spec.get("storage") or {})
        return self._stores[record.job]

    def artifact(self, record: Record, name: str) -> Mapping[str, Any] | None:
        """A JSON artifact of the run's, such as `lakeloop/result.json`; None where there is none."""
        if not record.artifacts:
            return None
        content = self.store(record).read(f"{record.artifacts.rstrip('/')}/{name}")
        try:
            found = json.loads(content) if content is not None else None
        except ValueError:
            return None
        return found if isinstance(found, Mapping) else None

    def model_files(self, record: Record, folder: str) -> Mapping[str, bytes]:
        """The model's files by their names below its folder. Raises CliError for a model that is too large to fetch."""
        store = self.store(record)
        found = store.list(folder)
        size = sum(each.size for each in found)
        if size > LARGEST_MODEL:
            raise CliError(f"the model at {folder} has {size / 1024**3:.1f} GiB: too much to compare here")
        start = len(folder.rstrip("/").partition("://")[2].partition("/")[2]) + 1
        files: dict[str, bytes] = {}
        for each in found:
            content = store.read(each.uri)
            if content is not None:
                files[each.uri.partition("://")[2].partition("/")[2][start:]] = content
        return files
