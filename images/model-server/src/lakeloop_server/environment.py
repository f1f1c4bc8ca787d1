"""Compares the environment that a model was made in with the one that is to serve it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

# Tools of an environment's making, and what mlflow-skinny stands in for
_IGNORED = frozenset({"pip", "setuptools", "wheel", "mlflow-tracing"})
_SAME_AS = {"mlflow": "mlflow-skinny"}
# MLflow flavor (last part of its loader module) → the module without which it cannot load
_FLAVOR_MODULES = {
    "catboost": "catboost",
    "h2o": "h2o",
    "keras": "keras",
    "lightgbm": "lightgbm",
    "onnx": "onnxruntime",
    "paddle": "paddle",
    "pmdarima": "pmdarima",
    "prophet": "prophet",
    "pytorch": "torch",
    "sklearn": "sklearn",
    "spacy": "spacy",
    "spark": "pyspark",
    "statsmodels": "statsmodels",
    "tensorflow": "tensorflow",
    "transformers": "transformers",
    "xgboost": "xgboost",
}


@dataclass(frozen=True)
class Recorded:
    """What a model's files say of its environment."""

    requirements: Sequence[str]
    python: str | None
    mlmodel: Mapping[str, Any]


@dataclass
class Comparison:
    """`problems` keep the model from serving, `warnings` are told."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def recorded(
    mlmodel: Mapping[str, Any], requirements_txt: str | None, conda: Mapping[str, Any], python_env: Mapping[str, Any]
) -> Recorded:
    """Puts together MLmodel, requirements.txt, conda.yaml and python_env.yaml, the later ones where the former lack."""
    lines = [line.strip() for line in (requirements_txt or "").splitlines()]
    dependencies = conda.get("dependencies")
    dependencies = dependencies if isinstance(dependencies, list) else []
    conda_lines = [item for item in dependencies if isinstance(item, str)]
    if requirements_txt is None:
        pips = [item["pip"] for item in dependencies if isinstance(item, dict) and isinstance(item.get("pip"), list)]
        lines = [str(line).strip() for group in pips for line in group]
    python = python_env.get("python")
    if python is None:
        python = next((match[1] for item in conda_lines if (match := re.match(r"python=+([\d.]+)", item))), None)
    if python is None:
        python = mlmodel.get("flavors", {}).get("python_function", {}).get("python_version")
    kept = [line.split("#")[0].strip() for line in lines if line and not line.startswith(("#", "-"))]
    return Recorded(requirements=kept, python=str(python) if python else None, mlmodel=mlmodel)


def compare(
    model: Recorded, python: str, installed: Mapping[str, str], has_module: Callable[[str], bool]
) -> Comparison:
    """Patch and minor differences warn; a major one, or a flavor whose module the image lacks, is a problem.

    `python` is the image's version (`3.11.7`), `installed` maps canonical distribution names to versions.
    """
    result = Comparison()
    _compare_flavor(model.mlmodel, has_module, result)
    if model.python:
        _compare_python(model.python, python, _has_python_bytecode(model.mlmodel), result)
    for line in model.requirements:
        _compare_requirement(line, installed, result)
    return result


def _compare_flavor(mlmodel: Mapping[str, Any], has_module: Callable[[str], bool], result: Comparison) -> None:
    flavors = mlmodel.get("flavors") or {}
    if "python_function" not in flavors:
        names = ", ".join(sorted(flavors)) or "none"
        result.problems.append(f"the model has no python_function flavor (it has: {names}), so it cannot be served")
        return
    loader = str(flavors["python_function"].get("loader_module", ""))
    module = _FLAVOR_MODULES.get(loader.removeprefix("mlflow."), "") if loader.startswith("mlflow.") else ""
    if module and not has_module(module):
        result.problems.append(f"the model needs the Python module {module}, which the server image does not have")


def _has_python_bytecode(mlmodel: Mapping[str, Any]) -> bool:
    """Whether cloudpickle may have stored functions by value: their bytecode is of one minor version of Python."""
    flavors = mlmodel.get("flavors") or {}
    formats = {str(flavor.get("serialization_format", "")) for flavor in flavors.values() if isinstance(flavor, dict)}
    python_model = (flavors.get("python_function") or {}).get("python_model")
    return "cloudpickle" in formats or bool(python_model)


def _compare_python(wanted: str, have: str, bytecode: bool, result: Comparison) -> None:
    try:
        theirs, ours = Version(wanted), Version(have)
    except InvalidVersion:
        result.warnings.append(f"the model's Python version cannot be read: {wanted!r}")
        return
    message = f"the model was made with Python {wanted}, the server has {have}"
    if theirs.major != ours.major or (theirs.minor != ours.minor and bytecode):
        result.problems.append(message)
    elif theirs.minor != ours.minor:
        result.warnings.append(message)


def _compare_requirement(line: str, installed: Mapping[str, str], result: Comparison) -> None:
    try:
        requirement = Requirement(line)
        pinned = next((spec.version for spec in requirement.specifier if spec.operator in ("==", "===", "~=")), None)
        major = None if pinned is None else Version(pinned.removesuffix(".*")).major
    except (InvalidRequirement, InvalidVersion):
        result.warnings.append(f"a requirement of the model cannot be read: {line!r}")
        return
    if requirement.marker is not None and not requirement.marker.evaluate():
        return
    name = canonicalize_name(requirement.name)
    if name in _IGNORED:
        return
    have = installed.get(name) or installed.get(_SAME_AS.get(name, ""))
    if have is None:
        result.warnings.append(f"the model records {line}, which the server image does not have")
        return
    if requirement.specifier.contains(have, prereleases=True):
        return
    message = f"the model records {line}, the server has {name} {have}"
    if major is None or major != Version(have).major:
        result.problems.append(message)
    else:
        result.warnings.append(message)
