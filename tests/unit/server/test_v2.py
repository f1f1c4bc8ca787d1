"""Tensors of the Open Inference Protocol to model input, and predictions to tensors."""

import contextlib
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from lakeloop_server.errors import RequestError
from lakeloop_server.v2 import encode_outputs, parse_infer, synthetic_input, tensor_metadata, to_model_input
from mlflow.models.utils import _enforce_schema
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, DataType, Map, Object, Property

COLUMNS = Schema([ColSpec("double", "a"), ColSpec("string", "b", required=False)])
OBJECT = Schema([ColSpec(Object([Property("p", DataType.string)]), "o"), ColSpec(Array(DataType.double), "xs")])
UNNAMED = Schema([ColSpec("double"), ColSpec("double")])
MATRIX = Schema([TensorSpec(np.dtype("float32"), (-1, 2))])
NAMED_TENSORS = Schema([TensorSpec(np.dtype("int64"), (-1,), "ids"), TensorSpec(np.dtype("bool"), (-1, 2), "mask")])


def tensor(
    name: str = "a", datatype: str = "FP64", data: Any = (1.0,), shape: Any = None, **more: Any
) -> dict[str, Any]:
    data = list(data) if isinstance(data, tuple) else data
    return {"name": name, "datatype": datatype, "shape": [len(data)] if shape is None else shape, "data": data, **more}


def parse(*inputs: Any, schema: Schema | None = COLUMNS, **more: Any) -> Any:
    return read({"inputs": list(inputs), **more}, schema)


def read(payload: Any, schema: Schema | None) -> Any:
    return to_model_input(parse_infer(payload, None).tensors, schema)


@pytest.mark.parametrize(
    ("datatype", "dtype", "value"),
    [
        ("BOOL", "bool", True),
        ("UINT8", "uint8", 255),
        ("UINT16", "uint16", 1),
        ("UINT32", "uint32", 1),
        ("UINT64", "uint64", 2**64 - 1),
        ("INT8", "int8", -128),
        ("INT16", "int16", -1),
        ("INT32", "int32", -1),
        ("INT64", "int64", -(2**63)),
        ("FP16", "float16", 0.5),
        ("FP32", "float32", 0.5),
        ("FP64", "float64", 0.1),
        ("BYTES", "object", "x"),
    ],
)
def test_every_datatype_there_and_back(datatype: str, dtype: str, value: Any) -> None:
    data = parse(tensor("x", datatype, (value,), [1, 1]), schema=None)
    assert data.dtype == np.dtype(dtype)
    assert encode_outputs(data, None, ()) == [
        {"name": "predictions", "datatype": datatype, "shape": [1, 1], "data": [value]}
    ]


def test_columns_become_a_frame() -> None:
    frame = parse(tensor("a", data=(1, 2.5)), tensor("b", "BYTES", ("x", None), [2, 1]))
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"a": [1.0, 2.5], "b": np.array(["x", None], dtype=object)}))


def test_columns_without_names_go_by_position() -> None:
    assert parse(tensor("x"), tensor("y", data=(2,)), schema=UNNAMED).columns.tolist() == [0, 1]


def test_columns_of_lists_and_objects() -> None:
    """Lists of numbers as a matrix, all else as JSON: the protocol has no type for them."""
    frame = parse(tensor("o", "BYTES", ('{"p": "x"}',)), tensor("xs", data=(1, 2), shape=[1, 2]), schema=OBJECT)
    assert frame.to_dict("records") == [{"o": {"p": "x"}, "xs": [1.0, 2.0]}]
    assert parse(tensor("xs", "BYTES", ("[1, 2]",)), schema=OBJECT)["xs"].tolist() == [[1, 2]]
    _enforce_schema(frame, OBJECT)


@pytest.mark.parametrize(
    ("dtype", "text", "value"), [("str", "é", "é"), ("datetime64[ns]", "2020-01-02", np.datetime64("2020-01-02"))]
)
def test_tensors_of_text(dtype: str, text: str, value: Any) -> None:
    schema = Schema([TensorSpec(np.dtype(dtype), (-1,))])
    data = parse(tensor("x", "BYTES", (text,)), schema=schema)
    assert data.tolist() == np.array([value], dtype=dtype).tolist()
    _enforce_schema(data, schema)


def test_a_tensor_of_text_that_is_no_date() -> None:
    with pytest.raises(RequestError, match="datetime64"):
        parse(tensor("x", "BYTES", ("soon",)), schema=Schema([TensorSpec(np.dtype("datetime64[ns]"), (-1,))]))


def test_null_is_not_a_number() -> None:
    assert math.isnan(parse(tensor("a", data=(None,)))["a"][0])


def test_nested_and_flat_data_are_the_same() -> None:
    flat = parse(tensor("x", data=[1, 2, 3, 4], shape=[2, 2]), schema=MATRIX)
    nested = parse(tensor("x", data=[[1, 2], [3, 4]], shape=[2, 2]), schema=MATRIX)
    assert flat.tolist() == nested.tolist() == [[1, 2], [3, 4]]


def test_named_tensors_go_by_name() -> None:
    data = parse(tensor("ids", "INT64", (1,)), tensor("mask", "BOOL", (True, False), [1, 2]), schema=NAMED_TENSORS)
    assert {name: array.shape for name, array in data.items()} == {"ids": (1,), "mask": (1, 2)}


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        pytest.param([], "object", id="list"),
        pytest.param({}, "inputs", id="no inputs"),
        pytest.param({"inputs": []}, "inputs", id="empty inputs"),
        pytest.param({"inputs": [1]}, r"inputs\[0\] must be an object", id="not a tensor"),
        pytest.param({"inputs": [tensor("")]}, "name", id="no name"),
        pytest.param({"inputs": [tensor(), tensor()]}, "used twice", id="twice"),
        pytest.param({"inputs": [tensor(datatype="FLOAT")]}, "datatype", id="datatype"),
        pytest.param({"inputs": [tensor(datatype=["FP64"])]}, "datatype", id="datatype as list"),
        pytest.param({"inputs": [tensor(shape="1")]}, "shape", id="shape"),
        pytest.param({"inputs": [tensor(shape=[-1])]}, "shape", id="negative shape"),
        pytest.param({"inputs": [tensor(shape=[True])]}, "shape", id="boolean shape"),
        pytest.param({"inputs": [tensor(shape=[2])]}, "has 1 values, but its shape asks for 2", id="shape and data"),
        pytest.param({"inputs": [tensor(shape=[10**30])]}, "asks for", id="huge shape"),
        pytest.param({"inputs": [tensor(data=[], shape=[0, 10**30])]}, "larger ones", id="huge shape of nothing"),
        pytest.param({"inputs": [tensor(shape=[1] * 65)]}, "more dimensions", id="65 dimensions"),
        pytest.param({"inputs": [tensor("o", "BYTES", ("{hunter2",))]}, "'o' must hold JSON", id="not JSON"),
        pytest.param({"inputs": [tensor("o", "BYTES", ("[" * 9999,))]}, "'o' must hold JSON", id="deep JSON"),
        pytest.param({"inputs": [tensor(data="x", shape=[1])]}, "list", id="data"),
        pytest.param({"inputs": [tensor(data=("hunter2",))]}, "not FP64", id="text"),
        pytest.param({"inputs": [tensor(data=(True,))]}, "not FP64", id="boolean for number"),
        pytest.param({"inputs": [tensor(data=[[1], 2])]}, "not FP64", id="ragged"),
        pytest.param({"inputs": [tensor(datatype="INT8", data=(300,))]}, "does not fit INT8", id="overflow"),
        pytest.param({"inputs": [tensor(datatype="INT8", data=(1.5,))]}, "not INT8", id="fraction"),
        pytest.param({"inputs": [tensor(datatype="INT8", data=(None,))]}, "not INT8", id="null integer"),
        pytest.param({"inputs": [tensor(data=(10**400,))]}, "does not fit", id="huge number"),
        pytest.param({"inputs": [tensor(data=(1, 2)), tensor("b", "BYTES", ("x",))]}, "rows", id="rows"),
        pytest.param({"inputs": [tensor(data=[1, 2, 3], shape=[1, 1, 3])]}, "shape must be", id="cube for column"),
        pytest.param({"inputs": [tensor("x", data=[1, 2, 3], shape=[1, 3])]}, "takes 2 columns", id="matrix too wide"),
        pytest.param({"inputs": [tensor(parameters={"binary_data_size": 8})]}, "binary", id="binary data"),
        pytest.param({"inputs": [tensor()], "id": 5}, "id", id="id"),
        pytest.param({"inputs": [tensor()], "parameters": []}, "parameters", id="parameters"),
        pytest.param({"inputs": [tensor()], "outputs": ["x"]}, "outputs", id="outputs"),
    ],
)
def test_malformed_requests_say_where(payload: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        read(payload, OBJECT if "must hold JSON" in says else COLUMNS)
    assert caught.value.status == 400
    assert "hunter2" not in caught.value.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "shape", "datatype", "data", "inputs", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.one_of(json_values, st.lists(json_values, min_size=1, max_size=2).map(lambda inputs: {"inputs": inputs})))
def test_no_json_breaks_the_parser(payload: Any) -> None:
    # A RequestError is an answer; anything else would be a failure of the server
    with contextlib.suppress(RequestError):
        read(payload, COLUMNS)


def test_parameters_are_those_of_the_models_schema() -> None:
    schema = ParamSchema([ParamSpec("k", "long", 1)])
    payload = {"inputs": [tensor()], "parameters": {"k": 2, "content_type": "pd"}}
    assert parse_infer(payload, schema).params == {"k": 2}
    assert parse_infer(payload, None).params is None


@pytest.mark.parametrize(
    ("raw", "outputs"),
    [
        pytest.param(
            pd.DataFrame({"p": [0.5], "c": ["x"]}), [("p", "FP64", [1], [0.5]), ("c", "BYTES", [1], ["x"])], id="frame"
        ),
        pytest.param(pd.Series([1, 2]), [("predictions", "INT64", [2], [1, 2])], id="series"),
        pytest.param([[1.0, math.nan]], [("predictions", "FP64", [1, 2], [1.0, None])], id="list with NaN"),
        pytest.param({"x": np.array([True])}, [("x", "BOOL", [1], [True])], id="dict"),
        pytest.param(
            np.array([b"hi", None], dtype=object), [("predictions", "BYTES", [2], ["aGk=", None])], id="bytes"
        ),
        pytest.param(
            np.array(["2020-01-01"], dtype="datetime64[s]"),
            [("predictions", "BYTES", [1], ["2020-01-01T00:00:00"])],
            id="dates",
        ),
        pytest.param(5, [("predictions", "INT64", [1], [5])], id="a number"),
        pytest.param("x", [("predictions", "BYTES", [1], ["x"])], id="a text"),
        pytest.param([[1], [2, 3]], [("predictions", "BYTES", [2], ["[1]", "[2, 3]"])], id="ragged"),
        pytest.param([{"a": [1]}], [("predictions", "BYTES", [1], ['{"a": [1]}'])], id="objects"),
        pytest.param(pd.Series(["x", None]), [("predictions", "BYTES", [2], ["x", None])], id="missing text"),
        pytest.param(
            pd.DataFrame({"n": pd.array([1, None], dtype="Int64"), "m": pd.array([1, 2], dtype="Int32")}),
            [("n", "FP64", [2], [1.0, None]), ("m", "INT32", [2], [1, 2])],
            id="nullable numbers",
        ),
        pytest.param(
            pd.Series(pd.to_datetime(["2020-01-01", None], utc=True)),
            [("predictions", "BYTES", [2], ["2020-01-01T00:00:00+00:00", None])],
            id="dates with a zone",
        ),
        pytest.param(
            pd.DataFrame({"d": pd.to_datetime([None, "2020-01-01"]).as_unit("s")}),
            [("d", "BYTES", [2], [None, "2020-01-01T00:00:00"])],
            id="missing dates",
        ),
        pytest.param((n for n in [1, 2]), [("predictions", "INT64", [2], [1, 2])], id="generator"),
        pytest.param(pd.Series([1, 2], dtype=object), [("predictions", "INT64", [2], [1, 2])], id="numbers as objects"),
        pytest.param(pd.Categorical(["a", "b"]), [("predictions", "BYTES", [2], ["a", "b"])], id="categories"),
        pytest.param(scipy.sparse.eye(1).tocsr(), [("predictions", "FP64", [1, 1], [1.0])], id="sparse"),
        pytest.param(np.array([0.5], np.longdouble), [("predictions", "FP64", [1], [0.5])], id="long double"),
        pytest.param([1 + 2j], [("predictions", "BYTES", [1], ["(1+2j)"])], id="complex"),
        pytest.param(None, [("predictions", "BYTES", [1], [None])], id="nothing"),
        pytest.param([], [("predictions", "FP64", [0], [])], id="empty"),
    ],
)
def test_outputs(raw: Any, outputs: list[tuple[str, str, list[int], list[Any]]]) -> None:
    found = encode_outputs(raw, None, ())
    assert [tuple(tensor.values()) for tensor in found] == outputs
    json.dumps(found, allow_nan=False)


def test_outputs_that_are_asked_for() -> None:
    frame = pd.DataFrame({"p": [0.5], "c": ["x"]})
    assert [tensor["name"] for tensor in encode_outputs(frame, None, ("c",))] == ["c"]
    with pytest.raises(RequestError, match=r"outputs\[1\].name: the model has c, p"):
        encode_outputs(frame, None, ("c", "q"))


def test_metadata() -> None:
    assert tensor_metadata(COLUMNS, "input") == [
        {"name": "a", "datatype": "FP64", "shape": [-1]},
        {"name": "b", "datatype": "BYTES", "shape": [-1]},
    ]
    assert tensor_metadata(MATRIX, "input") == [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}]
    assert [entry["name"] for entry in tensor_metadata(UNNAMED, "input")] == ["input-0", "input-1"]
    assert tensor_metadata(None, "input") == []
    assert {entry["datatype"] for entry in tensor_metadata(EVERYTHING, "input")[-3:]} == {"BYTES"}


EVERYTHING = Schema(
    [
        *(ColSpec(kind, kind.name) for kind in DataType),
        ColSpec(Array(DataType.double), "list"),
        ColSpec(Object([Property("p", DataType.string)]), "object"),
        ColSpec(Map(DataType.long), "map"),
    ]
)


@pytest.mark.parametrize("schema", [COLUMNS, UNNAMED, MATRIX, NAMED_TENSORS, EVERYTHING])
def test_a_synthetic_row_satisfies_the_signature(schema: Schema) -> None:
    _enforce_schema(synthetic_input(schema), schema)
