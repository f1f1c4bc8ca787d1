"""kubectl, as tests use it."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def eventually(holds: Callable[[], bool], *, seconds: float) -> None:
    """Looks 20 times a second until it holds. AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.05)


class Refused(Exception):
    """kubectl failed. The text is what it wrote."""


@dataclass(frozen=True)
class Kubectl:
    """The kubectl of the API server's version, in one namespace. Raises Refused with what it wrote."""

    executable: Path
    kubeconfig: Path
    namespace: str = "default"

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        command = [str(self.executable), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout

    def apply(self, obj: Mapping[str, Any], *flags: str) -> dict[str, Any]:
        """Client-side apply with strict validation, as users do it; the object as it was stored."""
        stored: dict[str, Any] = json.loads(self("apply", "-f", "-", "-o", "json", *flags, stdin=json.dumps(obj)))
        return stored

    def storage_secret(self, name: str = "lakeloop-storage") -> None:
        """Makes a Secret with keys for a store."""
        keys = ("--from-literal=AWS_ACCESS_KEY_ID=me", "--from-literal=AWS_SECRET_ACCESS_KEY=hunter2")
        self("create", "secret", "generic", name, *keys)

    def get(self, *what: str) -> dict[str, Any]:
        """The object, or the list, as the API server has it."""
        found: dict[str, Any] = json.loads(self("get", *what, "-o", "json"))
        return found
