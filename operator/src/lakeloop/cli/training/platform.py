"""Where MLflow and the object store answer, and a way to them from outside the cluster."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from kubernetes import client

from lakeloop.cli.cluster import Cluster, told
from lakeloop.cli.errors import CliError
from lakeloop.cli.training.forward import LOOPBACK, Forward, PodPort, to_pod
from lakeloop.cli.training.jobs import Jobs
from lakeloop.cli.training.mlflow import Mlflow
from lakeloop.cli.training.store import Store, StoreAccess
from lakeloop.cli.values import PLATFORM_NAMESPACE

DEFAULT_TRACKING = f"http://mlflow.{PLATFORM_NAMESPACE}.svc:5000"
DEFAULT_STORAGE = f"http://minio.{PLATFORM_NAMESPACE}.svc:9000"
STORAGE_SECRET, TRACKING_SECRET = "lakeloop-storage", "lakeloop-mlflow"
_SERVICE = re.compile(r"(?P<name>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)(\.svc(\.[a-z0-9.-]+)?)?\.?")


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A Service of the cluster."""

    namespace: str
    name: str
    port: int


def service_of(address: str) -> ServicePort | None:
    """The Service that an address inside the cluster names; None for one that any machine may reach."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    found = _SERVICE.fullmatch(host)
    # `mlflow.example` is a host of the world as likely as a Service: inside the cluster `.svc` is written.
    if found is None or ".svc" not in host:
        return None
    return ServicePort(found["namespace"], found["name"], parts.port or (443 if parts.scheme == "https" else 80))


def pod_behind(service: Mapping[str, Any], port: int, pods: Sequence[Mapping[str, Any]]) -> PodPort | None:
    """A ready pod of the Service and its port there; None where none is ready."""
    wanted = next((each for each in service["spec"]["ports"] if each["port"] == port), service["spec"]["ports"][0])
    target = wanted.get("targetPort", wanted["port"])
    for pod in pods:
        conditions = (pod.get("status") or {}).get("conditions") or ()
        if not any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            continue
        ports = [each for one in pod["spec"]["containers"] for each in one.get("ports") or ()]
        number = next((each["containerPort"] for each in ports if each.get("name") == target), target)
        if isinstance(number, int):
            return PodPort(pod["metadata"]["namespace"], pod["metadata"]["name"], number)
    return None


class Platform:
    """MLflow and the store; a context manager, which closes the ways to them."""

    def __init__(
        self, jobs: Jobs, operator_namespace: str, tracking_uri: str | None, storage_endpoint: str | None
    ) -> None:
        self._jobs = jobs
        self._operator_namespace = operator_namespace
        self._tracking_uri = tracking_uri
        self._storage_endpoint = storage_endpoint
        self._environment: Mapping[str, str] | None = None
        self._forwards: dict[str, Forward] = {}

    def __enter__(self) -> "Platform":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._forwards.values():
            each.close()

    @property
    def environment(self) -> Mapping[str, str]:
        """What the operator is told; empty where the user may not see it."""
        if self._environment is None:
            self._environment = self._jobs.operator_environment(self._operator_namespace)
        return self._environment

    def mlflow(self, namespace: str) -> Mlflow:
        """MLflow, as the namespace's user of it where there is one."""
        address = self._tracking_uri or self.environment.get("LAKELOOP_TRACKING_URI") or DEFAULT_TRACKING
        reached = address if self._tracking_uri else self._reached(address, "--tracking-uri")
        return Mlflow(reached, address, self._user(namespace))

    def _user(self, namespace: str) -> tuple[str, str] | None:
        name, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
        if name and password:
            return name, password
        try:
            secret = self._jobs.secret(namespace, TRACKING_SECRET)
        except CliError:
            return None  # most have no authentication; one that has says so
        name, password = secret.get("MLFLOW_TRACKING_USERNAME"), secret.get("MLFLOW_TRACKING_PASSWORD")
        return (name, password) if name and password else None

    def store(self, namespace: str, storage: Mapping[str, Any]) -> Store:
        """The object store, with the credentials of a job: `spec.storage` of one in that namespace."""
        known = self.environment
        address = storage.get("endpoint") or known.get("LAKELOOP_STORAGE_ENDPOINT")
        if not address and not known:
            address = DEFAULT_STORAGE
        reached = self._storage_endpoint or (self._reached(address, "--storage-endpoint") if address else None)
        path_style = storage.get("pathStyle")
        if path_style is None:
            path_style = known.get("LAKELOOP_STORAGE_PATH_STYLE", "true").lower() == "true"
        return Store(
            StoreAccess(
                endpoint=reached,
                region=storage.get("region") or known.get("LAKELOOP_STORAGE_REGION") or "us-east-1",
                # A host name that stands for a bucket does not lead through a forward.
                path_style=bool(path_style) or (reached or "").startswith(f"http://{LOOPBACK}:"),
                keys=self._keys(namespace, storage),
            )
        )

    def _keys(self, namespace: str, storage: Mapping[str, Any]) -> Mapping[str, str] | None:
        if storage.get("serviceAccountName"):
            return None  # the pods have an identity; here boto looks for one of the user's
        try:
            return self._jobs.secret(namespace, (storage.get("secretRef") or {}).get("name") or STORAGE_SECRET)
        except CliError:
            if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
                return None
            raise

    def _reached(self, address: str, option: str) -> str:
        """The address as it is reached from here."""
        service = service_of(address)
        if service is None or os.environ.get("KUBERNETES_SERVICE_HOST"):
            return address
        if urlsplit(address).scheme == "https":
            raise CliError(f"{address} is inside the cluster and has a certificate of that name: give {option}")
        if address not in self._forwards:
            self._forwards[address] = to_pod(self._jobs.cluster, target_of(self._jobs.cluster, service, option))
        return f"http://{LOOPBACK}:{self._forwards[address].port}"


@told
def target_of(cluster: Cluster, service: ServicePort, option: str) -> PodPort:
    """A ready pod behind the Service. Raises CliError where there is none."""
    found = cluster.service(service.namespace, service.name)
    if found is None:
        raise CliError(
            f"there is no Service {service.name} in namespace {service.namespace}: is the platform installed?"
            f" `kubectl lakeloop status` says; or give an address that you reach yourself, {option}"
        )
    selector = ",".join(f"{key}={value}" for key, value in (found["spec"].get("selector") or {}).items())
    core = client.CoreV1Api(cluster.api)
    pods = cluster.api.sanitize_for_serialization(core.list_namespaced_pod(service.namespace, label_selector=selector))[
        "items"
    ]
    target = pod_behind(found, service.port, pods)
    if target is None:
        raise CliError(f"no pod of Service {service.name} in namespace {service.namespace} is ready: try again soon")
    return target
