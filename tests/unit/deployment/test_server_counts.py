"""What a candidate's servers have counted is looked at once an interval, as the difference from the look before."""

from dataclasses import replace
from typing import Any

from deployment_world import World, serving

from lakeloop.domain.deployment.analysis import Counters
from lakeloop.domain.deployment.observed import Counted, Observed
from lakeloop.reconcile.server_counts import ServerCounts

ANALYSIS = {"intervalSeconds": 10, "metrics": [{"name": "error-rate", "max": 0}]}
CANARY = {"type": "Canary", "canary": {"steps": [{"setWeight": 50}]}}


class Servers:
    """Implements ModelServers: all answer the same."""

    def __init__(self) -> None:
        self.counted: Counters | None = Counters(100, 1)
        self.asked = 0

    async def report(self, address: str, model: str) -> None:
        return None

    async def counters(self, address: str) -> Counters | None:
        self.asked += 1
        return self.counted


def with_candidate(**spec: Any) -> World:
    world = serving(replicas=1, strategy=CANARY, analysis=ANALYSIS, **spec)
    world.version = 2
    world.act()
    world.ready[world.revision(2)] = 1
    world.act()
    return world


async def look(counts: ServerCounts, observed: Observed, pinned: str | None = None) -> Counted | None:
    return await counts.since_last_look(observed.deployment, observed.spec, observed.servers, pinned)


async def test_the_first_look_is_what_the_next_is_compared_with() -> None:
    servers, moment, world = Servers(), [0.0], with_candidate()
    counts, observed = ServerCounts(servers, lambda: moment[0]), world.observed()
    assert await look(counts, observed) is None
    moment[0], servers.counted = 9.9, Counters(130, 1)
    assert await look(counts, observed) is None
    assert servers.asked == 1, "the interval is not over"
    moment[0] = 10.0
    assert await look(counts, observed) == Counted(world.revision(2), Counters(30, 0))
    moment[0], servers.counted = 20.0, None
    assert await look(counts, observed) == Counted(world.revision(2), Counters()), "no answer says nothing"
    moment[0], servers.counted = 30.0, Counters(150, 2)
    assert await look(counts, observed) == Counted(world.revision(2), Counters(20, 1)), "nothing is counted twice"


async def test_nobody_is_asked_without_need() -> None:
    servers, world = Servers(), with_candidate()
    counts, observed = ServerCounts(servers, lambda: 0.0), world.observed()
    assert await look(counts, observed, pinned=world.revision(1)) is None, "it has no traffic"
    assert await look(counts, replace(observed, servers={})) is None, "it has no servers"
    assert await look(counts, replace(observed, spec=observed.spec.model_copy(update={"analysis": None}))) is None
    assert await look(counts, serving(1).observed()) is None, "there is no candidate"
    assert servers.asked == 0
