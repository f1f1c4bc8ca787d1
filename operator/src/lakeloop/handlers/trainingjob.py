"""TrainingJobs as the watch shows them."""

from collections.abc import Callable, Mapping
from typing import Any

import kopf

from lakeloop.api.v1alpha1 import GROUP, VERSION
from lakeloop.handlers.sink import Enqueue
from lakeloop.reconcile.protocol import Key

Wrote = Callable[[Mapping[str, Any]], bool]
"""Whether an object with this metadata is as this process wrote it."""


def register(registry: kopf.OperatorRegistry, enqueue: Enqueue, wrote: Wrote) -> None:
    """Has every event on a TrainingJob put its key into the queue, but those of our own writes: whoever made one goes
    on from it."""

    @kopf.on.event(GROUP, VERSION, "trainingjobs", registry=registry)
    async def trainingjob_event(
        type: str | None, namespace: str | None, name: str | None, meta: Mapping[str, Any], **_: Any
    ) -> None:
        if type != "MODIFIED" or not wrote(meta):
            enqueue(Key("TrainingJob", namespace or "", name or ""))
