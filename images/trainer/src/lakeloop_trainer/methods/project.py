"""`spec.project`: an MLflow project, run by its own command in a child process, inside the run that the operator made.

The driver loads what is to be ingested, checks what is expected of the data, and then lets its JVM go: the child has
the pod's memory. `lakeloop_run` starts Spark there, where the project asks for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lakeloop_trainer import archives, context, dependencies, git_source, logged, mlproject, own_code, workspace
from lakeloop_trainer.attempt import Attempt, tracking_errors
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.result import Outcome
from lakeloop_trainer.run_spec import Project

FIELD = "spec.project"
GRACE_SECONDS = 10


def train(attempt: Attempt) -> Outcome:
    """Runs the project's entry point and tells what it logged; raises RunFailure."""
    project = attempt.spec.project
    if project is None:
        raise ValueError("the run has no project")
    looks = bool(attempt.spec.dataset.expectations) or any(item.version is None for item in attempt.spec.inputs)
    if looks:
        attempt.start_spark()
    attempt.ask_mlflow(own_code=True)
    tracker = attempt.tracker()
    with attempt.stages.measure("fetch code"):
        commit = _fetch(attempt, project, workspace.folder("code"), tracker.run_tags.get(own_code.COMMIT_TAG))
        folder = _root(workspace.folder("code"), project)
    own_code.pin(tracker, folder, f"{FIELD}.uri")
    command = mlproject.command(folder, project.entry_point, project.parameters, workspace.folder("downloads"))
    with attempt.stages.measure("provide packages"):
        dependencies.provide(command.packages)
    if looks:
        spark = attempt.open_tables()
        attempt.check_data(spark)
        attempt.end_spark()
    described = attempt.describe({**command.parameters, **attempt.input_params()})
    tags = {"mlflow.project.entryPoint": project.entry_point, "mlflow.project.env": "local"}
    tags |= {own_code.COMMIT_TAG: commit, "mlflow.source.git.repoURL": project.uri} if commit else {}
    with tracking_errors("Logging the code"):
        tracker.tags(tags)
        tracker.artifacts(own_code.artifacts(folder))
        tracker.document("lakeloop/run.json", attempt.spec.raw)
    described.result()
    attempt.progress.stage("Training", 50)
    since = time.time()
    with attempt.stages.measure("run project"):
        _run(attempt, command.line, folder, project.entry_point)
    attempt.progress.stage("Logging", 80)
    with attempt.stages.measure("look at what is logged"):
        return logged.outcome(attempt, since, lambda: _session(attempt))


def _session(attempt: Attempt) -> Any:
    attempt.start_spark()
    return attempt.open_tables()


def _fetch(attempt: Attempt, project: Project, into: Path, pinned: str | None) -> str | None:
    field = f"{FIELD}.uri"
    if git_source.is_git(project.uri):
        return git_source.fetch(project.uri, project.version, pinned, into)
    store = attempt.store(project.uri)
    if archives.is_archive(project.uri):
        own_code.from_object(store, project.uri, into, field, "ProjectNotFound")
    else:
        own_code.from_folder(store, project.uri, into, field, "ProjectNotFound")
    return None


def _root(folder: Path, project: Project) -> Path:
    """Where the project begins: a git URL may name a folder after `#`, and an archive often holds just one."""
    below = project.uri.partition("#")[2] if git_source.is_git(project.uri) else ""
    if below:
        found = folder / below
        if not found.is_dir() or not found.resolve().is_relative_to(folder.resolve()):
            message = f"{FIELD}.uri: the repository has no folder {below}"
            raise RunFailure("ProjectNotFound", message, f"{FIELD}.uri")
        return found
    there = list(folder.iterdir())
    return there[0] if len(there) == 1 and there[0].is_dir() else folder


def environment(attempt: Attempt, environ: Mapping[str, str]) -> dict[str, str]:
    """That of the child: MLflow's run, and what `lakeloop_run` needs to open the session."""
    own = str(Path(sys.executable).parent)
    kept = {name: value for name, value in environ.items() if not name.startswith("PYSPARK_GATEWAY_")}
    return {
        **kept,
        "PATH": f"{own}{os.pathsep}{environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_RUN_ID": attempt.spec.run_id,
        "MLFLOW_TRACKING_URI": attempt.spec.tracking_uri,
        "MLFLOW_EXPERIMENT_ID": attempt.tracker().experiment_id,
        context.VERSIONS: json.dumps(attempt.versions),
    }


def _run(attempt: Attempt, line: str, folder: Path, entry_point: str) -> None:
    child = subprocess.Popen(
        ["/bin/bash", "-c", line],
        cwd=folder,
        env=environment(attempt, os.environ),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # so that what it starts in turn ends with it
    )
    attempt.on_close(lambda: _end(child))
    code = child.wait()
    if code == 0:
        return
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        how += ", as it happens where memory is short: see spec.spark.driver.memoryOverhead"
    message = f"{FIELD}: entry point {entry_point} {how}; its output is in the driver's log"
    raise RunFailure("ProjectFailed", message, FIELD)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Asks the child and what it started to end; then makes them."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5)):
        try:
            os.killpg(child.pid, number)
            child.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
