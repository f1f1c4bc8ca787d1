"""The ConfigMap of a run: run spec, Spark settings, executors' template, and the spec as the user wrote it."""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lakeloop.api.v1alpha1.defaults import EffectiveIngest, EffectiveTrainingSpec
from lakeloop.api.v1alpha1.spec_hash import training_parts
from lakeloop.api.v1alpha1.trainingjob import RunInput
from lakeloop.render.certificates import CA_KEY, TRUST_STORE_KEY, certificates, trust_store
from lakeloop.render.errors import InvalidConf, InvalidParameter, Unrenderable
from lakeloop.render.training.executor import executor_template
from lakeloop.render.training.logs import LogTarget
from lakeloop.render.training.names import Platform, RunIdentity, metadata, run_labels
from lakeloop.render.training.packages import requirements
from lakeloop.render.training.script import ScriptFiles, with_script
from lakeloop.render.training.spark_conf import properties, spark_conf
from lakeloop.render.training.storage import StorageTarget

RUN_API_VERSION: Final = "lakeloop.io/run/v1"
SPEC_KEY: Final = "spec.json"
"""The spec that the run was launched with: later attempts and the registration go by it, whatever the user edits."""
_PASSWORD: Final = re.compile(r"[a-z0-9+]+://[^/@\s]*:[^/@\s]*@")
SMALLER_IS_BETTER = frozenset({"log_loss", "rmse", "mae"})


def run_config(
    run: RunIdentity,
    trigger: str,
    written: Mapping[str, Any],
    spec: EffectiveTrainingSpec,
    inputs: Sequence[RunInput],
    target: StorageTarget,
    platform: Platform,
    mlflow_run: str,
    champion: Mapping[str, Any] | None = None,
    logs: LogTarget | None = None,
    script: ScriptFiles | None = None,
) -> dict[str, Any]:
    """The ConfigMap. `written` is the raw spec, `inputs` and `script` are pinned, `logs` None: none kept.

    Raises Unrenderable.
    """
    document = run_document(run, trigger, spec, inputs, target, platform, mlflow_run, champion)
    # The driver leaves run.json in MLflow: by this, the record can be run again when all else is gone.
    document["written"] = training_parts(written)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(run.config_map, run, run_labels(run, "run-config")),
        "data": {
            "run.json": _json(document),
            "spark.properties": properties(spark_conf(run, spec.spark, target, platform, logs)),
            # JSON is YAML, and needs no writer of its own.
            "executor.yaml": _json(executor_template(run, spec.spark, target, platform, logs)),
            SPEC_KEY: _json(written),
            **({CA_KEY: target.ca} if target.ca else {}),
        },
        **({"binaryData": {TRUST_STORE_KEY: _trust_store(target.ca)}} if target.ca else {}),
    }
    return with_script(config_map, script)


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
    champion: Mapping[str, Any] | None = None,
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
                "column": split.column,
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
        "script": _script(spec),
        "project": _project(spec),
        "dependencies": {"pip": requirements(spec.dependencies.pip)},
        "search": _search(spec),
        "objective": _objective(spec),
        "champion": champion,
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


def _script(spec: EffectiveTrainingSpec) -> dict[str, Any] | None:
    script = spec.script
    return None if script is None else {"path": script.path, "args": list(script.args), "uri": script.uri}


def _project(spec: EffectiveTrainingSpec) -> dict[str, Any] | None:
    project = spec.project
    if project is None:
        return None
    if _PASSWORD.match(project.uri):
        message = "holds a password: put it into a Secret, and that into GIT_PASSWORD in spec.spark.driver.template"
        raise InvalidConf("spec.project.uri", message)
    return {
        "uri": project.uri,
        "version": project.version,
        "entryPoint": project.entry_point,
        "parameters": parameters(project.parameters, "spec.project.parameters"),
    }


def _search(spec: EffectiveTrainingSpec) -> dict[str, Any] | None:
    search = spec.search
    if search is None:
        return None
    return {
        "algorithm": search.algorithm,
        "parameters": [
            {
                "name": each.name,
                "min": each.min,
                "max": each.max,
                "scale": each.scale,
                "type": each.type,
                "values": None
                if each.values is None
                else parameters(list(each.values), f"spec.search.parameters[{i}].values"),
            }
            for i, each in enumerate(search.parameters)
        ],
        "folds": search.validation.folds,
        "maxTrials": search.max_trials,
        "parallelism": search.parallelism,
        "pruning": search.pruning,
        "timeoutSeconds": search.timeout_seconds,
    }


def _objective(spec: EffectiveTrainingSpec) -> dict[str, str] | None:
    metric = spec.objective.metric
    return None if metric is None else {"metric": metric, "goal": goal(spec, metric)}


def goal(spec: EffectiveTrainingSpec, metric: str) -> str:
    """`Maximize` or `Minimize`: what the user wrote, else what is better of a metric of that name."""
    return spec.objective.goal or ("Minimize" if metric in SMALLER_IS_BETTER else "Maximize")


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
            "keys": list(ingest.keys),
            "options": dict(ingest.options),
            "baseVersion": pinned.base_version,
            "manifest": pinned.manifest,
            "committedVersion": pinned.version,
        },
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
