"""What a run needs to know, as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPT_FOLDER = Path("/etc/lakeloop-script")


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
    keys: tuple[str, ...] = ()
    """With mode Merge: the columns that tell rows apart."""


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
    """The fraction of rows to hold out, from 0 to below 1, and which: by hash, or the newest."""

    test_fraction: float = 0.2
    seed: int = 0
    keys: tuple[str, ...] = ()
    by: str = "Random"
    column: str | None = None
    """With by Time: the column with the time."""


@dataclass(frozen=True)
class Expectation:
    """What is true of a good row, as a Spark SQL expression."""

    name: str
    expression: str
    fatal: bool
    """Whether a row that violates it fails the run."""


@dataclass(frozen=True)
class Dataset:
    """What to learn from: a query over the inputs, the columns, and the split."""

    query: str | None
    features: tuple[str, ...] | None
    target: str
    """Empty where the user's own code learns."""
    split: Split = field(default_factory=Split)
    expectations: tuple[Expectation, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step of the pipeline: a class by its dotted path, and its parameters as JSON values."""

    class_path: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Estimator:
    """A pipeline given by its classes."""

    library: str
    """``sklearn`` or ``spark``."""
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Script:
    """A program of the user's: files mounted at `SCRIPT_FOLDER`, or an archive or a .py file in the store."""

    path: str
    args: tuple[str, ...]
    uri: str | None


@dataclass(frozen=True)
class Project:
    """An MLflow project: a folder or an archive in the store, or a git URL."""

    uri: str
    version: str | None
    entry_point: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class SearchParameter:
    """One dimension: a range (``minimum`` and ``maximum`` are both there) or values."""

    name: str
    minimum: float | None
    maximum: float | None
    log: bool
    integer: bool
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Search:
    """A search for better parameters."""

    algorithm: str
    """``Grid``, ``Random`` or ``TPE``."""
    parameters: tuple[SearchParameter, ...]
    folds: int
    max_trials: int
    parallelism: int
    pruning: bool
    timeout_seconds: int


@dataclass(frozen=True)
class Champion:
    """The registered version that the model is compared with, pinned before launch."""

    model: str
    version: int
    artifact_uri: str
    digest: str | None


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
    estimator: Estimator | None
    script: Script | None
    project: Project | None
    pip: tuple[str, ...]
    search: Search | None
    champion: Champion | None
    objective: Objective | None
    explanation: Explanation
    path_style: bool
    raw: Mapping[str, Any]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The estimator's steps; none where the user's own code learns."""
        return self.estimator.steps if self.estimator else ()
