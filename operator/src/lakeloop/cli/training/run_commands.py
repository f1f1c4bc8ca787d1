"""`kubectl lakeloop runs | run | stop`."""

import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lakeloop.cli.errors import CliError
from lakeloop.cli.training import options, output, runs, waiting
from lakeloop.cli.training.tables import moment, span

timeout_option = click.option(
    "--timeout", type=click.IntRange(min=1), help="With --wait: seconds to wait at most; default: as long as it takes."
)


@click.command("runs")
@click.argument("job", required=False, shell_complete=options.job_names)
@options.on_the_cluster
@options.everywhere
@options.form
@output.in_one_sentence
def list_runs(
    job: str | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    all_namespaces: bool,
    output_form: str,
) -> None:
    """Runs of one job or of all, newest first."""
    target = options.connect(kubeconfig, context, namespace)
    if job and all_namespaces:
        raise CliError("a job is in one namespace: leave out -A, or the job's name")
    now = datetime.now(UTC)
    where = None if all_namespaces else target.namespace
    found = [target.jobs.get(target.namespace, job)] if job else target.jobs.list("trainingjobs", where)
    documents = runs.documents(found, now)
    if output_form != "table":
        output.documents("RunList", documents, output_form)
    elif documents:
        output.table(runs.WITH_NAMESPACE if all_namespaces else runs.COLUMNS, runs.rows(documents, now))
    else:
        output.note(f"No runs{'' if all_namespaces else f' in namespace {target.namespace}'}.")


@click.command("run")
@options.job_argument
@options.on_the_cluster
@click.option("--wait", is_flag=True, help="Until the run is over; exit code 0 where it succeeded, else 1.")
@timeout_option
@output.in_one_sentence
def run_now(
    job: str, kubeconfig: Path | None, context: str | None, namespace: str | None, wait: bool, timeout: int | None
) -> None:
    """Start a run of a job, as it is now."""
    target = options.connect(kubeconfig, context, namespace)
    asked = new_id()
    target.jobs.get(target.namespace, job)
    target.jobs.annotate(target.namespace, job, "lakeloop.io/run-now", asked)
    if not wait:
        output.console.print(f"asked for a run of {job} ({asked}); `kubectl lakeloop runs {job}` shows it")
        return
    finish(wait_for_new_run(target, job, asked, timeout))


@click.command("stop")
@options.job_argument
@options.on_the_cluster
@click.option("--wait", is_flag=True, help="Until the run is over.")
@timeout_option
@output.in_one_sentence
def stop(
    job: str, kubeconfig: Path | None, context: str | None, namespace: str | None, wait: bool, timeout: int | None
) -> None:
    """Stop the run that a job has at work. What it did until then is thrown away."""
    target = options.connect(kubeconfig, context, namespace)
    newest = next(iter(runs.runs_of(target.jobs.get(target.namespace, job))), None)
    if newest is None or runs.is_over(newest):
        output.note(f"No run of {job} is at work.")
        return
    target.jobs.annotate(target.namespace, job, "lakeloop.io/stop", new_id())
    number = newest["number"]
    if not wait:
        output.console.print(f"asked run {number} of {job} to stop")
        return
    over = waiting.follow(
        f"run {number}", lambda: waiting.look_at(target.jobs.get(target.namespace, job), number), timeout
    )
    output.console.print(f"run {number} of {job}: {over['phase']}")


def new_id() -> str:
    """The id of an action: new each time, and tells who asked."""
    return f"cli-{uuid.uuid4().hex[:12]}"


def wait_for_new_run(target: options.Target, job: str, asked: str, timeout: int | None) -> Mapping[str, Any]:
    """The run that the action with this id starts, once it is over."""
    patience, numbers = waiting.Patience(), list[int]()

    def look() -> waiting.Seen:
        found = target.jobs.get(target.namespace, job)
        if not numbers:
            if not waiting.answered(found, "run-now", asked):
                return waiting.Seen(patience.line(waiting.waits_for_its_turn(found)))
            started = waiting.started_by(found, asked)
            if started is None:
                return waiting.Seen("asked for")
            numbers.append(started["number"])
        return waiting.look_at(found, numbers[0])

    return waiting.follow(f"the run of {job}", look, timeout)


def finish(run: Mapping[str, Any]) -> None:
    """Says how the run ended, and ends the process by it: 0 where it succeeded, else 1."""
    output.console.print(f"run {run['number']} {run['phase']}{_took(run)}", markup=False)
    model, found = run.get("model") or {}, runs.objective({}, run)
    output.fields(
        [
            ("metric", f"{found[0]} {found[1]:.6g}" if found else ""),
            ("model", f"{model['name']}/{model.get('version')}" if model.get("name") else ""),
            ("tables", runs.tables(run.get("inputs") or ())),
            ("MLflow", (run.get("mlflow") or {}).get("url") or ""),
            ("failure", runs.failure_line(run) if run["phase"] == "Failed" else ""),
        ]
    )
    if run["phase"] != "Succeeded":
        sys.exit(1)


def _took(run: Mapping[str, Any]) -> str:
    start, end = moment(run.get("startTime")), moment(run.get("completionTime"))
    return f" after {span((end - start).total_seconds())}" if start and end else ""
