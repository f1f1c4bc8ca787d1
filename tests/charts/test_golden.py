"""All objects of the usual values, as files to be read in a review."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from charts.rendering import Object, render

OFF = {"enabled": False}
ROWS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "operator": ("lakeloop", (), {}),
    "operator-local": ("lakeloop", ("values-local.yaml",), {}),
    "operator-namespaced": ("lakeloop", (), {"watchNamespaces": ["team-a"], "replicas": 2}),
    "platform": ("lakeloop-platform", (), {}),
    "platform-local": (
        "lakeloop-platform",
        ("values-local.yaml",),
        {"minio": {"users": [{"name": "lakeloop-demo", "namespace": "lakeloop-demo"}]}},
    ),
    "platform-off": ("lakeloop-platform", (), {"minio": OFF, "postgresql": OFF, "mlflow": OFF}),
}


def readable(obj: Object) -> Object:
    """Without what is random, and without the text of programs, which have files of their own."""
    if obj["kind"] == "Secret":
        return {**obj, "data": dict.fromkeys(obj["data"], "<generated>")}
    if obj["kind"] == "ConfigMap":
        return {**obj, "data": {k: "<a file of the chart>" if k.endswith(".py") else v for k, v in obj["data"].items()}}
    return obj


@pytest.mark.parametrize("row", ROWS)
def test_golden(row: str, golden: Callable[[str, str], None]) -> None:
    """CRDs are left out: they are compared with the types elsewhere."""
    chart, files, values = ROWS[row]
    objects = [readable(each) for each in render(chart, *files, **values) if each["kind"] != "CustomResourceDefinition"]
    golden(f"charts/{row}.yaml", yaml.safe_dump_all(objects, sort_keys=False, width=160))
