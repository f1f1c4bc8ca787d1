"""Open Inference Protocol v2, REST: tensors to and from what an MLflow model takes and gives. Pure.

Protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import DataType, ParamSchema, Schema
from mlflow.types.schema import AnyType, Array, ColSpec, Map, Object, TensorSpec
from mlflow.utils.proto_json_utils import NumpyEncoder

from lakeloop_server.errors import bad_request

_NUMPY: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
_DATATYPES = {np.dtype(kind): name for name, kind in _NUMPY.items()}
_COLUMN_TYPES = {
    DataType.boolean: "BOOL",
    DataType.integer: "INT32",
    DataType.long: "INT64",
    DataType.float: "FP32",
    DataType.double: "FP64",
}


@dataclass(frozen=True)
class InferRequest:
    """One request to `infer`: its inputs by name, and in `outputs` the names asked for (none: all)."""

    id: str | None
    tensors: dict[str, np.ndarray[Any, Any]]
    params: dict[str, Any] | None
    outputs: tuple[str, ...]


def tensor_metadata(schema: Schema | None, unnamed: str) -> list[dict[str, Any]]:
    """`[{name, datatype, shape}]` of a signature's side; -1 stands for any number of rows."""
    if schema is None:
        return []
    result = []
    for position, spec in enumerate(schema.inputs):
        name = spec.name or (unnamed if len(schema.inputs) == 1 else f"{unnamed}-{position}")
        if isinstance(spec, TensorSpec):
            result.append({"name": name, "datatype": datatype_of(spec.type), "shape": [int(n) for n in spec.shape]})
        else:
            result.append({"name": name, "datatype": _column_type(spec.type), "shape": [-1]})
    return result


def datatype_of(dtype: Any) -> str:
    """The protocol's name of a numpy dtype; BYTES for text, dates and objects."""
    return _DATATYPES.get(np.dtype(dtype), "BYTES")


def _column_type(kind: Any) -> str:
    # Types of arrays, objects and maps cannot be hashed
    return _COLUMN_TYPES.get(kind, "BYTES") if isinstance(kind, DataType) else "BYTES"


def parse_infer(payload: Any, params_schema: ParamSchema | None) -> InferRequest:
    """Reads the JSON of an inference request. Raises RequestError (400)."""
    if not isinstance(payload, dict):
        raise bad_request("The body must be a JSON object with inputs")
    tensors = payload.get("inputs")
    if not isinstance(tensors, list) or not tensors:
        raise bad_request("inputs must be a list with at least one tensor")
    request_id = payload.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise bad_request("id must be a string")
    names: list[str] = []
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for position, tensor in enumerate(tensors):
        name, array = _read_tensor(tensor, position)
        if name in arrays:
            raise bad_request(f"inputs[{position}].name is used twice")
        names.append(name)
        arrays[name] = array
    return InferRequest(
        id=request_id,
        tensors=arrays,
        params=_read_params(payload.get("parameters"), params_schema),
        outputs=_read_outputs(payload.get("outputs")),
    )


def _read_outputs(outputs: Any) -> tuple[str, ...]:
    if outputs is None:
        return ()
    if not isinstance(outputs, list) or not all(
        isinstance(o, dict) and isinstance(o.get("name"), str) for o in outputs
    ):
        raise bad_request("outputs must be a list of objects with a name")
    return tuple(output["name"] for output in outputs)


def _read_params(parameters: Any, schema: ParamSchema | None) -> dict[str, Any] | None:
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise bad_request("parameters must be an object")
    known = {param.name for param in schema.params} if schema is not None else set()
    return {name: value for name, value in parameters.items() if name in known} or None


def _read_tensor(tensor: Any, position: int) -> tuple[str, np.ndarray[Any, Any]]:
    where = f"inputs[{position}]"
    if not isinstance(tensor, dict):
        raise bad_request(f"{where} must be an object with name, shape, datatype and data")
    name, shape, datatype, data = (tensor.get(key) for key in ("name", "shape", "datatype", "data"))
    if not isinstance(name, str) or not name:
        raise bad_request(f"{where}.name must be a string that is not empty")
    if not isinstance(datatype, str) or datatype not in _NUMPY:
        raise bad_request(f"{where}.datatype must be one of {', '.join(_NUMPY)}")
    if not isinstance(shape, list) or not shape or not all(type(n) is int and n >= 0 for n in shape):
        raise bad_request(f"{where}.shape must be a list of whole numbers")
    parameters = tensor.get("parameters")
    if isinstance(parameters, dict) and "binary_data_size" in parameters:
        raise bad_request(f"{where}: the binary tensor extension is not supported; send data as JSON")
    if not isinstance(data, list):
        raise bad_request(f"{where}.data must be a list")
    items = _flatten(data)
    if len(items) != math.prod(shape):
        raise bad_request(f"{where}.data has {len(items)} values, but its shape asks for {math.prod(shape)}")
    array = _to_array(items, datatype, where)
    try:
        return name, array.reshape(shape)
    except (ValueError, OverflowError):
        raise bad_request(f"{where}.shape has more dimensions, or larger ones, than an array can have") from None


def _flatten(data: list[Any]) -> list[Any]:
    """Row-major values of a flat or nested list (the protocol allows both)."""
    while data and isinstance(data[0], list):
        if not all(isinstance(item, list) for item in data):
            break
        data = [value for item in data for value in item]
    return data


def _to_array(items: Sequence[Any], datatype: str, where: str) -> np.ndarray[Any, Any]:
    accepted: tuple[type, ...]
    if datatype == "BYTES":
        accepted = (str, type(None))
    elif datatype == "BOOL":
        accepted = (bool,)
    elif datatype.startswith("FP"):
        accepted = (int, float, type(None))
    else:
        accepted = (int,)
    # bool is an int to Python, but not to the protocol
    if not all(isinstance(item, accepted) and (datatype == "BOOL" or not isinstance(item, bool)) for item in items):
        raise bad_request(f"{where}.data has a value that is not {datatype}")
    if datatype == "BYTES":
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return array
    try:
        # None is how JSON writes "not a number"
        return np.array([math.nan if item is None else item for item in items], dtype=_NUMPY[datatype])
    except (OverflowError, ValueError):
        raise bad_request(f"{where}.data has a value that does not fit {datatype}") from None


def to_model_input(arrays: Mapping[str, np.ndarray[Any, Any]], schema: Schema | None) -> Any:
    """What the pyfunc takes for these tensors, by the model's signature. Raises RequestError (400)."""
    if schema is not None and schema.is_tensor_spec():
        if schema.has_input_names():
            types = schema.input_types_dict()
            return {name: _tensor_of_type(name, array, types.get(name)) for name, array in arrays.items()}
        if len(arrays) != 1:
            raise bad_request("The model takes one tensor: send one input")
        (name, array), *_ = arrays.items()
        return _tensor_of_type(name, array, schema.input_types()[0])
    if len(arrays) == 1:
        (name, array), *_ = arrays.items()
        if array.ndim == 2 and (schema is None or name not in schema.input_names()):
            return _frame_of_matrix(array, schema)
    types = schema.input_types_dict() if schema is not None and schema.has_input_names() else {}
    columns = {name: _column(name, array, types.get(name)) for name, array in arrays.items()}
    if len({len(column) for column in columns.values()}) > 1:
        raise bad_request("inputs must all have the same number of rows")
    if schema is None:
        return pd.DataFrame(columns)
    if not schema.has_input_names():
        return pd.DataFrame(dict(enumerate(columns.values())))
    return pd.DataFrame({name: _convert(name, column, types.get(name)) for name, column in columns.items()})


def _frame_of_matrix(array: np.ndarray[Any, Any], schema: Schema | None) -> Any:
    """One matrix for a model of columns: its columns in the order of the signature."""
    if schema is None:
        return array
    if array.shape[1] != len(schema.inputs):
        raise bad_request(f"The model takes {len(schema.inputs)} columns, the tensor has {array.shape[1]}")
    return pd.DataFrame(array, columns=schema.input_names() if schema.has_input_names() else None)


def _tensor_of_type(name: str, array: np.ndarray[Any, Any], kind: Any) -> np.ndarray[Any, Any]:
    """Text as what the signature has for it: numpy's own strings, dates."""
    if kind is None or array.dtype != object or np.dtype(kind) == object:
        return array
    try:
        return array.astype(kind)
    except (ValueError, TypeError, UnicodeError):
        raise bad_request(f"The input {name!r} must hold what can be read as {np.dtype(kind).name}") from None


def _column(name: str, array: np.ndarray[Any, Any], kind: Any) -> Any:
    if isinstance(kind, Array) and array.ndim > 1:
        return array.tolist()
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise bad_request(f"The input {name!r} is one column of the model: its shape must be [rows] or [rows, 1]")
    return array


def _convert(name: str, column: Any, kind: Any) -> Any:
    """Text that stands for something that the protocol has no type for."""
    if not isinstance(column, np.ndarray) or column.dtype != object:
        return column
    try:
        if isinstance(kind, Array | Object | Map | AnyType):
            return [None if item is None else json.loads(item) for item in column]
        if kind == DataType.datetime:
            return pd.to_datetime(pd.Series(column))
        if kind == DataType.binary:
            return [None if item is None else base64.b64decode(item, validate=True) for item in column]
    except (ValueError, binascii.Error, RecursionError):
        wanted = "JSON"
        if isinstance(kind, DataType):
            wanted = "dates in ISO 8601" if kind == DataType.datetime else "base64"
        raise bad_request(f"The input {name!r} must hold {wanted}") from None
    return column


def encode_outputs(raw: Any, schema: Schema | None, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Predictions as tensors: one per column of a DataFrame, one per key of a dict, else one.

    Raises RequestError: 400 for an output that the model does not have.
    """
    names = [spec.name for spec in schema.inputs if spec.name] if schema is not None else []
    if isinstance(raw, pd.DataFrame):
        tensors = {str(column): _array(raw.iloc[:, position]) for position, column in enumerate(raw.columns)}
    elif isinstance(raw, dict):
        tensors = {str(key): _array(value) for key, value in raw.items()}
    else:
        tensors = {names[0] if len(names) == 1 else "predictions": _array(raw)}
    unknown = [position for position, name in enumerate(wanted) if name not in tensors]
    if unknown:
        raise bad_request(f"outputs[{unknown[0]}].name: the model has {', '.join(sorted(tensors))}")
    return [_encode(name, array) for name, array in tensors.items() if not wanted or name in wanted]


def _array(raw: Any) -> np.ndarray[Any, Any]:
    """A model's answer, or a part of it, as an array of at least one dimension; objects where nothing else fits."""
    if hasattr(raw, "toarray"):
        raw = raw.toarray()  # scipy's sparse matrices
    if isinstance(raw, Iterator):
        raw = list(raw)
    if isinstance(raw, pd.Series) and pd.api.types.is_extension_array_dtype(raw.dtype):
        if pd.api.types.is_numeric_dtype(raw.dtype):
            raw = raw.astype("float64") if raw.isna().any() else raw.to_numpy(getattr(raw.dtype, "numpy_dtype", None))
        elif isinstance(raw.dtype, pd.DatetimeTZDtype):
            raw = raw.astype(object)
    try:
        array = np.atleast_1d(np.asarray(raw))
    except ValueError:
        # Rows of different lengths
        array = np.empty(len(raw), dtype=object)
        array[:] = list(raw)
    if array.dtype == object and array.ndim == 1:
        array = np.asarray(pd.Series(array, dtype=object).infer_objects())
    return array.astype(np.float64) if array.dtype == np.longdouble else array


def _encode(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    datatype = datatype_of(array.dtype)
    values: list[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        if array.dtype.kind == "M":
            values = [None if text == "NaT" else text for text in np.datetime_as_string(array.ravel()).tolist()]
        values = [_text(value) for value in values]
    elif datatype.startswith("FP"):
        # NaN and infinity are no JSON
        values = [value if math.isfinite(value) else None for value in values]
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": values}


def _text(value: Any) -> str | None:
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    try:
        return json.dumps(value, cls=NumpyEncoder)
    except (TypeError, ValueError):
        return str(value)


def synthetic_input(schema: Schema) -> Any:
    """One row that satisfies the signature: zeros, empty strings, the epoch."""
    if schema.is_tensor_spec():
        tensors = {
            spec.name or "": np.zeros([1 if n == -1 else n for n in spec.shape], dtype=spec.type) for spec in schema
        }
        return tensors if schema.has_input_names() else tensors[""]
    row = [_synthetic(spec.type) for spec in schema.inputs if isinstance(spec, ColSpec)]
    frame = pd.DataFrame([row], columns=schema.input_names() if schema.has_input_names() else None)
    for name, spec in zip(frame.columns, schema.inputs, strict=True):
        if isinstance(spec.type, DataType) and spec.type in _COLUMN_TYPES:
            frame[name] = frame[name].astype(spec.type.to_numpy())
    return frame


def _synthetic(kind: Any) -> Any:
    if isinstance(kind, Array):
        return [_synthetic(kind.dtype)]
    if isinstance(kind, Object):
        return {prop.name: _synthetic(prop.dtype) for prop in kind.properties}
    if isinstance(kind, Map):
        return {"key": _synthetic(kind.value_type)}
    if isinstance(kind, AnyType):
        return None
    values: dict[DataType, Any] = {
        DataType.boolean: False,
        DataType.string: "",
        DataType.binary: b"",
        DataType.datetime: datetime.datetime(1970, 1, 1),  # MLflow's datetime has no zone
        DataType.float: 0.0,
        DataType.double: 0.0,
    }
    return values.get(kind, 0)
