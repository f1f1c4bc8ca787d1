"""What the operator serves over HTTP: probes, metrics, and the registry's webhook."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Self

from aiohttp import web

from lakeloop.adapters.clock import Clock
from lakeloop.adapters.metrics import Metrics
from lakeloop.adapters.webhook import MAX_BODY_BYTES, Inbox, Refused, RegistryChange

logger = logging.getLogger(__name__)

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
READY_SECONDS = 5.0
"""How long an answer of `/readyz` may be told again, so that probes don't load the API server."""


class HttpServer:
    """Up from the start, on a standby too.

    `problems` tells why the process should be restarted (`/healthz`); `ready` whether the API server can be reached
    (`/readyz`). `on_change` is called for each new, genuine delivery of the registry; it must be quick. It is None on a
    standby, which answers 503 and closes the connection, so that MLflow's next try finds the leader.
    """

    def __init__(
        self,
        *,
        port: int,
        metrics: Metrics,
        clock: Clock,
        problems: Callable[[], list[str]],
        ready: Callable[[], Awaitable[bool]],
        inbox: Inbox | None,
        host: str | None = None,
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._metrics = metrics
        self._clock = clock
        self._problems = problems
        self._ready = ready
        self._ready_until = 0.0
        self._inbox = inbox
        self.on_change: Callable[[RegistryChange], None] | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_post("/webhooks/mlflow", self._webhook)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._wanted_port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        logger.info("serving probes, metrics and webhooks on port %d", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        # That this answers at all says that the event loop turns.
        problems = self._problems()
        return web.Response(status=503 if problems else 200, text="\n".join(problems) or "ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        if now >= self._ready_until:
            if not await self._ready():
                return web.Response(status=503, text="the Kubernetes API server cannot be reached")
            self._ready_until = now + READY_SECONDS
        return web.Response(text="ok")

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": EXPOSITION})

    async def _webhook(self, request: web.Request) -> web.Response:
        if self._inbox is None:
            return web.Response(status=404, text="webhooks are not set up here")
        try:
            delivery = self._inbox.check(request.headers, await request.read(), self._clock.now())
        except web.HTTPRequestEntityTooLarge:
            self._metrics.webhooks.labels("refused").inc()
            return web.Response(status=413, text="the body is too large")
        except Refused as refused:
            self._metrics.webhooks.labels("refused").inc()
            logger.warning("webhook refused: %s", refused.reason)
            return web.Response(status=refused.status, text=refused.reason)
        if self._inbox.is_repeat(delivery):
            self._metrics.webhooks.labels("repeated").inc()
            return web.Response(status=200, text="known")
        if self.on_change is None:
            self._metrics.webhooks.labels("standby").inc()
            response = web.Response(status=503, headers={"Retry-After": "1"}, text="not the leader")
            response.force_close()
            return response
        if delivery.change is not None:
            self.on_change(delivery.change)
        self._inbox.accept(delivery)
        self._metrics.webhooks.labels("accepted").inc()
        return web.Response(status=202, text="accepted")
