"""Both resources as tests need them: the least that is valid, and whatever the test is about."""

import copy
from collections.abc import Mapping
from typing import Any

from lakeloop.api.v1alpha1.modeldeployment import ModelDeployment, parse_model_deployment
from lakeloop.api.v1alpha1.trainingjob import TrainingJob, parse_training_job

NAMESPACE = "team-a"
UID = "7d1c6f0e-2f0b-4c8e-9a55-0d3a1f4b2c11"

TRAINING_SPEC: Mapping[str, Any] = {
    "inputs": [{"name": "customers", "uri": "s3a://lake/customers"}],
    "dataset": {"target": "churned"},
    "estimator": {"steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
    "register": {"model": "churn", "alias": "champion"},
}
DEPLOYMENT_SPEC: Mapping[str, Any] = {"model": {"name": "churn", "alias": "champion"}}


def training_job_dict(name: str = "churn", **parts: Any) -> dict[str, Any]:
    """A TrainingJob as the API server gives it. `parts`: see `_resource`."""
    return _resource("TrainingJob", name, TRAINING_SPEC, parts)


def training_job(name: str = "churn", **parts: Any) -> TrainingJob:
    """The same, parsed; an unknown field is an error."""
    return parse_training_job(training_job_dict(name, **parts), strict=True)


def model_deployment_dict(name: str = "churn", **parts: Any) -> dict[str, Any]:
    """A ModelDeployment as the API server gives it. `parts`: see `_resource`."""
    return _resource("ModelDeployment", name, DEPLOYMENT_SPEC, parts)


def model_deployment(name: str = "churn", **parts: Any) -> ModelDeployment:
    """The same, parsed; an unknown field is an error."""
    return parse_model_deployment(model_deployment_dict(name, **parts), strict=True)


def _resource(kind: str, name: str, spec: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """`metadata` and `status` are merged over what is there, at the top level. Every other part replaces that field of
    the spec, or with None takes it away: `training_job(suspend=True, register=None, metadata={"generation": 2})`."""
    written = {**copy.deepcopy(dict(spec)), **{k: v for k, v in parts.items() if k not in ("metadata", "status")}}
    return {
        "apiVersion": "lakeloop.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": "2026-11-24T08:00:00Z",
            **parts.get("metadata", {}),
        },
        "spec": {key: value for key, value in written.items() if value is not None},
        **({"status": parts["status"]} if "status" in parts else {}),
    }
