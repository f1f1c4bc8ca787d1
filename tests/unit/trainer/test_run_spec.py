from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lakeloop_trainer import run_spec
from lakeloop_trainer.failures import RunFailure

INGEST = {
    "format": "json",
    "mode": "Append",
    "options": {},
    "baseVersion": 3,
    "manifest": "s3a://m",
    "committedVersion": None,
}


def test_a_whole_spec(document: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = document(
        inputs=[
            {"name": "customers", "uri": "s3a://lake/customers/", "version": 12},
            {"name": "events", "uri": "s3a://lake/events", "ingest": {**INGEST, "options": {"multiLine": True}}},
        ],
        dataset={"query": "SELECT 1", "features": ["a"], "target": "b", "split": {"testFraction": 0, "keys": ["id"]}},
        objective={"metric": "f1", "goal": "Maximize"},
    )
    path = tmp_path / "run.json"
    path.write_text(json.dumps(found))
    spec = run_spec.load(path)
    assert (spec.uid, spec.number, spec.run_id) == ("run-uid", 7, "abc")
    assert spec.inputs[0] == run_spec.Input(0, "customers", "s3a://lake/customers", 12, None)
    assert spec.inputs[1].ingest == run_spec.Ingest("json", "Append", {"multiLine": "true"}, 3, "s3a://m", None)
    assert spec.dataset == run_spec.Dataset("SELECT 1", ("a",), "b", run_spec.Split(0.0, 0, ("id",)))
    assert spec.objective == run_spec.Objective("f1", "Maximize")
    assert spec.raw == found


def test_floats_stay_floats_and_integers_integers(document: Callable[..., dict[str, Any]]) -> None:
    text = json.dumps(document()).replace('{"C": 1}', '{"C": 1.0, "max_iter": 1}')
    params = run_spec.parse(json.loads(text)).steps[0].params
    assert [(value, type(value)) for value in params.values()] == [(1.0, float), (1, int)]


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        pytest.param({"apiVersion": "lakeloop.io/run/v2"}, None, "matching images", id="another version"),
        pytest.param({"inputs": []}, "spec.inputs", "at least one", id="no inputs"),
        pytest.param(
            {"inputs": [{"name": "a", "uri": "s3a://b/c"}]}, "spec.inputs[0]", "neither a pinned", id="not pinned"
        ),
        pytest.param(
            {"inputs": [{"name": "a", "uri": "s3a://b/c", "ingest": {**INGEST, "mode": "Merge"}}]},
            "spec.inputs[0].ingest.keys",
            "is needed by mode Merge",
            id="merge without keys",
        ),
        pytest.param(
            {"inputs": [{"name": "a", "uri": "s3a://b/c", "ingest": {**INGEST, "keys": ["id"]}}]},
            "spec.inputs[0].ingest.keys",
            "taken by no other",
            id="keys without merge",
        ),
        pytest.param(
            {"inputs": [{"name": "a", "uri": "s3a://b/c", "ingest": {**INGEST, "format": "avro"}}]},
            "spec.inputs[0].ingest.format",
            "json, csv, parquet",
            id="format",
        ),
        pytest.param(
            {"inputs": [{"name": n, "uri": "s3a://b/c", "version": 1} for n in "ab"]},
            "spec.dataset.query",
            "join",
            id="two inputs without a query",
        ),
        pytest.param(
            {"dataset": {"target": "a", "features": ["a"]}}, "spec.dataset.features", "take it out", id="target twice"
        ),
        pytest.param({"dataset": {"target": "a", "features": []}}, "spec.dataset.features", "empty", id="no features"),
        pytest.param(
            {"dataset": {"target": "a", "split": {"by": "Size"}}}, "spec.dataset.split.by", "'Time'", id="unknown split"
        ),
        pytest.param(
            {"dataset": {"target": "a", "split": {"by": "Time"}}}, "spec.dataset.split.column", "needed", id="no column"
        ),
        pytest.param(
            {"dataset": {"target": "a", "split": {"testFraction": 1}}},
            "spec.dataset.split.testFraction",
            "below 1",
            id="nothing to train on",
        ),
        pytest.param({"estimator": {"library": "R", "steps": []}}, "spec.estimator.library", "sklearn", id="library"),
        pytest.param({"estimator": None}, "spec", "nothing", id="no way to train"),
        pytest.param({"script": {"path": "train.py"}}, "spec", "estimator and script", id="two ways to train"),
        pytest.param({"estimator": {"steps": []}}, "spec.estimator.steps", "at least one", id="no step"),
        pytest.param({"explanation": {"method": "LIME"}}, "spec.explanation.method", "SHAP", id="no such explanation"),
    ],
)
def test_what_it_does_not_do_it_refuses(
    document: Callable[..., dict[str, Any]], changes: dict[str, Any], field: str | None, says: str
) -> None:
    with pytest.raises(RunFailure) as caught:
        run_spec.parse(document(**changes))
    assert (caught.value.failure_class, caught.value.reason) == ("Submission", "InvalidConf")
    assert caught.value.field == field
    assert says in caught.value.message


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunFailure, match="cannot be read"):
        run_spec.load(tmp_path / "run.json")
