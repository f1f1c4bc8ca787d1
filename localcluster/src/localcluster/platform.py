"""Everything that ``make up`` does: programs and node on one side, images on the other, then the charts.

Each part is one of this project's own commands, run as a user would run it, so that each can also be run alone.
"""

from __future__ import annotations

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
from localcluster.gobuild import ensure_binaries, module_dir
from localcluster.identity import DEFAULT_NAME
from localcluster.layout import layout
from localcluster.output import say


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
    binaries = ensure_binaries()
    tools = link_tools(root, binaries)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    local = [sys.executable, "-m", "localcluster"]
    side_by_side(
        [[Step("cluster", [*local, "up"])], [Step("images", [*local, "images", "build"])]],
        root,
        environment,
    )
    run(Step("load", [*local, "images", "load"]), root, environment)
    kubeconfig = root / ".lakeloop" / "kubeconfig"
    profile = "kind" if clusters.runs_by_kind(layout(DEFAULT_NAME)) else "local"
    install = ["kubectl-lakeloop", "up", "--profile", profile, "--kubeconfig", str(kubeconfig)]
    install += ["--images", str(root / ".lakeloop" / "images.json")]
    run(Step("charts", uv_run("operator", *install)), root, environment)
    say(f"up after {time.monotonic() - started:.0f} s. Next: export KUBECONFIG={kubeconfig} PATH={tools}:$PATH")
