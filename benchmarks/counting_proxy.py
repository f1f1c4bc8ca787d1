"""Between the operator and the object store, on loopback: passes every byte on, and notes each request's first line."""

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (/\S*) HTTP/1\.1\r?$")
_CHUNK = 65536


@dataclass(frozen=True)
class Request:
    """One request, and when it came, on `time.monotonic`'s clock."""

    at: float
    method: str
    target: str

    @property
    def kind(self) -> str:
        """`LIST`, or the method."""
        return "LIST" if self.method == "GET" and "list-type=2" in self.target else self.method


@dataclass
class CountingProxy:
    """Serves on a port of loopback while it is a context manager; `host` and `port` are where it passes on to."""

    host: str
    port: int
    requests: list[Request] = field(default_factory=list)
    _open: set[socket.socket] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="counting proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def between(self, begin: float, end: float) -> list[Request]:
        """Those that came in that time."""
        return [each for each in list(self.requests) if begin <= each.at < end]

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                store = socket.create_connection((self.host, self.port))
                for each in (client, store):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._open.add(each)
                lines = RequestLines(self.requests.append)
                threading.Thread(target=self._pass_on, args=(client, store, lines.look), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(store, client, lambda _: None), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, look: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            while chunk := source.recv(_CHUNK):
                look(chunk)
                target.sendall(chunk)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            self._open.discard(each)


class RequestLines:
    """Finds the requests' first lines in what one client sends, however it is cut."""

    def __init__(self, found: Callable[[Request], None]) -> None:
        self._found = found
        self._rest = b""

    def look(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[-_CHUNK:]
        for line in lines:
            if match := _REQUEST.search(line):
                self._found(Request(time.monotonic(), match[1].decode(), match[2].decode()))
