"""Which changes of a signature break callers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeloop.domain.deployment.signature import Column, Signature, compare, parse_signature


def column(kind: str, name: str = "x", *, required: bool = True) -> dict[str, Any]:
    return {"type": kind, "name": name, "required": required}


def tensor(dtype: str, *shape: int) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}


X, Y = column("double"), column("double", "y")
CASES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[str, bool]]]] = {
    "the same": ([X, Y], [X, Y], []),
    "another order": ([X, Y], [Y, X], []),
    "a new column that is needed": ([X], [X, Y], [("input y is new (double) and required", True)]),
    "a new column that may be left out": (
        [X],
        [X, column("double", "y", required=False)],
        [("input y is new (double)", False)],
    ),
    "a column that is not taken any more": ([X, Y], [X], [("input y is not taken any more", False)]),
    "widened": ([column("integer")], [column("long")], [("input x was integer and is long", False)]),
    "an integer for a double": (
        [column("integer")],
        [column("double")],
        [("input x was integer and is double", False)],
    ),
    "narrowed": ([column("double")], [column("float")], [("input x was double and is float", True)]),
    "a long has more digits than a double": ([column("long")], [X], [("input x was long and is double", True)]),
    "another type": ([X], [column("string")], [("input x was double and is string", True)]),
    "may be left out": ([X], [column("double", required=False)], [("input x may be left out", False)]),
    "needed": ([column("double", required=False)], [X], [("input x must not be left out any more", True)]),
    "unnamed, one fewer": (
        [{"type": "double"}, {"type": "double"}],
        [{"type": "double"}],
        [("input number 2 is not taken any more", True)],
    ),
    "tensor of any batch": (
        [tensor("float64", 8, 3)],
        [tensor("float64", -1, 3)],
        [("input number 1 was float64[8, 3] and is float64[-1, 3]", False)],
    ),
    "tensor of one batch": (
        [tensor("float64", -1, 3)],
        [tensor("float64", 8, 3)],
        [("input number 1 was float64[-1, 3] and is float64[8, 3]", True)],
    ),
    "tensor of more columns": (
        [tensor("float64", -1, 3)],
        [tensor("float64", -1, 4)],
        [("input number 1 was float64[-1, 3] and is float64[-1, 4]", True)],
    ),
    "array of another type": (
        [{"type": "array", "items": {"type": "long"}, "name": "a"}],
        [{"type": "array", "items": {"type": "string"}, "name": "a"}],
        [("input a was array<long> and is array<string>", True)],
    ),
}
ANSWERS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[str, bool]]]] = {
    "the same": ([{"type": "long"}], [{"type": "long"}], []),
    "longer": ([column("integer")], [column("long")], [("output x was integer and is long", False)]),
    "with a point": ([column("long")], [X], [("output x was long and is double", True)]),
    "one more, with a name": ([X], [X, Y], [("output y is new (double)", False)]),
    "one fewer": ([X, Y], [X], [("output y is not given any more", True)]),
}


def parsed(part: str, columns: list[dict[str, Any]]) -> Signature:
    found = parse_signature({part: columns})
    assert found is not None
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_callers_send(name: str) -> None:
    old, new, changes = CASES[name]
    found = compare(parsed("inputs", old), parsed("inputs", new))
    assert [(str(each), each.breaking) for each in found] == changes


@pytest.mark.parametrize("name", ANSWERS)
def test_what_callers_get(name: str) -> None:
    old, new, changes = ANSWERS[name]
    found = compare(parsed("outputs", old), parsed("outputs", new))
    assert [(str(each), each.breaking) for each in found] == changes


def test_parameters_have_defaults() -> None:
    old, new = [{"name": "t", "type": "double", "default": 1.0, "shape": None}], [{"name": "k", "type": "long"}]
    found = compare(parsed("params", old), parsed("params", new))
    assert [(str(each), each.breaking) for each in found] == [
        ("parameter t is not taken any more", False),
        ("parameter k is new (long)", False),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "text",
        {"inputs": "text"},
        {"inputs": [{}]},
        {"inputs": [{"type": "tensor"}]},
        {"inputs": [{"type": "x"}] * 10_001},
    ],
)
def test_what_is_no_signature(raw: object) -> None:
    assert parse_signature(raw) is None


def test_nesting_without_end() -> None:
    raw: dict[str, Any] = {"type": "long"}
    for _ in range(5000):
        raw = {"type": "array", "items": raw}
    assert parse_signature({"inputs": [raw]}) is None


def test_parts_that_one_does_not_describe() -> None:
    assert compare(Signature(inputs=(Column("x", "double"),)), Signature(outputs=(Column("y", "long"),))) == []


columns = st.lists(
    st.builds(
        column,
        st.sampled_from(["integer", "long", "float", "double", "string", "boolean", "datetime"]),
        st.sampled_from(["a", "b", "c", "d"]),
        required=st.booleans(),
    ),
    min_size=1,
    unique_by=lambda each: each["name"],
)


@given(columns)
def test_a_signature_is_compatible_with_itself(written: list[dict[str, Any]]) -> None:
    one = parse_signature({"inputs": written, "outputs": written, "params": written})
    assert one is not None
    assert compare(one, one) == []


@given(columns, columns, columns)
def test_what_breaks_nobody_twice_breaks_nobody_in_one_go(
    first: list[dict[str, Any]], second: list[dict[str, Any]], third: list[dict[str, Any]]
) -> None:
    """Unless a column went meanwhile and came back: who sends it still may send what it was."""
    one, two, three = (parsed("inputs", each) for each in (first, second, third))
    if any(each.breaking for each in [*compare(one, two), *compare(two, three)]):
        return
    gone = {each["name"] for each in first} - {each["name"] for each in second}
    assert [each for each in compare(one, three) if each.breaking and each.column not in gone] == []
