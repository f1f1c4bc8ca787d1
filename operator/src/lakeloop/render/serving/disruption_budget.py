"""The PodDisruptionBudget that keeps a node's drain from taking all servers at once."""

from typing import Any

from lakeloop.render.serving import names


def disruption_budget(namespace: str, deployment: str, uid: str) -> dict[str, Any]:
    """One server at a time, of whichever revision; one that is not ready holds nothing up."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.metadata(namespace, deployment, uid, deployment),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(deployment)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
