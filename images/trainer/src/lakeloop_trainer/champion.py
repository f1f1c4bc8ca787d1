"""The registered version to beat, scored on this run's own test rows.

Its files are fetched while Spark starts, so that the columns that it learned from can be read with the run's own: a
model with fewer features must still be compared with one that has more. What is wrong with the champion never fails
the run's training: it is said in the result, and the operator decides what follows.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lakeloop_trainer import metrics as measures
from lakeloop_trainer.digest import model_digest
from lakeloop_trainer.failures import Context, RunFailure, classify, exception_line, scrub
from lakeloop_trainer.run_spec import Champion as Pinned

FIELD = "spec.evaluation.champion"
METADATA = "lakeloop"
"""Key in a Spark model's MLmodel: which columns the learner writes, and the classes."""
MOST_CHANGES = 20

log = logging.getLogger("lakeloop_trainer")


@dataclass(frozen=True)
class Champion:
    """The version as it was fetched."""

    version: int
    inputs: Mapping[str, str] | None = None
    """Its signature's input columns (name → MLflow type); None where it has none."""
    output: str | None = None
    """MLflow type of what it predicts, where the signature says."""
    model: Any = None
    """What predicts: the scikit-learn model itself, for its class scores, a `SparkModel`, or MLflow's pyfunc of another
    flavor."""
    problem: str | None = None
    """Why it cannot be compared."""
    value: float | None = None
    """Its metric, where it is scored already: a Spark ML model is before Spark goes."""


@dataclass(frozen=True)
class SparkModel:
    """A model of Spark ML that a run of Lakeloop's made; `spark_ml.champion` scores it."""

    folder: Path
    """The driver's copy of its files, which is checked."""
    artifact_uri: str
    """Where executors read them."""
    known: Mapping[str, Any]
    """Which columns its learner writes, and the classes."""


@dataclass(frozen=True)
class Comparison:
    """The champion beside the run's model."""

    version: int
    value: float | None = None
    problem: str | None = None
    schema_changes: Sequence[str] = field(default_factory=tuple)

    def document(self) -> dict[str, Any]:
        """As in the run's result."""
        left_out = len(self.schema_changes) - MOST_CHANGES
        changes = [*self.schema_changes[:MOST_CHANGES], *([f"{left_out} more changes"] if left_out > 0 else [])]
        return {
            "version": self.version,
            "value": self.value,
            "problem": self.problem[:200] if self.problem else None,
            "schemaChanges": changes,
        }


def fetch(pinned: Pinned, folder: Path) -> Champion:
    """Fetches the version's files into the folder and loads it: from then on the files are gone, unless Spark is to
    read them. Raises RunFailure where the store does not answer, or refuses."""
    folder.mkdir(parents=True)
    try:
        files = download(pinned.artifact_uri, folder)
    except Exception as error:
        raise classify(error, Context("Fetching the champion", "StorageUnavailable", FIELD, False)) from error
    found = _checked(pinned, files)
    if not isinstance(found.model, SparkModel):
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _checked(pinned: Pinned, folder: Path) -> Champion:
    if not (folder / "MLmodel").is_file():
        return Champion(pinned.version, problem="its files are gone from the store")
    if pinned.digest and model_digest(folder) != pinned.digest:
        return Champion(pinned.version, problem="its files are not those that were registered (digest)")
    try:
        return _loaded(pinned, folder)
    except Exception as error:  # another's model can raise anything
        why = scrub(exception_line(error))
        return Champion(pinned.version, problem=f"it cannot be loaded in this image: {why}")


def download(uri: str, folder: Path) -> Path:
    """Fetches a model's files; raises what MLflow and boto3 raise."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository: Any = get_artifact_repository(uri)
    return Path(repository.download_artifacts("", str(folder)))


def _loaded(pinned: Pinned, folder: Path) -> Champion:
    from mlflow.models import Model

    described = Model.load(str(folder / "MLmodel"))
    flavors = described.flavors or {}
    inputs, output = signature_types(described.signature)
    if "sklearn" in flavors:
        import mlflow.sklearn

        return Champion(pinned.version, inputs, output, mlflow.sklearn.load_model(str(folder)))
    if "spark" in flavors:
        known = (described.metadata or {}).get(METADATA)
        if isinstance(known, dict):
            return Champion(pinned.version, inputs, output, SparkModel(folder, pinned.artifact_uri, known))
        problem = "it is of flavor spark, and no run of Lakeloop's made it: which columns have its scores is not known"
        return Champion(pinned.version, inputs, output, problem=problem)
    import mlflow.pyfunc

    return Champion(pinned.version, inputs, output, mlflow.pyfunc.load_model(str(folder)))


def signature_types(signature: Any) -> tuple[dict[str, str] | None, str | None]:
    """Input columns with their types, and the type of the output, of an MLflow signature."""
    if signature is None:
        return None, None
    inputs = signature.inputs
    named = inputs is not None and not inputs.is_tensor_spec() and inputs.has_input_names()
    columns = {str(spec.name): _type_of(spec) for spec in inputs.inputs} if named else None
    outputs = signature.outputs.inputs if signature.outputs is not None else []
    return columns, _type_of(outputs[0]) if len(outputs) == 1 else None


# what a prediction's array is of, by the names that a column has: the two libraries describe the same answer so
_OF_ARRAYS = {
    "bool": "boolean", "int32": "integer", "int64": "long", "float32": "float", "float64": "double", "object": "string",
}  # fmt: skip


def _type_of(spec: Any) -> str:
    kind = getattr(spec.type, "name", None) or str(spec.type)
    kind = "string" if kind.startswith("str") else _OF_ARRAYS.get(kind, kind)
    return f"{kind}?" if getattr(spec, "required", True) is False else str(kind)


def extra_columns(champion: Champion | None, features: Sequence[str], available: Sequence[str]) -> list[str]:
    """Columns that the champion needs, the query gives and this run does not learn from."""
    if champion is None or champion.inputs is None:
        return []
    return [name for name in champion.inputs if name not in features and name in available]


def compare(champion: Champion, rows: Any, truth: Any, metric: str, signature: Any) -> Comparison:
    """Scores the champion. ``rows``: the test rows, with its columns; ``signature``: that of the run's own model."""
    changes = schema_changes(champion, signature)
    try:
        value = value_of(champion, rows, truth, metric)
    except RunFailure as failure:
        return Comparison(champion.version, problem=failure.message, schema_changes=changes)
    except Exception as error:  # another's model can raise anything, and the text may quote rows
        return Comparison(champion.version, problem=f"it raised {type(error).__name__}", schema_changes=changes)
    return Comparison(champion.version, value=value, schema_changes=changes)


def value_of(champion: Champion, rows: Any, truth: Any, metric: str) -> float:
    """The model's metric; raises RunFailure where it cannot have one, and whatever the model raises.

    ``rows`` and ``truth`` are not looked at where it is scored already, or cannot be.
    """
    if champion.problem is not None:
        raise RunFailure("EvaluationFailed", champion.problem, FIELD)
    if champion.value is not None:
        return champion.value
    if champion.inputs is not None:
        missing = [name for name in champion.inputs if name not in rows.columns]
        if missing:
            names = ", ".join(missing[:10])
            raise RunFailure("EvaluationFailed", f"it needs column(s) {names}, which the query does not give", FIELD)
        rows = rows[list(champion.inputs)]
    scored = measures.score_any(champion.model, rows, truth, metric)
    if metric not in scored.metrics:
        raise RunFailure("EvaluationFailed", f"its {metric} is not defined on these rows", FIELD)
    return scored.metrics[metric]


def schema_changes(champion: Champion, signature: Any) -> list[str]:
    """How the signature differs from the champion's, column by column, in words."""
    inputs, output = signature_types(signature)
    if champion.inputs is None or inputs is None:
        return []
    before = champion.inputs
    found = [f"{name}: removed ({before[name]})" for name in before if name not in inputs]
    found += [f"{name}: added ({inputs[name]})" for name in inputs if name not in before]
    found += [f"{name}: {_words(before[name], inputs[name])}" for name in inputs if before.get(name, "") != inputs[name]
              and name in before]  # fmt: skip
    if champion.output is not None and output is not None and champion.output != output:
        found.append(f"prediction: {_words(champion.output, output)}")
    return found


_WIDTHS = ("boolean", "integer", "long", "float", "double")


def _words(before: str, after: str) -> str:
    old, new = before.removesuffix("?"), after.removesuffix("?")
    if old == new:
        return f"{old} is now {'optional' if after.endswith('?') else 'required'}"
    how = "changed"
    if old in _WIDTHS and new in _WIDTHS:
        how = "widened" if _WIDTHS.index(new) > _WIDTHS.index(old) else "narrowed"
    return f"{how} from {before} to {after}"
