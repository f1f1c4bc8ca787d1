"""What MLflow's answers mean. The calls themselves are tested against a real MLflow."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lakeloop.adapters.tracking import MlflowServers
from lakeloop.adapters.tracking_protocol import (
    BasicAuth,
    TrackingDenied,
    TrackingError,
    TrackingInvalid,
    TrackingServer,
    TrackingUnavailable,
)

Serve = Callable[[int, object], Awaitable[TrackingServer]]


@pytest.fixture
async def seen() -> list[web.Request]:
    return []


@pytest.fixture
async def answering(seen: list[web.Request]) -> AsyncIterator[Serve]:
    """A server that gives one answer to everything."""
    running: list[TestServer] = []
    clients: list[MlflowServers] = []

    async def serve(status: int, body: object) -> TrackingServer:
        async def answer(request: web.Request) -> web.Response:
            seen.append(request)
            if isinstance(body, str):
                return web.Response(status=status, text=body, content_type="text/html")
            return web.json_response(body, status=status)

        app = web.Application()
        app.router.add_route("*", "/{any:.*}", answer)
        server = TestServer(app)
        await server.start_server()
        running.append(server)
        clients.append(MlflowServers(str(server.make_url("/")), timeout_seconds=5))
        return clients[-1].connect(BasicAuth("ada", "hunter2"))

    yield serve
    for client in clients:
        await client.close()
    for server in running:
        await server.close()


ERRORS: dict[str, tuple[int, object, type[TrackingError]]] = {
    "wrong password": (401, "You are not authenticated", TrackingDenied),
    "not allowed": (403, {"error_code": "PERMISSION_DENIED", "message": "no"}, TrackingDenied),
    "bad name": (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}, TrackingInvalid),
    "too many": (429, {}, TrackingUnavailable),
    "broken": (500, {"error_code": "INTERNAL_ERROR", "message": "database is locked"}, TrackingUnavailable),
    "proxy": (502, "<html>Bad Gateway</html>", TrackingUnavailable),
    "another program": (200, "<html>Welcome</html>", TrackingUnavailable),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_errors(name: str, answering: Serve) -> None:
    status, body, expected = ERRORS[name]
    server = await answering(status, body)
    with pytest.raises(expected) as raised:
        await server.set_alias("churn", "champion", 1)
    assert type(raised.value) is expected
    assert "hunter2" not in str(raised.value)


async def test_what_is_not_there(answering: Serve) -> None:
    server = await answering(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"})
    assert await server.get_experiment("x") is None
    assert await server.get_run("x") is None
    assert await server.get_model_version("x", 1) is None
    assert await server.get_model_version_by_alias("x", "y") is None
    await server.delete_alias("x", "y")
    await server.delete_webhook("x")


async def test_an_alias_that_is_not_there(answering: Serve) -> None:
    body = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias champion not found."}
    assert await (await answering(400, body)).get_model_version_by_alias("churn", "champion") is None


async def test_user_and_filter(answering: Serve, seen: list[web.Request]) -> None:
    server = await answering(200, {"model_versions": []})
    await server.search_model_versions("ada's model", "lakeloop.io/run-uid", "u1")
    assert seen[0].headers["Authorization"].startswith("Basic ")
    assert seen[0].query["filter"] == "name = \"ada's model\" AND tags.`lakeloop.io/run-uid` = 'u1'"


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(BasicAuth("ada", "hunter2"))


@pytest.mark.parametrize("body", [{}, {"model_version": 3}, {"model_version": {"name": "x", "version": "new"}}])
async def test_an_answer_that_is_not_mlflows(answering: Serve, body: object) -> None:
    """Some other program, or a proxy's own page: no error of the operator's, and none that ends it."""
    server = await answering(200, body)
    with pytest.raises(TrackingUnavailable, match="no MLflow server"):
        await server.get_model_version("churn", 1)
    with pytest.raises(TrackingUnavailable, match="no MLflow server"):
        await server.create_webhook("lakeloop", "http://x", ["model_version.created"], "s")
    with pytest.raises(TrackingUnavailable, match="no MLflow server"):
        await server.get_experiment("team-a/churn")


async def test_a_user_with_any_letters(answering: Serve, seen: list[web.Request]) -> None:
    server = await answering(200, {})
    server._auth = BasicAuth("ада", "пароль")  # type: ignore[attr-defined]
    await server.set_alias("churn", "champion", 1)
    sent = base64.b64decode(seen[-1].headers["Authorization"].removeprefix("Basic "))
    assert sent.decode() == "ада:пароль"


async def test_a_user_that_cannot_be_one(answering: Serve) -> None:
    server = await answering(200, {})
    server._auth = BasicAuth("a:b", "hunter2")  # type: ignore[attr-defined]
    with pytest.raises(TrackingDenied, match="MLflow cannot be asked as this user") as denied:
        await server.set_alias("churn", "champion", 1)
    assert "hunter2" not in str(denied.value)
