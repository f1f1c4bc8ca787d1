"""What every type of the API is made of: a base model, schema markers, parsing that names the wrong field."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

CEL_RULES = "x-kubernetes-validations"
DOCUMENTED_DEFAULT = "x-lakeloop-default"
"""Marks what the reference says a field defaults to, where no constant can say it. Left out of the CRD."""
MAX_DEPTH = 64
"""Levels that `spec` may be nested, where the schema leaves the shape open. pydantic gives up at 255."""


class InvalidObject(ValueError):
    """An object that is not of its kind's shape. `path` is the field, such as `spec.inputs[0].version`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


class ApiModel(BaseModel):
    """A part of a resource: camelCase on the wire, snake_case here, immutable, None where nothing was written.

    Unknown fields are ignored, so that an operator next to a newer CRD keeps working; `strict` parsing refuses them.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", protected_namespaces=()
    )

    def wire(self) -> dict[str, Any]:
        """The JSON-able form that goes to the API server: camelCase keys, nothing where None, times in RFC 3339."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def parse(cls, value: Mapping[str, Any], *, strict: bool = False) -> Self:
        """Reads the wire form. Raises InvalidObject for the first wrong field; with `strict`, an unknown one too."""
        try:
            return cls.model_validate(value, extra="forbid" if strict else "ignore", by_alias=True, by_name=False)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            raise InvalidObject(field_path(first["loc"]), first["msg"]) from error


class ObjectMeta(ApiModel):
    """The part of `metadata` that the operator looks at."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)


def with_known_metadata(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object with `metadata` cut down to what ObjectMeta knows, so that strict parsing sees our own fields only."""
    known = {field.alias for field in ObjectMeta.model_fields.values()}
    metadata = obj.get("metadata")
    if isinstance(metadata, Mapping):
        metadata = {key: value for key, value in metadata.items() if key in known}
    return {**obj, "metadata": metadata}


def check_depth(obj: Mapping[str, Any]) -> None:
    """Raises InvalidObject where `spec` is nested more than MAX_DEPTH levels. Does not recurse itself."""
    waiting: list[tuple[Any, tuple[int | str, ...]]] = [(obj.get("spec"), ("spec",))]
    while waiting:
        value, location = waiting.pop()
        if len(location) > MAX_DEPTH:
            raise InvalidObject(
                field_path(location[:6]), f"is nested more than {MAX_DEPTH} levels deep: write it flatter"
            )
        if isinstance(value, Mapping):
            waiting += [
                (item, (*location, str(key))) for key, item in value.items() if isinstance(item, Mapping | list)
            ]
        elif isinstance(value, list):
            waiting += [(item, (*location, at)) for at, item in enumerate(value) if isinstance(item, Mapping | list)]


def field_path(location: tuple[int | str, ...]) -> str:
    """`("spec", "inputs", 0, "version")` → `spec.inputs[0].version`; the empty location is `.`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or "."


def rule(expression: str, message: str, *, field: str | None = None) -> JsonDict:
    """One CEL rule. `message` says what to write; `field` is the path below `self` that it complains of."""
    return {"rule": expression, "message": message, **({"fieldPath": field} if field else {})}


def rules(*each: JsonDict) -> ConfigDict:
    """The `model_config` of a type with cross-field rules, which the API server enforces."""
    return ConfigDict(json_schema_extra={CEL_RULES: list(each)})


def list_map(*keys: str) -> dict[str, Any]:
    """Marks a list whose items are told apart by these keys, for merging by server-side apply."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
"""Marks a list that is replaced as a whole."""


def default_text(text: str) -> dict[str, Any]:
    """What the reference says of a default that is not a constant."""
    return {DOCUMENTED_DEFAULT: text}
