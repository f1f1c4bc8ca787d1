"""What a model server tells: `GET /v2/models/<name>`, the Open Inference Protocol's metadata with our parameters in it,
and `GET /metrics`, Prometheus' text format."""

import json
import logging
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from lakeloop.adapters.servers_protocol import ServerReport
from lakeloop.domain.deployment.analysis import Counters

logger = logging.getLogger(__name__)

PORT = 8080
SECONDS = 2.0
MAX_BODY_BYTES = 1024 * 1024
MAX_WARNINGS = 20
MAX_WARNING = 500
REQUESTS = "lakeloop_server_requests_total"
SECONDS_BUCKET = "lakeloop_server_request_duration_seconds_bucket"
PREDICTIONS = re.compile(r"/invocations|/v2/models/infer")
"""Routes whose requests are of callers, and not of probes."""
DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


class HttpModelServers:
    """A server runs other people's models: what it says is bounded, and checked."""

    def __init__(self, *, port: int = PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def report(self, address: str, model: str) -> ServerReport | None:
        content = await self._get(address, f"/v2/models/{quote(model, safe='')}")
        try:
            return _report(json.loads(content)) if content is not None else None
        except (ValueError, RecursionError) as error:
            logger.debug("server %s does not tell of its model: %s", address, error)
            return None

    async def counters(self, address: str) -> Counters | None:
        content = await self._get(address, "/metrics")
        try:
            return _counters(content.decode()) if content is not None else None
        except ValueError as error:
            logger.debug("server %s does not tell what it has counted: %s", address, error)
            return None

    async def _get(self, address: str, path: str) -> bytes | None:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=SECONDS)
            # Pods are few and asked once; a kept connection would only go stale.
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True))
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._session.get(f"http://{host}:{self._port}{path}", allow_redirects=False) as response:
                if response.status != 200:
                    return None
                content = await response.content.read(MAX_BODY_BYTES + 1)
                while (
                    content and len(content) <= MAX_BODY_BYTES and (more := await response.content.read(MAX_BODY_BYTES))
                ):
                    content += more
                return content if len(content) <= MAX_BODY_BYTES else None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            logger.debug("server %s does not answer %s: %s", address, path, error)
            return None


def _counters(text: str) -> Counters:
    """Raises ValueError for what is not in the text format."""
    requests = errors = 0.0
    seconds: dict[float, float] = {}
    for sample in _of_predictions(text):
        if sample.name == REQUESTS:
            requests += sample.value
            errors += sample.value if sample.labels.get("code", "").startswith("5") else 0.0
        elif sample.name == SECONDS_BUCKET:
            bound = float(sample.labels["le"])
            seconds[bound] = seconds.get(bound, 0.0) + sample.value
    return Counters(requests, errors, seconds)


def _of_predictions(text: str) -> Iterable[Any]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if PREDICTIONS.fullmatch(sample.labels.get("route", "")) and not math.isnan(sample.value):
                yield sample


def _report(body: Any) -> ServerReport | None:
    parameters = body.get("parameters") if isinstance(body, dict) else None
    if not isinstance(parameters, dict):
        return None
    digest, warnings = parameters.get("digest"), parameters.get("warnings")
    return ServerReport(
        digest=digest if isinstance(digest, str) and DIGEST.match(digest) else None,
        warnings=tuple(str(each)[:MAX_WARNING] for each in warnings[:MAX_WARNINGS])
        if isinstance(warnings, list)
        else (),
        signature=parameters.get("signature"),
    )
