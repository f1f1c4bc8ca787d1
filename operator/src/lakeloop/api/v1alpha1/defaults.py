"""The effective spec: what the user wrote, with the defaults filled in.

Each `Effective…` type is the written type with some fields that can no longer be None. Their defaults are stated here
and nowhere else; the reference is generated from them. What settings decide (images, endpoint) stays None.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from lakeloop.api.v1alpha1 import modeldeployment as md
from lakeloop.api.v1alpha1 import trainingjob as tj
from lakeloop.api.v1alpha1.base import ApiModel
from lakeloop.api.v1alpha1.common import EnvVar, SecretReference, Storage

STORAGE_SECRET = "lakeloop-storage"  # noqa: S105 (the name of a Secret)
TRACKING_SECRET = "lakeloop-mlflow"  # noqa: S105 (the name of a Secret)

_Model = TypeVar("_Model", bound=ApiModel)


class EffectiveIngest(tj.Ingest):
    """`files` depends on `mode`."""

    mode: Literal["Append", "Overwrite", "Merge"] = "Append"
    keys: tuple[str, ...] = ()
    files: Literal["New", "All"] = "New"
    options: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _files(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("mode") == "Overwrite":
            return {"files": "All"} | value
        return value


class EffectiveInput(tj.Input):
    ingest: EffectiveIngest | None = None


class EffectiveSplit(tj.Split):
    by: Literal["Random", "Time"] = "Random"
    test_fraction: float = 0.2
    seed: int = 0
    keys: tuple[str, ...] = ()


class EffectiveExpectation(tj.Expectation):
    on_violation: Literal["Fail", "Warn"] = "Fail"


class EffectiveDataset(tj.Dataset):
    split: EffectiveSplit = EffectiveSplit()
    expectations: tuple[EffectiveExpectation, ...] = ()


class EffectiveStep(tj.Step):
    params: dict[str, Any] = Field(default_factory=dict)


class EffectiveEstimator(tj.Estimator):
    library: Literal["sklearn", "spark"] = "sklearn"
    steps: tuple[EffectiveStep, ...]


class EffectiveScript(tj.Script):
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()


class EffectiveProject(tj.Project):
    entry_point: str = "main"
    parameters: dict[str, Any] = Field(default_factory=dict)


class EffectiveDependencies(tj.Dependencies):
    pip: tuple[str, ...] = ()


class EffectiveSearchParameter(tj.SearchParameter):
    scale: Literal["Linear", "Log"] = "Linear"
    type: Literal["Int", "Float"] = "Float"


class EffectiveValidation(tj.Validation):
    folds: int = 3


class EffectiveSearch(tj.Search):
    algorithm: Literal["Grid", "Random", "TPE"] = "TPE"
    parameters: tuple[EffectiveSearchParameter, ...]
    validation: EffectiveValidation = EffectiveValidation()
    max_trials: int = 20
    parallelism: int = 2
    pruning: bool = True
    timeout_seconds: int = 1800


class EffectiveChampion(tj.Champion):
    min_improvement: float = 0.0


class EffectiveEvaluation(tj.Evaluation):
    thresholds: tuple[tj.Threshold, ...] = ()
    champion: EffectiveChampion | None = None


class EffectiveExplanation(tj.Explanation):
    method: Literal["Permutation", "SHAP", "None"] = "Permutation"
    sample_rows: int = 1000


class EffectiveRegistration(tj.Registration):
    promote: Literal["OnPass", "Never"] = "OnPass"
    tags: dict[str, str] = Field(default_factory=dict)


class EffectiveTracking(tj.Tracking):
    tags: dict[str, str] = Field(default_factory=dict)


class EffectiveDriver(tj.Driver):
    cores: int = 1
    core_request: str = "250m"
    memory: str = "1Gi"
    memory_overhead: str = "400Mi"
    template: dict[str, Any] = Field(default_factory=dict)


class EffectiveExecutor(tj.Executor):
    instances: int = 1
    cores: int = 1
    core_request: str = "250m"
    memory: str = "1Gi"
    template: dict[str, Any] = Field(default_factory=dict)


class EffectiveDynamicAllocation(tj.DynamicAllocation):
    enabled: bool = False
    min_executors: int = 0
    max_executors: int = 4


class EffectiveSpark(tj.Spark):
    driver: EffectiveDriver = EffectiveDriver()
    executor: EffectiveExecutor = EffectiveExecutor()
    dynamic_allocation: EffectiveDynamicAllocation = EffectiveDynamicAllocation()
    conf: dict[str, str] = Field(default_factory=dict)


class EffectiveSchedule(tj.Schedule):
    time_zone: str = "UTC"


class EffectiveDeltaTrigger(tj.DeltaTrigger):
    min_commits: int = 1
    min_rows: int = 0
    debounce_seconds: int = 60


class EffectiveTriggers(tj.Triggers):
    schedule: EffectiveSchedule | None = None
    delta: EffectiveDeltaTrigger | None = None


class EffectiveRetries(tj.Retries):
    infrastructure: int = 5
    submission: int = 3
    application: int = 0


class EffectiveBackoff(tj.Backoff):
    initial_seconds: int = 10
    factor: float = 2.0
    max_seconds: int = 300


class EffectiveLogs(tj.Logs):
    tail_bytes: int = 10 * 1024 * 1024


class EffectiveRunPolicy(tj.RunPolicy):
    concurrency: Literal["Forbid", "Replace"] = "Forbid"
    retries: EffectiveRetries = EffectiveRetries()
    backoff: EffectiveBackoff = EffectiveBackoff()
    active_deadline_seconds: int = 3600
    start_deadline_seconds: int = 600
    ttl_seconds_after_finished: int = 86400
    history_limit: int = 10
    logs: EffectiveLogs = EffectiveLogs()


class EffectiveTrainingSpec(tj.TrainingJobSpec):
    suspend: bool = False
    inputs: tuple[EffectiveInput, ...]
    dataset: EffectiveDataset = EffectiveDataset()
    estimator: EffectiveEstimator | None = None
    script: EffectiveScript | None = None
    project: EffectiveProject | None = None
    dependencies: EffectiveDependencies = EffectiveDependencies()
    objective: tj.Objective = tj.Objective()
    search: EffectiveSearch | None = None
    evaluation: EffectiveEvaluation = EffectiveEvaluation()
    explanation: EffectiveExplanation = EffectiveExplanation()
    registration: Annotated[EffectiveRegistration | None, Field(alias="register")] = None
    tracking: EffectiveTracking = EffectiveTracking()
    spark: EffectiveSpark = EffectiveSpark()
    storage: Storage = Storage()
    triggers: EffectiveTriggers = EffectiveTriggers()
    run_policy: EffectiveRunPolicy = EffectiveRunPolicy()


class EffectiveAutoscaling(md.Autoscaling):
    min_replicas: int = 1


class EffectiveBatching(md.Batching):
    max_size: int = 64
    max_delay_milliseconds: float = 5.0


class EffectiveServer(md.Server):
    batching: EffectiveBatching | None = None
    env: tuple[EnvVar, ...] = ()
    template: dict[str, Any] = Field(default_factory=dict)


class EffectiveSignatureGate(md.SignatureGate):
    required: bool = True
    allow_breaking_change: bool = False


class EffectiveReplayGate(md.ReplayGate):
    source: Literal["Table", "Captured"] = "Table"
    max_rows: int = 10_000
    max_error_rate: float = 0.0


class EffectiveGates(md.Gates):
    signature: EffectiveSignatureGate = EffectiveSignatureGate()
    replay: EffectiveReplayGate | None = None
    approval: Literal["NotRequired", "Required"] = "NotRequired"


class EffectiveStrategy(md.Strategy):
    type: Literal["RollingUpdate", "BlueGreen", "Canary"] = "RollingUpdate"
    on_failure: Literal["Rollback", "Pause"] = "Rollback"
    progress_deadline_seconds: int = 600


class EffectiveAnalysis(md.Analysis):
    interval_seconds: int = 10
    failure_limit: int = 2
    min_requests: int = 20
    on_inconclusive: Literal["Pause", "Proceed"] = "Pause"
    metrics: tuple[md.AnalysisMetric, ...] = ()


class EffectiveShadow(md.Shadow):
    percent: int = 100


class EffectiveRoute(md.Route):
    hostnames: tuple[str, ...] = ()


class EffectiveCaptureColumns(md.CaptureColumns):
    exclude: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()


class EffectiveCapture(md.Capture):
    sample_fraction: float = 1.0
    columns: EffectiveCaptureColumns = EffectiveCaptureColumns()


class EffectiveDrift(md.Drift):
    baseline: Literal["Training"] = "Training"
    statistic: Literal["PSI"] = "PSI"
    threshold: float = 0.2
    interval_seconds: int = 3600


class EffectiveDeploymentSpec(md.ModelDeploymentSpec):
    replicas: int = 1
    autoscaling: EffectiveAutoscaling | None = None
    server: EffectiveServer = EffectiveServer()
    gates: EffectiveGates = EffectiveGates()
    strategy: EffectiveStrategy = EffectiveStrategy()
    analysis: EffectiveAnalysis | None = None
    shadow: EffectiveShadow | None = None
    route: EffectiveRoute = EffectiveRoute()
    capture: EffectiveCapture | None = None
    drift: EffectiveDrift | None = None
    storage: Storage = Storage()
    tracking: md.TrackingAccess = md.TrackingAccess()
    suspend: bool = False


def _effective(kind: type[_Model], written: ApiModel) -> _Model:
    return kind.model_validate(written.model_dump(by_alias=True, exclude_none=True), by_alias=True, by_name=False)


def effective_training_spec(spec: tj.TrainingJobSpec) -> EffectiveTrainingSpec:
    """The training spec with defaults.

    Still None: what the operator's settings or the object's name decide (spark.image, storage.*, tracking.experiment),
    and what only the data tells (objective, dataset.query, dataset.features).
    """
    return _effective(EffectiveTrainingSpec, spec)


def effective_deployment_spec(spec: md.ModelDeploymentSpec) -> EffectiveDeploymentSpec:
    """The deployment spec with defaults.

    Still None: what the operator's settings or the object's name decide (server.image, server.resources,
    server.workers, storage.*, route.path), and parts that are off unless written (autoscaling, drift and so on).
    """
    return _effective(EffectiveDeploymentSpec, spec)


def storage_secret_name(storage: Storage | None) -> str | None:
    """The Secret whose credentials are used; None where the user's service account has them (workload identity)."""
    if storage is not None and storage.secret_ref is not None and storage.secret_ref.name:
        return storage.secret_ref.name
    if storage is not None and storage.service_account_name and storage.secret_ref is None:
        return None
    return STORAGE_SECRET


def tracking_secret_name(secret_ref: SecretReference | None) -> str:
    """The Secret with MLflow's user name and password; it need not be there."""
    return secret_ref.name if secret_ref is not None and secret_ref.name else TRACKING_SECRET
