"""Names and addresses that belong to one cluster. Pure: all follow from the checkout's folder and the name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from localcluster.errors import LocalClusterError

DEFAULT_NAME = "lakeloop"
# The upper half of 172.31/16: private, and none of Docker's, kind's, minikube's or the clouds' usual defaults.
POOL = IPv4Network("172.31.128.0/17")
# Inside the node's own network namespace, so every cluster can have the same.
POD_NETWORK = IPv4Network("10.244.0.0/16")
SERVICE_NETWORK = IPv4Network("10.96.0.0/16")
DNS_ADDRESS = SERVICE_NETWORK[10]
API_SERVICE_ADDRESS = SERVICE_NETWORK[1]
API_PORT = 6443

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?")


@dataclass(frozen=True)
class Identity:
    """What tells one cluster from another on this machine."""

    name: str
    digest: str  # 8 hex digits of the checkout's folder and the name: two checkouts may use one name

    @property
    def unique(self) -> str:
        """Prefix of everything this cluster has outside its state folder."""
        return f"lakeloop-{self.name}-{self.digest}"

    @property
    def host_interface(self) -> str:
        """The host's end of the veth pair; the kernel allows 15 characters."""
        return f"ll{self.digest}"

    @property
    def cgroup(self) -> str:
        """The cgroup below every controller's root that holds the whole cluster."""
        return f"/{self.unique}"

    @property
    def runtime_dir(self) -> Path:
        """Mount point on the host of what only lives as long as the node does; empty when seen from outside."""
        return Path("/run") / self.unique


def identify(root: Path, name: str) -> Identity:
    """The identity of cluster ``name`` of the checkout at ``root``.

    Raises LocalClusterError when ``name`` is not a lower-case DNS label of at most 30 characters.
    """
    if not _NAME.fullmatch(name):
        raise LocalClusterError(
            f"--name {name!r}: use lower-case letters, digits and '-', "
            "at most 30 characters, starting and ending with a letter or digit"
        )
    return Identity(name, hashlib.sha256(f"{root}\0{name}".encode()).hexdigest()[:8])


@dataclass(frozen=True)
class Link:
    """The /30 between the host and a node."""

    network: IPv4Network

    @property
    def host(self) -> IPv4Address:
        return self.network[1]

    @property
    def node(self) -> IPv4Address:
        return self.network[2]


def allocate(identity: Identity, taken: Iterable[IPv4Network]) -> Link:
    """The first free /30 of the pool, looking from where the identity says, so that a cluster keeps its address.

    ``taken`` are all networks that the host has addresses in or routes to, default routes left out.
    """
    used = [network for network in taken if network.overlaps(POOL)]
    count = 1 << (30 - POOL.prefixlen)
    start = int(identity.digest, 16) % count
    for offset in range(count):
        candidate = IPv4Network((int(POOL.network_address) + 4 * ((start + offset) % count), 30))
        if not any(candidate.overlaps(network) for network in used):
            return Link(candidate)
    raise LocalClusterError(f"no free /30 in {POOL}: some route of this machine covers it (see `ip route`)")
