"""The model in memory: checked before any of its code runs, loaded through pyfunc, warmed up."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from packaging.utils import canonicalize_name

from lakeloop_server import environment
from lakeloop_server.errors import LoadError, Reason, RequestError
from lakeloop_server.settings import Settings

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel
    from mlflow.types import ParamSchema, Schema

logger = logging.getLogger(__name__)
JSON = "application/json"


@dataclass(frozen=True)
class ServedModel:
    """One immutable model version, ready to predict; shared by all threads."""

    name: str
    version: str
    digest: str
    warnings: tuple[str, ...]
    pyfunc: PyFuncModel
    input_schema: Schema | None
    output_schema: Schema | None
    params_schema: ParamSchema | None
    folder: Path

    @property
    def signature(self) -> dict[str, Any] | None:
        """As MLflow writes it, `{inputs, outputs, params}`, each a list of columns or tensors; None without one."""
        if self.pyfunc.metadata.signature is None:
            return None
        parts = {"inputs": self.input_schema, "outputs": self.output_schema, "params": self.params_schema}
        return {name: schema.to_dict() if schema else None for name, schema in parts.items()}


def read_mlmodel(folder: Path) -> Mapping[str, Any]:
    """The MLmodel file as a mapping; raises LoadError (ModelNotFound, LoadFailed)."""
    path = folder / "MLmodel"
    if not path.is_file():
        raise LoadError(Reason.MODEL_NOT_FOUND, "The folder holds no MLmodel file, so it is not an MLflow model")
    content = _read_yaml(path)
    flavors = content.get("flavors")
    if not isinstance(flavors, dict) or not all(isinstance(flavor, dict) for flavor in flavors.values()):
        raise LoadError(Reason.LOAD_FAILED, "The MLmodel file has no flavors")
    return content


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(_read_text(path) or "")
    except (yaml.YAMLError, RecursionError):
        raise LoadError(Reason.LOAD_FAILED, f"The model's {path.name} is not YAML") from None
    return content if isinstance(content, dict) else {}


def _read_text(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LoadError(Reason.LOAD_FAILED, f"The model's {path.name} is not text in UTF-8") from None


def has_input_signature(mlmodel: Mapping[str, Any]) -> bool:
    """Whether the model's signature says anything about its inputs; without that, nothing would be enforced."""
    signature = mlmodel.get("signature")
    return isinstance(signature, dict) and bool(signature.get("inputs"))


def check(folder: Path, mlmodel: Mapping[str, Any], settings: Settings) -> list[str]:
    """Refuses what must not be loaded, before any of it is; gives the warnings.

    Raises LoadError: SignatureMissing, EnvironmentMismatch.
    """
    warnings = []
    if not has_input_signature(mlmodel):
        if settings.signature_required:
            raise LoadError(
                Reason.SIGNATURE_MISSING,
                f"{settings.model_name} version {settings.model_version} has no signature for its inputs: log it with "
                "signature=infer_signature(...) or an input_example, or set spec.gates.signature.required: false",
            )
        warnings.append("the model has no signature: nothing about its inputs is checked")
    recorded = environment.recorded(
        mlmodel,
        _read_text(folder / "requirements.txt"),
        _read_yaml(folder / "conda.yaml"),
        _read_yaml(folder / "python_env.yaml"),
    )
    found = environment.compare(recorded, platform.python_version(), installed_versions(), _has_module)
    if found.problems:
        raise LoadError(Reason.ENVIRONMENT_MISMATCH, "; ".join(found.problems))
    return warnings + found.warnings


def installed_versions() -> dict[str, str]:
    """Canonical distribution name → version, of this image."""
    return {canonicalize_name(dist.metadata["Name"]): dist.version for dist in importlib.metadata.distributions()}


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def load(folder: Path, digest: str, warnings: list[str], settings: Settings) -> ServedModel:
    """Loads the model's own code and data. Raises LoadError: EnvironmentMismatch (a module is missing), LoadFailed."""
    import mlflow.pyfunc
    from mlflow.pyfunc.scoring_server import SERVING_MODEL_CONFIG

    # MLflow's warnings repeat ours at the load, and name callers' columns at each request
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        # Its warnings would be a second comparison of the environments, a third of a second long
        config = os.environ.get(SERVING_MODEL_CONFIG)
        pyfunc = mlflow.pyfunc.load_model(
            str(folder), suppress_warnings=True, model_config=json.loads(config) if config else None
        )
        metadata = pyfunc.metadata
        return ServedModel(
            name=settings.model_name,
            version=settings.model_version,
            digest=digest,
            warnings=tuple(warnings),
            pyfunc=pyfunc,
            input_schema=metadata.get_input_schema(),
            output_schema=metadata.get_output_schema(),
            params_schema=metadata.get_params_schema(),
            folder=folder,
        )
    except ModuleNotFoundError as error:
        raise LoadError(
            Reason.ENVIRONMENT_MISMATCH,
            f"the model needs the Python module {error.name}, which the server image does not have",
        ) from error
    except BaseException as error:  # a model that calls sys.exit() is one that does not load
        raise LoadError(Reason.LOAD_FAILED, f"{type(error).__name__}: {str(error)[:1000]}") from error


def warm_up(model: ServedModel) -> list[str]:
    """Answers one request as a caller would get it, so that the first caller does not pay for lazy imports.

    Uses the model's own input example; without one a row made from the signature, whose failure is only a warning,
    because a model may rightly refuse made-up values. Gives the warnings; raises LoadError (WarmupFailed).
    """
    from lakeloop_server.invocations import score

    example = _example_payload(model)
    if example is not None:
        try:
            score(example, JSON, model)
        except RequestError as error:
            cause = error.__cause__
            detail = f" ({type(cause).__name__}: {str(cause)[:500]})" if cause is not None else ""
            raise LoadError(
                Reason.WARMUP_FAILED, f"The model cannot answer its own input example: {error.message}{detail}"
            ) from error
        return []
    if model.input_schema is None:
        return ["the model has neither input example nor signature: the first requests are slower"]
    from lakeloop_server.v2 import synthetic_input

    try:
        model.pyfunc.predict(synthetic_input(model.input_schema))
    except Exception as error:
        return [f"the model has no input example and refused a row made from its signature ({type(error).__name__})"]
    return []


def _example_payload(model: ServedModel) -> bytes | None:
    """The example in the format of `/invocations`, as MLflow saved it."""
    info = model.pyfunc.metadata.saved_input_example_info or {}
    name = info.get("serving_input_path")
    path = model.folder / str(name) if name else None
    if path is not None and path.is_file():
        return path.read_bytes()
    # Models logged by older MLflow have only the example itself
    name = info.get("artifact_path")
    path = model.folder / str(name) if name else None
    if path is None or not path.is_file():
        return None
    content = json.loads(path.read_bytes())
    if info.get("type") == "dataframe" and info.get("pandas_orient", "split") == "split":
        return json.dumps({"dataframe_split": content}).encode()
    return path.read_bytes() if isinstance(content, dict) and "inputs" in content else None
