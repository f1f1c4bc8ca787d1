"""`/invocations`: MLflow's own parsing, enforcement and serialisation; errors say no more than a caller needs.

Protocol: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally (`mlflow models serve`). Everything that
decides what an answer's bytes are is `mlflow.pyfunc.scoring_server`'s; this module only puts the stages together, so
that it knows which stage failed.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import time
import traceback
from collections.abc import Mapping, Set
from http import HTTPStatus
from io import BytesIO, StringIO
from itertools import pairwise
from typing import Any, NoReturn

from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server as mlflow_server
from mlflow.types import Schema
from prometheus_client import Histogram

from lakeloop_server.errors import RequestError, bad_request
from lakeloop_server.model import ServedModel

logger = logging.getLogger(__name__)

# Reasons of MLflow that name columns and types but no value. A column is told only if the signature has it: a table
# without a head has values there.
_TELLABLE = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(Model is missing inputs \[.*?\]\.)( Note that there were extra inputs.*)?",
        r"(Model inference is missing inputs\. The model signature declares \d+ inputs +but the provided value "
        r"only has \d+ inputs\.).*",
        r"(Incompatible input types for column (?P<column>[^\n]{1,200}?)\. Can not safely convert \S{1,40} to "
        r"\S{1,40}\.)( .*)?",
        r"(Failed to convert column (?P<column>[^\n]{1,200}?) from type \S{1,40} to \S{1,40}\.)",
        r"(Shape of input \([\d, -]*\) does not match expected shape \([\d, -]*\)\.)",
        r"(dtype of input \S{1,40} does not match expected dtype \S{1,40})",
        r"(Missing required properties: \[[^\n]{0,300}\])",
        r"(Expected input to be DataFrame\. Found: \w{1,40})",
    )
]
_CONVERSION = re.compile(
    r"Invalid input\. (?P<told>Data is not compatible with model signature\. Failed to convert column "
    r"(?P<column>[^\n]{1,200}?) to type '(?:[^']{1,100}|<class '\w{1,40}'>)'\.) Error: .*",
    re.DOTALL,
)
_TYPES = "application/json, text/csv or application/vnd.apache.parquet"
_FORMATS = "dataframe_split, dataframe_records, instances, inputs"


class ModelFailure(RequestError):
    """The model's own code raised: 400 as MLflow answers it, but counted apart from callers' mistakes."""

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.BAD_REQUEST,
            "BAD_REQUEST",
            "The model failed on this input. Check that the values are ones that the model can handle",
        )


def score(
    body: bytes, content_type: str | None, model: ServedModel, stages: Mapping[str, Histogram] | None = None
) -> bytes:
    """The answer's body, byte for byte that of `mlflow models serve`. Raises RequestError.

    `stages`, of `Metrics.stages`, are told how long each stage of an answer took.
    """
    times = [time.perf_counter()]
    data, params, unified = parse(body, content_type, model)
    times.append(time.perf_counter())
    predictions = predict(model, data, params)
    times.append(time.perf_counter())
    answer = serialise(predictions, unified)
    times.append(time.perf_counter())
    if stages is not None:
        for stage, (began, ended) in zip(("parse", "predict", "serialise"), pairwise(times), strict=True):
            stages[stage].observe(ended - began)
    return answer


def media_type(content_type: str | None) -> str:
    """The MIME type of a request, parameters checked as MLflow does; raises RequestError (415)."""
    if not content_type:
        raise _unsupported(f"Say which with the header Content-Type: {_TYPES}")
    mime, *pairs = (part.strip() for part in content_type.split(";"))
    parameters = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    if parameters.get("charset", "utf-8").lower() != "utf-8":
        raise _unsupported("Only the charset UTF-8 is understood")
    if set(parameters) - {"charset"}:
        raise _unsupported("The only parameter of Content-Type that is understood is charset")
    if mime not in mlflow_server.CONTENT_TYPES:
        raise _unsupported(f"Send {_TYPES}")
    return mime


def _unsupported(message: str) -> RequestError:
    return RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)


def parse(body: bytes, content_type: str | None, model: ServedModel) -> tuple[Any, dict[str, Any] | None, bool]:
    """Data as MLflow hands it to a model, its params, and whether the answer goes without the key `predictions`."""
    mime = media_type(content_type)
    try:
        if mime == mlflow_server.CONTENT_TYPE_JSON:
            # Decoded here, so that MLflow does not do it twice
            content = mlflow_server._decode_json_input(body)
            parsed = mlflow_server._parse_json_data(content, model.pyfunc.metadata, model.input_schema)
            return parsed.data, parsed.params, parsed.is_unified_llm_input
        if mime == mlflow_server.CONTENT_TYPE_CSV:
            return mlflow_server.parse_csv_input(StringIO(body.decode()), model.input_schema), None, False
        return mlflow_server.parse_parquet_input(BytesIO(body)), None, False
    except Exception as error:
        _refuse_input(error, mime, body, model.input_schema)


def _refuse_input(error: Exception, mime: str, body: bytes, schema: Schema | None) -> NoReturn:
    if any(isinstance(link, MemoryError) for link in _chain(error)):
        raise bad_request("The body takes more memory than this server has") from error
    if mime == mlflow_server.CONTENT_TYPE_PARQUET:
        raise bad_request("The body is not a Parquet file that can be read") from error
    if any(isinstance(link, UnicodeDecodeError) for link in _chain(error)):
        raise bad_request("The body is not valid UTF-8") from error
    if mime == mlflow_server.CONTENT_TYPE_CSV:
        types = " with columns of the types in the model's signature" if schema is not None else ""
        raise bad_request(f"The body is not CSV with a header line{types}") from error
    for link in _chain(error):
        if isinstance(link, json.JSONDecodeError):
            raise bad_request(f"The body is not valid JSON: line {link.lineno} column {link.colno}") from error
        if isinstance(link, RecursionError):
            raise bad_request("The body is nested too deeply") from error
    told = _CONVERSION.fullmatch(getattr(error, "message", ""))
    if told is not None and told["column"] in _names(schema):
        raise bad_request(told["told"]) from error
    raise bad_request(_describe_json(body)) from error


def _names(schema: Schema | None) -> set[str]:
    return set(schema.input_names()) if schema is not None and schema.has_input_names() else set()


def _describe_json(body: bytes) -> str:
    """What is wrong with JSON that MLflow could parse but not use, without repeating any of it."""
    try:
        content = json.loads(body)
    except ValueError:
        return "The body holds a number that is too long"
    if not isinstance(content, dict):
        return f"The body must be a JSON object with exactly one of {_FORMATS}"
    found = [key for key in _FORMATS.split(", ") if key in content]
    if len(found) != 1:
        what = "several of them" if found else "none"
        return f"The body must be a JSON object with exactly one of {_FORMATS}: found {what}"
    shapes = {
        "dataframe_split": "an object with data, and columns and index where wanted: as many columns as each row has",
        "dataframe_records": "a list of objects, one per row",
        "instances": "a list of rows, all with the same names, whose types are those of the model's signature",
        "inputs": "the model's inputs by name, or one array, with the types of the model's signature",
    }
    return f"{found[0]} cannot be read as model input. It must be {shapes[found[0]]}"


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in links:
        links.append(current)
        current = current.__cause__ or current.__context__
    return links


def predict(model: ServedModel, data: Any, params: dict[str, Any] | None) -> Any:
    """Enforces the signature and calls the model. Raises RequestError (input refused) and ModelFailure."""
    try:
        if "params" in inspect.signature(model.pyfunc.predict).parameters:
            return model.pyfunc.predict(data, params=params)
        return model.pyfunc.predict(data)
    except MlflowException as error:
        raise refused_by_signature(error, _names(model.input_schema)) from error
    except BaseException as error:  # a model that calls sys.exit() must not end the server
        # Where, but not what: the text of an exception may hold a caller's values
        frame = traceback.extract_tb(error.__traceback__)[-1]
        logger.warning("the model raised %s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
        raise ModelFailure from error


def refused_by_signature(error: MlflowException, columns: Set[str]) -> RequestError:
    """The caller's error for MLflow's, with its status: names and types of `columns`, but no values and no schema."""
    status = error.get_http_status_code()
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestError(status, "INTERNAL_ERROR", "The prediction failed")
    code = str(error.error_code)
    for link in _chain(error):
        text = link.message if isinstance(link, MlflowException) else str(link)
        for pattern in _TELLABLE:
            match = pattern.fullmatch(text.strip())
            if match is not None and match.groupdict().get("column") in {None, *columns}:
                return RequestError(status, code, f"The input does not match the model's signature: {match[1]}")
    if "params" in error.message.lower() or "parameters" in error.message.lower():
        text = "The params, or the input, do not match the model's signature"
        return RequestError(status, code, text)
    return RequestError(status, code, "The input does not match the model's signature")


def serialise(predictions: Any, unified: bool) -> bytes:
    """MLflow's JSON of predictions. Raises RequestError (500) for what it cannot express."""
    result = StringIO()
    try:
        if unified:
            mlflow_server.unwrapped_predictions_to_json(predictions, result)
        else:
            mlflow_server.predictions_to_json(predictions, result)
    except Exception as error:
        raise unwritable(predictions) from error
    return result.getvalue().encode()


def unwritable(predictions: Any) -> RequestError:
    """The error (500) for an answer of a model that has no JSON."""
    logger.warning("predictions of type %s cannot be written as JSON", type(predictions).__name__)
    return RequestError(
        HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "The model's answer cannot be written as JSON"
    )
