"""How uvicorn is run: on a socket that the parent opened, stopped by the drain and not by uvicorn's own signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from lakeloop_server.drain import Drain
from lakeloop_server.protocol import Protocol

# Longer than gateways keep idle connections (nginx 60 s, Envoy's pools are closed by Envoy): the server that closes
# first loses the request that is on its way
_KEEP_ALIVE_SECONDS = 75
# After which the kernel gives up a client that takes nothing of its answer
_UNREAD_MILLISECONDS = 60_000


class Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Does nothing: the worker has its own handlers."""
        yield

    def open_connections(self) -> int:
        """Client connections, busy or idle."""
        return len(self.server_state.connections)

    def stop_accepting(self) -> None:
        """Leaves new connections to the other processes that share the socket."""
        for server in self.servers:
            server.close()


def make_server(app: ASGIApp, model: str) -> Server:
    """A server with the limits that suit a pod behind a gateway. `model` is said in every answer."""
    return Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=Protocol,
            headers=[("x-lakeloop-model", model)],
            ws="none",
            proxy_headers=False,  # nobody asks who called
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            backlog=2048,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """The listening socket that all processes share; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
    sock.bind((host, port))
    sock.listen(2048)
    sock.setblocking(False)
    return sock


def run(
    app: ASGIApp, model: str, sock: socket.socket, drain: Drain, parent: socket.socket, hand_over: bool = False
) -> None:
    """Serves until SIGTERM or SIGINT and the drain that follows; at once when the parent process is gone.

    With `hand_over` other processes accept from then on: only the connections that are open are answered.
    """
    server = make_server(app, model)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        draining: list[asyncio.Task[None]] = []

        async def stop() -> None:
            if hand_over:
                server.stop_accepting()
            await drain.begin(server.open_connections, loop.time)
            server.should_exit = True

        def on_signal() -> None:
            if not draining:
                draining.append(loop.create_task(stop()))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
        # Readable only when the parent is gone: nothing else is ever sent by now
        loop.add_reader(parent.fileno(), os._exit, 1)
        await server.serve(sockets=[sock])

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve())
