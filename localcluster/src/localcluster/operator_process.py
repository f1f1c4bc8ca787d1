"""The operator as a process of its own beside an API server, as its image starts it. For tests and benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from localcluster.apiserver import free_port

SECRET = "a-shared-secret"  # noqa: S105 (of a webhook on loopback)


class OperatorProcess:
    """`python -m lakeloop`, of this interpreter, for one namespace. As a context manager it is gone at the end.

    ``env`` is put over the variables that a test has no opinion on.
    """

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
            **(env or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lakeloop"], env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    @property
    def pid(self) -> int:
        """Its process id. Raises RuntimeError before it was started."""
        if self.process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self.process.pid

    def resident_mib(self) -> float:
        """Its resident memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
