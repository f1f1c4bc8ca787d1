"""The API reference: one Markdown page per kind, from the same types as the CRDs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.api.v1alpha1.base import CEL_RULES, DOCUMENTED_DEFAULT, ApiModel
from lakeloop.api.v1alpha1.common import ANY_QUANTITY, CPU_QUANTITY, MEMORY_QUANTITY
from lakeloop.api.v1alpha1.defaults import EffectiveDeploymentSpec, EffectiveTrainingSpec
from lakeloop.api.v1alpha1.implemented import NOT_YET, NotYet
from lakeloop.codegen.crds import Resource
from lakeloop.codegen.schema import Schema, structural_schema

_EFFECTIVE: Mapping[str, type[ApiModel]] = {
    "TrainingJob": EffectiveTrainingSpec,
    "ModelDeployment": EffectiveDeploymentSpec,
}
_QUANTITIES = {CPU_QUANTITY: "CPU quantity", MEMORY_QUANTITY: "memory quantity", ANY_QUANTITY: "quantity"}
_NONE = "–"  # noqa: RUF001 (what the page shows where there is nothing)
_INTRODUCTION = (
    "Generated from the types in `operator/src/lakeloop/api`: change those and run `make generate`.\n\n"
    "Defaults are applied by the operator, not written into the object: what you did not write stays unwritten."
    f" `{_NONE}` means that there is no default. **required** fields must be written where the object around them is."
    " Fields marked **not yet** are refused by this release: see [what is not acted on yet](not-yet.md)."
)


def page(resource: Resource) -> str:
    """The reference of one kind."""
    spec = structural_schema(resource.spec)
    status = structural_schema(resource.status)
    parts = [
        f"# {resource.kind}",
        resource.description,
        f"`apiVersion: {API_VERSION}`, `kind: {resource.kind}`, short name `{resource.short_name}`.",
        _INTRODUCTION,
        "## Printed by `kubectl get`",
        _table(
            ("column", "what", "from"),
            (
                (
                    f"{column.name.upper()}{' (`-o wide`)' if column.priority else ''}",
                    column.description,
                    f"`{column.json_path}`",
                )
                for column in resource.columns
            ),
        ),
        "## spec",
        *_object("spec", spec, _EFFECTIVE[resource.kind], NOT_YET[resource.kind]),  # type: ignore[index]
        "## status",
        "Written by the operator alone.",
        *_object("status", status, None, ()),
    ]
    return "\n\n".join(parts) + "\n"


def not_yet_page(resources: tuple[Resource, ...]) -> str:
    """The page of what is refused."""
    parts = [
        "# What is not acted on yet",
        (
            "The API server takes these fields, since they are part of the API; the operator refuses an object that"
            " asks for them: `Stalled=True`, reason `NotImplemented`, with the path of the field. Nothing is ignored in"
            " silence. A field that only a newer CRD knows is refused in the same way."
        ),
        (
            "Every action of the API is done. One that cannot be is answered by an event, once, and recorded in"
            " `status.lastHandled`: reason `UnknownAction` for an annotation `lakeloop.io/…` that is no action at all,"
            " and `InvalidAction` for a value that is not in the action's form."
        ),
        "Generated from `operator/src/lakeloop/api/v1alpha1/implemented.py`.",
    ]
    for resource in resources:
        entries = NOT_YET[resource.kind]  # type: ignore[index]
        parts += [
            f"## {resource.kind}",
            _table(("field", "refused"), ((f"`spec.{entry.path}`", entry.what) for entry in entries))
            if entries
            else "Every field of this release's API is acted on.",
        ]
    return "\n\n".join(parts) + "\n"


def _object(path: str, schema: Schema, effective: type[BaseModel] | None, not_yet: tuple[NotYet, ...]) -> Iterator[str]:
    """The table of one object, then those of the objects in it."""
    required = set(schema.get("required", ()))
    rows = []
    nested: list[tuple[str, Schema, type[BaseModel] | None]] = []
    fields = {field.alias or name: field for name, field in (effective.model_fields if effective else {}).items()}
    for name, each in schema["properties"].items():
        field = fields.get(name)
        inner, suffix = _contained(each)
        if inner is not None:
            nested.append((f"{path}.{name}{suffix}", inner, _model_of(field)))
        row = (
            f"`{name}`",
            _type(each),
            "**required**" if name in required else _default(each, field),
            " ".join(filter(None, (each.get("description", ""), _bounds(each), _refused(f"{path}.{name}", not_yet)))),
        )
        rows.append(row if effective else (row[0], row[1], row[3]))
    yield _table(("field", "type", "default", "meaning") if effective else ("field", "type", "meaning"), rows)
    if messages := [each["message"] for each in schema.get(CEL_RULES, ())]:
        yield "Rules:\n\n" + "\n".join(f"- {message}" for message in messages)
    for inner_path, inner, model in nested:
        yield f"### {inner_path}"
        if inner.get("description"):
            yield str(inner["description"])
        yield from _object(inner_path, inner, model if effective else None, not_yet)


def _contained(schema: Schema) -> tuple[Schema | None, str]:
    if "properties" in schema:
        return schema, ""
    if "properties" in schema.get("items", {}):
        return schema["items"], "[]"
    return None, ""


def _model_of(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model in `X`, `X | None` or `tuple[X, ...]`."""

    def search(annotation: Any) -> type[BaseModel] | None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        return next((found for each in get_args(annotation) if (found := search(each))), None)

    return search(field.annotation) if field else None


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return _QUANTITIES[schema["pattern"]]
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return "object" if "type" in schema else "any"
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


def _default(schema: Schema, field: FieldInfo | None) -> str:
    if text := schema.get(DOCUMENTED_DEFAULT):
        return str(text)
    value = field.get_default(call_default_factory=True, validated_data={}) if field else None
    if value is None or isinstance(value, BaseModel) or value in ((), {}):
        return _NONE
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _bounds(schema: Schema) -> str:
    said = []
    if "minimum" in schema:
        said.append(f"{'above' if schema.get('exclusiveMinimum') else 'at least'} {_number(schema['minimum'])}")
    if "maximum" in schema:
        said.append(f"{'below' if schema.get('exclusiveMaximum') else 'at most'} {_number(schema['maximum'])}")
    for low, high, unit in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "entries"),
    ):
        if low in schema and high in schema:
            said.append(f"{schema[low]} to {schema[high]} {unit}")
        elif high in schema and not schema.get("x-kubernetes-int-or-string"):
            said.append(f"at most {schema[high]} {unit}")
    if "pattern" in schema and not schema.get("x-kubernetes-int-or-string"):
        pattern = schema["pattern"].replace("|", "\\|")
        said.append(f"matches `{pattern}`")
    return f"({'; '.join(said)})" if said else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _refused(path: str, not_yet: tuple[NotYet, ...]) -> str:
    for entry in not_yet:
        if path == f"spec.{entry.path}".replace("[*]", "[]"):
            return f"**Not yet**: {entry.what}."
    return ""


def _table(heads: tuple[str, ...], rows: Any) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
