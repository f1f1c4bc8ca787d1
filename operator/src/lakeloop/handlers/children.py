"""Children as the watch shows them: what happens to one is news of the object that it is of."""

from collections.abc import Mapping
from typing import Any, Final

import kopf

from lakeloop.handlers.sink import Enqueue, owner_of

LABELS: Final = {"app.kubernetes.io/managed-by": "lakeloop"}
SELECTOR: Final = ",".join(f"{key}={value}" for key, value in LABELS.items())
WATCHED: Final = (("", "v1", "pods"), ("apps", "v1", "deployments"))


def is_news(type: str | None, status: Mapping[str, Any]) -> bool:
    """Not that a pod was made, and nothing more: whoever made it knows. One that was listed comes without a type."""
    return type != "ADDED" or status.get("phase") != "Pending" or not status.keys() <= {"phase", "qosClass"}


def register(registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, enqueue: Enqueue) -> None:
    """Watches children by their label only: the API server does not even send the others."""

    async def child_event(
        type: str | None, namespace: str | None, labels: Mapping[str, str], status: Mapping[str, Any], **_: Any
    ) -> None:
        if (key := owner_of(namespace or "", labels)) is not None and is_news(type, status):
            enqueue(key)

    for group, version, plural in WATCHED:
        settings.watching.label_selectors[group, version, plural] = SELECTOR
        kopf.on.event(group, version, plural, labels=LABELS, registry=registry, id=f"{plural}_event")(child_event)
