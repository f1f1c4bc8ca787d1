"""What this release refuses instead of ignoring it."""

from typing import Any

import pytest

from builders import DEPLOYMENT_SPEC, TRAINING_SPEC
from lakeloop.api.v1alpha1.implemented import NOT_YET, Kind, unimplemented_fields

INPUT = {"name": "a", "uri": "s3a://lake/a"}
INGEST = {"from": "s3a://raw/*.json", "format": "json"}
STEPS = [{"class": "a.B"}]

REFUSED: list[tuple[Kind, dict[str, Any], str]] = [
    ("TrainingJob", {"brandNew": 1}, "spec.brandNew"),
    ("TrainingJob", {"inputs": [INPUT | {"branch": "x"}]}, "spec.inputs[0].branch"),
    ("ModelDeployment", {"autoscaling": {"maxReplicas": 2}}, "spec.autoscaling"),
    ("ModelDeployment", {"gates": {"replay": {"source": "Captured"}}}, "spec.gates.replay"),
    ("ModelDeployment", {"strategy": {"preview": {"header": "x"}}}, "spec.strategy.preview"),
    ("ModelDeployment", {"analysis": {}}, "spec.analysis"),
    (
        "ModelDeployment",
        {
            "strategy": {"type": "Canary", "canary": {"steps": [{"setWeight": 10}]}},
            "analysis": {"metrics": [{"name": "error-rate", "max": 0}, {"name": "sales", "query": "x", "min": 1}]},
        },
        "spec.analysis.metrics[1].query",
    ),
    ("ModelDeployment", {"shadow": {"model": {"alias": "a"}}}, "spec.shadow"),
    ("ModelDeployment", {"route": {}}, "spec.route"),
    ("ModelDeployment", {"capture": {"uri": "s3a://lake/a"}}, "spec.capture"),
    ("ModelDeployment", {"drift": {}}, "spec.drift"),
]
MINIMAL: dict[Kind, Any] = {"TrainingJob": TRAINING_SPEC, "ModelDeployment": DEPLOYMENT_SPEC}


@pytest.mark.parametrize(("kind", "parts", "path"), [pytest.param(*row, id=f"{row[0]} {row[2]}") for row in REFUSED])
def test_refused(kind: Kind, parts: dict[str, Any], path: str) -> None:
    assert unimplemented_fields(kind, {**MINIMAL[kind], **parts}) == [path]


def test_every_entry_of_the_table_is_tested() -> None:
    tested = {(kind, path.replace("[1]", "[*]").removeprefix("spec.")) for kind, _, path in REFUSED}
    assert {(kind, entry.path) for kind, entries in NOT_YET.items() for entry in entries} - tested == set()


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        pytest.param("TrainingJob", {}, id="minimal job"),
        pytest.param("TrainingJob", {"explanation": {"method": "None"}}, id="no explanation wanted"),
        pytest.param("TrainingJob", {"explanation": {"sampleRows": 50}}, id="the default explanation of fewer rows"),
        pytest.param("TrainingJob", {"dependencies": {"pip": []}, "evaluation": {}, "triggers": {}}, id="empty parts"),
        pytest.param("TrainingJob", {"spark": {"dynamicAllocation": {"enabled": False}}}, id="switched off"),
        pytest.param("TrainingJob", {"runPolicy": {"retries": {"application": 2}}}, id="retries of user code"),
        pytest.param("TrainingJob", {"search": None}, id="null"),
        pytest.param("TrainingJob", {"search": {"parameters": [{"name": "0.C", "values": [1]}]}}, id="a search"),
        pytest.param(
            "TrainingJob",
            {
                "suspend": True,
                "inputs": [INPUT | {"ingest": INGEST | {"mode": "Overwrite", "files": "New", "options": {"a": "b"}}}],
                "dataset": {"query": "q", "target": "t", "split": {"by": "Random", "seed": 1, "keys": ["a"]}},
                "objective": {"metric": "f1"},
                "tracking": {"experiment": "e", "tags": {"a": "b"}, "secretRef": {"name": "s"}},
                "spark": {"image": "i", "driver": {"template": {"x": 1}}, "executor": {}, "conf": {"a": "b"}},
                "storage": {"endpoint": "http://x"},
                "triggers": {"schedule": {"cron": "@daily"}, "delta": {"input": "a"}},
                "runPolicy": {"concurrency": "Replace", "backoff": {"factor": 2}},
            },
            id="all that is acted on",
        ),
        pytest.param("ModelDeployment", {}, id="minimal deployment"),
        pytest.param(
            "ModelDeployment",
            {
                "replicas": 2,
                "server": {
                    "image": "i",
                    "resources": {"limits": {"cpu": "1"}},
                    "workers": 1,
                    "env": [],
                    "template": {},
                },
                "gates": {"signature": {"required": True, "allowBreakingChange": True}, "approval": "Required"},
                "strategy": {"type": "RollingUpdate", "onFailure": "Rollback", "progressDeadlineSeconds": 1},
                "storage": {},
                "tracking": {},
                "suspend": True,
            },
            id="all that is acted on",
        ),
    ],
)
def test_taken(kind: Kind, parts: dict[str, Any]) -> None:
    assert unimplemented_fields(kind, {**MINIMAL[kind], **parts}) == []
