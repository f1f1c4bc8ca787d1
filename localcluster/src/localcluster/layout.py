"""Where a cluster's files are: on the host, and as the node's processes see them in their mount namespace."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.identity import DEFAULT_NAME, Identity, identify

# The state folder, as the node's processes see it. Fixed and short: socket paths may have 107 characters.
NODE_STATE = Path("/run/lakeloop")
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")

# containerd's overlay snapshots cannot live on these.
_NO_OVERLAY_ON_TOP = {
    "overlay",
    "9p",
    "nfs",
    "nfs4",
    "fuse",
    "virtiofs",
    "tmpfs",
    "ramfs",
    "vboxsf",
    "drvfs",
    "fuseblk",
}
_FALLBACK = Path("/var/lib/lakeloop")


@dataclass(frozen=True)
class Layout:
    """Folders and files of one cluster on the host. ``state`` is ``record`` itself unless its file system won't do."""

    identity: Identity
    base: Path  # <checkout>/.lakeloop
    state: Path

    @property
    def record(self) -> Path:
        return self.base / self.identity.name

    @property
    def kubeconfig(self) -> Path:
        folder = self.base if self.identity.name == DEFAULT_NAME else self.record
        return folder / "kubeconfig"

    @property
    def cluster_file(self) -> Path:
        return self.state / "cluster.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def pid_file(self) -> Path:
        return self.state / "node.pid"


def checkout() -> Path:
    """The checkout: ``$LAKELOOP_ROOT`` or the folder above ``localcluster/``."""
    if root := os.environ.get("LAKELOOP_ROOT"):
        return Path(root).resolve()
    folder = Path(__file__).resolve().parents[3]
    if not (folder / "localcluster" / "go.mod").is_file():
        raise LocalClusterError(f"{folder} is no checkout of this project: set LAKELOOP_ROOT to the checkout's folder")
    return folder


def file_system(path: Path, mountinfo: str) -> str:
    """The file system type of ``path`` (absolute, resolved) by the text of ``/proc/self/mountinfo``."""
    best, kind = "", "unknown"
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        covers = point == "/" or path == Path(point) or str(path).startswith(point + "/")
        if covers and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def state_folder(record: Path, unique: str, kind: str) -> Path:
    """Where the state goes by the file system type of ``record``: there, or under /var/lib where it would not work."""
    return _FALLBACK / unique if kind in _NO_OVERLAY_ON_TOP or kind.startswith("fuse") else record


def layout(name: str, root: Path | None = None) -> Layout:
    """The layout of cluster ``name`` of this checkout."""
    root = root or checkout()
    identity = identify(root, name)
    base = root / ".lakeloop"
    kind = file_system(root, Path("/proc/self/mountinfo").read_text())
    return Layout(identity, base, state_folder(base / name, identity.unique, kind))


def snapshotter(state: Path) -> str:
    """containerd's snapshotter: overlayfs, or plain copies where even the fallback folder is on an overlay."""
    kind = file_system(state.resolve(), Path("/proc/self/mountinfo").read_text())
    return "native" if kind in _NO_OVERLAY_ON_TOP or kind.startswith("fuse") else "overlayfs"
