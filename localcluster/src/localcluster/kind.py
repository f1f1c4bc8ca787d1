"""The same cluster by kind, where a Docker engine answers. As thin as can be: each function is one or two commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.layout import Layout, checkout
from localcluster.output import say

Runner = Callable[[list[str]], str]
READY_SECONDS = 180


def config_file(root: Path) -> Path:
    """``kind-config.yaml`` at the root of the checkout."""
    return root / "kind-config.yaml"


def create_command(name: str, kubeconfig: Path, config: Path) -> list[str]:
    """Create a cluster and wait until its node is ready."""
    return [
        *("kind", "create", "cluster", f"--name={name}", f"--config={config}"),
        *(f"--kubeconfig={kubeconfig}", f"--wait={READY_SECONDS}s"),
    ]


def export_command(name: str, kubeconfig: Path) -> list[str]:
    """Write the kubeconfig of a cluster that is there already."""
    return ["kind", "export", "kubeconfig", f"--name={name}", f"--kubeconfig={kubeconfig}"]


def delete_command(name: str, kubeconfig: Path) -> list[str]:
    """Delete a cluster and its entry in the kubeconfig."""
    return ["kind", "delete", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig}"]


def load_command(name: str, image: str, *, archive: bool) -> list[str]:
    """Load an image of Docker's, or an archive, into the cluster's node."""
    return ["kind", "load", "image-archive" if archive else "docker-image", image, f"--name={name}"]


def docker_answers() -> bool:
    """Whether a Docker engine answers this user."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def run(command: list[str]) -> str:
    """Run kind and return its stdout; what it says of its progress goes to the user as it comes.

    Raises LocalClusterError when kind is missing or fails.
    """
    if shutil.which(command[0]) is None:
        raise LocalClusterError(
            "a Docker engine answers, but kind is not on PATH: install it (https://kind.sigs.k8s.io), or use --no-kind"
        )
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise LocalClusterError(f"{' '.join(command)} failed with exit code {result.returncode}")
    return result.stdout


def exists(name: str, runner: Runner = run) -> bool:
    """Whether kind has a cluster of that name."""
    return name in runner(["kind", "get", "clusters"]).split()


def up(place: Layout, runner: Runner = run) -> Layout:
    """Bring the cluster up; when it is there, only write its kubeconfig."""
    name = place.identity.name
    place.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    if exists(name, runner):
        runner(export_command(name, place.kubeconfig))
    else:
        runner(create_command(name, place.kubeconfig, config_file(checkout())))
    place.kubeconfig.chmod(0o600)
    say(f"cluster {name} is up (kind): KUBECONFIG={place.kubeconfig}, NodePorts at 127.0.0.1")
    return place


def down(place: Layout, runner: Runner = run) -> None:
    """Delete the cluster."""
    runner(delete_command(place.identity.name, place.kubeconfig))
    place.kubeconfig.unlink(missing_ok=True)


def load_image(name: str, image: str, runner: Runner = run) -> None:
    """Load an image into the cluster's node."""
    runner(load_command(name, image, archive=Path(image).is_file()))
