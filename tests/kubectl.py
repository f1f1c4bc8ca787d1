"""kubectl, as tests use it; and the same API server over HTTP, where kubectl itself is not what a test is about.

A process of kubectl takes a tenth of a second of a processor, and a request a hundredth of that: what polls, polls by
requests.
"""

import functools
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def eventually(holds: Callable[[], bool], *, seconds: float = 150) -> None:
    """Looks 20 times a second until it holds. AssertionError after so many seconds, which a busy machine may take."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.05)


def busy() -> bool:
    """Whether so much else runs on this machine that how long something took says nothing."""
    return os.getloadavg()[0] > 2 * (os.cpu_count() or 1)


class Refused(Exception):
    """The API server or kubectl refused. The text is what it wrote."""


class _Api:
    """Requests to one API server as the user of a kubeconfig with a client certificate."""

    def __init__(self, kubeconfig: Path) -> None:
        about = yaml.safe_load(kubeconfig.read_text())
        cluster, user = about["clusters"][0]["cluster"], about["users"][0]["user"]
        self._url = cluster["server"]
        trust = ssl.create_default_context(cadata=b64decode(cluster["certificate-authority-data"]).decode())
        with NamedTemporaryFile() as pair:
            pair.write(b64decode(user["client-certificate-data"]) + b64decode(user["client-key-data"]))
            pair.flush()
            trust.load_cert_chain(pair.name)
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
        self._opener = urllib.request.build_opener(*handlers)
        self._paths: dict[str, tuple[str, str]] = {}

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        """The answer. Raises Refused with the message of the Status."""
        headers = {"Content-Type": content_type, "Accept": accept}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self._url}{path}", data, headers, method=method)
        try:
            with self._opener.open(asked, timeout=60) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise Refused(json.loads(text)["message"] if text.startswith("{") else text) from None
        return found

    def path(self, kind: str, namespace: str) -> str:
        """Of a resource by any name that kubectl takes: `md`, `service`, `deployments`, `TrainingJob`."""
        if kind.lower() not in self._paths:
            self._paths = dict(self._discovered())
        prefix, plural = self._paths[kind.lower()]
        return f"{prefix.format(namespace=namespace)}/{plural}"

    def _discovered(self) -> Iterator[tuple[str, tuple[str, str]]]:
        # the core group last: `events` are those
        for root in ("/apis", "/api"):
            for group in self.request("GET", root, accept=_AGGREGATED)["items"]:
                version = group["versions"][0]
                name = group["metadata"].get("name")
                base = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
                for each in version["resources"]:
                    prefix = base + ("/namespaces/{namespace}" if each["scope"] == "Namespaced" else "")
                    names = (each["resource"], each["singularResource"], each["responseKind"]["kind"].lower())
                    for known in (*names, *each.get("shortNames", ())):
                        yield known, (prefix, each["resource"])


@functools.cache
def _api(kubeconfig: Path) -> _Api:
    return _Api(kubeconfig)


@dataclass(frozen=True)
class Kubectl:
    """The kubectl of the API server's version, in one namespace: by calling it. Its methods but `apply` are requests.

    Both raise Refused with what was written.
    """

    executable: Path
    kubeconfig: Path
    namespace: str = "default"

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        command = [str(self.executable), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=150)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout

    def apply(self, obj: Mapping[str, Any], *flags: str) -> dict[str, Any]:
        """Client-side apply with strict validation, as users do it; the object as it was stored."""
        stored: dict[str, Any] = json.loads(self("apply", "-f", "-", "-o", "json", *flags, stdin=json.dumps(obj)))
        return stored

    def create(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """With strict validation, as kubectl asks for it; the object as it was stored, or would have been."""
        query = "fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return _api(self.kubeconfig).request("POST", f"{self._path(obj['kind'])}?{query}", obj)

    def create_namespace(self, name: str) -> None:
        """Makes a namespace."""
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def secret(self, name: str, **values: str) -> None:
        """Makes a Secret."""
        self.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values})

    def storage_secret(self, name: str = "lakeloop-storage") -> None:
        """Makes a Secret with keys for a store."""
        self.secret(name, AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="hunter2")

    def get(self, kind: str, name: str | None = None, *, labels: str = "") -> dict[str, Any]:
        """The object, or the list of those with these labels, as the API server has it."""
        api, path = _api(self.kubeconfig), self._path(kind)
        if name is not None:
            return api.request("GET", f"{path}/{name}")
        return api.request("GET", f"{path}?{urllib.parse.urlencode({'labelSelector': labels})}")

    def items(self, kind: str, *, labels: str = "") -> list[dict[str, Any]]:
        """The objects with these labels."""
        found: list[dict[str, Any]] = self.get(kind, labels=labels)["items"]
        return found

    def condition(self, kind: str, name: str, condition: str) -> dict[str, Any]:
        """The condition of that type; empty where there is none."""
        found = self.get(kind, name).get("status", {}).get("conditions", ())
        return next((each for each in found if each["type"] == condition), {})

    def patch_status(self, kind: str, name: str, status: Mapping[str, Any]) -> None:
        """Merges into the status."""
        path = f"{self._path(kind)}/{name}/status"
        _api(self.kubeconfig).request("PATCH", path, {"status": status}, "application/merge-patch+json")

    def _path(self, kind: str) -> str:
        return _api(self.kubeconfig).path(kind, self.namespace)
