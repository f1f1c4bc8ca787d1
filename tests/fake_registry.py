"""A small MLflow registry over HTTP, as much of the REST API as the operator speaks, in memory."""

import itertools
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from served_app import ServedApp


class FakeRegistry(ServedApp):
    """Serves on a port of loopback, in a thread of its own. `down` makes it answer 503 to everything."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[tuple[str, int], dict[str, Any]] = {}
        self.aliases: dict[tuple[str, str], int] = {}
        self.webhooks: dict[str, dict[str, Any]] = {}
        self.down = False
        self._ids = itertools.count(1)

    def register(self, name: str, version: int, tags: Mapping[str, str] | None = None) -> None:
        """A version that is ready to be served."""
        self.versions[name, version] = {
            "name": name,
            "version": str(version),
            "source": f"models:/m-{name}-{version}",
            "run_id": f"run-{version}",
            "status": "READY",
            "creation_timestamp": 1_700_000_000_000 + version,
            "tags": dict(tags or {}),
        }

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Points the alias to the version."""
        self.aliases[name, alias] = version

    def tags(self, name: str, version: int) -> dict[str, str]:
        """The version's tags."""
        return dict(self.versions[name, version]["tags"])

    async def application(self) -> web.Application:
        app = web.Application(middlewares=[self._maybe_down])
        prefix = "/api/2.0/mlflow"
        app.router.add_get(f"{prefix}/registered-models/alias", self._by_alias)
        app.router.add_get(f"{prefix}/model-versions/get", self._get)
        app.router.add_get(f"{prefix}/model-versions/get-download-uri", self._download_uri)
        app.router.add_get(f"{prefix}/model-versions/search", self._search)
        app.router.add_post(f"{prefix}/model-versions/set-tag", self._set_tag)
        app.router.add_delete(f"{prefix}/model-versions/delete-tag", self._delete_tag)
        app.router.add_get(f"{prefix}/webhooks", self._list_webhooks)
        app.router.add_post(f"{prefix}/webhooks", self._create_webhook)
        app.router.add_delete(f"{prefix}/webhooks/{{id}}", self._delete_webhook)
        return app

    @web.middleware
    async def _maybe_down(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.down:
            return web.json_response({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "down"}, status=503)
        answer: web.StreamResponse = await handler(request)
        return answer

    def _wire(self, key: tuple[str, int]) -> dict[str, Any]:
        version = self.versions[key]
        pairs = [{"key": name, "value": value} for name, value in version["tags"].items()]
        return {**version, "tags": pairs}

    async def _by_alias(self, request: web.Request) -> web.Response:
        name, alias = request.query["name"], request.query["alias"]
        if (version := self.aliases.get((name, alias))) is None:
            # As the real one answers.
            message = f"Registered model alias {alias} not found."
            return web.json_response({"error_code": "INVALID_PARAMETER_VALUE", "message": message}, status=400)
        return web.json_response({"model_version": self._wire((name, version))})

    def _missing(self) -> web.Response:
        return web.json_response({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such version"}, status=404)

    async def _get(self, request: web.Request) -> web.Response:
        key = (request.query["name"], int(request.query["version"]))
        return web.json_response({"model_version": self._wire(key)}) if key in self.versions else self._missing()

    async def _download_uri(self, request: web.Request) -> web.Response:
        name, version = request.query["name"], request.query["version"]
        return web.json_response({"artifact_uri": f"s3://mlflow/1/models/m-{name}-{version}/artifacts"})

    async def _search(self, request: web.Request) -> web.Response:
        found = [self._wire(key) for key in sorted(self.versions) if f"name = '{key[0]}'" in request.query["filter"]]
        return web.json_response({"model_versions": found})

    async def _set_tag(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.versions[body["name"], int(body["version"])]["tags"][body["key"]] = body["value"]
        return web.json_response({})

    async def _delete_tag(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.versions[body["name"], int(body["version"])]["tags"].pop(body["key"], None)
        return web.json_response({})

    async def _list_webhooks(self, _: web.Request) -> web.Response:
        shown = [{k: v for k, v in each.items() if k != "secret"} for each in self.webhooks.values()]
        return web.json_response({"webhooks": shown})

    async def _create_webhook(self, request: web.Request) -> web.Response:
        webhook = {"webhook_id": str(next(self._ids)), **await request.json()}
        self.webhooks[webhook["webhook_id"]] = webhook
        return web.json_response({"webhook": webhook})

    async def _delete_webhook(self, request: web.Request) -> web.Response:
        self.webhooks.pop(request.match_info["id"], None)
        return web.json_response({})
