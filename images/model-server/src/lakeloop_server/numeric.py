"""Rows of numbers out of a request's JSON, without pandas, where they are surely what MLflow would make of them.

Everything else is `None`, which is no error: MLflow's own code then reads the body, and knows what to refuse and how.
So nothing here has to be complete, and what is doubtful is left out: no nulls, flags, text or numbers beyond 2^53, no
fractions for whole numbers, no index, no params, no column too many.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import orjson
from mlflow.types import DataType, Schema
from mlflow.types.schema import ColSpec, TensorSpec

Array = np.ndarray[Any, Any]


class Reader(Protocol):
    """Reads rows in the memory layout in which a model would see them; None: not sure."""

    def __call__(self, body: bytes) -> Array | None:
        """The rows in the body of a request to `/invocations`."""

    def of_tensors(self, tensors: Mapping[str, Array]) -> Array | None:
        """The rows that named tensors of the Open Inference Protocol stand for."""


_COLUMN_TYPES: dict[DataType, np.dtype[Any]] = {
    DataType.double: np.dtype(np.float64),
    DataType.float: np.dtype(np.float32),
    DataType.long: np.dtype(np.int64),
    DataType.integer: np.dtype(np.int32),
}
# Up to here every whole number is a double too, and no other rounds to it: no conversion changes one, none overflows
_LARGEST = 2**53 - 1
# orjson reads it as -0.0, Python as 0
_MINUS_ZERO = re.compile(rb"(?<![eE])-0(?![.eE0-9])")
_NUMBERS = {int, float}


def reader(schema: Schema | None) -> Reader | None:
    """What reads bodies for this signature: named columns of numbers, or one matrix; None for any other."""
    if schema is None or not schema.inputs:
        return None
    specs = schema.inputs
    if len(specs) == 1 and isinstance(specs[0], TensorSpec):
        spec = specs[0]
        kind = np.dtype(spec.type)
        if spec.name is None and len(spec.shape) == 2 and spec.shape[0] == -1 and spec.shape[1] > 0:
            return _Matrix(kind, int(spec.shape[1])) if kind in _COLUMN_TYPES.values() else None
        return None
    names: list[str | None] = []
    kinds: list[np.dtype[Any]] = []
    for spec in specs:
        if not isinstance(spec, ColSpec) or not isinstance(spec.type, DataType) or spec.type not in _COLUMN_TYPES:
            return None
        names.append(spec.name)
        kinds.append(_COLUMN_TYPES[spec.type])
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        return None
    return _Columns([str(name) for name in names], kinds)


def _only_entry(body: bytes) -> tuple[str, Any] | None:
    """The key and the value of an object with one entry."""
    if b"-0" in body and _MINUS_ZERO.search(body):
        return None
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(content) is not dict or len(content) != 1:
        return None
    entry: tuple[str, Any] = next(iter(content.items()))
    return entry


def _array(cells: Sequence[Any], kind: np.dtype[Any]) -> Array | None:
    """One value or more as `kind`, if that changes none of them beyond the rounding to a shorter float."""
    found = set(map(type, cells))
    if not (found <= _NUMBERS if kind.kind == "f" else found == {int}):
        return None
    try:
        wide = np.array(cells, np.float64 if kind.kind == "f" else np.int64)
    except OverflowError:
        return None
    largest = _LARGEST if kind != np.int32 else 2**31 - 1
    # Written so that NaN is refused
    if not (wide.min() >= -largest and wide.max() <= largest):
        return None
    return wide if wide.dtype == kind else wide.astype(kind)


def _is_table(rows: Any, kind: type, width: int) -> bool:
    """Whether it is a list of at least one `kind`, each with `width` entries."""
    return type(rows) is list and bool(rows) and set(map(type, rows)) == {kind} and set(map(len, rows)) == {width}


class _Columns:
    """Columns by name, in any of the four formats."""

    def __init__(self, names: list[str], kinds: list[np.dtype[Any]]) -> None:
        self._names = names
        self._known = set(names)
        self._kinds = kinds
        self._one_kind = kinds[0] if len(set(kinds)) == 1 else None
        self._common = np.result_type(*kinds)
        pick = itemgetter(*names)
        self._pick: Callable[[Any], tuple[Any, ...]] = pick if len(names) > 1 else lambda row: (pick(row),)

    def __call__(self, body: bytes) -> Array | None:
        entry = _only_entry(body)
        if entry is None:
            return None
        key, content = entry
        if key == "dataframe_split":
            return self._split(content)
        if key == "dataframe_records" or key == "instances":
            found = self._records(content)
            if found is not None or key == "dataframe_records":
                return found
        if key in ("inputs", "instances"):
            return self._by_name(content)
        return None

    def of_tensors(self, tensors: Mapping[str, Array]) -> Array | None:
        """One tensor for each column, of the column's own type."""
        if tensors.keys() != self._known:
            return None
        columns = [tensors[name] for name in self._names]
        count = len(columns[0])
        table = np.empty((len(columns), count), self._common)
        for position, (column, kind) in enumerate(zip(columns, self._kinds, strict=True)):
            if column.dtype != kind or column.shape not in ((count,), (count, 1)):
                return None
            table[position] = column.reshape(-1)
        return table.T if count > 0 and np.isfinite(table).all() else None

    def _split(self, content: Any) -> Array | None:
        if type(content) is not dict or content.keys() != {"columns", "data"}:
            return None
        columns, rows = content["columns"], content["data"]
        if type(columns) is not list or not _is_table(rows, list, len(self._names)):
            return None
        if columns == self._names:
            return self._of_rows(rows)
        if not all(type(name) is str for name in columns):
            return None
        return self._in_order(columns, [list(column) for column in zip(*rows, strict=True)])

    def _records(self, content: Any) -> Array | None:
        if not _is_table(content, dict, len(self._names)):
            return None
        try:
            return self._of_rows([self._pick(row) for row in content])
        except KeyError:
            return None

    def _by_name(self, content: Any) -> Array | None:
        if type(content) is list and len(self._names) == 1:
            # MLflow takes a list for the only column
            return self._of_columns([content]) if content else None
        if type(content) is not dict or not all(type(column) is list and column for column in content.values()):
            return None
        return self._in_order(list(content), list(content.values()))

    def _in_order(self, names: list[str], columns: list[list[Any]]) -> Array | None:
        if len(names) != len(self._names) or set(names) != self._known or len(set(map(len, columns))) != 1:
            return None
        by_name = dict(zip(names, columns, strict=True))
        return self._of_columns([by_name[name] for name in self._names])

    def _of_rows(self, rows: Sequence[Sequence[Any]]) -> Array | None:
        if self._one_kind is None:
            return self._of_columns(list(zip(*rows, strict=True)))
        cells = _array(list(chain.from_iterable(rows)), self._one_kind)
        # A table of pandas lies in memory column by column, and the order of a sum may depend on that, or on strides
        return None if cells is None else np.array(cells.reshape(len(rows), -1).T, order="C").T

    def _of_columns(self, columns: Sequence[Sequence[Any]]) -> Array | None:
        if self._one_kind is not None:
            cells = _array(list(chain.from_iterable(columns)), self._one_kind)
            return None if cells is None else cells.reshape(len(columns), -1).T
        table = np.empty((len(columns), len(columns[0])), self._common)
        for position, (column, kind) in enumerate(zip(columns, self._kinds, strict=True)):
            array = _array(column, kind)
            if array is None:
                return None
            table[position] = array
        return table.T


class _Matrix:
    """One tensor of rows, without a name."""

    def __init__(self, kind: np.dtype[Any], width: int) -> None:
        self._kind = kind
        self._width = width

    def __call__(self, body: bytes) -> Array | None:
        entry = _only_entry(body)
        if entry is None or entry[0] not in ("inputs", "instances") or not _is_table(entry[1], list, self._width):
            return None
        cells = _array(list(chain.from_iterable(entry[1])), self._kind)
        return None if cells is None else cells.reshape(-1, self._width)

    def of_tensors(self, tensors: Mapping[str, Array]) -> Array | None:
        """One tensor of the signature's type, whatever its name."""
        if len(tensors) != 1:
            return None
        (tensor,) = tensors.values()
        if tensor.dtype != self._kind or tensor.ndim != 2 or tensor.shape[1] != self._width or not len(tensor):
            return None
        return tensor if np.isfinite(tensor).all() else None
