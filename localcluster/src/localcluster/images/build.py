"""Building: what is missing, one image after another, with progress; and the list of what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from localcluster import debian
from localcluster.errors import LocalClusterError
from localcluster.images import bases, definitions, engines
from localcluster.output import say

TOOLS = {"/usr/bin/buildah": "buildah", "/usr/bin/mmdebstrap": "mmdebstrap", "/usr/bin/newuidmap": "uidmap"}


def record(root: Path) -> Path:
    """``.lakeloop/images.json``: name → reference, for the charts' values."""
    return root / ".lakeloop" / "images.json"


def references(root: Path) -> dict[str, str]:
    """Name → reference of the images as the files are now."""
    known = {name: bases.reference(name) for name in bases.BASES}
    return {one.name: definitions.reference(root, one, known[one.base]) for one in definitions.present(root)}


def build(root: Path, names: Sequence[str] = (), *, docker: bool = False) -> dict[str, str]:
    """Builds what is missing and writes the record; returns name → reference.

    Raises LocalClusterError with the end of the build's log when one fails.
    """
    try:
        wanted = definitions.select(root, names)
    except ValueError as error:
        raise LocalClusterError(str(error)) from error
    if not docker:
        debian.ensure(TOOLS)
    exists = docker_has if docker else buildah_has
    every = references(root)
    missing = [one for one in wanted if not exists(every[one.name])]
    for number, one in enumerate(missing, 1):
        started = time.monotonic()
        say(f"building image {one.name} ({number} of {len(missing)})")
        run(command(root, one, every[one.name], docker), f"image {one.name}")
        say(f"built image {one.name} in {time.monotonic() - started:.0f} s")
    for one in wanted:
        alias(every[one.name], docker)
    path = record(root)
    path.parent.mkdir(exist_ok=True)
    before: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    # What was not asked for and has changed since is still there as it was built last.
    built = {name: reference if exists(reference) else before.get(name, reference) for name, reference in every.items()}
    path.write_text(json.dumps(built, indent=1) + "\n")
    return {one.name: every[one.name] for one in wanted}


def command(root: Path, one: definitions.Definition, reference: str, docker: bool) -> list[str]:
    """The build's command line, the base made first where there is no registry."""
    if docker:
        return engines.docker_command(root, one.dockerfile, one.context, reference)
    base = bases.ensure(one.base)
    lent = engines.from_machine(os.environ)
    if one.go:
        lent = engines.with_go(lent, root / one.context)
    return engines.buildah_command(root, one.dockerfile, one.context, reference, base, lent)


def development_tag(reference: str) -> str:
    """The name under which samples know an image: ``localhost/lakeloop/<name>:dev``."""
    return reference.rpartition(":")[0] + ":dev"


def alias(reference: str, docker: bool) -> None:
    """Gives an image its ``:dev`` name."""
    tool = "docker" if docker else "buildah"
    run([tool, "tag", reference, development_tag(reference)], f"tag of {reference}")


def buildah_has(reference: str) -> bool:
    """Whether buildah's storage has an image."""
    return _succeeds(["buildah", "inspect", "--type", "image", reference])


def docker_has(reference: str) -> bool:
    """Whether Docker has an image."""
    return _succeeds(["docker", "image", "inspect", reference])


def _succeeds(arguments: Sequence[str]) -> bool:
    return subprocess.run(list(arguments), capture_output=True, check=False).returncode == 0


def run(arguments: Sequence[str], what: str) -> None:
    """Runs a command. Raises LocalClusterError with the last lines of what it said."""
    done = subprocess.run(list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()[-40:]
        raise LocalClusterError(f"{what}: {arguments[0]} failed with {done.returncode}:\n" + "\n".join(lines))


def sizes(root: Path, measure: Callable[[str], int]) -> dict[str, int]:
    """Name → unpacked bytes of the images that are built."""
    return {name: measure(reference) for name, reference in references(root).items() if buildah_has(reference)}


def unpacked_bytes(reference: str) -> int:
    """The sum of the sizes of all files of an image in buildah's storage."""
    container = subprocess.run(
        ["buildah", "from", "--pull-never", reference], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        folder = subprocess.run(
            ["buildah", "mount", container], capture_output=True, text=True, check=True
        ).stdout.strip()
        used = subprocess.run(
            ["du", "--summarize", "--block-size=1", folder], capture_output=True, text=True, check=True
        )
        return int(used.stdout.split()[0])
    finally:
        subprocess.run(["buildah", "rm", container], capture_output=True, check=False)
