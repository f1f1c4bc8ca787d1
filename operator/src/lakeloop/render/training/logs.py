"""Logs of a run that outlive its pods: where they go, and the sidecar that brings them there.

A native sidecar: an init container that is restarted, started before the main container and ended after it, which does
not decide the pod's phase. Spark's executor template keeps init containers as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lakeloop.api.v1alpha1.trainingjob import RunInput
from lakeloop.render.training.names import DRIVER, EXECUTOR, MOUNT, RunIdentity
from lakeloop.render.training.pod import container_security
from lakeloop.render.training.storage import StorageTarget, storage_env

CONTAINER: Final = "logs"
COMMAND: Final = "/opt/venv/bin/lakeloop-logs"
FOLDER: Final = "/logs"
VOLUME: Final = "logs"
LOGS_TAG: Final = "lakeloop.io/logs"
"""Tag of the MLflow run: the folder."""
TOKEN_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a folder)
NO_TOKEN_VOLUME: Final = "no-token"  # noqa: S105 (the name of a volume)
_RESOURCES: Final = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
"""It takes 50 MiB, nearly all of them boto3's, and next to no CPU."""
_EXECUTOR_ID_LABEL: Final = "spark-exec-id"
_EXECUTOR_ID: Final = "LAKELOOP_EXECUTOR_ID"


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where a run's logs go, and how much of each container's output is kept."""

    uri: str
    tail_bytes: int


def logs_uri(artifact_uri: str, inputs: Sequence[RunInput], run_uid: str) -> str | None:
    """The run's folder for logs: in its MLflow artifacts, where these lie in an object store.

    Else beside the first table, in the folder that Delta and VACUUM leave alone.
    """
    scheme, _, rest = artifact_uri.partition("://")
    if scheme in ("s3", "s3a") and rest:
        return f"s3a://{rest.rstrip('/')}/logs"
    return f"{inputs[0].uri.rstrip('/')}/_lakeloop/logs/{run_uid}" if inputs and inputs[0].uri else None


def driver_name(attempt: int) -> str:
    """What the objects of a driver's log begin with."""
    return f"{DRIVER}-{attempt}"


def executor_name(attempt: int | str, executor_id: str) -> str:
    """What the objects of an executor's log begin with."""
    return f"{EXECUTOR}-{attempt}-{executor_id}"


def executor_id(labels: Mapping[str, str]) -> str | None:
    """Spark's number of an executor, by its pod's labels."""
    found = labels.get(_EXECUTOR_ID_LABEL)
    return str(found) if found else None


def main_env(logs: LogTarget | None) -> list[dict[str, Any]]:
    """What has the main container keep a copy of its output for the sidecar."""
    if logs is None:
        return []
    return [
        {"name": "LAKELOOP_LOG_FOLDER", "value": FOLDER},
        {"name": "LAKELOOP_LOG_TAIL_BYTES", "value": str(logs.tail_bytes)},
    ]


def main_mounts(logs: LogTarget | None) -> list[dict[str, Any]]:
    return [{"name": VOLUME, "mountPath": FOLDER}] if logs else []


def log_volumes(logs: LogTarget | None, *, hide_token: bool = False) -> list[dict[str, Any]]:
    """`hide_token`: as the driver's sidecar needs it.

    No size limit: who passes one has the pod evicted, and the programs that write here keep to limits of their own.
    """
    if logs is None:
        return []
    hidden = [{"name": NO_TOKEN_VOLUME, "emptyDir": {}}] if hide_token else []
    return [{"name": VOLUME, "emptyDir": {}}, *hidden]


def driver_sidecars(
    run: RunIdentity, logs: LogTarget | None, target: StorageTarget, image: str, pull_policy: str
) -> list[dict[str, Any]]:
    """The driver's. A folder of its own hides the service account's token, which the pod is given for the driver."""
    if logs is None:
        return []
    ca = [{"name": "run", "mountPath": MOUNT, "readOnly": True}] if target.ca else []
    hidden = [{"name": NO_TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": True}]
    name = [{"name": "LAKELOOP_LOG_NAME", "value": driver_name(run.attempt)}]
    return [_sidecar(name, logs, target, image, pull_policy, [*hidden, *ca])]


def executor_sidecars(
    run: RunIdentity, logs: LogTarget | None, target: StorageTarget, image: str, pull_policy: str, ca_volume: str
) -> list[dict[str, Any]]:
    """The executors': which of them it is, is only known to the label that Spark gives the pod."""
    if logs is None:
        return []
    ca = [{"name": ca_volume, "mountPath": MOUNT, "readOnly": True}] if target.ca else []
    path = f"metadata.labels['{_EXECUTOR_ID_LABEL}']"
    name: list[dict[str, Any]] = [
        {"name": _EXECUTOR_ID, "valueFrom": {"fieldRef": {"fieldPath": path}}},
        {"name": "LAKELOOP_LOG_NAME", "value": executor_name(run.attempt, f"$({_EXECUTOR_ID})")},
    ]
    return [_sidecar(name, logs, target, image, pull_policy, ca)]


def _sidecar(
    name: list[dict[str, Any]],
    logs: LogTarget,
    target: StorageTarget,
    image: str,
    pull_policy: str,
    mounts: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": pull_policy,
        "restartPolicy": "Always",
        "command": [COMMAND],
        "env": [
            *name,
            {"name": "LAKELOOP_LOG_URI", "value": logs.uri},
            *main_env(logs),
            {"name": "LAKELOOP_STORAGE_PATH_STYLE", "value": str(target.path_style).lower()},
            *storage_env(target),
        ],
        "resources": _RESOURCES,
        "securityContext": container_security(),
        "volumeMounts": [{"name": VOLUME, "mountPath": FOLDER}, *mounts],
    }


def event_log(logs: LogTarget | None) -> dict[str, str]:
    """Spark's event log, written where the sidecar finds it. Its files are as small as Spark makes them."""
    if logs is None:
        return {}
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{FOLDER}/events",
        "spark.eventLog.rolling.enabled": "true",
        "spark.eventLog.rolling.maxFileSize": "10m",
        "spark.eventLog.compress": "true",
    }
