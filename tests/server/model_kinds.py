"""Models of many kinds, each with rows that it takes: what the differential test serves both ways."""

import datetime
import decimal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import pydantic
import scipy.sparse
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.models.signature import ModelSignature
from mlflow.protos import databricks_pb2
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

# The tests' modules are not there when a server loads the model
cloudpickle.register_pickle_by_value(sys.modules[__name__])

FRAME = pd.DataFrame({"tenure": [1.0, 2.0, 3.0, 4.0, 5.0], "spend": [5.0, 1.0, 2.0, 8.0, 3.0]})
MIXED = pd.DataFrame({"city": list("abacb"), "age": [1, 2, 3, 4, 5], "ok": [True, False, True, True, False]})
TARGET = [0, 1, 0, 1, 0]
PLAIN = {"tenure": 1, "spend": 2}
EVERYTHING = {
    "word": "a",
    "count": 1,
    "small": 2,
    "half": 0.1,
    "amount": 1.5,
    "flag": True,
    "day": "2020-01-01",
    "blob": "aGk=",
}


def _shown(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        kinds = [str(kind) for kind in value.dtypes]
        return ["frame", [str(name) for name in value.columns], kinds, repr(value.index), value.to_dict("records")]
    if isinstance(value, np.ndarray):
        return ["array", str(value.dtype), list(value.shape), repr(value.tolist())]
    if isinstance(value, dict):
        return ["dict", {str(key): _shown(item) for key, item in value.items()}]
    return [type(value).__name__, repr(value)]


class Mirror(mlflow.pyfunc.PythonModel):
    """Says what it was given, to the last type."""

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """The input's description, and its parameters."""
        return {"saw": repr(_shown(model_input)), "params": repr(params)}


class Answers(mlflow.pyfunc.PythonModel):
    """Gives what it is asked for: `ANSWERS`."""

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """The answer of that name."""
        return ANSWERS[model_input["kind"].iloc[0]]()


class Raises(mlflow.pyfunc.PythonModel):
    """Raises what it is told to, with a secret in it."""

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """An error of MLflow's by its code, or one of Python's by its name."""
        kind = model_input["kind"].iloc[0]
        if kind == "Recursion":
            return self.predict(context, model_input, params)
        if kind.endswith(("Error", "Exit", "Iteration")):
            raise getattr(__import__("builtins"), kind)("s3cret")
        raise MlflowException("s3cret", error_code=getattr(databricks_pb2, kind))


class Message(pydantic.BaseModel):
    """What a typed model takes."""

    role: str
    content: str | None = None
    n: int = 3


class TypedText(mlflow.pyfunc.PythonModel):
    """Its signature comes from its type hints."""

    def predict(self, model_input: list[str], params: dict[str, Any] | None = None) -> list[str]:
        """Each text's repr."""
        return [repr(text) for text in model_input]


class TypedMessages(mlflow.pyfunc.PythonModel):
    """Takes pydantic's models."""

    def predict(self, model_input: list[Message]) -> list[dict[str, Any]]:
        """Each message with its defaults."""
        return [message.model_dump() for message in model_input]


class Chat(mlflow.pyfunc.ChatModel):
    """Speaks the unwrapped format of chats."""

    def predict(self, context: Any, messages: Any, params: Any = None) -> Any:
        """What was said to it."""
        said = repr([(message.role, message.content) for message in messages]) + repr(params.temperature)
        message = ChatMessage(role="assistant", content=said)
        return ChatCompletionResponse(choices=[ChatChoice(index=0, message=message)], model="m", created=1, id="i")


@dataclass(frozen=True)
class Kind:
    """How to save a model, and a row that it takes, or nothing where it takes no rows."""

    save: Callable[[Path], None]
    row: dict[str, Any] | None = None


def _sklearn(model: Any, inputs: Any, row: dict[str, Any] | None, **options: Any) -> Kind:
    options = {"serialization_format": "cloudpickle", "pip_requirements": ["scikit-learn"], **options}
    if isinstance(inputs, Schema):
        options["signature"] = ModelSignature(inputs=inputs)
    elif inputs is not None:
        options["signature"] = infer_signature(inputs, model.predict(inputs))
    return Kind(lambda path: mlflow.sklearn.save_model(model, path, **options), row)


def _python(model: Any, inputs: list[Any] | None, row: dict[str, Any] | None = None, **options: Any) -> Kind:
    options = {"pip_requirements": ["pandas"], **options}
    if inputs is not None:
        options["signature"] = ModelSignature(inputs=Schema(inputs), params=options.pop("params", None))
    return Kind(lambda path: mlflow.pyfunc.save_model(path, python_model=model, **options), row)


def _columns(required: bool) -> list[ColSpec]:
    types = ["string", "long", "integer", "float", "double", "boolean", "datetime", "binary"]
    return [ColSpec(kind, name, required=required) for kind, name in zip(types, EVERYTHING, strict=True)]


def _tensor(dtype: str, *shape: int, name: str | None = None) -> TensorSpec:
    return TensorSpec(np.dtype(dtype), shape, name)


PARAMS = ParamSchema(
    [
        ParamSpec("f", "double", 1.0),
        ParamSpec("i", "long", 1),
        ParamSpec("s", "string", "x"),
        ParamSpec("b", "boolean", True),
        ParamSpec("l", "double", [1.0], shape=(-1,)),
        ParamSpec("d", "datetime", np.datetime64("2020-01-01")),
    ]
)
_pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, TARGET)
_encoded = make_pipeline(
    make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough"),
    LogisticRegression(),
).fit(MIXED, TARGET)
_matrix = FRAME.to_numpy()
_whole = FRAME.astype("int64")

KINDS: dict[str, Kind] = {
    "classifier": _sklearn(_pipeline, FRAME, PLAIN, serialization_format="skops"),
    "probabilities": _sklearn(_pipeline, FRAME, PLAIN, pyfunc_predict_fn="predict_proba"),
    "labels": _sklearn(LogisticRegression().fit(FRAME, list("nynyn")), FRAME, PLAIN),
    "many outputs": _sklearn(LinearRegression().fit(FRAME, np.column_stack([TARGET, TARGET])), FRAME, PLAIN),
    "whole numbers": _sklearn(RandomForestClassifier(3, random_state=0).fit(_whole, TARGET), _whole, PLAIN),
    "text columns": _sklearn(_encoded, MIXED, {"city": "a", "age": 1, "ok": True}),
    "no signature": _sklearn(LogisticRegression().fit(FRAME, TARGET), None, PLAIN),
    "unnamed columns": _sklearn(
        LogisticRegression().fit(_matrix, TARGET), Schema([ColSpec("double"), ColSpec("double")]), None
    ),
    "matrix": _sklearn(LinearRegression().fit(_matrix, TARGET), Schema([_tensor("float64", -1, 2)]), None),
    "small matrix": _sklearn(LinearRegression().fit(_matrix, TARGET), Schema([_tensor("float32", -1, 2)]), None),
    "required": _python(Mirror(), _columns(True), EVERYTHING),
    "optional": _python(Mirror(), _columns(False), EVERYTHING),
    "parameters": _python(Mirror(), [ColSpec("double", "a")], {"a": 1.0}, params=PARAMS),
    "one text": _python(Mirror(), [ColSpec("string", "only")], {"only": "a"}),
    "one number": _python(Mirror(), [ColSpec("long", "only")], {"only": 3}),
    "one unnamed": _python(Mirror(), [ColSpec("string")]),
    "two unnamed": _python(Mirror(), [ColSpec("long"), ColSpec("string")]),
    "array": _python(Mirror(), [ColSpec(Array(DataType.double), "xs"), ColSpec("string", "s", False)], {"xs": [1.0]}),
    "object": _python(
        Mirror(),
        [ColSpec(Object([Property("a", DataType.long), Property("b", Array(DataType.string), False)]), "o")],
        {"o": {"a": 1, "b": ["x"]}},
    ),
    "map": _python(Mirror(), [ColSpec(Map(DataType.double), "m")], {"m": {"k": 1.0}}),
    "anything": _python(Mirror(), [ColSpec(AnyType(), "x")], {"x": [1, 2]}),
    "messages": _python(
        Mirror(),
        [ColSpec(Array(Object([Property("role", DataType.string)])), "messages")],
        {"messages": [{"role": "a"}]},
    ),
    "prompt": _python(
        Mirror(), [ColSpec("string", "prompt")], {"prompt": "hi"}, params=ParamSchema([ParamSpec("t", "double", 1.0)])
    ),
    "named tensors": _python(
        Mirror(), [_tensor("float64", -1, 2, name="x"), _tensor("int64", -1, name="y")], {"x": [1, 2], "y": 1}
    ),
    "image": _python(Mirror(), [_tensor("uint8", -1, 2, 2, 1)]),
    "texts": _python(Mirror(), [_tensor("str", -1)]),
    "objects": _python(Mirror(), [_tensor("O", -1, name="s")]),
    "flags": _python(Mirror(), [_tensor("bool", -1)]),
    "mirror": _python(Mirror(), None, {"z": 1, "a": "x"}),
    "typed text": _python(TypedText(), None, input_example=["a"]),
    "typed messages": _python(TypedMessages(), None, {"role": "a"}, input_example=[{"role": "a"}]),
    "chat": _python(Chat(), None),
    "answers": _python(Answers(), [ColSpec("string", "kind")], {"kind": "list"}),
    "raises": _python(Raises(), [ColSpec("string", "kind")], {"kind": "BAD_REQUEST"}),
}

ANSWERS: dict[str, Callable[[], Any]] = {
    "list": lambda: [1, 2.5, "x", None],
    "dict": lambda: {"a": [1], "b": np.array([1.5, np.nan])},
    "text": lambda: "hello",
    "none": lambda: None,
    "number": lambda: 5,
    "numpy's number": lambda: np.float64(2.5),
    "matrix": lambda: np.eye(2),
    "cube": lambda: np.zeros((1, 2, 2)),
    "float32": lambda: np.array([0.1, 0.2], dtype=np.float32),
    "float16": lambda: np.array([0.1], dtype=np.float16),
    "long double": lambda: np.array([0.1], dtype=np.longdouble),
    "uint64": lambda: np.array([2**64 - 1], dtype=np.uint64),
    "flags": lambda: np.array([True, False]),
    "texts": lambda: np.array(["a", "bb"]),
    "objects": lambda: np.array(["a", None, 1], dtype=object),
    "bytes": lambda: b"abc",
    "array of bytes": lambda: np.array([b"ab", b"c"]),
    "dates": lambda: [datetime.date(2020, 1, 1)],
    "moments": lambda: np.array(["2020-01-01T00:00:00"], dtype="datetime64[ns]"),
    "days": lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
    "a moment": lambda: pd.Timestamp("2020-01-01"),
    "a moment with a zone": lambda: [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)],
    "times": lambda: [datetime.time(1, 2)],
    "spans": lambda: np.array([1], dtype="m8[s]"),
    "no moment": lambda: [pd.NaT],
    "nothing of pandas": lambda: [pd.NA],
    "series": lambda: pd.Series([1, 2], name="s"),
    "series without a name": lambda: pd.Series([1.5, 2]),
    "frame": lambda: pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")], "c": ["x", None]}),
    "frame of moments": lambda: pd.DataFrame({"d": pd.to_datetime(["2020-01-01", None])}),
    "frame with zones": lambda: pd.DataFrame({"d": pd.to_datetime(["2020-01-01"]).tz_localize("Europe/Berlin")}),
    "frame of categories": lambda: pd.DataFrame({"c": pd.Categorical(["a", "b"])}),
    "frame of nullable numbers": lambda: pd.DataFrame({"c": pd.array([1, None], dtype="Int64")}),
    "frame of nullable flags": lambda: pd.DataFrame({"c": pd.array([True, None], dtype="boolean")}),
    "frame of periods": lambda: pd.DataFrame({"p": pd.period_range("2020", periods=1)}),
    "frame without rows": pd.DataFrame,
    "frame with a name twice": lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "frame with numbers for names": lambda: pd.DataFrame([[1, 2]], columns=[0, 1]),
    "index": lambda: pd.Index([1, 2]),
    "nested": lambda: [{"a": [1, {"b": 2}]}],
    "list of arrays": lambda: [np.array([1, 2]), np.array([3])],
    "rows of different lengths": lambda: [[1], [2, 3]],
    "not finite": lambda: [float("inf"), float("-inf"), float("nan")],
    "sparse": lambda: scipy.sparse.eye(2).tocsr(),
    "complex": lambda: np.array([1 + 2j]),
    "tuple": lambda: (1, 2),
    "set": lambda: {1},
    "generator": lambda: (number for number in [1, 2]),
    "decimal": lambda: decimal.Decimal("1.5"),
    "large": lambda: [2**70],
    "any text": lambda: ["é😀\ud800"],
    "empty": list,
    "keys that are numbers": lambda: {1: 2},
    "keys that are tuples": lambda: {(1, 2): 3},
}
ERRORS = [
    *("INTERNAL_ERROR", "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED"),
    *("TEMPORARILY_UNAVAILABLE", "NOT_FOUND", "UNAUTHENTICATED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_CONFLICT"),
    *("NOT_IMPLEMENTED", "DEADLINE_EXCEEDED", "CUSTOMER_UNAUTHORIZED", "MALFORMED_REQUEST", "RESOURCE_ALREADY_EXISTS"),
    *("Recursion", "MemoryError", "TimeoutError", "StopIteration"),
]
