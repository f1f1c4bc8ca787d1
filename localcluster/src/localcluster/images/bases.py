"""Base images where there is no registry: Debian 12 by mmdebstrap, in buildah's storage."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.gobuild import cache_root

SUITE = "bookworm"
RECIPE = 4  # raise it to have the bases made anew
# /usr is merged by this hook of mmdebstrap's: the package that would do it brings Perl, 50 MB.
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"


@dataclass(frozen=True)
class Base:
    """A minimal Debian with these packages, and the image that a Dockerfile names for it elsewhere."""

    packages: Sequence[str]
    elsewhere: str


BASES: Mapping[str, Base] = {
    "debian": Base(("ca-certificates",), "debian:bookworm-slim"),
    "python": Base(("ca-certificates", "python3", "python3-venv"), "python:3.11-slim-bookworm"),
}


def reference(name: str) -> str:
    """``localhost/lakeloop/base-<name>:<hash of the recipe>``."""
    key = hashlib.sha256(f"{SUITE} {RECIPE} {' '.join(BASES[name].packages)}".encode()).hexdigest()[:12]
    return f"localhost/lakeloop/base-{name}:{key}"


def bootstrap_command(name: str, target: Path) -> list[str]:
    """mmdebstrap by the machine's own sources; they do not stay in the image, nor does what no container reads."""
    hooks = (
        'rm -rf "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        'rm -f "$1"/etc/apt/sources.list',
        # In the folder over which a build on this machine lays its own sources.
        'echo "deb http://deb.debian.org/debian bookworm main" > "$1"/etc/apt/sources.list.d/debian.list',
        'rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/* "$1"/var/log/* "$1"/var/cache/*',
        'rm -rf "$1"/usr/share/zoneinfo/right "$1"/usr/share/zoneinfo/posix',
    )
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--hook-dir={MERGED_USR}"]
    command += [f"--include=usr-is-merged,{','.join(BASES[name].packages)}"]
    command += [f"--customize-hook={hook}" for hook in hooks]
    return [*command, SUITE, str(target), "-"]


def apt_sources(folder: Path) -> str:
    """The machine's Debian sources, as mmdebstrap reads them from its standard input.

    Raises LocalClusterError when the machine has none (it is no Debian).
    """
    one_line = folder / "sources.list"
    if one_line.is_file() and "debian" in one_line.read_text():
        return one_line.read_text()
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        if "debian" in path.name:
            return path.read_text()
    raise LocalClusterError(
        f"{folder} names no Debian sources: images are built here from Debian packages; elsewhere use Docker"
    )


def ensure(name: str) -> str:
    """The base image, made when buildah lacks it; returns its reference.

    Raises LocalClusterError with mmdebstrap's words.
    """
    wanted = reference(name)
    known = subprocess.run(["buildah", "inspect", "--type", "image", wanted], capture_output=True, check=False)
    if known.returncode == 0:
        return wanted
    archive = cache_root() / "bases" / f"{wanted.rpartition('/')[2].replace(':', '-')}.tar"
    if not archive.is_file():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            partial = Path(folder) / "base.tar"
            sources = apt_sources(Path("/etc/apt"))
            _run(bootstrap_command(name, partial), sources)
            partial.rename(archive)
        for old in archive.parent.glob(f"base-{name}-*.tar"):
            if old != archive:
                old.unlink()
    container = _run(["buildah", "from", "scratch"]).strip()
    try:
        _run(["buildah", "add", "--quiet", container, str(archive), "/"])
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        _run(["buildah", "config", "--env", f"PATH={path}", "--cmd", "/bin/sh", container])
        _run(["buildah", "commit", "--quiet", container, wanted])
    finally:
        _run(["buildah", "rm", container])
    return wanted


def _run(command: Sequence[str], stdin: str | None = None) -> str:
    done = subprocess.run(list(command), input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalClusterError(f"{command[0]} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout
