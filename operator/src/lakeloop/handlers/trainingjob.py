"""TrainingJobs as the watch shows them."""

from typing import Any

import kopf

from lakeloop.api.v1alpha1 import GROUP, VERSION
from lakeloop.handlers.sink import Enqueue
from lakeloop.reconcile.protocol import Key


def register(registry: kopf.OperatorRegistry, enqueue: Enqueue) -> None:
    """Has every event on a TrainingJob put its key into the queue."""

    @kopf.on.event(GROUP, VERSION, "trainingjobs", registry=registry)
    async def trainingjob_event(namespace: str | None, name: str | None, **_: Any) -> None:
        enqueue(Key("TrainingJob", namespace or "", name or ""))
