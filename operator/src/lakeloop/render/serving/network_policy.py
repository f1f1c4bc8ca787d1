"""The NetworkPolicy of server pods: a model may hold code of whoever can register one, and must reach little.

A policy cannot name hosts. A store inside the cluster (`http://minio.ns.svc:9000`) is named by its namespace, one
outside by its port alone, without the link-local addresses where clouds keep credentials. Servers do not speak to the
registry, so that it is not among what they may reach.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from lakeloop.render.serving import names

LINK_LOCAL: Final = ("169.254.0.0/16",)
_PORTS: Final = {"http": 80, "https": 443}


def server_network_policy(namespace: str, deployment: str, uid: str, *, storage_endpoint: str | None) -> dict[str, Any]:
    """In: port 8080. Out: DNS and the store. `storage_endpoint` None: the cloud's, over HTTPS."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": names.metadata(namespace, deployment, uid, deployment),
        "spec": {
            "podSelector": {"matchLabels": names.selector(deployment)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"port": names.PORT, "protocol": "TCP"}]}],
            "egress": [
                {"ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]},
                _to_store(storage_endpoint),
            ],
        },
    }


def _to_store(endpoint: str | None) -> dict[str, Any]:
    parts = urlsplit(endpoint or "https://s3.amazonaws.com")
    labels = (parts.hostname or "").split(".")
    if len(labels) >= 3 and labels[2] == "svc":
        # Without a port: the policy sees the pod's, which need not be the Service's.
        return {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": labels[1]}}}]}
    return {
        "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": list(LINK_LOCAL)}}, {"ipBlock": {"cidr": "::/0"}}],
        "ports": [{"port": parts.port or _PORTS.get(parts.scheme, 443), "protocol": "TCP"}],
    }
