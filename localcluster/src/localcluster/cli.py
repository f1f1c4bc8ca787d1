"""The command line."""

from __future__ import annotations

import sys

import click

from localcluster.errors import LocalClusterError
from localcluster.identity import DEFAULT_NAME

name_option = click.option("--name", default=DEFAULT_NAME, show_default=True, help="Which cluster.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A real one-node Kubernetes, or only its API server, on a machine without Docker."""


@cli.command()
@name_option
def up(name: str) -> None:
    """Bring a cluster up, or the rest of it; safe to run twice."""
    from localcluster.node import lifecycle

    click.echo(f"export KUBECONFIG={lifecycle.up(name).kubeconfig}")


@cli.command()
@name_option
def down(name: str) -> None:
    """Take away all that `up` made."""
    from localcluster.node import lifecycle

    lifecycle.down(name)


def main() -> None:
    """Run the command line; an error of ours is a message, not a traceback."""
    try:
        cli(standalone_mode=False)
    except LocalClusterError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
