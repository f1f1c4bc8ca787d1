"""The Kubernetes adapter against a server that answers as it is told."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from lakeloop.adapters import kubernetes
from lakeloop.adapters.kubernetes import KubernetesApi, path_of
from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.domain.plan import Event, ObjectRef

POD = ObjectRef("v1", "Pod", "team-a", "p", "uid-1")


class Server:
    """Gives the answers in turn, the last one for ever, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Callable[[], web.Response]] = []
        self.asked: list[tuple[str, str, str, Any]] = []
        self.accepted: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.accepted.append(request.headers["Accept"])
        self.asked.append(
            (request.method, request.path_qs, request.headers["Content-Type"], json.loads(text) if text else None)
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()

    def will(self, *answers: Any) -> None:
        """Bodies are answered with 200; `(status, body)` and `(status, body, headers)` as they say."""

        def make(answer: Any) -> Callable[[], web.Response]:
            status, body, headers = (*answer, {})[:3] if isinstance(answer, tuple) else (200, answer, {})
            return lambda: web.json_response(body, status=status, headers=headers)

        self.answers = [make(each) for each in answers]


def failure(status: int, reason: str, message: str = "no") -> tuple[int, dict[str, Any]]:
    return status, {"kind": "Status", "reason": reason, "message": message}


@pytest.fixture
async def server(aiohttp_server: Any, monkeypatch: pytest.MonkeyPatch) -> Server:
    fake = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    started = await aiohttp_server(app)
    fake.url = str(started.make_url("")).rstrip("/")  # type: ignore[attr-defined]
    monkeypatch.setattr(kubernetes, "FIRST_WAIT_SECONDS", 0.001)
    for variable in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(variable, raising=False)
    return fake


@pytest.fixture
async def api(server: Server) -> AsyncIterator[KubernetesApi]:
    configuration = client.Configuration()
    configuration.host = server.url  # type: ignore[attr-defined]
    async with KubernetesApi(configuration) as adapter:
        yield adapter


@pytest.mark.parametrize(
    ("args", "path"),
    [
        (("v1", "Pod", "a", "p"), "/api/v1/namespaces/a/pods/p"),
        (("apps/v1", "Deployment", "a"), "/apis/apps/v1/namespaces/a/deployments"),
        (("apps/v1", "Deployment", None), "/apis/apps/v1/deployments"),
        (("v1", "Secret", "a", "x/../y"), "/api/v1/namespaces/a/secrets/x%2F..%2Fy"),
    ],
)
def test_paths(args: tuple[Any, ...], path: str) -> None:
    assert path_of(*args) == path


def test_unknown_kind() -> None:
    with pytest.raises(KubernetesError, match="Node"):
        path_of("v1", "Node", None, "n")


async def test_what_server_side_apply_cannot_type_is_invalid(server: Server, api: KubernetesApi) -> None:
    """The API server answers 500 to it, for ever: neither is it tried again, nor taken for an outage."""
    told = "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.x: field not declared in schema"
    server.will(failure(500, "", told))
    with pytest.raises(KubernetesError) as caught:
        await api.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "b", "namespace": "a"}})
    assert (caught.value.status, caught.value.reason, caught.value.detail) == (422, "Invalid", told)
    assert len(server.asked) == 1


async def test_a_field_that_nobody_knows_is_not_dropped(server: Server, api: KubernetesApi) -> None:
    server.will({"kind": "Pod"})
    assert await api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}}) is True
    assert "fieldValidation=Strict" in server.asked[0][1]


async def test_a_created_object_is_not_asked_for_whole(server: Server, api: KubernetesApi) -> None:
    server.will({"kind": "PartialObjectMetadata"})
    await api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}})
    await api.emit(POD, Event("Normal", "RunStarted", "run 1"))
    assert [each.split(",")[0] for each in server.accepted] == [
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    ] * 2


async def test_get(server: Server, api: KubernetesApi) -> None:
    server.will({"kind": "Pod"}, failure(404, "NotFound"))
    assert await api.get(POD) == {"kind": "Pod"}
    assert await api.get(POD) is None


async def test_list_follows_pages_and_names_kinds(server: Server, api: KubernetesApi) -> None:
    server.will({"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "x"}}, {"items": [{"metadata": {}}]})
    found = await api.list("apps/v1", "Deployment", "team-a", {"k": "v"})
    assert [(each["apiVersion"], each["kind"]) for each in found] == [("apps/v1", "Deployment")] * 2
    paths = [asked[1] for asked in server.asked]
    assert paths[0].endswith("/deployments?limit=500&labelSelector=k%3Dv")
    assert paths[1].endswith("&continue=x")


async def test_apply_is_server_side_and_forced(server: Server, api: KubernetesApi) -> None:
    server.will({})
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "a"}, "spec": {"x": (1,)}}
    await api.apply(manifest, dry_run=True)
    method, path, content_type, body = server.asked[0]
    assert (method, content_type) == ("PATCH", "application/apply-patch+yaml")
    assert path == "/api/v1/namespaces/a/services/s?fieldManager=lakeloop&force=true&dryRun=All"
    assert body == manifest | {"spec": {"x": [1]}}


async def test_create_that_is_there_already(server: Server, api: KubernetesApi) -> None:
    server.will(failure(409, "AlreadyExists"))
    assert await api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}}) is False


@pytest.mark.parametrize(
    ("answer", "raises"),
    [
        pytest.param((200, {}), False, id="deleted"),
        pytest.param(failure(404, "NotFound"), False, id="gone"),
        pytest.param(failure(409, "Conflict"), False, id="another-object-of-that-name"),
        pytest.param(failure(403, "Forbidden"), True, id="forbidden"),
    ],
)
async def test_delete(server: Server, api: KubernetesApi, answer: Any, raises: bool) -> None:
    server.will(answer)
    if raises:
        with pytest.raises(KubernetesError):
            await api.delete(POD)
    else:
        await api.delete(POD, grace_seconds=0)
        body = server.asked[0][3]
        assert body["preconditions"] == {"uid": "uid-1"}
        assert (body["propagationPolicy"], body["gracePeriodSeconds"]) == ("Background", 0)


async def test_status_is_replaced_whole(server: Server, api: KubernetesApi) -> None:
    server.will({})
    await api.replace_status(POD, {"a": 1}, resource_version="7")
    method, path, _, body = server.asked[0]
    assert (method, path) == ("PUT", "/api/v1/namespaces/team-a/pods/p/status?fieldManager=lakeloop")
    metadata = {"name": "p", "namespace": "team-a", "uid": "uid-1", "resourceVersion": "7"}
    assert body == {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"a": 1}}


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        pytest.param([failure(503, "ServiceUnavailable"), {"ok": 1}], 2, id="unavailable"),
        pytest.param([(429, {}, {"Retry-After": "0"}), (500, {}), {"ok": 1}], 3, id="throttled-then-broken"),
    ],
)
async def test_tries_again(server: Server, api: KubernetesApi, answers: list[Any], asked: int) -> None:
    server.will(*answers)
    assert await api.get(POD) == {"ok": 1}
    assert len(server.asked) == asked


@pytest.mark.parametrize("call", ["create", "apply"])
async def test_a_conflict_that_no_read_would_change_is_tried_again(
    server: Server, api: KubernetesApi, call: str
) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}}
    server.will(failure(409, "Conflict"), pod)
    assert await getattr(api, call)(pod) in (True, pod)
    assert len(server.asked) == 2


async def test_a_conflict_with_what_was_read_is_told(server: Server, api: KubernetesApi) -> None:
    server.will(failure(409, "Conflict"))
    with pytest.raises(KubernetesError) as found:
        await api.set_finalizers(POD, ["x"], resource_version="7")
    assert (found.value.status, len(server.asked)) == (409, 1)


async def test_retry_after_is_honoured(server: Server, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(kubernetes.asyncio, "sleep", sleep)
    server.will((429, {}, {"Retry-After": "3"}), (429, {}, {"Retry-After": "3600"}), {})
    await api.get(POD)
    assert 3 <= waits[0] <= 3.75
    assert waits[1] <= 6.25, "never as long as that"


@pytest.mark.parametrize(
    ("answer", "status", "reason", "asked"),
    [
        pytest.param(failure(422, "Invalid", "spec.x: wrong"), 422, "Invalid", 1, id="invalid"),
        pytest.param((403, "<html>"), 403, "Forbidden", 1, id="somebody-in-between"),
        pytest.param(failure(500, "InternalError"), 500, "InternalError", 4, id="gives-up"),
    ],
)
async def test_errors(server: Server, api: KubernetesApi, answer: Any, status: int, reason: str, asked: int) -> None:
    server.will(answer)
    with pytest.raises(KubernetesError) as caught:
        await api.get(POD)
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert len(server.asked) == asked


async def test_no_answer_is_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "FIRST_WAIT_SECONDS", 0.001)
    configuration = client.Configuration()
    configuration.host = "http://127.0.0.1:1"
    async with KubernetesApi(configuration) as api:
        with pytest.raises(KubernetesError) as caught:
            await api.get(POD)
        assert (caught.value.status, caught.value.reason) == (0, "Unreachable")
        assert not await api.ready()


async def test_event_is_said_once_and_never_fails(server: Server, api: KubernetesApi) -> None:
    server.will(failure(403, "Forbidden"))
    for _ in range(3):
        await api.emit(POD, Event("Warning", "ModelNotFound", "no model"))
    await api.emit(POD, Event("Warning", "ModelNotFound", "x" * 5000))
    assert len(server.asked) == 2
    first, second = server.asked[0][3], server.asked[1][3]
    assert first["regarding"]["uid"] == "uid-1"
    assert (first["type"], first["reason"], first["note"]) == ("Warning", "ModelNotFound", "no model")
    assert len(second["note"]) == 1024


async def test_its_own_writes_are_known_again_until_somebody_else_changes_the_object(
    server: Server, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "WRITES_REMEMBERED", 2)
    job = ObjectRef("lakeloop.io/v1alpha1", "TrainingJob", "team-a", "churn", "uid-1")
    versions = [{"uid": "uid-1", "resourceVersion": str(number)} for number in range(8, 12)]
    server.will(*({"metadata": each} for each in versions[:3]))
    await api.set_finalizers(job, ["x"], resource_version="7")
    assert api.wrote(versions[0])
    await api.replace_status(job, {"a": 1}, resource_version="8")
    await api.replace_status(job, {"a": 2}, resource_version="9")
    assert [api.wrote(each) for each in versions] == [False, True, True, False], "the oldest is forgotten"
    assert not api.wrote({"uid": "uid-2", "resourceVersion": "10"}), "of another object"
    assert not api.wrote({})
    server.will(failure(409, "Conflict"))
    with pytest.raises(KubernetesError):
        await api.replace_status(job, {"a": 3}, resource_version="10")
    assert not api.wrote(versions[3])
