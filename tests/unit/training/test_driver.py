"""What a driver says is not trusted: the user's code runs in it, and may write anything where the result goes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.training.world import World

from lakeloop.api.v1alpha1.trainingjob import Run
from lakeloop.domain.training.driver import progress, read_result, result

OWN = {"uid": "u", "attempt": 1}
GOOD = {**OWN, "outcome": "Succeeded", "inputs": [], "metrics": {}, "objective": None, "model": None}
FAILED = {**OWN, "outcome": "Failed"}


def pod(message: str) -> dict[str, Any]:
    state = {"terminated": {"exitCode": 0, "message": message}}
    annotations = {"lakeloop.io/progress": message}
    return {
        "metadata": {"annotations": annotations},
        "status": {"containerStatuses": [{"name": "driver", "state": state}]},
    }


@pytest.mark.parametrize(
    "message", ["", "no JSON", "3", "[]", "[" * 4096, '{"a":' * 800, '{"uid": "u"}', '{"uid": ["u"]}']
)
def test_what_is_no_result(message: str) -> None:
    assert result(pod(message), "u", 1) is None
    assert progress(pod(message), "u", 1) is None


@pytest.mark.parametrize("version", [-1, 2**60, 1.5, "1", True, None])
def test_a_version_that_is_none(version: Any) -> None:
    """Status would not take it, and every later pass would end there."""
    found = read_result({**GOOD, "inputs": [{"name": "events", "version": version}]}, "u", 1)
    assert found is not None
    assert found.inputs == {}


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), True, "1", None, []])
def test_a_number_that_is_none(value: Any) -> None:
    document = {**GOOD, "metrics": {"a": value, "b": 1}, "objective": {"metric": "a", "value": value}}
    found = read_result(document, "u", 1)
    assert found is not None
    assert found.metrics == {"b": 1.0}
    assert found.objective is None


def test_more_metrics_than_status_should_hold() -> None:
    metrics = {"x" * 10_000: 1.0} | {f"m{i}": 1.0 for i in range(100_000)}
    found = read_result({**GOOD, "metrics": metrics}, "u", 1)
    assert found is not None
    assert list(found.metrics) == [f"m{i}" for i in range(64)]


@pytest.mark.parametrize("reason", ["", "x" * 2000, "has spaces", 3, None, "Ümlaut"])
def test_a_reason_that_is_none(reason: Any) -> None:
    found = read_result({**FAILED, "failure": {"class": "Data", "reason": reason, "message": "told"}}, "u", 1)
    assert found is not None
    assert found.failure is not None
    assert (found.failure.reason, found.failure.message) == ("DriverFailed", "told")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("inputs", "metrics", "objective", "model", "search", "failure"), JSON)
    )
)
def test_whatever_it_says_is_read(parts: dict[str, Any]) -> None:
    for base in (GOOD, FAILED):
        assert read_result({**base, **parts}, "u", 1) is not None


MODELS: dict[str, Any] = {
    "none": None,
    "text": "models:/m-1",
    "without a place": {"modelId": "m-1"},
    "a place that is no text": {"artifactUri": {"a": 1}},
}


@pytest.mark.parametrize("name", MODELS)
async def test_a_model_that_is_none_ends_the_run(name: str) -> None:
    world = World()
    await world.until_running(runPolicy={"retries": {"infrastructure": 0}})
    world.ends(world.result(model=MODELS[name]))
    await world.settle()
    assert world.run["failure"]["reason"] == "ResultIncomplete"


SEARCH = {"trials": 20, "finished": 12, "pruned": 7, "failed": 1}


async def test_a_search_is_shown() -> None:
    world = World()
    await world.until_running(search={"parameters": [{"name": "0.C", "min": 1, "max": 2}]})
    world.runs(stage="Training", percent=40, remainingSeconds=90.0, trialsFinished=8, trialsTotal=20)
    await world.settle()
    assert world.run["progress"] == {
        "stage": "Training", "percent": 40, "remainingSeconds": 90.0, "trialsFinished": 8, "trialsTotal": 20,
    }  # fmt: skip
    best = {"trial": 9, "value": 0.995, "params": {"0.C": "1.25"}}
    world.ends(world.result(search={**SEARCH, "best": best}))
    await world.settle()
    assert world.run["search"] == {
        "trials": 20, "trialsFinished": 12, "trialsPruned": 7, "trialsFailed": 1,
        "bestTrial": 9, "bestValue": 0.995, "bestParams": {"0.C": "1.25"},
    }  # fmt: skip


BAD_SEARCHES: dict[str, tuple[Any, Any]] = {
    "text": ("many", None),
    "counts that are none": ({"trials": -1, "finished": True, "pruned": 2**60, "failed": "1"}, None),
    "a best that is none": ({**SEARCH, "best": [1]}, (None, None, None)),
    "numbers that are none": (
        {**SEARCH, "best": {"trial": 0, "value": float("nan"), "params": {"0.C": 1}}},
        (None, None, None),
    ),
    "more than status should hold": (
        {**SEARCH, "best": {"trial": 1, "value": 1, "params": {"k" * 9999: "v", **{f"{i}.a": "v" * 9999 for i in range(99)}}}},
        (1, 1.0, {f"{i}.a": "v" * 100 for i in range(15)}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SEARCHES)
def test_a_search_that_is_none(name: str) -> None:
    written, expected = BAD_SEARCHES[name]
    found = read_result({**GOOD, "search": written}, "u", 1)
    assert found is not None
    search = found.search
    assert (search and (search.best_trial, search.best_value, search.best_params)) == expected


async def test_a_digest_that_is_none() -> None:
    world = World()
    await world.until_running()
    world.ends(world.result(model={"artifactUri": "s3://mlflow/1", "digest": ["x"]}))
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert "digest" not in world.run["model"]


async def test_a_message_that_cannot_be_read_ends_the_attempt() -> None:
    world = World()
    await world.until_running(runPolicy={"retries": {"infrastructure": 0}})
    world.pod_status(phase="Failed", containerStatuses=pod("[" * 4096)["status"]["containerStatuses"])
    await world.settle()
    assert world.run["failure"]["reason"] == "DriverDied"
    assert Run.parse(world.run).number == 1


async def test_a_record_that_cannot_be_read_ends_the_attempt() -> None:
    world = World()
    await world.until_running(runPolicy={"retries": {"infrastructure": 0}})
    world.records({"nested": 1})
    (uri,) = [uri for uri in world.stores.objects if uri.endswith("result.json")]
    world.stores.objects[uri] = b"[" * 100_000
    world.ends(None, code=1)
    await world.settle()
    assert world.run["failure"]["reason"] == "DriverDied"


async def test_a_manifest_that_is_none_is_told() -> None:
    world = World()
    ingest = {"from": "s3a://raw/customers/*.json", "format": "json"}
    world.stores.objects["s3a://raw/customers/a.json"] = b"{}"
    uid = "churn-run-1"
    inputs = [{"name": "customers", "uri": "s3a://lake/customers", "ingest": ingest}]
    world.apply(inputs=inputs)
    where = f"s3a://lake/customers/_lakeloop/ingest/{world.job['metadata']['uid']}/{uid}.json"
    for content in (b"[" * 100_000, b"{}", json.dumps({"files": [3]}).encode()):
        world.stores.objects[where] = content
        await world.settle()
        assert world.condition("Stalled") == ("True", "ManifestUnreadable")
        assert f"spec.inputs[0].ingest: {where} is no manifest" in world.message("Stalled")
