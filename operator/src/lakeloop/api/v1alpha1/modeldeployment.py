"""ModelDeployment: which registered model to serve, and how to change over to another version of it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.api.v1alpha1.base import (
    ApiModel,
    ObjectMeta,
    check_depth,
    default_text,
    rule,
    rules,
    with_known_metadata,
)
from lakeloop.api.v1alpha1.common import (
    Alias,
    AnyQuantity,
    EnvList,
    Image,
    ModelName,
    Overlay,
    SecretReference,
    Storage,
)
from lakeloop.api.v1alpha1.deployment_extras import (
    Capture,
    CaptureColumns,
    Drift,
    GatewayReference,
    Retrain,
    Route,
    Shadow,
    ShadowModel,
    TrainingJobReference,
)
from lakeloop.api.v1alpha1.deployment_rollout import (
    BUILT_IN_METRICS,
    Analysis,
    AnalysisMetric,
    Canary,
    CanaryStep,
    Gates,
    Preview,
    ReplayGate,
    ReplayInput,
    SignatureGate,
    Strategy,
)
from lakeloop.api.v1alpha1.deployment_status import (
    Candidate,
    LastRollout,
    Measurement,
    ModelDeploymentStatus,
    RejectedVersion,
    ServedVersion,
    ServingRecord,
    TrainedOn,
)

__all__ = [
    "BUILT_IN_METRICS",
    "KIND",
    "Analysis",
    "AnalysisMetric",
    "Autoscaling",
    "Batching",
    "Canary",
    "CanaryStep",
    "Candidate",
    "Capture",
    "CaptureColumns",
    "Drift",
    "Gates",
    "GatewayReference",
    "LastRollout",
    "Measurement",
    "ModelDeployment",
    "ModelDeploymentSpec",
    "ModelDeploymentStatus",
    "ModelReference",
    "Preview",
    "RejectedVersion",
    "ReplayGate",
    "ReplayInput",
    "Resources",
    "Retrain",
    "Route",
    "ServedVersion",
    "Server",
    "ServingRecord",
    "Shadow",
    "ShadowModel",
    "SignatureGate",
    "Strategy",
    "TrackingAccess",
    "TrainedOn",
    "TrainingJobReference",
    "parse_model_deployment",
]

KIND = "ModelDeployment"


class ModelReference(ApiModel):
    """The model version to serve."""

    model_config = rules(
        rule(
            "has(self.alias) != has(self.version)",
            "write exactly one of alias, which is followed when it moves, and version",
        ),
    )

    name: ModelName = Field(description="Registered model.")
    alias: Alias | None = Field(default=None, description="Alias to follow.")
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="Registry version.")


class Autoscaling(ApiModel):
    """A HorizontalPodAutoscaler on the stable servers."""

    model_config = rules(
        rule(
            "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
            "minReplicas must not be above maxReplicas",
        ),
    )

    min_replicas: Annotated[int, Field(ge=1, le=1000)] | None = Field(default=None, description="Fewest servers.")
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(description="Most servers.")
    target_cpu_utilization: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        alias="targetCPUUtilization",
        description="CPU use to aim at, in percent of the request.",
        json_schema_extra=default_text("70 where targetInFlight is not written either"),
    )
    target_in_flight: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None,
        description="Requests in flight per server to aim at.",
        json_schema_extra=default_text("not looked at"),
    )


class Resources(ApiModel):
    """CPU and memory of a container."""

    requests: Annotated[Mapping[str, AnyQuantity], Field(max_length=16)] | None = Field(
        default=None, description="What is set aside.", json_schema_extra=default_text("the operator's")
    )
    limits: Annotated[Mapping[str, AnyQuantity], Field(max_length=16)] | None = Field(
        default=None, description="What is not exceeded.", json_schema_extra=default_text("the operator's")
    )


class Batching(ApiModel):
    """Requests answered together."""

    max_size: Annotated[int, Field(ge=1, le=100_000)] | None = Field(default=None, description="Most rows in a batch.")
    max_delay_milliseconds: Annotated[float, Field(ge=0, le=60_000)] | None = Field(
        default=None, description="Longest wait for a batch to fill, in milliseconds."
    )


class Server(ApiModel):
    """The server pods."""

    image: Image | None = Field(
        default=None, description="Image of the servers.", json_schema_extra=default_text("the operator's")
    )
    resources: Resources | None = Field(default=None, description="CPU and memory of a server.")
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None,
        description="Processes per server.",
        json_schema_extra=default_text("the CPU limit, rounded up; 1 without one"),
    )
    batching: Batching | None = Field(
        default=None, description="Requests answered together.", json_schema_extra=default_text("none")
    )
    env: EnvList | None = Field(default=None, description="Environment variables.")
    template: Overlay | None = Field(
        default=None,
        description="Partial PodTemplateSpec, merged onto what the operator renders. Its container is named `server`.",
    )


class TrackingAccess(ApiModel):
    """How MLflow is spoken to."""

    secret_ref: SecretReference | None = Field(
        default=None,
        description="Secret with `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, where MLflow wants them.",
        json_schema_extra=default_text("`{name: lakeloop-mlflow}`, which need not be there"),
    )


class ModelDeploymentSpec(ApiModel):
    """What is wanted, as the user wrote it. `defaults.effective_deployment_spec` fills in the rest."""

    model_config = rules(
        rule(
            "!(has(self.gates) && has(self.gates.replay) && has(self.gates.replay.source)"
            " && self.gates.replay.source == 'Captured') || has(self.capture)",
            "gates.replay.source Captured needs capture, which records the requests",
        ),
    )

    model: ModelReference = Field(description="The model version to serve.")
    replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Servers; the scale subresource. Not used under autoscaling."
    )
    autoscaling: Autoscaling | None = Field(
        default=None,
        description="An autoscaler on the stable servers.",
        json_schema_extra=default_text("none"),
    )
    server: Server | None = Field(default=None, description="The server pods.")
    gates: Gates | None = Field(default=None, description="What a candidate must pass before it gets traffic.")
    strategy: Strategy | None = Field(default=None, description="How the servers change over.")
    analysis: Analysis | None = Field(
        default=None,
        description="What is looked at while a candidate has traffic.",
        json_schema_extra=default_text("nothing"),
    )
    shadow: Shadow | None = Field(
        default=None, description="A version that answers for comparison only.", json_schema_extra=default_text("none")
    )
    route: Route | None = Field(default=None, description="How requests from outside the cluster get in.")
    capture: Capture | None = Field(
        default=None, description="Requests and answers, recorded.", json_schema_extra=default_text("nothing is")
    )
    drift: Drift | None = Field(
        default=None,
        description="A comparison of what is asked with what was learned from.",
        json_schema_extra=default_text("none is made"),
    )
    storage: Storage | None = Field(default=None, description="The object store.")
    tracking: TrackingAccess | None = Field(default=None, description="How MLflow is spoken to.")
    suspend: bool | None = Field(
        default=None, description="Whether the operator leaves the servers as they are, whatever changes."
    )


class ModelDeployment(ApiModel):
    """A registered model to serve."""

    api_version: Literal["lakeloop.io/v1alpha1"] = API_VERSION
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = Field(default_factory=ModelDeploymentStatus)


def parse_model_deployment(obj: Mapping[str, Any], *, strict: bool = False) -> ModelDeployment:
    """Reads a ModelDeployment as the API server returns it. Raises InvalidObject, which names the first wrong field.

    `strict` refuses unknown fields below `spec` and `status` too.
    """
    check_depth(obj)
    return ModelDeployment.parse(with_known_metadata(obj), strict=strict)
