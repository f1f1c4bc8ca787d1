"""TrainingJobs and what is around them, on the cluster. Every method raises CliError with what to do."""

import base64
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import urllib3
from kubernetes import client

from lakeloop.cli.cluster import FIELD_MANAGER, GROUP, VERSION, Cluster, refusal, told
from lakeloop.cli.errors import CliError

OPERATOR = "lakeloop-operator"
Object = Mapping[str, Any]


class Jobs:
    """One cluster, as one user."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._core = client.CoreV1Api(cluster.api)
        self._apps = client.AppsV1Api(cluster.api)
        self._objects = client.CustomObjectsApi(cluster.api)

    @property
    def cluster(self) -> Cluster:
        """What else the cluster is asked."""
        return self._cluster

    def _plain(self, found: Any) -> Any:
        return self._cluster.api.sanitize_for_serialization(found)

    @told
    def list(self, kind: str, namespace: str | None) -> Sequence[Object]:
        """All objects of one of our kinds (`trainingjobs`), in a namespace or in all."""
        found: list[Object] = []
        token = ""
        while True:
            # Pages: a job's history is large.
            options: dict[str, Any] = {"limit": 200, **({"_continue": token} if token else {})}
            try:
                page: Any = (
                    self._objects.list_namespaced_custom_object(GROUP, VERSION, namespace, kind, **options)
                    if namespace
                    else self._objects.list_cluster_custom_object(GROUP, VERSION, kind, **options)
                )
            except client.ApiException as error:
                if error.status == 404:
                    raise CliError(
                        f"the cluster does not know {kind}: is Lakeloop installed? `kubectl lakeloop up`"
                    ) from error
                raise
            found += page["items"]
            token = page["metadata"].get("continue") or ""
            if not token:
                return found

    @told
    def find(self, namespace: str, name: str) -> Object | None:
        """The TrainingJob; None where there is none."""
        try:
            found: Any = self._objects.get_namespaced_custom_object(GROUP, VERSION, namespace, "trainingjobs", name)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        job: Object = found
        return job

    def get(self, namespace: str, name: str) -> Object:
        """The TrainingJob."""
        found = self.find(namespace, name)
        if found is None:
            raise CliError(
                f"there is no TrainingJob {name} in namespace {namespace}:"
                " `kubectl lakeloop runs -A` lists those that have runs"
            )
        return found

    def annotate(self, namespace: str, name: str, key: str, value: str) -> None:
        """Sets one annotation of the TrainingJob."""
        self._cluster.annotate("trainingjobs", namespace, name, key, value)

    @told
    def create(self, manifest: Object) -> Object:
        """A new TrainingJob."""
        meta = manifest["metadata"]
        try:
            made: Any = self._objects.create_namespaced_custom_object(
                GROUP, VERSION, meta["namespace"], "trainingjobs", dict(manifest), field_manager=FIELD_MANAGER
            )
        except client.ApiException as error:
            if error.status == 409:
                raise CliError(
                    f"TrainingJob {meta['name']} is there already, perhaps of an earlier --keep:"
                    f" `kubectl -n {meta['namespace']} delete tj {meta['name']}` makes room"
                ) from error
            raise
        job: Object = made
        return job

    @told
    def delete(self, namespace: str, name: str) -> None:
        """Asks for the TrainingJob's deletion; nothing happens where it is gone."""
        try:
            self._objects.delete_namespaced_custom_object(GROUP, VERSION, namespace, "trainingjobs", name)
        except client.ApiException as error:
            if error.status != 404:
                raise

    @told
    def pods(self, namespace: str, selector: str) -> Sequence[Object]:
        """Pods with these labels."""
        found: Sequence[Object] = self._plain(self._core.list_namespaced_pod(namespace, label_selector=selector))[
            "items"
        ]
        return found

    @told
    def log(self, namespace: str, pod: str, container: str, *, follow: bool, tail: int | None) -> Iterator[str] | None:
        """The container's log, line by line, while it grows with `follow`; None where there is none (yet, any more)."""
        options: dict[str, Any] = {"tail_lines": tail} if tail is not None else {}
        try:
            answer: Any = self._core.read_namespaced_pod_log(
                pod, namespace, container=container, follow=follow, _preload_content=False, **options
            )
        except client.ApiException as error:
            # 404: the pod is gone; 400: its container has not started.
            if error.status in (400, 404):
                return None
            raise
        return _lines(answer)

    @told
    def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """The Secret's values."""
        try:
            found = self._plain(self._core.read_namespaced_secret(name, namespace))
        except client.ApiException as error:
            if error.status == 404:
                raise CliError(f"there is no Secret {name} in namespace {namespace}") from error
            if error.status == 403:
                raise CliError(
                    f"you may not read Secret {name} in namespace {namespace} ({refusal(error)}):"
                    " set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key of your own"
                ) from error
            raise
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}

    @told
    def config_map(self, namespace: str, name: str) -> Object | None:
        """The ConfigMap; None where there is none, or it may not be read."""
        try:
            found: Object = self._plain(self._core.read_namespaced_config_map(name, namespace))
        except client.ApiException as error:
            if error.status in (403, 404):
                return None
            raise
        return found

    @told
    def operator_environment(self, namespace: str) -> Mapping[str, str]:
        """What the operator's Deployment tells it; empty where it is not there, or may not be read."""
        try:
            found = self._plain(self._apps.read_namespaced_deployment(OPERATOR, namespace))
        except client.ApiException as error:
            if error.status in (403, 404):
                return {}
            raise
        containers = found["spec"]["template"]["spec"]["containers"]
        return {
            each["name"]: each["value"]
            for each in itertools.chain.from_iterable(one.get("env") or () for one in containers)
            if each.get("value")
        }


def _lines(answer: Any) -> Iterator[str]:
    """Lines of a log; a last one without its end too."""
    rest = b""
    try:
        for chunk in answer.stream(2**16, decode_content=False):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
    except urllib3.exceptions.HTTPError as error:
        raise CliError(f"the log broke off: {error}; run the command again") from error
    finally:
        answer.release_conn()
    if rest:
        yield rest.decode(errors="replace")
