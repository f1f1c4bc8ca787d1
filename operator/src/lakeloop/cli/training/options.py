"""What all commands on trainings have in common: whose cluster, which namespace, which form of output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from lakeloop.cli.cluster import Cluster
from lakeloop.cli.errors import CliError
from lakeloop.cli.training.jobs import Jobs
from lakeloop.cli.values import SYSTEM_NAMESPACE


@dataclass(frozen=True, slots=True)
class Target:
    """What a command works on."""

    jobs: Jobs
    namespace: str


def connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Target:
    """The cluster and the namespace. Raises CliError where there is no cluster."""
    cluster = Cluster(kubeconfig, context)
    return Target(Jobs(cluster), namespace or cluster.namespace)


def on_the_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--kubeconfig`, `--context` and `-n`."""
    for option in (
        click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: as kubectl finds it."),
        click.option("--context", help="The kubeconfig's context."),
        click.option("--namespace", "-n", help="Default: the context's."),
    ):
        command = option(command)
    return command


def to_the_platform(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where MLflow and the object store answer, if not where the operator finds them."""
    for option in (
        click.option(
            "--operator-namespace",
            default=SYSTEM_NAMESPACE,
            show_default=True,
            help="Where the operator is; it knows where MLflow and the store are.",
        ),
        click.option(
            "--storage-endpoint", help="The object store's address, reached from here; default: through the cluster."
        ),
        click.option(
            "--tracking-uri",
            envvar="MLFLOW_TRACKING_URI",
            help="MLflow's address, reached from here; default: MLFLOW_TRACKING_URI, else through the cluster.",
        ),
    ):
        command = option(command)
    return command


everywhere = click.option("--all-namespaces", "-A", is_flag=True, help="In all namespaces.")
form = click.option(
    "--output",
    "output_form",
    "-o",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="json and yaml: documents that keep their shape.",
)


def job_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the names of TrainingJobs; nothing where the cluster does not say."""
    given = context.params
    try:
        target = connect(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
        found: Sequence[Any] = target.jobs.list("trainingjobs", target.namespace)
    except CliError:
        return []
    return [
        CompletionItem(job["metadata"]["name"], help=str(((job.get("status") or {}).get("run") or {}).get("phase", "")))
        for job in found
        if job["metadata"]["name"].startswith(incomplete)
    ]


job_argument = click.argument("job", shell_complete=job_names)
