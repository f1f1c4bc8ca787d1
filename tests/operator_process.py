"""The operator as a process of its own, as its image starts it."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubectl import eventually

from localcluster.apiserver import free_port

SECRET = "a-shared-secret"


class OperatorProcess:
    """`python -m lakeloop` against an API server, for one namespace. As a context manager it is gone at the end."""

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        *,
        namespace: str,
        tracking_uri: str,
        name: str = "operator-0",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.name = name
        self.log = folder / f"{name}.log"
        secret = folder / "webhook-secret"
        secret.write_text(SECRET)
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")},
            "KUBECONFIG": str(kubeconfig),
            "LAKELOOP_NAMESPACE": namespace,
            "LAKELOOP_POD_NAME": name,
            "LAKELOOP_WATCH_NAMESPACES": namespace,
            "LAKELOOP_TRACKING_URI": tracking_uri,
            "LAKELOOP_STORAGE_ENDPOINT": "http://minio.lakeloop-platform.svc:9000",
            "LAKELOOP_STORAGE_WAREHOUSE": "s3a://lake/warehouse",
            "LAKELOOP_TRAINER_IMAGE": "localhost/lakeloop/trainer:test",
            "LAKELOOP_SERVER_IMAGE": "localhost/lakeloop/model-server:test",
            "LAKELOOP_WEBHOOK_URL": f"http://127.0.0.1:{self.port}/webhooks/mlflow",
            "LAKELOOP_WEBHOOK_SECRET_FILE": str(secret),
            "LAKELOOP_HTTP_PORT": str(self.port),
            "LAKELOOP_REGISTRY_RESYNC_SECONDS": "1",
            **(env or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "OperatorProcess":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lakeloop"], env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The status."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=body, headers=dict(headers), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def metric(self, sample: str) -> float:
        """The value of a sample such as `lakeloop_leader`; 0 where it is not there."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(sample) and line[len(sample)] == " ":
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def wait_until_leading(self, seconds: float = 30) -> None:
        """Until it holds the lease."""
        eventually(lambda: self.metric("lakeloop_leader") == 1 or self.ended() is not None, seconds=seconds)
        assert self.ended() is None, self.log.read_text()

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self.process is not None
        return self.process.poll()

    def terminate(self, seconds: float = 20) -> int:
        """SIGTERM, as the kubelet sends it. The exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def records(self) -> list[dict[str, Any]]:
        """What it has logged; every line must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def resident_megabytes(self) -> float:
        """Resident memory, in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")
