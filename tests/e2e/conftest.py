"""The real node that `make up` made, and hands to work it with."""

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from lakeloop.cli.demo import NAMESPACE, Kubectl, address, condition, fresh

ROOT = Path(__file__).parents[2]
KUBECONFIG = Path(os.environ.get("KUBECONFIG_FILE", ROOT / ".lakeloop/kubeconfig"))


class Platform:
    """One cluster with Lakeloop on it: kubectl, MLflow's REST API and the object store, as a user has them."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.kubectl = Kubectl(kubeconfig)
        self.mlflow_url = address(self.kubectl, "mlflow", "lakeloop-platform")
        secret = self.kubectl.get("secret", "lakeloop-storage")["data"]
        self.keys = {key: base64.b64decode(value).decode() for key, value in secret.items()}
        minio = address(self.kubectl, "minio", "lakeloop-platform")
        self.delta = {**self.keys, "AWS_ENDPOINT_URL": minio, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        """Storage options of the package `deltalake`."""
        self.store = boto3.client(
            "s3",
            endpoint_url=minio,
            region_name="us-east-1",
            aws_access_key_id=self.keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.keys["AWS_SECRET_ACCESS_KEY"],
        )

    def mlflow(self, method: str, path: str, /, **fields: Any) -> Mapping[str, Any]:
        """One call of MLflow's REST API below `/api/2.0/mlflow/`; the fields go as a query or as JSON."""
        url = f"{self.mlflow_url}/api/2.0/mlflow/{path}"
        body = None
        if method == "GET":
            url += "?" + urllib.parse.urlencode(fields)
        else:
            body = json.dumps(fields).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: Mapping[str, Any] = json.load(answer)
        return found

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """kubectl apply of one object."""
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(self.kubeconfig), "apply", "-f", "-"],
            input=json.dumps(manifest),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def job(self, name: str, spec: Mapping[str, Any]) -> None:
        """Applies a TrainingJob, new: what an earlier test run left of that name is over and would not run again."""
        self.kubectl("-n", NAMESPACE, "delete", "trainingjob", name, "--ignore-not-found", "--wait=true")
        self.apply(manifest("TrainingJob", name, spec))

    def secret(self, name: str, values: Mapping[str, str]) -> None:
        """Applies a Secret."""
        metadata = {"name": name, "namespace": NAMESPACE}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values)})

    def warnings(self, name: str) -> set[str]:
        """The reasons of the Warning events of an object of that name."""
        words = ("get", "events", "--field-selector", f"type=Warning,involvedObject.name={name}", "-o", "json")
        return {event["reason"] for event in json.loads(self.kubectl("-n", NAMESPACE, *words))["items"]}

    def until(
        self, kind: str, name: str, done: Callable[[Mapping[str, Any]], bool], timeout: float = 240
    ) -> Mapping[str, Any]:
        """Polls an object until `done`; fails with its status after `timeout` seconds."""
        return until(lambda: self.kubectl.get(kind, name), done, timeout)

    def succeeded(self, name: str, timeout: float = 300) -> Mapping[str, Any]:
        """The run of a TrainingJob once it went well; fails at once when the run failed."""

        def over(obj: Mapping[str, Any]) -> bool:
            run = obj.get("status", {}).get("run", {})
            assert not (fresh(obj) and run.get("phase") == "Failed"), run.get("failure")
            return fresh(obj) and run.get("phase") == "Succeeded" and condition(obj, "Ready").get("status") == "True"

        run: Mapping[str, Any] = self.until("trainingjob", name, over, timeout)["status"]["run"]
        return run

    def pods(self, selector: str) -> list[Mapping[str, Any]]:
        """The pods of the demo namespace with that label selector."""
        found: list[Mapping[str, Any]] = json.loads(
            self.kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json")
        )["items"]
        return found


def manifest(kind: str, name: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """One of our objects in the demo namespace."""
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "lakeloop.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}


def until(
    look: Callable[[], Mapping[str, Any]], done: Callable[[Mapping[str, Any]], bool], timeout: float
) -> Mapping[str, Any]:
    """Polls `look` until `done`; fails with the last status after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        obj = look()
        if done(obj):
            return obj
        assert time.monotonic() < end, json.dumps(obj.get("status", obj), indent=1)
        time.sleep(0.5)  # a poll, not a wait


@pytest.fixture(scope="session")
def platform() -> Platform:
    """The cluster at `.lakeloop/kubeconfig`; the demo namespace is left without the tests' objects."""
    found = Platform(KUBECONFIG)
    assert NAMESPACE in found.kubectl("get", "namespaces", "-o", "name"), "run make up first"
    return found
