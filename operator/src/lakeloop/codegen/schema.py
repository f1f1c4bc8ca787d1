"""From a pydantic model to a structural OpenAPI schema, as `apiextensions.k8s.io/v1` wants it.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from collections.abc import Mapping
from typing import Any

from lakeloop.api.v1alpha1.base import CEL_RULES, DOCUMENTED_DEFAULT, ApiModel

Schema = dict[str, Any]

_KEPT = frozenset(
    {
        "description",
        "type",
        "format",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "minimum",
        "maximum",
        "oneOf",
        "required",
        CEL_RULES,
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
    }
)
_DROPPED = frozenset({"title", "default", "$defs"})
_FORMATS = {"integer": "int64", "number": "double"}


def structural_schema(model: type[ApiModel]) -> Schema:
    """The model's schema: references inlined, optional fields not nullable, no defaults. Keeps `x-lakeloop-default`,
    which `without_notes` takes out. Raises ValueError for a JSON schema keyword that Kubernetes has no word for."""
    schema = model.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def without_notes(schema: Any) -> Any:
    """The schema without what only the reference needs."""
    if isinstance(schema, dict):
        return {key: without_notes(value) for key, value in schema.items() if key != DOCUMENTED_DEFAULT}
    if isinstance(schema, list):
        return [without_notes(item) for item in schema]
    return schema


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    result: Schema = {}
    for inner in _inner(schema):
        result = _merged(result, _structural(definitions[inner] if isinstance(inner, str) else inner, definitions))
    own: Schema = {}
    for key, value in schema.items():
        match key:
            case "$ref" | "allOf":
                pass
            case "anyOf":
                if schema.get("x-kubernetes-int-or-string"):
                    own[key] = value
            case "const":
                own |= {"type": "string", "enum": [value]}
            case "items":
                own[key] = _structural(value, definitions)
            case "properties":
                own[key] = {name: _structural(each, definitions) for name, each in value.items()}
            case "additionalProperties":
                if isinstance(value, Mapping):
                    own[key] = _structural(value, definitions)
            case "exclusiveMinimum" | "exclusiveMaximum":
                own |= {"minimum" if key == "exclusiveMinimum" else "maximum": value, key: True}
            case _ if key in _KEPT or key == DOCUMENTED_DEFAULT:
                own[key] = value
            case _ if key not in _DROPPED:
                raise ValueError(f"a CRD cannot say {key!r}: {value!r}")
    result = _merged(result, own)
    if result.get("type") in _FORMATS:
        result.setdefault("format", _FORMATS[result["type"]])
    return result


def _inner(schema: Mapping[str, Any]) -> list[Any]:
    """What the schema is made of beside its own keywords: a definition's name, or schemas."""
    if "$ref" in schema:
        return [schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
        chosen = [each for each in schema["anyOf"] if each.get("type") != "null"]
        if len(chosen) != 1:
            raise ValueError(f"a structural schema has one type, not {chosen}")
        return chosen
    return list(schema.get("allOf", []))


def _merged(base: Schema, over: Schema) -> Schema:
    rules = [*base.get(CEL_RULES, []), *over.get(CEL_RULES, [])]
    return base | over | ({CEL_RULES: rules} if rules else {})
