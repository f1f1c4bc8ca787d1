"""Everything that ``make up`` does: programs and node on one side, images on the other, then the charts.

Each part is one of this project's own commands, run as a user would run it, so that each can also be run alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import clusters
from localcluster.errors import LocalClusterError
from localcluster.gobuild import binary_dir, module_dir
from localcluster.identity import DEFAULT_NAME
from localcluster.layout import checkout, layout
from localcluster.output import say

LOCAL = (sys.executable, "-m", "localcluster")
CLIENTS = ("kubectl", "helm")


@dataclass(frozen=True)
class Step:
    """A command with a short name, under which its lines are shown."""

    name: str
    command: Sequence[str]


def uv_run(project: str, *command: str) -> list[str]:
    """A command of one of this repository's Python projects, from the repository's root."""
    uv = shutil.which("uv") or os.environ.get("UV")
    if uv is None:
        raise LocalClusterError("uv is not on PATH: run `make tools`, or install it (pip install uv)")
    return [uv, "run", "--quiet", "--frozen", "--project", project, *command]


def run(step: Step, root: Path, environment: Mapping[str, str]) -> None:
    """Runs one step, its lines passed on as they come. Raises LocalClusterError with the step's name when it fails."""
    process = subprocess.Popen(
        list(step.command), cwd=root, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if process.stdout is None:
        raise LocalClusterError(f"{step.name}: its output cannot be read")
    for line in process.stdout:
        say(f"{step.name:<8} {line.rstrip()}")
    if process.wait() != 0:
        raise LocalClusterError(f"{step.name} failed ({' '.join(step.command)}): its last lines above say why")


def side_by_side(lanes: Sequence[Sequence[Step]], root: Path, environment: Mapping[str, str]) -> None:
    """Runs lanes of steps at once, the steps of a lane in order.

    Raises LocalClusterError with the first failure once every lane has come to its end.
    """
    failures: list[LocalClusterError] = []

    def work(lane: Sequence[Step]) -> None:
        for step in lane:
            try:
                run(step, root, environment)
            except LocalClusterError as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def lanes(by_kind: bool) -> list[list[Step]]:
    """What can be done at once: programs and then the cluster on one side, images on the other.

    kind brings its own Kubernetes: only what the charts are installed with is built then.
    """
    programs = CLIENTS if by_kind else ()
    return [
        [
            Step("programs", [*LOCAL, "binaries", *programs]),
            Step("cluster", [*LOCAL, "up", "--kind" if by_kind else "--no-kind"]),
        ],
        [Step("images", [*LOCAL, "images", "build", "--docker" if by_kind else "--buildah"])],
    ]


def link_tools(root: Path, binaries: Path) -> Path:
    """Puts kubectl, helm and the kubectl plugin into ``.lakeloop/bin``, for the user's PATH; returns that folder."""
    folder = root / ".lakeloop" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    plugin = root / "operator" / ".venv" / "bin" / "kubectl-lakeloop"
    for name, target in {
        "kubectl": binaries / "kubectl",
        "helm": binaries / "helm",
        "kubectl-lakeloop": plugin,
    }.items():
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return folder


def up(root: Path | None = None) -> None:
    """Cluster, images, platform and operator; what is there already is left as it is.

    Raises LocalClusterError with the name of the step that failed.
    """
    root = root or module_dir().parent
    started = time.monotonic()
    tools = root / ".lakeloop" / "bin"
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    place = layout(DEFAULT_NAME, root)
    by_kind = clusters.chosen(place)
    side_by_side(lanes(by_kind), root, environment)
    link_tools(root, binary_dir())
    run(Step("load", [*LOCAL, "images", "load"]), root, environment)
    install = ["kubectl-lakeloop", "up", "--profile", "kind" if by_kind else "local"]
    install += ["--kubeconfig", str(place.kubeconfig), "--images", str(root / ".lakeloop" / "images.json")]
    run(Step("charts", uv_run("operator", *install)), root, environment)
    say(f"up after {time.monotonic() - started:.0f} s. Next: export KUBECONFIG={place.kubeconfig} PATH={tools}:$PATH")


def down() -> None:
    """The cluster and what `up` left in ``.lakeloop``, gone; caches of built programs and images stay."""
    clusters.down(DEFAULT_NAME)
    folder = checkout() / ".lakeloop"
    shutil.rmtree(folder / "bin", ignore_errors=True)
    (folder / "images.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()  # only if nothing else is in it
