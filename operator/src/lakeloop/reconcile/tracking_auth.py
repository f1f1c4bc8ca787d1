"""Who we are to MLflow: a Secret's user, where there is one."""

import base64
import binascii

from lakeloop.adapters.kubernetes_protocol import Kubernetes
from lakeloop.adapters.tracking_protocol import BasicAuth
from lakeloop.domain.plan import ObjectRef


async def tracking_auth(kubernetes: Kubernetes, namespace: str, secret: str) -> BasicAuth | None:
    """The user in the Secret (`MLFLOW_TRACKING_USERNAME`, `…_PASSWORD`); None where it, or the name, is not there."""
    found = await kubernetes.get(ObjectRef("v1", "Secret", namespace, secret))
    data = (found or {}).get("data") or {}
    username, password = (_decoded(data.get(f"MLFLOW_TRACKING_{key}")) for key in ("USERNAME", "PASSWORD"))
    return BasicAuth(username, password) if username else None


def _decoded(value: str | None) -> str:
    try:
        return base64.b64decode(value or "").decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
