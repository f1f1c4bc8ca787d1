"""ModelDeployments on the cluster. Every method raises CliError with what to do."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kubernetes import client

from lakeloop.cli.cluster import GROUP, VERSION, Cluster, told
from lakeloop.cli.errors import CliError

Object = Mapping[str, Any]
_KIND: Final = "modeldeployments"


class Deployments:
    """One cluster, as one user."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._objects = client.CustomObjectsApi(cluster.api)
        self._core = client.CoreV1Api(cluster.api)

    @told
    def list(self, namespace: str) -> Sequence[Object]:
        """All of a namespace."""
        found: Any = self._objects.list_namespaced_custom_object(GROUP, VERSION, namespace, _KIND)
        items: Sequence[Object] = found["items"]
        return items

    @told
    def get(self, namespace: str, name: str) -> Object:
        """The ModelDeployment."""
        try:
            found: Any = self._objects.get_namespaced_custom_object(GROUP, VERSION, namespace, _KIND, name)
        except client.ApiException as error:
            if error.status == 404:
                raise CliError(
                    f"there is no ModelDeployment {name} in namespace {namespace}:"
                    f" `kubectl -n {namespace} get md` lists those that are"
                ) from error
            raise
        deployment: Object = found
        return deployment

    def annotate(self, namespace: str, name: str, key: str, value: str) -> None:
        """Sets one annotation."""
        self.cluster.annotate(_KIND, namespace, name, key, value)

    @told
    def events(self, namespace: str, name: str) -> Sequence[Object]:
        """What was told of it."""
        about = f"involvedObject.kind=ModelDeployment,involvedObject.name={name}"
        found: Any = self._core.list_namespaced_event(namespace, field_selector=about)
        items: Sequence[Object] = self.cluster.api.sanitize_for_serialization(found)["items"]
        return items
