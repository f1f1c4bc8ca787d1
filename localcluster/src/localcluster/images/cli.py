"""``localcluster images build | load | list | sizes``."""

from __future__ import annotations

import json

import click

from localcluster.errors import LocalClusterError
from localcluster.identity import DEFAULT_NAME
from localcluster.images import build as building
from localcluster.layout import checkout
from localcluster.output import say


@click.group()
def images() -> None:
    """Build the images of `images/`, and put them into the node."""


@images.command()
@click.argument("names", nargs=-1)
@click.option("--docker", is_flag=True, help="Build with Docker instead of buildah.")
def build(names: tuple[str, ...], docker: bool) -> None:
    """Build those that are missing; what has not changed is not built again."""
    for name, reference in building.build(checkout(), names, docker=docker).items():
        say(f"{name}: {reference}")


@images.command()
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="Which cluster.")
def load(name: str) -> None:
    """Put the built images into the node, under their own names and as `:dev`."""
    from localcluster.node import lifecycle, loader

    path = building.record(checkout())
    if not path.is_file():
        raise LocalClusterError(f"{path} is not there: run `localcluster images build` first")
    node = lifecycle.find(name)
    for reference in json.loads(path.read_text()).values():
        if building.buildah_has(reference):
            new = loader.load_from_buildah(node.process.pid, reference, node.layout.state / "tmp")
            loader.tag(node.process.pid, reference, building.development_tag(reference))
            say(f"{reference}: {'loaded' if new else 'there already'}")


@images.command("list")
def list_images() -> None:
    """Name, reference, and whether it is built."""
    for name, reference in building.references(checkout()).items():
        click.echo(f"{name:<14}{reference}  {'built' if building.buildah_has(reference) else 'not built'}")


@images.command()
def sizes() -> None:
    """Unpacked size of each built image."""
    for name, size in building.sizes(checkout(), building.unpacked_bytes).items():
        click.echo(f"{name:<14}{size / 1e6:6.0f} MB")
