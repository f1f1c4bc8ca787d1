"""The sidecar beside a program, over HTTP: what is in the store in the end is what the program wrote."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "images/trainer/cds"))

BIN = Path(sys.executable).parent
PREFIX = "1/abc/artifacts/logs/"
TAIL = 1 << 20


class Store:
    """An S3 endpoint on a fixed port, which can be stopped and started."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.objects: dict[str, bytes] = {}
        self._server: Any = None

    def start(self) -> None:
        import s3_stub

        self._server, _ = s3_stub.serve(self.objects, self.port)
        self.objects = self._server.RequestHandlerClass.objects
        # or connections that are open would be served on after a stop
        self._server.RequestHandlerClass.protocol_version = "HTTP/1.0"

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def text(self, name: str) -> bytes:
        keys = sorted(key for key in self.objects if key.startswith(f"{PREFIX}{name}.") and key.endswith(".log"))
        return b"".join(self.objects[key] for key in keys)

    def marker(self, name: str) -> Any:
        found = self.objects.get(f"{PREFIX}{name}.json")
        return json.loads(found) if found else None


class Pod:
    """A volume, the main container and the sidecar, as the kubelet runs them."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.sidecar: subprocess.Popen[bytes] | None = None
        self.main: subprocess.Popen[bytes] | None = None
        self._environ = {
            "PATH": os.environ["PATH"],
            "LAKELOOP_LOG_FOLDER": str(folder),
            "LAKELOOP_LOG_TAIL_BYTES": str(TAIL),
        }

    def start_sidecar(self, name: str = "driver-1") -> None:
        environ = {
            **self._environ,
            "LAKELOOP_LOG_NAME": name,
            "LAKELOOP_LOG_URI": f"s3a://mlflow/{PREFIX}".rstrip("/"),
            "AWS_ACCESS_KEY_ID": "a-key",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.store.port}",
        }
        with (self.folder.parent / "sidecar.log").open("ab") as log:
            self.sidecar = subprocess.Popen([BIN / "lakeloop-logs"], env=environ, stdout=log, stderr=log)

    def start_main(self, *command: str, **environ: str) -> None:
        with (self.folder.parent / "main.log").open("wb") as log:
            self.main = subprocess.Popen(
                [BIN / "lakeloop-logged", *command], env={**self._environ, **environ}, stdout=log, stderr=log
            )

    def end_main(self) -> bytes:
        assert self.main is not None
        self.main.wait(120)
        return (self.folder.parent / "main.log").read_bytes()

    def end_sidecar(self) -> int:
        assert self.sidecar is not None
        self.sidecar.send_signal(signal.SIGTERM)
        return self.sidecar.wait(150)

    @property
    def told(self) -> str:
        """What a script waits with until `go`."""
        return f"while [ ! -e {self.folder.parent}/go ]; do sleep 0.05; done"

    def go(self) -> None:
        (self.folder.parent / "go").touch()

    @property
    def said(self) -> str:
        return (self.folder.parent / "sidecar.log").read_text()

    def close(self) -> None:
        for process in (self.main, self.sidecar):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(20)


@pytest.fixture
def store() -> Iterator[Store]:
    found = Store()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def pod(tmp_path: Path, store: Store) -> Iterator[Pod]:
    folder = tmp_path / "logs"
    folder.mkdir()
    found = Pod(folder, store)
    yield found
    found.close()


def until(done: Callable[[], Any], pod: Pod) -> None:
    end = time.monotonic() + 150
    while not done():
        assert time.monotonic() < end, pod.said
        time.sleep(0.05)  # a poll


def test_from_start_to_end(pod: Pod, store: Store) -> None:
    pod.start_sidecar()
    pod.start_main("/bin/sh", "-c", f"echo hello; {pod.told}; echo bye")
    until(lambda: store.text("driver-1") == b"hello\n", pod)  # while it runs
    pod.go()
    assert store.marker("driver-1")["complete"] is False
    assert pod.end_main() == b"hello\nbye\n"
    until(lambda: store.marker("driver-1")["complete"], pod)  # before anyone has told it to end
    assert store.text("driver-1") == b"hello\nbye\n"
    assert pod.end_sidecar() == 0
    assert "a-secret" not in pod.said
    assert b"a-secret" not in b"".join(store.objects.values())


def test_killed_program(pod: Pod, store: Store) -> None:
    pod.start_sidecar()
    pod.start_main("/bin/sh", "-c", "while :; do echo line; done")
    until(lambda: store.text("driver-1"), pod)
    assert pod.main is not None
    child = int(Path(f"/proc/{pod.main.pid}/task/{pod.main.pid}/children").read_text())
    os.kill(child, signal.SIGKILL)
    shown = pod.end_main()
    assert pod.main.returncode == 137
    assert pod.end_sidecar() == 0
    marker, found = store.marker("driver-1"), store.text("driver-1")
    assert marker["complete"] is True
    assert marker["bytes"] == len(shown)
    rest = found if not marker["dropped"] else found.partition(b" is %d]\n" % TAIL)[2]
    assert len(rest) == marker["bytes"] - marker["dropped"]
    assert shown.endswith(rest)
    assert len(rest) >= min(len(shown), TAIL * 3 // 4)


def test_store_down_then_up(pod: Pod, store: Store) -> None:
    pod.start_sidecar()
    pod.start_main("/bin/sh", "-c", "echo one; read line < /dev/zero; echo two")
    until(lambda: store.text("driver-1") == b"one\n", pod)
    store.stop()
    assert pod.main is not None
    pod.main.send_signal(signal.SIGTERM)
    pod.end_main()
    assert pod.sidecar is not None
    pod.sidecar.send_signal(signal.SIGTERM)
    until(lambda: "not uploaded" in pod.said, pod)
    assert pod.sidecar.poll() is None
    store.start()
    assert pod.sidecar.wait(150) == 0
    assert store.marker("driver-1")["complete"] is True


def test_a_killed_sidecar_goes_on(pod: Pod, store: Store) -> None:
    pod.start_sidecar()
    pod.start_main("/bin/sh", "-c", f"echo one; {pod.told}; echo two")
    until(lambda: store.text("driver-1") == b"one\n", pod)
    assert pod.sidecar is not None
    pod.sidecar.kill()
    pod.sidecar.wait(20)
    pod.go()
    pod.end_main()
    pod.start_sidecar()
    until(lambda: store.marker("driver-1")["complete"], pod)
    assert store.text("driver-1") == b"one\ntwo\n"
    assert pod.end_sidecar() == 0


def test_wrong_settings_hold_no_container_back(pod: Pod) -> None:
    """A sidecar that ends at once is started again with growing pauses, and the main container waits for it."""
    environ = {"PATH": os.environ["PATH"], "LAKELOOP_LOG_FOLDER": str(pod.folder)}
    with (pod.folder.parent / "sidecar.log").open("ab") as log:
        pod.sidecar = subprocess.Popen([BIN / "lakeloop-logs"], env=environ, stderr=log)
    until(lambda: "no log is uploaded" in pod.said, pod)
    assert pod.sidecar.poll() is None
    assert pod.end_sidecar() == 0


def test_it_is_small(pod: Pod, store: Store) -> None:
    """The operator gives it 64 MiB to ask for and 128 MiB at most."""
    pod.start_sidecar()
    pod.start_main(sys.executable, "-c", "import time\nfor _ in range(40000): print('x' * 100)\ntime.sleep(600)")
    until(lambda: len(store.text("driver-1")) >= TAIL // 2, pod)
    assert pod.sidecar is not None
    status = Path(f"/proc/{pod.sidecar.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    cpu = sum(int(each) for each in Path(f"/proc/{pod.sidecar.pid}/stat").read_text().split()[13:15]) / 100
    assert pod.main is not None
    tee = Path(f"/proc/{pod.main.pid}/status").read_text()
    rss = int(next(line for line in tee.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(f"sidecar: {peak:.0f} MiB at its peak, {cpu:.2f} s of CPU; the copying process: {rss:.0f} MiB")
    assert peak < 96
    assert rss < 24
