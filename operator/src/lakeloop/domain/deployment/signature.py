"""Whether callers of one model can call another: their signatures, compared column by column.

Schemas are MLflow's (https://mlflow.org/docs/latest/ml/model/signatures): lists of columns, or tensors. A request that
the old model takes must be one that the new model takes, by the conversions that MLflow's schema enforcement allows; an
answer of the new model must be one that readers of the old one's understand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Part = Literal["input", "output", "parameter"]
Kind = Literal["added", "removed", "widened", "narrowed", "changed", "optional", "required"]

MOST_COLUMNS: Final = 10_000
"""Of one part. A server runs other people's models, and tells what it likes."""
_WIDER: Final = frozenset({("integer", "long"), ("integer", "double"), ("float", "double")})
"""What MLflow converts without loss: from what a caller sends to what the model wants."""
_WIDER_ANSWER: Final = frozenset({("integer", "long"), ("float", "double")})
"""As written in JSON, the answers look the same."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column, tensor or parameter."""

    name: str
    """Empty where the schema names none: the place counts then."""
    type: str
    """MLflow's name of the type; of a tensor `float64[-1, 3]`, of what is nested its whole description."""
    required: bool = True


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. None: it does not say."""

    inputs: tuple[Column, ...] | None = None
    outputs: tuple[Column, ...] | None = None
    parameters: tuple[Column, ...] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two signatures."""

    part: Part
    kind: Kind
    column: str
    told: str
    breaking: bool
    """Whether a caller of the old model may not get what it is used to."""

    def __str__(self) -> str:
        return f"{self.part} {self.column} {self.told}"


def parse_signature(raw: Any) -> Signature | None:
    """A signature as model servers tell it, `{inputs, outputs, params}`; None where it is not one."""
    if not isinstance(raw, Mapping):
        return None
    try:
        return Signature(_columns(raw.get("inputs")), _columns(raw.get("outputs")), _columns(raw.get("params")))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return None


def compare(old: Signature, new: Signature) -> list[Change]:
    """What differs, in the order of the columns; nothing is said of a part that one of the two does not describe."""
    found: list[Change] = []
    if old.inputs is not None and new.inputs is not None:
        found += _asked("input", old.inputs, new.inputs)
    if old.parameters is not None and new.parameters is not None:
        found += _asked("parameter", old.parameters, new.parameters)
    if old.outputs is not None and new.outputs is not None:
        found += _answered(old.outputs, new.outputs)
    return found


def _asked(part: Part, old: Sequence[Column], new: Sequence[Column]) -> list[Change]:
    """What callers send. What the new model does not know of is dropped by MLflow, and harms nobody."""
    before, after = _by_name(old), _by_name(new)
    changes: list[Change] = []
    for name, column in before.items():
        if name not in after:
            # By place alone, nothing can be dropped: every request has one value too many.
            changes.append(Change(part, "removed", name, "is not taken any more", breaking=not column.name))
            continue
        wanted = after[name]
        changes += _retyped(part, name, column.type, wanted.type, _WIDER)
        if column.required and not wanted.required:
            changes.append(Change(part, "optional", name, "may be left out", breaking=False))
        elif wanted.required and not column.required:
            changes.append(Change(part, "required", name, "must not be left out any more", breaking=True))
    for name, column in after.items():
        if name not in before:
            must = column.required and part == "input"
            told = f"is new ({column.type})" + (" and required" if must else "")
            changes.append(Change(part, "added", name, told, breaking=must))
    return changes


def _answered(old: Sequence[Column], new: Sequence[Column]) -> list[Change]:
    before, after = _by_name(old), _by_name(new)
    changes: list[Change] = []
    for name, column in before.items():
        if name not in after:
            changes.append(Change("output", "removed", name, "is not given any more", breaking=True))
        else:
            changes += _retyped("output", name, column.type, after[name].type, _WIDER_ANSWER)
    for name, column in after.items():
        if name not in before:
            changes.append(Change("output", "added", name, f"is new ({column.type})", breaking=not column.name))
    return changes


def _retyped(part: Part, name: str, old: str, new: str, wider: frozenset[tuple[str, str]]) -> list[Change]:
    if old == new:
        return []
    told = f"was {old} and is {new}"
    if (old, new) in wider or _any_shape(old, new):
        return [Change(part, "widened", name, told, breaking=False)]
    return [Change(part, "narrowed" if (new, old) in wider else "changed", name, told, breaking=True)]


def _any_shape(old: str, new: str) -> bool:
    """Whether the new tensor takes every one of the old one: the same type, and no dimension fixed that was free."""
    (was, _, was_shape), (now, _, now_shape) = (each.rstrip("]").partition("[") for each in (old, new))
    before, after = was_shape.split(", "), now_shape.split(", ")
    same = bool(was_shape and now_shape) and was == now and len(before) == len(after)
    return same and all(have == want or want == "-1" for have, want in zip(before, after, strict=True))


def _by_name(columns: Sequence[Column]) -> dict[str, Column]:
    return {column.name or f"number {place + 1}": column for place, column in enumerate(columns)}


def _columns(raw: Any) -> tuple[Column, ...] | None:
    if raw is None:
        return None
    if not isinstance(raw, list) or len(raw) > MOST_COLUMNS:
        raise ValueError("no list of columns")
    return tuple(_column(each) for each in raw)


def _column(raw: Mapping[str, Any]) -> Column:
    name, required = raw.get("name"), raw.get("required", True)
    if not isinstance(required, bool):
        raise TypeError("required is no boolean")
    return Column("" if name is None else str(name), _type(raw), required)


def _type(raw: Mapping[str, Any]) -> str:
    kind = str(raw["type"])
    if kind == "tensor":
        spec = raw["tensor-spec"]
        return f"{spec['dtype']}[{', '.join(str(int(each)) for each in spec['shape'])}]"
    if kind in ("array", "map"):
        return f"{kind}<{_type(raw['items' if kind == 'array' else 'values'])}>"
    if kind == "object":
        fields = sorted(raw["properties"].items())
        told = (f"{key}{'' if each.get('required', True) else '?'}: {_type(each)}" for key, each in fields)
        return f"object<{', '.join(told)}>"
    shape = raw.get("shape")  # of a parameter that is a list
    return kind if shape is None else f"{kind}[{', '.join(str(int(each)) for each in shape)}]"
