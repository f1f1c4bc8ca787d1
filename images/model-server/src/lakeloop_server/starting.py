"""What answers while the model is on its way: alive, but not ready. Imports next to nothing, to be there at once."""

from __future__ import annotations

import json
import socket
from typing import Any

from lakeloop_server.drain import Drain

_HAND_OVER_SECONDS = 1.0
_QUIET_SECONDS = 0.1
_ALIVE = {"/live": b"\n", "/v2/health/live": b'{"live": true}'}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """`/live` is 200, all else 503; no connection is kept, so that none is lost when the real server takes over."""
    if scope["type"] != "http":
        return
    body = _ALIVE.get(scope["path"])
    status = 200 if body is not None else 503
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if body is None:
        message = "The model is being loaded"
        content = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": message}
        body = json.dumps({"error": message, **content} if scope["path"].startswith("/v2") else content).encode()
        headers.append((b"retry-after", b"1"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(sock: socket.socket, parent: socket.socket, model: str) -> None:
    """Runs until the supervisor stops it, and answers what it has accepted by then."""
    from lakeloop_server import serving

    serving.run(
        application, model, sock, Drain(_HAND_OVER_SECONDS, quiet_seconds=_QUIET_SECONDS), parent, hand_over=True
    )
