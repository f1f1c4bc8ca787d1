"""``localcluster images build | load | list | prune | sizes``."""

from __future__ import annotations

import json

import click

from localcluster import clusters, kind
from localcluster.errors import LocalClusterError
from localcluster.identity import DEFAULT_NAME
from localcluster.images import build as building
from localcluster.images import cleaning, thin
from localcluster.layout import checkout, layout
from localcluster.node import lifecycle, loader
from localcluster.output import say


@click.group()
def images() -> None:
    """Build the images of `images/`, and put them into the node."""


@images.command()
@click.argument("names", nargs=-1)
@click.option("--docker/--buildah", default=None, help="With which. Default: Docker where it answers.")
def build(names: tuple[str, ...], docker: bool | None) -> None:
    """Build those that are missing; what has not changed is not built again."""
    engine = kind.docker_answers() if docker is None else docker
    for name, reference in building.build(checkout(), names, docker=engine).items():
        say(f"{name}: {reference}")


@images.command()
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="Which cluster.")
def load(name: str) -> None:
    """Put the built images into the node, under their own names and as `:dev`; only layers that it lacks are sent."""
    path = building.record(checkout())
    if not path.is_file():
        raise LocalClusterError(f"{path} is not there: run `localcluster images build` first")
    references: dict[str, str] = json.loads(path.read_text())
    if clusters.runs_by_kind(layout(name)):
        for reference in references.values():
            kind.load_image(name, reference)
            kind.load_image(name, building.development_tag(reference))
        return
    node = lifecycle.find(name)
    pid = node.process.pid
    for reference in references.values():
        if not building.buildah_has(reference):
            continue
        sent = thin.load(pid, reference, node.layout.state / "tmp")
        loader.tag(pid, reference, building.development_tag(reference))
        say(f"{reference}: {'there already' if sent is None else f'loaded, {sent / 1e6:.1f} MB sent'}")


@images.command("list")
def list_images() -> None:
    """Name, reference, and whether it is built."""
    for name, reference in building.references(checkout()).items():
        click.echo(f"{name:<14}{reference}  {'built' if building.buildah_has(reference) else 'not built'}")


@images.command()
def prune() -> None:
    """Remove images of former states of the files, and what else builds left in buildah's storage."""
    say(f"{cleaning.clean(building.current(checkout()), age=0)} images removed")


@images.command()
def sizes() -> None:
    """Unpacked size of each built image."""
    for name, size in building.sizes(checkout(), building.unpacked_bytes).items():
        click.echo(f"{name:<14}{size / 1e6:6.0f} MB")
