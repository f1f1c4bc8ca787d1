"""The CustomResourceDefinitions."""

from dataclasses import dataclass
from typing import Any

from lakeloop.api.v1alpha1 import GROUP, VERSION
from lakeloop.api.v1alpha1.base import CEL_RULES, ApiModel, rule
from lakeloop.api.v1alpha1.common import MAX_NAME
from lakeloop.api.v1alpha1.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from lakeloop.api.v1alpha1.trainingjob import TrainingJobSpec, TrainingJobStatus
from lakeloop.codegen.schema import structural_schema, without_notes

MAX_BYTES = 262_144
"""A client-side `kubectl apply` keeps the whole object in one annotation, and annotations hold no more."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`. Priority 1: only with `-o wide`."""

    name: str
    json_path: str
    description: str
    type: str = "string"
    priority: int = 0

    def manifest(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.json_path,
            "description": self.description,
            **({"priority": self.priority} if self.priority else {}),
        }


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind, as the API server is told of it."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...]
    scalable: bool = False


_AGE = Column("Age", ".metadata.creationTimestamp", "Time since creation", type="date")
_REASON = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why it is or is not ready", priority=1)

TRAINING_JOB = Resource(
    kind="TrainingJob",
    plural="trainingjobs",
    short_name="tj",
    description="A declared training with numbered runs: which Delta tables to learn from, how, and what to register.",
    spec=TrainingJobSpec,
    status=TrainingJobStatus,
    columns=(
        Column("Run", ".status.run.number", "Number of the newest run", type="integer"),
        Column("Phase", ".status.run.phase", "Where the newest run stands"),
        Column("Table", ".status.summary.table", "First input and the version that is read"),
        Column("Metric", ".status.summary.metric", "Objective and its value"),
        Column("Model", ".status.summary.model", "Registered model and version"),
        _AGE,
        Column("MLflow-Run", ".status.run.mlflow.runId", "MLflow run of the newest run", priority=1),
        _REASON,
    ),
)

MODEL_DEPLOYMENT = Resource(
    kind="ModelDeployment",
    plural="modeldeployments",
    short_name="md",
    description="A registered model to serve, and how to change over to another version of it.",
    spec=ModelDeploymentSpec,
    status=ModelDeploymentStatus,
    columns=(
        Column("Model", ".spec.model.name", "Registered model"),
        Column("Stable", ".status.stable.version", "Version that serves", type="integer"),
        Column("Candidate", ".status.candidate.version", "Version that is to become stable", type="integer"),
        Column("Weight", ".status.candidate.weight", "Percent of the requests for the candidate", type="integer"),
        Column("Ready", ".status.stable.readyReplicas", "Servers that answer", type="integer"),
        Column("URL", ".status.url", "Where it answers"),
        _AGE,
        _REASON,
    ),
    scalable=True,
)

RESOURCES = (TRAINING_JOB, MODEL_DEPLOYMENT)

_NAME_RULES = [
    rule(
        f"self.metadata.name.size() <= {MAX_NAME}",
        f"write a metadata.name of at most {MAX_NAME} characters, so that the names of what is made for it fit",
    ),
    rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "write a metadata.name that starts with a letter and holds only a-z, 0-9 and '-'",
    ),
]


def crd(resource: Resource) -> dict[str, Any]:
    """The CustomResourceDefinition (`apiextensions.k8s.io/v1`)."""
    subresources: dict[str, Any] = {"status": {}}
    if resource.scalable:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    schema = {
        "description": resource.description,
        "type": "object",
        "required": ["spec"],
        CEL_RULES: _NAME_RULES,
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the API."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            "spec": without_notes(structural_schema(resource.spec)),
            "status": without_notes(structural_schema(resource.status)),
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "lakeloop"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short_name],
                "categories": ["lakeloop", "all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "additionalPrinterColumns": [column.manifest() for column in resource.columns],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
