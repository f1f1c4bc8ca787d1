"""The pod template of a model server."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lakeloop.api.v1alpha1.defaults import EffectiveBatching, EffectiveDeploymentSpec, storage_secret_name
from lakeloop.api.v1alpha1.modeldeployment import Resources
from lakeloop.render.certificates import CA_KEY, CA_VOLUME
from lakeloop.render.errors import Unrenderable
from lakeloop.render.overlay import RESTRICTED_CONTAINER, RESTRICTED_POD, with_overlay
from lakeloop.render.quantities import value_of
from lakeloop.render.serving import names
from lakeloop.render.training.storage import StorageTarget, storage_env
from lakeloop.settings import Settings

COMMAND: Final = "/opt/venv/bin/lakeloop-server"
GRACE_SECONDS: Final = 30
DRAIN_LEAST_SECONDS: Final = 5
"""After the deletion of a pod its server answers for so long whoever comes: by then no proxy sends it anything new.
No preStop hook: the server would not know that it is going, and callers who keep their connections would stay."""
DRAIN_SECONDS: Final = 25
CA_FOLDER: Final = "/etc/lakeloop/storage-ca"
DEFAULT_RESOURCES: Final[Mapping[str, Mapping[str, str]]] = {
    "requests": {"cpu": "100m", "memory": "512Mi"},
    "limits": {"memory": "1Gi"},
}
LONGEST_LOAD_SECONDS: Final = 600
"""A start that takes longer is broken off; the roll-out's own deadline is usually nearer."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The model version that the pods serve. `uri`: where its files lie, `s3://…`."""

    name: str
    version: int
    uri: str


def server_template(
    deployment: str, spec: EffectiveDeploymentSpec, source: ModelSource, settings: Settings
) -> dict[str, Any]:
    """The PodTemplateSpec with the user's overlay, yet without what depends on its own hash (see `with_revision`).

    Raises Unrenderable where `spec.server` asks for what cannot be.
    """
    template = {
        "metadata": {
            "labels": {
                **names.labels(deployment),
                names.ROLE: names.SERVER,
                names.MODEL_VERSION: str(source.version),
            }
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": dict(RESTRICTED_POD),
            **({"serviceAccountName": account} if (account := spec.storage.service_account_name) else {}),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": names.selector(deployment)},
                }
            ],
            "containers": [_container(spec, source, settings)],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "model", "emptyDir": {}},
                *_ca_volumes(spec, settings),
            ],
        },
    }
    if not spec.server.template:
        return template
    return with_overlay(template, spec.server.template, main=names.SERVER, field="spec.server.template")


def with_revision(template: Mapping[str, Any], deployment: str, revision: str) -> dict[str, Any]:
    """The template as it goes into the revision's Deployment."""
    metadata, spec = template["metadata"], template["spec"]
    digest = {
        "name": "LAKELOOP_MODEL_DIGEST",
        # Not a value: the digest of a version registered elsewhere is known only once a server has read the files, and
        # must not change the template by which those very servers are known.
        "valueFrom": {"configMapKeyRef": {"name": names.revision_name(deployment, revision), "key": "digest"}},
    }
    containers = [
        {**each, "env": [*each["env"], digest]} if each["name"] == names.SERVER else each for each in spec["containers"]
    ]
    spread = [
        {**each, "labelSelector": {"matchLabels": names.selector(deployment, revision)}}
        if each.get("labelSelector") == {"matchLabels": names.selector(deployment)}
        else each
        for each in spec["topologySpreadConstraints"]
    ]
    config = names.revision_name(deployment, revision)
    volumes = [
        {**each, "configMap": {"name": config, **each["configMap"]}}
        if each["name"] == CA_VOLUME and "configMap" in each
        else each
        for each in spec["volumes"]
    ]
    return {
        **template,
        "metadata": {**metadata, "labels": {**metadata["labels"], names.REVISION: revision}},
        "spec": {**spec, "containers": containers, "topologySpreadConstraints": spread, "volumes": volumes},
    }


def _container(spec: EffectiveDeploymentSpec, source: ModelSource, settings: Settings) -> dict[str, Any]:
    resources = _resources(spec.server.resources)
    own = _environment(spec, source, settings, spec.server.workers or default_workers(resources))
    return {
        "name": names.SERVER,
        "image": spec.server.image or settings.server_image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [COMMAND],
        "env": own + _users_environment(spec, own),
        "ports": [{"name": "http", "containerPort": names.PORT, "protocol": "TCP"}],
        "resources": resources,
        "securityContext": dict(RESTRICTED_CONTAINER),
        # 200 from /ping only once the model is loaded and has answered its first request.
        "startupProbe": _probe("/ping", period=1, failures=LONGEST_LOAD_SECONDS),
        "readinessProbe": _probe("/ping", period=2, failures=2),
        "livenessProbe": _probe("/live", period=10, failures=3),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            {"name": "model", "mountPath": "/model"},
            *_ca_mounts(spec, settings),
        ],
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _environment(
    spec: EffectiveDeploymentSpec, source: ModelSource, settings: Settings, workers: int
) -> list[dict[str, Any]]:
    storage = spec.storage
    path_style = settings.storage_path_style if storage.path_style is None else storage.path_style
    target = StorageTarget(
        endpoint=storage.endpoint or settings.storage_endpoint,
        region=storage.region or settings.storage_region,
        path_style=path_style,
        secret=None if storage.service_account_name else storage_secret_name(storage),
        service_account=storage.service_account_name,
    )
    values = {
        "LAKELOOP_MODEL_NAME": source.name,
        "LAKELOOP_MODEL_VERSION": str(source.version),
        "LAKELOOP_MODEL_URI": source.uri,
        "LAKELOOP_SIGNATURE_REQUIRED": str(bool(spec.gates.signature.required)).lower(),
        "LAKELOOP_WORKERS": str(workers),
        "LAKELOOP_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "LAKELOOP_DRAIN_LEAST_SECONDS": str(DRAIN_LEAST_SECONDS),
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path" if path_style else "virtual",
        **({"AWS_CA_BUNDLE": f"{CA_FOLDER}/{CA_KEY}"} if _ca_secret(spec) or settings.storage_ca else {}),
        **_batching(spec.server.batching),
    }
    return [{"name": name, "value": value} for name, value in values.items()] + storage_env(target)


def _batching(asked: EffectiveBatching | None) -> dict[str, str]:
    """Nothing where it is not asked for: the server's own are then in force (no row waits for company)."""
    if asked is None:
        return {}
    return {
        "LAKELOOP_BATCH_MAX_SIZE": str(asked.max_size),
        "LAKELOOP_BATCH_MAX_DELAY_MS": f"{asked.max_delay_milliseconds:g}",
    }


def _users_environment(spec: EffectiveDeploymentSpec, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    taken = {each["name"] for each in own} | {"LAKELOOP_MODEL_DIGEST"}
    written = [each.wire() for each in spec.server.env or ()]
    for i, each in enumerate(written):
        if each["name"] in taken:
            raise Unrenderable(f"spec.server.env[{i}]", f"{each['name']} is set by the operator: take it away")
    return written


def _resources(written: Resources | None) -> dict[str, Any]:
    if written is None or (written.requests is None and written.limits is None):
        return {kind: dict(values) for kind, values in DEFAULT_RESOURCES.items()}
    return written.wire()


def default_workers(resources: Mapping[str, Any]) -> int:
    """The CPU limit, rounded up; 1 without one."""
    limit = str((resources.get("limits") or {}).get("cpu", ""))
    if not limit:
        return 1
    return min(64, max(1, math.ceil(value_of(limit))))


def _ca_secret(spec: EffectiveDeploymentSpec) -> str | None:
    return spec.storage.ca_secret_ref.name if spec.storage.ca_secret_ref else None


def _ca_volumes(spec: EffectiveDeploymentSpec, settings: Settings) -> list[dict[str, Any]]:
    if secret := _ca_secret(spec):
        key = (spec.storage.ca_secret_ref and spec.storage.ca_secret_ref.key) or CA_KEY
        return [{"name": CA_VOLUME, "secret": {"secretName": secret, "items": [{"key": key, "path": CA_KEY}]}}]
    if settings.storage_ca:
        # The operator's own copy is in another namespace; `with_revision` says which ConfigMap has it here.
        return [{"name": CA_VOLUME, "configMap": {"items": [{"key": CA_KEY, "path": CA_KEY}]}}]
    return []


def _ca_mounts(spec: EffectiveDeploymentSpec, settings: Settings) -> list[dict[str, Any]]:
    wanted = _ca_secret(spec) or settings.storage_ca
    return [{"name": CA_VOLUME, "mountPath": CA_FOLDER, "readOnly": True}] if wanted else []
