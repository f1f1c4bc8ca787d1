"""`kubectl lakeloop leaderboard | lineage`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lakeloop.adapters.tracking_protocol import ModelVersion
from lakeloop.cli.errors import CliError
from lakeloop.cli.training import leaderboard, lineage, options, output, records
from lakeloop.cli.training.jobs import Jobs
from lakeloop.cli.training.mlflow import Mlflow, NotFound
from lakeloop.cli.training.platform import Platform
from lakeloop.cli.training.records import Record


@click.command("leaderboard")
@options.on_the_cluster
@options.everywhere
@options.to_the_platform
@options.form
@click.option("--metric", help="Default: the one that most of the models were trained for.")
@click.option("--model", help="Versions of this registered model alone.")
@click.option(
    "--goal",
    type=click.Choice(["Maximize", "Minimize"]),
    help="Which end is the better one; default: as Lakeloop knows the metric, else Maximize.",
)
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="How many places.")
@output.in_one_sentence
def show_leaderboard(
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    all_namespaces: bool,
    operator_namespace: str,
    storage_endpoint: str | None,
    tracking_uri: str | None,
    output_form: str,
    metric: str | None,
    model: str | None,
    goal: str | None,
    limit: int,
) -> None:
    """The best registered models over all jobs, by a metric."""
    target = options.connect(kubeconfig, context, namespace)
    with Platform(target.jobs, operator_namespace, tracking_uri, storage_endpoint) as platform:
        mlflow = platform.mlflow(target.namespace)
        versions, aliases = mlflow.versions(model=model), mlflow.aliases()
    where = None if all_namespaces else target.namespace
    own = [each for each in versions if where is None or _job(each).startswith(f"{where}/")]
    names = leaderboard.metric_names(own)
    chosen = metric or (names[0] if names else "")
    minimize = goal == "Minimize" if goal else leaderboard.smaller_is_better(chosen)
    places = leaderboard.ranked(own, aliases, chosen, minimize=minimize, namespace=where)[:limit]
    if output_form != "table":
        found = [leaderboard.document(each, chosen, rank) for rank, each in enumerate(places, 1)]
        output.documents("Leaderboard", found, output_form)
        return
    if not places:
        there = f"; there are {', '.join(names)}" if names else ""
        place = "" if where is None else f" in namespace {where}"
        output.note(f"No model{place} was trained for {chosen or 'any metric'}{there}.")
        return
    columns = [replace(each, title=chosen.upper()) if each.title == "METRIC" else each for each in leaderboard.COLUMNS]
    rows = [{chosen.upper() if key == "METRIC" else key: value for key, value in row.items()}
            for row in leaderboard.rows(places, datetime.now(UTC))]  # fmt: skip
    output.table(columns, rows)
    others = [each for each in names if each != chosen]
    if others and metric is None:
        output.note(
            f"By {chosen}, {'smallest' if minimize else 'largest'} first; --metric takes {', '.join(others)} too."
        )


def _job(version: ModelVersion) -> str:
    return records.own_tags(version.tags).get("training-job", "")


@click.command("lineage")
@click.argument("what", required=False, metavar="MODEL[/VERSION|@ALIAS] | TABLE[@VERSION]")
@options.on_the_cluster
@options.to_the_platform
@options.form
@click.option("--table", help="A table by its name, such as sales.customers, in place of its address.")
@output.in_one_sentence
def show_lineage(
    what: str | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    operator_namespace: str,
    storage_endpoint: str | None,
    tracking_uri: str | None,
    output_form: str,
    table: str | None,
) -> None:
    """From a model to what made it, or from a table to every model that learned from it."""
    asked = lineage.subject(what, table)
    target = options.connect(kubeconfig, context, namespace)
    with Platform(target.jobs, operator_namespace, tracking_uri, storage_endpoint) as platform:
        mlflow = platform.mlflow(target.namespace)
        servers = lineage.servers_of(_deployments(target.jobs, target.namespace))
        if isinstance(asked, lineage.TableName):
            _of_table(asked, mlflow, servers, output_form)
        else:
            _of_model(asked, mlflow, servers, target.jobs, platform, output_form)


def _deployments(jobs: Jobs, namespace: str) -> Sequence[Mapping[str, Any]]:
    """All that the user may see: those of all namespaces, else those of this one."""
    try:
        return jobs.list("modeldeployments", None)
    except CliError:
        return jobs.list("modeldeployments", namespace)


def _of_table(
    asked: lineage.TableName,
    mlflow: Mlflow,
    servers: Mapping[tuple[str, int], Sequence[lineage.Server]],
    form: str,
) -> None:
    aliases = mlflow.aliases()
    found = [
        lineage.Learned(each, table, aliases.get(key, ()), servers.get(key, ()))
        for each, table in records.versions_learned_from(mlflow.versions(), asked.uri, asked.version)
        for key in [(each.name, each.version)]
    ]
    if form != "table":
        output.documents("TableLineage", [lineage.table_document(each) for each in found], form)
    elif found:
        output.table(lineage.COLUMNS, lineage.table_rows(found, datetime.now(UTC)))
    else:
        version = "" if asked.version is None else f" at version {asked.version}"
        output.note(f"No registered model learned from {asked.uri}{version}.")


def _of_model(
    asked: lineage.ModelName,
    mlflow: Mlflow,
    servers: Mapping[tuple[str, int], Sequence[lineage.Server]],
    jobs: Jobs,
    platform: Platform,
    form: str,
) -> None:
    version = _version(asked, mlflow)
    record = _record(version, mlflow, platform.environment.get("LAKELOOP_TRACKING_UI_URL"))
    environment, why = None, ""
    try:
        environment = _environment(version, record, jobs, platform)
        why = "the model has no requirements.txt"
    except CliError as error:
        why = f"not read: {error}"
    found = lineage.model_document(version, record, environment, servers.get((version.name, version.version), ()))
    if form == "table":
        output.fields(lineage.model_fields(found, why))
    else:
        output.document("ModelLineage", found, form)


def _version(asked: lineage.ModelName, mlflow: Mlflow) -> ModelVersion:
    try:
        if asked.alias is not None:
            return mlflow.by_alias(asked.name, asked.alias)
        if asked.version is not None:
            return mlflow.version(asked.name, asked.version)
        newest = max(mlflow.versions(model=asked.name), key=lambda each: each.version, default=None)
        if newest is not None:
            return mlflow.version(asked.name, newest.version)
    except NotFound as error:
        raise CliError(f"{error}: `kubectl lakeloop leaderboard -A --model {asked.name}` lists its versions") from error
    raise CliError(f"there is no registered model {asked.name}: `kubectl lakeloop leaderboard -A` lists models")


def _record(version: ModelVersion, mlflow: Mlflow, ui: str | None) -> Record:
    tags = records.own_tags(version.tags)
    namespace, _, job = tags.get("training-job", "").partition("/")
    number = tags.get("run", "")
    record = records.with_version(
        Record(namespace, job, int(number) if number.isdecimal() else 0, tags.get("run-uid", "")), version
    )
    if version.run_id:
        try:
            run = mlflow.run(version.run_id)
            page = (
                f"{ui.rstrip('/')}/#/experiments/{run['info'].get('experiment_id')}/runs/{version.run_id}" if ui else ""
            )
            record = replace(records.with_run(record, run), run_url=page)
        except NotFound:
            return record  # its run was deleted
    return replace(record, trigger=record.tags.get("trigger", ""))


def _environment(version: ModelVersion, record: Record, jobs: Jobs, platform: Platform) -> dict[str, Any] | None:
    if not version.source.startswith(("s3://", "s3a://")):
        raise CliError(f"its files are at {version.source}, which is no object store")
    if not record.job:
        raise CliError("no TrainingJob made it, so no credentials are known for its files")
    job = jobs.find(record.namespace, record.job) or {}
    store = platform.store(record.namespace, (job.get("spec") or {}).get("storage") or {})
    folder = version.source.rstrip("/")
    return lineage.environment(store.read(f"{folder}/requirements.txt"), store.read(f"{folder}/python_env.yaml"))
