"""The run spec: what the operator resolved for one run (``/etc/lakeloop/run.json``), as types.

The file's shape is fixed in docs/design/2026-11-24-contracts-between-the-parts.md. Parsing is strict: what this
program would not act on is refused, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lakeloop_trainer.failures import RunFailure

API_VERSION = "lakeloop.io/run/v1"
FORMATS = ("json", "csv", "parquet")
MODES = ("Append", "Overwrite")


@dataclass(frozen=True)
class Ingest:
    """Raw files to load into a table before it is read, in one commit."""

    format: str
    mode: str
    options: Mapping[str, str]
    base_version: int | None
    """The table's version when the run was pinned; None where the table did not exist."""
    manifest: str | None
    """URI of the list of files that the operator pinned."""
    committed_version: int | None
    """The version that an earlier attempt made, once the operator knows it."""


@dataclass(frozen=True)
class Input:
    """One Delta table, pinned to a version, or with files to load first."""

    index: int
    name: str
    uri: str
    version: int | None
    ingest: Ingest | None

    @property
    def path(self) -> str:
        """The path of this input in the TrainingJob."""
        return f"spec.inputs[{self.index}]"


@dataclass(frozen=True)
class Split:
    """Random split: the fraction of rows to hold out, from 0 to below 1."""

    test_fraction: float = 0.2
    seed: int = 0
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What to learn from: a query over the inputs, the columns, and the split."""

    query: str | None
    features: tuple[str, ...] | None
    target: str
    split: Split = field(default_factory=Split)


@dataclass(frozen=True)
class Step:
    """One step of the pipeline: a class by its dotted path, and its parameters as JSON values."""

    class_path: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Objective:
    metric: str
    goal: str


@dataclass(frozen=True)
class Explanation:
    method: str = "Permutation"
    sample_rows: int = 1000


@dataclass(frozen=True)
class RunSpec:
    """Everything that a run needs to know. ``raw`` is the file as parsed, for the record."""

    namespace: str
    job: str
    number: int
    uid: str
    tracking_uri: str
    run_id: str
    inputs: tuple[Input, ...]
    dataset: Dataset
    steps: tuple[Step, ...]
    objective: Objective | None
    explanation: Explanation
    path_style: bool
    raw: Mapping[str, Any]


def load(path: Path) -> RunSpec:
    """Reads the run spec from a file.

    Raises:
        RunFailure: InvalidConf where it cannot be read or says something that this program does not do.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunFailure("InvalidConf", f"The run spec {path} cannot be read: {error}") from error
    return parse(document)


def parse(document: object) -> RunSpec:
    """The run spec of a JSON document; raises RunFailure (InvalidConf) that names the field."""
    top = _Node(document, "")
    version = top.text("apiVersion")
    if version != API_VERSION:
        raise _invalid("apiVersion", f"is {version!r}, this image understands {API_VERSION!r}: use matching images")
    estimator = top.node("estimator")
    library = estimator.text("library", "sklearn")
    if library != "sklearn":
        raise _invalid("spec.estimator.library", f"is {library!r}; this image trains with 'sklearn'")
    steps = tuple(_step(node) for node in estimator.nodes("steps"))
    if not steps:
        raise _invalid("spec.estimator.steps", "is empty: give at least one step")
    inputs = tuple(_input(index, node) for index, node in enumerate(top.nodes("inputs")))
    if not inputs:
        raise _invalid("spec.inputs", "is empty: give at least one Delta table")
    objective = top.optional("objective")
    explanation = top.optional("explanation")
    job, run, tracking, storage = top.node("job"), top.node("run"), top.node("tracking"), top.optional("storage")
    return RunSpec(
        namespace=job.text("namespace"),
        job=job.text("name"),
        number=run.integer("number"),
        uid=run.text("uid"),
        tracking_uri=tracking.text("uri"),
        run_id=tracking.text("runId"),
        inputs=inputs,
        dataset=_dataset(top.node("dataset"), inputs),
        steps=steps,
        objective=Objective(objective.text("metric"), objective.text("goal", "Maximize")) if objective else None,
        explanation=_explanation(explanation),
        path_style=bool(storage.get("pathStyle", True)) if storage else True,
        raw=cast(Mapping[str, Any], document),
    )


def _input(index: int, node: _Node) -> Input:
    ingest_node = node.optional("ingest")
    version = node.optional_integer("version")
    if ingest_node is None and version is None:
        raise _invalid(f"spec.inputs[{index}]", "has neither a pinned version nor files to ingest")
    return Input(
        index=index,
        name=node.text("name"),
        uri=node.text("uri").rstrip("/"),
        version=version,
        ingest=_ingest(index, ingest_node) if ingest_node else None,
    )


def _ingest(index: int, node: _Node) -> Ingest:
    path = f"spec.inputs[{index}].ingest"
    file_format, mode = node.text("format", "json"), node.text("mode", "Append")
    if file_format not in FORMATS:
        raise _invalid(f"{path}.format", f"is {file_format!r}; write one of {', '.join(FORMATS)}")
    if mode not in MODES:
        raise _invalid(f"{path}.mode", f"is {mode!r}; write one of {', '.join(MODES)}")
    options = node.get("options", {})
    if not isinstance(options, dict):
        raise _invalid(f"{path}.options", "must be a map of strings")
    return Ingest(
        format=file_format,
        mode=mode,
        options={str(key): _option(value) for key, value in options.items()},
        base_version=node.optional_integer("baseVersion"),
        manifest=node.optional_text("manifest"),
        committed_version=node.optional_integer("committedVersion"),
    )


def _option(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _dataset(node: _Node, inputs: tuple[Input, ...]) -> Dataset:
    query = node.optional_text("query")
    if query is None and len(inputs) > 1:
        raise _invalid("spec.dataset.query", "is needed to join several inputs")
    split = node.optional("split")
    features = node.optional_names("features")
    if features is not None and not features:
        raise _invalid("spec.dataset.features", "is empty: leave it out to use every column but the target")
    if features is not None and len(set(features)) != len(features):
        raise _invalid("spec.dataset.features", "names a column twice")
    target = node.text("target")
    if features is not None and target in features:
        raise _invalid("spec.dataset.features", f"contains the target {target!r}: take it out")
    return Dataset(query=query, features=features, target=target, split=_split(split) if split else Split())


def _split(node: _Node) -> Split:
    by = node.text("by", "Random")
    if by != "Random":
        raise _invalid("spec.dataset.split.by", f"is {by!r}; this image splits by 'Random'")
    fraction = node.number("testFraction", 0.2)
    if not 0 <= fraction < 1:
        raise _invalid("spec.dataset.split.testFraction", f"is {fraction}; write a number from 0 to below 1")
    return Split(
        test_fraction=fraction,
        seed=0 if node.get("seed") is None else node.integer("seed"),
        keys=node.optional_names("keys") or (),
    )


def _step(node: _Node) -> Step:
    params = node.get("params", {}) or {}
    if not isinstance(params, dict):
        raise _invalid("spec.estimator.steps", "has params that are not a map")
    return Step(class_path=node.text("class"), params=params)


def _explanation(node: _Node | None) -> Explanation:
    if node is None:
        return Explanation()
    method = node.text("method", "Permutation")
    if method not in ("Permutation", "None"):
        raise _invalid("spec.explanation.method", f"is {method!r}; this image knows 'Permutation' and 'None'")
    return Explanation(method, 1000 if node.get("sampleRows") is None else node.integer("sampleRows"))


def _invalid(path: str, message: str) -> RunFailure:
    return RunFailure("InvalidConf", f"{path} {message}", path if path.startswith("spec") else None)


class _Node:
    """A JSON object with typed access; what is missing or of the wrong type is an InvalidConf with its path."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise _invalid(path or "the run spec", "must be a JSON object")
        self._value: dict[str, Any] = value
        self._path = path

    def get(self, key: str, default: object = None) -> Any:
        return self._value.get(key, default)

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value:
            raise _invalid(self._at(key), "must be a string that is not empty")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self._value.get(key) is None else self.text(key)

    def integer(self, key: str) -> int:
        value = self._value.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _invalid(self._at(key), "must be an integer")
        return value

    def optional_integer(self, key: str) -> int | None:
        return None if self._value.get(key) is None else self.integer(key)

    def number(self, key: str, default: float) -> float:
        value = self._value.get(key)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _invalid(self._at(key), "must be a number")
        return float(value)

    def optional_names(self, key: str) -> tuple[str, ...] | None:
        value = self._value.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            raise _invalid(self._at(key), "must be a list of column names")
        return tuple(value)

    def node(self, key: str) -> _Node:
        return _Node(self._value.get(key), self._at(key))

    def optional(self, key: str) -> _Node | None:
        return None if self._value.get(key) is None else self.node(key)

    def nodes(self, key: str) -> list[_Node]:
        value = self._value.get(key)
        if not isinstance(value, list):
            raise _invalid(self._at(key), "must be a list")
        return [_Node(item, f"{self._at(key)}[{index}]") for index, item in enumerate(value)]
