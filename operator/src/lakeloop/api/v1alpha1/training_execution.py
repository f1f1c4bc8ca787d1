"""Where and when a TrainingJob runs: Spark, triggers and the run policy."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from pydantic.config import JsonDict

from lakeloop.api.v1alpha1.base import ApiModel, default_text, rule, rules
from lakeloop.api.v1alpha1.common import (
    CpuQuantity,
    Image,
    MemoryQuantity,
    Overlay,
    PositiveSeconds,
    Seconds,
    ViewName,
)

CREDENTIAL_CONF = r"(?i)(secret|passw(or)?d|(access|account)\.?key|token|credential)"
"""Spark settings that may hold a secret."""
OPERATOR_CONF = (
    r"^spark\.(master$|app\.|submit\.|remote|driver\.(host|port|bindAddress|cores|memory|blockManager|defaultJava)"
    r"|executor\.(instances|cores|memory$|memoryOverheadFactor|defaultJava)|dynamicAllocation\."
    r"|kubernetes\.(namespace|context|authenticate|driver|container\.|file\.upload|memoryOverheadFactor|node\.selector"
    r"|executor\.(podTemplate|podNamePrefix|volumes|secrets|secretKeyRef|request|limit|label|deleteOnTermination"
    r"|disableConfigMap|container|node\.selector))"
    r"|jars|files|pyFiles|archives|sql\.runSQLOnFiles|local\.dir"
    r"|hadoop\.fs\.s3a\.(endpoint|path\.style\.access|aws\.credentials|assumed\.role))"
)
"""Spark settings that the operator decides, or that it would have to act on itself, since it makes the driver's pod."""
LEAST_MEMORY = "480Mi"
"""Spark starts with no less than 450 MiB, 1.5 times what it keeps for itself, and a JVM counts a thirtieth of its heap
out (one of the two survivor spaces)."""


def _matches(key: str, pattern: str) -> str:
    """In CEL. A backslash begins an escape in its text literals too."""
    doubled = pattern.replace("\\", "\\\\")
    return f"{key}.matches('{doubled}')"


def _enough_memory(kind: str) -> JsonDict:
    return rule(
        # What is no quantity is refused by its pattern.
        "!has(self.memory) || !isQuantity(string(self.memory))"
        f" || quantity(string(self.memory)).compareTo(quantity('{LEAST_MEMORY}')) >= 0",
        f"{kind} needs a memory of at least {LEAST_MEMORY}: write 512Mi or more",
        field=".memory",
    )


_TEMPLATE = "Partial PodTemplateSpec, merged onto what the operator renders. Its container is named `{}`."


class Driver(ApiModel):
    """The driver pod."""

    model_config = rules(_enough_memory("a driver"))

    cores: Annotated[int, Field(ge=1, le=256)] | None = Field(default=None, description="Cores that Spark uses.")
    core_request: CpuQuantity | None = Field(default=None, description="CPU request of the pod.")
    memory: MemoryQuantity | None = Field(default=None, description="Heap of the JVM.")
    memory_overhead: MemoryQuantity | None = Field(
        default=None, description="Memory beside the heap: Python, off-heap buffers, the JVM itself."
    )
    template: Overlay | None = Field(default=None, description=_TEMPLATE.format("driver"))


class Executor(ApiModel):
    """The executor pods."""

    model_config = rules(_enough_memory("an executor"))

    instances: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="How many. 0: everything happens in the driver."
    )
    cores: Annotated[int, Field(ge=1, le=256)] | None = Field(default=None, description="Tasks at one time, in each.")
    core_request: CpuQuantity | None = Field(default=None, description="CPU request of each pod.")
    memory: MemoryQuantity | None = Field(default=None, description="Heap of each JVM.")
    template: Overlay | None = Field(default=None, description=_TEMPLATE.format("executor"))


class DynamicAllocation(ApiModel):
    """Executors that come and go with the work."""

    model_config = rules(
        rule(
            "!(has(self.minExecutors) && has(self.maxExecutors)) || self.minExecutors <= self.maxExecutors",
            "minExecutors must not be above maxExecutors",
        ),
    )

    enabled: bool | None = Field(default=None, description="Whether they do. `executor.instances` is then not used.")
    min_executors: Annotated[int, Field(ge=0, le=1000)] | None = Field(default=None, description="Fewest executors.")
    max_executors: Annotated[int, Field(ge=1, le=1000)] | None = Field(default=None, description="Most executors.")


class Spark(ApiModel):
    """The Spark application of a run."""

    model_config = rules(
        rule(
            f"!has(self.conf) || !self.conf.exists(key, {_matches('key', CREDENTIAL_CONF)})",
            "no credential in a Spark setting: put it into a Secret and name that in spec.storage.secretRef, or in the"
            " env of a template",
            field=".conf",
        ),
        rule(
            f"!has(self.conf) || !self.conf.exists(key, {_matches('key', OPERATOR_CONF)})",
            "the operator decides where the pods run, their names, images, sizes and store: write those in"
            " spec.storage, spec.spark.image, driver and executor (template too) and dynamicAllocation, not in conf",
            field=".conf",
        ),
    )

    image: Image | None = Field(
        default=None,
        description="Image of driver and executors.",
        json_schema_extra=default_text("the operator's"),
    )
    driver: Driver | None = Field(default=None, description="The driver pod.")
    executor: Executor | None = Field(default=None, description="The executor pods.")
    dynamic_allocation: DynamicAllocation | None = Field(
        default=None, description="Executors that come and go with the work."
    )
    conf: Annotated[Mapping[str, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=64)] | None = (
        Field(default=None, description="Spark settings. Values are text: quote numbers.")
    )


class Schedule(ApiModel):
    """A clock that starts runs."""

    cron: Annotated[
        str,
        StringConstraints(
            pattern=r"^(@(hourly|daily|weekly|monthly|yearly)|([0-9A-Za-z*/,?#-]+ +){4}[0-9A-Za-z*/,?#-]+)$",
            max_length=128,
        ),
    ] = Field(description="Minute, hour, day of month, month, day of week; or `@hourly`, `@daily` and so on.")
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+/-]+$", max_length=64)] | None = Field(
        default=None, description="IANA time zone."
    )


class DeltaTrigger(ApiModel):
    """Commits to an input that start runs. Maintenance and Lakeloop's own ingestion do not count."""

    input: ViewName = Field(description="Name of the input.")
    min_commits: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="Commits since the last run."
    )
    min_rows: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None, description="Rows added since the last run."
    )
    debounce_seconds: Seconds | None = Field(default=None, description="How long the table must be quiet, in seconds.")


class Triggers(ApiModel):
    """What starts a run beside a change of the training spec."""

    schedule: Schedule | None = Field(default=None, description="A clock.", json_schema_extra=default_text("none"))
    delta: DeltaTrigger | None = Field(
        default=None, description="Commits to an input.", json_schema_extra=default_text("none")
    )


class Retries(ApiModel):
    """How often a run is tried again, by class of failure. Failures of class Data and Gate are never retried."""

    infrastructure: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Evicted pods, lost nodes, an object store that does not answer."
    )
    submission: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="A driver that could not be started."
    )
    application: Annotated[int, Field(ge=0, le=100)] | None = Field(default=None, description="Code that raised.")


class Backoff(ApiModel):
    """The wait between attempts: initialSeconds, times factor after each, at most maxSeconds; a fifth more or less."""

    model_config = rules(
        rule(
            "!(has(self.initialSeconds) && has(self.maxSeconds)) || self.initialSeconds <= self.maxSeconds",
            "initialSeconds must not be above maxSeconds",
        ),
    )

    initial_seconds: Seconds | None = Field(default=None, description="First wait, in seconds.")
    factor: Annotated[float, Field(ge=1, le=100)] | None = Field(default=None, description="Growth per attempt.")
    max_seconds: Seconds | None = Field(default=None, description="Longest wait, in seconds.")


class Logs(ApiModel):
    """What is kept of the output of the driver and of each executor."""

    tail_bytes: Annotated[int, Field(ge=0, le=1_073_741_824)] | None = Field(
        default=None, description="Most bytes kept of each, the last ones. 0: no logs."
    )


class RunPolicy(ApiModel):
    """Limits on runs. A change here starts none."""

    concurrency: Literal["Forbid", "Replace"] | None = Field(
        default=None,
        description=(
            "`Forbid`: one run waits for the present one, coalesced to the newest input. `Replace`: the present one is"
            " stopped."
        ),
    )
    retries: Retries | None = Field(default=None, description="How often a run is tried again.")
    backoff: Backoff | None = Field(default=None, description="The wait between attempts.")
    active_deadline_seconds: PositiveSeconds | None = Field(
        default=None, description="Longest time from launch to the end, in seconds, over all attempts."
    )
    start_deadline_seconds: PositiveSeconds | None = Field(
        default=None, description="Longest wait for something that is not there (a Secret, a table), in seconds."
    )
    ttl_seconds_after_finished: Seconds | None = Field(
        default=None, description="When the run's pods are removed, in seconds. Logs and lineage outlive them."
    )
    history_limit: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Finished runs kept in `status.history`."
    )
    logs: Logs | None = Field(default=None, description="What is kept of the driver's output.")
