"""What a candidate's servers have counted, look by look."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from lakeloop.adapters.servers_protocol import ModelServers
from lakeloop.api.v1alpha1.defaults import EffectiveDeploymentSpec
from lakeloop.api.v1alpha1.modeldeployment import ModelDeployment
from lakeloop.domain.deployment.analysis import Counters, between
from lakeloop.domain.deployment.observed import Counted, Servers

REMEMBERED: Final = 4096


class ServerCounts:
    """Remembers the last look at each candidate. What an operator before this one has counted is lost: its successor
    begins with a whole interval of its own."""

    def __init__(self, servers: ModelServers, now: Callable[[], float] = time.monotonic) -> None:
        self._servers = servers
        self._now = now
        self._last: dict[tuple[str, str], tuple[float, Mapping[str, Counters]]] = {}
        """(uid, revision) → when its servers were asked, and what each said, by its pod."""

    async def since_last_look(
        self,
        deployment: ModelDeployment,
        spec: EffectiveDeploymentSpec,
        servers: Mapping[str, Servers],
        pinned: str | None,
    ) -> Counted | None:
        """What the candidate's servers have answered since; None before an interval is over, and where it has no
        traffic."""
        candidate = deployment.status.candidate
        revision = candidate.revision if candidate else None
        if spec.analysis is None or revision is None or revision not in servers or pinned not in (None, revision):
            return None
        key, now = (deployment.metadata.uid, revision), self._now()
        before = self._last.get(key)
        if before is not None and now - before[0] < spec.analysis.interval_seconds:
            return None
        asked = [pod for pod in servers[revision].pods if pod.ready and pod.ip]
        told = await asyncio.gather(*(self._servers.counters(pod.ip or "") for pod in asked))
        # One that does not answer now has counted nothing: when it does, it is compared with what it said last.
        known = {pod.name: before[1][pod.name] for pod in asked if before is not None and pod.name in before[1]}
        counters = known | {pod.name: each for pod, each in zip(asked, told, strict=True) if each is not None}
        if len(self._last) >= REMEMBERED:
            self._last.clear()
        self._last[key] = now, counters
        return Counted(revision, between(before[1], counters)) if before is not None else None
