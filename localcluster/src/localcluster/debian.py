"""The programs that come from Debian packages: which are missing, and how they are had."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.output import say

# File that must exist (or program on PATH) → the package that brings it.
NODE_FILES: Mapping[str, str] = {
    "/usr/bin/containerd": "containerd",
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/sbin/iptables": "iptables",
    "/usr/bin/nsenter": "util-linux",
    "/bin/ip": "iproute2",
    "/bin/mount": "mount",
    "/bin/busybox": "busybox-static",
    "/usr/bin/gcc": "gcc",
    "/usr/lib/x86_64-linux-gnu/libc.a|/usr/lib/aarch64-linux-gnu/libc.a": "libc6-dev",
}


# Someone else's apt-get, unattended-upgrades for one, is waited for.
LOCK = ("-o", "DPkg::Lock::Timeout=300")


def missing(files: Mapping[str, str], exists: Callable[[str], bool]) -> list[str]:
    """The packages whose files are not there; ``a|b`` means that one of the two will do."""
    return sorted({package for names, package in files.items() if not any(exists(name) for name in names.split("|"))})


def install_command(packages: list[str]) -> list[str]:
    """The command that installs ``packages`` without asking."""
    return ["apt-get", "install", "--yes", "--no-install-recommends", *LOCK, *packages]


def ensure(files: Mapping[str, str] = NODE_FILES) -> None:
    """Install what is missing where apt-get and root are at hand; else say what is.

    Raises LocalClusterError that names the packages.
    """
    if not missing(files, _exists):
        return
    # apt-get refuses to run twice at once, and `make up` builds images beside the node.
    handle = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _install(missing(files, _exists))
    finally:
        os.close(handle)


def _exists(name: str) -> bool:
    return Path(name).exists()


def _install(packages: list[str]) -> None:
    if not packages:
        return
    command = install_command(packages)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise LocalClusterError(f"missing: {', '.join(packages)}. Install them: sudo {' '.join(command)}")
    say(f"installing {', '.join(packages)} (apt-get)")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for attempt in (["apt-get", "update"], None):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return
        if attempt is not None:
            subprocess.run(attempt, env=environment, capture_output=True, check=False)
    raise LocalClusterError(f"{' '.join(command)} failed:\n{result.stderr.strip() or result.stdout.strip()}")
