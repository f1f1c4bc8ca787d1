"""TrainingJobs as the watch shows them."""

from collections.abc import Mapping
from typing import Any

import kopf

from lakeloop.api.v1alpha1 import GROUP, VERSION
from lakeloop.handlers.sink import Enqueue
from lakeloop.reconcile.protocol import Key
from lakeloop.reconcile.run_outcomes import RunOutcomes


def register(registry: kopf.OperatorRegistry, enqueue: Enqueue, outcomes: RunOutcomes) -> None:
    """Has every event on a TrainingJob put its key into the queue, and runs that ended counted."""

    @kopf.on.event(GROUP, VERSION, "trainingjobs", registry=registry)
    async def trainingjob_event(
        type: str | None, namespace: str | None, name: str | None, status: Mapping[str, Any], **_: Any
    ) -> None:
        key = Key("TrainingJob", namespace or "", name or "")
        run = status.get("run") or {}
        if type == "DELETED":
            outcomes.discard(key)
        else:
            outcomes.see(key, run.get("uid"), run.get("phase"))
        enqueue(key)
