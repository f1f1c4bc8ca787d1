"""Numbers read from JSON: what is taken is what Python's own reader makes of it, to the last bit."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakeloop_server.numeric import reader
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import Array, DataType

DOUBLE = reader(Schema([ColSpec("double", "x")]))
assert DOUBLE is not None
literals = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(literals | st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers().map(str))
def test_a_number_is_the_one_that_python_reads(literal: str) -> None:
    found = DOUBLE(f'{{"inputs":[{literal}]}}'.encode())
    if found is not None:
        assert found.tobytes() == np.array([json.loads(literal)], dtype=np.float64).tobytes()


@given(st.floats(-1e15, 1e15).map(repr) | st.integers(-(2**53) + 1, 2**53 - 1).map(str))
def test_numbers_of_usual_size_are_taken(literal: str) -> None:
    assert DOUBLE(f'{{"inputs":[{literal}]}}'.encode()) is not None


@pytest.mark.parametrize(
    ("literal", "taken"),
    [
        ("9007199254740991", True),
        ("9007199254740992", False),
        ("-0", False),
        ("-0.0", True),
        ("1e-05", True),
        ("1e-0", True),
        ("1e16", False),
        ("18446744073709551616", False),
        ("NaN", False),
        ("1e999", False),
    ],
)
def test_where_certainty_ends(literal: str, taken: bool) -> None:
    assert (DOUBLE(f'{{"inputs":[{literal}]}}'.encode()) is not None) == taken


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([ColSpec("string", "x")], id="text"),
        pytest.param([ColSpec("double", "x"), ColSpec("boolean", "y")], id="a flag"),
        pytest.param([ColSpec(Array(DataType.double), "x")], id="lists"),
        pytest.param([ColSpec("double")], id="no name"),
        pytest.param([TensorSpec(np.dtype("float64"), (-1, 2), "x")], id="a named tensor"),
        pytest.param([TensorSpec(np.dtype("float64"), (-1, -1))], id="any width"),
        pytest.param([TensorSpec(np.dtype("float64"), (-1, 2, 2))], id="a cube"),
        pytest.param([TensorSpec(np.dtype("uint8"), (-1, 2))], id="bytes"),
        pytest.param([TensorSpec(np.dtype("float64"), (3, 2))], id="a fixed number of rows"),
    ],
)
def test_other_signatures_have_no_reader(inputs: Any) -> None:
    assert reader(Schema(inputs)) is None


def test_no_signature_has_no_reader() -> None:
    assert reader(None) is None


def test_rows_lie_in_memory_as_those_of_a_table_do() -> None:
    """Column by column; a matrix row by row."""
    table = reader(Schema([ColSpec("double", "a"), ColSpec("double", "b")]))
    matrix = reader(Schema([TensorSpec(np.dtype("float64"), (-1, 2))]))
    assert table is not None
    assert matrix is not None
    for body in (
        b'{"dataframe_split":{"columns":["a","b"],"data":[[1,2],[3,4]]}}',
        b'{"dataframe_split":{"columns":["b","a"],"data":[[2,1],[4,3]]}}',
        b'{"dataframe_records":[{"a":1,"b":2},{"b":4,"a":3}]}',
        b'{"inputs":{"b":[2,4],"a":[1,3]}}',
    ):
        rows = table(body)
        assert rows is not None
        assert rows.tolist() == [[1, 2], [3, 4]]
        assert rows.flags.f_contiguous
    rows = matrix(b'{"inputs":[[1,2],[3,4]]}')
    assert rows is not None
    assert rows.flags.c_contiguous
