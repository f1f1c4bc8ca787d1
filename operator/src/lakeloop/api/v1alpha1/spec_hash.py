"""What tells one training from another: a hash of the parts of the spec that decide what is learned."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HASHED_PARTS = (
    "inputs",
    "dataset",
    "estimator",
    "script",
    "project",
    "objective",
    "search",
    "evaluation",
    "explanation",
    "register",
    "dependencies",
)
HASHED_SPARK_PARTS = ("image", "conf")
CODE_PARTS = ("estimator", "script", "project")


def training_spec_hash(spec: Mapping[str, Any]) -> str:
    """16 hex digits over the training parts of a TrainingJob's raw `spec`, as the user wrote them.

    Defaults play no part: a new default in a new release starts no run. Neither do the order of keys, a null, and `1.0`
    for `1`: the API server keeps none of these.
    """
    return _digest(training_parts(spec))[:16]


def training_parts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what is learned, out of a raw `spec`, as the user wrote it."""
    parts = {key: spec[key] for key in HASHED_PARTS if spec.get(key) is not None}
    spark = {key: value for key in HASHED_SPARK_PARTS if (value := (spec.get("spark") or {}).get(key)) is not None}
    return {**parts, "spark": spark}


def code_digest(spec: Mapping[str, Any]) -> str:
    """`sha256:…` over what a raw `spec` says of the code: its estimator, script or project.

    Two runs with the same digest ran the same pipeline, or the same script or project by its reference.
    """
    return f"sha256:{_digest({key: spec.get(key) for key in CODE_PARTS})}"


def _digest(parts: Mapping[str, Any]) -> str:
    canonical = json.dumps(_canonical(parts), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
