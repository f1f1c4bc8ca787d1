"""Probes, metrics and webhooks over HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest

from lakeloop.adapters.http_server import HttpServer
from lakeloop.adapters.metrics import Metrics
from lakeloop.adapters.webhook import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Inbox, RegistryChange, sign

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Clock:
    def now(self) -> datetime:
        return NOW


class World:
    """What the server asks."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.ready = True
        self.asked = 0
        self.metrics = Metrics()

    async def is_ready(self) -> bool:
        self.asked += 1
        return self.ready


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def server(world: World) -> AsyncIterator[HttpServer]:
    async with HttpServer(
        port=0,
        host="127.0.0.1",
        metrics=world.metrics,
        clock=Clock(),
        problems=lambda: world.problems,
        ready=world.is_ready,
        inbox=Inbox(b"hush"),
    ) as running:
        yield running


async def get(server: HttpServer, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def post(server: HttpServer, body: bytes, delivery: str = "d-1") -> aiohttp.ClientResponse:
    stamp = str(int(NOW.timestamp()))
    headers = {
        DELIVERY_HEADER: delivery,
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: sign(b"hush", delivery, stamp, body),
    }
    url = f"http://127.0.0.1:{server.port}/webhooks/mlflow"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer


MOVED = json.dumps(
    {"entity": "model_version_alias", "action": "created", "data": {"name": "churn", "alias": "a", "version": "2"}}
).encode()


async def test_health_names_what_is_wrong(server: HttpServer, world: World) -> None:
    assert await get(server, "/healthz") == (200, "ok")
    world.problems = ["TrainingJob a/b has been in work for 400 s"]
    assert await get(server, "/healthz") == (503, "TrainingJob a/b has been in work for 400 s")


async def test_readiness_needs_the_api_server_and_does_not_load_it(server: HttpServer, world: World) -> None:
    world.ready = False
    assert (await get(server, "/readyz"))[0] == 503
    world.ready = True
    for _ in range(5):
        assert await get(server, "/readyz") == (200, "ok")
    assert world.asked == 2


async def test_metrics(server: HttpServer, world: World) -> None:
    world.metrics.passed("TrainingJob", "error", 0.1, 0.2, "Conflict")
    status, text = await get(server, "/metrics")
    assert status == 200
    assert 'lakeloop_reconcile_errors_total{error="Conflict",kind="TrainingJob"} 1.0' in text


async def test_delivery_is_told_once(server: HttpServer) -> None:
    told: list[RegistryChange] = []
    server.on_change = told.append
    assert (await post(server, MOVED)).status == 202
    assert (await post(server, MOVED)).status == 200
    assert [(each.model, each.alias, each.version) for each in told] == [("churn", "a", 2)]


async def test_standby_sends_the_delivery_elsewhere(server: HttpServer) -> None:
    answer = await post(server, MOVED)
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Connection"] == "close"
    told: list[RegistryChange] = []
    server.on_change = told.append
    assert (await post(server, MOVED)).status == 202
    assert len(told) == 1, "what a standby refused is not known"


async def test_oversized_delivery(server: HttpServer) -> None:
    assert (await post(server, b"x" * 200_000)).status == 413
    assert (await get(server, "/healthz"))[0] == 200
