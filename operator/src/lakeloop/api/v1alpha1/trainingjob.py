"""TrainingJob: which Delta tables to learn from, how, and under what name to register the model."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.api.v1alpha1.base import (
    ApiModel,
    ObjectMeta,
    check_depth,
    default_text,
    list_map,
    rule,
    rules,
    with_known_metadata,
)
from lakeloop.api.v1alpha1.common import Storage
from lakeloop.api.v1alpha1.training_data import Dataset, Expectation, Ingest, Input, Split
from lakeloop.api.v1alpha1.training_execution import (
    Backoff,
    DeltaTrigger,
    Driver,
    DynamicAllocation,
    Executor,
    Logs,
    Retries,
    RunPolicy,
    Schedule,
    Spark,
    Triggers,
)
from lakeloop.api.v1alpha1.training_method import (
    Champion,
    Dependencies,
    Estimator,
    Evaluation,
    Explanation,
    Objective,
    Project,
    Registration,
    Script,
    Search,
    SearchParameter,
    Step,
    Threshold,
    Tracking,
    Validation,
)
from lakeloop.api.v1alpha1.training_status import (
    TERMINAL_PHASES,
    AttemptCounts,
    ChampionScore,
    DeltaState,
    ExpectationResult,
    FailureClass,
    MlflowRun,
    Progress,
    Run,
    RunFailure,
    RunInput,
    RunLogs,
    RunModel,
    RunPhase,
    RunSearch,
    RunTrigger,
    ScheduleState,
    Summary,
    TrainingJobStatus,
    TriggerState,
)

__all__ = [
    "KIND",
    "TERMINAL_PHASES",
    "AttemptCounts",
    "Backoff",
    "Champion",
    "ChampionScore",
    "Dataset",
    "DeltaState",
    "DeltaTrigger",
    "Dependencies",
    "Driver",
    "DynamicAllocation",
    "Estimator",
    "Evaluation",
    "Executor",
    "Expectation",
    "ExpectationResult",
    "Explanation",
    "FailureClass",
    "Ingest",
    "Input",
    "Logs",
    "MlflowRun",
    "Objective",
    "Progress",
    "Project",
    "Registration",
    "Retries",
    "Run",
    "RunFailure",
    "RunInput",
    "RunLogs",
    "RunModel",
    "RunPhase",
    "RunPolicy",
    "RunSearch",
    "RunTrigger",
    "Schedule",
    "ScheduleState",
    "Script",
    "Search",
    "SearchParameter",
    "Spark",
    "Split",
    "Step",
    "Summary",
    "Threshold",
    "Tracking",
    "TrainingJob",
    "TrainingJobSpec",
    "TrainingJobStatus",
    "TriggerState",
    "Triggers",
    "Validation",
    "parse_training_job",
]

KIND = "TrainingJob"


class TrainingJobSpec(ApiModel):
    """What is wanted, as the user wrote it. `defaults.effective_training_spec` fills in the rest."""

    model_config = rules(
        rule(
            "[has(self.estimator), has(self.script), has(self.project)].filter(it, it).size() == 1",
            "write exactly one of estimator, script and project",
        ),
        rule(
            "!has(self.estimator) || (has(self.dataset) && has(self.dataset.target))",
            "an estimator needs dataset.target, the column to predict",
        ),
        rule(
            "!has(self.estimator) || size(self.inputs) == 1 || (has(self.dataset) && has(self.dataset.query))",
            "with more than one input an estimator needs dataset.query, the SQL that joins them",
        ),
        rule(
            "!(has(self.dataset) && has(self.dataset.expectations)) || size(self.inputs) == 1"
            " || has(self.dataset.query)",
            "with more than one input dataset.expectations need dataset.query, whose rows they are about",
        ),
        rule(
            "!(has(self.evaluation) && has(self.evaluation.champion)) || has(self.register)",
            "evaluation.champion is a version of register.model: write register too, or take champion away",
        ),
        rule(
            "!(has(self.evaluation) && has(self.evaluation.champion)) || has(self.estimator)"
            " || (has(self.dataset) && has(self.dataset.target))",
            "evaluation.champion needs dataset.target, the column that both models are scored on",
        ),
        rule(
            "!(has(self.evaluation) && has(self.estimator) && has(self.dataset) && has(self.dataset.split)"
            " && has(self.dataset.split.testFraction) && self.dataset.split.testFraction == 0.0)",
            "evaluation needs test rows: write dataset.split.testFraction above 0, or take evaluation away",
        ),
        rule(
            "self.inputs.all(one, self.inputs.exists_one(other, other.name.lowerAscii() == one.name.lowerAscii()))",
            "inputs are SQL views, to which upper and lower case are the same: write names that differ otherwise",
            field=".inputs",
        ),
        rule(
            "!has(self.search) || has(self.estimator)",
            "a search sets parameters of an estimator's steps: write one, or search in your own code",
            field=".search",
        ),
        rule(
            "!(has(self.triggers) && has(self.triggers.delta))"
            " || self.inputs.exists(input, input.name == self.triggers.delta.input)",
            "triggers.delta.input must be the name of one of spec.inputs",
        ),
        rule(
            "!(has(self.triggers) && has(self.triggers.delta)) || self.inputs.all(input, input.name !="
            " self.triggers.delta.input || !(has(input.version) || has(input.timestamp)))",
            "triggers.delta follows the newest version: take version and timestamp off that input",
        ),
    )

    suspend: bool | None = Field(
        default=None,
        description="Whether runs are held back; a running one is stopped. Also the action `lakeloop.io/suspend`.",
    )
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=16, json_schema_extra=list_map("name"))] = (
        Field(description="Delta tables; the run may read nothing else.")
    )
    dataset: Dataset | None = Field(default=None, description="The rows and columns to learn from.")
    estimator: Estimator | None = Field(default=None, description="A pipeline given by its classes.")
    script: Script | None = Field(default=None, description="A Python program of yours.")
    project: Project | None = Field(default=None, description="An MLflow project.")
    dependencies: Dependencies | None = Field(default=None, description="Packages that the image lacks.")
    objective: Objective | None = Field(default=None, description="What a good model is.")
    search: Search | None = Field(
        default=None, description="A search for better parameters.", json_schema_extra=default_text("none is made")
    )
    evaluation: Evaluation | None = Field(
        default=None,
        description="What a model must show before its version gets the alias.",
        json_schema_extra=default_text("nothing"),
    )
    explanation: Explanation | None = Field(default=None, description="What the model pays attention to.")
    # `register` is a method of every pydantic model's metaclass, so the attribute has another name.
    registration: Registration | None = Field(
        default=None,
        alias="register",
        description="Where the model goes in the MLflow registry.",
        json_schema_extra=default_text("it is logged and not registered"),
    )
    tracking: Tracking | None = Field(default=None, description="Where the run goes in MLflow.")
    spark: Spark | None = Field(default=None, description="The Spark application.")
    storage: Storage | None = Field(default=None, description="The object store.")
    triggers: Triggers | None = Field(
        default=None,
        description="What starts a run beside a change of the training spec.",
        json_schema_extra=default_text("one run per training spec"),
    )
    run_policy: RunPolicy | None = Field(default=None, description="Limits on runs.")


class TrainingJob(ApiModel):
    """A declared training with numbered runs."""

    api_version: Literal["lakeloop.io/v1alpha1"] = API_VERSION
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: ObjectMeta
    spec: TrainingJobSpec
    status: TrainingJobStatus = Field(default_factory=TrainingJobStatus)


def parse_training_job(obj: Mapping[str, Any], *, strict: bool = False) -> TrainingJob:
    """Reads a TrainingJob as the API server returns it. Raises InvalidObject, which names the first wrong field.

    `strict` refuses unknown fields below `spec` and `status` too.
    """
    check_depth(obj)
    return TrainingJob.parse(with_known_metadata(obj), strict=strict)
