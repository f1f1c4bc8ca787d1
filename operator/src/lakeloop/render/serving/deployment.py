"""The Deployment of one revision: one model version in one pod template."""

from collections.abc import Mapping
from typing import Any, Final

from lakeloop.render.serving import names

_SET_BY_OTHERS: Final = ("deployment.kubernetes.io/revision",)


def server_deployment(
    namespace: str,
    deployment: str,
    uid: str,
    *,
    revision: str,
    version: int,
    template: Mapping[str, Any],
    replicas: int,
) -> dict[str, Any]:
    """`template` with its revision already in it."""
    metadata = names.metadata(namespace, deployment, uid, names.revision_name(deployment, revision))
    metadata["labels"] |= {names.REVISION: revision, names.MODEL_VERSION: str(version)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": names.selector(deployment, revision)},
            # For what happens within a revision: a pod is replaced only after another one is ready.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": dict(template),
        },
    }


def scaled(live: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """The Deployment as it is in the cluster, at another size.

    For revisions that the present spec no longer describes: all that is applied must be said again, or it is removed.
    """
    metadata = live["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in _SET_BY_OTHERS}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            **{key: metadata[key] for key in ("name", "namespace", "labels", "ownerReferences") if key in metadata},
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": {**live["spec"], "replicas": replicas},
    }
