"""The run's result: what the operator reads from the pod's termination message.

Kubernetes keeps at most 4,096 bytes of it, so a long result loses its metrics first (MLflow has them all), then the
expectations, then the end of its message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lakeloop_trainer.failures import RunFailure

MAX_BYTES = 4096


@dataclass(frozen=True)
class Outcome:
    """What became of a run: a failure, or a model with its metrics."""

    uid: str
    attempt: int
    inputs: Sequence[Mapping[str, Any]] = ()
    """``{"name", "version"}`` of each input whose version is known."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    objective: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None
    champion: Mapping[str, Any] | None = None
    """The version that the model was compared with; see `champion.Comparison`."""
    search: Mapping[str, Any] | None = None
    """What a search came to, where there was one."""
    failure: RunFailure | None = None
    expectations: Sequence[Mapping[str, Any]] = ()
    """``{"name", "violations", "rows"}`` of each expectation that was checked."""

    def document(self) -> dict[str, Any]:
        """The whole result, as JSON values."""
        document: dict[str, Any] = {
            "uid": self.uid,
            "attempt": self.attempt,
            "outcome": "Failed" if self.failure else "Succeeded",
            "inputs": [dict(item) for item in self.inputs],
        }
        if self.expectations:
            document["expectations"] = [dict(item) for item in self.expectations]
        if self.failure:
            document["failure"] = {
                "class": self.failure.failure_class,
                "reason": self.failure.reason,
                "field": self.failure.field,
                "message": self.failure.message,
            }
            return document
        document["metrics"] = dict(self.metrics)
        document["objective"] = dict(self.objective) if self.objective else None
        document["model"] = dict(self.model) if self.model else None
        document["champion"] = dict(self.champion) if self.champion else None
        if self.search:
            document["search"] = dict(self.search)
        return document


def termination_message(document: Mapping[str, Any], limit: int = MAX_BYTES) -> str:
    """The document as JSON of at most ``limit`` bytes of UTF-8."""
    fitted = json.loads(json.dumps(document))
    if _size(fitted) > limit:
        fitted.pop("metrics", None)
    if _size(fitted) > limit and "expectations" in fitted:
        fitted["expectations"] = None  # where they were, so that the operator looks for them in MLflow
    if _size(fitted) > limit and "search" in fitted:
        fitted["search"]["best"]["params"] = {}
    failure = fitted.get("failure")
    if failure and _size(fitted) > limit:
        message = str(failure["message"])
        low, high = 0, len(message)
        while low < high:  # the longest beginning that fits
            middle = (low + high + 1) // 2
            failure["message"] = message[:middle] + "…"
            low, high = (middle, high) if _size(fitted) <= limit else (low, middle - 1)
        failure["message"] = message[:low] + "…"
    return _encode(fitted)


def _encode(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _size(document: Mapping[str, Any]) -> int:
    return len(_encode(document).encode())
