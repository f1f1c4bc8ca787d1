"""The run's progress, as an annotation that the driver writes on its own pod.

The Kubernetes API is called with the pod's own service-account token through the standard library: one kind of
request needs no client library, and importing one would cost the run a second.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ANNOTATION = "lakeloop.io/progress"
STAGES = ("Starting", "Ingesting", "Reading", "Training", "Evaluating", "Logging")
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

log = logging.getLogger(__name__)


def pod_patcher(environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> Callable[[str], None] | None:
    """A function that merge-patches the annotation's value onto the own pod; None outside a cluster."""
    host, name, namespace = (
        environ.get("KUBERNETES_SERVICE_HOST"),
        environ.get("LAKELOOP_POD_NAME"),
        environ.get("LAKELOOP_POD_NAMESPACE"),
    )
    if not (host and name and namespace and (account / "token").exists()):
        return None
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}/api/v1/namespaces/{namespace}/pods/{name}"
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))

    def patch(value: str) -> None:
        request = urllib.request.Request(
            url,
            method="PATCH",
            data=json.dumps({"metadata": {"annotations": {ANNOTATION: value}}}).encode(),
            headers={
                "Content-Type": "application/merge-patch+json",
                # read each time: the kubelet rotates it
                "Authorization": f"Bearer {(account / 'token').read_text().strip()}",
            },
        )
        with opener.open(request, timeout=5) as response:
            response.read()

    return patch


class Progress:
    """Keeps the newest state and writes it in the background: at once on a new stage, else once a second at most.

    A failed write is logged and forgotten: progress never fails a run.
    """

    def __init__(
        self, uid: str, attempt: int, write: Callable[[str], None] | None, interval_seconds: float = 1.0
    ) -> None:
        self._state: dict[str, Any] = {
            "uid": uid, "attempt": attempt, "stage": STAGES[0], "percent": 0, "remainingSeconds": None,
            "inputs": [], "trialsFinished": 0, "trialsTotal": 0,
        }  # fmt: skip
        self._write = write
        self._interval = interval_seconds
        self._changed = threading.Condition()
        self._pending = True
        self._urgent = True
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)
        if write is not None:
            self._thread.start()

    def stage(self, stage: str, percent: int) -> None:
        """Enters a stage; ``percent`` is of the whole run."""
        self._set(urgent=True, stage=stage, percent=max(percent, self._state["percent"]), remainingSeconds=None)

    def trials(self, finished: int, total: int, percent: int, remaining_seconds: float | None) -> None:
        """Tells how far a search is; ``percent`` is of the whole run."""
        remaining = None if remaining_seconds is None else round(remaining_seconds, 1)
        percent = max(percent, self._state["percent"])
        self._set(urgent=False, trialsFinished=finished, trialsTotal=total, percent=percent, remainingSeconds=remaining)

    def inputs(self, versions: Mapping[str, int]) -> None:
        """Tells the versions that ingestion made: at once, since the operator pins them for later attempts."""
        self._set(urgent=True, inputs=[{"name": name, "version": version} for name, version in versions.items()])

    def close(self) -> None:
        """Writes what is pending and stops; waits 6 seconds at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=6)

    def value(self) -> str:
        """The annotation's value as it now is."""
        with self._changed:
            return json.dumps(self._state, separators=(",", ":"))

    def _set(self, *, urgent: bool, **fields: object) -> None:
        with self._changed:
            self._state.update(fields)
            self._pending = True
            self._urgent = self._urgent or urgent
            self._changed.notify()

    def _loop(self) -> None:
        written = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
                if not self._urgent and not self._closed:
                    left = self._interval - (time.monotonic() - written)
                    self._changed.wait_for(lambda: self._urgent or self._closed, timeout=max(left, 0))
                self._pending = self._urgent = False
                value = json.dumps(self._state, separators=(",", ":"))
            try:
                if self._write is not None:
                    self._write(value)
            except Exception as error:  # of the network, of HTTP, of TLS: the next one may get through
                log.warning("progress not written: %r", error)
            written = time.monotonic()
