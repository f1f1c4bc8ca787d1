"""Between the operator and the API server: answers of its own, lost answers, cut watches, lists of a while ago."""

import json
import random
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web
from kubernetes import client, config
from served_app import ServedApp

_KEPT = ("Accept", "Content-Type", "User-Agent")
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


class FaultyProxy(ServedApp):
    """Serves on a port of loopback, in a thread of its own, as cluster admin. As a context manager it is gone at the end.

    `share` of what each fault concerns is hit, by a seeded generator. Faults:
    `409`, `429`, `500`: such an answer in place of the request (409: writes alone);
    `lost`: the request is carried out, and the connection cut instead of the answer;
    `watch`: a watch ends after its first event, and misses the next one;
    `stale`: a list is answered as it was some requests ago.
    """

    def __init__(self, kubeconfig: Path, folder: Path, fault: str, share: float, seed: int) -> None:
        super().__init__()
        self._upstream = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=self._upstream)
        self.kubeconfig = folder / "faulty-kubeconfig"
        self.hits = 0
        self._fault, self._share, self._random = fault, share, random.Random(seed)
        self._lists: dict[str, list[bytes]] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        about: Mapping[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "faulty", "cluster": {"server": self.url}}],
            "users": [{"name": "anybody", "user": {"token": "unused"}}],
            "contexts": [{"name": "faulty", "context": {"cluster": "faulty", "user": "anybody"}}],
            "current-context": "faulty",
        }
        self.kubeconfig.write_text(yaml.safe_dump(about))
        return self

    async def application(self) -> web.Application:
        trust = ssl.create_default_context(cafile=self._upstream.ssl_ca_cert)
        trust.load_cert_chain(self._upstream.cert_file, self._upstream.key_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust, limit=0), headers={"Accept-Encoding": "identity"}
        )
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, _: web.Application) -> None:
        await self._session.close()

    def _hit(self) -> bool:
        hit = self._random.random() < self._share
        self.hits += hit
        return hit

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watch = request.query.get("watch") in ("1", "true")
        lease = "/leases" in request.path  # the operator that loses it ends, as it should: that is another test's
        ours = not lease and not watch
        if ours and self._fault.isdigit() and (self._fault != "409" or request.method in _WRITES) and self._hit():
            return self._answer(int(self._fault))
        body = await request.read()
        headers = {key: request.headers[key] for key in _KEPT if key in request.headers}
        url = f"{self._upstream.host}{request.path_qs}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, url, data=body or None, headers=headers, timeout=timeout
        ) as found:
            if watch:
                return await self._watched(request, found)
            content = await found.read()
            if ours and self._fault == "lost" and request.method in _WRITES and self._hit():
                assert request.transport is not None
                request.transport.abort()
            if ours and self._fault == "stale" and request.method == "GET" and found.status == 200:
                content = self._aged(request.path_qs, content)
            answer = web.Response(status=found.status, body=content)
            answer.headers["Content-Type"] = found.headers.get("Content-Type", "application/json")
            return answer

    def _aged(self, what: str, content: bytes) -> bytes:
        """Of a list, one of its earlier answers."""
        if not str(json.loads(content).get("kind", "")).endswith("List"):
            return content
        known = self._lists.setdefault(what, [])
        known.append(content)
        del known[:-4]
        return known[0] if len(known) > 1 and self._hit() else content

    def _answer(self, status: int) -> web.Response:
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "a fault of the test's",
                "reason": _REASONS[status], "code": status}  # fmt: skip
        headers = {"Retry-After": "0"} if status == 429 else {}
        return web.json_response(told, status=status, headers=headers)

    async def _watched(self, request: web.Request, found: aiohttp.ClientResponse) -> web.StreamResponse:
        answer = web.StreamResponse(status=found.status)
        answer.headers["Content-Type"] = found.headers.get("Content-Type", "application/json")
        await answer.prepare(request)
        sent = 0
        async for line in found.content:
            if self._fault == "watch" and sent and self._hit():
                break  # this event is never told, and the watch is over
            await answer.write(line)
            sent += 1
        return answer
