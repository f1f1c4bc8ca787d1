"""What driver and executor pods have in common."""

from typing import Any, Final

from lakeloop.render.overlay import RESTRICTED_CONTAINER, RESTRICTED_POD

WORK_VOLUME: Final = "spark-local-dir-work"
"""Spark takes a volume of the executor template for its local folder by the beginning of this name."""


def pod_security() -> dict[str, Any]:
    """The restricted Pod Security level, and our own user."""
    return dict(RESTRICTED_POD)


def container_security() -> dict[str, Any]:
    """The restricted Pod Security level, and a read-only root."""
    return dict(RESTRICTED_CONTAINER)


def scratch_volumes() -> list[dict[str, Any]]:
    """Where a container on a read-only root may write."""
    return [{"name": "tmp", "emptyDir": {}}, {"name": WORK_VOLUME, "emptyDir": {}}]


def scratch_mounts() -> list[dict[str, Any]]:
    """`/tmp`, and `/work` for Spark's local folders."""
    return [{"name": "tmp", "mountPath": "/tmp"}, {"name": WORK_VOLUME, "mountPath": "/work"}]  # noqa: S108
