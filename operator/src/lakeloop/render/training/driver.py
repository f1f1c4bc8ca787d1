"""The driver pod: what `spark-submit --deploy-mode cluster` would have made, in one API call and without a JVM.

Parity with Spark 4.1's submission client (resource-managers/kubernetes/core, package `o.a.s.deploy.k8s.features`) is
noted beside each part; the settings that it would pass on are in `spark_conf`.
"""

from typing import Any, Final

from lakeloop.api.v1alpha1.defaults import EffectiveTrainingSpec, tracking_secret_name
from lakeloop.render.overlay import with_overlay
from lakeloop.render.training.logs import LogTarget, driver_sidecars, log_volumes, main_env, main_mounts
from lakeloop.render.training.names import DRIVER, MOUNT, Platform, RunIdentity, driver_account, metadata, pod_labels
from lakeloop.render.training.pod import container_security, pod_security, scratch_mounts, scratch_volumes
from lakeloop.render.training.script import ScriptFiles, script_env, script_mount, script_volume
from lakeloop.render.training.spark_conf import mebibytes
from lakeloop.render.training.storage import StorageTarget, secret_env, storage_env

COMMAND: Final = "/opt/venv/bin/lakeloop-driver"
GRACE_SECONDS: Final = 20
"""Time for the driver to write its result and end its executors."""


def driver_pod(
    run: RunIdentity,
    spec: EffectiveTrainingSpec,
    target: StorageTarget,
    platform: Platform,
    mlflow_run: str,
    logs: LogTarget | None = None,
    script: ScriptFiles | None = None,
) -> dict[str, Any]:
    """The pod of this attempt, overlay included. `logs` None: none are kept. Raises TemplateRefused, InvalidConf."""
    driver = spec.spark.driver
    image = spec.spark.image or platform.trainer_image
    sidecars = driver_sidecars(run, logs, target, image, platform.image_pull_policy)
    memory = f"{mebibytes(driver.memory) + mebibytes(driver.memory_overhead)}Mi"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        # BasicDriverFeatureStep: name and labels. Owned by the TrainingJob; the executors by this pod.
        "metadata": {
            **metadata(run.driver_pod, run, pod_labels(run, DRIVER)),
            # So that kubectl logs and exec mean the driver without being told.
            "annotations": {"kubectl.kubernetes.io/default-container": DRIVER},
        },
        "spec": {
            # DriverKubernetesCredentialsFeatureStep: spark.kubernetes.authenticate.driver.serviceAccountName
            "serviceAccountName": target.service_account or driver_account(run.job),
            "automountServiceAccountToken": True,
            # A namespace with thousands of Services would overflow the environment.
            "enableServiceLinks": False,
            # BasicDriverFeatureStep: a driver is never restarted in place; the operator makes a new attempt.
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": pod_security(),
            **({"initContainers": sidecars} if sidecars else {}),
            "containers": [
                {
                    "name": DRIVER,  # spark.kubernetes.driver.podTemplateContainerName
                    "image": image,  # spark.kubernetes.driver.container.image
                    "imagePullPolicy": platform.image_pull_policy,  # spark.kubernetes.container.image.pullPolicy
                    "command": [COMMAND],  # DriverCommandFeatureStep
                    "env": [*_env(run, spec, target, platform, mlflow_run), *main_env(logs)],
                    # BasicDriverFeatureStep: spark.kubernetes.driver.request.cores, spark.driver.memory(Overhead)
                    "resources": {
                        "requests": {"cpu": driver.core_request, "memory": memory},
                        "limits": {"memory": memory},
                    },
                    "securityContext": container_security(),
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "volumeMounts": [
                        *scratch_mounts(),  # LocalDirsFeatureStep
                        *main_mounts(logs),
                        {"name": "run", "mountPath": MOUNT, "readOnly": True},  # spark.properties, and a store's CA
                        *([script_mount()] if script else []),
                    ],
                }
            ],
            "volumes": [
                *scratch_volumes(),
                *log_volumes(logs, hide_token=True),
                {"name": "run", "configMap": {"name": run.config_map}},
                *([script_volume(run.config_map, script)] if script else []),
            ],
        },
    }
    return with_overlay(pod, driver.template, main=DRIVER, field="spec.spark.driver.template")


def _env(
    run: RunIdentity, spec: EffectiveTrainingSpec, target: StorageTarget, platform: Platform, mlflow_run: str
) -> list[dict[str, Any]]:
    secret = tracking_secret_name(spec.tracking.secret_ref)
    env = [
        {"name": "LAKELOOP_RUN_FILE", "value": f"{MOUNT}/run.json"},
        {"name": "LAKELOOP_ATTEMPT", "value": str(run.attempt)},
        _from_field("LAKELOOP_POD_NAME", "metadata.name"),
        _from_field("LAKELOOP_POD_NAMESPACE", "metadata.namespace"),
        _from_field("LAKELOOP_POD_IP", "status.podIP"),  # BasicDriverFeatureStep: SPARK_DRIVER_BIND_ADDRESS
        *storage_env(target),
        {"name": "MLFLOW_TRACKING_URI", "value": platform.tracking_uri},
        {"name": "MLFLOW_RUN_ID", "value": mlflow_run},
        secret_env("MLFLOW_TRACKING_USERNAME", secret),
        secret_env("MLFLOW_TRACKING_PASSWORD", secret),
    ]
    if spec.script is not None:
        env += script_env(spec.script.env, frozenset(each["name"] for each in env))
    return env


def _from_field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
