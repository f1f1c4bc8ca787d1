"""Tables that fit, and what they say of runs."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import training_job_dict
from lakeloop.cli.training import runs
from lakeloop.cli.training.tables import Column, moment, number, render, span

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
GOOD = {
    "number": 2,
    "uid": "two",
    "trigger": "Manual",
    "triggerKey": "monday",
    "phase": "Succeeded",
    "attempt": 1,
    "inputs": [{"name": "customers", "uri": "s3a://lake/customers", "version": 12}],
    "metrics": {"roc_auc": 0.912345678, "test_roc_auc": 0.912345678, "train_roc_auc": 1.0},
    "model": {"name": "churn", "version": 5, "digest": "sha256:abc"},
    "mlflow": {"runId": "r2", "url": "http://mlflow/r2"},
    "startTime": "2026-11-25T11:00:00Z",
    "completionTime": "2026-11-25T11:03:20Z",
}
BAD = {
    "number": 1,
    "uid": "one",
    "trigger": "SpecChange",
    "phase": "Failed",
    "attempt": 3,
    "failure": {"class": "Data", "reason": "ColumnNotFound", "message": "no column x\nin customers", "field": "spec.a"},
    "startTime": "2026-11-24T12:00:00Z",
    "completionTime": "2026-11-24T12:00:45Z",
}


def job(run: Any = GOOD, history: Any = (GOOD, BAD), **parts: Any) -> dict[str, Any]:
    return training_job_dict(status={"run": run, "history": list(history)}, **parts)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (3600, "60m"), (11_400, "3h10m"), (90_000, "25h"),
     (180_000, "2d2h"), (900_000, "10d"), (-3, "0s")],
)  # fmt: skip
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_each_run_is_there_once_newest_first() -> None:
    active = {**GOOD, "number": 3, "phase": "Running", "progress": {"percent": 40}, "completionTime": None}
    assert [each["number"] for each in runs.runs_of(job(active))] == [3, 2, 1]
    assert [each["number"] for each in runs.runs_of(job())] == [2, 1]
    assert runs.runs_of(training_job_dict()) == []
    assert runs.phase(runs.document(job(active), active, NOW)) == "Running 40%"


def test_documents_keep_their_shape() -> None:
    good, bad = runs.documents([job()], NOW)
    assert good.keys() == bad.keys()
    assert good["objective"] == {"metric": "roc_auc", "value": 0.912345678}
    assert (good["durationSeconds"], bad["durationSeconds"]) == (200, 45)
    assert bad["objective"] is bad["model"] is bad["mlflow"] is None
    assert bad["inputs"] == []
    assert good["inputs"] == [{"name": "customers", "uri": "s3a://lake/customers", "version": 12}]


@pytest.mark.parametrize(
    ("metrics", "spec", "expected"),
    [
        pytest.param({"rmse": 2.0, "test_rmse": 2.0}, {}, ("rmse", 2.0), id="the plain name"),
        pytest.param({"a": 1.0, "b": 2.0}, {"objective": {"metric": "b"}}, ("b", 2.0), id="as the spec says"),
        pytest.param({"a": 1.0, "b": 2.0}, {}, None, id="a script's, undecided"),
        pytest.param({}, {"objective": {"metric": "b"}}, None, id="none"),
    ],
)
def test_objective(metrics: dict[str, float], spec: dict[str, Any], expected: Any) -> None:
    assert runs.objective({"spec": spec}, {"metrics": metrics}) == expected


def test_the_table() -> None:
    lines = render(runs.COLUMNS, runs.rows(runs.documents([job()], NOW), NOW), None)
    assert lines[0].split() == [each.title for each in runs.COLUMNS]
    assert lines[1].split()[:6] == ["churn", "2", "Manual", "Succeeded", "1", "customers@12"]
    assert "roc_auc 0.912346  churn/5  3m20s     60m" in lines[1]
    assert lines[2].endswith("Data/ColumnNotFound: no column x in customers")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_the_table_fits_the_terminal(width: int) -> None:
    lines = render(runs.WITH_NAMESPACE, runs.rows(runs.documents([job()], NOW), NOW), width)
    assert max(map(len, lines)) <= width
    titles = lines[0].split()
    assert {"JOB", "RUN", "PHASE"} <= set(titles)


COLUMNS = (Column("A", cut=True), Column("B", drop=1), Column("C", drop=2, cut=True))
CELL = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=40)


@given(st.lists(st.fixed_dictionaries({"A": CELL, "B": CELL, "C": CELL}), max_size=5), st.integers(20, 200))
def test_any_table_fits(rows: list[dict[str, str]], width: int) -> None:
    lines = render(COLUMNS, rows, width)
    assert len(lines) == len(rows) + 1
    assert max(map(len, lines)) <= width


def test_columns_go_before_what_stays_is_cut_to_nothing() -> None:
    rows = [{"A": "a" * 30, "B": "b" * 30, "C": "c" * 30}]
    assert render(COLUMNS, rows, 60)[1] == f"{'a' * 12}…  {'b' * 30}  {'c' * 12}…"
    assert render(COLUMNS, rows, 45)[0].split() == ["A", "B"]
    assert render(COLUMNS, rows, 20)[0].split() == ["A"]
    assert render(COLUMNS, rows, None)[1] == f"{'a' * 30}  {'b' * 30}  {'c' * 30}"


def test_a_terminal_obeys_nothing_of_it() -> None:
    assert render(COLUMNS, [{"A": "a\x1b[2J\nb\tc"}], None)[1].split("  ")[0].rstrip() == "a\ufffd[2J b c"


def test_small_parts() -> None:
    assert moment("2026-11-25T12:00:00Z") == NOW
    assert moment("yesterday") is None
    assert moment(None) is None
    assert number(0.5) == "0.5"
    assert number(None) == "-"
    assert runs.failure_line(BAD) == "Data/ColumnNotFound: spec.a: no column x\nin customers"
    assert runs.failure_line(GOOD) == ""
