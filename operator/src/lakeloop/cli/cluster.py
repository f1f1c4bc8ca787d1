"""The cluster, as the command line needs it. All methods raise CliError where the API server does not answer."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import urllib3
from kubernetes import client, config

from lakeloop.cli.errors import CliError

P = ParamSpec("P")
R = TypeVar("R")
FIELD_MANAGER = "lakeloop-cli"
GROUP, VERSION = "lakeloop.io", "v1alpha1"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}


def refusal(error: client.ApiException) -> str:
    """What the API server says in its answer, without the rest of the answer."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = error.body or error.reason
    return f"{error.status} {message}" if error.status else str(message)


def told(call: Callable[P, R]) -> Callable[P, R]:
    """Turns the client's errors into CliError."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except client.ApiException as error:
            raise CliError(f"the API server refused: {refusal(error)}") from error
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
        self._source = (str(kubeconfig) if kubeconfig else None, context)

    @property
    def api(self) -> Any:
        """The client, for what is not here."""
        return self._api

    @property
    def namespace(self) -> str:
        """The one that kubectl would work in."""
        try:
            contexts, active = config.list_kube_config_contexts(self._source[0])
        except (config.ConfigException, OSError):
            return "default"
        named = [each for each in contexts if each["name"] == self._source[1]] if self._source[1] else [active]
        return str((named[0]["context"] if named and named[0] else {}).get("namespace") or "default")

    def _plain(self, found: Any) -> Any:
        return self._api.sanitize_for_serialization(found)

    @told
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

    @told
    def node_addresses(self) -> list[str]:
        """The nodes' internal addresses."""
        nodes = self._plain(self._core.list_node())["items"]
        return [
            address["address"]
            for node in nodes
            for address in node["status"].get("addresses", [])
            if address["type"] == "InternalIP"
        ]

    @told
    def pods(self, namespace: str) -> list[Mapping[str, Any]]:
        """The namespace's pods; none when there is no such namespace."""
        found: list[Mapping[str, Any]] = self._plain(self._core.list_namespaced_pod(namespace))["items"]
        return found

    @told
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

    @told
    def delete_pods(self, namespace: str, selector: str) -> None:
        """Pods with these labels."""
        self._core.delete_collection_namespaced_pod(namespace, label_selector=selector)

    @told
    def delete_data(self, namespace: str, secrets: str, claims: str) -> None:
        """What a release leaves behind on purpose: Secrets and volumes with these labels."""
        self._core.delete_collection_namespaced_secret(namespace, label_selector=secrets)
        self._core.delete_collection_namespaced_persistent_volume_claim(namespace, label_selector=claims)

    @told
    def annotate(self, plural: str, namespace: str, name: str, key: str, value: str) -> None:
        """Sets one annotation of one of our objects (`trainingjobs`)."""
        client.CustomObjectsApi(self._api).patch_namespaced_custom_object(
            GROUP,
            VERSION,
            namespace,
            plural,
            name,
            {"metadata": {"annotations": {key: value}}},
            field_manager=FIELD_MANAGER,
            _content_type="application/merge-patch+json",
        )
