"""What a node needs of the host: a veth pair, cgroups, and the kernel settings that the kubelet changes. All undone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from localcluster.errors import LocalClusterError
from localcluster.identity import Identity, Link

CGROUPS = Path("/sys/fs/cgroup")
# What kubelets need of cgroup v1 and v2 hierarchies alike.
NEEDED_CONTROLLERS = ("cpu", "memory", "pids", "cpuset")
# The kubelet sets these for the whole machine; `down` puts them back.
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def run(*argv: str) -> str:
    """Run a command of the host and return its stdout; LocalClusterError with its words when it fails."""
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LocalClusterError(f"{' '.join(argv)}: {result.stderr.strip() or result.returncode}")
    return result.stdout


def networks(addresses: list[dict[str, Any]], routes: list[dict[str, Any]]) -> list[IPv4Network]:
    """The IPv4 networks in ``ip -json address`` and ``ip -json route``, default routes left out."""
    found = [
        IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False)
        for interface in addresses
        for info in interface.get("addr_info", [])
        if info.get("family") == "inet"
    ]
    return found + [IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]


def taken_networks() -> list[IPv4Network]:
    """The IPv4 networks that this host has or routes to."""
    return networks(json.loads(run("ip", "-json", "address")), json.loads(run("ip", "-4", "-json", "route")))


def interface_exists(name: str) -> bool:
    """Whether the host has a network interface of that name."""
    return (Path("/sys/class/net") / name).exists()


def connect(identity: Identity, link: Link, pid: int) -> None:
    """Make the veth pair: ``eth0`` in the namespace of ``pid``; the host forwards nothing from its own end."""
    name = identity.host_interface
    disconnect(identity)
    run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    for setting, value in (("ipv4/conf/{}/forwarding", "0"), ("ipv6/conf/{}/disable_ipv6", "1")):
        path = Path("/proc/sys/net") / setting.format(name)
        if path.exists():
            path.write_text(value)
    run("ip", "address", "add", f"{link.host}/30", "dev", name)
    run("ip", "link", "set", name, "up")
    # Forwarding may be switched on for all interfaces later, by Docker say; this rule outlasts that. Addresses of the
    # host itself are found in the local table, which comes first.
    run("ip", "rule", "add", "iif", name, "prohibit")


def disconnect(identity: Identity) -> None:
    """Remove the host's end of the pair and its rule, whatever is left of them."""
    name = identity.host_interface
    for rule in json.loads(run("ip", "-json", "rule") or "[]"):
        if rule.get("iif") == name:
            run("ip", "rule", "del", "iif", name, "priority", str(rule["priority"]))
    if interface_exists(name):
        with contextlib.suppress(LocalClusterError):
            # The kernel removes it by itself once the node's namespace is gone: whoever is first.
            run("ip", "link", "del", name)


def hierarchies(root: Path = CGROUPS) -> list[Path]:
    """The mounted cgroup hierarchies: one for v2, one a controller for v1 (unused unified one included)."""
    if (root / "cgroup.controllers").exists():
        return [root]
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()
    )


def missing_controllers(root: Path = CGROUPS) -> list[str]:
    """The cgroup controllers that a kubelet needs and this machine lacks."""
    v2 = root / "cgroup.controllers"
    if v2.exists():
        there = set(v2.read_text().split())
    else:
        there = {part for path in hierarchies(root) for part in path.name.split(",")}
    return [controller for controller in NEEDED_CONTROLLERS if controller not in there]


def make_cgroups(cgroup: str) -> None:
    """Make ``<cgroup>/system`` in every hierarchy, ready to take processes."""
    for hierarchy in hierarchies():
        top = hierarchy / cgroup.lstrip("/")
        if (hierarchy / "cgroup.controllers").exists() and hierarchy == CGROUPS:
            for folder in (hierarchy, top):
                folder.mkdir(exist_ok=True)
                enable = " ".join(f"+{c}" for c in (folder / "cgroup.controllers").read_text().split())
                (folder / "cgroup.subtree_control").write_text(enable)
        for folder in (top, top / "system"):
            folder.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                setting = folder / name
                # A new cpuset (v1) is empty and takes no process until it is told what it may use.
                if setting.exists() and hierarchy != CGROUPS and not setting.read_text().strip():
                    setting.write_text((folder.parent / name).read_text())


def cgroups_left(cgroup: str) -> list[Path]:
    """The cgroup folders of a cluster, deepest first."""
    tops = [hierarchy / cgroup.lstrip("/") for hierarchy in (hierarchies() if CGROUPS.exists() else [])]
    folders = [Path(folder) for top in tops for folder, _, _ in os.walk(top)]
    return sorted(folders, key=lambda folder: len(folder.parts), reverse=True)


def remove_cgroups(cgroup: str, patience: float = 20.0) -> None:
    """Kill what is left in a cluster's cgroups and remove them."""
    deadline = time.monotonic() + patience
    while left := cgroups_left(cgroup):
        for folder in left:
            for pid in _pids(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            with contextlib.suppress(OSError):
                folder.rmdir()
        if time.monotonic() > deadline:
            raise LocalClusterError(f"cannot remove {left[0]}: its processes don't end (see {left[0]}/cgroup.procs)")
        if cgroups_left(cgroup):
            time.sleep(0.1)


def _pids(folder: Path) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, OSError):
        yield from (int(line) for line in (folder / "cgroup.procs").read_text().split() if line != "0")


def kernel_settings() -> dict[str, str]:
    """The present values of the kernel settings that a kubelet changes."""
    return {key: (Path("/proc/sys") / key).read_text().strip() for key in KERNEL_SETTINGS}


def restore_kernel_settings(saved: Mapping[str, str]) -> None:
    """Put back the settings of before ``up``."""
    for key, value in saved.items():
        path = Path("/proc/sys") / key
        if key in KERNEL_SETTINGS and path.exists() and path.read_text().strip() != value:
            path.write_text(value)


def other_nodes(identity: Identity) -> list[str]:
    """Cgroups of other clusters' nodes on this machine."""
    found = {path.name for hierarchy in hierarchies() for path in hierarchy.glob("lakeloop-*")}
    return sorted(found - {identity.unique})


def lacks_sys_resource(status: str) -> bool:
    """Whether the text of /proc/<pid>/status shows no effective CAP_SYS_RESOURCE (bit 24)."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return not int(line.split()[1], 16) >> 24 & 1
