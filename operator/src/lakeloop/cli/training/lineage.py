"""From a model to what made it, and from a table to the models that learned from it: pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lakeloop.adapters.tracking_protocol import ModelVersion
from lakeloop.cli.errors import CliError
from lakeloop.cli.training.records import Record, Table, folder_of, own_tags
from lakeloop.cli.training.tables import Column, Row, number, span

_MODEL = re.compile(r"(?P<name>[^/@]+)(/(?P<version>[0-9]+)|@(?P<alias>[^/@]+))?")
_TABLE = re.compile(r"(?P<uri>s3a?://[^\s]+?)(@(?P<version>[0-9]+))?/?")
COLUMNS = (
    Column("MODEL", cut=True),
    Column("TABLE VERSION"),
    Column("ALIASES", drop=2, cut=True),
    Column("SERVED BY", drop=1, cut=True),
    Column("JOB", drop=3, cut=True),
    Column("RUN", drop=4),
    Column("AGE", drop=5),
)


@dataclass(frozen=True, slots=True)
class ModelName:
    """`churn`, `churn/5` or `churn@champion`."""

    name: str
    version: int | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class TableName:
    """A table, perhaps at one version. `uri` is the end of one where the table is given by name."""

    uri: str
    version: int | None = None


def subject(text: str | None, table: str | None) -> ModelName | TableName:
    """What the user asks about. Raises CliError with what to write."""
    if (text is None) == (table is None):
        raise CliError("write a model (churn, churn/5, churn@champion), a table's address (s3a://lake/t@3), or --table")
    if table is not None:
        name, at, version = table.partition("@")
        if at and not version.isdecimal():
            raise CliError(f"--table {table}: what follows the @ is no version; write sales.customers@3")
        return TableName(folder_of(name), int(version) if at else None)
    found = _TABLE.fullmatch(text or "")
    if found is not None:
        return TableName(found["uri"], int(found["version"]) if found["version"] else None)
    model = _MODEL.fullmatch(text or "")
    if model is None:
        raise CliError(
            f"{text} is neither a model (churn, churn/5, churn@champion) nor a table's address (s3a://lake/t@3)"
        )
    return ModelName(model["name"], int(model["version"]) if model["version"] else None, model["alias"])


@dataclass(frozen=True, slots=True)
class Server:
    """A ModelDeployment that serves a version."""

    namespace: str
    name: str
    role: str
    """`stable` or `candidate`."""

    @property
    def text(self) -> str:
        """`team-a/churn`, with the role where it is not the usual one."""
        return f"{self.namespace}/{self.name}{'' if self.role == 'stable' else f' ({self.role})'}"


def servers_of(deployments: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[Server]]:
    """Which deployments serve which version, by their status."""
    found: dict[tuple[str, int], list[Server]] = {}
    for each in deployments:
        meta, model = each["metadata"], ((each.get("spec") or {}).get("model") or {}).get("name")
        for role in ("stable", "candidate"):
            version = ((each.get("status") or {}).get(role) or {}).get("version")
            if model and version is not None:
                found.setdefault((model, version), []).append(Server(meta["namespace"], meta["name"], role))
    return found


def model_document(
    version: ModelVersion, record: Record, environment: Mapping[str, Any] | None, servers: Sequence[Server]
) -> dict[str, Any]:
    """All that a model version leads back to, as `-o json` prints it."""
    return {
        "model": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "created": _time(version),
        "digest": record.digest or None,
        "servedBy": [{"namespace": one.namespace, "name": one.name, "role": one.role} for one in servers],
        "job": f"{record.namespace}/{record.job}" if record.job else None,
        "run": record.number or None,
        "trigger": record.trigger or None,
        "mlflow": {"runId": record.run_id or version.run_id, "url": record.run_url or None},
        "inputs": [{"name": one.name, "uri": one.uri, "version": one.version} for one in record.tables],
        "rows": dict(record.rows),
        "code": {
            "digest": record.tags.get("code-files-digest") or record.tags.get("code-digest"),
            "specHash": record.tags.get("spec-hash"),
        },
        "image": {"name": record.tags.get("image"), "id": record.tags.get("image-id")},
        "seed": record.tags.get("seed"),
        "parameters": dict(record.parameters),
        "metrics": dict(record.metrics),
        "environment": environment,
    }


def model_fields(found: Mapping[str, Any], why_no_environment: str) -> list[tuple[str, str]]:
    """The same for people."""
    environment = found["environment"] or {}
    requirements = "\n".join(environment.get("requirements") or ())
    return [
        ("model", f"{found['model']}/{found['version']}"),
        ("aliases", ", ".join(found["aliases"])),
        ("registered", found["created"]),
        ("digest", found["digest"] or ""),
        ("served by", ", ".join(Server(**one).text for one in found["servedBy"]) or "nothing"),
        ("job", found["job"] or "not trained by a TrainingJob"),
        (
            "run",
            f"{found['run']} ({found['trigger']})" if found["run"] and found["trigger"] else str(found["run"] or ""),
        ),
        ("MLflow", found["mlflow"]["url"] or found["mlflow"]["runId"] or ""),
        ("tables", "\n".join(f"{one['name']}  {one['uri']}@{one['version']}" for one in found["inputs"])),
        ("rows", ", ".join(f"{count} {name}" for name, count in found["rows"].items())),
        ("code", found["code"]["digest"] or ""),
        ("spec", found["code"]["specHash"] or ""),
        ("image", found["image"]["name"] or ""),
        ("image id", found["image"]["id"] or ""),
        ("seed", found["seed"] or ""),
        ("parameters", "\n".join(f"{key} = {value}" for key, value in sorted(found["parameters"].items()))),
        ("metrics", "\n".join(f"{key} = {number(value)}" for key, value in sorted(found["metrics"].items()))),
        ("Python", environment.get("python") or ""),
        ("environment", requirements or why_no_environment),
    ]


def environment(requirements: bytes | None, python: bytes | None) -> dict[str, Any] | None:
    """The model's `requirements.txt` and `python_env.yaml`; None where it has none."""
    if requirements is None:
        return None
    lines = [line.strip() for line in requirements.decode(errors="replace").splitlines()]
    version = re.search(r"^python:\s*['\"]?([^\s'\"]+)", (python or b"").decode(errors="replace"), re.MULTILINE)
    return {
        "python": version[1] if version else None,
        "requirements": [line for line in lines if line and not line.startswith("#")],
    }


@dataclass(frozen=True, slots=True)
class Learned:
    """A model version that learned from a table."""

    version: ModelVersion
    table: Table
    aliases: Sequence[str]
    servers: Sequence[Server]


def table_rows(found: Sequence[Learned], now: datetime) -> list[Row]:
    """Cells of the table."""
    return [
        {
            "MODEL": f"{each.version.name}/{each.version.version}",
            "TABLE VERSION": f"{each.table.name}@{each.table.version}",
            "ALIASES": ",".join(each.aliases),
            "SERVED BY": ",".join(one.text for one in each.servers),
            "JOB": own_tags(each.version.tags).get("training-job", ""),
            "RUN": own_tags(each.version.tags).get("run", ""),
            "AGE": span(now.timestamp() - each.version.created_ms / 1000),
        }
        for each in found
    ]


def table_document(each: Learned) -> dict[str, Any]:
    """As `-o json` prints it."""
    tags = own_tags(each.version.tags)
    run = tags.get("run", "")
    return {
        "model": each.version.name,
        "version": each.version.version,
        "aliases": list(each.aliases),
        "servedBy": [{"namespace": one.namespace, "name": one.name, "role": one.role} for one in each.servers],
        "input": {"name": each.table.name, "uri": each.table.uri, "version": each.table.version},
        "job": tags.get("training-job"),
        "run": int(run) if run.isdecimal() else None,
        "created": _time(each.version),
    }


def _time(version: ModelVersion) -> str:
    return datetime.fromtimestamp(version.created_ms / 1000, UTC).isoformat(timespec="seconds")
