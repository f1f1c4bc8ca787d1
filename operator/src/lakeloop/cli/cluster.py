"""The cluster, as the command line needs it. All methods raise CliError where the API server does not answer."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import urllib3
from kubernetes import client, config

from lakeloop.cli.errors import CliError

P = ParamSpec("P")
R = TypeVar("R")
FIELD_MANAGER = "lakeloop-cli"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}


def _told(call: Callable[P, R]) -> Callable[P, R]:
    """Turns the client's errors into CliError."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except client.ApiException as error:
            raise CliError(f"the API server refused: {error.status} {error.reason}: {error.body}") from error
        except urllib3.exceptions.HTTPError as error:
            raise CliError(
                f"the API server does not answer: {error}; is the cluster up, the kubeconfig right?"
            ) from error

    return wrapped


class Cluster:
    """One cluster by its kubeconfig (default: kubectl's) and context. Raises CliError when there is none."""

    def __init__(self, kubeconfig: Path | None, context: str | None = None) -> None:
        try:
            api = config.new_client_from_config(str(kubeconfig) if kubeconfig else None, context)
        except (config.ConfigException, OSError) as error:
            raise CliError(f"no cluster to work on: {error}; pass --kubeconfig, or set KUBECONFIG") from error
        self._api = api
        self._core = client.CoreV1Api(api)

    def _plain(self, found: Any) -> Any:
        return self._api.sanitize_for_serialization(found)

    @_told
    def ensure_namespace(self, name: str) -> None:
        """The namespace is there and enforces the restricted Pod Security level."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
        self._core.patch_namespace(
            name,
            body,
            field_manager=FIELD_MANAGER,
            force=True,
            _content_type="application/apply-patch+yaml",
        )

    @_told
    def node_addresses(self) -> list[str]:
        """The nodes' internal addresses."""
        nodes = self._plain(self._core.list_node())["items"]
        return [
            address["address"]
            for node in nodes
            for address in node["status"].get("addresses", [])
            if address["type"] == "InternalIP"
        ]

    @_told
    def pods(self, namespace: str) -> list[Mapping[str, Any]]:
        """The namespace's pods; none when there is no such namespace."""
        found: list[Mapping[str, Any]] = self._plain(self._core.list_namespaced_pod(namespace))["items"]
        return found

    @_told
    def service(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The Service, or None."""
        items = self._plain(self._core.list_namespaced_service(namespace, field_selector=f"metadata.name={name}"))
        return next(iter(items["items"]), None)

    def log(self, pod: Mapping[str, Any], container: str, lines: int = 15) -> str:
        """The last lines of the container's log, or of the one before it if it is silent yet; else empty."""
        for previous in (False, True):
            try:
                text = self._core.read_namespaced_pod_log(
                    pod["metadata"]["name"],
                    pod["metadata"]["namespace"],
                    container=container,
                    tail_lines=lines,
                    previous=previous,
                )
            except (client.ApiException, urllib3.exceptions.HTTPError):
                continue
            if text:
                return str(text).rstrip()
        return ""

    @_told
    def delete_pods(self, namespace: str, selector: str) -> None:
        """Pods with these labels."""
        self._core.delete_collection_namespaced_pod(namespace, label_selector=selector)

    @_told
    def delete_data(self, namespace: str, secrets: str, claims: str) -> None:
        """What a release leaves behind on purpose: Secrets and volumes with these labels."""
        self._core.delete_collection_namespaced_secret(namespace, label_selector=secrets)
        self._core.delete_collection_namespaced_persistent_volume_claim(namespace, label_selector=claims)
