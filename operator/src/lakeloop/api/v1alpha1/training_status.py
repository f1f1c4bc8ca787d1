"""What the operator says of a TrainingJob: `status`."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from lakeloop.api.v1alpha1.base import ATOMIC, ApiModel
from lakeloop.api.v1alpha1.common import Conditions, LastHandled, Percent, Time

RunTrigger = Literal["SpecChange", "Schedule", "DeltaCommit", "Manual", "Drift"]
RunPhase = Literal["Pending", "Submitting", "Running", "Evaluating", "Succeeded", "Failed", "Stopped"]
TERMINAL_PHASES: frozenset[RunPhase] = frozenset({"Succeeded", "Failed", "Stopped"})
FailureClass = Literal["Infrastructure", "Submission", "Data", "Application", "Gate"]


class RunFailure(ApiModel):
    """Why a run, or its last attempt, failed."""

    class_: FailureClass = Field(alias="class", description="Whose fault it is; each class has its own retries.")
    reason: str = Field(description="CamelCase; part of the API.")
    message: str = Field(default="", description="For people; names the field to look at.")
    field: str | None = Field(default=None, description="The field of the spec that it is about.")


class RunInput(ApiModel):
    """An input as the run reads it; pinned before anything is launched."""

    name: str = Field(description="Name of the input.")
    uri: str = Field(description="Where the table lies.")
    version: int | None = Field(
        default=None,
        ge=0,
        description="Version that is read; with ingestion, the one that its commit made, once known.",
    )
    timestamp: Time | None = Field(default=None, description="When that version was committed.")
    base_version: int | None = Field(
        default=None, ge=0, description="With ingestion: the version before it; absent where there was no table."
    )
    manifest: str | None = Field(
        default=None, description="With ingestion: where the list of files with their etags lies."
    )
    files: int | None = Field(default=None, ge=0, description="With ingestion: how many files are loaded.")


class MlflowRun(ApiModel):
    """The MLflow run, made by the operator before launch."""

    run_id: str = Field(description="Its id.")
    url: str | None = Field(default=None, description="Its page.")
    experiment_id: str | None = Field(default=None, description="Its experiment's id.")


class Progress(ApiModel):
    """How far the driver is, in its own words."""

    stage: str | None = Field(
        default=None, description="`Starting`, `Ingesting`, `Reading`, `Training`, `Evaluating` or `Logging`."
    )
    percent: Percent | None = Field(default=None, description="Share of the work that is done.")
    remaining_seconds: float | None = Field(default=None, ge=0, description="Estimate of what is left, in seconds.")
    trials_finished: int | None = Field(default=None, ge=0, description="Trials of the search that are over.")
    trials_total: int | None = Field(default=None, ge=0, description="Trials of the search in all.")


class ChampionScore(ApiModel):
    """The version that the model was compared with."""

    version: int = Field(ge=1, description="Its registry version.")
    metric: float | None = Field(default=None, description="Its objective on this run's test rows.")
    schema_changes: Annotated[tuple[str, ...], Field(json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="How the model's signature differs from its, column by column."
    )


class ExpectationResult(ApiModel):
    """What became of one of `spec.dataset.expectations`."""

    name: str = Field(description="Name of the expectation.")
    violations: int = Field(ge=0, description="Rows that violate it; those for which it is NULL among them.")
    rows: int = Field(ge=0, description="Rows that were looked at.")


class RunModel(ApiModel):
    """The registered model version."""

    name: str = Field(description="Registered model.")
    version: int | None = Field(default=None, ge=1, description="Registry version.")
    uri: str | None = Field(default=None, description="`models:/<name>/<version>`.")
    digest: str | None = Field(default=None, description="`sha256:…` over the model's files.")


class RunSearch(ApiModel):
    """What the search came to; every trial is a run below the MLflow run."""

    best_value: float | None = Field(
        default=None, description="The objective of the best trial, mean of the folds of the training rows."
    )
    best_trial: int | None = Field(default=None, ge=1, description="Number of the best trial.")
    best_params: Mapping[str, str] | None = Field(default=None, description="Parameters of the best trial.")
    trials: int = Field(default=0, ge=0, description="Trials that were begun.")
    trials_finished: int = Field(default=0, ge=0, description="Trials with a score of every fold.")
    trials_pruned: int = Field(default=0, ge=0, description="Trials that were ended early, as hopeless.")
    trials_failed: int = Field(default=0, ge=0, description="Trials that failed.")


class RunLogs(ApiModel):
    """Where the run's logs are."""

    uri: str | None = Field(default=None, description="Folder in the object store.")
    complete: bool | None = Field(
        default=None, description="False where a tail was lost with its node. Known soon after the end."
    )


class AttemptCounts(ApiModel):
    """Retries made so far, by class of failure."""

    infrastructure: int = Field(default=0, ge=0, description="After infrastructure failures.")
    submission: int = Field(default=0, ge=0, description="After submission failures.")
    application: int = Field(default=0, ge=0, description="After application failures.")


class Run(ApiModel):
    """One run: a training with one set of inputs, over one or more attempts."""

    number: int = Field(ge=1, description="Counts up from 1.")
    uid: str = Field(description="Random; written before launch, and everything of the run carries it.")
    trigger: RunTrigger = Field(description="What started it.")
    trigger_key: str | None = Field(
        default=None,
        description="What makes the trigger unique: the spec hash, the tick, the version, the action's id.",
    )
    training_spec_hash: str | None = Field(default=None, description="Hash of the training spec that it runs.")
    phase: RunPhase = Field(description="Where it stands.")
    attempt: int | None = Field(default=None, ge=0, description="Number of the attempt, from 1.")
    retries: AttemptCounts | None = Field(default=None, description="Retries made so far.")
    next_attempt_time: Time | None = Field(default=None, description="When the next attempt starts.")
    failure: RunFailure | None = Field(default=None, description="Why it, or its last attempt, failed.")
    inputs: Annotated[tuple[RunInput, ...], Field(json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="What it reads."
    )
    code_digest: str | None = Field(
        default=None, description="With a script of a ConfigMap: `sha256:…` over its files, as every attempt runs them."
    )
    driver_pod: str | None = Field(default=None, description="Driver pod of the attempt.")
    mlflow: MlflowRun | None = Field(default=None, description="Its MLflow run.")
    progress: Progress | None = Field(default=None, description="How far it is.")
    metrics: Mapping[str, float] | None = Field(default=None, description="What the driver measured.")
    expectations: Annotated[tuple[ExpectationResult, ...], Field(json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="What became of the expectations."
    )
    search: RunSearch | None = Field(default=None, description="What the search came to.")
    champion: ChampionScore | None = Field(default=None, description="What the model was compared with.")
    model: RunModel | None = Field(default=None, description="What was registered.")
    logs: RunLogs | None = Field(default=None, description="Where its logs are.")
    start_time: Time | None = Field(default=None, description="When it was numbered.")
    launch_time: Time | None = Field(default=None, description="When its first driver was created.")
    completion_time: Time | None = Field(default=None, description="When it was over.")


class Summary(ApiModel):
    """What `kubectl get` prints of the newest run; made from `run`."""

    table: str | None = Field(default=None, description="First input: `name@version`.")
    metric: str | None = Field(default=None, description="Objective and its value, such as `roc_auc 0.91`.")
    model: str | None = Field(default=None, description="`name/version`.")


class ScheduleState(ApiModel):
    """Which schedule is followed, and how far."""

    cron: str = Field(description="The schedule; another one counts from when it is first seen.")
    time_zone: str = Field(description="Its time zone.")
    last_time: Time = Field(
        description="Newest tick that was acted on: it started a run or was skipped. Before any: since when it counts."
    )


class DeltaState(ApiModel):
    """Up to where the commits to the trigger's input are in a run."""

    uri: str = Field(description="Where the table lies.")
    version: int | None = Field(
        default=None, ge=0, description="Commits up to this one count no more; absent: all of them count."
    )


class TriggerState(ApiModel):
    """What triggers remember, so that each start is made once."""

    schedule: ScheduleState | None = Field(default=None, description="The clock.")
    delta: DeltaState | None = Field(default=None, description="Commits to an input.")


class TrainingJobStatus(ApiModel):
    """What the operator saw and did."""

    observed_generation: int | None = Field(default=None, ge=0, description="The generation that this is about.")
    training_spec_hash: str | None = Field(default=None, description="Hash of the training spec last acted on.")
    last_handled: LastHandled | None = Field(
        default=None, description="Id of the last action of each kind that was honoured, or answered."
    )
    conditions: Conditions | None = Field(
        default=None,
        description=(
            "`Ready`, `Reconciling`, `Stalled`, `Running`, `RunSucceeded`, `Suspended`, `DataValid`, `ModelAccepted`."
        ),
    )
    run: Run | None = Field(default=None, description="The newest run.")
    history: Annotated[tuple[Run, ...], Field(json_schema_extra=ATOMIC)] | None = Field(
        default=None, description="Finished runs, newest first."
    )
    next_schedule_time: Time | None = Field(default=None, description="When the schedule starts the next run.")
    triggers: TriggerState | None = Field(
        default=None, description="What triggers remember, so that each start is made once."
    )
    summary: Summary | None = Field(default=None, description="What `kubectl get` prints.")
