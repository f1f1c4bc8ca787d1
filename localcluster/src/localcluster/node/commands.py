"""The command lines of the node's programs. Pure; paths are those of the node's mount namespace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from localcluster.identity import API_PORT, POD_NETWORK, SERVICE_NETWORK
from localcluster.layout import CONTAINERD_SOCKET, NODE_STATE

BIN = "/run/bin"
PKI = f"{NODE_STATE}/pki"
CONFIG = f"{NODE_STATE}/config"
_ETCD = "127.0.0.1:2379"


@dataclass(frozen=True)
class Command:
    """A program to keep running: its arguments, and the address that must take connections before it starts."""

    name: str
    argv: tuple[str, ...]
    wants: str | None = None  # "tcp:host:port" or "unix:/path"


def node_commands(*, node_name: str, node_address: IPv4Address) -> tuple[Command, ...]:
    """Everything that runs on the node, in the order of starting."""
    api = f"tcp:{node_address}:{API_PORT}"
    return (
        Command("containerd", ("/usr/bin/containerd", "--config", f"{CONFIG}/containerd.toml")),
        Command("etcd", etcd()),
        Command("kube-apiserver", apiserver(node_address), wants=f"tcp:{_ETCD}"),
        Command("kube-controller-manager", controller_manager(), wants=api),
        Command("kube-scheduler", scheduler(), wants=api),
        Command("kubelet", kubelet(node_name, node_address), wants=f"unix:{CONTAINERD_SOCKET}"),
        Command("kube-proxy", kube_proxy(node_name), wants=api),
    )


def etcd() -> tuple[str, ...]:
    """etcd on loopback, TLS both ways: a pod on the host network must not get round the API server."""
    return (
        f"{BIN}/etcd",
        "--name=node",
        f"--data-dir={NODE_STATE}/etcd",
        f"--listen-client-urls=https://{_ETCD}",
        f"--advertise-client-urls=https://{_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--client-cert-auth",
        f"--trusted-ca-file={PKI}/etcd-ca.crt",
        f"--cert-file={PKI}/etcd.crt",
        f"--key-file={PKI}/etcd.key",
        # A crash of the machine may lose the cluster, which `down` and `up` bring back; a crash of etcd loses nothing.
        "--unsafe-no-fsync",
        "--auto-compaction-retention=1h",
        "--log-level=warn",
    )


def apiserver(node_address: IPv4Address) -> tuple[str, ...]:
    """The API server, as kubeadm starts it, with NodeRestriction on and Pod Security admission on by default."""
    return (
        f"{BIN}/kube-apiserver",
        f"--advertise-address={node_address}",
        f"--secure-port={API_PORT}",
        f"--etcd-servers=https://{_ETCD}",
        f"--etcd-cafile={PKI}/etcd-ca.crt",
        f"--etcd-certfile={PKI}/apiserver-etcd-client.crt",
        f"--etcd-keyfile={PKI}/apiserver-etcd-client.key",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--service-node-port-range=30000-32767",
        f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key",
        f"--client-ca-file={PKI}/ca.crt",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={PKI}/sa.pub",
        f"--service-account-signing-key-file={PKI}/sa.key",
        # The node's name is in no DNS: without this, logs and exec hang.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={PKI}/ca.crt",
        f"--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={PKI}/apiserver-kubelet-client.key",
        f"--requestheader-client-ca-file={PKI}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={PKI}/front-proxy-client.crt",
        f"--proxy-client-key-file={PKI}/front-proxy-client.key",
        "--profiling=false",
    )


def controller_manager() -> tuple[str, ...]:
    """The controllers; no leader election, as there is one only."""
    return (
        f"{BIN}/kube-controller-manager",
        *_client("kube-controller-manager"),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={PKI}/sa.key",
        f"--root-ca-file={PKI}/ca.crt",
        f"--cluster-signing-cert-file={PKI}/ca.crt",
        f"--cluster-signing-key-file={PKI}/ca.key",
        f"--client-ca-file={PKI}/ca.crt",
        f"--requestheader-client-ca-file={PKI}/front-proxy-ca.crt",
        f"--cluster-cidr={POD_NETWORK}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--profiling=false",
    )


def scheduler() -> tuple[str, ...]:
    """The scheduler; no leader election, as there is one only."""
    return (
        f"{BIN}/kube-scheduler",
        *_client("kube-scheduler"),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    )


def kubelet(node_name: str, node_address: IPv4Address) -> tuple[str, ...]:
    """The kubelet; what is not here is in its configuration file."""
    return (
        f"{BIN}/kubelet",
        f"--config={CONFIG}/kubelet.yaml",
        f"--kubeconfig={CONFIG}/node.kubeconfig",
        f"--hostname-override={node_name}",
        f"--node-ip={node_address}",
    )


def kube_proxy(node_name: str) -> tuple[str, ...]:
    """kube-proxy in iptables mode; conntrack limits are the whole machine's and are left as they are."""
    return (
        f"{BIN}/kube-proxy",
        f"--kubeconfig={CONFIG}/kube-proxy.kubeconfig",
        f"--hostname-override={node_name}",
        f"--cluster-cidr={POD_NETWORK}",
        "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--bind-address=127.0.0.1",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
    )


def enter(pid: int, argv: Sequence[str]) -> list[str]:
    """Run ``argv`` in the node's namespaces. (``ip netns exec`` would make a mount namespace of its own.)"""
    return ["nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--uts", "--", *argv]


def _client(name: str) -> tuple[str, ...]:
    kubeconfig = f"{CONFIG}/{name}.kubeconfig"
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
    )
