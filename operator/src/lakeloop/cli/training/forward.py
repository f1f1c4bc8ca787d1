"""A port of this machine that leads to a pod's, through the API server: what `kubectl port-forward` does."""

import contextlib
import functools
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubernetes import client
from kubernetes.stream import portforward

from lakeloop.cli.cluster import Cluster, refusal
from lakeloop.cli.errors import CliError

_CHUNK = 2**16
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class PodPort:
    """Where a forward leads to."""

    namespace: str
    pod: str
    port: int


class Forward:
    """Listens on 127.0.0.1. Each connection has a stream of its own to the pod; `close` ends all."""

    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        # At once: what is not allowed is told here, and not as a connection that breaks off.
        self._first: list[socket.socket] = [dial()]
        self._open: list[socket.socket] = []
        self._server = socket.create_server((LOOPBACK, 0))
        threading.Thread(target=self._accept, name="forward", daemon=True).start()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self._server.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return  # closed
            try:
                far = self._first.pop() if self._first else self._dial()
            except CliError:
                near.close()  # the caller sees a connection that broke off, and asks again
                continue
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(source, sink), name="forward", daemon=True).start()

    def close(self) -> None:
        """Ends all connections."""
        for each in (self._server, *self._first, *self._open):
            _end(each)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copies until either side ends, then ends both."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    for each in (source, sink):
        _end(each)


def _end(one: socket.socket) -> None:
    # Shut down first: a thread that waits for more is not woken by a close.
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        one.close()


def to_pod(cluster: Cluster, target: PodPort) -> Forward:
    """A forward to a pod's port. Raises CliError where that is not allowed."""
    # A client of its own: while a stream opens, this one cannot be asked anything else.
    core = client.CoreV1Api(client.ApiClient(cluster.api.configuration))
    return Forward(functools.partial(_dialled, core, target, threading.Lock()))


def _dialled(core: Any, target: PodPort, lock: threading.Lock) -> socket.socket:
    where = f"pod {target.pod} in namespace {target.namespace}"
    try:
        with lock:
            opened = portforward(
                core.connect_get_namespaced_pod_portforward, target.pod, target.namespace, ports=str(target.port)
            )
    except client.ApiException as error:
        said = refusal(error).partition(" -+-+- ")[0]
        if "403" in said or "Forbidden" in said:
            raise CliError(
                f"you may not forward a port of {where}: that needs get and create on pods/portforward there;"
                " or give addresses that you reach yourself, --tracking-uri and --storage-endpoint"
            ) from error
        raise CliError(f"no port-forward to {where}: {said}") from error
    found: socket.socket = opened.socket(target.port)
    return found
