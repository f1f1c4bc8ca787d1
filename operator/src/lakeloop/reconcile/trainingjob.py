"""One pass over a TrainingJob: gather, decide, apply."""

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from lakeloop.adapters.clock import Clock
from lakeloop.adapters.delta_log_protocol import DeltaLog
from lakeloop.adapters.kubernetes_protocol import Kubernetes, KubernetesError
from lakeloop.adapters.object_store_protocol import ObjectStores, StorageUnavailable
from lakeloop.adapters.tracking_protocol import TrackingServers
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.api.v1alpha1.base import InvalidObject
from lakeloop.api.v1alpha1.common import Condition
from lakeloop.api.v1alpha1.trainingjob import KIND, TERMINAL_PHASES, TrainingJob, parse_training_job
from lakeloop.domain.plan import Manifest, ObjectRef, Plan
from lakeloop.domain.training.decide import decide
from lakeloop.domain.training.driver import labels
from lakeloop.domain.training.lookups import Lookup, next_lookup
from lakeloop.domain.training.observed import FailedLook, NewCommits, Observed, Problem, SeenRun
from lakeloop.domain.training.situation import Situation, identity, warning
from lakeloop.reconcile.apply import ManifestRefused, apply_plan
from lakeloop.reconcile.protocol import Key, Telemetry
from lakeloop.reconcile.secrets import RecentSecrets
from lakeloop.reconcile.table_watch import TableWatch
from lakeloop.reconcile.training_effects import TrainingEffects, refusal_of
from lakeloop.reconcile.training_inputs import ingested_versions, pinned_inputs
from lakeloop.reconcile.training_lookups import ProblemFound, Sources, key_of
from lakeloop.render.training.names import Platform, pods_of
from lakeloop.status.training import Said, job_conditions

logger = logging.getLogger(__name__)
_UNREADABLE_LOOK_SECONDS = 300.0
MOST_STEPS = 8
"""In one go, while each asks for the next at once; then others come first."""
_BLOCKED_LOOK_SECONDS = 15.0
"""Between looks at a trigger's table that cannot be seen, at first."""
_BLIP_SECONDS = 60.0
"""A store that does not answer for so long is not told of: nothing waits for it."""


@dataclass(slots=True)
class _Pass:
    """What the steps of one pass know from those before: no later one asks for it again."""

    sources: Sources
    pods: list[Manifest] | None = None
    """As listed; None after one was made or deleted."""
    config_maps: dict[str, Manifest | None] = field(default_factory=dict)
    """By name, as read; empty after one was written or deleted."""
    tracked: SeenRun | None = None
    """The run in MLflow, where a step made it or found it."""
    begun: str | None = None
    """Uid of the run that a step began: nothing outside knows of it before this pass."""
    held: tuple[Mapping[str, Any], Plan, Situation] | None = None
    """What of a plan is still to be written, the object that it is for, as it was read, and what it was decided by."""

    def decided(self, observed: Observed, plan: Plan) -> None:
        """Of a run that the plan begins, more is known than could be read."""
        run = (plan.status or {}).get("run") or {}
        if run.get("uid") == observed.fresh_uid:
            self.begun, self.tracked = observed.fresh_uid, None

    def applied(self, plan: Plan) -> None:
        """What this plan did is seen anew."""
        if plan.create or plan.delete:
            self.pods = None
        if plan.apply or plan.delete:
            self.config_maps.clear()


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
        watch: TableWatch | None = None,
        secret_seconds: float = 0.0,
    ) -> None:
        """`secret_seconds`: for how long a Secret that was read serves other passes too."""
        self._kubernetes = kubernetes
        self._sources = Sources(kubernetes, tracking, tables, stores, RecentSecrets(kubernetes, secret_seconds))
        self._clock = clock
        self._platform = platform
        self._telemetry = telemetry
        self._new_uid = new_uid
        self._watch = watch or TableWatch(tables, clock)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """See Reconciler."""
        raw = await self._kubernetes.get(ObjectRef(API_VERSION, KIND, namespace, name))
        known = _Pass(self._sources.for_one_pass())
        for _ in range(MOST_STEPS):
            if raw is None:
                self._watch.forget(Key(KIND, namespace, name))
                return None
            try:
                with self._timed("gather"):
                    observed = await self._gather(raw, known)
            except InvalidObject as error:
                plan = self._unreadable(raw, error)
                await apply_plan(self._kubernetes, raw, plan, _no_effect)
                return plan.requeue_after
            again, after = await self._decide_and_apply(observed, known)
            if again != 0 and (after is raw or not _at_rest(after)):
                return again
            raw = after
        return 0

    async def _decide_and_apply(
        self, observed: Observed, known: _Pass
    ) -> tuple[float | None, Mapping[str, Any] | None]:
        """When to look again, and the object as it is then."""
        now = self._clock.now()
        with self._timed("decide"):
            plan = decide(observed, now)
        known.decided(observed, plan)
        sit = Situation(observed, now.replace(microsecond=0))
        effects = TrainingEffects(known.sources, sit)
        holds = plan.held and known.held is None
        try:
            with self._timed("apply"):
                after = await self._apply(observed.raw, plan.act if holds else plan, known, effects)
        except ProblemFound as found:
            problem: Problem = found.problem
        except ManifestRefused as error:
            problem = refusal_of(error, sit)
        else:
            known.applied(plan)
            known.tracked = effects.tracked or known.tracked
            if holds and after is not None:
                known.held = after, plan.word, sit
                return 0, {**after, "status": plan.status}
            self._count(sit, plan)
            return plan.requeue_after, after
        # What was refused is one more thing that was seen: it is decided what follows from it.
        logger.info("%s: refused: %s", plan.policy, problem.text, extra=_context(observed))
        raw = await self._kubernetes.get(ObjectRef(API_VERSION, KIND, *_names(observed)))
        if raw is None or raw["metadata"].get("generation") != observed.raw["metadata"].get("generation"):
            raise KubernetesError(409, "Conflict", "the object changed during the pass")
        again = replace(observed, raw=raw, job=parse_training_job(raw), refusal=problem)
        plan = decide(again, now)
        effects = TrainingEffects(known.sources, Situation(again, now.replace(microsecond=0)))
        after = await apply_plan(self._kubernetes, raw, plan, effects)
        self._count(sit, plan)
        known.pods, known.begun = None, None
        known.config_maps.clear()
        return plan.requeue_after, observed.raw if after is raw else after

    async def _apply(
        self, raw: Mapping[str, Any], plan: Plan, known: _Pass, effects: TrainingEffects
    ) -> Mapping[str, Any] | None:
        """Applies the plan, and what was held back before it."""
        if known.held is None:
            return await apply_plan(self._kubernetes, raw, plan, effects)
        (read, before, sit), known.held = known.held, None
        if plan.status is not None and (plan.status_first or not plan.acts):
            both = replace(plan, events=(*before.events, *plan.events))
            after = await apply_plan(self._kubernetes, read, both, effects)
            self._count(sit, before)
            return after
        stored = await apply_plan(self._kubernetes, read, before, _no_effect)
        self._count(sit, before)
        return await apply_plan(self._kubernetes, stored or raw, plan, effects)

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
        return await self._gather(raw, _Pass(self._sources.for_one_pass()))

    async def _gather(self, raw: Mapping[str, Any], known: _Pass) -> Observed:
        job = parse_training_job(raw)
        meta = job.metadata
        if known.pods is None:
            known.pods = list(await self._kubernetes.list("v1", "Pod", meta.namespace, pods_of(meta.name)))
            known.pods += await self._not_listed(job, known.pods)
        run = job.status.run
        observed = Observed(
            job=job,
            raw=raw,
            platform=self._platform,
            fresh_uid=self._new_uid(),
            pods=tuple(known.pods),
            tracked=known.tracked,
            begun=run is not None and run.uid == known.begun,
        )
        if run is not None and run.phase not in TERMINAL_PHASES:
            name = identity(observed, run).config_map
            if name not in known.config_maps:
                found = await self._kubernetes.get(ObjectRef("v1", "ConfigMap", meta.namespace, name))
                known.config_maps[name] = found
            observed = replace(observed, config_map=known.config_maps[name])
        now = self._clock.now().replace(microsecond=0)
        while (wanted := next_lookup(Situation(observed, now))) is not None:
            observed = await self._look(wanted, Situation(observed, now), known.sources)
            observed = replace(observed, looked=observed.looked | {wanted})
        if observed.commits is None:
            self._watch.forget(Key(KIND, meta.namespace, meta.name))
        return observed

    async def _not_listed(self, job: TrainingJob, pods: Sequence[Manifest]) -> list[Manifest]:
        """The driver that should be there and is not in the list: a list may be of a while ago, and only a read of the
        pod itself tells that it is gone."""
        run = job.status.run
        if run is None or run.phase in TERMINAL_PHASES or run.driver_pod is None:
            return []
        if any(pod["metadata"]["name"] == run.driver_pod for pod in pods):
            return []
        found = await self._kubernetes.get(ObjectRef("v1", "Pod", job.metadata.namespace, run.driver_pod))
        return [found] if found is not None and pods_of(job.metadata.name).items() <= labels(found).items() else []

    async def _look(self, wanted: Lookup, sit: Situation, sources: Sources) -> Observed:
        observed = sit.observed
        if wanted == "commits":
            return replace(observed, commits=await self._commits(sit, sources))
        try:
            match wanted:
                case "inputs":
                    pinned, missing = await pinned_inputs(sources, sit)
                    return replace(observed, inputs=tuple(pinned), manifests=tuple(missing))
                case "script":
                    return replace(observed, script=await sources.script(sit))
                case "ingested":
                    return replace(observed, ingested=await ingested_versions(sources, sit))
                case "record":
                    return replace(observed, record=await sources.record(sit))
                case "ca":
                    return replace(observed, storage_ca=await sources.storage_ca(sit))
                case "logs":
                    return replace(observed, logs=await sources.logs(sit))
                case "version":
                    return replace(observed, version=await sources.version(sit))
                case "champion":
                    return replace(observed, champion=await sources.champion(sit))
        except ProblemFound as found:
            return replace(observed, problems=(*observed.problems, found.problem))

    async def _commits(self, sit: Situation, sources: Sources) -> NewCommits | FailedLook:
        try:
            return await sources.commits(sit, self._watch)
        except ProblemFound as found:
            failed_for = self._watch.failed(key_of(sit))
            blip = found.problem.reason == StorageUnavailable.reason and failed_for < _BLIP_SECONDS
            again = min(max(_BLOCKED_LOOK_SECONDS, failed_for / 2), _UNREADABLE_LOOK_SECONDS)
            return FailedLook(None if blip else found.problem, again)

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


def _at_rest(raw: Mapping[str, Any] | None) -> bool:
    """Whether no run is active. What follows from a run's end is decided in the same pass, since that it was written is
    no news later (KubernetesApi.wrote); of one that goes on its pods tell, and its plans say when to look."""
    run = ((raw or {}).get("status") or {}).get("run") or {}
    return raw is not None and run.get("phase", "Succeeded") in TERMINAL_PHASES


async def _no_effect(_: object) -> None:
    raise TypeError("this plan has no effects")


def _names(observed: Observed) -> tuple[str, str]:
    return observed.job.metadata.namespace, observed.job.metadata.name


def _context(observed: Observed) -> dict[str, Any]:
    namespace, name = _names(observed)
    run = observed.job.status.run
    return {"kind": KIND, "namespace": namespace, "object": name} | ({"run": run.number} if run else {})
