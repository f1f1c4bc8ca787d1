"""What is waited for, and when waiting makes no sense."""

from typing import Any

import pytest

from builders import training_job_dict
from lakeloop.cli.errors import CliError
from lakeloop.cli.training import waiting

ASKED = {"annotations": {"lakeloop.io/run-now": "me"}}
RUNNING = {"number": 4, "phase": "Running", "attempt": 1}


def job(metadata: Any = ASKED, **status: Any) -> dict[str, Any]:
    return training_job_dict(metadata=metadata, status=status)


def condition(kind: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def test_an_action_is_answered_by_its_id() -> None:
    assert waiting.answered(job(lastHandled={"run-now": "me"}), "run-now", "me")
    assert not waiting.answered(job(lastHandled={"run-now": "before"}), "run-now", "me")
    assert not waiting.answered(job(), "run-now", "me")


def test_an_action_that_somebody_replaced_is_never_answered() -> None:
    with pytest.raises(CliError, match="somebody else asked"):
        waiting.answered(job({"annotations": {"lakeloop.io/run-now": "other"}}), "run-now", "me")


def test_a_spec_that_is_refused_starts_nothing() -> None:
    refused = [condition("Stalled", "NotImplemented", "this release does not act on spec.x")]
    with pytest.raises(CliError, match=r"does not act on spec\.x"):
        waiting.answered(job(conditions=refused), "run-now", "me")


def test_the_run_is_that_of_the_id_or_the_newest() -> None:
    history = [{"number": 3, "triggerKey": "me", "phase": "Succeeded"}]
    newest = {"number": 4, "triggerKey": "hash", "phase": "Pending"}
    assert waiting.started_by(job(run=newest, history=history), "me") == history[0]
    assert waiting.started_by(job(run=newest), "me") == newest
    assert waiting.started_by(job(), "me") is None


def test_why_a_run_has_not_started() -> None:
    assert waiting.waits_for_its_turn(job()) == "asked for"
    assert waiting.waits_for_its_turn(job(run=RUNNING)) == "after run 4, which is Running"
    held = [condition("Suspended", "Suspended", "held back by spec.suspend")]
    assert waiting.waits_for_its_turn(job(conditions=held)) == "suspended: held back by spec.suspend"


@pytest.mark.parametrize(
    ("run", "conditions", "line"),
    [
        ({**RUNNING, "progress": {"stage": "Training", "percent": 40}}, [], "Running · Training"),
        (
            {**RUNNING, "progress": {"stage": "Training", "trialsTotal": 20, "trialsFinished": 8, "remainingSeconds": 90}},
            [],
            "Running · Training · trial 8/20 · 90s left",
        ),
        (
            {"number": 4, "phase": "Pending", "attempt": 2, "failure": {"class": "Infrastructure", "reason": "Evicted", "message": "m"}},
            [],
            "Pending · attempt 2 · Infrastructure/Evicted: m",
        ),
        (
            {"number": 4, "phase": "Pending"},
            [condition("Stalled", "SecretNotFound", "no Secret x")],
            "Pending · SecretNotFound: no Secret x",
        ),
    ],
)  # fmt: skip
def test_a_line_on_a_run(run: dict[str, Any], conditions: list[Any], line: str) -> None:
    assert waiting.describe(job(run=run, conditions=conditions), run) == line


def test_a_look() -> None:
    seen = waiting.look_at(job(run={**RUNNING, "progress": {"percent": 40}}), 4)
    assert (seen.percent, seen.run) == (40.0, None)
    over = {"number": 4, "phase": "Succeeded"}
    assert waiting.look_at(job(run=over), 4) == waiting.Seen("run 4 · Succeeded", 100.0, over)
    with pytest.raises(CliError, match="historyLimit"):
        waiting.look_at(job(run=over), 3)


def test_following_ends_with_the_run_or_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0)
    looks = iter(
        [waiting.Seen("asked for"), waiting.Seen("Running", 50), waiting.Seen("Failed", 50, {"phase": "Failed"})]
    )
    assert waiting.follow("it", lambda: next(looks), None) == {"phase": "Failed"}
    with pytest.raises(CliError, match=r"it is not over after 0 s \(Running\)"):
        waiting.follow("it", lambda: waiting.Seen("Running"), 0.01)


def test_a_silent_operator_is_asked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = waiting.Patience()
    assert patience.line("asked for") == "asked for"
    monkeypatch.setattr(waiting, "SILENCE_SECONDS", -1)
    assert "is it running?" in patience.line("asked for")
    assert patience.line("after run 4") == "after run 4"
