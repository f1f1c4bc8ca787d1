"""A real MLflow server, from the lock of its image, with its database in a file."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcluster.apiserver import free_port

ROOT = Path(__file__).parents[1]


class MlflowProcess:
    """One server on loopback. As a context manager it is gone at the end. `hosts`: the only names that it answers to."""

    def __init__(self, folder: Path, hosts: str | None = None) -> None:
        self._hosts = hosts
        port = free_port()
        uv = os.environ.get("UV") or shutil.which("uv")
        assert uv, "uv is needed to start MLflow"
        command = [uv, "run", "--quiet", "--frozen", "--project", str(ROOT / "images/mlflow"), "mlflow", "server"]
        self._command = [
            *command,
            f"--backend-store-uri=sqlite:///{folder}/mlflow.db",
            f"--port={port}",
            "--host=127.0.0.1",
            "--workers=1",
            "--default-artifact-root=s3://mlflow/",
            "--no-serve-artifacts",
        ]
        self._log = folder / "log"
        self.uri = f"http://127.0.0.1:{port}"

    def __enter__(self) -> "MlflowProcess":
        environment = {
            **os.environ,
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "v3Ffy5PU_TNxWIVCuDJVnHSlpT4iRw3GBHyOLxLmcbQ=",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **({"MLFLOW_SERVER_ALLOWED_HOSTS": self._hosts} if self._hosts else {}),
        }
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                self._command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 300
        while not self._answers():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)  # a poll
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return True
        except OSError:
            return False

    def get(self, path: str, **values: str) -> Any:
        """GET below `/api/2.0/mlflow/`."""
        return self._call(f"{path}?{urllib.parse.urlencode(values)}", None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST of JSON."""
        return self._call(path, json.dumps(body).encode())

    def _call(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
