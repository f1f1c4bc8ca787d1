"""Content types, and what is told of MLflow's errors."""

import pytest
from lakeloop_server.errors import RequestError
from lakeloop_server.invocations import media_type, refused_by_signature
from mlflow.exceptions import MlflowException


@pytest.mark.parametrize(
    ("content_type", "mime"),
    [
        ("application/json", "application/json"),
        ("text/csv; charset=UTF-8", "text/csv"),
        ("text/csv;charset=utf-8", "text/csv"),
    ],
)
def test_media_types(content_type: str, mime: str) -> None:
    assert media_type(content_type) == mime


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "text/csv; charset=latin-1", "text/csv; header=1"])
def test_other_media_types_are_refused(content_type: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        media_type(content_type)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        pytest.param(
            "Model is missing inputs ['b']. Note that there were extra inputs: ['x'].", "inputs ['b'].", id="missing"
        ),
        pytest.param(
            "Incompatible input types for column a. Can not safely convert float64 to int64. Hint",
            "convert float64 to int64.",
            id="type",
        ),
        pytest.param("Shape of input (1, 3) does not match expected shape (-1, 2).", "shape (-1, 2).", id="shape"),
        pytest.param("Can not safely convert `<class 'str'>` to `long` for value `hunter2`", "", id="a value"),
        pytest.param(
            "Incompatible input types for column hunter2. Can not safely convert float64 to int64.",
            "",
            id="not a column",
        ),
        pytest.param("Shape of hunter2", "", id="anything else"),
        pytest.param("Failed to enforce schema of '{'k': 'hunter2'}' with type 'x'.", "", id="an object"),
    ],
)
def test_only_names_and_types_are_told(cause: str, told: str) -> None:
    try:
        try:
            raise MlflowException(cause)
        except MlflowException as inner:
            raise MlflowException.invalid_parameter_value(
                f"Failed to predict data 'hunter2'. Error: {inner}"
            ) from inner
    except MlflowException as error:
        refused = refused_by_signature(error, {"a"})
    assert refused.status == 400
    assert "hunter2" not in refused.message
    assert refused.message.startswith("The input does not match the model's signature")
    assert refused.message.endswith(told or "signature")
