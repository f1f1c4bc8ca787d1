"""Leader election on a `coordination.k8s.io/v1` Lease, by client-go's rules.

kubernetes.aio brings one too, but it lets connection errors through, which end the process, and writes the machine's
local time as UTC. A holder counts as gone when its record has not changed for the lease's duration on *our* monotonic
clock, so that clocks of different machines are never compared.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from lakeloop.adapters.kubernetes_protocol import KubernetesError

logger = logging.getLogger(__name__)

LEASE = "lakeloop-operator"


class LeaseApi(Protocol):
    """What is needed of the API server."""

    async def request(
        self, method: str, path: str, query: Any = None, body: Any = None, *, tries: int = ...
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds. The holder gives up (`renew_deadline`) before anybody else may take over (`duration`)."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class LeaderElector:
    """One candidate. `acquire`, then `hold`; `release` at a graceful end."""

    def __init__(
        self,
        api: LeaseApi,
        namespace: str,
        identity: str,
        *,
        name: str = LEASE,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._namespace = namespace
        self.identity = identity
        self._timing = timing or Timing()
        self._clock = clock
        self._seen: tuple[Any, ...] | None = None
        self._seen_at = 0.0
        self.leading = False

    async def acquire(self) -> None:
        """Waits until the lease is ours."""
        while not await self._try():
            # Candidates that wait must not all ask at the same moment.
            await asyncio.sleep(self._timing.retry * (1.0 + 0.2 * random.random()))  # noqa: S311 - not a secret
        self.leading = True
        logger.info("took the lease %s/%s as %s", self._namespace, self._name, self.identity)

    async def hold(self) -> None:
        """Renews the lease. Returns when it is lost; nothing may be written afterwards."""
        renewed = self._clock()
        while True:
            await asyncio.sleep(self._timing.retry)
            left = renewed + self._timing.renew_deadline - self._clock()
            began = self._clock()
            try:
                async with asyncio.timeout(max(0.0, left)):
                    if await self._try():
                        # From before the request: that is when others saw the record last change, at the earliest.
                        renewed = began
                        continue
            except TimeoutError:
                left = 0.0
            if left <= 0 or not self._ours():
                self.leading = False
                logger.error("lost the lease %s/%s", self._namespace, self._name)
                return

    async def release(self) -> None:
        """Lets the next candidate in at once. Best effort."""
        if not self.leading:
            return
        self.leading = False
        try:
            lease = await self._api.request("GET", f"{self._collection}/{self._name}", tries=1)
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") == self.identity:
                lease["spec"] = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                await self._api.request("PUT", f"{self._collection}/{self._name}", None, lease, tries=1)
        except KubernetesError as error:
            logger.warning("the lease was not released, it will run out: %s", error)

    def _ours(self) -> bool:
        return self._seen is None or self._seen[0] == self.identity

    async def _try(self) -> bool:
        try:
            return await self._take()
        except KubernetesError as error:
            level = logging.DEBUG if error.status == 409 else logging.WARNING
            logger.log(level, "lease %s/%s: %s", self._namespace, self._name, error)
            return False

    async def _take(self) -> bool:
        try:
            lease = await self._api.request("GET", f"{self._collection}/{self._name}", tries=1)
        except KubernetesError as error:
            if error.status != 404:
                raise
            await self._api.request("POST", self._collection, None, self._fresh(), tries=1)
            self._note((self.identity, None))
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        self._note(_record(spec))
        duration = float(spec.get("leaseDurationSeconds") or self._timing.duration)
        if holder and holder != self.identity and self._clock() < self._seen_at + duration:
            return False
        # The resourceVersion goes along: whoever writes second gets 409.
        lease["spec"] = self._spec(spec, taken_over=holder != self.identity)
        written = (await self._api.request("PUT", f"{self._collection}/{self._name}", None, lease, tries=1))["spec"]
        self._note(_record(written))
        return True

    def _note(self, record: tuple[Any, ...]) -> None:
        if record != self._seen:
            self._seen, self._seen_at = record, self._clock()

    def _spec(self, old: dict[str, Any], *, taken_over: bool) -> dict[str, Any]:
        now = _now()
        return {
            **old,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._timing.duration)),
            "renewTime": now,
            "acquireTime": now if taken_over else old.get("acquireTime", now),
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if taken_over else 0),
        }

    def _fresh(self) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/managed-by": "lakeloop"},
            },
            "spec": {**self._spec({}, taken_over=True), "leaseTransitions": 0},
        }


def _record(spec: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(spec.get(key) for key in ("holderIdentity", "renewTime", "acquireTime", "leaseTransitions"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
