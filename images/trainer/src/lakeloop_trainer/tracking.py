"""What a run leaves in MLflow.

The operator made the run and will end it; this program only logs into it, through ``MlflowClient`` and never through
the fluent API, whose active run would be ended at exit. Artifacts go straight to the object store, side by side.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lakeloop_trainer.digest import model_digest
from lakeloop_trainer.run_spec import Input

MODEL_NAME = "model"
MAX_PARAM = 6000
MAX_KEY = 250
BATCH = 100
EXAMPLE_ROWS = 5
_KEY = re.compile(r"[^\w/.\- ]")
# Roots whose types a model may name without being asked: they came with the library that the user chose.
_TRUSTED_ROOTS = ("sklearn.", "numpy.", "scipy.")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedModel:
    """A model as MLflow has it."""

    model_id: str
    artifact_uri: str
    digest: str
    signature: bool

    def document(self) -> dict[str, Any]:
        """As in the run's result."""
        return {
            "modelId": self.model_id,
            "uri": f"models:/{self.model_id}",
            "artifactUri": self.artifact_uri,
            "digest": self.digest,
            "signature": self.signature,
        }


class Tracker:
    """Logs into one run of an MLflow server. Every method raises what MLflow, requests or boto3 raise."""

    def __init__(self, uri: str, run_id: str) -> None:
        import mlflow
        from mlflow import MlflowClient

        mlflow.set_tracking_uri(uri)
        self.client = MlflowClient(tracking_uri=uri)
        self.run_id = run_id
        run = self.client.get_run(run_id)
        self.experiment_id = str(run.info.experiment_id)
        self._artifact_uri = str(run.info.artifact_uri)
        self.run_tags: Mapping[str, str] = run.data.tags
        """As they were when this attempt began."""
        self.extra_requirements: tuple[str, ...] = ()
        """Pinned requirements that a model records beside what its steps need."""
        self._params: Mapping[str, str] = run.data.params
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="mlflow")

    def params(self, params: Mapping[str, object]) -> None:
        """Logs the parameters that the run does not have yet.

        MLflow takes no second value for one: a retry with another image, say, would fail for what an earlier attempt
        logged.
        """
        from mlflow.entities import Param

        wanted = {_key(name): str(value)[:MAX_PARAM] for name, value in params.items()}
        for name in sorted(key for key, value in wanted.items() if self._params.get(key, value) != value):
            log.warning("the parameter %s is that of an earlier attempt", name)
        found = [Param(name, value) for name, value in wanted.items() if name not in self._params]
        for start in range(0, len(found), BATCH):
            self.client.log_batch(self.run_id, params=found[start : start + BATCH])

    def tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def metrics(self, metrics: Mapping[str, float], model_id: str | None = None) -> None:
        """Logs metrics, of the run and, with ``model_id``, of the model too."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = [
            Metric(_key(name), value, now, 0, model_id=model_id, run_id=self.run_id) for name, value in metrics.items()
        ]
        self.client.log_batch(self.run_id, metrics=found)

    def inputs(
        self, inputs: Sequence[Input], versions: Mapping[str, int], columns: Mapping[str, Sequence[tuple[str, str]]]
    ) -> None:
        """Logs each input table, with its version, as an MLflow dataset (source type ``delta_table``)."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        found = []
        for item in inputs:
            version = versions[item.name]
            source = {"path": item.uri, "delta_table_version": version, "is_databricks_uc_table": False}
            found_columns = columns.get(item.name, ())  # not known where the run's own process read no table
            specs = [{"name": n, "type": _mlflow_type(t), "required": False} for n, t in found_columns]
            dataset = Dataset(
                name=item.name,
                digest=hashlib.sha256(f"{item.uri}@{version}".encode()).hexdigest()[:8],
                source_type="delta_table",
                source=json.dumps(source),
                schema=json.dumps({"mlflow_colspec": specs}),
                profile=json.dumps({"uri": item.uri, "version": version}),
            )
            tags = [
                InputTag("mlflow.data.context", "training"),
                InputTag("lakeloop.io/uri", item.uri),
                InputTag("lakeloop.io/version", str(version)),
            ]
            found.append(DatasetInput(dataset, tags))
        self.client.log_inputs(self.run_id, datasets=found)

    def artifacts(self, files: Mapping[str, Path]) -> None:
        """Uploads files beside one another; keys are their folders in the run's artifacts (``plots/roc.png``)."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository: Any = get_artifact_repository(self._artifact_uri)

        def upload(name: str, path: Path) -> None:
            folder, _, base = name.rpartition("/")
            if path.name != base:
                raise ValueError(f"{path} cannot be logged as {name}")
            repository.log_artifact(str(path), folder or None)

        for waiting in [self._pool.submit(upload, name, path) for name, path in files.items()]:
            waiting.result()

    def document(self, name: str, document: object) -> None:
        """Uploads a JSON document under a name such as ``lakeloop/result.json``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name.rpartition("/")[2]
            path.write_text(json.dumps(document, indent=2))
            self.artifacts({name: path})

    def model(self, pipeline: Any, features: Any, params: Mapping[str, object], steps: Sequence[str]) -> LoggedModel:
        """Logs the fitted pipeline with signature, input example, pinned requirements and digest.

        ``features``: the training rows. ``steps``: the classes' dotted paths. What ``mlflow.sklearn.log_model`` does,
        without its look-ups of requirements and its second load of the model.
        """
        import mlflow.sklearn

        example = features.head(EXAMPLE_ROWS)
        signature = signature_of(features, pipeline.predict(example))
        found, trusted = serialization(pipeline)

        def save(folder: Path, model: Any) -> None:
            mlflow.sklearn.save_model(
                pipeline,
                str(folder),
                mlflow_model=model,
                signature=signature,
                input_example=example,
                pip_requirements=requirements(steps, found, self.extra_requirements),
                serialization_format=found,
                skops_trusted_types=trusted or None,
            )

        return self.log_model(save, params, {"lakeloop.io/serialization": found}, signature=signature is not None)

    def log_model(
        self,
        save: Callable[[Path, Any], None],
        params: Mapping[str, object],
        tags: Mapping[str, str],
        *,
        signature: bool,
    ) -> LoggedModel:
        """Logs what ``save(folder, mlflow.models.Model)`` writes into the folder, file by file and side by side."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        logged = self.client.create_logged_model(
            experiment_id=self.experiment_id,
            name=MODEL_NAME,
            source_run_id=self.run_id,
            params={_key(name): str(value)[:MAX_PARAM] for name, value in params.items()},
            tags=dict(tags),
        )
        location = str(logged.artifact_location)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            save(
                folder,
                Model(artifact_path=location, run_id=self.run_id, model_uuid=logged.model_id, model_id=logged.model_id),
            )
            digest = model_digest(folder)
            repository: Any = get_artifact_repository(location)
            uploads = [
                self._pool.submit(
                    repository.log_artifact, str(path), None if path.parent == folder else _below(path.parent, folder)
                )
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            ]
            for waiting in uploads:
                waiting.result()
        self.client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        self.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        return LoggedModel(logged.model_id, location, digest, signature=signature)

    @property
    def artifact_uri(self) -> str:
        """Where the run's artifacts are."""
        return self._artifact_uri


def signature_of(features: Any, predicted: Any) -> Any:
    """The signature of a model that learned from these features: a column that had NULLs may have them again.

    MLflow looks at every value, which takes a minute for a million rows of text: it gets the first rows and, of each
    column, a row with a value and one without.
    """
    from mlflow.models import infer_signature

    rows = set(range(min(EXAMPLE_ROWS, len(features))))
    for index in range(features.shape[1]):
        absent = features.iloc[:, index].isna().to_numpy()
        rows |= {int(absent.argmax()), int(absent.argmin())}
    with warnings.catch_warnings():
        # integers without NULLs are integers: the rows say so, and the query can make them DOUBLE
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer")
        return infer_signature(features.iloc[sorted(rows)], predicted)


def serialization(pipeline: Any) -> tuple[str, list[str]]:
    """``("skops", types to trust)`` where skops can write the pipeline safely, else ``("cloudpickle", [])``."""
    import skops.io

    try:
        unknown = skops.io.get_untrusted_types(data=skops.io.dumps(pipeline))
    except Exception as error:  # skops refuses what it cannot write in many ways
        log.info("skops cannot write this pipeline (%s): cloudpickle it is", type(error).__name__)
        return "cloudpickle", []
    if all(name.startswith(_TRUSTED_ROOTS) for name in unknown):
        return "skops", sorted(unknown)
    return "cloudpickle", []


def requirements(steps: Sequence[str], serialization_format: str, extra: Sequence[str] = ()) -> list[str]:
    """The pinned requirements of a model, from what is installed: no look-up, no network."""
    names = {"scikit-learn", "numpy", "pandas", "scipy", serialization_format}
    names |= {package for step in steps for package in _packages_of(step.partition(".")[0])}
    found = [f"{name}=={metadata.version(name)}" for name in sorted(names)]
    # the model needs MLflow's full package to be served by MLflow itself; skinny has the same version
    return [f"mlflow=={metadata.version('mlflow-skinny')}", *found, *(each for each in extra if each not in found)]


def _packages_of(module: str) -> list[str]:
    return metadata.packages_distributions().get(module, []) if module != "sklearn" else ["scikit-learn"]


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _key(name: str) -> str:
    return _KEY.sub("_", name)[:MAX_KEY]


def _mlflow_type(spark_type: str) -> str:
    return {
        "tinyint": "integer", "smallint": "integer", "int": "integer", "bigint": "long", "float": "float",
        "double": "double", "boolean": "boolean", "string": "string", "binary": "binary", "date": "datetime",
        "timestamp": "datetime", "timestamp_ntz": "datetime",
    }.get(spark_type, "double" if spark_type.startswith("decimal") else "string")  # fmt: skip
