"""The short way from a request's body to its answer, for models of numbers: no pandas, and the same bytes.

A body goes it if `numeric` is sure of its rows and `kernels` of the model; any doubt, and any exception, sends it the
long way, which is MLflow's own code. So there are no errors here.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from prometheus_client import Histogram

from lakeloop_server import numeric
from lakeloop_server.errors import RequestError
from lakeloop_server.invocations import score
from lakeloop_server.kernels import Kernel, kernel
from lakeloop_server.model import JSON, ServedModel

logger = logging.getLogger(__name__)
Array = np.ndarray[Any, Any]
_JSON_TYPES = frozenset((JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8", f"{JSON}; charset=UTF-8"))
# A prediction that takes no longer is made in the event loop: to change to a thread and back would take as long again
_QUICK_SECONDS = 0.001
_QUICK_ROWS = (1, 16, 128)
_TRIES = 5
_WRITABLE = {str, int, float, bool}
# Rows of the comparison with the model's own answers, and of how much they hold
_COMPARED = ((1, 1.0), (1, 1000.0), (7, 10.0), (64, 3.0))


class FastPath:
    """Answers of one model. `quick_rows`: up to so many rows a prediction takes a millisecond or less; 0 for none.

    `stages`, of `Metrics.stages`, are told how long each stage takes.
    """

    def __init__(self, read: numeric.Reader, kernel: Kernel, quick_rows: int = 0) -> None:
        self._read = read
        self.kernel = kernel
        self.quick_rows = quick_rows
        self.stages: Mapping[str, Histogram] = {}

    def rows(self, body: bytes, content_type: str | None) -> Array | None:
        """The rows in a request's body, or None: it is not sure what they are."""
        if content_type not in _JSON_TYPES:
            return None
        started = time.perf_counter()
        rows = self._read(body)
        if rows is not None:
            self._took("parse", time.perf_counter() - started)
        return rows

    def of_tensors(self, tensors: Mapping[str, Array]) -> Array | None:
        """The rows that tensors of the Open Inference Protocol stand for, or None: it is not sure."""
        return self._read.of_tensors(tensors)

    def score(self, body: bytes, content_type: str | None, most_rows: int | None = None) -> bytes | None:
        """The answer's body, or None: it is not known here, or is one for more than `most_rows`."""
        rows = self.rows(body, content_type)
        if rows is None or (most_rows is not None and len(rows) > most_rows):
            return None
        return self.answer(rows)

    def predict(self, rows: Array) -> Array | None:
        """The model's predictions, or None: they are not known here."""
        try:
            return self.kernel.run(rows)
        except Exception:
            # The model's own code is asked again, and its exception is the one that counts
            return None

    def answer(self, rows: Array) -> bytes | None:
        """The answer's body for these rows, or None: it is not known here."""
        found = self.answers([rows])
        return None if found is None else found[0]

    def answers(self, tables: Sequence[Array]) -> list[bytes | None] | None:
        """One answer for each table, from one prediction; None: they are not known together.

        More than one table only if the kernel is `independent`.
        """
        started = time.perf_counter()
        predictions = self.predict(tables[0] if len(tables) == 1 else np.concatenate(tables, axis=0))
        predicted = time.perf_counter()
        if predictions is None or len(predictions) != sum(map(len, tables)):
            return None
        answers, at = [], 0
        for rows in tables:
            answers.append(write(predictions[at : at + len(rows)]))
            at += len(rows)
        self._took("predict", predicted - started)
        self._took("serialise", time.perf_counter() - predicted)
        return answers

    def _took(self, stage: str, seconds: float) -> None:
        told = self.stages.get(stage)
        if told is not None:
            told.observe(seconds)


def write(predictions: Any) -> bytes | None:
    """MLflow's JSON of an array of numbers, flags or text."""
    if type(predictions) is not np.ndarray or predictions.dtype == np.longdouble:
        return None
    values = predictions.tolist()
    kind = predictions.dtype.kind
    if kind not in "fiubU" and not (kind == "O" and predictions.ndim == 1 and set(map(type, values)) <= _WRITABLE):
        return None
    # In one go; MLflow's encoder, which knows of more types, makes the same text piece by piece
    return json.dumps({"predictions": values}).encode()


def fast_path(model: ServedModel) -> FastPath | None:
    """The short way for this model, if there is one and it leads to the model's own answers.

    To be called once the model is warm: some rows of made-up numbers are predicted both ways.
    """
    try:
        read, found = numeric.reader(model.input_schema), kernel(model)
    except Exception as error:  # an estimator that is not what it seems to be
        logger.warning("no short way for this model: %s", type(error).__name__)
        return None
    if read is None or found is None:
        return None
    path = FastPath(read, found)
    for body in _examples(model):
        if path.score(body, JSON) != _slowly(body, model):
            logger.warning("the short way would answer otherwise than the model, and is not taken")
            return None
    path.quick_rows = _quick_rows(path, path.rows(_examples(model)[0], JSON))
    return path


def _quick_rows(path: FastPath, row: Array | None) -> int:
    """The most rows, of some numbers tried, that are predicted at once whenever they come."""
    quick = 0
    if row is None:
        return quick
    for count in _QUICK_ROWS:
        rows = np.asfortranarray(np.repeat(row, count, axis=0))
        # The fastest of several: what else the machine does is not the model's doing
        if min(_seconds(path, rows) for _ in range(_TRIES)) > _QUICK_SECONDS:
            break
        quick = count
    return quick


def _seconds(path: FastPath, rows: Array) -> float:
    started = time.perf_counter()
    path.predict(rows)
    return time.perf_counter() - started


def _slowly(body: bytes, model: ServedModel) -> bytes | None:
    try:
        return score(body, JSON, model)
    except RequestError:
        return None


def _examples(model: ServedModel) -> list[bytes]:
    """Bodies with numbers of several sizes, whole where the signature wants it."""
    schema = model.input_schema
    assert schema is not None  # noqa: S101 - it has a reader
    random = np.random.default_rng(0)
    bodies = []
    for count, spread in _COMPARED:
        if schema.is_tensor_spec():
            whole = [np.dtype(schema.inputs[0].type).kind == "i"] * int(schema.inputs[0].shape[1])
        else:
            whole = [np.dtype(kind.to_numpy()).kind == "i" for kind in schema.input_types()]
        table = random.normal(scale=spread, size=(count, len(whole)))
        rows = [
            [math.floor(value) if integer else float(value) for value, integer in zip(row, whole, strict=True)]
            for row in table
        ]
        content = {"inputs": rows}
        if not schema.is_tensor_spec():
            content = {"dataframe_split": {"columns": schema.input_names(), "data": rows}}  # type: ignore[dict-item]
        bodies.append(json.dumps(content).encode())
    return bodies
