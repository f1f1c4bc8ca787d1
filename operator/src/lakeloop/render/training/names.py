"""How a TrainingJob's children are named, labelled and owned."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lakeloop.api.v1alpha1 import API_VERSION

TRAINING_JOB: Final = "lakeloop.io/training-job"
RUN: Final = "lakeloop.io/run"
RUN_UID: Final = "lakeloop.io/run-uid"
DIGEST: Final = "lakeloop.io/digest"
ATTEMPT: Final = "lakeloop.io/attempt"
ROLE: Final = "lakeloop.io/role"
PROGRESS: Final = "lakeloop.io/progress"

MOUNT: Final = "/etc/lakeloop"
"""Where pods of a run find what its ConfigMap holds for them."""
DRIVER: Final = "driver"
EXECUTOR: Final = "executor"


@dataclass(frozen=True, slots=True)
class Platform:
    """What the operator's settings say of the world around a run."""

    tracking_uri: str
    tracking_ui_url: str
    storage_endpoint: str | None
    storage_region: str
    storage_path_style: bool
    storage_ca_file: str | None
    warehouse: str | None
    trainer_image: str
    image_pull_policy: str = "IfNotPresent"
    storage_ca: str | None = None
    """The certificates in that file, PEM: what pods are given."""


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Which attempt of which run of which job."""

    namespace: str
    job: str
    job_uid: str
    number: int
    uid: str
    attempt: int

    @property
    def config_map(self) -> str:
        return f"{self.job}-{self.number}-run"

    @property
    def driver_pod(self) -> str:
        return f"{self.job}-{self.number}-{self.attempt}-driver"

    @property
    def executor_prefix(self) -> str:
        """Spark adds `-exec-<n>`."""
        return f"{self.job}-{self.number}-{self.attempt}"

    @property
    def mlflow_run_name(self) -> str:
        return f"{self.job}-{self.number}"


def driver_account(job: str) -> str:
    """Name of the ServiceAccount, Role and RoleBinding."""
    return f"{job}-driver"


def pods_of(job: str) -> dict[str, str]:
    """What selects the job's pods, and no pod that a user gave our label to."""
    return {TRAINING_JOB: job, "app.kubernetes.io/managed-by": "lakeloop"}


def job_labels(job: str, component: str) -> dict[str, str]:
    """Labels of a child that belongs to no run.

    Nothing is inherited from the resource: with Argo CD's tracking label on it, Argo CD would prune the child.
    """
    return {
        "app.kubernetes.io/managed-by": "lakeloop",
        "app.kubernetes.io/name": "lakeloop-training",
        "app.kubernetes.io/instance": job,
        "app.kubernetes.io/component": component,
        TRAINING_JOB: job,
    }


def run_labels(run: RunIdentity, component: str) -> dict[str, str]:
    """Labels of a child of a run."""
    return job_labels(run.job, component) | {RUN: str(run.number), RUN_UID: run.uid}


def pod_labels(run: RunIdentity, role: str) -> dict[str, str]:
    """Labels of a pod of a run."""
    return run_labels(run, role) | {ATTEMPT: str(run.attempt), ROLE: role}


def owner(job: str, job_uid: str) -> list[dict[str, Any]]:
    """The reference that makes Kubernetes remove the child with the TrainingJob."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "name": job,
            "uid": job_uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]


def metadata(name: str, run: RunIdentity, labels: Mapping[str, str]) -> dict[str, Any]:
    """Metadata of a child of a run."""
    return {
        "name": name,
        "namespace": run.namespace,
        "labels": dict(labels),
        "ownerReferences": owner(run.job, run.job_uid),
    }
