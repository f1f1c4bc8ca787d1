"""Waiting for a run, with a bar: what is waited for is pure, looking and showing are not."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lakeloop.cli.errors import CliError
from lakeloop.cli.training import output
from lakeloop.cli.training.runs import Document, condition, failure_line, is_over, run_numbered, runs_of
from lakeloop.cli.training.tables import span

ACTION = "lakeloop.io/"
LOOK_SECONDS = 0.5
SILENCE_SECONDS = 20.0
"""After so long without an answer the operator is asked after."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the job."""

    line: str
    percent: float = 0.0
    run: Mapping[str, Any] | None = None
    """The run, once it is over."""


def answered(job: Document, action: str, asked: str) -> bool:
    """Whether the operator has taken the action. Raises CliError where it never will."""
    status = job.get("status") or {}
    if (status.get("lastHandled") or {}).get(action) == asked:
        return True
    stalled = condition(job, "Stalled")
    if stalled.get("status") == "True" and stalled.get("reason") == "NotImplemented":
        raise CliError(str(stalled.get("message")))
    present = (job["metadata"].get("annotations") or {}).get(f"{ACTION}{action}")
    if present != asked:
        raise CliError(f"somebody else asked for {ACTION}{action} ({present}) before this was taken up: run it again")
    return False


def started_by(job: Document, asked: str) -> Mapping[str, Any] | None:
    """The run that the id started, or the newest one, which a change of the spec started at the same time."""
    runs = runs_of(job)
    return next((each for each in runs if each.get("triggerKey") == asked), runs[0] if runs else None)


def waits_for_its_turn(job: Document) -> str:
    """Why a run that was asked for has not started."""
    suspended = condition(job, "Suspended")
    if suspended.get("status") == "True":
        return f"suspended: {suspended.get('message', '')}"
    newest = next(iter(runs_of(job)), None)
    if newest is not None and not is_over(newest):
        return f"after run {newest['number']}, which is {describe(job, newest)}"
    return "asked for"


def describe(job: Document, run: Mapping[str, Any]) -> str:
    """Phase, stage, trials, what is left, and what it waits for."""
    progress: Mapping[str, Any] = run.get("progress") or {}
    parts = [str(run.get("phase", "Pending"))]
    if progress.get("stage"):
        parts.append(str(progress["stage"]))
    if progress.get("trialsTotal"):
        parts.append(f"trial {progress.get('trialsFinished', 0)}/{progress['trialsTotal']}")
    if progress.get("remainingSeconds") is not None:
        parts.append(f"{span(progress['remainingSeconds'])} left")
    if (run.get("attempt") or 1) > 1:
        parts.append(f"attempt {run['attempt']}")
    stalled = condition(job, "Stalled")
    if stalled.get("status") == "True" and not is_over(run):
        parts.append(f"{stalled.get('reason')}: {stalled.get('message')}")
    elif run.get("phase") in ("Pending", "Failed") and run.get("failure"):
        parts.append(failure_line(run))
    return " · ".join(parts)


def look_at(job: Document, number: int) -> Seen:
    """How far the run is. Raises CliError where status does not have it any more."""
    run = run_numbered(job, number)
    if run is None:
        raise CliError(f"run {number} is in status no more (spec.runPolicy.historyLimit): MLflow has its record")
    percent = 100.0 if run.get("phase") == "Succeeded" else float((run.get("progress") or {}).get("percent") or 0)
    return Seen(f"run {number} · {describe(job, run)}", percent, run if is_over(run) else None)


def follow(what: str, look: Callable[[], Seen], timeout: float | None) -> Mapping[str, Any]:
    """Looks until the run is over, and shows how far it is. Raises CliError after `timeout` seconds."""
    deadline = time.monotonic() + timeout if timeout else None
    with _bar() as bar:
        task = bar.add_task(what, total=100)
        said = ""
        while True:
            seen = look()
            bar.update(task, completed=seen.percent, description=seen.line)
            if not bar.console.is_terminal and seen.line != said:
                output.note(seen.line)
            said = seen.line
            if seen.run is not None:
                return seen.run
            if deadline is not None and time.monotonic() > deadline:
                raise CliError(f"{what} is not over after {timeout:.0f} s ({seen.line}); it goes on without you")
            time.sleep(LOOK_SECONDS)


def _bar() -> Progress:
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    shown = output.errors.is_terminal
    return Progress(*columns, console=output.errors, disable=not shown)


class Patience:
    """Asks after the operator, once, when it stays silent."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._told = False

    def line(self, waiting: str) -> str:
        """What is waited for, and the doubt."""
        if time.monotonic() - self._started < SILENCE_SECONDS or waiting != "asked for":
            return waiting
        return "the operator has not answered yet: is it running? `kubectl lakeloop status` says"
