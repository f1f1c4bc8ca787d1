"""Leader election against an API server in memory and a clock that the test moves."""

import asyncio
import copy
from typing import Any

import pytest

from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.adapters.leader import LeaderElector, Timing

TIMING = Timing(duration=15.0, renew_deadline=0.2, retry=0.002)


class Leases:
    """One Lease with optimistic concurrency. `broken` makes every request fail, `hanging` never answer."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.broken = False
        self.hanging = False

    async def request(
        self, method: str, path: str, query: Any = None, body: Any = None, *, tries: int = 1
    ) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.hanging:
            await asyncio.Event().wait()
        if self.broken:
            raise KubernetesError(0, "Unreachable", "no answer")
        if method == "GET":
            if self.lease is None:
                raise KubernetesError(404, "NotFound", "no lease")
            return copy.deepcopy(self.lease)
        if method == "POST":
            if self.lease is not None:
                raise KubernetesError(409, "AlreadyExists", "there already")
        elif self.lease is None or body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise KubernetesError(409, "Conflict", "changed")
        self.version += 1
        stored = copy.deepcopy(body)
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.lease = stored
        return copy.deepcopy(stored)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def elector(leases: Leases, name: str, clock: Clock, timing: Timing = TIMING) -> LeaderElector:
    return LeaderElector(leases, "lakeloop-system", name, timing=timing, clock=clock)


async def test_first_one_takes_it() -> None:
    leases, clock = Leases(), Clock()
    first = elector(leases, "a", clock)
    await first.acquire()
    assert first.leading
    assert leases.lease is not None
    assert leases.lease["spec"] | {"acquireTime": "", "renewTime": ""} == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "",
        "renewTime": "",
        "leaseTransitions": 0,
    }
    assert leases.lease["spec"]["renewTime"].endswith("Z")


async def test_of_many_at_once_one_gets_it() -> None:
    leases, clock = Leases(), Clock()
    candidates = [elector(leases, name, clock) for name in "abcde"]
    tasks = [asyncio.create_task(each.acquire()) for each in candidates]
    async with asyncio.timeout(5):
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for _ in range(50):
            await asyncio.sleep(0.001)
    assert [each.identity for each in candidates if each.leading] == [leases.holder]
    for task in tasks:
        task.cancel()


async def test_second_waits_until_the_record_has_not_changed_for_the_duration() -> None:
    leases, clock = Leases(), Clock()
    await elector(leases, "a", clock).acquire()
    second = elector(leases, "b", clock)
    task = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.02)
    clock.now += 14.9
    await asyncio.sleep(0.02)
    assert not task.done()
    clock.now += 0.2
    async with asyncio.timeout(5):
        await task
    assert leases.holder == "b"
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 1


async def test_holder_that_renews_keeps_it() -> None:
    leases, clock = Leases(), Clock()
    first = elector(leases, "a", clock)
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    second = elector(leases, "b", clock)
    waiting = asyncio.create_task(second.acquire())
    async with asyncio.timeout(30):
        for _ in range(200):  # longer than the lease lasts, in steps that leave time to renew
            version = leases.version
            clock.now += 0.1
            while leases.version == version:
                await asyncio.sleep(0.001)
    assert not waiting.done()
    assert leases.holder == "a"
    for task in (holding, waiting):
        task.cancel()


@pytest.mark.parametrize("fault", ["broken", "hanging"])
async def test_holder_that_cannot_renew_gives_up_before_anybody_takes_over(fault: str) -> None:
    leases = Leases()
    loop = asyncio.get_running_loop()
    first = LeaderElector(
        leases, "lakeloop-system", "a", timing=Timing(duration=0.4, renew_deadline=0.1, retry=0.005), clock=loop.time
    )
    await first.acquire()
    began = loop.time()
    setattr(leases, fault, True)
    async with asyncio.timeout(5):
        await first.hold()
    assert not first.leading
    assert loop.time() - began < 0.4


async def test_holder_survives_a_short_outage() -> None:
    leases = Leases()
    loop = asyncio.get_running_loop()
    first = LeaderElector(
        leases, "lakeloop-system", "a", timing=Timing(duration=4, renew_deadline=3, retry=0.005), clock=loop.time
    )
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    leases.broken = True
    await asyncio.sleep(0.05)
    leases.broken = False
    version = leases.version
    async with asyncio.timeout(5):
        while leases.version == version:
            await asyncio.sleep(0.005)
    assert not holding.done()
    holding.cancel()


async def test_holder_ends_at_once_when_another_has_it() -> None:
    leases, clock = Leases(), Clock()
    first = elector(leases, "a", clock)
    await first.acquire()
    assert leases.lease is not None
    leases.lease["spec"]["holderIdentity"] = "b"
    leases.lease["metadata"]["resourceVersion"] = "99"
    async with asyncio.timeout(5):
        await first.hold()
    assert leases.holder == "b"


async def test_released_lease_is_free_at_once() -> None:
    leases, clock = Leases(), Clock()
    first = elector(leases, "a", clock)
    await first.acquire()
    await first.release()
    second = elector(leases, "b", clock)
    async with asyncio.timeout(5):
        await second.acquire()
    assert leases.holder == "b"
    await first.release()
    assert leases.holder == "b", "not ours to release any longer"
