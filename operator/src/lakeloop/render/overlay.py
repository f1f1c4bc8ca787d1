"""Overlays: partial PodTemplateSpecs of the user, merged strategically onto what the operator renders.

Lists with a merge key (`patchMergeKey` in the Kubernetes API) are merged by it, other lists are replaced. An overlay
may add; it may not take away, and it may not weaken the pod's security.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lakeloop.api.v1alpha1.common import NO_INLINE_VALUE, SENSITIVE_NAME
from lakeloop.render.errors import Unrenderable

MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "schedulingGates": ("name",),
    "resourceClaims": ("name",),
}
"""Field → the keys that tell its items apart."""

RESTRICTED_POD: Final[Mapping[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

_OWNED_POD_FIELDS: Final[Mapping[str, str]] = {
    "serviceAccountName": "write spec.storage.serviceAccountName instead",
    "serviceAccount": "write spec.storage.serviceAccountName instead",
    "automountServiceAccountToken": "the operator decides which pod gets a token",
    "hostNetwork": "a pod must not share the node's network",
    "hostPID": "a pod must not share the node's processes",
    "hostIPC": "a pod must not share the node's memory",
    "hostUsers": "a pod must not choose the node's users",
    "shareProcessNamespace": "containers must not see each other's processes",
    "restartPolicy": "the operator decides what is tried again",
    "enableServiceLinks": "the operator switches them off",
    "ephemeralContainers": "these are for kubectl debug",
}
_OWNED_MAIN_FIELDS: Final[Mapping[str, str]] = {
    "image": "write the image in the spec's own field for it",
    "command": "the operator decides what its own container runs",
    "args": "the operator decides what its own container runs",
    "terminationMessagePath": "the operator reads results there",
    "terminationMessagePolicy": "the operator reads results there",
}
_LISTS_OF_OBJECTS: Final = (
    "ephemeralContainers",
    "hostAliases",
    "imagePullSecrets",
    "readinessGates",
    "resourceClaims",
    "schedulingGates",
    "tolerations",
    "topologySpreadConstraints",
)
_OWN_PREFIXES = ("lakeloop.io/", "app.kubernetes.io/")
_CHANGEABLE_SECURITY = frozenset(
    {"runAsUser", "runAsGroup", "fsGroup", "fsGroupChangePolicy", "supplementalGroups", "supplementalGroupsPolicy"}
)


class TemplateRefused(Unrenderable):
    """An overlay asks for what it must not."""

    reason = "TemplateRefused"


def with_overlay(pod: Mapping[str, Any], overlay: Mapping[str, Any], *, main: str, field: str) -> dict[str, Any]:
    """The pod (or template) with the overlay merged in.

    `main` is the name of the operator's own container; `field` the overlay's path in the resource, for messages.
    Raises TemplateRefused.
    """
    _check(pod, overlay, main, field)
    merged: dict[str, Any] = merge(pod, overlay)
    spec = merged.get("spec")
    if isinstance(spec, dict):
        for kind in ("containers", "initContainers"):
            if kind in spec:
                spec[kind] = [_restricted(each) for each in spec[kind]]
    return merged


def merge(base: Any, overlay: Any, name: str = "") -> Any:
    """Strategic merge of plain JSON values; `name` is the field whose values they are. Copies what it changes."""
    if isinstance(base, Mapping) and isinstance(overlay, Mapping):
        merged = dict(base)
        for key, value in overlay.items():
            merged[key] = merge(merged[key], value, key) if key in merged else _without_duplicates(value, key)
        return merged
    keys = MERGE_KEYS.get(name)
    if keys and isinstance(base, Sequence) and isinstance(overlay, Sequence):
        return _merge_list(base, overlay, keys)
    return overlay


def _merge_list(base: Sequence[Any], overlay: Sequence[Any], keys: tuple[str, ...]) -> list[Any]:
    merged = list(base)
    for item in overlay:
        key = _key(item, keys)
        at = next((i for i, each in enumerate(merged) if _key(each, keys) == key), None)
        if at is None:
            merged.append(merge({}, item) if isinstance(item, Mapping) else item)
        else:
            merged[at] = merge(merged[at], item)
    return merged


def _without_duplicates(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return merge({}, value)
    keys = MERGE_KEYS.get(name)
    return _merge_list([], value, keys) if keys and isinstance(value, Sequence) else value


def _key(item: Any, keys: tuple[str, ...]) -> tuple[Any, ...]:
    if not isinstance(item, Mapping):
        return (repr(item),)
    return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in keys)


def _restricted(container: Mapping[str, Any]) -> dict[str, Any]:
    return {**container, "securityContext": merge(RESTRICTED_CONTAINER, container.get("securityContext") or {})}


def _check(pod: Mapping[str, Any], overlay: Any, main: str, field: str) -> None:
    _check_values(overlay, field)
    _only(overlay, ("metadata", "spec"), field)
    metadata, spec = overlay.get("metadata", {}), overlay.get("spec", {})
    _only(metadata, ("labels", "annotations"), f"{field}.metadata")
    for kind in ("labels", "annotations"):
        for key in _mapping(metadata.get(kind, {}), f"{field}.metadata.{kind}"):
            if key.startswith(_OWN_PREFIXES):
                raise TemplateRefused(f"{field}.metadata.{kind}[{key}]", "the operator sets this: take it away")
    where = f"{field}.spec"
    for key in _mapping(spec, where):
        if key in _OWNED_POD_FIELDS:
            raise TemplateRefused(f"{where}.{key}", f"cannot be set here: {_OWNED_POD_FIELDS[key]}")
    for kind in _LISTS_OF_OBJECTS:
        for i, item in enumerate(_list(spec.get(kind, []), f"{where}.{kind}")):
            _mapping(item, f"{where}.{kind}[{i}]")
    _check_security(spec.get("securityContext", {}), RESTRICTED_POD, f"{where}.securityContext")
    for i, volume in enumerate(_list(spec.get("volumes", []), f"{where}.volumes")):
        _check_volume(pod, volume, f"{where}.volumes[{i}]")
    for kind in ("containers", "initContainers"):
        rendered = {each["name"]: each for each in pod.get("spec", {}).get(kind, [])}
        for i, container in enumerate(_list(spec.get(kind, []), f"{where}.{kind}")):
            _check_container(container, rendered, main, f"{where}.{kind}[{i}]")


def _check_container(container: Any, rendered: Mapping[str, Any], main: str, path: str) -> None:
    name = _mapping(container, path).get("name")
    if not isinstance(name, str) or not name:
        raise TemplateRefused(f"{path}.name", f"is missing; the operator's own container is named {main}")
    _check_security(container.get("securityContext", {}), RESTRICTED_CONTAINER, f"{path}.securityContext")
    for i, port in enumerate(_list(container.get("ports", []), f"{path}.ports")):
        for key in ("hostPort", "hostIP"):
            if _mapping(port, f"{path}.ports[{i}]").get(key):
                raise TemplateRefused(
                    f"{path}.ports[{i}].{key}", "a pod must not share the node's network: take it away"
                )
    for i, variable in enumerate(_list(container.get("env", []), f"{path}.env")):
        _check_variable(_mapping(variable, f"{path}.env[{i}]"), f"{path}.env[{i}]")
    own = rendered.get(name)
    if own is None:
        if not container.get("image"):
            raise TemplateRefused(
                f"{path}.image", f"is missing for container {name}; the operator's own container is named {main}"
            )
        return
    for key in _OWNED_MAIN_FIELDS.keys() & container.keys():
        raise TemplateRefused(f"{path}.{key}", f"cannot be set here: {_OWNED_MAIN_FIELDS[key]}")
    for kind, key in (("env", "name"), ("volumeMounts", "mountPath")):
        taken = {each[key] for each in own.get(kind, [])}
        for i, item in enumerate(_list(container.get(kind, []), f"{path}.{kind}")):
            if _mapping(item, f"{path}.{kind}[{i}]").get(key) in taken:
                raise TemplateRefused(f"{path}.{kind}[{i}]", f"{item[key]} is set by the operator: take it away")


def _check_variable(variable: Mapping[str, Any], path: str) -> None:
    if variable.get("value") and re.search(SENSITIVE_NAME, str(variable.get("name", ""))):
        raise TemplateRefused(f"{path}.value", NO_INLINE_VALUE)


def _check_volume(pod: Mapping[str, Any], volume: Any, path: str) -> None:
    if "hostPath" in _mapping(volume, path):
        raise TemplateRefused(f"{path}.hostPath", "a pod must not see the node's files: use another kind of volume")
    if volume.get("name") in {each["name"] for each in pod.get("spec", {}).get("volumes", [])}:
        raise TemplateRefused(f"{path}.name", f"{volume['name']} is a volume of the operator: choose another name")


def _check_security(context: Any, restricted: Mapping[str, Any], path: str) -> None:
    for key, value in _mapping(context, path).items():
        if key in _CHANGEABLE_SECURITY:
            roots = value if isinstance(value, list) else [value]
            if 0 in roots and key != "fsGroupChangePolicy":
                raise TemplateRefused(f"{path}.{key}", "0 is root: write another id")
        elif key == "privileged" and value is False:
            continue
        elif repr(merge(restricted.get(key), value)) != repr(restricted.get(key)):  # 1 is not True to an API server
            raise TemplateRefused(f"{path}.{key}", "pods run restricted; this would weaken it: take it away")


def _check_values(value: Any, path: str) -> None:
    """Nothing that takes something away: no null, no `$patch` or other directive."""
    if value is None:
        raise TemplateRefused(path, "is null; an overlay can add and change, not remove")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if str(key).startswith("$"):
                raise TemplateRefused(f"{path}.{key}", "directives are not taken; an overlay can add and change only")
            _check_values(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_values(item, f"{path}[{i}]")


def _only(value: Any, known: tuple[str, ...], path: str) -> None:
    for key in _mapping(value, path):
        if key not in known:
            raise TemplateRefused(f"{path}.{key}", f"is not taken here; write {' or '.join(known)}")


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TemplateRefused(path, "must be an object")
    return value


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise TemplateRefused(path, "must be a list")
    return value
