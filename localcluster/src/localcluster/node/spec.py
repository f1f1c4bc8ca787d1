"""All files of a node that follow from its identity and address. Pure: a mapping of path → text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster.identity import SERVICE_NETWORK, Identity, Link
from localcluster.node import config
from localcluster.node.commands import node_commands


@dataclass(frozen=True)
class NodeSpec:
    """What a node is made from."""

    identity: Identity
    link: Link
    state: Path
    binaries: Path
    pause: str  # image reference
    snapshotter: str
    restrict_oom_score: bool

    def config_files(self) -> dict[str, str]:
        """Path below the state folder → content."""
        return {
            "config/containerd.toml": config.containerd(
                pause=self.pause, snapshotter=self.snapshotter, restrict_oom_score=self.restrict_oom_score
            ),
            "config/cni/10-pods.conflist": json.dumps(config.cni(), indent=2) + "\n",
            "config/kubelet.yaml": config.kubelet(self.identity.cgroup, restrict_oom_score=self.restrict_oom_score),
            # No name server: the kubelet would hand the host's to pods that cannot reach it.
            "config/resolv.conf": "",
        }

    def supervisor(self) -> str:
        """The supervisor's JSON. ``digest`` covers every file, so a change of any is a change of this."""
        files = self.config_files()
        commands = node_commands(node_name=self.identity.name, node_address=self.link.node)
        return (
            json.dumps(
                {
                    "hostname": self.identity.name,
                    "cgroup": self.identity.cgroup,
                    "state": str(self.state),
                    "binaries": str(self.binaries),
                    "runtime": str(self.identity.runtime_dir),
                    "address": f"{self.link.node}/{self.link.network.prefixlen}",
                    "gateway": str(self.link.host),
                    "services": str(SERVICE_NETWORK),
                    "programs": [asdict(command) for command in commands],
                    "digest": digest(files),
                },
                indent=2,
            )
            + "\n"
        )


def digest(files: Mapping[str, str]) -> str:
    """16 hex digits over names and contents."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:16]
