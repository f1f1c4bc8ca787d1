"""The looks at the ends of logs: how many, what wakes an object up, and that one slow table holds up no other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from unit.training.fakes import FakeClock, FakeStores, FakeTables, Writes

from lakeloop.adapters.object_store_protocol import StorageAccess
from lakeloop.reconcile.protocol import Key
from lakeloop.reconcile.table_watch import TableWatch

ACCESS = StorageAccess("http://minio:9000", "us-east-1", True, "me", "right")
KEY, OTHER = Key("TrainingJob", "team-a", "churn"), Key("TrainingJob", "team-a", "other")
URI, ELSEWHERE = "s3a://lake/customers", "s3a://lake/elsewhere"


class Hand:
    """A watch in use, and the keys that it put into the queue."""

    def __init__(self, poll_seconds: float = 0.01) -> None:
        self.clock = FakeClock()
        self.stores = FakeStores(self.clock, Writes())
        self.tables = FakeTables(self.stores)
        for uri in (URI, ELSEWHERE):
            self.tables.commit(uri, self.clock.now())
        self.watch = TableWatch(self.tables, self.clock, poll_seconds)
        self.woken: asyncio.Queue[Key] = asyncio.Queue()

    async def heard(self) -> Key:
        async with asyncio.timeout(5):
            return await self.woken.get()

    async def until_looked(self, looks: int) -> None:
        """Waits for so many more looks."""
        wanted = self.tables.looks + looks
        async with asyncio.timeout(5):
            while self.tables.looks < wanted:
                await asyncio.sleep(0.001)  # a poll, not a wait

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watch.run(self.woken.put_nowait))
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_news_wakes_the_object_once_and_its_look_sees_it() -> None:
    hand = Hand()
    async with hand.running():
        await hand.watch.look(KEY, ACCESS, URI, 0)
        await hand.watch.look(OTHER, ACCESS, ELSEWHERE, 0)
        await hand.until_looked(3)
        assert hand.woken.empty()
        hand.tables.commit(URI, hand.clock.now())
        assert await hand.heard() == KEY
        await hand.until_looked(5)
        assert hand.woken.empty(), "nobody looks again before the object did"
        assert (await hand.watch.look(KEY, ACCESS, URI, 0)).commits == 1, "although it looked a moment ago"
        hand.tables.commit(URI, hand.clock.now())
        assert await hand.heard() == KEY
        assert (await hand.watch.look(KEY, ACCESS, URI, 0)).commits == 2
        assert hand.tables.read == [1, 2]


async def test_a_store_that_refuses_wakes_the_object_which_tells_it() -> None:
    hand = Hand()
    async with hand.running():
        await hand.watch.look(KEY, ACCESS, URI, 0)
        hand.stores.secret_key = "another"
        assert await hand.heard() == KEY


async def test_what_is_forgotten_is_not_looked_at() -> None:
    hand = Hand()
    async with hand.running():
        await hand.watch.look(KEY, ACCESS, URI, 0)
        await hand.until_looked(1)
        hand.watch.forget(KEY)
        await hand.watch.look(OTHER, ACCESS, ELSEWHERE, 0)
        hand.tables.commit(URI, hand.clock.now())
        await hand.until_looked(5)
        assert hand.woken.empty()


async def test_a_table_that_hangs_holds_up_no_other() -> None:
    hand = Hand()
    changed, hangs = hand.tables.changed, asyncio.Event()

    async def slow(access: StorageAccess, uri: str, *, after: int) -> bool:
        if uri == ELSEWHERE:
            hangs.set()
            await asyncio.Event().wait()
        return await changed(access, uri, after=after)

    hand.tables.changed = slow  # type: ignore[method-assign]
    async with hand.running():
        await hand.watch.look(OTHER, ACCESS, ELSEWHERE, 0)
        await hand.watch.look(KEY, ACCESS, URI, 0)
        await hangs.wait()
        hand.tables.commit(URI, hand.clock.now())
        assert await hand.heard() == KEY


async def test_an_error_that_nobody_foresaw_ends_no_look() -> None:
    hand = Hand()

    async def broken(access: StorageAccess, uri: str, *, after: int) -> bool:
        raise RuntimeError("what is this")

    hand.tables.changed = broken  # type: ignore[method-assign]
    async with hand.running():
        await hand.watch.look(KEY, ACCESS, URI, 0)
        assert await hand.heard() == KEY
        await hand.watch.look(KEY, ACCESS, URI, 0)
        assert await hand.heard() == KEY
