"""One pass over a ModelDeployment: gather, decide, apply, report."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lakeloop.adapters.clock import Clock
from lakeloop.adapters.kubernetes_protocol import Kubernetes, KubernetesError
from lakeloop.adapters.servers_protocol import ModelServers
from lakeloop.adapters.tracking_protocol import (
    ModelVersion,
    TrackingDenied,
    TrackingError,
    TrackingServer,
    TrackingServers,
    TrackingUnavailable,
)
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.api.v1alpha1.base import InvalidObject
from lakeloop.api.v1alpha1.defaults import (
    EffectiveDeploymentSpec,
    effective_deployment_spec,
    storage_secret_name,
    tracking_secret_name,
)
from lakeloop.api.v1alpha1.deployment_status import ModelDeploymentStatus
from lakeloop.api.v1alpha1.implemented import unimplemented_fields
from lakeloop.api.v1alpha1.modeldeployment import KIND, ModelDeployment, parse_model_deployment
from lakeloop.domain.deployment.actions import returns_to
from lakeloop.domain.deployment.decide import decide
from lakeloop.domain.deployment.effects import TagVersion
from lakeloop.domain.deployment.observed import (
    Observed,
    Problem,
    Registered,
    Report,
    Servers,
    Target,
    pinned_by,
    pod_of,
    servers_of,
)
from lakeloop.domain.deployment.signature import parse_signature
from lakeloop.domain.plan import Effect, Event, ObjectRef, Plan
from lakeloop.reconcile.apply import ManifestRefused, NameTaken, apply_plan
from lakeloop.reconcile.followers import AliasMoves
from lakeloop.reconcile.protocol import Telemetry
from lakeloop.reconcile.secrets import tracking_auth, wrong_with_storage
from lakeloop.reconcile.server_counts import ServerCounts
from lakeloop.render.errors import Unrenderable
from lakeloop.render.serving import names
from lakeloop.render.serving.pod import ModelSource, server_template, with_revision
from lakeloop.settings import Settings
from lakeloop.status.conditions import STALLED, find, shortened
from lakeloop.status.deployment import stalled_status

logger = logging.getLogger(__name__)

REFUSED_SECONDS: Final = 30.0
"""When to try again what the API server refused: a quota may be raised meanwhile."""
NAME_TAKEN_SECONDS: Final = 5.0
"""When to look again whether a name is free: what an earlier object left is collected soon."""
REMEMBERED: Final = 4096
ASK_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the registry says should be served, or why it cannot say."""

    target: Target | None = None
    problem: Problem | None = None


class ModelDeploymentReconciler:
    """Implements `Reconciler`."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        tracking: TrackingServers,
        servers: ModelServers,
        clock: Clock,
        settings: Settings,
        telemetry: Telemetry,
        moves: AliasMoves,
    ) -> None:
        self._kubernetes = kubernetes
        self._tracking = tracking
        self._servers = servers
        self._clock = clock
        self._settings = settings
        self._telemetry = telemetry
        self._moves = moves
        self._uris: dict[tuple[str, int, str], str] = {}
        self._reports: dict[tuple[str, str], Report] = {}
        self._asked: dict[tuple[str, str], float] = {}
        self._counts = ServerCounts(servers)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        obj = await self._kubernetes.get(ObjectRef(API_VERSION, KIND, namespace, name))
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            # What was made for it goes by its owner references.
            return None
        try:
            deployment = parse_model_deployment(obj)
        except InvalidObject as error:
            return await self._stall(obj, "InvalidSpec", str(error), None)
        if fields := unimplemented_fields("ModelDeployment", obj.get("spec") or {}):
            message = f"{', '.join(fields)}: not acted on by this release; take it away to go on"
            return await self._stall(obj, "NotImplemented", message, None)
        return await self._pass(obj, deployment)

    async def _pass(self, obj: Mapping[str, Any], deployment: ModelDeployment) -> float | None:
        began = time.perf_counter()
        server, observed = await self._gather(deployment)
        gathered = time.perf_counter()
        now = self._clock.now()
        plan = decide(observed, now, self._settings)
        decided = time.perf_counter()
        try:
            await apply_plan(self._kubernetes, obj, plan, _Effects(server))
        except NameTaken as error:
            return await self._stall(obj, "NameTaken", f"metadata.name: {error.detail}", NAME_TAKEN_SECONDS)
        except ManifestRefused as error:
            kind, name = error.manifest["kind"], error.manifest["metadata"]["name"]
            field = _field_of(deployment, error)
            message = f"{field}{kind} {name} was refused: {error.detail}"
            return await self._stall(obj, "ManifestRefused", message, REFUSED_SECONDS)
        finally:
            for phase, seconds in (
                ("gather", gathered - began),
                ("decide", decided - gathered),
                ("apply", time.perf_counter() - decided),
            ):
                self._telemetry.phase(KIND, phase, seconds)
        self._tell(deployment.status, plan, now)
        return plan.requeue_after

    async def _gather(self, deployment: ModelDeployment) -> tuple[TrackingServer | None, Observed]:
        spec, meta = effective_deployment_spec(deployment.spec), deployment.metadata
        children, (server, wanted) = await asyncio.gather(
            self._children(meta.namespace, meta.name), self._wanted(deployment, spec)
        )
        servers, live = children
        stable = deployment.status.stable
        back = returns_to(deployment)
        lost = stable is not None and stable.revision not in servers
        if back is None and stable is not None and lost:
            back = stable.version
        recovery: Target | None = None
        if server is not None and back is not None and not (wanted.target and wanted.target.registered.version == back):
            recovery = await self._recovery(server, deployment, spec, back)
        alias, found = spec.model.alias, wanted.target
        pinned = pinned_by(live.get(("Service", meta.name)))
        return server, Observed(
            deployment=deployment,
            spec=spec,
            target=wanted.target,
            problem=wanted.problem,
            recovery=recovery,
            servers=servers,
            live=live,
            reports=await self._all_reports(deployment, servers),
            counted=await self._counts.since_last_look(deployment, spec, servers, pinned),
            alias_moved=self._moves.when(spec.model.name, alias, found.registered.version) if alias and found else None,
        )

    async def _recovery(
        self, server: TrackingServer, deployment: ModelDeployment, spec: EffectiveDeploymentSpec, version: int
    ) -> Target | None:
        try:
            return (await self._fixed(server, deployment, spec, version)).target
        except TrackingError:
            return None  # the next look may find it

    async def _children(
        self, namespace: str, name: str
    ) -> tuple[dict[str, Servers], dict[tuple[str, str], Mapping[str, Any]]]:
        labels = names.children_of(name)
        deployments, pods, configs, service, budget, policy = await asyncio.gather(
            self._kubernetes.list("apps/v1", "Deployment", namespace, labels),
            self._kubernetes.list("v1", "Pod", namespace, labels),
            self._kubernetes.list("v1", "ConfigMap", namespace, labels),
            self._kubernetes.get(ObjectRef("v1", "Service", namespace, name)),
            self._kubernetes.get(ObjectRef("policy/v1", "PodDisruptionBudget", namespace, name)),
            self._kubernetes.get(ObjectRef("networking.k8s.io/v1", "NetworkPolicy", namespace, name)),
        )
        there = tuple(pod for pod in (pod_of(each) for each in pods) if pod is not None)
        servers = [
            servers_of(each, there)
            for each in deployments
            if not each["metadata"].get("deletionTimestamp") and _is_ours(each["metadata"]["labels"])
        ]
        live = {("ConfigMap", each["metadata"]["name"]): each for each in configs}
        for kind, found in (("Service", service), ("PodDisruptionBudget", budget), ("NetworkPolicy", policy)):
            if found is not None:
                live[kind, name] = found
        return {each.revision: each for each in servers}, live

    async def _wanted(
        self, deployment: ModelDeployment, spec: EffectiveDeploymentSpec
    ) -> tuple[TrackingServer | None, _Wanted]:
        namespace, secret = deployment.metadata.namespace, storage_secret_name(spec.storage)
        if secret is not None and not spec.storage.service_account_name:
            found = await self._kubernetes.get(ObjectRef("v1", "Secret", namespace, secret))
            if (wrong := wrong_with_storage(found, secret, namespace)) is not None:
                return None, _Wanted(problem=Problem("spec.storage.secretRef", *wrong))
        secret = tracking_secret_name(spec.tracking.secret_ref)
        server = self._tracking.connect(await tracking_auth(self._kubernetes, namespace, secret))
        try:
            return server, await self._resolve(server, deployment, spec)
        except TrackingDenied as error:
            return None, _Wanted(problem=Problem("spec.tracking.secretRef", "RegistryDenied", error.message))
        except TrackingUnavailable as error:
            return None, _Wanted(problem=Problem("spec.model", "RegistryUnavailable", error.message))
        except TrackingError as error:
            return server, _Wanted(problem=Problem("spec.model", "RegistryRefused", error.message, 60.0))

    async def _resolve(
        self, server: TrackingServer, deployment: ModelDeployment, spec: EffectiveDeploymentSpec
    ) -> _Wanted:
        model = spec.model
        if model.version is not None:
            return await self._fixed(server, deployment, spec, model.version)
        alias = model.alias or ""
        found = await server.get_model_version_by_alias(model.name, alias)
        if found is not None:
            return await self._target(server, deployment, spec, found, "spec.model.alias")
        if not await server.search_model_versions(model.name, limit=1):
            return _Wanted(problem=_no_model(model.name))
        message = f"model {model.name!r} has no alias {alias!r}: set it in MLflow, or write another"
        return _Wanted(problem=Problem("spec.model.alias", "AliasNotFound", message))

    async def _fixed(
        self, server: TrackingServer, deployment: ModelDeployment, spec: EffectiveDeploymentSpec, version: int
    ) -> _Wanted:
        name = spec.model.name
        found = await server.get_model_version(name, version)
        if found is not None:
            return await self._target(server, deployment, spec, found, "spec.model.version")
        if not await server.search_model_versions(name, limit=1):
            return _Wanted(problem=_no_model(name))
        message = f"model {name!r} has no version {version}: write one that it has"
        return _Wanted(problem=Problem("spec.model.version", "VersionNotFound", message))

    async def _target(
        self,
        server: TrackingServer,
        deployment: ModelDeployment,
        spec: EffectiveDeploymentSpec,
        found: ModelVersion,
        path: str,
    ) -> _Wanted:
        if found.status not in ("READY", ""):
            message = f"version {found.version} of {found.name!r} is {found.status}"
            return _Wanted(problem=Problem(path, "ModelNotReady", message))
        uri = await self._uri(server, found)
        if not uri.startswith("s3://"):
            message = f"the files of {found.name}/{found.version} lie at {uri}; servers can read s3:// only"
            return _Wanted(problem=Problem(path, "UnsupportedLocation", message, 60.0))
        name = deployment.metadata.name
        try:
            template = server_template(name, spec, ModelSource(found.name, found.version, uri), self._settings)
        except Unrenderable as error:
            return _Wanted(problem=Problem(error.path, error.reason, error.message, None))
        revision = names.revision_of(found.name, found.version, template)
        registered = Registered(found.name, found.version, uri, found.run_id, found.tags)
        return _Wanted(Target(registered, revision, with_revision(template, name, revision)))

    async def _uri(self, server: TrackingServer, found: ModelVersion) -> str:
        # A version's location never changes, but a version may be deleted and its number given to another model of
        # the same name.
        key = (found.name, found.version, f"{found.created_ms}/{found.source}")
        if key not in self._uris:
            if len(self._uris) >= REMEMBERED:
                self._uris.clear()
            self._uris[key] = (await server.get_download_uri(found.name, found.version)).rstrip("/")
        return self._uris[key]

    async def _all_reports(self, deployment: ModelDeployment, servers: Mapping[str, Servers]) -> dict[str, Report]:
        """One server of each revision is asked once."""
        uid, reports = deployment.metadata.uid, {}
        for revision, group in servers.items():
            key = (uid, revision)
            address = next((pod.ip for pod in group.pods if pod.ready and pod.ip), None)
            if key not in self._reports and address is not None and self._may_ask(key):
                told = await self._servers.report(address, deployment.spec.model.name)
                if told is not None:
                    if len(self._reports) >= REMEMBERED:
                        self._reports.clear()
                    signature = parse_signature(told.signature)
                    self._reports[key] = Report(told.digest, tuple(told.warnings), signature)
            if key in self._reports:
                reports[revision] = self._reports[key]
        return reports

    def _may_ask(self, key: tuple[str, str]) -> bool:
        """A server that cannot be reached must not slow every pass down by its timeout."""
        now = time.monotonic()
        if now - self._asked.get(key, float("-inf")) < ASK_SECONDS:
            return False
        if len(self._asked) >= REMEMBERED:
            self._asked.clear()
        self._asked[key] = now
        return True

    async def _stall(self, obj: Mapping[str, Any], reason: str, message: str, again: float | None) -> float | None:
        """Says why the object cannot be acted on; what serves goes on."""
        try:
            status = ModelDeploymentStatus.parse(obj.get("status") or {})
        except InvalidObject:
            status = ModelDeploymentStatus()
        before = find(status.conditions, STALLED)
        known = before is not None and (before.reason, before.message) == (reason, shortened(message))
        now_so = stalled_status(
            status, reason, message, generation=obj["metadata"].get("generation", 0), now=self._clock.now()
        )
        plan = Plan(
            policy="stall",
            reason=f"{reason}: {message}",
            status=now_so.wire(),
            requeue_after=again,
            events=() if known else (Event("Warning", reason, message),),
        )
        try:
            await apply_plan(self._kubernetes, obj, plan, _Effects(None))
        except KubernetesError as error:
            # A part of the refused plan may have been stored, and made the object newer than what was read.
            if error.status != 409:
                raise
            return 1.0
        return again

    def _tell(self, before: ModelDeploymentStatus, plan: Plan, now: datetime) -> None:
        if plan.status is None:
            return
        after = ModelDeploymentStatus.parse(plan.status)
        rollout, old = after.last_rollout, before.last_rollout
        if rollout and rollout.serving_time and rollout.serving_time != (old.serving_time if old else None):
            begun = rollout.alias_moved_time or rollout.observed_time or now
            took = max(0.0, (rollout.serving_time - begun).total_seconds())
            why = after.history[0].reason if after.history else ""
            self._telemetry.rollout("completed", took if why == "AliasMoved" else None)
        known = {(each.revision, each.time) for each in before.rejected or ()}
        for each in after.rejected or ():
            if (each.revision, each.time) not in known:
                self._telemetry.rollout("rejected")


class _Effects:
    """Writes tags, where the registry lets us."""

    def __init__(self, server: TrackingServer | None) -> None:
        self._server = server

    async def __call__(self, effect: Effect) -> None:
        if not isinstance(effect, TagVersion) or self._server is None:
            return
        try:
            if effect.value is None:
                await self._server.delete_model_version_tag(effect.model, effect.version, effect.key)
            else:
                await self._server.set_model_version_tag(effect.model, effect.version, effect.key, effect.value)
        except TrackingError as error:
            logger.warning("tag %s of %s/%s not written: %s", effect.key, effect.model, effect.version, error.message)


def _is_ours(labels: Mapping[str, str]) -> bool:
    """Whether a Deployment has the labels by which it is known; without, it is made anew."""
    return names.REVISION in labels and labels.get(names.MODEL_VERSION, "").isdecimal()


def _field_of(deployment: ModelDeployment, error: ManifestRefused) -> str:
    """The field of the resource that is to blame for what is refused, with a colon; empty where none is."""
    if error.manifest["kind"] != "Deployment" or error.status not in (400, 422):
        return ""
    server = deployment.spec.server
    if ".resources." in error.detail and not (server and server.template):
        return "spec.server.resources: "
    if ".env[" in error.detail and server and server.env and not server.template:
        return "spec.server.env: "
    return "spec.server.template: " if server and server.template else "spec.server: "


def _no_model(name: str) -> Problem:
    return Problem("spec.model.name", "ModelNotFound", f"there is no registered model {name!r}, or it has no version")
