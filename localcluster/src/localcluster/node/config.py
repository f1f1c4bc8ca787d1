"""The configuration files of the node's programs. Pure: arguments in, text or dict out.

Paths are those of the node's mount namespace (see ``supervisor``), so they are the same for every cluster.
"""

from __future__ import annotations

from typing import Any

import yaml

from localcluster.identity import DNS_ADDRESS, POD_NETWORK
from localcluster.layout import CONTAINERD_SOCKET, NODE_STATE

CNI_CONFIG = NODE_STATE / "config/cni"
CNI_PLUGINS = "/usr/lib/cni"
PAUSE_IMAGE = "localhost/lakeloop/pause"
PKI = NODE_STATE / "pki"
# One node has one /24 of the pod network: 254 pods, above the kubelet's limit of 110.
_NODE_PODS = next(POD_NETWORK.subnets(new_prefix=24))


def containerd(*, pause: str, snapshotter: str, restrict_oom_score: bool) -> str:
    """containerd's ``config.toml``, version 2 (https://github.com/containerd/containerd/blob/main/docs/cri/config.md).

    ``restrict_oom_score``: set where root lacks CAP_SYS_RESOURCE; without it every sandbox dies there at its start.
    """
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "/run/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = {str(restrict_oom_score).lower()}
disable_apparmor = true
max_container_log_line_size = 65536

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"
discard_unpacked_layers = false

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{CNI_CONFIG}"
"""


def cni() -> dict[str, Any]:
    """The pod network: a bridge in the node's namespace; nothing is masqueraded, so nothing leaves the machine."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(_NODE_PODS)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def kubelet(cgroup: str, *, restrict_oom_score: bool) -> str:
    """``KubeletConfiguration`` (https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/).

    ``cgroup``: below every controller's root; all pods go there, so that ``down`` finds what is left of them.
    ``restrict_oom_score``: root may not lower scores here, so the kubelet leaves its own as it is.
    """
    return _yaml(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(PKI / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(PKI / "kubelet.crt"),
            "tlsPrivateKeyFile": str(PKI / "kubelet.key"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [str(DNS_ADDRESS)],
            "clusterDomain": "cluster.local",
            "resolvConf": str(NODE_STATE / "config/resolv.conf"),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "containerLogMaxSize": "10Mi",
            "containerLogMaxFiles": 3,
            # Images come from no registry: one that was collected could not be had again.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "registerNode": True,
            "oomScoreAdj": 0 if restrict_oom_score else -999,
        }
    )


def corefile() -> str:
    """CoreDNS: the cluster's names, and a quick NXDOMAIN for all others, as no name server outside can be reached."""
    return """\
.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    template ANY ANY . {
        rcode NXDOMAIN
    }
    cache 5
    loadbalance
}
"""


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False)
