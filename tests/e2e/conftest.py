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
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from kubernetes import client, config

from lakeloop.cli.demo import NAMESPACE, Kubectl, address, condition, fresh

ROOT = Path(__file__).parents[2]
KUBECONFIG = Path(os.environ.get("KUBECONFIG_FILE", ROOT / ".lakeloop/kubeconfig"))
RESOURCES = {
    "trainingjob": "apis/lakeloop.io/v1alpha1/namespaces/{}/trainingjobs",
    "modeldeployment": "apis/lakeloop.io/v1alpha1/namespaces/{}/modeldeployments",
    "job": "apis/batch/v1/namespaces/{}/jobs",
    "pod": "api/v1/namespaces/{}/pods",
}


class Platform:
    """One cluster with Lakeloop on it: kubectl, MLflow's REST API and the object store, as a user has them."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.kubectl = Kubectl(kubeconfig)
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        settings.proxy = None
        self._api = client.ApiClient(settings)
        self.mlflow_url = address(self.kubectl, "mlflow", "lakeloop-platform")
        secret = self.kubectl.get("secret", "lakeloop-storage")["data"]
        self.keys = {key: base64.b64decode(value).decode() for key, value in secret.items()}
        minio = address(self.kubectl, "minio", "lakeloop-platform")
        self.delta = {**self.keys, "AWS_ENDPOINT_URL": minio, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        """Storage options of the package `deltalake`."""
        self.store = s3(minio, self.keys)

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

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> Mapping[str, Any]:
        """An object of RESOURCES, over one connection that stays: kubectl costs a tenth of a second of a processor."""
        return self._read(f"{RESOURCES[kind].format(namespace)}/{name}")

    def _read(self, path: str, **query: str) -> Mapping[str, Any]:
        url = f"{self._api.configuration.host}/{path}?{urllib.parse.urlencode(query)}"
        response = self._api.call_api("GET", url, {"Accept": "application/json"})
        body = response.read()
        assert response.status == 200, body
        found: Mapping[str, Any] = json.loads(body)
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
        return until(lambda: self.get(kind, name), done, timeout)

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
        found: list[Mapping[str, Any]] = self._read(RESOURCES["pod"].format(NAMESPACE), labelSelector=selector)["items"]
        return found


def s3(url: str, keys: Mapping[str, str], verify: bool = True) -> Any:
    """boto3's client of an object store, once that answers: a new Service reaches its pod some time after it is ready."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        verify=verify,
        config=Config(retries={"mode": "standard", "max_attempts": 5}),
    )
    end = time.monotonic() + 120
    while True:
        try:
            client.list_buckets()
        except BotoCoreError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return client


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


@pytest.fixture(scope="session")
def demo(platform: Platform) -> str:
    """What `make demo`'s own command prints; its model is registered and served from then on."""
    done = subprocess.run(
        ["python", "-m", "lakeloop.cli.demo", "--kubeconfig", str(platform.kubeconfig)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
