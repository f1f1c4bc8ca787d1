"""The command line."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from pathlib import Path

import click

from localcluster.errors import LocalClusterError
from localcluster.identity import DEFAULT_NAME

name_option = click.option("--name", default=DEFAULT_NAME, show_default=True, help="Which cluster.")


class Commands(click.Group):
    """Our commands, and `images`, which is imported only when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "images"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "images":
            from localcluster.images.cli import images

            return images
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A real one-node Kubernetes, or only its API server, on a machine without Docker."""


@cli.command()
@name_option
@click.option(
    "--kind/--no-kind",
    "kind",
    default=None,
    help="By kind, or as a node of this machine. Default: kind if Docker answers.",
)
def up(name: str, kind: bool | None) -> None:
    """Bring a cluster up, or the rest of it; safe to run twice."""
    from localcluster import clusters

    click.echo(f"export KUBECONFIG={clusters.up(name, kind).kubeconfig}")


@cli.command()
@name_option
def down(name: str) -> None:
    """Take away all that `up` made."""
    from localcluster import clusters

    clusters.down(name)


@cli.command()
@name_option
def status(name: str) -> None:
    """What runs, and where its logs are. Exit code 3 when the cluster is not up."""
    from localcluster import clusters

    found = clusters.status(name)
    click.echo("\n".join(found.lines()))
    if not found.healthy:
        sys.exit(3)


@cli.command("load-image")
@click.argument("images", nargs=-1, required=True)
@name_option
def load_image(images: tuple[str, ...], name: str) -> None:
    """Put IMAGES into the node: archives (OCI or Docker), or references in buildah's storage."""
    from localcluster import clusters

    for image in images:
        clusters.load_image(name, image)


@cli.command()
@click.argument("program", required=False)
@name_option
@click.option("--lines", default=50, show_default=True, help="How many lines of the log's end.")
@click.option("--follow", is_flag=True, help="Go on printing what comes.")
def logs(program: str | None, name: str, lines: int, follow: bool) -> None:
    """The end of a program's log, or the list of logs."""
    from localcluster.layout import layout

    folder = layout(name).logs
    there = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if program is None:
        for path in there.values():
            click.echo(f"{path.stat().st_size:>10}  {path}")
        return
    if program not in there:
        raise LocalClusterError(f"no log of {program!r} in {folder}; there are: {', '.join(there) or 'none'}")
    print_log(there[program], lines, follow)


def print_log(path: Path, lines: int, follow: bool) -> None:
    """Print the end of a log, and with ``follow`` what is appended, until interrupted."""
    with path.open(errors="replace") as handle:
        sys.stdout.writelines(deque(handle, maxlen=lines))
        while follow:
            if line := handle.readline():
                sys.stdout.write(line)
            else:
                sys.stdout.flush()
                time.sleep(0.3)


@cli.command()
@click.argument("names", nargs=-1)
def binaries(names: tuple[str, ...]) -> None:
    """Build the locked Go programs (all, or NAMES) and print the folder that they are in."""
    from localcluster import gobuild

    click.echo(gobuild.ensure_binaries(names or gobuild.NAMES))


@cli.group()
def platform() -> None:
    """The cluster with all of Lakeloop on it: `make up` and `make down`."""


@platform.command("up")
def platform_up() -> None:
    """Cluster and images side by side, then the charts; safe to run twice."""
    from localcluster import platform as whole

    whole.up()


@platform.command("down")
def platform_down() -> None:
    """Take away all that `platform up` made, but for caches."""
    from localcluster import platform as whole

    whole.down()


@cli.group()
def api() -> None:
    """Only an API server and its etcd, on loopback."""


@api.command("up")
@name_option
def api_up(name: str) -> None:
    """Start an API server, or find the one that runs."""
    from localcluster.apiserver import ApiServer

    server = ApiServer(api_folder(name)).start()
    click.echo(f"export KUBECONFIG={server.kubeconfig}")


@api.command("down")
@name_option
def api_down(name: str) -> None:
    """Stop an API server and remove its data."""
    from localcluster.apiserver import ApiServer

    folder = api_folder(name)
    if folder.exists():
        ApiServer(folder).stop()
    shutil.rmtree(folder, ignore_errors=True)
    for parent in (folder.parent, folder.parent.parent):
        if parent.exists() and not any(parent.iterdir()):
            parent.rmdir()


def api_folder(name: str) -> Path:
    """``.lakeloop/api/<name>``."""
    from localcluster.identity import identify
    from localcluster.layout import checkout

    root = checkout()
    return root / ".lakeloop" / "api" / identify(root, name).name


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
