"""What surrounds a ModelDeployment's servers: shadow, route, capture and drift."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lakeloop.api.v1alpha1.base import ATOMIC, ApiModel, default_text, rule, rules
from lakeloop.api.v1alpha1.common import (
    Alias,
    ColumnName,
    DnsLabel,
    Fraction,
    ModelName,
    ObjectName,
    Percent,
    PositiveSeconds,
    S3Uri,
)


class ShadowModel(ApiModel):
    """The version that gets copies of the requests."""

    model_config = rules(rule("has(self.alias) != has(self.version)", "write exactly one of alias and version"))

    name: ModelName | None = Field(
        default=None, description="Registered model.", json_schema_extra=default_text("`spec.model.name`")
    )
    alias: Alias | None = Field(default=None, description="Alias to follow.")
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="Registry version.")


class Shadow(ApiModel):
    """A version that answers for comparison only."""

    model: ShadowModel = Field(description="The version.")
    percent: Percent | None = Field(default=None, description="Percent of the requests that are copied.")


class GatewayReference(ApiModel):
    """A Gateway of the Gateway API."""

    name: ObjectName = Field(description="Name of the Gateway.")
    namespace: DnsLabel | None = Field(
        default=None, description="Its namespace.", json_schema_extra=default_text("the object's own")
    )


class Route(ApiModel):
    """How requests from outside the cluster get in."""

    gateway_ref: GatewayReference | None = Field(
        default=None, description="The Gateway.", json_schema_extra=default_text("the operator's")
    )
    hostnames: (
        Annotated[
            tuple[
                Annotated[
                    str,
                    StringConstraints(
                        pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
                        max_length=253,
                    ),
                ],
                ...,
            ],
            Field(max_length=16, json_schema_extra=ATOMIC),
        ]
        | None
    ) = Field(default=None, description="Host names; none: every one.")
    path: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9/_.~-]*$", max_length=255)] | None = Field(
        default=None,
        description="Path below which the model answers.",
        json_schema_extra=default_text("`/models/<namespace>/<name>`"),
    )


class CaptureColumns(ApiModel):
    """What is not recorded as it came."""

    exclude: Annotated[tuple[ColumnName, ...], Field(max_length=256, json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="Columns that are left out."
    )
    hash: Annotated[tuple[ColumnName, ...], Field(max_length=256, json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="Columns of which only a hash is kept."
    )


class Capture(ApiModel):
    """Requests and answers, recorded in a Delta table."""

    uri: S3Uri = Field(description="Where the table lies.")
    sample_fraction: Fraction | None = Field(default=None, description="Share of the requests that is recorded.")
    columns: CaptureColumns | None = Field(default=None, description="What is not recorded as it came.")


class TrainingJobReference(ApiModel):
    """A TrainingJob in the object's own namespace."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)] = Field(
        description="Name of the TrainingJob."
    )


class Retrain(ApiModel):
    """What follows drift."""

    training_job_ref: TrainingJobReference = Field(description="The TrainingJob that gets a new run.")


class Drift(ApiModel):
    """A comparison of what is asked now with what the model learned from."""

    baseline: Literal["Training"] | None = Field(
        default=None,
        description="`Training`: the pinned table version that the served model learned from.",
    )
    statistic: Literal["PSI"] | None = Field(default=None, description="How the difference is measured.")
    threshold: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, description="Value above which it counts as drift."
    )
    interval_seconds: PositiveSeconds | None = Field(default=None, description="How often, in seconds.")
    retrain: Retrain | None = Field(
        default=None, description="What follows.", json_schema_extra=default_text("a condition, nothing more")
    )
