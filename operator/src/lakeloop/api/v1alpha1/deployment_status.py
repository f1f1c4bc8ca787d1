"""What the operator says of a ModelDeployment: `status`."""

from typing import Annotated

from pydantic import Field

from lakeloop.api.v1alpha1.base import ATOMIC, ApiModel
from lakeloop.api.v1alpha1.common import Conditions, LastHandled, Percent, Time


class TrainedOn(ApiModel):
    """A table version that a model learned from."""

    name: str = Field(description="Name of the input.")
    uri: str | None = Field(default=None, description="Where the table lies.")
    version: int | None = Field(default=None, ge=0, description="Its version.")


class ServedVersion(ApiModel):
    """A model version with its servers."""

    version: int = Field(ge=1, description="Registry version.")
    digest: str | None = Field(default=None, description="`sha256:…` over the model's files.")
    run_id: str | None = Field(default=None, description="MLflow run that made it.")
    inputs: Annotated[tuple[TrainedOn, ...], Field(json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="What it learned from."
    )
    training_job: str | None = Field(default=None, description="TrainingJob that made it.")
    revision: str | None = Field(default=None, description="Revision of its servers: 8 hex digits.")
    weight: Percent | None = Field(default=None, description="Percent of the requests that it should get.")
    ready_replicas: int | None = Field(default=None, ge=0, description="Servers that answer.")


class Measurement(ApiModel):
    """One figure of the analysis."""

    metric: str = Field(description="The metric.")
    value: float | None = Field(default=None, description="What was measured.")
    requests: int | None = Field(default=None, ge=0, description="Requests that it was measured on.")
    passed: bool | None = Field(default=None, description="Whether it is within bounds; absent where inconclusive.")


class Candidate(ServedVersion):
    """The version that is to become stable."""

    effective_weight: Percent | None = Field(default=None, description="Percent of the requests that it really gets.")
    step: int | None = Field(default=None, ge=0, description="Step of the canary, from 0.")
    step_time: Time | None = Field(default=None, description="When that step began.")
    start_time: Time | None = Field(default=None, description="When its roll-out began.")
    analysis: Annotated[tuple[Measurement, ...], Field(json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="The newest figures."
    )
    analysis_time: Time | None = Field(default=None, description="When they were measured.")
    analysis_failures: int | None = Field(default=None, ge=0, description="Measurements that have failed so far.")


class RejectedVersion(ApiModel):
    """A version that is not tried again until asked, or until the alias moves on."""

    version: int = Field(ge=1, description="Registry version.")
    reason: str = Field(description="CamelCase; part of the API.")
    message: str = Field(default="", description="For people.")
    revision: str | None = Field(default=None, description="Revision that was tried: 8 hex digits.")
    time: Time | None = Field(default=None, description="When.")


class ServingRecord(ApiModel):
    """What served, from when to when, and why that changed."""

    version: int = Field(ge=1, description="Registry version.")
    digest: str | None = Field(default=None, description="`sha256:…` over the model's files.")
    revision: str | None = Field(default=None, description="Revision of the servers.")
    reason: str = Field(description="Why it began to serve: `FirstRollout`, `AliasMoved`, `SpecChange`, `RolledBack` …")
    start_time: Time | None = Field(default=None, description="From when.")
    end_time: Time | None = Field(default=None, description="Until when; absent where it still serves.")


class LastRollout(ApiModel):
    """How long the newest roll-out took."""

    alias_moved_time: Time | None = Field(default=None, description="When the registry was changed.")
    observed_time: Time | None = Field(default=None, description="When the operator saw it.")
    serving_time: Time | None = Field(default=None, description="When every request was answered by the new version.")


class ModelDeploymentStatus(ApiModel):
    """What the operator saw and did."""

    observed_generation: int | None = Field(default=None, ge=0, description="The generation that this is about.")
    last_handled: LastHandled | None = Field(
        default=None, description="Id of the last action of each kind that was honoured, or answered."
    )
    conditions: Conditions | None = Field(
        default=None,
        description="`Ready`, `Reconciling`, `Stalled`, `RollingOut`, `GatesPassed`, `Drifted`, `Suspended`.",
    )
    url: str | None = Field(
        default=None, description="Answers, as written, from outside the cluster where there is a way in."
    )
    internal_url: str | None = Field(default=None, alias="internalURL", description="Answers inside the cluster.")
    replicas: int | None = Field(default=None, ge=0, description="Servers there are; for the scale subresource.")
    selector: str | None = Field(default=None, description="Labels of the servers; for the scale subresource.")
    stable: ServedVersion | None = Field(default=None, description="The version that serves.")
    candidate: Candidate | None = Field(default=None, description="The version that is to become stable.")
    rejected: Annotated[tuple[RejectedVersion, ...], Field(json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="Versions that are not tried again."
    )
    history: Annotated[tuple[ServingRecord, ...], Field(json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="What served when, newest first, and why it changed."
    )
    last_rollout: LastRollout | None = Field(default=None, description="How long the newest roll-out took.")
