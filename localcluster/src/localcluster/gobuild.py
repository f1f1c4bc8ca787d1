"""Builds the Go programs that ``go.mod`` and ``go.sum`` lock, into a cache folder keyed by all that they are made of.

The folder is ``$XDG_CACHE_HOME/lakeloop/bin/<key>/`` (``~/.cache`` when unset). Every program is moved there whole once
it is built, so an interrupted build leaves nothing half-made and the next one goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.output import say

KUBERNETES_VERSION = "v1.34.4"
HELM_VERSION = "v4.0.4"
# What `helm template` and `helm lint` take for the cluster's version where they ask none: 1.20 if nothing is stamped.
_HELM_KUBERNETES = (
    ("helm.sh/helm/v4/pkg/chart/common", "k8sVersion"),
    ("helm.sh/helm/v4/pkg/chart/v2/lint/rules", "k8sVersion"),
    ("helm.sh/helm/v4/internal/version", "kubeClientVersion"),
)
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True)
class Program:
    """One binary: the Go package it comes from, and how long it took cold on two cores after those before it."""

    name: str
    package: str
    seconds: int


# In the order of building. The seconds are only weights for "how long is left": the first Kubernetes binary compiles
# most of what the others share.
PROGRAMS: tuple[Program, ...] = (
    Program("etcd", "go.etcd.io/etcd/server/v3", 40),
    Program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 130),
    Program("kubectl", "k8s.io/kubernetes/cmd/kubectl", 20),
    Program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 30),
    Program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 10),
    Program("kubelet", "k8s.io/kubernetes/cmd/kubelet", 40),
    Program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 10),
    Program("coredns", "./coredns", 20),
    Program("local-path-provisioner", "github.com/rancher/local-path-provisioner", 10),
    Program("helm", "helm.sh/helm/v4/cmd/helm", 30),
)
NAMES = tuple(program.name for program in PROGRAMS)
API_SERVER_NAMES = ("etcd", "kube-apiserver", "kubectl")


def module_dir() -> Path:
    """The folder with ``go.mod``: ``localcluster/`` of the checkout that this package is installed from (editable)."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "go.mod").is_file():
        raise LocalClusterError(
            f"{folder} has no go.mod: run localcluster from a checkout (uv run --project localcluster)"
        )
    return folder


def cache_root() -> Path:
    """``$XDG_CACHE_HOME/lakeloop``; everything under it is keyed by content and may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakeloop"


def ldflags(version: str = KUBERNETES_VERSION) -> str:
    """Linker flags: no symbol tables, and the versions that kubectl, the node and Helm report."""
    major, minor, _ = version.removeprefix("v").split(".")
    stamps = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": version,
    }
    values = [f"-X {package}.{key}={value}" for package in _VERSION_PACKAGES for key, value in stamps.items()]
    values.append(f"-X helm.sh/helm/v4/internal/version.version={HELM_VERSION}")
    for package, variable in _HELM_KUBERNETES:
        values += [f"-X {package}.{variable}Major={major}", f"-X {package}.{variable}Minor={minor}"]
    return " ".join(["-s", "-w", *values])


def build_command(go: str, program: Program, output: Path) -> list[str]:
    """The ``go build`` command of one program."""
    return [go, "build", "-trimpath", "-mod=readonly", "-ldflags", ldflags(), "-o", str(output), program.package]


def cache_key(sources: Iterable[tuple[str, bytes]], go_version: str, flags: str) -> str:
    """16 hex digits over the names and bytes of what is built and the way it is built."""
    digest = hashlib.sha256()
    for name, content in sorted(sources):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    digest.update(f"{go_version}\0{flags}".encode())
    return digest.hexdigest()[:16]


def remaining_seconds(
    done: Sequence[tuple[int, float]], current: tuple[int, float] | None, todo: Sequence[int]
) -> float:
    """How long is left, from weights and what has been measured so far.

    ``done`` holds (weight, seconds taken) of finished builds, ``current`` (weight, seconds so far), ``todo`` weights.
    """
    weight = sum(w for w, _ in done)
    pace = sum(s for _, s in done) / weight if weight else 1.0
    left = pace * sum(todo)
    if current is not None:
        left += max(current[0] * pace - current[1], current[0] * pace * 0.1)
    return left


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise LocalClusterError(
            "go is not on PATH: install Go 1.21 or newer (https://go.dev/dl); it fetches the version go.mod names"
        )
    return go


def _environment() -> dict[str, str]:
    # GOFLAGS of the user's shell or a go.work above the checkout would change what is built.
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def binary_dir() -> Path:
    """The cache folder of this checkout's programs (which need not exist yet).

    Raises LocalClusterError when Go is missing and the answer was not remembered from an earlier call.
    """
    module = module_dir()
    sources = [(str(p.relative_to(module)), p.read_bytes()) for p in (module / "go.mod", module / "go.sum")]
    sources += [(str(p.relative_to(module)), p.read_bytes()) for p in (module / "coredns").glob("*.go")]
    version = subprocess.run(
        [_go(), "env", "GOVERSION"], cwd=module, env=_environment(), capture_output=True, text=True, check=False
    )
    if version.returncode != 0:
        raise LocalClusterError(f"go env failed in {module}: {version.stderr.strip()}")
    return cache_root() / "bin" / cache_key(sources, version.stdout.strip(), f"CGO_ENABLED=0 -trimpath {ldflags()}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One builder at a time for what is kept in ``folder``, whichever process it is of; says so where one waits."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another build is running in {folder}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure_binaries(names: Sequence[str] = NAMES) -> Path:
    """Build those of ``names`` that the cache lacks, with progress lines, and return the folder that holds them.

    Raises LocalClusterError when Go is missing or a build fails; the compiler's words are in the message.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise LocalClusterError(f"no such program: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    folder = binary_dir()
    wanted = [program for program in PROGRAMS if program.name in names]
    if all((folder / program.name).is_file() for program in wanted):
        return folder
    with locked(folder):
        missing = [program for program in wanted if not (folder / program.name).is_file()]
        done: list[tuple[int, float]] = []
        for index, program in enumerate(missing):
            left = remaining_seconds(done, (program.seconds, 0.0), [p.seconds for p in missing[index + 1 :]])
            say(f"building {program.name} ({index + 1} of {len(missing)}, about {_minutes(left)} left)")
            started = time.monotonic()
            _build(program, folder, done, [p.seconds for p in missing[index + 1 :]])
            done.append((program.seconds, time.monotonic() - started))
        (folder / "versions.json").write_text(json.dumps({"kubernetes": KUBERNETES_VERSION}) + "\n")
    return folder


def _build(program: Program, folder: Path, done: Sequence[tuple[int, float]], todo: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as scratch:
        output = Path(scratch) / program.name
        process = subprocess.Popen(
            build_command(_go(), program, output),
            cwd=module_dir(),
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        finished = threading.Event()

        def report() -> None:
            started = time.monotonic()
            while not finished.wait(30):
                left = remaining_seconds(done, (program.seconds, time.monotonic() - started), todo)
                say(f"  still building {program.name}, about {_minutes(left)} left")

        reporter = threading.Thread(target=report, daemon=True)
        reporter.start()
        try:
            words, _ = process.communicate()
        finally:
            finished.set()
        if process.returncode != 0:
            raise LocalClusterError(f"building {program.name} failed:\n{words.strip()}")
        output.rename(folder / program.name)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
