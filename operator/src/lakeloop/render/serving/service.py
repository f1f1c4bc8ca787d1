"""The Service in front of the servers. What it selects is what has traffic."""

from datetime import datetime
from typing import Any

from lakeloop.render.serving import names


def server_service(
    namespace: str, deployment: str, uid: str, *, revision: str | None, service_type: str, selected_at: datetime
) -> dict[str, Any]:
    """`revision` None: all of the deployment's ready servers. `selected_at`: since when it selects these."""
    metadata = names.metadata(namespace, deployment, uid, deployment)
    metadata["annotations"] = {names.SELECTED_AT: selected_at.isoformat().replace("+00:00", "Z")}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": service_type,
            "selector": names.selector(deployment, revision),
            "ports": [
                {
                    "name": "http",
                    "port": names.SERVICE_PORT,
                    "targetPort": names.PORT,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }


def internal_url(namespace: str, deployment: str) -> str:
    """Answers inside the cluster."""
    return f"http://{deployment}.{namespace}.svc:{names.SERVICE_PORT}"
