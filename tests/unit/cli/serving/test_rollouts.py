"""What the command line says of a roll-out."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lakeloop.cli.serving import rollouts

STEPS = [{"setWeight": 10}, {"pauseSeconds": 60}, {"setWeight": 50}]
STABLE = {"version": 1, "weight": 90, "readyReplicas": 4, "inputs": [{"name": "customers", "version": 11}]}
CANDIDATE: dict[str, Any] = {"version": 2, "weight": 10, "effectiveWeight": 20, "readyReplicas": 1, "step": 1}
CANDIDATE["analysis"] = [
    {"metric": "error-rate", "value": 0.0, "requests": 412, "passed": True},
    {"metric": "latency-p99", "value": 0.31, "requests": 412, "passed": False},
    {"metric": "latency-p50", "requests": 3},
]
PAUSED = {"type": "RollingOut", "status": "True", "reason": "Paused", "message": "step 2 of 3"}
READY = {"type": "Ready", "status": "True", "reason": "Serving", "message": "serving churn/1"}
REFUSED = {"type": "GatesPassed", "status": "False", "reason": "SignatureBreaking", "message": "age"}


def deployment(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    spec = {"model": {"name": "churn", "alias": "champion"}, "strategy": {"type": "Canary", "canary": {"steps": STEPS}}}
    whole = {"observedGeneration": 3, "conditions": list(conditions), "stable": STABLE, **status}
    return {"metadata": {"name": "churn", "generation": 3}, "spec": spec, "status": whole}


def test_a_canary_on_its_way() -> None:
    found = dict(rollouts.fields(deployment(PAUSED, READY, candidate=CANDIDATE)))
    assert found["model"] == "churn@champion"
    assert found["stable"] == "churn/1  90 %  4 ready  learned from customers@11"
    assert found["candidate"] == "churn/2  20 % (10 % wanted)  1 ready"
    assert found["step"] == "setWeight 10 → [pauseSeconds 60] → setWeight 50"
    assert found["state"] == "Paused: step 2 of 3"
    assert found["analysis"] == (
        "error-rate 0 of 412 requests: good, latency-p99 0.31 of 412 requests: off,"
        " latency-p50 - of 3 requests: too few to tell"
    )


@pytest.mark.parametrize(
    ("given", "settled", "failed", "percent"),
    [
        pytest.param(deployment(READY), True, False, 100.0, id="serves"),
        pytest.param(deployment(PAUSED, READY, candidate=CANDIDATE), False, False, 20.0, id="on its way"),
        pytest.param(deployment(READY, observedGeneration=2), False, False, 100.0, id="the spec is newer"),
        pytest.param(deployment(READY, REFUSED), True, True, 100.0, id="rejected, and the old one serves"),
        pytest.param(deployment(stable=None), True, True, 100.0, id="nothing serves"),
    ],
)
def test_whether_it_is_over(given: dict[str, Any], settled: bool, failed: bool, percent: float) -> None:
    assert (rollouts.is_settled(given), rollouts.failed(given), rollouts.percent(given)) == (settled, failed, percent)


def test_of_a_deployment_that_the_operator_has_not_seen() -> None:
    new = {"metadata": {"name": "churn", "generation": 1}, "spec": {"model": {"name": "churn", "version": 4}}}
    assert not rollouts.is_settled(new)
    assert [each for each in rollouts.fields(new) if each[1]] == [
        ("model", "churn/4"),
        ("state", "the operator has not answered yet"),
    ]


def test_history() -> None:
    records = [
        {"version": 2, "reason": "AliasMoved", "startTime": "2026-11-24T09:00:00Z", "digest": "sha256:b"},
        {
            "version": 1,
            "reason": "FirstRollout",
            "startTime": "2026-11-24T08:00:00Z",
            "endTime": "2026-11-24T09:00:00Z",
        },
    ]
    rows = rollouts.history(deployment(READY, history=records), datetime(2026, 11, 24, 9, 5, tzinfo=UTC))
    assert [(each["VERSION"], each["WHY"], each["SERVED"]) for each in rows] == [
        ("2", "AliasMoved", "5m, serves"),
        ("1", "FirstRollout", "60m"),
    ]


def test_the_answer_to_an_action_is_found_among_others() -> None:
    events = [
        {"reason": "RolloutStarted", "message": "starting churn/2"},
        {"reason": "VersionRejected", "message": "churn/2: Aborted: lakeloop.io/abort: cli-2"},
        {"reason": "NothingToAbort", "message": "lakeloop.io/abort: cli-1: nothing is rolled out"},
    ]
    assert rollouts.answer(events, "abort", "cli-1") == ("NothingToAbort", events[2]["message"])
    assert rollouts.answer(events, "abort", "cli-2") == ("VersionRejected", events[1]["message"])
    assert rollouts.answer(events, "retry", "cli-1") is None


@pytest.mark.parametrize(
    ("content", "content_type", "body"),
    [
        pytest.param(b"a,b\n1,2\n", "text/csv", b"a,b\n1,2\n", id="csv"),
        pytest.param(b'[{"a": 1}]', "application/json", {"dataframe_records": [{"a": 1}]}, id="rows"),
        pytest.param(b"[[1, 2]]", "application/json", {"inputs": [[1, 2]]}, id="a tensor"),
        pytest.param(b'{"inputs": [1]}', "application/json", {"inputs": [1]}, id="a body as it is"),
    ],
)
def test_what_is_sent(content: bytes, content_type: str, body: Any) -> None:
    found = rollouts.body_of(content)
    assert found[0] == content_type
    assert (json.loads(found[1]) if content_type.endswith("json") else found[1]) == body
