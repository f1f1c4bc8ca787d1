"""Requests that wait together: who is answered with what, and what one of them may do to the others."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from lakeloop_server.batching import Batcher
from lakeloop_server.errors import RequestError
from lakeloop_server.fast import FastPath
from lakeloop_server.kernels import Kernel
from lakeloop_server.metrics import Metrics
from lakeloop_server.numeric import reader
from lakeloop_server.predictor import Predictor
from mlflow.types import ColSpec, Schema

METRICS = Metrics("batching", "1")


class Model:
    """Doubles its rows, once the gate is open; refuses tables in which a row is negative."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.seen: list[list[float]] = []
        read = reader(Schema([ColSpec("double", "x")]))
        assert read is not None
        self.path = FastPath(read, Kernel(self.run, independent=True))

    def run(self, rows: Any) -> Any:
        """As a kernel does."""
        self.gate.wait(60)
        self.seen.append(rows[:, 0].tolist())
        if (rows < 0).any():
            raise ValueError
        return rows[:, 0] * 2


def table(*values: float) -> Any:
    return np.array([values], dtype=float).T


def batching(
    play: Callable[[Batcher, Model], Coroutine[Any, Any, None]],
    max_rows: int = 64,
    delay: float = 0.0,
    max_queue: int = 100,
    timeout: float = 60.0,
) -> Model:
    model = Model()

    async def main() -> None:
        predictor = Predictor(1, max_queue, timeout, METRICS, lambda: None)
        await play(Batcher(model.path, predictor, max_rows, delay, METRICS), model)
        # Whatever came of it, nothing is counted any more
        while METRICS.in_flight._value.get() or METRICS.waiting._value.get():
            await asyncio.sleep(0.001)

    asyncio.run(main())
    return model


async def asked(batcher: Batcher, *values: float) -> "asyncio.Task[bytes | None]":
    """A request that has been sent, and waits or runs."""
    task = asyncio.ensure_future(batcher.answer(table(*values)))
    await asyncio.sleep(0)
    return task


def test_what_waits_goes_together_and_each_gets_his_own() -> None:
    async def play(batcher: Batcher, model: Model) -> None:
        first = await asked(batcher, 1)
        others = [await asked(batcher, 2), await asked(batcher, 3, 4), await asked(batcher, 5)]
        model.gate.set()
        assert await first == b'{"predictions": [2.0]}'
        assert [await one for one in others] == [
            b'{"predictions": [4.0]}',
            b'{"predictions": [6.0, 8.0]}',
            b'{"predictions": [10.0]}',
        ]

    assert batching(play).seen == [[1], [2, 3, 4, 5]]


def test_a_batch_is_no_larger_than_it_may_be() -> None:
    async def play(batcher: Batcher, model: Model) -> None:
        tasks = [await asked(batcher, *row) for row in ((1,), (2, 3), (4,), (5, 6, 7, 8), (9,))]
        model.gate.set()
        await asyncio.gather(*tasks)

    assert batching(play, max_rows=3).seen == [[1], [2, 3, 4], [5, 6, 7, 8], [9]]


def test_a_request_that_fails_fails_alone() -> None:
    async def play(batcher: Batcher, model: Model) -> None:
        tasks = [await asked(batcher, value) for value in (1, 2, -3, 4)]
        model.gate.set()
        found = await asyncio.gather(*tasks)
        assert found == [b'{"predictions": [2.0]}', b'{"predictions": [4.0]}', None, b'{"predictions": [8.0]}']

    assert batching(play).seen == [[1], [2, -3, 4], [2], [-3], [4]]


def test_nobody_waits_for_company_unless_it_is_wanted() -> None:
    async def play(batcher: Batcher, model: Model) -> None:
        model.gate.set()
        assert await batcher.answer(table(1)) == b'{"predictions": [2.0]}'

    assert batching(play).seen == [[1]]


def test_a_delay_lets_a_batch_fill() -> None:
    async def play(batcher: Batcher, model: Model) -> None:
        model.gate.set()
        tasks = [await asked(batcher, value) for value in (1, 2)]
        await asyncio.sleep(0)
        assert model.seen == []
        # The third makes it full, so that nobody waits for the rest of the delay
        tasks.append(await asked(batcher, 3))
        await asyncio.gather(*tasks)

    assert batching(play, max_rows=3, delay=3000.0).seen == [[1, 2, 3]]


def test_a_delay_ends() -> None:
    async def play(batcher: Batcher, model: Model) -> None:
        model.gate.set()
        assert await batcher.answer(table(1)) == b'{"predictions": [2.0]}'
        assert await batcher.answer(table(2)) == b'{"predictions": [4.0]}'

    assert batching(play, delay=0.01).seen == [[1], [2]]


def test_a_crowd_is_refused() -> None:
    async def play(batcher: Batcher, model: Model) -> None:
        tasks = [await asked(batcher, value) for value in (1, 2, 3)]
        with pytest.raises(RequestError) as caught:
            await batcher.answer(table(4))
        assert caught.value.status == 503
        model.gate.set()
        await asyncio.gather(*tasks)

    assert batching(play, max_queue=2).seen == [[1], [2, 3]]


def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    async def play(batcher: Batcher, model: Model) -> None:
        tasks = [await asked(batcher, value) for value in (1, 2)]
        for task in tasks:
            with pytest.raises(RequestError) as caught:
                await task
            assert caught.value.status == 504
        model.gate.set()
        while model.seen != [[1]]:
            await asyncio.sleep(0.001)

    assert batching(play, timeout=0.05).seen == [[1]]
