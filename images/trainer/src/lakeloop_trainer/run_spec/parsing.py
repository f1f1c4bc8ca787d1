"""From the run spec's JSON to its types. What this program would not act on is refused, never ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.run_spec.json_node import Node, invalid
from lakeloop_trainer.run_spec.types import (
    Champion,
    Dataset,
    Estimator,
    Expectation,
    Explanation,
    Ingest,
    Input,
    Objective,
    Project,
    RunSpec,
    Script,
    Search,
    SearchParameter,
    Split,
    Step,
)

API_VERSION = "lakeloop.io/run/v1"
METHODS = ("estimator", "script", "project")
LIBRARIES = ("sklearn", "spark")
ALGORITHMS = ("Grid", "Random", "TPE")
FORMATS = ("json", "csv", "parquet")
MODES = ("Append", "Overwrite", "Merge")


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
    top = Node(document, "")
    version = top.text("apiVersion")
    if version != API_VERSION:
        raise invalid("apiVersion", f"is {version!r}, this image understands {API_VERSION!r}: use matching images")
    methods = [name for name in METHODS if top.get(name) is not None]
    if len(methods) != 1:
        raise invalid("spec", f"says {' and '.join(methods) or 'nothing'}; write one of {', '.join(METHODS)}")
    estimator, script, project = (top.optional(name) for name in METHODS)
    inputs = tuple(_input(index, node) for index, node in enumerate(top.nodes("inputs")))
    if not inputs:
        raise invalid("spec.inputs", "is empty: give at least one Delta table")
    objective = top.optional("objective")
    explanation = top.optional("explanation")
    job, run, tracking, storage = top.node("job"), top.node("run"), top.node("tracking"), top.optional("storage")
    spec = RunSpec(
        namespace=job.text("namespace"),
        job=job.text("name"),
        number=run.integer("number"),
        uid=run.text("uid"),
        tracking_uri=tracking.text("uri"),
        run_id=tracking.text("runId"),
        inputs=inputs,
        dataset=_dataset(top.node("dataset"), inputs, own_code=estimator is None),
        estimator=_estimator(estimator) if estimator else None,
        script=_script(script) if script else None,
        project=_project(project) if project else None,
        pip=dependencies.optional_names("pip") or () if (dependencies := top.optional("dependencies")) else (),
        search=_search(search) if (search := top.optional("search")) else None,
        champion=_champion(champion) if (champion := top.optional("champion")) else None,
        objective=Objective(objective.text("metric"), objective.text("goal", "Maximize")) if objective else None,
        explanation=_explanation(explanation),
        path_style=bool(storage.get("pathStyle", True)) if storage else True,
        raw=cast(Mapping[str, Any], document),
    )
    _refuse_what_is_not_done(spec)
    return spec


def _refuse_what_is_not_done(spec: RunSpec) -> None:
    wanted = {
        "spec.search": spec.search is not None and spec.estimator is None,
    }
    for field_path, asked in wanted.items():
        if asked:
            raise invalid(field_path, "asks for what this image does not do: take it away, or use another image")


def _input(index: int, node: Node) -> Input:
    ingest_node = node.optional("ingest")
    version = node.optional_integer("version")
    if ingest_node is None and version is None:
        raise invalid(f"spec.inputs[{index}]", "has neither a pinned version nor files to ingest")
    return Input(
        index=index,
        name=node.text("name"),
        uri=node.text("uri").rstrip("/"),
        version=version,
        ingest=_ingest(index, ingest_node) if ingest_node else None,
    )


def _ingest(index: int, node: Node) -> Ingest:
    path = f"spec.inputs[{index}].ingest"
    file_format, mode = node.text("format", "json"), node.text("mode", "Append")
    if file_format not in FORMATS:
        raise invalid(f"{path}.format", f"is {file_format!r}; write one of {', '.join(FORMATS)}")
    if mode not in MODES:
        raise invalid(f"{path}.mode", f"is {mode!r}; write one of {', '.join(MODES)}")
    keys = node.optional_names("keys") or ()
    if (mode == "Merge") != bool(keys):
        raise invalid(f"{path}.keys", "is needed by mode Merge, and taken by no other")
    options = node.get("options", {})
    if not isinstance(options, dict):
        raise invalid(f"{path}.options", "must be a map of strings")
    return Ingest(
        format=file_format,
        mode=mode,
        options={str(key): _option(value) for key, value in options.items()},
        base_version=node.optional_integer("baseVersion"),
        manifest=node.optional_text("manifest"),
        committed_version=node.optional_integer("committedVersion"),
        keys=keys,
    )


def _option(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _dataset(node: Node, inputs: tuple[Input, ...], *, own_code: bool) -> Dataset:
    query = node.optional_text("query")
    if query is None and len(inputs) > 1 and not own_code:
        raise invalid("spec.dataset.query", "is needed to join several inputs")
    split = node.optional("split")
    features = node.optional_names("features")
    if features is not None and not features:
        raise invalid("spec.dataset.features", "is empty: leave it out to use every column but the target")
    if features is not None and len(set(features)) != len(features):
        raise invalid("spec.dataset.features", "names a column twice")
    target = (node.optional_text("target") or "") if own_code else node.text("target")
    if features is not None and target in features:
        raise invalid("spec.dataset.features", f"contains the target {target!r}: take it out")
    expectations = node.nodes("expectations") if node.get("expectations") is not None else []
    return Dataset(
        query=query,
        features=features,
        target=target,
        split=_split(split) if split else Split(),
        expectations=tuple(
            Expectation(each.text("name"), each.text("expression"), each.text("onViolation", "Fail") == "Fail")
            for each in expectations
        ),
    )


def _split(node: Node) -> Split:
    by, column = node.text("by", "Random"), node.optional_text("column")
    if by not in ("Random", "Time"):
        raise invalid("spec.dataset.split.by", f"is {by!r}; this image splits by 'Random' and by 'Time'")
    if (by == "Time") != (column is not None):
        raise invalid("spec.dataset.split.column", "is needed by 'Time', and taken by nothing else")
    fraction = node.number("testFraction", 0.2)
    if not 0 <= fraction < 1:
        raise invalid("spec.dataset.split.testFraction", f"is {fraction}; write a number from 0 to below 1")
    return Split(
        test_fraction=fraction,
        seed=0 if node.get("seed") is None else node.integer("seed"),
        keys=node.optional_names("keys") or (),
        by=by,
        column=column,
    )


def _estimator(node: Node) -> Estimator:
    library = node.text("library", "sklearn")
    if library not in LIBRARIES:
        raise invalid("spec.estimator.library", f"is {library!r}; write one of {', '.join(LIBRARIES)}")
    steps = tuple(_step(each) for each in node.nodes("steps"))
    if not steps:
        raise invalid("spec.estimator.steps", "is empty: give at least one step")
    return Estimator(library, steps)


def _script(node: Node) -> Script:
    return Script(node.text("path"), node.optional_strings("args") or (), node.optional_text("uri"))


def _project(node: Node) -> Project:
    parameters = node.get("parameters", {}) or {}
    if not isinstance(parameters, dict):
        raise invalid("spec.project.parameters", "must be a map")
    entry_point = node.text("entryPoint", "main")
    return Project(node.text("uri"), node.optional_text("version"), entry_point, parameters)


def _search(node: Node) -> Search:
    algorithm = node.text("algorithm", "TPE")
    if algorithm not in ALGORITHMS:
        raise invalid("spec.search.algorithm", f"is {algorithm!r}; write one of {', '.join(ALGORITHMS)}")
    return Search(
        algorithm=algorithm,
        parameters=tuple(_dimension(index, each) for index, each in enumerate(node.nodes("parameters"))),
        folds=node.integer("folds"),
        max_trials=node.integer("maxTrials"),
        parallelism=node.integer("parallelism"),
        pruning=bool(node.get("pruning", True)),
        timeout_seconds=node.integer("timeoutSeconds"),
    )


def _dimension(index: int, node: Node) -> SearchParameter:
    values = node.get("values")
    low, high = node.optional_number("min"), node.optional_number("max")
    if (values is None) == (low is None or high is None):
        raise invalid(f"spec.search.parameters[{index}]", "needs min and max, or values")
    return SearchParameter(
        name=node.text("name"),
        minimum=low,
        maximum=high,
        log=node.text("scale", "Linear") == "Log",
        integer=node.text("type", "Float") == "Int",
        values=tuple(values or ()),
    )


def _champion(node: Node) -> Champion:
    return Champion(node.text("model"), node.integer("version"), node.text("artifactUri"), node.optional_text("digest"))


def _step(node: Node) -> Step:
    params = node.get("params", {}) or {}
    if not isinstance(params, dict):
        raise invalid("spec.estimator.steps", "has params that are not a map")
    return Step(class_path=node.text("class"), params=params)


def _explanation(node: Node | None) -> Explanation:
    if node is None:
        return Explanation()
    method = node.text("method", "Permutation")
    if method not in ("Permutation", "SHAP", "None"):
        raise invalid("spec.explanation.method", f"is {method!r}; write Permutation, SHAP or None")
    return Explanation(method, 1000 if node.get("sampleRows") is None else node.integer("sampleRows"))
