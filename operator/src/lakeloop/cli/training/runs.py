"""Runs of jobs, from their status: pure. What `runs` prints, and what the other commands look a run up with."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from lakeloop.cli.training.tables import Column, Row, moment, number, span

Document = Mapping[str, Any]
TERMINAL = frozenset({"Succeeded", "Failed", "Stopped"})

COLUMNS = (
    Column("JOB", cut=True),
    Column("RUN"),
    Column("TRIGGER", drop=5),
    Column("PHASE"),
    Column("ATTEMPT", drop=6),
    Column("TABLE", drop=2, cut=True),
    Column("METRIC", drop=1, cut=True),
    Column("MODEL", drop=2, cut=True),
    Column("DURATION", drop=4),
    Column("AGE", drop=3),
    Column("REASON", drop=1, cut=True),
)
WITH_NAMESPACE = (Column("NAMESPACE", cut=True), *COLUMNS)


def runs_of(job: Document) -> list[Mapping[str, Any]]:
    """The job's runs as status has them, newest first; each once."""
    status = job.get("status") or {}
    newest, history = status.get("run"), status.get("history") or ()
    found = {each["number"]: each for each in history}
    if newest:
        found[newest["number"]] = newest
    return [found[key] for key in sorted(found, reverse=True)]


def run_numbered(job: Document, wanted: int) -> Mapping[str, Any] | None:
    """The run with that number; None where status does not have it (any more)."""
    return next((each for each in runs_of(job) if each["number"] == wanted), None)


def is_over(run: Mapping[str, Any]) -> bool:
    """Whether the run is final."""
    return run.get("phase") in TERMINAL


def objective(job: Document, run: Mapping[str, Any]) -> tuple[str, float] | None:
    """The metric that the run was for, and its value.

    The driver writes it by its plain name, beside `train_…` and `test_…` ones.
    """
    metrics: Mapping[str, float] = run.get("metrics") or {}
    named = ((job.get("spec") or {}).get("objective") or {}).get("metric")
    plain = [name for name in metrics if not name.startswith(("train_", "test_"))]
    name = named if named in metrics else plain[0] if len(plain) == 1 else None
    return (name, metrics[name]) if name is not None else None


def document(job: Document, run: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """A run as `-o json` and `-o yaml` print it."""
    started, ended = moment(run.get("startTime")), moment(run.get("completionTime"))
    found = objective(job, run)
    return {
        "namespace": job["metadata"]["namespace"],
        "job": job["metadata"]["name"],
        "number": run["number"],
        "uid": run.get("uid"),
        "trigger": run.get("trigger"),
        "triggerKey": run.get("triggerKey"),
        "phase": run.get("phase"),
        "attempt": run.get("attempt"),
        "inputs": [{key: each.get(key) for key in ("name", "uri", "version")} for each in run.get("inputs") or ()],
        "objective": {"metric": found[0], "value": found[1]} if found else None,
        "metrics": run.get("metrics") or {},
        "model": run.get("model"),
        "mlflow": run.get("mlflow"),
        "failure": run.get("failure"),
        "progress": run.get("progress"),
        "logs": run.get("logs"),
        "startTime": run.get("startTime"),
        "completionTime": run.get("completionTime"),
        "durationSeconds": int(((ended or now) - started).total_seconds()) if started else None,
    }


def documents(jobs: Sequence[Document], now: datetime) -> list[dict[str, Any]]:
    """All runs, by namespace and job, newest first."""
    ordered = sorted(jobs, key=lambda job: (job["metadata"]["namespace"], job["metadata"]["name"]))
    return [document(job, run, now) for job in ordered for run in runs_of(job)]


def rows(runs: Sequence[Document], now: datetime) -> list[Row]:
    """Cells of the table, of documents."""
    return [_row(run, now) for run in runs]


def _row(run: Document, now: datetime) -> Row:
    started = moment(run["startTime"])
    found, model, failure = run["objective"], run["model"] or {}, run["failure"] or {}
    why = f"{failure.get('class')}/{failure.get('reason')}: {failure.get('message', '')}" if failure else ""
    return {
        "NAMESPACE": run["namespace"],
        "JOB": run["job"],
        "RUN": str(run["number"]),
        "TRIGGER": run["trigger"] or "",
        "PHASE": phase(run),
        "ATTEMPT": str(run["attempt"] or ""),
        "TABLE": tables(run["inputs"]),
        "METRIC": f"{found['metric']} {number(found['value'])}" if found else "",
        "MODEL": f"{model['name']}/{model.get('version')}" if model.get("name") else "",
        "DURATION": span(run["durationSeconds"]) if run["durationSeconds"] is not None else "",
        "AGE": span((now - started).total_seconds()) if started else "",
        "REASON": why,
    }


def phase(run: Document) -> str:
    """The phase, with the percentage of a run at work."""
    percent = (run.get("progress") or {}).get("percent")
    return f"{run['phase']} {percent}%" if run["phase"] == "Running" and percent is not None else str(run["phase"])


def tables(inputs: Sequence[Mapping[str, Any]]) -> str:
    """`customers@12,events@4`."""
    return ",".join(f"{each['name']}@{'?' if each['version'] is None else each['version']}" for each in inputs)


def failure_line(run: Mapping[str, Any]) -> str:
    """`Data/ColumnNotFound: spec.dataset.target: …`; empty where nothing failed."""
    failure = run.get("failure") or {}
    if not failure:
        return ""
    field = failure.get("field")
    message = str(failure.get("message", ""))
    place = f"{field}: " if field and field not in message else ""
    return f"{failure.get('class')}/{failure.get('reason')}: {place}{message}"


def condition(job: Document, kind: str) -> Mapping[str, Any]:
    """The condition of that type; empty where there is none."""
    conditions: Iterator[Mapping[str, Any]] = iter((job.get("status") or {}).get("conditions") or ())
    return next((each for each in conditions if each["type"] == kind), {})
