"""What the commands on served models have in common."""

from dataclasses import dataclass
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from lakeloop.cli.cluster import Cluster
from lakeloop.cli.errors import CliError
from lakeloop.cli.serving.deployments import Deployments


@dataclass(frozen=True, slots=True)
class Target:
    """What a command works on."""

    deployments: Deployments
    namespace: str


def connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Target:
    """The cluster and the namespace. Raises CliError where there is no cluster."""
    cluster = Cluster(kubeconfig, context)
    return Target(Deployments(cluster), namespace or cluster.namespace)


def deployment_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the names of ModelDeployments; nothing where the cluster does not say."""
    given = context.params
    try:
        target = connect(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
        found = target.deployments.list(target.namespace)
    except CliError:
        return []
    names = [each["metadata"]["name"] for each in found]
    return [CompletionItem(each) for each in names if each.startswith(incomplete)]


deployment_argument = click.argument("deployment", shell_complete=deployment_names)
