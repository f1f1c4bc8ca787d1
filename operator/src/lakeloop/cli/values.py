"""The values of both charts: pure, from a profile, the built images, the cluster's addresses and what the user said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from lakeloop.cli.errors import CliError

Profile = Literal["local", "kind", "any"]
Values = dict[str, Any]

SYSTEM_NAMESPACE = "lakeloop-system"
PLATFORM_NAMESPACE = "lakeloop-platform"
DEMO_NAMESPACE = "lakeloop-demo"
MLFLOW_NODE_PORT = 30500

_PLATFORM_IMAGES = {
    "minio": ("minio", "image"),
    "postgres": ("postgresql", "image"),
    "mlflow": ("mlflow", "image"),
}
_OPERATOR_IMAGES = {
    "operator": ("images", "operator"),
    "trainer": ("images", "trainer"),
    "model-server": ("images", "modelServer"),
}


@dataclass(frozen=True)
class ChartValues:
    """The values of each chart, as `helm --values` takes them."""

    platform: Values = field(default_factory=dict)
    lakeloop: Values = field(default_factory=dict)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """`over` on `base`, as Helm merges values: mappings deeply, anything else replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def nested(path: Sequence[str], value: Any) -> Values:
    """`nested(["a", "b"], 1)` is `{"a": {"b": 1}}`."""
    for key in reversed(path):
        value = {key: value}
    result: Values = value
    return result


def image(reference: str) -> Values:
    """Repository and tag of an image reference; a digest (`name@sha256:…`) is a tag to the charts.

    Raises CliError for a reference without either.
    """
    repository, at, digest = reference.partition("@")
    if at:
        return {"repository": repository, "tag": digest}
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        raise CliError(f"image {reference!r} has no tag: write name:tag or name@sha256:…")
    return {"repository": repository, "tag": tag}


def from_images(images: Mapping[str, str]) -> ChartValues:
    """Values that name the built images. Raises CliError where one that the charts need is missing."""
    missing = sorted({*_PLATFORM_IMAGES, *_OPERATOR_IMAGES} - images.keys())
    if missing:
        raise CliError(
            f"the list of images lacks {', '.join(missing)}: build them (`make images`), or leave out --images"
        )

    def values(places: Mapping[str, tuple[str, str]]) -> Values:
        merged: Values = {}
        for name, path in places.items():
            merged = merge(merged, nested(path, image(images[name])))
        return merged

    return ChartValues(values(_PLATFORM_IMAGES), values(_OPERATOR_IMAGES))


def from_profile(profile: Profile, addresses: Sequence[str]) -> ChartValues:
    """What depends on where MLflow's page is reached: on a node's address (local) or on this host (kind)."""
    if profile == "any":
        return ChartValues()
    page = "127.0.0.1" if profile == "kind" or not addresses else addresses[0]
    return ChartValues(
        {"mlflow": {"extraAllowedHosts": list(addresses)}},
        {"tracking": {"uiUrl": f"http://{page}:{MLFLOW_NODE_PORT}"}},
    )


def from_workloads(namespaces: Sequence[str]) -> ChartValues:
    """A key to the object store for each namespace that trains or serves."""
    users = [{"name": name, "namespace": name, "secretName": "lakeloop-storage"} for name in namespaces]
    return ChartValues({"minio": {"users": users}})


def from_file(content: Any, source: str) -> ChartValues:
    """A file with the top-level keys `platform` and `lakeloop`. Raises CliError for anything else."""
    if not isinstance(content, Mapping) or not content.keys() <= {"platform", "lakeloop"}:
        raise CliError(f"{source}: write the values of the charts under the keys platform and lakeloop")
    return ChartValues(dict(content.get("platform") or {}), dict(content.get("lakeloop") or {}))


def from_settings(settings: Sequence[str]) -> ChartValues:
    """`platform.minio.enabled=false`: chart, path, and a value in YAML. Raises CliError with what to write."""
    values = ChartValues()
    for setting in settings:
        path, equals, text = setting.partition("=")
        chart, *keys = path.split(".")
        if not equals or not keys or not all(keys) or chart not in ("platform", "lakeloop"):
            raise CliError(f"--set {setting}: write platform.<path>=<value> or lakeloop.<path>=<value>")
        try:
            value = nested(keys, yaml.safe_load(text) if text else "")
        except yaml.YAMLError as error:
            raise CliError(f"--set {setting}: the value is not YAML: {error}") from error
        values = combine(values, ChartValues(**{chart: value}))
    return values


def combine(*layers: ChartValues) -> ChartValues:
    """Later layers win."""
    result = ChartValues()
    for layer in layers:
        result = ChartValues(merge(result.platform, layer.platform), merge(result.lakeloop, layer.lakeloop))
    return result
