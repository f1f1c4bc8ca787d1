"""Talks to a cluster through the kubectl that ``gobuild`` made."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.errors import LocalClusterError


@dataclass(frozen=True)
class Kubectl:
    """kubectl of one cluster."""

    binary: Path
    kubeconfig: Path

    def run(self, *args: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl and return its stdout. Raises LocalClusterError with its words on failure or timeout."""
        command = [str(self.binary), f"--kubeconfig={self.kubeconfig}", *args]
        # A proxy of the user's shell must not come between this machine and its own node.
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        try:
            result = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            raise LocalClusterError(f"kubectl {' '.join(args)}: no answer within {timeout:.0f} s") from None
        if result.returncode != 0:
            raise LocalClusterError(f"kubectl {' '.join(args)}: {result.stderr.strip()}")
        return result.stdout

    def apply(self, manifests: str) -> None:
        """Server-side apply of a YAML text, so that applying it twice changes nothing."""
        self.run(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=localcluster",
            "--filename=-",
            stdin=manifests,
        )

    def get(self, *args: str) -> Any:
        """``kubectl get … --output=json``, parsed."""
        return json.loads(self.run("get", *args, "--output=json"))
