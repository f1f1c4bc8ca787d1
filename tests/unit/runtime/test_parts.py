"""The small parts: logs, followers, alias moves, child labels, the registry's webhook, server reports."""

import asyncio
import io
import json
import logging
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from lakeloop.adapters import logs
from lakeloop.adapters.servers import HttpModelServers
from lakeloop.adapters.tracking_protocol import BasicAuth, Webhook
from lakeloop.domain.deployment.analysis import Counters
from lakeloop.domain.deployment.signature import Column, Signature, parse_signature
from lakeloop.domain.plan import ObjectRef
from lakeloop.handlers.sink import owner_of
from lakeloop.reconcile import registry
from lakeloop.reconcile.followers import AliasMoves, Followers
from lakeloop.reconcile.protocol import Key
from lakeloop.reconcile.registry import EVENTS, WebhookKeeper

A, B = Key("ModelDeployment", "team-a", "a"), Key("ModelDeployment", "team-a", "b")
JOB = Key("TrainingJob", "team-a", "churn")
NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def _root_logger() -> Any:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.usefixtures("_root_logger")
def test_logs_are_one_json_object_per_line() -> None:
    stream = io.StringIO()
    logs.configure(logging.INFO, "json", stream)
    log = logging.getLogger("lakeloop.test")
    log.info("two\nlines %s", "é", extra={"kind": "TrainingJob", "namespace": "a", "object": "churn", "run": 7})
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "lakeloop.test",
        "message": "two\nlines é",
        "kind": "TrainingJob",
        "namespace": "a",
        "name": "churn",
        "run": 7,
    }
    assert "ValueError: why" in second["error"]


@pytest.mark.usefixtures("_root_logger")
def test_logs_for_people() -> None:
    stream = io.StringIO()
    logs.configure(logging.INFO, "text", stream)
    logging.getLogger("x").info("hello", extra={"kind": "TrainingJob", "object": "churn"})
    assert stream.getvalue().endswith("INFO hello [kind=TrainingJob name=churn]\n")


def test_followers() -> None:
    followers = Followers()
    followers.set(A, "churn")
    followers.set(B, "churn")
    assert set(followers.of("churn")) == {A, B}
    followers.set(A, "fraud")
    assert followers.of("churn") == (B,)
    assert followers.of("fraud") == (A,)
    followers.discard(B)
    followers.discard(B)
    assert followers.of("churn") == ()
    assert followers.all() == (A,)


def test_alias_moves() -> None:
    moves = AliasMoves()
    moves.note("churn", "champion", 2, NOW)
    assert moves.when("churn", "champion", 2) == NOW
    assert moves.when("churn", "champion", 1) is None, "not what it was last pointed to"
    assert moves.when("churn", "challenger", 2) is None
    for i in range(2000):
        moves.note(f"m-{i}", "champion", 1, NOW)
    assert moves.when("churn", "champion", 2) is None, "forgotten: memory is bounded"


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        ({"lakeloop.io/training-job": "churn"}, JOB),
        ({"lakeloop.io/model-deployment": "a"}, A),
        ({"app.kubernetes.io/managed-by": "lakeloop"}, None),
    ],
)
def test_owner_of(labels: dict[str, str], key: Key | None) -> None:
    assert owner_of("team-a", labels) == key


class FakeServer:
    """The webhooks of an MLflow."""

    def __init__(self, *webhooks: Webhook) -> None:
        self.webhooks = list(webhooks)
        self.made: list[tuple[Any, ...]] = []

    async def list_webhooks(self) -> list[Webhook]:
        return list(self.webhooks)

    async def create_webhook(self, name: str, url: str, events: Any, secret: str) -> Webhook:
        made = Webhook(f"new-{len(self.made)}", name, url, tuple(events), True)
        self.made.append((name, url, tuple(events), secret))
        self.webhooks.append(made)
        return made

    async def delete_webhook(self, webhook_id: str) -> None:
        self.webhooks = [each for each in self.webhooks if each.id != webhook_id]


URL = "http://operator/webhooks/mlflow"
OURS = Webhook("old", "lakeloop", URL, EVENTS, True)
THEIRS = Webhook("theirs", "slack", "http://slack", EVENTS, True)


async def test_webhook_is_made_anew_at_start_and_then_left_alone() -> None:
    server: Any = FakeServer(OURS, THEIRS)
    keeper = WebhookKeeper(None, None, "lakeloop-system", URL, "hush")  # type: ignore[arg-type]
    await keeper.ensure(server)
    assert server.made == [("lakeloop", URL, EVENTS, "hush")]
    assert [each.id for each in server.webhooks] == ["theirs", "new-0"]
    await keeper.ensure(server)
    assert [each.id for each in server.webhooks] == ["theirs", "new-0"]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param([], id="deleted"),
        pytest.param([Webhook("w", "lakeloop", "http://other", EVENTS, True)], id="another-address"),
        pytest.param([Webhook("w", "lakeloop", URL, EVENTS[:1], True)], id="fewer-events"),
        pytest.param([Webhook("w", "lakeloop", URL, EVENTS, False)], id="switched-off"),
    ],
)
async def test_webhook_that_is_not_as_it_should_be_is_made_again(changed: list[Webhook]) -> None:
    server: Any = FakeServer()
    keeper = WebhookKeeper(None, None, "lakeloop-system", URL, "hush")  # type: ignore[arg-type]
    await keeper.ensure(server)
    server.webhooks = changed
    await keeper.ensure(server)
    assert [(each.id, each.url, each.events, each.active) for each in server.webhooks] == [("new-1", URL, EVENTS, True)]


async def test_a_registry_that_answers_nonsense_does_not_end_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "RETRY_SECONDS", 0.001)
    answers: list[Any] = [KeyError("webhooks"), RecursionError("too deep"), None]
    server: Any = FakeServer()

    class Tracking:
        def connect(self, auth: BasicAuth | None) -> Any:
            if (answer := answers.pop(0)) is not None:
                raise answer
            return server

    class Cluster:
        async def get(self, ref: ObjectRef) -> None:
            return None

    keeper = WebhookKeeper(Cluster(), Tracking(), "lakeloop-system", URL, "hush")  # type: ignore[arg-type]
    task = asyncio.create_task(keeper.run())
    async with asyncio.timeout(5):
        while not server.made:
            assert not task.done()
            await asyncio.sleep(0)
    task.cancel()


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param({"parameters": {"digest": DIGEST, "warnings": ["old numpy"]}}, (DIGEST, ("old numpy",)), id="all"),
        pytest.param({"parameters": {"digest": "latest"}}, (None, ()), id="not-a-digest"),
        pytest.param({"parameters": {"digest": DIGEST, "warnings": "x"}}, (DIGEST, ()), id="warnings-not-a-list"),
        pytest.param({"parameters": {"warnings": ["x" * 900] * 50}}, (None, ("x" * 500,) * 20), id="bounded"),
        pytest.param({}, None, id="no-parameters"),
        pytest.param([], None, id="not-an-object"),
    ],
)
async def test_server_report(aiohttp_server: Any, body: Any, told: tuple[Any, ...] | None) -> None:
    async def metadata(request: web.Request) -> web.Response:
        assert request.match_info["name"] == "my model"
        return web.json_response(body)

    app = web.Application()
    app.router.add_get("/v2/models/{name}", metadata)
    running = await aiohttp_server(app)
    servers = HttpModelServers(port=running.port)
    report = await servers.report("127.0.0.1", "my model")
    assert (report and (report.digest, tuple(report.warnings))) == told
    await servers.close()


async def test_server_tells_of_its_signature(aiohttp_server: Any) -> None:
    signature = {"inputs": [{"type": "long", "name": "tenure", "required": True}], "outputs": None, "params": None}

    async def metadata(_: web.Request) -> web.Response:
        return web.json_response({"parameters": {"digest": DIGEST, "signature": signature}})

    app = web.Application()
    app.router.add_get("/v2/models/{name}", metadata)
    running = await aiohttp_server(app)
    servers = HttpModelServers(port=running.port)
    report = await servers.report("127.0.0.1", "churn")
    assert report is not None
    assert parse_signature(report.signature) == Signature(inputs=(Column("tenure", "long"),))
    await servers.close()


EXPOSED = """
# TYPE lakeloop_server_requests_total counter
lakeloop_server_requests_total{model="churn",version="5",route="/invocations",code="200"} 90.0
lakeloop_server_requests_total{model="churn",version="5",route="/invocations",code="400"} 7.0
lakeloop_server_requests_total{model="churn",version="5",route="/invocations",code="500"} 3.0
lakeloop_server_requests_total{model="churn",version="5",route="/v2/models/infer",code="503"} 2.0
lakeloop_server_requests_total{model="churn",version="5",route="/ping",code="200"} 1000.0
# TYPE lakeloop_server_request_duration_seconds histogram
lakeloop_server_request_duration_seconds_bucket{model="churn",version="5",route="/invocations",le="0.1"} 80.0
lakeloop_server_request_duration_seconds_bucket{model="churn",version="5",route="/invocations",le="+Inf"} 100.0
lakeloop_server_request_duration_seconds_bucket{model="churn",version="5",route="/v2/models/infer",le="0.1"} 1.0
lakeloop_server_request_duration_seconds_bucket{model="churn",version="5",route="/v2/models/infer",le="+Inf"} 2.0
lakeloop_server_request_duration_seconds_bucket{model="churn",version="5",route="/ping",le="+Inf"} 1000.0
"""


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        pytest.param(EXPOSED, 200, Counters(102, 5, {0.1: 81.0, math.inf: 102.0}), id="predictions-alone"),
        pytest.param("", 200, Counters(), id="nothing-yet"),
        pytest.param("no { metrics", 200, None, id="no-metrics"),
        pytest.param(EXPOSED, 500, None, id="an-error"),
        pytest.param("# " + "x" * 2**21, 200, None, id="too-long"),
    ],
)
async def test_server_tells_what_it_has_counted(
    aiohttp_server: Any, text: str, status: int, told: Counters | None
) -> None:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    running = await aiohttp_server(app)
    servers = HttpModelServers(port=running.port)
    assert await servers.counters("127.0.0.1") == told
    await servers.close()


async def test_server_that_does_not_answer() -> None:
    servers = HttpModelServers(port=1)
    assert await servers.report("127.0.0.1", "churn") is None
    assert await servers.counters("127.0.0.1") is None
    await servers.close()
