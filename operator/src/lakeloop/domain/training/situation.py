"""What is seen, made handy: the run, its spec, its driver, and how the next status is written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from lakeloop.api.v1alpha1.actions import request_id
from lakeloop.api.v1alpha1.defaults import EffectiveTrainingSpec, effective_training_spec
from lakeloop.api.v1alpha1.spec_hash import HASHED_PARTS, HASHED_SPARK_PARTS, training_spec_hash
from lakeloop.api.v1alpha1.trainingjob import TERMINAL_PHASES, Run, Summary, TrainingJobSpec, TrainingJobStatus
from lakeloop.domain.plan import Effect, Event, Manifest, ObjectRef, Plan
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.observed import Observed
from lakeloop.render.training.names import RUN_UID, RunIdentity
from lakeloop.render.training.run_config import SPEC_KEY
from lakeloop.render.training.script import ScriptFiles, pinned_files
from lakeloop.render.training.storage import StorageTarget, storage_target
from lakeloop.status.conditions import STALLED, find, shortened
from lakeloop.status.training import Said, job_conditions, run_summary

FINALIZER: Final = "lakeloop.io/cleanup"
RUN_NOW: Final = "lakeloop.io/run-now"
STOP: Final = "lakeloop.io/stop"
SUSPEND: Final = "lakeloop.io/suspend"


@dataclass(frozen=True)
class Situation:
    """One pass's view. Everything here follows from `observed` and `now`."""

    observed: Observed
    now: datetime
    """Without a fraction of a second: what is written of it reads back the same."""

    @cached_property
    def status(self) -> TrainingJobStatus:
        """The present status."""
        return self.observed.job.status

    @cached_property
    def spec(self) -> EffectiveTrainingSpec:
        """The spec as it is now."""
        return effective_training_spec(self.observed.job.spec)

    @cached_property
    def spec_hash(self) -> str:
        """That of the spec as it is now."""
        return training_spec_hash(self.observed.raw["spec"])

    @cached_property
    def run(self) -> Run | None:
        """The run that is not over yet."""
        run = self.status.run
        return None if run is None or run.phase in TERMINAL_PHASES else run

    @property
    def active(self) -> Run:
        """The run that is not over yet, where there is one."""
        if self.run is None:
            raise LookupError("no run is active")
        return self.run

    @cached_property
    def written(self) -> Mapping[str, Any]:
        """The raw spec that the active run goes by; see `run_spec`."""
        return run_spec(self.observed.raw, self.observed.config_map, self.run)

    @cached_property
    def run_spec(self) -> EffectiveTrainingSpec:
        """That, with defaults."""
        return effective_training_spec(TrainingJobSpec.parse(self.written))

    @cached_property
    def script(self) -> ScriptFiles | None:
        """The active run's script: as its ConfigMap holds it, else as the user's does now."""
        if not self._script_of_config_map:
            return None
        config_map = self.observed.config_map
        pinned = pinned_files(config_map) if config_map and is_of(config_map, self.active) else None
        return pinned or self.observed.script

    @property
    def lacks_script(self) -> bool:
        """Whether the run has a script in a ConfigMap, and its files are not known."""
        return self._script_of_config_map and self.script is None

    @property
    def _script_of_config_map(self) -> bool:
        return self.run_spec.script is not None and self.run_spec.script.config_map_ref is not None

    @cached_property
    def target(self) -> StorageTarget:
        """The active run's object store."""
        return storage_target(self.run_spec.storage, self.observed.platform, self.observed.storage_ca)

    @cached_property
    def identity(self) -> RunIdentity:
        """The active run's present attempt."""
        return identity(self.observed, self.active)

    @cached_property
    def driver(self) -> Manifest | None:
        """The present attempt's driver pod."""
        return driver_of(self.observed.pods, self.active, self.identity.driver_pod)

    @cached_property
    def other_drivers(self) -> Sequence[Manifest]:
        """Driver pods of other attempts, other runs, or another object of this name, that may still be alive."""
        own = self.driver
        return [
            pod
            for pod in self.observed.pods
            if drivers.is_driver(pod)
            and pod is not own
            and not (drivers.is_terminal(pod) or drivers.is_lost(pod, self.now))
        ]

    def handled(self, action: str) -> str | None:
        """The id of the action of this kind (`run-now`) that was honoured last."""
        return (self.status.last_handled or {}).get(action.partition("/")[2])

    def asked(self, action: str) -> str | None:
        """The id of an action that is asked for, honoured or not."""
        return request_id(self.observed.job.metadata.annotations, action.partition("/")[2])

    def requested(self, action: str) -> str | None:
        """The id of an action that is asked for and was not honoured yet."""
        value = self.asked(action)
        return value if value != self.handled(action) else None

    def handled_with(self, *actions: str) -> Mapping[str, str] | None:
        """`lastHandled`, with the present ids of these actions."""
        wanted = {each: self.requested(each) for each in actions}
        new = {each.partition("/")[2]: value for each, value in wanted.items() if value}
        return {**(self.status.last_handled or {}), **new} or None

    @cached_property
    def suspended(self) -> bool:
        """By the spec, or by the newest action. An action `off-…` takes back an action `on-…`, not the spec."""
        action = self.asked(SUSPEND) or self.handled(SUSPEND) or ""
        return self.spec.suspend or action.startswith("on-")

    def plan(
        self,
        policy: str,
        said: Said,
        *,
        reason: str | None = None,
        run: Run | None = None,
        changes: Mapping[str, Any] | None = None,
        objective: tuple[str, float] | None = None,
        fresh: bool = False,
        effects: Sequence[Effect] = (),
        apply: Sequence[Manifest] = (),
        create: Sequence[Manifest] = (),
        delete: Sequence[ObjectRef] = (),
        requeue_after: float | None = None,
        events: Sequence[Event] = (),
        status_first: bool = False,
    ) -> Plan:
        """A plan whose status says `said`, holds this run, and else what `changes` says.

        `fresh`: the run is a new one, and nothing is left of what the last one's summary said.
        """
        update: dict[str, Any] = {"observed_generation": self.observed.job.metadata.generation, **(changes or {})}
        if run is not None:
            before = None if fresh else self.status.summary
            update |= {"run": run, "summary": _none_if_empty(run_summary(run, objective, before))}
        known = update.get("training_spec_hash", self.status.training_spec_hash)
        update["conditions"] = job_conditions(
            self.status.conditions,
            said,
            # A new spec is new until it has been acted on: whatever `Ready` said, it said of another one.
            same_spec=known == self.spec_hash and self.status.training_spec_hash == self.spec_hash,
            generation=self.observed.job.metadata.generation,
            now=self.now,
        )
        return Plan(
            policy=policy,
            reason=reason or said.message or said.reason,
            status=self.status.model_copy(update=update).wire(),
            status_first=status_first,
            effects=effects,
            apply=apply,
            create=create,
            delete=delete,
            requeue_after=requeue_after,
            events=events,
        )

    def with_run(self, run: Run) -> "Situation":
        """The same, were this what the status says of the run."""
        status = self.status.model_copy(update={"run": run})
        job = self.observed.job.model_copy(update={"status": status})
        return Situation(replace(self.observed, job=job), self.now)

    def stalled_for(self, reason: str) -> bool:
        """Whether the status says already that it waits for this."""
        found = find(self.status.conditions, STALLED)
        return found is not None and found.reason == reason


def identity(observed: Observed, run: Run) -> RunIdentity:
    """The run's present attempt."""
    meta = observed.job.metadata
    return RunIdentity(meta.namespace, meta.name, meta.uid, run.number, run.uid, run.attempt or 1)


def run_spec(raw: Mapping[str, Any], config_map: Manifest | None, run: Run | None) -> Mapping[str, Any]:
    """The raw spec that a run goes by.

    What decides what is learned is that of the launch, kept in the run's ConfigMap. All else (sizes, credentials,
    limits) is the resource's own as it is now, so that the next attempt has the memory that the last one lacked.
    """
    own: Mapping[str, Any] = raw["spec"]
    if run is None or config_map is None or not is_of(config_map, run):
        return own
    launched = json.loads((config_map.get("data") or {}).get(SPEC_KEY) or "null")
    if not isinstance(launched, Mapping):
        return own
    spark = _mixed(own.get("spark") or {}, launched.get("spark") or {}, HASHED_SPARK_PARTS)
    return {**_mixed(own, launched, HASHED_PARTS), "spark": spark}


def is_of(config_map: Manifest, run: Run) -> bool:
    """Whether the ConfigMap is this run's, and not one of another object that had the same name."""
    return bool(config_map["metadata"].get("labels", {}).get(RUN_UID) == run.uid)


def _mixed(own: Mapping[str, Any], launched: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    kept = {key: value for key, value in own.items() if key not in parts}
    return kept | {key: launched[key] for key in parts if key in launched}


def driver_of(pods: Sequence[Manifest], run: Run, name: str) -> Manifest | None:
    """The pod of that name, where it is of this run, and not of one of another object that had the same name."""
    for pod in pods:
        if pod["metadata"]["name"] == name and drivers.labels(pod).get(RUN_UID) == run.uid:
            return pod
    return None


def pod_ref(pod: Manifest) -> ObjectRef:
    """What points to this pod, uid included: a deletion must never hit a namesake."""
    meta = pod["metadata"]
    return ObjectRef("v1", "Pod", meta["namespace"], meta["name"], meta.get("uid"))


def warning(reason: str, message: str) -> Event:
    return Event("Warning", reason, shortened(message))


def normal(reason: str, message: str) -> Event:
    return Event("Normal", reason, shortened(message))


def seconds_until(moment: datetime, now: datetime, *, least: float = 0.0) -> float:
    """Seconds, at least so many."""
    return max(least, (moment - now).total_seconds())


def after(moment: datetime | None, seconds: float, fallback: datetime) -> datetime:
    """That many seconds after a moment that may not be known."""
    return (moment or fallback) + timedelta(seconds=seconds)


def _none_if_empty(summary: Summary) -> Summary | None:
    return summary if summary.wire() else None
