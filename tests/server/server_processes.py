"""Starts real servers: ours, and MLflow's own."""

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

BIN = Path(sys.executable).parent
_START_SECONDS = 150.0  # a machine that does other things beside
# A connection for each request, as by `httpx.get`, which reads all certificates of the system each time: 30 ms
HTTP = httpx.Client(
    verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
)


def poll(condition: Callable[[], Any], seconds: float = 150.0, what: str = "the condition") -> Any:
    """The first true value of `condition`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


@dataclass
class Process:
    """A running server."""

    popen: subprocess.Popen[bytes]
    folder: Path
    port: int = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self.folder / "log").read_text()

    @property
    def termination(self) -> dict[str, str]:
        """The termination message."""
        content: dict[str, str] = json.loads((self.folder / "termination").read_text())
        return content

    def ready(self) -> bool:
        """Whether it answers requests; fails when it is gone."""
        assert self.popen.poll() is None, self.log
        with contextlib.suppress(httpx.TransportError):
            return HTTP.get(f"{self.url}/ping").status_code == 200
        return False

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(150)


def launch(uri: str, folder: Path, **environment: str) -> Process:
    """Our server as a pod runs it, not waited for. `environment` adds to the contract's variables."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cwd").mkdir(exist_ok=True)
    (folder / "cwd").chmod(0o555)
    (folder / "tmp").mkdir(exist_ok=True)
    variables = {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "TMPDIR": str(folder / "tmp"),
        "LAKELOOP_MODEL_NAME": "churn",
        "LAKELOOP_MODEL_VERSION": "5",
        "LAKELOOP_MODEL_URI": uri,
        "LAKELOOP_MODEL_DIR": str(folder / "model"),
        "LAKELOOP_HOST": "127.0.0.1",
        "LAKELOOP_PORT": "0",
        "LAKELOOP_TERMINATION_LOG": str(folder / "termination"),
        "LAKELOOP_DRAIN_SECONDS": "10",
    }
    with (folder / "log").open("wb") as log:
        popen = subprocess.Popen(
            [BIN / "lakeloop-server"], env=variables | environment, cwd=folder / "cwd", stdout=log, stderr=log
        )
    return Process(popen, folder)


def await_port(process: Process) -> None:
    """Waits until the process listens."""

    def port() -> int:
        assert process.popen.poll() is None, process.log
        found = re.search(r"listening on port (\d+)", process.log)
        return int(found[1]) if found else 0

    process.port = poll(port, what="the port")


@contextlib.contextmanager
def serving(uri: str, folder: Path, **environment: str) -> Iterator[Process]:
    """Our server, ready."""
    process = launch(uri, folder, **environment)
    try:
        await_port(process)
        poll(process.ready, _START_SECONDS, "the server to be ready")
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()


@contextlib.contextmanager
def mlflow_serving(model: Path, folder: Path) -> Iterator[Process]:
    """`mlflow models serve --env-manager local`, ready."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BIN / "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "-p", str(port)]
    with (folder / "log").open("wb") as log:
        popen = subprocess.Popen(
            command,
            env=os.environ | {"PATH": f"{BIN}:/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process = Process(popen, folder, port)
    try:
        poll(process.ready, _START_SECONDS, "mlflow models serve")
        yield process
    finally:
        # Its uvicorn is a child of a shell of its own: the whole session goes
        os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()
