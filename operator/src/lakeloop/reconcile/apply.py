"""Carries a Plan out, in the order that Plan documents. The same for every kind."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from lakeloop.adapters.kubernetes_protocol import Kubernetes, KubernetesError
from lakeloop.domain.covers import covers
from lakeloop.domain.plan import Effect, Manifest, ObjectRef, Plan, controller_of

logger = logging.getLogger(__name__)

FINALIZER: Final = "lakeloop.io/cleanup"
_IDENTITY: Final = ("app.kubernetes.io/managed-by", "app.kubernetes.io/name", "app.kubernetes.io/instance")
_REFUSALS = frozenset({400, 403, 404, 413, 422})

T = TypeVar("T")
RunEffect = Callable[[Effect], Awaitable[None]]


class ManifestRefused(KubernetesError):
    """The API server refuses what we made: invalid, against a policy or a quota, or its namespace is going."""

    def __init__(self, manifest: Manifest, error: KubernetesError) -> None:
        super().__init__(error.status, error.reason, error.message, error.detail)
        self.manifest = manifest


class NameTaken(ManifestRefused):
    """Something that is not ours has the name that we need. It is left as it is."""

    def __init__(self, manifest: Manifest, told: str) -> None:
        super().__init__(manifest, KubernetesError(409, "NameTaken", told))


def reference(obj: Mapping[str, Any]) -> ObjectRef:
    """What points to this object, uid included."""
    meta = obj["metadata"]
    return ObjectRef(obj["apiVersion"], obj["kind"], meta.get("namespace", ""), meta["name"], meta.get("uid"))


async def apply_plan(
    kubernetes: Kubernetes, obj: Mapping[str, Any], plan: Plan, run_effect: RunEffect
) -> Mapping[str, Any] | None:
    """Does what the plan says to the object that it was decided for, as it was read.

    Returns the object as it is after that: what was read, where nothing of it was written; None where it must be read
    again.

    Raises ManifestRefused where a manifest is wrong, KubernetesError(409) where the object changed meanwhile, whatever
    `run_effect` raises, and KubernetesError for the rest. What was done before stays: the next pass goes on from there.
    """
    owner = reference(obj)
    logger.debug("%s: %s", plan.policy, plan.reason, extra=_context(owner, plan))
    now = obj
    if plan.finalizer:
        now = await _with_finalizer(kubernetes, obj, owner)
    version = now["metadata"]["resourceVersion"]
    changed = plan.status is not None and plan.status != (obj.get("status") or {})
    if changed and plan.status_first:
        now = await _write_status(kubernetes, owner, plan, version)
    for effect in plan.effects:
        await run_effect(effect)
    await _apply(kubernetes, plan, owner)
    for manifest in plan.create:
        await _guarded(manifest, kubernetes.create(manifest))
    for child in plan.delete:
        await kubernetes.delete(child)
    if changed and not plan.status_first:
        now = await _write_status(kubernetes, owner, plan, version)
    for event in plan.events:
        await kubernetes.emit(owner, event)
    if plan.finalizer is False:
        await _without_finalizer(kubernetes, owner)
        return None
    return now


async def _apply(kubernetes: Kubernetes, plan: Plan, owner: ObjectRef) -> None:
    """What is not there yet, or not as it should be."""
    wanted = list(plan.apply)
    if plan.apply_new:
        # A creation costs the API server half of a look and an apply, and takes nothing over.
        wanted = [each for each in wanted if not await _guarded(each, kubernetes.create(each))]
    there = await asyncio.gather(*(kubernetes.get(replace(reference(each), uid=None)) for each in wanted))
    for manifest, live in zip(wanted, there, strict=True):
        if live is not None:
            _check_ours(live, manifest, owner)
    for manifest, live in zip(wanted, there, strict=True):
        if not covers(live, manifest):
            await _guarded(manifest, kubernetes.apply(manifest))


def _check_ours(live: Mapping[str, Any], manifest: Manifest, owner: ObjectRef) -> None:
    """Raises NameTaken where the object of that name is not the owner's: an apply would take it over, by force."""
    controller, labels = controller_of(live), live["metadata"].get("labels") or {}
    if controller is None:
        # One of ours that has lost its owner, in a restored backup say, is known by its labels.
        if all(labels.get(key) == manifest["metadata"]["labels"][key] for key in _IDENTITY):
            return
    elif controller["uid"] == owner.uid:
        return
    told = f"{manifest['kind']} {manifest['metadata']['name']} is there already, and not ours"
    if controller is not None and (controller["kind"], controller["name"]) == (owner.kind, owner.name):
        raise NameTaken(manifest, f"{told}: it is of an earlier {owner.kind} of this name, and is being removed")
    raise NameTaken(manifest, f"{told}: delete it, or give this {owner.kind} another name")


async def _guarded(manifest: Manifest, call: Awaitable[T]) -> T:
    try:
        return await call
    except KubernetesError as error:
        if error.status in _REFUSALS:
            raise ManifestRefused(manifest, error) from error
        raise


async def _write_status(kubernetes: Kubernetes, owner: ObjectRef, plan: Plan, version: str) -> Mapping[str, Any]:
    logger.info("%s: %s", plan.policy, plan.reason, extra=_context(owner, plan))
    return await kubernetes.replace_status(owner, plan.status or {}, resource_version=version)


async def _with_finalizer(kubernetes: Kubernetes, obj: Mapping[str, Any], owner: ObjectRef) -> Mapping[str, Any]:
    """Returns the object to go on with."""
    meta = obj["metadata"]
    finalizers = list(meta.get("finalizers") or ())
    if FINALIZER in finalizers:
        return obj
    # On the version that was read: what comes back differs from it by the finalizer alone.
    return await kubernetes.set_finalizers(owner, [*finalizers, FINALIZER], resource_version=meta["resourceVersion"])


async def _without_finalizer(kubernetes: Kubernetes, owner: ObjectRef) -> None:
    now = await kubernetes.get(owner)
    if now is None or now["metadata"].get("uid") != owner.uid:
        return
    finalizers = list(now["metadata"].get("finalizers") or ())
    if FINALIZER in finalizers:
        finalizers.remove(FINALIZER)
        await kubernetes.set_finalizers(owner, finalizers, resource_version=now["metadata"]["resourceVersion"])


def _context(owner: ObjectRef, plan: Plan) -> dict[str, Any]:
    run = ((plan.status or {}).get("run") or {}).get("number")
    about = {"kind": owner.kind, "namespace": owner.namespace, "object": owner.name, "policy": plan.policy}
    return about | ({"run": run} if run is not None else {})
