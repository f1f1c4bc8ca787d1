"""The executors' pod template. Spark fills in image, command, resources, names, labels and the owner (the driver)."""

from typing import Any

from lakeloop.api.v1alpha1.defaults import EffectiveSpark
from lakeloop.render.certificates import CA_KEY, CA_VOLUME, TRUST_STORE_KEY
from lakeloop.render.overlay import with_overlay
from lakeloop.render.training.logs import LogTarget, executor_sidecars, log_volumes, main_env, main_mounts
from lakeloop.render.training.names import EXECUTOR, MOUNT, Platform, RunIdentity, pod_labels
from lakeloop.render.training.pod import container_security, pod_security, scratch_mounts, scratch_volumes
from lakeloop.render.training.storage import StorageTarget, storage_env


def executor_template(
    run: RunIdentity, spark: EffectiveSpark, target: StorageTarget, platform: Platform, logs: LogTarget | None = None
) -> dict[str, Any]:
    """The template, overlay included. `logs` None: none are kept. Raises TemplateRefused."""
    image = spark.image or platform.trainer_image
    sidecars = executor_sidecars(run, logs, target, image, platform.image_pull_policy, CA_VOLUME)
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": pod_security(),
        "volumes": [*scratch_volumes(), *log_volumes(logs), *_ca_volumes(run, target)],
        **({"initContainers": sidecars} if sidecars else {}),
        "containers": [
            {
                "name": EXECUTOR,
                "env": [*storage_env(target), *main_env(logs)],
                "securityContext": container_security(),
                "volumeMounts": [*scratch_mounts(), *main_mounts(logs), *_ca_mounts(target)],
            }
        ],
    }
    if target.service_account:
        spec["serviceAccountName"] = target.service_account
    template = {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": pod_labels(run, EXECUTOR)}, "spec": spec}
    return with_overlay(template, spark.executor.template, main=EXECUTOR, field="spec.spark.executor.template")


def _ca_volumes(run: RunIdentity, target: StorageTarget) -> list[dict[str, Any]]:
    """Of the run's ConfigMap only what is public anyway."""
    if not target.ca:
        return []
    items = [{"key": key, "path": key} for key in (CA_KEY, TRUST_STORE_KEY)]
    return [{"name": CA_VOLUME, "configMap": {"name": run.config_map, "items": items}}]


def _ca_mounts(target: StorageTarget) -> list[dict[str, Any]]:
    return [{"name": CA_VOLUME, "mountPath": MOUNT, "readOnly": True}] if target.ca else []


def executor_sample(
    run: RunIdentity, spark: EffectiveSpark, target: StorageTarget, platform: Platform, logs: LogTarget | None = None
) -> dict[str, Any]:
    """A pod as Spark will make it of the template: for a server-side dry run, never created."""
    pod = executor_template(run, spark, target, platform, logs)
    image = spark.image or platform.trainer_image
    containers = [each | {"image": image} if each["name"] == EXECUTOR else each for each in pod["spec"]["containers"]]
    meta = pod["metadata"] | {"name": f"{run.executor_prefix}-exec-0", "namespace": run.namespace}
    return pod | {"metadata": meta, "spec": pod["spec"] | {"containers": containers}}
