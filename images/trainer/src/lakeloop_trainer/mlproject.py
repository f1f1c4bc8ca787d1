"""An MLflow project as MLflow itself reads it: entry points, parameters, environment."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakeloop_trainer import dependencies
from lakeloop_trainer.failures import RunFailure, exception_line, scrub

FIELD = "spec.project"


@dataclass(frozen=True)
class Command:
    """What to run."""

    line: str
    """For a shell; values of parameters are quoted."""
    parameters: Mapping[str, str]
    """Those given and those by default."""
    packages: list[dependencies.Wanted]


def command(folder: Path, entry_point: str, given: Mapping[str, Any], downloads: Path) -> Command:
    """The command line of an entry point.

    ``downloads``: where a parameter of type ``path`` is fetched to. Raises RunFailure (InvalidProject,
    InvalidParameter).
    """
    from mlflow.projects import env_type
    from mlflow.projects._project_spec import load_project

    try:
        project: Any = load_project(str(folder))  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the YAML is
        told = f"the MLproject file cannot be read: {exception_line(error)}"
        raise RunFailure("InvalidProject", f"{FIELD}.uri: {told}"[:1000], f"{FIELD}.uri") from error
    if project.databricks_spark_job_spec is not None or project.env_type in (env_type.CONDA, env_type.DOCKER):
        kind = "databricks_spark_job" if project.databricks_spark_job_spec is not None else project.env_type
        message = (
            f"{FIELD}.uri: the project asks for {kind}; a run has the packages of its image: write python_env, or "
        )
        raise RunFailure("InvalidProject", f"{message}nothing and spec.spark.image", f"{FIELD}.uri")
    entry = _entry(project, folder, entry_point)
    values = {str(key): value for key, value in given.items()}
    _check(entry, values)
    for name, parameter in entry.parameters.items():
        if parameter.type == "path" and str(values.get(name, "")).startswith("s3a://"):
            values[name] = f"s3{str(values[name]).removeprefix('s3a')}"  # as MLflow's own code knows it
    try:
        line = entry.compute_command(values, str(downloads))
        final, _ = entry.compute_parameters(values, None)
    except (KeyError, IndexError, ValueError) as error:
        told = f"the command of entry point {entry_point} names {error}, which is no parameter of it"
        raise RunFailure("InvalidProject", f"{FIELD}.entryPoint: {told}", f"{FIELD}.entryPoint") from error
    except Exception as error:  # a file or an address that cannot be had
        told = f"{FIELD}.parameters: {scrub(exception_line(error))}"
        raise RunFailure("InvalidParameter", told[:1000], f"{FIELD}.parameters") from error
    if not isinstance(entry.command, str) or not entry.command.strip():
        message = f"{FIELD}.entryPoint: entry point {entry_point} has no command"
        raise RunFailure("InvalidProject", message, f"{FIELD}.entryPoint")
    used = {key: values.get(key, entry.parameters[key].default) for key in final} | {
        key: values[key] for key in values if key not in final
    }
    shown = {key: str(value) for key, value in used.items()}
    return Command(line, shown, _packages(project.env_config_path, folder))


def _entry(project: Any, folder: Path, name: str) -> Any:
    known = sorted(project._entry_points or {})
    try:
        entry = project.get_entry_point(name)
    except Exception as error:
        has = f"it has {', '.join(known)}" if known else "it has no MLproject file with entry points"
        message = f"{FIELD}.entryPoint: the project has no entry point {name}; {has}"
        raise RunFailure("InvalidProject", message, f"{FIELD}.entryPoint") from error
    if name not in known and not (folder / name).is_file():
        message = f"{FIELD}.entryPoint: there is no file {name}; entry points are {', '.join(known) or 'none'}"
        raise RunFailure("InvalidProject", message, f"{FIELD}.entryPoint")
    return entry


def _check(entry: Any, values: Mapping[str, Any]) -> None:
    for name, parameter in entry.parameters.items():
        field = f"{FIELD}.parameters.{name}"
        if name not in values and parameter.default is None:
            declared = ", ".join(entry.parameters)
            message = f"{field} is missing: entry point {entry.name} needs it (its parameters: {declared})"
            raise RunFailure("InvalidParameter", message, field)
        if name not in values:
            continue
        value = values[name]
        if isinstance(value, dict | list) or value is None:
            raise RunFailure("InvalidParameter", f"{field} must be a string, a number or a boolean", field)
        if parameter.type in ("float", "int"):
            try:
                (float if parameter.type == "float" else int)(str(value))
            except ValueError as error:
                message = f"{field} is {value!r}, and the project says that it is of type {parameter.type}"
                raise RunFailure("InvalidParameter", message, field) from error


def _packages(python_env: str | None, folder: Path) -> list[dependencies.Wanted]:
    """What python_env.yaml asks for, of which the image may have all."""
    if python_env is None:
        return []
    from mlflow.utils.environment import _PythonEnv

    field = f"{FIELD}.uri"
    try:
        env: Any = _PythonEnv.from_yaml(python_env)  # type: ignore[no-untyped-call]
        lines = list(_lines(env.dependencies or [], folder))
    except Exception as error:
        message = f"{field}: {Path(python_env).name} cannot be read: {exception_line(error)}"
        raise RunFailure("InvalidProject", message[:1000], field) from error
    has = f"{sys.version_info.major}.{sys.version_info.minor}"
    if env.python and ".".join(str(env.python).split(".")[:2]) != has:
        message = f"{field}: the project wants Python {env.python}, and the image has {has}: see spec.spark.image"
        raise RunFailure("InvalidProject", message, field)
    try:
        return [dependencies.Wanted(each.requirement, field) for each in dependencies.parse(lines, field, pinned=False)]
    except RunFailure as error:
        raise RunFailure("InvalidProject", error.message, field) from error


def _lines(wanted: list[Any], folder: Path) -> list[str]:
    found = []
    for each in wanted:
        text = str(each).partition(" #")[0].strip()
        if text.startswith(("-r ", "--requirement ")):
            file = (folder / text.split(maxsplit=1)[1]).resolve()
            if not file.is_relative_to(folder.resolve()):
                raise ValueError(f"{text} leads out of the project")
            found += _lines([line for line in file.read_text().splitlines() if not line.startswith("#")], folder)
        elif text.startswith("-"):
            raise ValueError(f"{text} is an option; write requirements alone")
        elif text:
            found.append(text)
    return found
