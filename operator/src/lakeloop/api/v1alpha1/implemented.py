"""Which fields this release acts on. The others are refused (`Stalled`, reason `NotImplemented`), not ignored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from lakeloop.api.v1alpha1.base import field_path
from lakeloop.api.v1alpha1.modeldeployment import ModelDeploymentSpec
from lakeloop.api.v1alpha1.trainingjob import TrainingJobSpec

Kind = Literal["TrainingJob", "ModelDeployment"]
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class NotYet:
    """A field that is not acted on. `when` tells from the written value whether it asks for something."""

    path: str
    """Below `spec`; `[*]` stands for every item of a list."""
    what: str
    """What is refused, for the docs: a value, or `any`."""
    when: Callable[[Any], bool]
    of: Callable[[Mapping[str, Any]], bool] = lambda _: True
    """The same of the whole spec."""


def _any(path: str) -> NotYet:
    return NotYet(path, "any", lambda _: True)


def _some(path: str) -> NotYet:
    return NotYet(path, "anything but empty", bool)


def _value(path: str, *values: Any) -> NotYet:
    return NotYet(path, ", ".join(f"`{_text(value)}`" for value in values), lambda written: written in values)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _canary(spec: Mapping[str, Any]) -> bool:
    return (spec.get("strategy") or {}).get("type") == "Canary"


NOT_YET: Mapping[Kind, tuple[NotYet, ...]] = {
    "TrainingJob": (),
    "ModelDeployment": (
        _any("autoscaling"),
        _any("gates.replay"),
        _any("strategy.preview"),
        _any("analysis.metrics[*].query"),
        NotYet(
            "analysis", "with another `strategy.type` than `Canary`", lambda _: True, lambda spec: not _canary(spec)
        ),
        _any("shadow"),
        _any("route"),
        _any("capture"),
        _any("drift"),
    ),
}

_SPECS: Mapping[Kind, type[TrainingJobSpec] | type[ModelDeploymentSpec]] = {
    "TrainingJob": TrainingJobSpec,
    "ModelDeployment": ModelDeploymentSpec,
}


def unimplemented_fields(kind: Kind, spec: Mapping[str, Any]) -> list[str]:
    """Paths (`spec.inputs[0].ingest.mode`) of what the raw spec asks for and this release does not do, in order.

    Fields that this release has never heard of, because the CRD is newer than the operator, are among them.
    """
    known = [
        f"spec.{path}"
        for entry in NOT_YET[kind]
        for path, written in _written(spec, entry.path)
        if written is not None and entry.when(written) and entry.of(spec)
    ]
    return known + _unknown(kind, spec)


def _written(value: Any, path: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    head, _, rest = path.partition(".")
    name = head.removesuffix("[*]")
    found = value.get(name, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    if found is _ABSENT:
        return
    here = f"{prefix}.{name}" if prefix else name
    several = enumerate(found) if head != name and isinstance(found, list) else None
    for where, item in [(here, found)] if several is None else [(f"{here}[{i}]", each) for i, each in several]:
        if rest:
            yield from _written(item, rest, where)
        else:
            yield where, item


def _unknown(kind: Kind, spec: Mapping[str, Any]) -> list[str]:
    try:
        _SPECS[kind].model_validate(spec, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        return [
            field_path(("spec", *each["loc"]))
            for each in error.errors(include_url=False, include_context=False, include_input=False)
            if each["type"] == "extra_forbidden"
        ]
    return []
