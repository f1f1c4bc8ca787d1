"""What controllers and kubelets would do to the Deployments of a namespace, where there is an API server alone."""

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Self

from lakeloop.adapters.kubernetes import MERGE_PATCH, KubernetesApi, path_of
from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.domain.plan import ObjectRef

VERSION = "lakeloop.io/model-version"
SECONDS = 0.05


class FakeNodes:
    """Pods come and go with their Deployment, one that is not ready first, and become ready, unless `broken` says how
    the version's servers die: `{5: ("EnvironmentMismatch", "needs numpy 3")}`.

    `lowest` is the smallest number of ready pods that the Service selected, from the first on.
    """

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self.broken: dict[int, tuple[str, str]] = {}
        self.held: set[int] = set()
        """Versions whose servers take for ever to load."""
        self.lowest: int | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        task = asyncio.create_task(self._run())

        async def end() -> None:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()

        self._stack.push_async_callback(end)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except KubernetesError as error:
                if error.status not in (404, 409):
                    raise
            await asyncio.sleep(SECONDS)

    async def _turn(self) -> None:
        deployments = await self._api.list("apps/v1", "Deployment", self._namespace, {})
        pods = list(await self._api.list("v1", "Pod", self._namespace, {}))
        known = {each["metadata"]["uid"] for each in deployments}
        for pod in pods:
            if pod["metadata"]["ownerReferences"][0]["uid"] not in known:
                await self._delete(pod)
        for deployment in deployments:
            own = [p for p in pods if p["metadata"]["ownerReferences"][0]["uid"] == deployment["metadata"]["uid"]]
            await self._scale(deployment, own)
        await self._look()

    async def _scale(self, deployment: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> None:
        wanted = deployment["spec"]["replicas"]
        for _ in range(wanted - len(pods)):
            await self._start(deployment)
        for pod in sorted(pods, key=_ready)[: max(0, len(pods) - wanted)]:
            await self._delete(pod)
        version = int(deployment["metadata"]["labels"][VERSION])
        for pod in pods:
            if not _ready(pod) and version not in self.held:
                await self._status(pod, version)

    async def _start(self, deployment: Mapping[str, Any]) -> None:
        template, metadata = deployment["spec"]["template"], deployment["metadata"]
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **template["metadata"],
                "name": f"{metadata['name']}-{uuid.uuid4().hex[:5]}",
                "namespace": self._namespace,
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
        }
        await self._api.create(pod)

    async def _status(self, pod: Mapping[str, Any], version: int) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        death = self.broken.get(version)
        container: dict[str, Any] = {
            "name": "server",
            "image": "x",
            "imageID": "x",
            "ready": death is None,
            "restartCount": 0 if death is None else 2,
            "state": {"running": {"startedAt": now}} if death is None else {"waiting": {"reason": "CrashLoopBackOff"}},
        }
        if death is not None:
            message = json.dumps({"reason": death[0], "message": death[1]})
            ended = {"exitCode": 3, "reason": "Error", "message": message, "startedAt": now, "finishedAt": now}
            container["lastState"] = {"terminated": ended}
        ready = {"type": "Ready", "status": "False" if death else "True", "lastTransitionTime": now}
        status = {"phase": "Running", "conditions": [ready], "containerStatuses": [container]}
        path = path_of("v1", "Pod", self._namespace, pod["metadata"]["name"]) + "/status"
        await self._api.request("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)

    async def _delete(self, pod: Mapping[str, Any]) -> None:
        ref = ObjectRef("v1", "Pod", self._namespace, pod["metadata"]["name"], pod["metadata"]["uid"])
        await self._api.delete(ref, grace_seconds=0)

    async def _look(self) -> None:
        """Pods first: one that goes between the two reads was still counted as there when it was selected."""
        pods = await self._api.list("v1", "Pod", self._namespace, {})
        for service in await self._api.list("v1", "Service", self._namespace, {}):
            selector = service["spec"]["selector"].items()
            ready = sum(_ready(pod) for pod in pods if selector <= pod["metadata"]["labels"].items())
            if self.lowest is not None or ready:
                self.lowest = ready if self.lowest is None else min(self.lowest, ready)


def _ready(pod: Mapping[str, Any]) -> bool:
    return any(
        each["type"] == "Ready" and each["status"] == "True" for each in pod.get("status", {}).get("conditions", ())
    )
