"""How a ModelDeployment changes over: gates, strategy and analysis."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lakeloop.api.v1alpha1.base import ATOMIC, ApiModel, default_text, list_map, rule, rules
from lakeloop.api.v1alpha1.common import DnsLabel, Fraction, Percent, PositiveSeconds, S3Uri, TableName, Text

BUILT_IN_METRICS = ("error-rate", "latency-p50", "latency-p99")


class SignatureGate(ApiModel):
    """What is asked of the model's signature."""

    required: bool | None = Field(default=None, description="Whether a model without a signature is rejected.")
    allow_breaking_change: bool | None = Field(
        default=None, description="Whether a model may replace one whose callers it would break."
    )


class ReplayInput(ApiModel):
    """The Delta table whose rows are replayed."""

    model_config = rules(
        rule(
            "has(self.uri) != has(self.table)",
            "write exactly one of uri (s3a://bucket/path) and table (db.name, below the warehouse)",
        ),
    )

    uri: S3Uri | None = Field(default=None, description="Where the table lies.")
    table: TableName | None = Field(default=None, description="`db.name`, below the warehouse.")
    version: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None, description="Version of the table.", json_schema_extra=default_text("the latest")
    )


class ReplayGate(ApiModel):
    """Requests that a candidate must answer well before it gets any traffic."""

    model_config = rules(
        rule(
            "has(self.source) && self.source == 'Captured' ? !has(self.input) : has(self.input)",
            "source Table (the default) needs input, the table to replay; source Captured takes none",
            field=".input",
        ),
    )

    source: Literal["Table", "Captured"] | None = Field(
        default=None, description="`Table`: rows of a Delta table. `Captured`: what `capture` has recorded."
    )
    input: ReplayInput | None = Field(default=None, description="The table.")
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(default=None, description="Most rows replayed.")
    max_error_rate: Fraction | None = Field(default=None, description="Highest share of failed requests.")
    max_p99_milliseconds: Annotated[float, Field(gt=0, le=600_000)] | None = Field(
        default=None,
        alias="maxP99Milliseconds",
        description="Highest 99th percentile of the latency, in milliseconds.",
        json_schema_extra=default_text("not looked at"),
    )
    max_disagreement: Fraction | None = Field(
        default=None,
        description="Highest share of answers that differ from the stable version's.",
        json_schema_extra=default_text("not looked at"),
    )


class Gates(ApiModel):
    """What a candidate must pass before it gets traffic."""

    signature: SignatureGate | None = Field(default=None, description="What is asked of the model's signature.")
    replay: ReplayGate | None = Field(
        default=None, description="Requests that it must answer well.", json_schema_extra=default_text("none")
    )
    approval: Literal["NotRequired", "Required"] | None = Field(
        default=None,
        description="Whether it waits for the action `lakeloop.io/approve` with its version.",
    )


class CanaryStep(ApiModel):
    """One step: a weight, or a wait."""

    model_config = rules(
        rule(
            "[has(self.setWeight), has(self.pauseSeconds), has(self.pause)].filter(it, it).size() == 1",
            "write exactly one of setWeight, pauseSeconds and pause in a step",
        ),
    )

    set_weight: Percent | None = Field(default=None, description="Percent of the requests that the candidate gets.")
    pause_seconds: PositiveSeconds | None = Field(default=None, description="Wait, in seconds.")
    pause: Literal["UntilPromoted"] | None = Field(
        default=None, description="Wait for the action `lakeloop.io/promote`."
    )


class Canary(ApiModel):
    """A change-over in steps."""

    steps: Annotated[tuple[CanaryStep, ...], Field(min_length=1, max_length=32, json_schema_extra=ATOMIC)] = Field(
        description="The steps. After the last one the candidate gets everything."
    )


class Preview(ApiModel):
    """A way to the candidate for those who ask for it."""

    header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", min_length=1, max_length=128)] = Field(
        description="Requests with this header go to the candidate."
    )


class Strategy(ApiModel):
    """How the servers change over to another version."""

    model_config = rules(
        rule(
            "has(self.type) && self.type == 'Canary' ? has(self.canary) : !has(self.canary)",
            "type Canary needs canary.steps; canary belongs to type: Canary alone",
            field=".canary",
        ),
        rule(
            "!has(self.preview) || (has(self.type) && self.type != 'RollingUpdate')",
            "preview needs type: BlueGreen or Canary, where stable and candidate stand side by side",
            field=".preview",
        ),
    )

    type: Literal["RollingUpdate", "BlueGreen", "Canary"] | None = Field(default=None, description="The way.")
    canary: Canary | None = Field(default=None, description="The steps.")
    preview: Preview | None = Field(
        default=None, description="A way to the candidate.", json_schema_extra=default_text("none")
    )
    on_failure: Literal["Rollback", "Pause"] | None = Field(
        default=None, description="What becomes of a candidate that fails."
    )
    progress_deadline_seconds: PositiveSeconds | None = Field(
        default=None, description="Longest time without progress, in seconds. Pauses do not count."
    )


class AnalysisMetric(ApiModel):
    """A figure that must stay within bounds while a candidate has traffic."""

    model_config = rules(
        rule("has(self.min) || has(self.max)", "write min, max or both"),
        rule("!(has(self.min) && has(self.max)) || self.min <= self.max", "min must not be above max"),
        rule(
            "has(self.query) != (self.name in ['error-rate', 'latency-p50', 'latency-p99'])",
            "error-rate, latency-p50 and latency-p99 are built in and take no query; every other metric needs one",
        ),
    )

    name: DnsLabel = Field(description="`error-rate`, `latency-p50`, `latency-p99`, or a name for the query.")
    query: Text | None = Field(default=None, description="PromQL; `$(version)` is the candidate's.")
    min: float | None = Field(default=None, description="Lowest good value: a share, seconds, or as the query gives.")
    max: float | None = Field(default=None, description="Highest good value.")


class Analysis(ApiModel):
    """What is looked at while a candidate has traffic."""

    interval_seconds: PositiveSeconds | None = Field(default=None, description="How often, in seconds.")
    failure_limit: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Failed measurements that are borne."
    )
    min_requests: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="Requests below which a measurement says nothing."
    )
    on_inconclusive: Literal["Pause", "Proceed"] | None = Field(
        default=None, description="What follows a measurement that says nothing."
    )
    metrics: Annotated[tuple[AnalysisMetric, ...], Field(max_length=16, json_schema_extra=list_map("name"))] | None = (
        Field(default=None, description="The figures.")
    )
