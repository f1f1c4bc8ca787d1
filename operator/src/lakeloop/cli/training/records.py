"""The record of one run, put together from the job's status, MLflow's run and the registered version: pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lakeloop.adapters.tracking_protocol import ModelVersion
from lakeloop.cli.training.mlflow import pairs
from lakeloop.cli.training.runs import Document

TAG = "lakeloop.io/"
INPUT, METRIC = f"{TAG}input.", f"{TAG}metric."
ROWS = "dataset.rows."
_PHASES = {"FINISHED": "Succeeded", "FAILED": "Failed", "KILLED": "Stopped"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table as a run read it."""

    name: str
    uri: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of a run."""

    namespace: str
    job: str
    number: int
    uid: str = ""
    phase: str = ""
    trigger: str = ""
    tables: tuple[Table, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    """Lakeloop's own, without their prefix."""
    model: str = ""
    digest: str = ""
    run_id: str = ""
    run_url: str = ""
    artifacts: str = ""
    """Folder of the MLflow run's artifacts."""

    @property
    def name(self) -> str:
        """`churn:7`."""
        return f"{self.job}:{self.number}"

    @property
    def rows(self) -> Mapping[str, str]:
        """How many rows the run learned from and tested on."""
        return {key.removeprefix(ROWS): value for key, value in self.parameters.items() if key.startswith(ROWS)}


def of_status(job: Document, run: Mapping[str, Any]) -> Record:
    """What the job's status says."""
    meta, model, tracked = job["metadata"], run.get("model") or {}, run.get("mlflow") or {}
    spec_hash = run.get("trainingSpecHash")
    return Record(
        namespace=meta["namespace"],
        job=meta["name"],
        number=run["number"],
        uid=run.get("uid", ""),
        phase=run.get("phase", ""),
        trigger=run.get("trigger", ""),
        tables=tuple(Table(each["name"], each["uri"], each.get("version")) for each in run.get("inputs") or ()),
        metrics=run.get("metrics") or {},
        tags={"spec-hash": spec_hash} if spec_hash else {},
        model=f"{model['name']}/{model['version']}" if model.get("version") else "",
        digest=model.get("digest") or "",
        run_id=tracked.get("runId", ""),
        run_url=tracked.get("url") or "",
    )


def of_mlflow(run: Document) -> Record:
    """What MLflow's run says, where the job's status has it no more."""
    tags = own_tags(pairs((run.get("data") or {}).get("tags")))
    namespace, _, job = tags.get("training-job", "").partition("/")
    number = tags.get("run", "")
    return with_run(
        Record(
            namespace=namespace,
            job=job,
            number=int(number) if number.isdecimal() else 0,
            uid=tags.get("run-uid", ""),
            phase=_PHASES.get(run["info"].get("status", ""), "Running"),
            trigger=tags.get("trigger", ""),
            tables=_datasets(run),
        ),
        run,
    )


def with_run(record: Record, run: Document) -> Record:
    """The record, with what MLflow's run adds."""
    data = run.get("data") or {}
    metrics = {key: float(value) for key, value in pairs(data.get("metrics")).items()}
    return replace(
        record,
        parameters=pairs(data.get("params")),
        # MLflow has them all, status the most important ones; a number is the same in both.
        metrics={**metrics, **record.metrics},
        tags={**own_tags(pairs(data.get("tags"))), **record.tags},
        run_id=run["info"]["run_id"],
        artifacts=run["info"].get("artifact_uri", ""),
        tables=record.tables or _datasets(run),
    )


def with_version(record: Record, version: ModelVersion) -> Record:
    """The record, with what the registered version adds."""
    tags = own_tags(version.tags)
    return replace(
        record,
        # The version knows the image's digest, which the run was made before.
        tags={**record.tags, **tags},
        tables=record.tables or tables_of(version.tags),
        model=record.model or f"{version.name}/{version.version}",
        digest=record.digest or tags.get("digest", ""),
    )


def with_result(record: Record, result: Mapping[str, Any]) -> Record:
    """The record, with what the driver left as its result: for a model that was not registered."""
    model, objective = result.get("model") or {}, result.get("objective") or {}
    named = {objective["metric"]: objective["value"]} if objective.get("value") is not None else {}
    return replace(
        record,
        metrics={**(result.get("metrics") or {}), **named, **record.metrics},
        digest=record.digest or model.get("digest") or "",
    )


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Lakeloop's tags, without their prefix."""
    return {key.removeprefix(TAG): value for key, value in tags.items() if key.startswith(TAG)}


def tables_of(tags: Mapping[str, str]) -> tuple[Table, ...]:
    """The tables that a version's tags name: `lakeloop.io/input.<name>` = `<uri>@<version>`."""
    found = []
    for key in sorted(tags):
        if key.startswith(INPUT):
            uri, _, version = tags[key].rpartition("@")
            number = int(version) if version.isdecimal() else None
            found.append(Table(key.removeprefix(INPUT), uri if number is not None else tags[key], number))
    return tuple(found)


def _datasets(run: Document) -> tuple[Table, ...]:
    found = []
    for each in (run.get("inputs") or {}).get("dataset_inputs") or ():
        dataset = each.get("dataset") or {}
        try:
            profile = json.loads(dataset.get("profile") or "{}")
        except ValueError:
            continue
        if isinstance(profile, dict) and profile.get("uri"):
            found.append(Table(str(dataset.get("name")), str(profile["uri"]), profile.get("version")))
    return tuple(found)


def versions_learned_from(
    versions: Sequence[ModelVersion], uri: str, version: int | None
) -> list[tuple[ModelVersion, Table]]:
    """The model versions that learned from a table, or from one version of it."""
    wanted = plain_uri(uri)
    return [
        (each, table)
        for each in versions
        for table in tables_of(each.tags)
        if _is(table.uri, wanted) and version in (None, table.version)
    ]


def _is(uri: str, wanted: str) -> bool:
    return plain_uri(uri) == wanted if "://" in wanted else plain_uri(uri).endswith(f"/{wanted}")


def plain_uri(uri: str) -> str:
    """A table's address in one form: `s3a`, and no slash at the end."""
    plain = uri.rstrip("/")
    return f"s3a://{plain.removeprefix('s3://')}" if plain.startswith("s3://") else plain


def folder_of(table: str) -> str:
    """Where a table by name lies below whatever warehouse: `sales.customers` → `sales.db/customers`."""
    database, dot, name = table.partition(".")
    return f"{database}.db/{name}" if dot else table
