"""What the operator may do, as one table. The chart makes roles of it; nothing else grants the operator anything."""

from dataclasses import dataclass
from typing import Any

from lakeloop.api.v1alpha1 import GROUP


@dataclass(frozen=True, slots=True)
class Grant:
    """Verbs on resources of one API group, and what for."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str

    def rule(self) -> dict[str, Any]:
        """The `rbac.authorization.k8s.io/v1` PolicyRule."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


_READ = ("get", "list", "watch")
_MANAGE = (*_READ, "create", "patch", "update", "delete")

DRIVER = (
    Grant("", ("pods",), ("create", "get", "list", "watch", "delete", "deletecollection", "patch"), "executors"),
    Grant(
        "",
        ("configmaps",),
        ("create", "get", "list", "watch", "delete", "deletecollection", "update", "patch"),
        "the executors' Spark settings",
    ),
    Grant(
        "", ("persistentvolumeclaims",), ("list", "deletecollection"), "Spark removes executors' claims when it ends"
    ),
    Grant(
        "",
        ("services",),
        ("get", "list", "watch", "create", "delete", "deletecollection"),
        "Spark looks for services of its own, and removes them when it ends",
    ),
)
"""What a driver pod with executors may do in its namespace: what Spark's Kubernetes backend calls. Without executors it
may patch its own pod alone.

Nobody may grant what he does not hold, so that the operator holds all of it; it is therefore part of WATCHED.
"""

WATCHED = (
    Grant(GROUP, ("trainingjobs", "modeldeployments"), (*_READ, "patch", "update"), "read them, set our finalizer"),
    Grant(GROUP, ("trainingjobs/status", "modeldeployments/status"), ("get", "patch", "update"), "report"),
    Grant(GROUP, ("trainingjobs/finalizers", "modeldeployments/finalizers"), ("update",), "own what is made for them"),
    Grant("", ("pods",), (*_MANAGE, "deletecollection"), "drivers; held to be granted to drivers"),
    Grant("", ("pods/log",), ("get",), "say why a driver died"),
    Grant("", ("configmaps",), (*_MANAGE, "deletecollection"), "run specs; held to be granted to drivers"),
    Grant("", ("services",), (*_MANAGE, "deletecollection"), "in front of servers; held to be granted to drivers"),
    Grant("", ("persistentvolumeclaims",), ("list", "deletecollection"), "held to be granted to drivers"),
    Grant("", ("serviceaccounts",), _MANAGE, "drivers' and servers' own"),
    Grant("", ("secrets",), ("get",), "credentials that an object names; never listed"),
    Grant("", ("events",), ("create", "patch"), "say what happened"),
    Grant("events.k8s.io", ("events",), ("create", "patch"), "say what happened"),
    Grant("apps", ("deployments",), _MANAGE, "servers"),
    Grant("apps", ("replicasets",), _READ, "which servers belong to which revision"),
    Grant("networking.k8s.io", ("networkpolicies",), _MANAGE, "what servers may reach"),
    Grant("policy", ("poddisruptionbudgets",), _MANAGE, "keep servers through a node's drain"),
    Grant("rbac.authorization.k8s.io", ("roles", "rolebindings"), _MANAGE, "drivers' own"),
)
"""In each namespace that is watched."""

OWN = (
    Grant("coordination.k8s.io", ("leases",), (*_READ, "create", "patch", "update"), "leader election"),
    Grant("", ("events",), ("create", "patch"), "say who leads"),
)
"""In the operator's own namespace."""

CLUSTER = (
    Grant("apiextensions.k8s.io", ("customresourcedefinitions",), _READ, "see when the CRDs come and change"),
    Grant("", ("namespaces",), _READ, "see when a watched namespace comes"),
)
"""In the whole cluster, always."""

SCOPES = {"watched": WATCHED, "own": OWN, "cluster": CLUSTER}


def rules() -> dict[str, list[dict[str, Any]]]:
    """PolicyRules by scope."""
    return {scope: [grant.rule() for grant in grants] for scope, grants in SCOPES.items()}


def as_yaml() -> str:
    """The table as YAML, one rule a line, each below its reason."""
    notes = {
        "watched": "In each watched namespace: a ClusterRole, or a Role in each.",
        "own": "In the operator's own namespace.",
        "cluster": "In the whole cluster.",
    }
    lines: list[str] = []
    for scope, grants in SCOPES.items():
        lines += [f"# {notes[scope]}", f"{scope}:"]
        for grant in grants:
            resources = ", ".join(grant.resources)
            lines += [
                f"# {grant.why}",
                f'- {{apiGroups: ["{grant.group}"], resources: [{resources}], verbs: [{", ".join(grant.verbs)}]}}',
            ]
    return "\n".join(lines) + "\n"
