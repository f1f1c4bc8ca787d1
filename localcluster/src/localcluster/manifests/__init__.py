"""The manifests that every node gets, as templates (``string.Template``: ``${name}``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template

from localcluster.identity import DNS_ADDRESS
from localcluster.layout import NODE_STATE
from localcluster.node.config import corefile

NAMES = ("kubelet-access", "coredns", "storage")
VOLUMES = NODE_STATE / "volumes"


def render(images: Mapping[str, str]) -> str:
    """All manifests as one YAML text; ``images`` maps coredns, local-path-provisioner and busybox to references."""
    values = {
        "corefile": json.dumps(corefile()),
        "dns_address": str(DNS_ADDRESS),
        "coredns_image": images["coredns"],
        "provisioner_image": images["local-path-provisioner"],
        "busybox_image": images["busybox"],
        "volumes": str(VOLUMES),
    }
    texts = [files(__name__).joinpath(f"{name}.yaml").read_text() for name in NAMES]
    return "\n---\n".join(Template(text).substitute(values) for text in texts)
