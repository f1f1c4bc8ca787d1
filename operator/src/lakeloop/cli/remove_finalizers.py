"""Before the operator is uninstalled: stops it, then takes its finalizer off all objects.

The chart's pre-delete hook runs this.

Without the operator nobody would ever take the finalizer off, and no object, nor its namespace, could be deleted.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import click
from kubernetes import client, config

from lakeloop.adapters import nesting

GROUP, VERSION = "lakeloop.io", "v1alpha1"
KINDS = ("trainingjobs", "modeldeployments")
FINALIZER = "lakeloop.io/cleanup"
DEPLOYMENT = "lakeloop-operator"
OPERATOR_PODS = "app.kubernetes.io/name=lakeloop,app.kubernetes.io/component=operator"

Object = Mapping[str, Any]


class Objects(Protocol):
    """What this needs of a cluster."""

    def stop_operator(self, namespace: str) -> int:
        """Asks for no replicas; how many pods of the operator are still there."""

    def list(self, kind: str, namespace: str | None) -> Sequence[Object]:
        """All objects of the kind (plural), in a namespace or in all; none when the CRD is gone."""

    def set_finalizers(self, kind: str, obj: Object, finalizers: Sequence[str]) -> None:
        """Replaces the finalizers if the object is still as it was read; nothing happens when it is gone.

        Raises Conflict when it was changed meanwhile.
        """


class Conflict(Exception):
    """The object was changed since it was read."""


def remaining(obj: Object) -> list[str] | None:
    """The object's finalizers without ours; None when it has not got ours."""
    finalizers = obj["metadata"].get("finalizers") or []
    return [each for each in finalizers if each != FINALIZER] if FINALIZER in finalizers else None


def stop_operator(
    objects: Objects,
    namespace: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Returns once no pod of the operator is left. Raises TimeoutError after `seconds`."""
    deadline = clock() + seconds
    while pods := objects.stop_operator(namespace):
        if clock() >= deadline:
            raise TimeoutError(f"{pods} pods of the operator are still there after {seconds:.0f} s")
        sleep(1)


def free(objects: Objects, namespaces: Sequence[str]) -> int:
    """Takes our finalizer off everything, in these namespaces or in all; the number of objects that had it."""
    freed = 0
    for kind in KINDS:
        for namespace in namespaces or (None,):
            while True:
                conflicts = 0
                for obj in objects.list(kind, namespace):
                    finalizers = remaining(obj)
                    if finalizers is None:
                        continue
                    try:
                        objects.set_finalizers(kind, obj, finalizers)
                        freed += 1
                    except Conflict:
                        conflicts += 1
                if not conflicts:
                    break
    return freed


class _Cluster:
    """Objects in the cluster that this pod runs in."""

    def __init__(self) -> None:
        config.load_incluster_config()
        self._apps, self._core, self._objects = client.AppsV1Api(), client.CoreV1Api(), client.CustomObjectsApi()

    def stop_operator(self, namespace: str) -> int:
        try:
            self._apps.patch_namespaced_deployment_scale(DEPLOYMENT, namespace, {"spec": {"replicas": 0}})
        except client.ApiException as error:
            if error.status != 404:
                raise
        return len(self._core.list_namespaced_pod(namespace, label_selector=OPERATOR_PODS).items)

    def list(self, kind: str, namespace: str | None) -> Sequence[Object]:
        found: Any
        try:
            if namespace:
                found = self._objects.list_namespaced_custom_object(GROUP, VERSION, namespace, kind)
            else:
                found = self._objects.list_cluster_custom_object(GROUP, VERSION, kind)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return []
        items: Sequence[Object] = found["items"]
        return items

    def set_finalizers(self, kind: str, obj: Object, finalizers: Sequence[str]) -> None:
        meta = obj["metadata"]
        body = {"metadata": {"finalizers": list(finalizers), "resourceVersion": meta["resourceVersion"]}}
        try:
            self._objects.patch_namespaced_custom_object(
                GROUP,
                VERSION,
                meta["namespace"],
                kind,
                meta["name"],
                body,
                _content_type="application/merge-patch+json",
            )
        except client.ApiException as error:
            if error.status == 409:
                raise Conflict from error
            if error.status != 404:
                raise


@click.command()
@click.option("--operator-namespace", required=True, help="Where the operator's Deployment is.")
@click.option("--namespace", "namespaces", multiple=True, help="A namespace to clean up; default: all.")
@click.option("--timeout", type=float, default=60, show_default=True, help="Seconds to wait for the operator's end.")
def main(operator_namespace: str, namespaces: tuple[str, ...], timeout: float) -> None:
    """Stop the operator and take its finalizer off all objects."""
    nesting.take_what_the_api_server_takes()
    objects = _Cluster()
    try:
        stop_operator(objects, operator_namespace, timeout)
        print(f"the operator is stopped; its finalizer is off {free(objects, namespaces)} objects")
    except (TimeoutError, client.ApiException) as error:
        sys.exit(f"remove_finalizers: {error}")


if __name__ == "__main__":
    main()
