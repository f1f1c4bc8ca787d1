"""`GET /v2/models/<name>` of a model server: the Open Inference Protocol's metadata, with our parameters in it."""

import logging
import re
from typing import Any
from urllib.parse import quote

import aiohttp

from lakeloop.adapters.servers_protocol import ServerReport

logger = logging.getLogger(__name__)

PORT = 8080
SECONDS = 2.0
MAX_BODY_BYTES = 1024 * 1024
MAX_WARNINGS = 20
MAX_WARNING = 500
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
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=SECONDS)
            # Pods are few and asked once; a kept connection would only go stale.
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True))
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._port}/v2/models/{quote(model, safe='')}"
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200 or (response.content_length or 0) > MAX_BODY_BYTES:
                    return None
                return _report(await response.json(content_type=None))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            logger.debug("server %s did not tell of its model: %s", address, error)
            return None


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
