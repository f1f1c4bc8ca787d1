"""uvicorn's HTTP protocol with limits where it has none: on a request's head, on idle connections, on their number.

Left to itself, uvicorn keeps a connection that never finishes a head, and every byte that is sent as one, for ever; and
answers what is not HTTP with plain text.

Small requests for predictions may be answered here, at once, without a task and an application: that takes a third of
the time. Whatever is unusual about one goes on to the application, as if nothing had been tried.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lakeloop_server.errors import RequestError, bad_request

# Of bytes in a row that bring a request no further: a head, trailers, the framing of a chunk. Not counted is the read
# in which a head begins: at most 256 KiB.
_HEAD_BYTES = 64 * 1024
_HEAD_SECONDS = 20.0
_LINGER_SECONDS = 2.0
_MOST_CONNECTIONS = 4096
_FILES_FOR_OTHER_USES = 128
# A body that is answered at once; larger ones take longer to read than a task to start
_SHORT_BYTES = 32 * 1024
# For which the body of such a request is waited for here; then the application does, with its own limit
_SHORT_SECONDS = 1.0
_SHORT_PATH = "/invocations"
# Headers that a request which is answered at once does not have
_UNUSUAL = frozenset((b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"))
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


def most_connections() -> int:
    """How many connections a process may have open, so that it can still open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_CONNECTIONS, max(16, files - _FILES_FOR_OTHER_USES))


# An answer to (content type, body, `time.perf_counter()` at its head), or None: ask the application
Short = Callable[[str, bytes, float], bytes | None]


def short_type(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The content type of a request that may be answered at once, by its headers; None for any other."""
    content_type = length = b""
    for name, value in headers:
        if name == b"content-type" and not content_type:
            content_type = value
        elif name == b"content-length" and not length:
            length = value
        elif name in _UNUSUAL or name in (b"content-type", b"content-length"):
            return None
    # Of more digits than this no length is a small one
    if not (length.isdigit() and len(length) <= 5 and int(length) <= _SHORT_BYTES):
        return None
    return content_type.decode("latin-1")


def without_upgrade(data: bytes) -> bytes:
    """The head of a request as if it did not offer another protocol, which a server may ignore.

    httptools takes the offer for accepted, and drops the body: each POST of Java's HttpClient (`Upgrade: h2c`).
    """
    end = data.find(b"\r\n\r\n")
    end = len(data) if end < 0 else end
    if _UPGRADE.search(data, 0, end) is None:
        return data
    return _UPGRADE.sub(b"\r\nx-ignored-upgrade:", data[:end]) + data[end:]


class Protocol(HttpToolsProtocol):
    """One connection."""

    _head_timer: asyncio.TimerHandle | None = None
    _in_body = False
    _deaf = False
    _moved = False
    _unread = 0
    last_used = 0.0
    # A request whose body is on its way and may be answered at once, with its content type and the time of its head
    _held: tuple[RequestResponseCycle, Any, str, float] | None = None
    _held_timer: asyncio.TimerHandle | None = None
    _may_hold = False
    # Whether this read brought a request that was answered at once, and whether a head has begun
    _answered = False
    _in_head = False
    _short: Short | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Closes the connection that was idle for longest when there are too many."""
        super().connection_made(transport)
        self._short = getattr(self.config.app, "short", None)
        self.last_used = self.loop.time()
        if len(self.connections) > most_connections():
            idle = [one for one in self.connections if isinstance(one, Protocol) and one.is_idle()]
            if idle:
                min(idle, key=lambda one: one.last_used).transport.abort()
        # uvicorn starts this timer only after an answer
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Also stops the timers, which uvicorn does not after an error."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_head_timer()
        self._held = None
        self._stop_held_timer()

    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return not answering and not self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and limits what it leaves unfinished."""
        if self._deaf:
            return
        self.last_used = self.loop.time()
        self._moved = False
        # One at a time, so that a long row of requests does not hold up the others' connections
        self._may_hold = True
        self._answered = False
        super().data_received(data if self._in_body else without_upgrade(data))
        # Nor one that waited behind another answer: its time to arrive is the application's matter
        self._may_hold = False
        if self.transport.is_closing():
            return
        if self._held is not None and self._held_timer is None:
            self._held_timer = self.loop.call_later(_SHORT_SECONDS, self._let_go)
        self._unread = 0 if self._moved else self._unread + len(data)
        if self._unread > _HEAD_BYTES:
            self._refuse(
                RequestError(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "REQUEST_TOO_LARGE",
                    f"The headers are larger than the {_HEAD_BYTES} bytes that this server takes",
                )
            )
        elif self._head_timer is None and self.is_idle() and (self._in_head or not self._answered):
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._head_is_late)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._moved = True
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is there."""
        self._moved = True
        self._in_head = False
        self._in_body = True
        self._stop_head_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body is there."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there."""
        self._moved = True
        self._in_body = False
        super().on_message_complete()
        if self._held is not None:
            self._answer_held()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Waits with it if the request may be answered at once."""
        scope = cycle.scope
        if (
            self._may_hold
            and self._short is not None
            and cycle.more_body
            and cycle is self.cycle
            and cycle.keep_alive
            and scope["path"] == _SHORT_PATH
            and scope["method"] == "POST"
            and (content_type := short_type(self.headers)) is not None
        ):
            self._may_hold = False
            self._held = (cycle, app, content_type, time.perf_counter())
            return
        super()._start_asgi_task(cycle, app)

    def _let_go(self) -> None:
        """Hands what was held to the application."""
        self._stop_held_timer()
        if self._held is not None:
            cycle, app, *_ = self._held
            self._held = None
            super()._start_asgi_task(cycle, app)

    def _stop_held_timer(self) -> None:
        if self._held_timer is not None:
            self._held_timer.cancel()
            self._held_timer = None

    def _answer_held(self) -> None:
        assert self._held is not None and self._short is not None  # noqa: S101, PT018 - asked by the caller
        cycle, _, content_type, started = self._held
        usual = cycle.keep_alive and not self.flow.write_paused and not self.transport.is_closing()
        answer = self._short(content_type, bytes(cycle.body), started) if usual else None
        if answer is None:
            self._let_go()
            return
        self._stop_held_timer()
        self._held = None
        head = b"".join([name + b": " + value + b"\r\n" for name, value in cycle.default_headers])
        cycle.body = bytearray()
        cycle.response_started = cycle.response_complete = self._answered = True
        self.transport.write(
            b"%s%scontent-length: %d\r\ncontent-type: application/json\r\n\r\n%s"
            % (STATUS_LINE[HTTPStatus.OK], head, len(answer), answer)
        )
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """As JSON, as every other error."""
        self._refuse(bad_request("This is no HTTP request that can be read"))

    def _head_is_late(self) -> None:
        self._refuse(RequestError(HTTPStatus.REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "The headers did not arrive in time"))

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: RequestError) -> None:
        self._deaf = True
        self._held = None
        self._stop_held_timer()
        if self.transport.is_closing():
            return
        if self._answered:
            # What follows a whole request is nonsense, and that one is answered
            self.transport.close()
            return
        if not self.is_idle():
            if not self.cycle.more_body:
                # What follows a whole request is nonsense: that one is still answered
                self.cycle.keep_alive = False
                return
            if self.cycle.response_started or self.pipeline:
                # Nothing may be written into another answer
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps({"error_code": error.error_code, "message": error.message}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        head = STATUS_LINE[error.status] + b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(head + b"\r\n" + body)
        # What the client still sends is taken and thrown away: to close now would reset the connection, and the answer
        # with it
        self.transport.write_eof()
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(_LINGER_SECONDS, self.transport.abort)
