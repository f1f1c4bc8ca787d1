"""MLflow's REST API 2.0 over aiohttp.

Endpoints: https://mlflow.org/docs/latest/api_reference/rest-api.html, and for webhooks `mlflow/protos/webhooks.proto`.
The `mlflow` package is not used: importing it takes a quarter of the operator's memory.
"""

import functools
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp

from lakeloop.adapters.tracking_protocol import (
    PARENT_TAG,
    BasicAuth,
    ModelVersion,
    RunEnd,
    TrackedRun,
    TrackingDenied,
    TrackingError,
    TrackingInvalid,
    TrackingNotFound,
    TrackingServer,
    TrackingUnavailable,
    Webhook,
)

_API = "/api/2.0/mlflow"
_MAX_MESSAGE = 500
EXPERIMENTS_REMEMBERED = 4096
EXPERIMENT_TAGS: Mapping[str, str] = {"mlflow.experimentKind": "custom_model_development"}
"""The kind that MLflow's pages know the experiment by."""
_Answer = TypeVar("_Answer")


class MlflowServers:
    """One connection pool to one MLflow. `close` when done."""

    def __init__(self, uri: str, *, timeout_seconds: float = 15) -> None:
        self._uri = uri.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self.experiments: OrderedDict[str, str] = OrderedDict()
        """Name → id of those asked for lately: an experiment keeps both, unless it is renamed or deleted."""

    def connect(self, auth: BasicAuth | None) -> TrackingServer:
        return MlflowServer(self, auth)

    async def close(self) -> None:
        """Closes the pool; a later call opens a new one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, auth: BasicAuth | None, method: str, path: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """One request. GET sends the values as the query, the others as JSON. Raises TrackingError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        content: dict[str, Any] = {"params": values} if method == "GET" else {"json": values}
        if auth is not None:
            content["headers"] = {"Authorization": _basic(auth)}
        try:
            async with self._session.request(method, f"{self._uri}{_API}{path}", **content) as response:
                if response.status >= 400:
                    raise await _error(response)
                answer = await response.json(content_type=None)
        except (TimeoutError, aiohttp.ClientError) as error:
            detail = str(error) or type(error).__name__
            raise TrackingUnavailable(f"MLflow at {self._uri} does not answer: {detail}") from error
        except ValueError as error:
            raise TrackingUnavailable(f"{self._uri}{path} did not answer in JSON: is it an MLflow server?") from error
        return answer if isinstance(answer, dict) else {}


def _basic(auth: BasicAuth) -> str:
    try:
        return aiohttp.encode_basic_auth(auth.username, auth.password, "utf-8")
    except ValueError as error:
        raise TrackingDenied(f"MLflow cannot be asked as this user: {error}") from error


def _understood(read: Callable[[Mapping[str, Any]], _Answer]) -> Callable[[Mapping[str, Any]], _Answer]:
    """What is not in MLflow's form was not answered by MLflow."""

    @functools.wraps(read)
    def reading(answer: Mapping[str, Any]) -> _Answer:
        try:
            return read(answer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TrackingUnavailable(f"what answers is no MLflow server: {type(error).__name__} {error}") from error

    return reading


async def _error(response: aiohttp.ClientResponse) -> TrackingError:
    try:
        body = await response.json(content_type=None)
    except ValueError:
        body = None
    code, message = "", f"HTTP {response.status}"
    if isinstance(body, dict):
        code, message = str(body.get("error_code", "")), str(body.get("message", message))[:_MAX_MESSAGE]
    if response.status in (401, 403):
        return TrackingDenied(f"MLflow refuses the user: {message}", code)
    if code == "RESOURCE_DOES_NOT_EXIST" or (response.status == 404 and not code):
        return TrackingNotFound(message, code)
    # MLflow's registry answers an alias that is not there with 400 INVALID_PARAMETER_VALUE.
    if code == "INVALID_PARAMETER_VALUE" and "alias" in message.lower() and "not found" in message.lower():
        return TrackingNotFound(message, code)
    if response.status == 429 or response.status >= 500:
        return TrackingUnavailable(f"MLflow answered HTTP {response.status}: {message}", code)
    return TrackingInvalid(message, code)


class MlflowServer:
    """Implements TrackingServer."""

    def __init__(self, servers: MlflowServers, auth: BasicAuth | None) -> None:
        self._servers = servers
        self._auth = auth

    async def _get(self, path: str, **values: Any) -> dict[str, Any]:
        return await self._servers.call(self._auth, "GET", path, values)

    async def _post(self, path: str, **values: Any) -> dict[str, Any]:
        return await self._servers.call(self._auth, "POST", path, values)

    async def _delete(self, path: str, **values: Any) -> None:
        try:
            await self._servers.call(self._auth, "DELETE", path, values)
        except TrackingNotFound:
            return

    async def get_experiment(self, name: str) -> str | None:
        try:
            found = _experiment(await self._get("/experiments/get-by-name", experiment_name=name))
        except TrackingNotFound:
            return None
        if found.get("lifecycle_stage") == "deleted":
            raise TrackingInvalid(f"experiment {name!r} is deleted: restore it in MLflow, or write another name")
        return str(found["experiment_id"])

    async def ensure_experiment(self, name: str) -> str:
        known = self._servers.experiments
        if name not in known:
            known[name] = await self._ensured(name)
            if len(known) > EXPERIMENTS_REMEMBERED:
                known.popitem(last=False)
        return known[name]

    async def _ensured(self, name: str) -> str:
        found = await self.get_experiment(name)
        if found is not None:
            return found
        try:
            return _experiment_id(await self._post("/experiments/create", name=name, tags=_pairs(EXPERIMENT_TAGS)))
        except TrackingInvalid as error:
            made_meanwhile = await self.get_experiment(name) if error.code == "RESOURCE_ALREADY_EXISTS" else None
            if made_meanwhile is None:
                raise
            return made_meanwhile

    async def find_run(self, experiment_id: str, tag: str, value: str) -> TrackedRun | None:
        answer = await self._post(
            "/runs/search",
            experiment_ids=[experiment_id],
            filter=_tag_filter(tag, value),
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        runs = answer.get("runs") or []
        return _run(runs[0]) if runs else None

    async def get_run(self, run_id: str) -> TrackedRun | None:
        try:
            return _run_in(await self._get("/runs/get", run_id=run_id))
        except TrackingNotFound:
            return None

    async def create_run(self, experiment_id: str, name: str, started_ms: int, tags: Mapping[str, str]) -> TrackedRun:
        try:
            answer = await self._post(
                "/runs/create", experiment_id=experiment_id, run_name=name, start_time=started_ms, tags=_pairs(tags)
            )
        except (TrackingInvalid, TrackingNotFound):
            # It may be deleted by now: the next one to ask for it hears that.
            known = self._servers.experiments
            for each in [each for each, found in known.items() if found == experiment_id]:
                del known[each]
            raise
        return _run_in(answer)

    async def set_run_tag(self, run_id: str, key: str, value: str) -> None:
        await self._post("/runs/set-tag", run_id=run_id, key=key, value=value)

    async def end_run(self, run_id: str, status: RunEnd, ended_ms: int) -> None:
        await self._post("/runs/update", run_id=run_id, status=status, end_time=ended_ms)

    async def open_children(self, experiment_id: str, run_id: str) -> Sequence[str]:
        answer = await self._post(
            "/runs/search",
            experiment_ids=[experiment_id],
            filter=f"{_tag_filter(PARENT_TAG, run_id)} AND attributes.status = 'RUNNING'",
            max_results=1000,
        )
        return [_run(each).run_id for each in answer.get("runs") or []]

    async def ensure_registered_model(self, name: str) -> None:
        try:
            await self._get("/registered-models/get", name=name)
        except TrackingNotFound:
            try:
                await self._post("/registered-models/create", name=name)
            except TrackingInvalid as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise

    async def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str,
        model_id: str | None,
        description: str,
        tags: Mapping[str, str],
    ) -> ModelVersion:
        values: dict[str, Any] = {"name": name, "source": source, "run_id": run_id, "description": description}
        if model_id:
            values["model_id"] = model_id
        answer = await self._post("/model-versions/create", **values, tags=_pairs(tags))
        return _version_in(answer)

    async def search_model_versions(
        self, name: str, tag: str | None = None, value: str = "", *, limit: int = 100
    ) -> Sequence[ModelVersion]:
        condition = f"name = {_quoted(name)}" + (f" AND {_tag_filter(tag, value)}" if tag else "")
        found: list[ModelVersion] = []
        async for page in self._pages("/model-versions/search", filter=condition, order_by="version_number DESC"):
            found += [_version(each) for each in page.get("model_versions") or []]
            if len(found) >= limit:
                break
        return sorted(found, key=lambda each: -each.version)[:limit]

    async def _pages(self, path: str, **values: Any) -> AsyncIterator[dict[str, Any]]:
        token = ""
        while True:
            page = await self._get(path, max_results=100, **values, **({"page_token": token} if token else {}))
            yield page
            token = page.get("next_page_token") or ""
            if not token:
                return

    async def get_model_version(self, name: str, version: int) -> ModelVersion | None:
        try:
            return _version_in(await self._get("/model-versions/get", name=name, version=str(version)))
        except TrackingNotFound:
            return None

    async def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        try:
            return _version_in(await self._get("/registered-models/alias", name=name, alias=alias))
        except TrackingNotFound:
            return None

    async def get_download_uri(self, name: str, version: int) -> str:
        answer = await self._get("/model-versions/get-download-uri", name=name, version=str(version))
        return _artifact_uri(answer)

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        await self._post("/registered-models/alias", name=name, alias=alias, version=str(version))

    async def delete_alias(self, name: str, alias: str) -> None:
        await self._delete("/registered-models/alias", name=name, alias=alias)

    async def set_model_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        await self._post("/model-versions/set-tag", name=name, version=str(version), key=key, value=value)

    async def delete_model_version_tag(self, name: str, version: int, key: str) -> None:
        await self._delete("/model-versions/delete-tag", name=name, version=str(version), key=key)

    async def create_webhook(self, name: str, url: str, events: Sequence[str], secret: str) -> Webhook:
        answer = await self._post(
            "/webhooks", name=name, url=url, events=[_event(each) for each in events], secret=secret, status="ACTIVE"
        )
        return _webhook_in(answer)

    async def list_webhooks(self) -> Sequence[Webhook]:
        return [_webhook(each) async for page in self._pages("/webhooks") for each in page.get("webhooks") or []]

    async def delete_webhook(self, webhook_id: str) -> None:
        await self._delete(f"/webhooks/{webhook_id}")


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _mapping(pairs: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {each["key"]: each.get("value", "") for each in pairs or ()}


def _quoted(value: str) -> str:
    # MLflow's filter language has no escape; a quote of the other kind is how it takes one.
    return f'"{value}"' if "'" in value else f"'{value}'"


def _tag_filter(tag: str, value: str) -> str:
    return f"tags.`{tag}` = {_quoted(value)}"


@_understood
def _experiment(answer: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer["experiment"]
    return {**found, "experiment_id": str(found["experiment_id"])}


@_understood
def _experiment_id(answer: Mapping[str, Any]) -> str:
    return str(answer["experiment_id"])


@_understood
def _artifact_uri(answer: Mapping[str, Any]) -> str:
    return str(answer["artifact_uri"])


@_understood
def _run_in(answer: Mapping[str, Any]) -> TrackedRun:
    return _run(answer["run"])


@_understood
def _version_in(answer: Mapping[str, Any]) -> ModelVersion:
    return _version(answer["model_version"])


@_understood
def _webhook_in(answer: Mapping[str, Any]) -> Webhook:
    return _webhook(answer["webhook"])


@_understood
def _run(run: Mapping[str, Any]) -> TrackedRun:
    info, data = run["info"], run.get("data") or {}
    return TrackedRun(
        run_id=info["run_id"],
        experiment_id=str(info["experiment_id"]),
        status=info.get("status", ""),
        artifact_uri=info.get("artifact_uri", ""),
        tags=_mapping(data.get("tags")),
        metrics={key: float(value) for key, value in _mapping(data.get("metrics")).items()},
    )


@_understood
def _version(version: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(
        name=version["name"],
        version=int(version["version"]),
        source=version.get("source", ""),
        run_id=version.get("run_id") or None,
        status=version.get("status", "READY"),
        tags=_mapping(version.get("tags")),
        aliases=tuple(version.get("aliases") or ()),
        created_ms=int(version.get("creation_timestamp") or 0),
        model_id=version.get("model_id") or None,
        description=version.get("description", ""),
    )


def _event(name: str) -> dict[str, str]:
    entity, action = name.split(".")
    return {"entity": entity.upper(), "action": action.upper()}


@_understood
def _webhook(webhook: Mapping[str, Any]) -> Webhook:
    return Webhook(
        id=webhook["webhook_id"],
        name=webhook.get("name", ""),
        url=webhook.get("url", ""),
        events=tuple(f"{each['entity']}.{each['action']}".lower() for each in webhook.get("events") or ()),
        active=webhook.get("status", "ACTIVE") == "ACTIVE",
    )
