"""What this machine must have before a node can come up; each lack is named with what to do about it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from localcluster import debian
from localcluster.errors import LocalClusterError
from localcluster.node import host


def problems(
    *, system: str, uid: int, cgroup_mounted: bool, controllers: list[str], namespaces: list[str]
) -> list[str]:
    """What is missing, in words; empty when a node can run. ``controllers`` and ``namespaces`` are the missing ones."""
    found = []
    if system != "Linux":
        return [f"a node needs Linux, this is {system}: use kind with Docker instead"]
    if uid != 0:
        found.append(
            f"a node needs root (namespaces, mounts, cgroups), this is uid {uid}: run it with sudo, or use kind"
        )
    if not cgroup_mounted:
        found.append(
            "no cgroups at /sys/fs/cgroup: mount them (in a container: run it privileged with its own cgroups)"
        )
    elif controllers:
        found.append(
            f"cgroup controllers missing at /sys/fs/cgroup: {', '.join(controllers)}: "
            "enable them in the kernel's command line"
        )
    if namespaces:
        found.append(f"the kernel lacks namespaces: {', '.join(namespaces)}")
    return found


def check() -> None:
    """Raise LocalClusterError that lists all that is missing; install Debian packages where that can be done."""
    mounted = any(
        (folder / "cgroup.procs").exists()
        for folder in (host.CGROUPS, *(p for p in host.CGROUPS.glob("*") if p.is_dir()))
    )
    found = problems(
        system=platform.system(),
        uid=os.geteuid(),
        cgroup_mounted=mounted,
        controllers=host.missing_controllers() if mounted else [],
        namespaces=[kind for kind in ("mnt", "net", "pid", "uts") if not Path(f"/proc/self/ns/{kind}").exists()],
    )
    if found:
        raise LocalClusterError("\n".join(found))
    debian.ensure()
