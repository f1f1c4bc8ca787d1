"""The operator as a process of its own, as its image starts it."""

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubectl import eventually

from localcluster import operator_process
from localcluster.operator_process import SECRET

__all__ = ["SECRET", "OperatorProcess"]


class OperatorProcess(operator_process.OperatorProcess):
    """With what tests ask it, and a registry that it looks at every second."""

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
        wanted = {"LAKELOOP_REGISTRY_RESYNC_SECONDS": "1", **(env or {})}
        super().__init__(kubeconfig, folder, namespace=namespace, tracking_uri=tracking_uri, name=name, env=wanted)

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

    def wait_until_leading(self) -> None:
        """Until it holds the lease."""
        eventually(lambda: self.metric("lakeloop_leader") == 1 or self.ended() is not None)
        assert self.ended() is None, self.log.read_text()

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self.process is not None
        return self.process.poll()

    def terminate(self, seconds: float = 150) -> int:
        """SIGTERM, as the kubelet sends it. The exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def records(self) -> list[dict[str, Any]]:
        """What it has logged; every line must be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]
