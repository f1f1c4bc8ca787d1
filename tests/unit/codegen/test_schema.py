"""From a model to a structural schema."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from lakeloop.api.v1alpha1.base import ATOMIC, ApiModel, default_text, list_map, rule, rules
from lakeloop.api.v1alpha1.common import CpuQuantity, FreeForm, FreeValue, Time
from lakeloop.codegen.schema import structural_schema, without_notes


class Part(ApiModel):
    """A part."""

    model_config = rules(rule("has(self.partName)", "write it"))

    part_name: Annotated[str, Field(max_length=3, pattern="^a$")] = Field(description="Its name.")


class Whole(ApiModel):
    """A whole."""

    count: Annotated[int, Field(ge=0)] | None = Field(default=None, json_schema_extra=default_text("three"))
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    choice: Literal["A", "B"] | None = None
    one: Literal["Only"] | None = None
    part: Part | None = Field(default=None, description="The part.")
    parts: Annotated[tuple[Part, ...], Field(max_length=2, json_schema_extra=list_map("partName"))] | None = None
    words: Annotated[tuple[str, ...], Field(min_length=1, json_schema_extra=ATOMIC)] | None = None
    tags: Annotated[dict[str, Annotated[str, Field(max_length=9)]], Field(max_length=4)] | None = None
    cpu: CpuQuantity | None = None
    free: FreeForm | None = None
    value: FreeValue | None = None
    when: Time | None = None


PART = {
    "type": "object",
    "required": ["partName"],
    "x-kubernetes-validations": [{"rule": "has(self.partName)", "message": "write it"}],
    "properties": {"partName": {"type": "string", "description": "Its name.", "maxLength": 3, "pattern": "^a$"}},
}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("count", {"type": "integer", "format": "int64", "minimum": 0}),
        (
            "share",
            {
                "type": "number",
                "format": "double",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
            },
        ),
        ("choice", {"type": "string", "enum": ["A", "B"]}),
        ("one", {"type": "string", "enum": ["Only"]}),
        ("part", PART | {"description": "The part."}),
        (
            "parts",
            {
                "type": "array",
                "items": PART | {"description": "A part."},
                "maxItems": 2,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["partName"],
            },
        ),
        ("words", {"type": "array", "items": {"type": "string"}, "minItems": 1, "x-kubernetes-list-type": "atomic"}),
        (
            "tags",
            {"type": "object", "additionalProperties": {"type": "string", "maxLength": 9}, "maxProperties": 4},
        ),
        ("free", {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        ("value", {"x-kubernetes-preserve-unknown-fields": True}),
        ("when", {"type": "string", "format": "date-time"}),
    ],
)
def test_field(field: str, expected: dict[str, Any]) -> None:
    assert without_notes(structural_schema(Whole))["properties"][field] == expected


def test_quantity_takes_a_bare_number() -> None:
    schema = structural_schema(Whole)["properties"]["cpu"]
    assert schema["x-kubernetes-int-or-string"] is True
    assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert "type" not in schema


def test_documented_default_is_for_the_reference_alone() -> None:
    schema = structural_schema(Whole)
    assert schema["properties"]["count"]["x-lakeloop-default"] == "three"
    assert "x-lakeloop-default" not in str(without_notes(schema))


class TwoTypes(ApiModel):
    either: int | str


class NoWord(ApiModel):
    number: Annotated[int, Field(multiple_of=3)]


@pytest.mark.parametrize("model", [TwoTypes, NoWord])
def test_what_a_crd_cannot_say_is_an_error(model: type[ApiModel]) -> None:
    with pytest.raises(ValueError, match=r"one type|multipleOf"):
        structural_schema(model)
