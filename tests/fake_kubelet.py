"""A node's kubelet as the API server asks it: logs and port-forwards of pods that no container runs for.

The protocol of a forward is that of k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go.
"""

import asyncio
import contextlib
import ssl
import struct
from pathlib import Path

from aiohttp import WSMsgType, web
from served_app import ServedApp

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = b"\x00", b"\x01"


class FakeKubelet(ServedApp):
    """Serves on a port of loopback, in a thread of its own."""

    def __init__(self, certificate: Path, key: Path) -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, key)
        super().__init__(tls)
        self.ports: dict[tuple[str, int], int] = {}
        """(pod, port) → the port of loopback that answers in its place."""
        self.logs: dict[tuple[str, str], list[str]] = {}
        """(pod, container) → lines so far."""
        self.running: set[str] = set()
        """Pods whose logs grow."""

    async def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._log)
        app.router.add_get("/portForward/{namespace}/{pod}", self._forward)
        app.router.add_get("/portForward/{namespace}/{pod}/{uid}", self._forward)
        return app

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = request.match_info["pod"]
        lines = self.logs.get((pod, request.match_info["container"]), [])
        tail = request.query.get("tailLines")
        sent = max(0, len(lines) - int(tail)) if tail is not None else 0
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            at_work = pod in self.running
            new = lines[sent:]  # more may come while these are written
            for line in new:
                await answer.write(f"{line}\n".encode())
            sent += len(new)
            if not at_work or request.query.get("follow") != "true":
                return answer
            await asyncio.sleep(0.05)

    async def _forward(self, request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse(protocols=(PROTOCOL,))
        await answer.prepare(request)
        port = int(request.query.get("port") or request.query["ports"])
        for channel in (DATA, ERROR):
            await answer.send_bytes(channel + struct.pack("<H", port))
        there = self.ports.get((request.match_info["pod"], port))
        if there is None:
            await answer.send_bytes(ERROR + b"connection refused")
            await answer.close()
            return answer
        reader, writer = await asyncio.open_connection("127.0.0.1", there)
        back = asyncio.create_task(_back(reader, answer))
        with contextlib.suppress(ConnectionError):
            async for message in answer:
                if message.type == WSMsgType.BINARY and message.data[:1] == DATA:
                    writer.write(message.data[1:])
                    await writer.drain()
        back.cancel()
        writer.close()
        return answer


async def _back(reader: asyncio.StreamReader, answer: web.WebSocketResponse) -> None:
    while data := await reader.read(2**16):
        await answer.send_bytes(DATA + data)
    await answer.close()
