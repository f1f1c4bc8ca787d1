"""How a ModelDeployment's children are named, labelled and owned."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from lakeloop.api.v1alpha1 import API_VERSION

MODEL_DEPLOYMENT: Final = "lakeloop.io/model-deployment"
REVISION: Final = "lakeloop.io/revision"
MODEL_VERSION: Final = "lakeloop.io/model-version"
ROLE: Final = "lakeloop.io/role"
SELECTED_AT: Final = "lakeloop.io/selected-at"
"""Annotation of the Service: when it last began to select other servers, RFC 3339."""

SERVER: Final = "server"
PORT: Final = 8080
SERVICE_PORT: Final = 80


def revision_of(model: str, version: int, template: Mapping[str, Any]) -> str:
    """8 hex digits: the same for the same model version and pod template, another for any other."""
    content = json.dumps([model, version, template], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def revision_name(deployment: str, revision: str) -> str:
    """Name of the Deployment and the ConfigMap of a revision."""
    return f"{deployment}-{revision}"


def labels(deployment: str) -> dict[str, str]:
    """Labels of every child.

    Nothing is inherited from the resource: with Argo CD's tracking label on it, Argo CD would prune the child.
    """
    return {
        "app.kubernetes.io/managed-by": "lakeloop",
        "app.kubernetes.io/name": "lakeloop-serving",
        "app.kubernetes.io/instance": deployment,
        "app.kubernetes.io/component": SERVER,
        MODEL_DEPLOYMENT: deployment,
    }


def children_of(deployment: str) -> dict[str, str]:
    """What selects the children, and nothing that a user gave our label to."""
    return {MODEL_DEPLOYMENT: deployment, "app.kubernetes.io/managed-by": "lakeloop"}


def selector(deployment: str, revision: str | None = None) -> dict[str, str]:
    """What selects the server pods: all of them, or a revision's."""
    return {MODEL_DEPLOYMENT: deployment, ROLE: SERVER, **({REVISION: revision} if revision else {})}


def owner(deployment: str, uid: str) -> list[dict[str, Any]]:
    """The reference that makes Kubernetes remove the child with the ModelDeployment."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "ModelDeployment",
            "name": deployment,
            "uid": uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]


def metadata(namespace: str, deployment: str, uid: str, name: str) -> dict[str, Any]:
    """Metadata of a child."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": labels(deployment),
        "ownerReferences": owner(deployment, uid),
    }
