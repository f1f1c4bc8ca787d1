"""ModelDeployments as the watch shows them."""

from collections.abc import Mapping
from typing import Any

import kopf

from lakeloop.api.v1alpha1 import GROUP, VERSION
from lakeloop.handlers.sink import Enqueue
from lakeloop.reconcile.followers import Followers
from lakeloop.reconcile.protocol import Key


def register(registry: kopf.OperatorRegistry, enqueue: Enqueue, followers: Followers) -> None:
    """Has every event on a ModelDeployment put its key into the queue, and keeps up who follows which model."""

    @kopf.on.event(GROUP, VERSION, "modeldeployments", registry=registry)
    async def modeldeployment_event(
        type: str | None, namespace: str | None, name: str | None, spec: Mapping[str, Any], **_: Any
    ) -> None:
        key = Key("ModelDeployment", namespace or "", name or "")
        model = (spec.get("model") or {}).get("name")
        if type == "DELETED" or not model:
            followers.discard(key)
        else:
            followers.set(key, model)
        enqueue(key)
