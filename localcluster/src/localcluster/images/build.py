"""Building: what is missing, two at a time, with progress; and the list of what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localcluster import debian
from localcluster.errors import LocalClusterError
from localcluster.images import bases, cleaning, definitions, engines, hostmade, machine
from localcluster.output import say

TOOLS = {
    "/usr/bin/buildah": "buildah",
    "/usr/bin/containers-storage": "containers-storage",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/bin/newuidmap": "uidmap",
}
# Downloading and unpacking of one image goes well with compiling of another; more only wait for each other.
LANES = 2
REPORT_SECONDS = 30


def record(root: Path) -> Path:
    """``.lakeloop/images.json``: name → reference, for the charts' values."""
    return root / ".lakeloop" / "images.json"


def references(root: Path) -> dict[str, str]:
    """Name → reference of the images as the files are now."""
    known = {name: bases.reference(name) for name in bases.BASES}
    return {one.name: definitions.reference(root, one, known[one.base]) for one in definitions.present(root)}


def current(root: Path) -> set[str]:
    """All references that this checkout needs: its images as the files are now, and their bases."""
    return {*references(root).values(), *(bases.reference(name) for name in bases.BASES)}


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
    missing = sorted((one for one in wanted if not exists(every[one.name])), key=lambda one: -one.seconds)
    if missing:
        with tempfile.TemporaryDirectory(prefix="lakeloop-build-") as scratch:
            _build_missing(root, missing, every, docker, Path(scratch))
        if not docker:
            cleaning.clean(current(root))
    for one in wanted:
        alias(every[one.name], docker)
    path = record(root)
    path.parent.mkdir(exist_ok=True)
    before: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    # What was not asked for and has changed since is still there as it was built last.
    built = {name: reference if exists(reference) else before.get(name, reference) for name, reference in every.items()}
    path.write_text(json.dumps(built, indent=1) + "\n")
    return {one.name: every[one.name] for one in wanted}


def seconds_left(weights: Sequence[int], elapsed: Mapping[int, float], finished: Sequence[int], lanes: int) -> float:
    """About how long the rest takes: the weights (seconds, cold) less what has passed, over the lanes.

    ``elapsed``: position → seconds since that build began; ``finished``: positions.
    """
    left = [
        0.0 if position in finished else max(weight - elapsed.get(position, 0.0), weight * 0.1)
        for position, weight in enumerate(weights)
    ]
    return max(sum(left) / lanes, max(left, default=0.0))


def _build_missing(
    root: Path, missing: Sequence[definitions.Definition], every: Mapping[str, str], docker: bool, scratch: Path
) -> None:
    sources = None
    known: dict[str, str] = {}
    if not docker:
        sources = bases.apt_sources(Path("/etc/apt"))
        for base in {one.base: None for one in missing}:  # one after the other: both fill the same download cache
            if not buildah_has(bases.reference(base)):
                say(f"making the base image {base} from Debian packages, about a minute")
            known[base] = bases.ensure(base)
    secrets = machine.write_secrets(scratch, os.environ, sources)
    begun: dict[int, float] = {}
    finished: list[int] = []
    over = threading.Event()

    def left() -> str:
        now = time.monotonic()
        elapsed = {position: now - start for position, start in begun.items()}
        seconds = seconds_left([one.seconds for one in missing], elapsed, finished, LANES)
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

    def work(position: int) -> None:
        one = missing[position]
        begun[position] = time.monotonic()
        say(f"building image {one.name} ({position + 1} of {len(missing)}, at most about {left()} left)")
        contexts = {}
        if not docker and one.name in hostmade.STAND_INS:
            stage, make = hostmade.STAND_INS[one.name]
            contexts[stage] = make(root / one.context)
        lent = engines.Lent(secrets, engines.proxies(os.environ), contexts)
        what = (root, one.dockerfile, one.context, every[one.name])
        command = (
            engines.docker_command(*what, lent) if docker else engines.buildah_command(*what, known[one.base], lent)
        )
        run(command, f"image {one.name}")
        finished.append(position)
        say(f"built image {one.name} in {time.monotonic() - begun[position]:.0f} s")

    def report() -> None:
        while not over.wait(REPORT_SECONDS):
            names = [missing[position].name for position in begun if position not in finished]
            say(f"  still building {', '.join(names)}: at most about {left()} left")

    threading.Thread(target=report, daemon=True).start()
    try:
        with ThreadPoolExecutor(LANES) as pool:
            for future in [pool.submit(work, position) for position in range(len(missing))]:
                future.result()
    finally:
        over.set()


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
