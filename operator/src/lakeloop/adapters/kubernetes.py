"""`Kubernetes` over the API server's REST interface, with kubernetes.aio's configuration, authentication and pool.

Objects are plain dicts in the API's own shapes. The generated models are left alone: they cost memory, and say nothing
of our own kinds. Paths: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import asyncio
import json
import logging
import os
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass
from uuid import uuid4

import aiohttp
from kubernetes.aio import client, config

from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.domain.plan import Event, Manifest, ObjectRef

logger = logging.getLogger(__name__)

FIELD_MANAGER = "lakeloop"
REQUEST_SECONDS = 15.0
TRIES = 4
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 5.0
PAGE = 500
RETRIED = frozenset({429, 500, 502, 503, 504})
_UNTYPED = "failed to create typed patch object"
EVENT_REPEAT_SECONDS = {"Normal": 10.0, "Warning": 600.0}
"""For how long the same event on the same object is not said again: what is wrong is found anew by every pass."""
EVENTS_REMEMBERED = 2048
WRITES_REMEMBERED = 2048
"""Of objects of our own kinds. What the watch shows of an older one costs a look, and no more."""

APPLY = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
"""As an answer to what is not looked at: the object would come back whole."""

PLURALS: Mapping[str, str] = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Event": "events",
    "HTTPRoute": "httproutes",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "Lease": "leases",
    "ModelDeployment": "modeldeployments",
    "NetworkPolicy": "networkpolicies",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "ReplicaSet": "replicasets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "TrainingJob": "trainingjobs",
}
"""What we touch; all of it namespaced."""

_DEFAULT_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    422: "Invalid",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
    504: "Timeout",
}


async def load_configuration() -> client.Configuration:
    """In a pod, its service account's (the token is read again as it is renewed); else the kubeconfig's.

    Raises KubernetesError(0) where there is neither.
    """
    configuration = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
            config.load_incluster_config(client_configuration=configuration)
        else:
            path = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
            await config.load_kube_config(config_file=path, client_configuration=configuration)
    except config.ConfigException as error:
        raise KubernetesError(0, "NoConfiguration", str(error)) from error
    # Left to itself the client looks for a proxy in the environment, and for a password in ~/.netrc, at every request.
    configuration.client_session_kwargs = {"trust_env": False}
    host = urlsplit(configuration.host)
    if configuration.proxy is None and not proxy_bypass(host.netloc):
        configuration.proxy = getproxies().get(host.scheme)
    return configuration


class KubernetesApi:
    """The adapter behind the `Kubernetes` protocol. One per process: it holds the connection pool.

    Requests that are safe to repeat are, on 429, 5xx and lost connections, after Retry-After or a jittered wait.
    """

    def __init__(self, configuration: client.Configuration, *, reporter: str = "lakeloop-operator") -> None:
        self._client = client.ApiClient(configuration)
        self._client.user_agent = "lakeloop-operator"
        self._reporter = reporter
        self._emitted: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._wrote: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def ready(self) -> bool:
        """Whether the API server answers and knows us."""
        try:
            await self.request("GET", "/version", tries=1)
        except KubernetesError:
            return False
        return True

    async def get(self, ref: ObjectRef) -> Mapping[str, Any] | None:
        try:
            return await self.request("GET", path_of(ref.api_version, ref.kind, ref.namespace, ref.name))
        except KubernetesError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, api_version: str, kind: str, namespace: str | None, labels: Mapping[str, str]
    ) -> Sequence[Mapping[str, Any]]:
        items: list[Mapping[str, Any]] = []
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        while True:
            page = await self.request("GET", path_of(api_version, kind, namespace), query)
            # The items of a list come without apiVersion and kind.
            items += [{"apiVersion": api_version, "kind": kind, **item} for item in page.get("items") or ()]
            if not (token := (page.get("metadata") or {}).get("continue")):
                return items
            query["continue"] = token

    async def create(self, manifest: Manifest) -> bool:
        path = path_of(manifest["apiVersion"], manifest["kind"], manifest["metadata"].get("namespace"))
        try:
            # Strict: a field that nobody knows would be dropped in silence. Server-side apply is always strict.
            query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
            await self.request("POST", path, query, manifest, accept=METADATA, blind=True)
        except KubernetesError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return False
            raise
        return True

    async def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Mapping[str, Any]:
        metadata = manifest["metadata"]
        path = path_of(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        return await self.request("PATCH", path, query, manifest, content_type=APPLY, blind=True)

    async def delete(self, ref: ObjectRef, *, grace_seconds: int | None = None) -> None:
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if ref.uid:
            known = {"uid": ref.uid, "resourceVersion": ref.resource_version}
            options["preconditions"] = {key: value for key, value in known.items() if value}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self.request("DELETE", path_of(ref.api_version, ref.kind, ref.namespace, ref.name), body=options)
        except KubernetesError as error:
            # 409: the precondition failed, so that another object has the name and ours is gone, or it is not as seen.
            if error.status == 404 or (error.status == 409 and ref.uid):
                return
            raise

    async def replace_status(
        self, ref: ObjectRef, status: Mapping[str, Any], *, resource_version: str
    ) -> Mapping[str, Any]:
        # The API server takes nothing but status of it, and spares itself the work of a patch.
        metadata = {"name": ref.name, "namespace": ref.namespace, "resourceVersion": resource_version}
        if ref.uid:
            metadata["uid"] = ref.uid
        body = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata, "status": status}
        path = path_of(ref.api_version, ref.kind, ref.namespace, ref.name) + "/status"
        return self._remembered(await self.request("PUT", path, {"fieldManager": FIELD_MANAGER}, body))

    async def set_finalizers(
        self, ref: ObjectRef, finalizers: Sequence[str], *, resource_version: str
    ) -> Mapping[str, Any]:
        body = {"metadata": {"finalizers": list(finalizers), "resourceVersion": resource_version}}
        path = path_of(ref.api_version, ref.kind, ref.namespace, ref.name)
        made = await self.request("PATCH", path, {"fieldManager": FIELD_MANAGER}, body, content_type=MERGE_PATCH)
        return self._remembered(made)

    def wrote(self, metadata: Mapping[str, Any]) -> bool:
        """Whether an object is just as this process wrote its status or finalizers: nobody has changed it since."""
        return (metadata.get("uid", ""), metadata.get("resourceVersion", "")) in self._wrote

    def _remembered(self, made: Mapping[str, Any]) -> Mapping[str, Any]:
        metadata = made.get("metadata") or {}
        self._wrote[metadata.get("uid", ""), metadata.get("resourceVersion", "")] = None
        if len(self._wrote) > WRITES_REMEMBERED:
            self._wrote.popitem(last=False)
        return made

    async def emit(self, regarding: ObjectRef, event: Event) -> None:
        what = (regarding.uid or regarding.name, event.reason, event.message)
        if self._said_lately(what, EVENT_REPEAT_SECONDS[event.type]):
            return
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        manifest = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": regarding.namespace, "name": f"{regarding.name}.{uuid4().hex[:16]}"},
            "type": event.type,
            "reason": event.reason[:128],
            "note": event.message[:1024],
            "action": event.reason[:128],
            "eventTime": now,
            "reportingController": "lakeloop.io/operator",
            "reportingInstance": self._reporter[:128],
            "regarding": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "namespace": regarding.namespace,
                "name": regarding.name,
                **({"uid": regarding.uid} if regarding.uid else {}),
            },
        }
        try:
            path = path_of("events.k8s.io/v1", "Event", regarding.namespace)
            await self.request("POST", path, body=manifest, accept=METADATA, tries=1)
        except KubernetesError as error:
            logger.warning("event %s on %s not recorded: %s", event.reason, regarding.name, error)

    def _said_lately(self, what: tuple[str, str, str], seconds: float) -> bool:
        now = asyncio.get_running_loop().time()
        last = self._emitted.get(what)
        if last is not None and now - last < seconds:
            return True
        self._emitted[what] = now
        self._emitted.move_to_end(what)
        if len(self._emitted) > EVENTS_REMEMBERED:
            self._emitted.popitem(last=False)
        return False

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        content_type: str = JSON,
        accept: str = JSON,
        tries: int = TRIES,
        blind: bool = False,
    ) -> dict[str, Any]:
        """One call, repeated where that is safe and may help. Raises KubernetesError, and nothing else.

        `blind`: the request says nothing of what was read before, so that it is as right after a conflict as before it:
        the API server answers that where two pods count against one ResourceQuota in the same moment, say.
        """
        for attempt in range(1, tries + 1):
            try:
                return await self._once(method, path, query or {}, body, (content_type, accept), blind)
            except _Retriable as failure:
                # A 429 was not acted on. After any other failure a creation may have happened, which the second try
                # then reports as AlreadyExists: names are deterministic, so that means the same.
                if attempt == tries:
                    raise failure.error from failure.error.__cause__
                await asyncio.sleep(_wait(attempt, failure.retry_after))
        raise AssertionError("unreachable: tries is at least 1")

    async def _once(
        self, method: str, path: str, query: Mapping[str, str], body: Any, types: tuple[str, str], blind: bool
    ) -> dict[str, Any]:
        headers = {"Content-Type": types[0], "Accept": types[1]}
        try:
            # Each time, so that a renewed token is used.
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            headers["User-Agent"] = self._client.user_agent
            response = await self._client.call_api(
                method,
                self._client.configuration.host + path + (f"?{urlencode(query)}" if query else ""),
                headers,
                _plain(body),
                _request_timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            )
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"{method} {path}: no answer: {str(error) or type(error).__name__}"
            raise _Retriable(_caused(KubernetesError(0, "Unreachable", message), error), None) from error
        except config.ConfigException as error:
            raise KubernetesError(0, "NoConfiguration", str(error)) from error
        if 200 <= response.status < 300:
            return _object(data)
        failure = _failure(method, path, response.status, data)
        if failure.status in RETRIED or (blind and failure.reason == "Conflict"):
            raise _Retriable(failure, _seconds(response.headers.get("Retry-After")))
        raise failure


class _Retriable(Exception):
    def __init__(self, error: KubernetesError, retry_after: float | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


def path_of(api_version: str, kind: str, namespace: str | None, name: str | None = None) -> str:
    """`/apis/apps/v1/namespaces/a/deployments/b`. Raises KubernetesError(0, `UnknownKind`) for what we never touch."""
    if kind not in PLURALS:
        raise KubernetesError(0, "UnknownKind", f"no path is known for kind {kind!r}")
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    where = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{where}/{PLURALS[kind]}" + (f"/{quote(name, safe='')}" if name else "")


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind as what `json` takes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data) if data else {}
    except ValueError as error:
        raise KubernetesError(0, "BadAnswer", "the API server answered something that is not JSON") from error
    return value if isinstance(value, dict) else {}


def _failure(method: str, path: str, status: int, data: bytes) -> KubernetesError:
    # Something in between may answer with a page of its own.
    try:
        body = json.loads(data)
    except ValueError:
        body = {}
    found = body if isinstance(body, dict) else {}
    detail = str(found.get("message") or f"HTTP {status}")
    if status == 500 and detail.startswith(_UNTYPED):
        # What server-side apply makes of a field that is unknown or of another type. It stays so.
        return KubernetesError(422, "Invalid", f"{method} {path}: {detail}", detail)
    reason = found.get("reason") or _DEFAULT_REASONS.get(status, f"Http{status}")
    return KubernetesError(status, str(reason), f"{method} {path}: {detail}", detail)


def _caused(error: KubernetesError, cause: BaseException) -> KubernetesError:
    error.__cause__ = cause
    return error


def _seconds(retry_after: str | None) -> float | None:
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None


def _wait(attempt: int, retry_after: float | None) -> float:
    wait = FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1) if retry_after is None else retry_after
    return float(min(wait, LONGEST_WAIT_SECONDS) * (1.0 + 0.25 * random.random()))  # noqa: S311 - not a secret
