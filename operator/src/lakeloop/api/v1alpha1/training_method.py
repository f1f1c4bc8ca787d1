"""How a TrainingJob learns, and what becomes of the model: from `estimator` to `register` and `tracking`."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from lakeloop.api.v1alpha1.base import ATOMIC, CEL_RULES, ApiModel, default_text, list_map, rule, rules
from lakeloop.api.v1alpha1.common import (
    Alias,
    EnvList,
    FreeForm,
    FreeValue,
    MetricName,
    ModelName,
    ObjectName,
    OwnTags,
    PositiveSeconds,
    S3Uri,
    SecretReference,
    StringList,
)


class Step(ApiModel):
    """One step of the pipeline: a class and its parameters."""

    class_: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$", max_length=255)
    ] = Field(alias="class", description="Importable class, such as `sklearn.linear_model.LogisticRegression`.")
    params: FreeForm | None = Field(
        default=None,
        description=(
            "Keyword arguments. The API server stores `1.0` as `1`: where an integer and a float mean different things,"
            ' write the float as `{float: "1.0"}`.'
        ),
    )


class Estimator(ApiModel):
    """A pipeline given by its classes: no code to write. The last step is the estimator."""

    library: Literal["sklearn", "spark"] | None = Field(default=None, description="Whose classes the steps are.")
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=16, json_schema_extra=ATOMIC)] = Field(
        description="Transformers and, last, the estimator; numbered from 0."
    )


class ConfigMapReference(ApiModel):
    """A ConfigMap in the object's own namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")


class Script(ApiModel):
    """A Python program of yours, run in the driver."""

    model_config = rules(
        rule("has(self.configMapRef) != has(self.uri)", "write exactly one of configMapRef and uri (a .zip or .py)"),
        rule(
            "!self.path.startsWith('/') && !self.path.split('/').exists(part, part == '..')",
            "write a path inside the script's folder, such as train.py",
            field=".path",
        ),
    )

    config_map_ref: ConfigMapReference | None = Field(default=None, description="ConfigMap whose keys are the files.")
    uri: S3Uri | None = Field(default=None, description="Archive with the files.")
    path: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(description="The file to run.")
    args: StringList | None = Field(default=None, description="Arguments.")
    env: EnvList | None = Field(default=None, description="Environment variables.")


class Project(ApiModel):
    """An MLflow project, run in the driver."""

    uri: Annotated[
        str, StringConstraints(pattern=r"^(s3a|https|git|ssh|git\+https|git\+ssh)://[^\s]+$", max_length=1024)
    ] = Field(description="Folder or archive in the object store, or a git URL.")
    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./-]+$", max_length=255)] | None = Field(
        default=None, description="Branch, tag or commit of a git URL.", json_schema_extra=default_text("its head")
    )
    entry_point: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        default=None, description="Entry point of the MLproject file."
    )
    parameters: FreeForm | None = Field(default=None, description="Parameters of the entry point.")


class Dependencies(ApiModel):
    """Packages that the training image lacks."""

    pip: (
        Annotated[
            tuple[Annotated[str, StringConstraints(min_length=1, max_length=512)], ...],
            Field(max_length=64, json_schema_extra=ATOMIC),
        ]
        | None
    ) = Field(default=None, description="Requirements in pip's syntax, each pinned.")


class Objective(ApiModel):
    """What a good model is."""

    metric: MetricName | None = Field(
        default=None,
        description=(
            "`accuracy`, `f1` (weighted), `precision`, `recall`, `roc_auc` (one-vs-rest, weighted), `log_loss`, `r2`,"
            " `rmse`, `mae`, or one that the script logs."
        ),
        json_schema_extra=default_text("`roc_auc` for two classes, `f1` for more, `r2` for numbers"),
    )
    goal: Literal["Maximize", "Minimize"] | None = Field(
        default=None,
        description="Which way is better.",
        json_schema_extra=default_text("`Minimize` for `log_loss`, `rmse` and `mae`, else `Maximize`"),
    )


class SearchParameter(ApiModel):
    """One dimension of the search: a range or a list."""

    # The API server's CEL cannot see a list of values of any type, so that "one or the other" is said in the schema.
    model_config = ConfigDict(
        json_schema_extra={
            CEL_RULES: [
                rule("has(self.min) == has(self.max)", "write both min and max, or values"),
                rule("!(has(self.min) && has(self.max)) || self.min <= self.max", "min must not be above max"),
                rule(
                    "!(has(self.scale) && self.scale == 'Log') || (has(self.min) && self.min > 0.0)",
                    "scale Log needs a min above 0",
                ),
                rule(
                    "!(has(self.scale) || has(self.type)) || has(self.min)",
                    "scale and type belong to a range: write min and max, or take them away",
                ),
            ],
            "oneOf": [{"required": ["values"]}, {"required": ["min", "max"]}],
        }
    )

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=128)] = Field(
        description="`<step index>.<parameter>` of the estimator: `1.C`."
    )
    min: float | None = Field(default=None, description="Low end of a range.")
    max: float | None = Field(default=None, description="High end of a range.")
    scale: Literal["Linear", "Log"] | None = Field(default=None, description="How the range is sampled.")
    type: Literal["Int", "Float"] | None = Field(default=None, description="What a range's values are.")
    values: Annotated[tuple[FreeValue, ...], Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)] | None = (
        Field(default=None, description="Values to try, in place of a range.")
    )


class Validation(ApiModel):
    """How a trial is scored: on the training rows alone."""

    folds: Annotated[int, Field(ge=2, le=20)] | None = Field(default=None, description="Folds of cross-validation.")


class Search(ApiModel):
    """A search for better parameters of an estimator's steps."""

    model_config = rules(
        rule(
            "!(has(self.algorithm) && self.algorithm == 'Grid')"
            " || self.parameters.all(each, !has(each.min) || (has(each.type) && each.type == 'Int'))",
            "a Grid has an end: write values, or a range of type Int",
            field=".parameters",
        ),
    )

    algorithm: Literal["Grid", "Random", "TPE"] | None = Field(default=None, description="How trials are chosen.")
    parameters: Annotated[
        tuple[SearchParameter, ...], Field(min_length=1, max_length=16, json_schema_extra=list_map("name"))
    ] = Field(description="The dimensions.")
    validation: Validation | None = Field(default=None, description="How a trial is scored.")
    max_trials: Annotated[int, Field(ge=1, le=10_000)] | None = Field(default=None, description="Most trials to run.")
    parallelism: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None, description="Trials at one time; with executors, at most as many as they have cores."
    )
    pruning: bool | None = Field(default=None, description="Whether hopeless trials are ended early.")
    timeout_seconds: PositiveSeconds | None = Field(
        default=None,
        description=(
            "When to stop starting trials, in seconds, over all attempts of a run; what still runs a quarter of that"
            " (10 seconds at least) later is ended."
        ),
    )


class Threshold(ApiModel):
    """Bounds on a metric of the test rows."""

    model_config = rules(
        rule("has(self.min) || has(self.max)", "write min, max or both"),
        rule("!(has(self.min) && has(self.max)) || self.min <= self.max", "min must not be above max"),
    )

    metric: MetricName = Field(description="The metric.")
    min: float | None = Field(default=None, description="Lowest good value.")
    max: float | None = Field(default=None, description="Highest good value.")


class Champion(ApiModel):
    """The version to beat; both are scored on the same pinned test rows."""

    alias: Alias | None = Field(
        default=None,
        description="Alias of the version to beat.",
        json_schema_extra=default_text("`register.alias`, else `champion`"),
    )
    min_improvement: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="How much better the objective must be."
    )


class Evaluation(ApiModel):
    """What a model must show before its version gets the alias."""

    thresholds: Annotated[tuple[Threshold, ...], Field(max_length=16, json_schema_extra=list_map("metric"))] | None = (
        Field(default=None, description="Bounds on metrics.")
    )
    champion: Champion | None = Field(
        default=None, description="Comparison with the present best.", json_schema_extra=default_text("none is made")
    )


class Explanation(ApiModel):
    """What the model pays attention to, logged with it."""

    method: Literal["Permutation", "SHAP", "None"] | None = Field(default=None, description="How it is found out.")
    sample_rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Most test rows to find it out on."
    )


class Registration(ApiModel):
    """Where the model goes in the MLflow registry."""

    model: ModelName = Field(description="Registered model; made where it is not there.")
    alias: Alias | None = Field(
        default=None,
        description="Alias that the new version gets when it passes.",
        json_schema_extra=default_text("none is moved"),
    )
    promote: Literal["OnPass", "Never"] | None = Field(default=None, description="Whether the alias is moved.")
    tags: OwnTags | None = Field(default=None, description="Tags of the version, beside Lakeloop's own.")


class Tracking(ApiModel):
    """Where the run goes in MLflow."""

    experiment: Annotated[str, StringConstraints(min_length=1, max_length=250)] | None = Field(
        default=None,
        description="Experiment; made where it is not there.",
        json_schema_extra=default_text("`<namespace>/<name>`"),
    )
    tags: OwnTags | None = Field(default=None, description="Tags of the MLflow run, beside Lakeloop's own.")
    secret_ref: SecretReference | None = Field(
        default=None,
        description="Secret with `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, where MLflow wants them.",
        json_schema_extra=default_text("`{name: lakeloop-mlflow}`, which need not be there"),
    )
