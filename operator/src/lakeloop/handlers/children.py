"""Children as the watch shows them: what happens to one is news of the object that it is of."""

from collections.abc import Mapping
from typing import Any, Final

import kopf

from lakeloop.handlers.sink import Enqueue, owner_of

LABELS: Final = {"app.kubernetes.io/managed-by": "lakeloop"}
SELECTOR: Final = ",".join(f"{key}={value}" for key, value in LABELS.items())
WATCHED: Final = (("", "v1", "pods"), ("apps", "v1", "deployments"))


def register(registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, enqueue: Enqueue) -> None:
    """Watches children by their label only: the API server does not even send the others."""

    async def child_event(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        if (key := owner_of(namespace or "", labels)) is not None:
            enqueue(key)

    for group, version, plural in WATCHED:
        settings.watching.label_selectors[group, version, plural] = SELECTOR
        kopf.on.event(group, version, plural, labels=LABELS, registry=registry, id=f"{plural}_event")(child_event)
