"""The ConfigMap of a run: run spec, Spark settings, executors' template, and the spec as the user wrote it."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lakeloop.api.v1alpha1.defaults import EffectiveIngest, EffectiveTrainingSpec
from lakeloop.api.v1alpha1.trainingjob import RunInput
from lakeloop.render.certificates import CA_KEY, TRUST_STORE_KEY, certificates, trust_store
from lakeloop.render.errors import InvalidParameter, Unrenderable
from lakeloop.render.training.executor import executor_template
from lakeloop.render.training.names import Platform, RunIdentity, metadata, run_labels
from lakeloop.render.training.spark_conf import properties, spark_conf
from lakeloop.render.training.storage import StorageTarget

RUN_API_VERSION: Final = "lakeloop.io/run/v1"
SPEC_KEY: Final = "spec.json"
"""The spec that the run was launched with: later attempts and the registration go by it, whatever the user edits."""
_SMALLER_IS_BETTER = frozenset({"log_loss", "rmse", "mae"})


def run_config(
    run: RunIdentity,
    trigger: str,
    written: Mapping[str, Any],
    spec: EffectiveTrainingSpec,
    inputs: Sequence[RunInput],
    target: StorageTarget,
    platform: Platform,
    mlflow_run: str,
) -> dict[str, Any]:
    """The ConfigMap. `written` is the raw spec, `inputs` are pinned. Raises Unrenderable."""
    document = run_document(run, trigger, spec, inputs, target, platform, mlflow_run)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run.config_map, run, run_labels(run, "run-config")),
        "data": {
            "run.json": _json(document),
            "spark.properties": properties(spark_conf(run, spec.spark, target, platform)),
            # JSON is YAML, and needs no writer of its own.
            "executor.yaml": _json(executor_template(run, spec.spark, target)),
            SPEC_KEY: _json(written),
            **({CA_KEY: target.ca} if target.ca else {}),
        },
        **({"binaryData": {TRUST_STORE_KEY: _trust_store(target.ca)}} if target.ca else {}),
    }


def _trust_store(pem: str) -> str:
    return base64.b64encode(trust_store(certificates(pem))).decode()


def run_document(
    run: RunIdentity,
    trigger: str,
    spec: EffectiveTrainingSpec,
    inputs: Sequence[RunInput],
    target: StorageTarget,
    platform: Platform,
    mlflow_run: str,
) -> dict[str, Any]:
    """`run.json`, as the page on contracts has it. Raises Unrenderable."""
    dataset, estimator = spec.dataset, spec.estimator
    split = dataset.split
    for i, name in enumerate(features := dataset.features or ()):
        if name in features[:i]:
            raise Unrenderable(f"spec.dataset.features[{i}]", f"{name} is there already: take it away here")
    return {
        "apiVersion": RUN_API_VERSION,
        "job": {"namespace": run.namespace, "name": run.job, "uid": run.job_uid},
        "run": {"number": run.number, "uid": run.uid, "attempt": run.attempt, "trigger": trigger},
        "tracking": {
            "uri": platform.tracking_uri,
            "experiment": experiment(run.namespace, run.job, spec),
            "runId": mlflow_run,
        },
        "inputs": [_input(pinned, item.ingest) for pinned, item in zip(inputs, spec.inputs, strict=True)],
        "dataset": {
            "query": dataset.query,
            "features": list(dataset.features) if dataset.features is not None else None,
            "target": dataset.target,
            "split": {
                "by": split.by,
                "testFraction": split.test_fraction,
                "seed": split.seed,
                "keys": list(split.keys),
            },
            "expectations": [each.wire() for each in dataset.expectations],
        },
        "estimator": None
        if estimator is None
        else {
            "library": estimator.library,
            "steps": [
                {
                    "class": step.class_,
                    "params": parameters(step.params, f"spec.estimator.steps[{i}].params"),
                }
                for i, step in enumerate(estimator.steps)
            ],
        },
        "objective": _objective(spec),
        "explanation": {"method": spec.explanation.method, "sampleRows": spec.explanation.sample_rows},
        "register": {"model": spec.registration.model} if spec.registration else None,
        "storage": {"endpoint": target.endpoint, "region": target.region, "pathStyle": target.path_style},
    }


def experiment(namespace: str, job: str, spec: EffectiveTrainingSpec) -> str:
    """The MLflow experiment's name."""
    return spec.tracking.experiment or f"{namespace}/{job}"


def parameters(value: Any, path: str) -> Any:
    """Parameters with `{float: "1.0"}` as a float. Raises InvalidParameter, with the field's path."""
    if isinstance(value, Mapping):
        if set(value) == {"float"} and isinstance(value["float"], str | int | float):
            return _float(value["float"], path)
        return {key: parameters(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [parameters(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return value


def _float(text: Any, path: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidParameter(path, f'{text!r} is no number: write {{float: "1.0"}}')
    return number


def _objective(spec: EffectiveTrainingSpec) -> dict[str, str] | None:
    metric = spec.objective.metric
    if metric is None:
        return None
    goal = spec.objective.goal or ("Minimize" if metric in _SMALLER_IS_BETTER else "Maximize")
    return {"metric": metric, "goal": goal}


def _input(pinned: RunInput, ingest: EffectiveIngest | None) -> dict[str, Any]:
    if ingest is None:
        return {"name": pinned.name, "uri": pinned.uri, "version": pinned.version}
    return {
        "name": pinned.name,
        "uri": pinned.uri,
        "ingest": {
            "from": ingest.from_,
            "format": ingest.format,
            "mode": ingest.mode,
            "options": dict(ingest.options),
            "baseVersion": pinned.base_version,
            "manifest": pinned.manifest,
            "committedVersion": pinned.version,
        },
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
