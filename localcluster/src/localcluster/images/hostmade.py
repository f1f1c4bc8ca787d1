"""What stands in for a Dockerfile's first stage where its image cannot be had.

Made on this machine by the same command, and kept in the cache folder by the hash of what it is made of.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from localcluster import debian
from localcluster.errors import LocalClusterError
from localcluster.gobuild import cache_key, cache_root, locked

MINIO_SOURCES = ("go.mod", "go.sum", "ldflags")
_MINIO = "github.com/minio/minio"


def minio_command(ldflags: str, output: Path) -> list[str]:
    """The ``go build`` of ``images/minio/Dockerfile``; a test compares the two."""
    return ["go", "build", "-trimpath", "-tags", "kqueue", "-ldflags", ldflags, "-o", str(output), _MINIO]


def jars_command(context: Path, folder: Path) -> list[str]:
    """The command of ``images/trainer/Dockerfile`` that fetches and makes its jars."""
    return ["sh", str(context / "make_jars.sh"), str(folder)]


def minio(context: Path) -> Path:
    """A folder with ``minio``, built by this machine's Go. Raises LocalClusterError with the compiler's words."""
    version = _run(["go", "env", "GOVERSION"], context).strip()
    ldflags = (context / "ldflags").read_text().strip()

    def make(folder: Path) -> None:
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
        _run(["nice", *minio_command(ldflags, folder / "minio")], context, environment)

    return _cached("minio", context, MINIO_SOURCES, version, make)


def jars(context: Path) -> Path:
    """A folder with ``jars/``, made by this machine's Maven and compiler. Raises LocalClusterError with their words."""
    debian.ensure({"/usr/bin/mvn": "maven", "/usr/bin/javac": "openjdk-17-jdk-headless"})

    def make(folder: Path) -> None:
        _run(jars_command(context, folder / "jars"), context)

    sources = sorted(path.relative_to(context).as_posix() for path in (context / "java").rglob("*.java"))
    return _cached("jars", context, ("pom.xml", "make_jars.sh", *sources), "", make)


# Image → the stage that is stood in for, and what makes the folder from the build context.
STAND_INS: Mapping[str, tuple[str, Callable[[Path], Path]]] = {"minio": ("build", minio), "trainer": ("jars", jars)}


def _cached(kind: str, context: Path, names: Sequence[str], tool: str, make: Callable[[Path], None]) -> Path:
    key = cache_key([(name, (context / name).read_bytes()) for name in names], tool, kind)
    place = cache_root() / kind / key
    if place.is_dir():
        return place
    with locked(place.parent):
        if place.is_dir():
            return place
        with tempfile.TemporaryDirectory(prefix=".make-", dir=place.parent) as scratch:
            whole = Path(scratch) / key
            whole.mkdir()
            make(whole)
            whole.rename(place)
    return place


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            env=environment and dict(environment),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise LocalClusterError(f"{command[0]} is not installed; {folder.name} is built with it") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-3000:]
        raise LocalClusterError(f"{' '.join(command)} failed in {folder}:\n{words}")
    return done.stdout
