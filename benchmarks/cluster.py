"""The cluster of `make up`, as benchmarks use it: kubectl, watches on this machine's clock, MLflow, object store."""

import base64
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from lakeloop.cli.demo import NAMESPACE as DEMO
from lakeloop.cli.demo import DemoError, Kubectl, address, condition, fresh

ROOT = Path(__file__).parents[1]
KUBECONFIG = Path(os.environ.get("KUBECONFIG_FILE", ROOT / ".lakeloop/kubeconfig"))
PLATFORM = "lakeloop-platform"
SYSTEM = "lakeloop-system"
GROUP, VERSION = "lakeloop.io", "v1alpha1"
PLURALS = {"TrainingJob": "trainingjobs", "ModelDeployment": "modeldeployments"}
LONGEST_WATCH_SECONDS = 3600
GONE_SECONDS = 120.0

STAMP = f"{int(time.time()):x}"
"""In the names of TrainingJobs: MLflow keeps the name of a deleted experiment, so that the next run needs another."""

Object = Mapping[str, Any]


class BenchError(Exception):
    """A benchmark cannot go on; the message says what was seen last."""


def run(main: Callable[[], None]) -> None:
    """Calls it; what went wrong is one line, and exit code 1.

    The first SIGINT or SIGTERM ends it, and what it made is taken away; those that follow do not end that.
    """

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        main()
    except (BenchError, DemoError) as error:
        sys.exit(f"failed: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


@dataclass(frozen=True)
class Seen:
    """One event of a watch, and when it came, on `time.monotonic`'s clock: timestamps of the API are whole seconds."""

    at: float
    type: str
    obj: Object


class Watch:
    """Keeps every event of one kind of object in one namespace, in the order in which they came."""

    def __init__(self, read: Callable[..., Any], what: str) -> None:
        self._read = read
        self._what = what
        self._seen: list[Seen] = []
        self._news = threading.Condition()
        self._over = False

    def __enter__(self) -> Self:
        listed = json.loads(self._read(_preload_content=False).data)
        since = listed["metadata"]["resourceVersion"]
        self._stream = self._read(
            watch=True, resource_version=since, timeout_seconds=LONGEST_WATCH_SECONDS, _preload_content=False
        )
        self._thread = threading.Thread(target=self._follow, name=f"watch {self._what}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        with suppress(Exception):
            self._stream.connection.sock.shutdown(2)
        self._thread.join(timeout=5)

    def _follow(self) -> None:
        rest = b""
        with suppress(Exception):  # however the stream ends: `until` says that it has
            for chunk in self._stream.stream(amt=None, decode_content=False):
                at = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                events = [json.loads(line) for line in lines if line]
                with self._news:
                    self._seen += [Seen(at, each["type"], each["object"]) for each in events]
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def events(self, wanted: Callable[[Seen], bool] = lambda _: True, since: int = 0) -> list[Seen]:
        """Those that came so far, without the first `since`."""
        with self._news:
            return [each for each in self._seen[since:] if wanted(each)]

    def until(self, wanted: Callable[[Seen], bool], timeout: float, what: str) -> Seen:
        """The first such event, of those that came or will. Raises BenchError after `timeout` seconds."""
        end, looked = time.monotonic() + timeout, 0
        with self._news:
            while True:
                for each in self._seen[looked:]:
                    if wanted(each):
                        return each
                looked, left = len(self._seen), end - time.monotonic()
                if self._over:
                    raise BenchError(f"the watch of {self._what} ended while waiting for {what}")
                if left <= 0 or not self._news.wait(left):
                    last = json.dumps(self._seen[-1].obj.get("status")) if self._seen else "nothing"
                    raise BenchError(f"{what}: not within {timeout:.0f} s; seen last of {self._what}: {last}")


def named(name: str, *types: str) -> Callable[[Seen], bool]:
    """Events on that object, of those types where any is given."""
    return lambda seen: seen.obj["metadata"]["name"] == name and (not types or seen.type in types)


def labelled(seen: Seen, label: str, value: str) -> bool:
    """Whether the object has that label."""
    return bool(seen.obj["metadata"].get("labels", {}).get(label) == value)


@dataclass
class Cluster:
    """One cluster with Lakeloop on it, and a namespace of the benchmark's own."""

    namespace: str
    kubectl: Kubectl = field(init=False)
    mlflow_url: str = field(init=False)

    def __post_init__(self) -> None:
        if not KUBECONFIG.is_file():
            raise BenchError(f"there is no cluster: {KUBECONFIG} is missing; run `make up` first")
        self.kubectl = Kubectl(KUBECONFIG)
        api = config.new_client_from_config(str(KUBECONFIG))
        self.server: str = api.configuration.host
        self._core, self._custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self.mlflow_url = address(self.kubectl, "mlflow", PLATFORM)

    @contextmanager
    def own_namespace(self) -> Iterator[None]:
        """A restricted namespace with the demo's key to the object store; gone, with all that is in it, afterwards."""
        self.remove_namespace()
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        own = client.V1ObjectMeta(name=self.namespace, labels=labels)
        self._core.create_namespace(client.V1Namespace(metadata=own))
        secret = self.kubectl.get("secret", "lakeloop-storage", DEMO)
        meta = client.V1ObjectMeta(name="lakeloop-storage")
        copy = client.V1Secret(metadata=meta, type=secret["type"], data=secret["data"])
        self._core.create_namespaced_secret(self.namespace, copy)
        try:
            yield
        finally:
            self.remove_namespace()

    def remove_namespace(self) -> None:
        """Deletes our objects while the operator still may write to them, then the namespace. Waits for it."""
        with suppress(DemoError):
            self.kubectl("get", "namespace", self.namespace)
            for plural in PLURALS.values():
                self.kubectl("-n", self.namespace, "delete", f"{plural}.{GROUP}", "--all", "--timeout=90s")
        self.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=180s")

    def watch_pods(self) -> Watch:
        """The namespace's pods."""
        return Watch(lambda **how: self._core.list_namespaced_pod(self.namespace, **how), "pods")

    def watch(self, kind: str) -> Watch:
        """The namespace's objects of one of our kinds."""
        where = (GROUP, VERSION, self.namespace, PLURALS[kind])
        return Watch(lambda **how: self._custom.list_namespaced_custom_object(*where, **how), PLURALS[kind])

    def create(self, kind: str, name: str, spec: Object) -> None:
        """One call of the API, without kubectl's own start."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        self._custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], body)

    def config_map(self, name: str, data: Mapping[str, str]) -> None:
        """A ConfigMap in the namespace."""
        made = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=dict(data))
        self._core.create_namespaced_config_map(self.namespace, made)

    def delete(self, kind: str, name: str) -> None:
        """Asks for it; the object is gone some time later."""
        self._custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name)

    def delete_pod(self, name: str) -> None:
        """At once, and without complaint where it is gone."""
        try:
            self._core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0)
        except ApiException as error:
            if error.status != 404:
                raise

    def mlflow(self, method: str, path: str, /, **fields: Any) -> Object:
        """One call of MLflow's REST API below `/api/2.0/mlflow/`; the fields go as a query or as JSON."""
        url, body = f"{self.mlflow_url}/api/2.0/mlflow/{path}", None
        if method == "GET":
            url += "?" + urllib.parse.urlencode(fields)
        else:
            body = json.dumps(fields).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: Object = json.load(answer)
        return found

    def forget_model(self, name: str) -> None:
        """Takes a registered model out of the registry."""
        with suppress(urllib.error.HTTPError):
            self.mlflow("DELETE", "registered-models/delete", name=name)

    def forget_experiment(self, name: str) -> None:
        """Moves an experiment and its runs to MLflow's bin."""
        with suppress(urllib.error.HTTPError):
            found = self.mlflow("GET", "experiments/get-by-name", experiment_name=name)["experiment"]
            self.mlflow("POST", "experiments/delete", experiment_id=found["experiment_id"])

    def keys(self) -> dict[str, str]:
        """The demo's key to the object store, by the names of its variables."""
        secret = self.kubectl.get("secret", "lakeloop-storage", DEMO)["data"]
        return {key: base64.b64decode(value).decode() for key, value in secret.items()}

    def store(self) -> Any:
        """A client of the object store with the demo's key."""
        keys = self.keys()
        return boto3.client(
            "s3",
            endpoint_url=address(self.kubectl, "minio", PLATFORM),
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )

    def operator(self, *command: str) -> str:
        """What a command in the operator's container prints."""
        return self.kubectl("-n", SYSTEM, "exec", "deploy/lakeloop-operator", "--", *command)

    def trainer_image(self) -> str:
        """The image that drivers run."""
        containers = self.kubectl.get("deployment", "lakeloop-operator", SYSTEM)["spec"]["template"]["spec"][
            "containers"
        ]
        variables = {each["name"]: each.get("value") for each in containers[0]["env"]}
        return str(variables["LAKELOOP_TRAINER_IMAGE"])


def empty_folder(store: Any, bucket: str, prefix: str) -> None:
    """Deletes everything below a prefix."""
    while found := store.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents"):
        for each in found:
            store.delete_object(Bucket=bucket, Key=each["Key"])


@dataclass(frozen=True)
class OperatorUse:
    """What the operator's process uses, by its own `/proc`."""

    resident_mib: float
    peak_mib: float
    cpu_seconds: float


def operator_use(cluster: Cluster) -> OperatorUse:
    """Looks into the operator's container."""
    status, stat = cluster.operator("sh", "-c", "cat /proc/1/status; echo ----; cat /proc/1/stat").split("----\n")
    sizes = {key: value.split() for key, _, value in (line.partition(":") for line in status.splitlines())}
    ticks = stat.rpartition(")")[2].split()
    return OperatorUse(
        resident_mib=int(sizes["VmRSS"][0]) / 1024,
        peak_mib=int(sizes["VmHWM"][0]) / 1024,
        cpu_seconds=(int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"),
    )


def pod_phase(obj: Object) -> str:
    """Pending, Running, Succeeded or Failed."""
    return str(obj.get("status", {}).get("phase", "Pending"))


def run_of(obj: Object) -> Mapping[str, Any]:
    """The newest run of a TrainingJob; empty before there is one."""
    found: Mapping[str, Any] = obj.get("status", {}).get("run") or {}
    return found


def training_over(seen: Seen) -> bool:
    """Whether the run went well and its model is registered. Raises BenchError where it failed."""
    run = run_of(seen.obj)
    if run.get("phase") == "Failed":
        raise BenchError(f"run {run.get('number')} failed: {run.get('failure')}")
    return run.get("phase") == "Succeeded" and fresh(seen.obj) and condition(seen.obj, "Ready").get("status") == "True"
