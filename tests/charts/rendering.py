"""Charts rendered by the real Helm, once per set of values, and ways to look into what came out."""

import copy
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from localcluster import gobuild

CHARTS = Path(__file__).parents[2] / "charts"
NAMESPACES = {"lakeloop": "lakeloop-system", "lakeloop-platform": "lakeloop-platform"}
Object = Mapping[str, Any]


@functools.cache
def helm_executable() -> str:
    """LAKELOOP_HELM, else the one on PATH, else the local cluster's, built if need be."""
    return os.environ.get("LAKELOOP_HELM") or shutil.which("helm") or str(gobuild.ensure_binaries(["helm"]) / "helm")


class Rejected(Exception):
    """Helm did not render the chart. The text is what it said."""


@functools.cache
def _render(chart: str, files: tuple[str, ...], values: str) -> str:
    command = [helm_executable(), "template", chart, str(CHARTS / chart), "--namespace", NAMESPACES[chart]]
    command += ["--values", "-"]
    for file in files:
        command += ["--values", str(CHARTS / chart / file)]
    done = subprocess.run(command, input=values, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Rejected(done.stderr)
    return done.stdout


def render(chart: str, *files: str, **values: Any) -> list[Object]:
    """The chart's objects, hooks too. Raises Rejected."""
    # libyaml's: the CRDs alone take the loader in Python a third of a second
    found = yaml.load_all(_render(chart, files, json.dumps(values)), yaml.CSafeLoader)
    return [each for each in found if each]


def one(objects: list[Object], kind: str, name: str) -> Any:
    """The only object of that kind and name."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod_templates(objects: list[Object]) -> list[tuple[str, Any]]:
    """Every pod that the chart makes, as (kind/name, PodTemplateSpec); a StatefulSet's with its claims as volumes."""
    found = []
    for each in objects:
        template = each if each["kind"] == "Pod" else each.get("spec", {}).get("template")
        if template and each["kind"] in ("Pod", "Deployment", "StatefulSet", "Job"):
            template = copy.deepcopy(template)
            for claim in each["spec"].get("volumeClaimTemplates", []):
                name = claim["metadata"]["name"]
                template["spec"]["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": name}})
            found.append((f"{each['kind']}/{each['metadata']['name']}", template))
    return found
