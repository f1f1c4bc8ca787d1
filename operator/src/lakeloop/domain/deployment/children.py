"""Which manifests a step comes to, and which of them the cluster does not have yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lakeloop.api.v1alpha1.deployment_status import ModelDeploymentStatus
from lakeloop.domain.covers import covers
from lakeloop.domain.deployment.observed import Observed, Servers
from lakeloop.domain.deployment.rollout import Step
from lakeloop.domain.plan import Manifest, ObjectRef, controller_of
from lakeloop.render.serving import names
from lakeloop.render.serving.deployment import scaled, server_deployment
from lakeloop.render.serving.digest import digest_config
from lakeloop.render.serving.disruption_budget import disruption_budget
from lakeloop.render.serving.network_policy import server_network_policy
from lakeloop.render.serving.service import server_service
from lakeloop.settings import Settings

_BUDGET: Final = ("policy/v1", "PodDisruptionBudget")


@dataclass(frozen=True, slots=True)
class Children:
    """In the order in which they are to be applied and deleted."""

    apply: tuple[Manifest, ...]
    delete: tuple[ObjectRef, ...]


def child_plan(
    observed: Observed, step: Step, status: ModelDeploymentStatus, settings: Settings | None, now: datetime
) -> Children:
    """`settings` None: nothing is applied, only the step's revisions are removed."""
    wanted = [] if settings is None else _manifests(observed, step, status, settings, now)
    deployments = {servers.live["metadata"]["name"]: servers.live for servers in observed.servers.values()}
    return Children(
        apply=tuple(each for each in wanted if not covers(_live(observed, deployments, each), each)),
        delete=tuple(_deletions(observed, step)),
    )


def servers_ref(servers: Servers) -> ObjectRef:
    """The Deployment of these servers."""
    meta = servers.live["metadata"]
    return ObjectRef("apps/v1", "Deployment", meta.get("namespace", ""), meta["name"], meta.get("uid"))


def settled_since(service: Mapping[str, Any] | None) -> datetime | None:
    """When the Service last began to select other servers; None where it does not say."""
    at = ((service or {}).get("metadata") or {}).get("annotations", {}).get(names.SELECTED_AT)
    try:
        return datetime.fromisoformat(at) if at else None
    except ValueError:
        return None


def _live(observed: Observed, deployments: Mapping[str, Any], wanted: Manifest) -> Mapping[str, Any] | None:
    name = wanted["metadata"]["name"]
    return deployments.get(name) if wanted["kind"] == "Deployment" else observed.live.get((wanted["kind"], name))


def _manifests(
    observed: Observed, step: Step, status: ModelDeploymentStatus, settings: Settings, now: datetime
) -> list[Manifest]:
    meta = observed.deployment.metadata
    at = (meta.namespace, meta.name, meta.uid)
    endpoint = observed.spec.storage.endpoint or settings.storage_endpoint
    shared: list[Manifest] = [
        server_network_policy(*at, storage_endpoint=endpoint),
        server_service(
            *at,
            revision=step.pinned,
            service_type=settings.server_service_type,
            selected_at=_selected_at(observed, step, now),
        ),
    ]
    if observed.spec.replicas > 1:
        shared.append(disruption_budget(*at))
    servers: list[Manifest] = []
    for revision, count in step.replicas.items():
        servers += _revision(observed, status, settings, revision, count)
    # The Service before the servers: nothing is scaled down on the strength of a selection that is not made yet.
    return shared + servers


def _selected_at(observed: Observed, step: Step, now: datetime) -> datetime:
    meta = observed.deployment.metadata
    selector = ((observed.service or {}).get("spec") or {}).get("selector")
    before = settled_since(observed.service)
    same = selector == names.selector(meta.name, step.pinned)
    return before if same and before is not None else now


def _revision(
    observed: Observed, status: ModelDeploymentStatus, settings: Settings, revision: str, replicas: int
) -> list[Manifest]:
    meta, target = observed.deployment.metadata, observed.described(revision)
    at = (meta.namespace, meta.name, meta.uid)
    manifests: list[Manifest] = []
    known = next((each for each in (status.stable, status.candidate) if each and each.revision == revision), None)
    if known is not None:
        manifests.append(digest_config(*at, revision=revision, digest=known.digest, ca=settings.storage_ca))
    if target is not None:
        version, template = target.registered.version, target.template
        manifests.append(
            server_deployment(*at, revision=revision, version=version, template=template, replicas=replicas)
        )
    elif revision in observed.servers:
        # What the present spec does not describe stays as it is, but for its size.
        manifests.append(scaled(observed.servers[revision].live, replicas))
    return manifests


def _deletions(observed: Observed, step: Step) -> list[ObjectRef]:
    meta = observed.deployment.metadata
    gone: list[ObjectRef] = []
    gone += [servers_ref(observed.servers[revision]) for revision in sorted(step.remove)]
    for (kind, name), live in sorted(observed.live.items()):
        # Not by the Deployment: a crash may have left one without it.
        marked = (live["metadata"].get("labels") or {}).get(names.REVISION)
        if kind == "ConfigMap" and marked and marked not in step.replicas:
            gone.append(ObjectRef("v1", "ConfigMap", meta.namespace, name, live["metadata"].get("uid")))
    budget = observed.live.get((_BUDGET[1], meta.name))
    controller = controller_of(budget) if budget is not None else None
    if budget is not None and observed.spec.replicas <= 1 and controller and controller["uid"] == meta.uid:
        gone.append(ObjectRef(*_BUDGET, meta.namespace, meta.name, budget["metadata"].get("uid")))
    return gone
