"""`kubectl lakeloop diff | reproduce`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lakeloop.cli.errors import CliError
from lakeloop.cli.training import comparison, learned, options, output, reproduction, runs, waiting
from lakeloop.cli.training.platform import Platform
from lakeloop.cli.training.recall import Memory, named
from lakeloop.cli.training.records import Record
from lakeloop.cli.training.run_commands import timeout_option
from lakeloop.domain.training.driver import running_image

_GONE_FOR_GOOD = frozenset({"VersionNotFound", "TableNotFound", "VersionVacuumed"})


@click.command("diff")
@click.argument(
    "jobs", nargs=-1, required=True, metavar="JOB --run A --run B | JOB:A OTHER:B", shell_complete=options.job_names
)
@options.on_the_cluster
@options.to_the_platform
@options.form
@click.option("--run", "numbers", type=click.IntRange(min=1), multiple=True, help="Twice: the two runs of the one job.")
@click.option("--all", "everything", is_flag=True, help="What is the same too.")
@output.in_one_sentence
def diff(
    jobs: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    operator_namespace: str,
    storage_endpoint: str | None,
    tracking_uri: str | None,
    output_form: str,
    numbers: tuple[int, ...],
    everything: bool,
) -> None:
    """What is not the same in two runs: data, code, parameters, metrics."""
    first, second = named(jobs, numbers)
    target = options.connect(kubeconfig, context, namespace)
    with Platform(target.jobs, operator_namespace, tracking_uri, storage_endpoint) as platform:
        memory = Memory(target.jobs, platform, target.namespace)
        a, b = memory.record(first.job, first.number), memory.record(second.job, second.number)
    pairs = comparison.pairs_of(a, b)
    shown = [each for each in pairs if everything or not each.same]
    if output_form != "table":
        content = {"a": a.name, "b": b.name, "items": [comparison.document(each) for each in shown]}
        output.document("RunDiff", content, output_form)
        return
    output.console.print(f"A = {a.name}, B = {b.name}", markup=False)
    columns = comparison.COLUMNS if everything else comparison.COLUMNS[:-1]
    if shown:
        output.table(columns, comparison.rows(shown))
    else:
        output.note(f"All {len(pairs)} things that are known of both runs are the same.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out of running a record again."""

    metrics: tuple[comparison.Metric, ...]
    same_model: bool | None
    """Whether the learned parts are the same to the last bit; None where they could not be compared."""
    model: str
    """That in words."""
    images: str

    @property
    def equal(self) -> bool:
        """Whether all metrics are equal within the tolerance."""
        return bool(self.metrics) and all(each.equal for each in self.metrics)


@click.command("reproduce")
@options.job_argument
@options.on_the_cluster
@options.to_the_platform
@options.form
@click.option("--run", "number", type=click.IntRange(min=1), required=True, help="Number of the run.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is over, and compare.")
@timeout_option
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-6,
    show_default=True,
    help="Of metrics, relative or absolute.",
)
@click.option("--strict", is_flag=True, help="Exit code 1 too where the learned model is not the same to the last bit.")
@click.option("--keep", is_flag=True, help="Leave the job that ran the record again.")
@output.in_one_sentence
def reproduce(
    job: str,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    operator_namespace: str,
    storage_endpoint: str | None,
    tracking_uri: str | None,
    output_form: str,
    number: int,
    wait: bool,
    timeout: int | None,
    tolerance: float,
    strict: bool,
    keep: bool,
) -> None:
    """Run a recorded run again and compare: same tables, code, parameters and image.

    Exit code 0 where all metrics are equal within the tolerance, else 1.
    """
    target = options.connect(kubeconfig, context, namespace)
    with Platform(target.jobs, operator_namespace, tracking_uri, storage_endpoint) as platform:
        memory = Memory(target.jobs, platform, target.namespace)
        record = memory.record(job, number)
        # A gate judges a model that was learned and measured well enough to compare.
        if record.phase != "Succeeded" and not record.model:
            raise CliError(f"{record.name} is {record.phase}: only a run that learned a model can be run again")
        manifest = _manifest(target, memory, record)
        again = manifest["metadata"]["name"]
        target.jobs.create(manifest)
        output.note(f"TrainingJob {again} runs {record.name} again, from {_tables(record)}.")
        if not wait:
            output.note(f"`kubectl lakeloop diff {record.name} {again}:1` compares them once it is over.")
            return
        try:
            verdict = _judged(target, memory, record, again, tolerance, timeout)
        finally:
            if not keep:
                target.jobs.delete(record.namespace, again)
    _tell(record, verdict, output_form)
    if not verdict.equal or (strict and not verdict.same_model):
        sys.exit(1)


def _manifest(target: options.Target, memory: Memory, record: Record) -> dict[str, Any]:
    try:
        run_json = memory.artifact(record, "lakeloop/run.json")
    except CliError as error:
        run_json = None
        output.note(f"lakeloop/run.json was not read ({error}); the run's ConfigMap may do.")
    config_map = None if run_json else target.jobs.config_map(record.namespace, f"{record.job}-{record.number}-run")
    written = reproduction.recorded_spec(run_json, config_map, record)
    experiment = ((run_json or {}).get("tracking") or {}).get("experiment")
    return reproduction.manifest(memory.job(record.job), written, record, experiment)


def _tables(record: Record) -> str:
    return ", ".join(f"{each.name}@{each.version}" for each in record.tables)


def _judged(
    target: options.Target, memory: Memory, record: Record, again: str, tolerance: float, timeout: int | None
) -> Verdict:
    def look() -> waiting.Seen:
        found = target.jobs.get(record.namespace, again)
        refused = runs.condition(found, "Stalled")
        if refused.get("status") == "True" and not runs.runs_of(found):
            raise CliError(f"TrainingJob {again} was not taken: {refused.get('reason')}: {refused.get('message')}")
        if not runs.runs_of(found):
            return waiting.Seen("not taken up yet")
        if refused.get("status") == "True" and refused.get("reason") in _GONE_FOR_GOOD:
            # The job would wait for it until its deadline; what VACUUM took does not come back.
            raise CliError(f"{record.name} cannot be run again: {refused['reason']}: {refused.get('message')}")
        return waiting.look_at(found, 1)

    run = waiting.follow(f"the run of {again}", look, timeout)
    if run["phase"] != "Succeeded":
        raise CliError(f"{record.name} could not be run again: {run['phase']}: {runs.failure_line(run)}")
    image_id = _image_id(target, record.namespace, again, run)
    made = memory.record(again, 1)
    return Verdict(
        metrics=tuple(comparison.metrics(record.metrics, made.metrics, tolerance)),
        images=_images(record.tags.get("image-id"), image_id),
        **_models(memory, record, made),
    )


def _models(memory: Memory, record: Record, made: Record) -> dict[str, Any]:
    """Whether the models' learned parts are the same, and that in words."""
    try:
        folders = [(memory.artifact(each, "lakeloop/result.json") or {}).get("model") or {} for each in (record, made)]
        if not all(each.get("artifactUri") for each in folders):
            return {"same_model": None, "model": "not compared: a result names no model"}
        if folders[0].get("digest") == folders[1].get("digest"):
            return {"same_model": True, "model": f"the same files ({folders[0]['digest']})"}
        before, after = (
            memory.model_files(each, found["artifactUri"]) for each, found in zip((record, made), folders, strict=True)
        )
    except CliError as error:
        return {"same_model": None, "model": f"not compared: {error}"}
    unlike = learned.different(before, after)
    if not unlike:
        return {
            "same_model": True,
            "model": f"the same to the last bit, apart from times and names of the run ({learned.digest(before)})",
        }
    return {"same_model": False, "model": f"not the same to the last bit in {', '.join(unlike)}"}


def _image_id(target: options.Target, namespace: str, job: str, run: Mapping[str, Any]) -> str | None:
    selector = f"lakeloop.io/training-job={job},lakeloop.io/role=driver"
    found = [each for each in target.jobs.pods(namespace, selector) if each["metadata"]["name"] == run.get("driverPod")]
    return running_image(found[0], "").id if found else None


def _images(recorded: str | None, again: str | None) -> str:
    if not recorded or not again:
        return "not compared: the record, or the driver's pod, does not say"
    return f"the same ({again})" if recorded == again else f"another one: {recorded} then, {again} now"


def _tell(record: Record, verdict: Verdict, form: str) -> None:
    if form != "table":
        content = {
            "run": record.name,
            "equal": verdict.equal,
            "metrics": [each.document() for each in verdict.metrics],
            "model": {"same": verdict.same_model, "message": verdict.model},
            "image": verdict.images,
        }
        output.document("Reproduction", content, form)
        return
    output.table(comparison.METRIC_COLUMNS, comparison.metric_rows(verdict.metrics))
    output.fields([("model", verdict.model), ("image", verdict.images)])
    unequal = [each.name for each in verdict.metrics if not each.equal]
    said = f"{', '.join(unequal)} differ" if unequal else "all metrics are equal within the tolerance"
    output.console.print(f"{record.name}: {said if verdict.metrics else 'it has no metrics to compare'}", markup=False)
