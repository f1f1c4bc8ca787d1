"""One pass over a TrainingJob: gather, decide, apply."""

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lakeloop.adapters.clock import Clock
from lakeloop.adapters.delta_log_protocol import DeltaLog
from lakeloop.adapters.kubernetes_protocol import Kubernetes, KubernetesError
from lakeloop.adapters.object_store_protocol import ObjectStores
from lakeloop.adapters.tracking_protocol import TrackingServers
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.api.v1alpha1.base import InvalidObject
from lakeloop.api.v1alpha1.common import Condition
from lakeloop.api.v1alpha1.trainingjob import KIND, TERMINAL_PHASES, parse_training_job
from lakeloop.domain.plan import ObjectRef, Plan
from lakeloop.domain.training.decide import decide
from lakeloop.domain.training.lookups import Lookup, next_lookup
from lakeloop.domain.training.observed import Observed, Problem
from lakeloop.domain.training.situation import Situation, identity, warning
from lakeloop.reconcile.apply import ManifestRefused, apply_plan
from lakeloop.reconcile.protocol import Telemetry
from lakeloop.reconcile.training_effects import TrainingEffects, refusal_of
from lakeloop.reconcile.training_lookups import ProblemFound, Sources
from lakeloop.render.training.names import Platform, pods_of
from lakeloop.status.training import Said, job_conditions

logger = logging.getLogger(__name__)
_UNREADABLE_LOOK_SECONDS = 300.0


class TrainingJobReconciler:
    """Implements Reconciler."""

    kind = KIND

    def __init__(
        self,
        kubernetes: Kubernetes,
        tracking: TrackingServers,
        tables: DeltaLog,
        stores: ObjectStores,
        clock: Clock,
        platform: Platform,
        telemetry: Telemetry,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._kubernetes = kubernetes
        self._sources = Sources(kubernetes, tracking, tables, stores)
        self._clock = clock
        self._platform = platform
        self._telemetry = telemetry
        self._new_uid = new_uid

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """See Reconciler."""
        raw = await self._kubernetes.get(ObjectRef(API_VERSION, KIND, namespace, name))
        if raw is None:
            return None
        try:
            with self._timed("gather"):
                observed = await self.gather(raw)
        except InvalidObject as error:
            plan = self._unreadable(raw, error)
            await apply_plan(self._kubernetes, raw, plan, _no_effect)
            return plan.requeue_after
        return await self._decide_and_apply(observed)

    async def _decide_and_apply(self, observed: Observed) -> float | None:
        now = self._clock.now()
        with self._timed("decide"):
            plan = decide(observed, now)
        sit = Situation(observed, now.replace(microsecond=0))
        try:
            with self._timed("apply"):
                await apply_plan(self._kubernetes, observed.raw, plan, TrainingEffects(self._sources, sit))
        except ProblemFound as found:
            problem: Problem = found.problem
        except ManifestRefused as error:
            problem = refusal_of(error, sit)
        else:
            self._count(sit, plan)
            return plan.requeue_after
        # What was refused is one more thing that was seen: it is decided what follows from it.
        logger.info("%s: refused: %s", plan.policy, problem.text, extra=_context(observed))
        raw = await self._kubernetes.get(ObjectRef(API_VERSION, KIND, *_names(observed)))
        if raw is None or raw["metadata"].get("generation") != observed.raw["metadata"].get("generation"):
            raise KubernetesError(409, "Conflict", "the object changed during the pass")
        again = replace(observed, raw=raw, job=parse_training_job(raw), refusal=problem)
        plan = decide(again, now)
        effects = TrainingEffects(self._sources, Situation(again, now.replace(microsecond=0)))
        await apply_plan(self._kubernetes, raw, plan, effects)
        self._count(sit, plan)
        return plan.requeue_after

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._telemetry.phase(KIND, phase, time.perf_counter() - began)

    def _count(self, sit: Situation, plan: Plan) -> None:
        """A run that this pass has ended."""
        if sit.run is None:
            return
        if sit.observed.job.metadata.deletion_timestamp is not None:
            if plan.finalizer is False:
                self._telemetry.run("Stopped")
            return
        phase = ((plan.status or {}).get("run") or {}).get("phase")
        if phase in TERMINAL_PHASES:
            self._telemetry.run(phase)

    async def gather(self, raw: Mapping[str, Any]) -> Observed:
        """What is: the object's pods, and then only what its state makes it necessary to know.

        Raises InvalidObject, and KubernetesError where the API server does not answer.
        """
        job = parse_training_job(raw)
        meta = job.metadata
        # A live list: what is not in it is gone.
        pods = await self._kubernetes.list("v1", "Pod", meta.namespace, pods_of(meta.name))
        observed = Observed(
            job=job, raw=raw, platform=self._platform, fresh_uid=self._new_uid(), pods=tuple(pods), config_map=None
        )
        run = job.status.run
        if run is not None and run.phase not in TERMINAL_PHASES:
            name = identity(observed, run).config_map
            config_map = await self._kubernetes.get(ObjectRef("v1", "ConfigMap", meta.namespace, name))
            observed = replace(observed, config_map=config_map)
        now = self._clock.now().replace(microsecond=0)
        looked: set[Lookup] = set()
        while (wanted := next_lookup(Situation(observed, now))) is not None and wanted not in looked:
            looked.add(wanted)
            observed = await self._look(wanted, Situation(observed, now))
        return observed

    async def _look(self, wanted: Lookup, sit: Situation) -> Observed:
        observed = sit.observed
        try:
            match wanted:
                case "inputs":
                    pinned, missing = await self._sources.inputs(sit)
                    return replace(observed, inputs=tuple(pinned), manifests=tuple(missing))
                case "tracked":
                    return replace(observed, tracked=await self._sources.tracked(sit))
                case "ingested":
                    return replace(observed, ingested=await self._sources.ingested(sit))
                case "record":
                    return replace(observed, record=await self._sources.record(sit))
                case "version":
                    return replace(observed, version=await self._sources.version(sit))
        except ProblemFound as found:
            return replace(observed, problems=(*observed.problems, found.problem))

    def _unreadable(self, raw: Mapping[str, Any], error: InvalidObject) -> Plan:
        """An object that the schema let pass and the types do not; or one of a newer release."""
        meta, status = raw["metadata"], raw.get("status") or {}
        if meta.get("deletionTimestamp"):
            return Plan("unreadable", "Kubernetes removes what the object owns", finalizer=False)
        said = Said("Refused", "InvalidSpec", str(error))
        before = tuple(Condition.parse(each) for each in status.get("conditions") or ())
        now = self._clock.now().replace(microsecond=0)
        generation = meta.get("generation", 0)
        conditions = job_conditions(before, said, same_spec=False, generation=generation, now=now)
        known = any(each.reason == said.reason and each.message == said.message for each in before)
        return Plan(
            "unreadable",
            str(error),
            status={**status, "observedGeneration": generation, "conditions": [each.wire() for each in conditions]},
            requeue_after=_UNREADABLE_LOOK_SECONDS,
            events=() if known else (warning(said.reason, said.message),),
        )


async def _no_effect(_: object) -> None:
    raise TypeError("this plan has no effects")


def _names(observed: Observed) -> tuple[str, str]:
    return observed.job.metadata.namespace, observed.job.metadata.name


def _context(observed: Observed) -> dict[str, Any]:
    namespace, name = _names(observed)
    run = observed.job.status.run
    return {"kind": KIND, "namespace": namespace, "object": name} | ({"run": run.number} if run else {})
