"""How a pass over an active run ends: it waits, is tried again, or is over."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from lakeloop.api.v1alpha1.trainingjob import Run, RunFailure
from lakeloop.domain.plan import Effect, Event, ObjectRef, Plan
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.driver import DriverFailure
from lakeloop.domain.training.observed import EndRun, Problem, TagRun
from lakeloop.domain.training.retries import next_counts, next_look, retry_number, wait_before
from lakeloop.domain.training.situation import Situation, after, normal, pod_ref, seconds_until, warning
from lakeloop.render.training.logs import LOGS_TAG
from lakeloop.render.training.names import RunIdentity
from lakeloop.status.conditions import shortened
from lakeloop.status.training import Said

Ended = Literal["Succeeded", "Failed", "Stopped"]
_MLFLOW_STATUS: Mapping[Ended, Literal["FINISHED", "FAILED", "KILLED"]] = {
    "Succeeded": "FINISHED",
    "Failed": "FAILED",
    "Stopped": "KILLED",
}


def wait(sit: Situation, policy: str, problem: Problem, run: Run | None = None, *, within: float = math.inf) -> Plan:
    """The run waits for something that is not there, until its deadline. `run` is what is known of it by now.

    It looks again within that many seconds.
    """
    run = run or sit.active
    if not problem.heals:
        return fail(sit, policy, failure_of(problem), run)
    limits = sit.spec.run_policy
    since = run.start_time or sit.now
    deadline = after(since, limits.start_deadline_seconds, sit.now)
    look = min(next_look(since, sit.now, limits.backoff), within)
    if run.launch_time is None:
        look = min(look, seconds_until(deadline, sit.now, least=1.0))
    if run.launch_time is None and sit.now >= deadline:
        waited = f"{problem.text} (waited {limits.start_deadline_seconds} s for it)"
        return fail(
            sit, policy, DriverFailure(problem.failure, problem.reason, waited, problem.field, retriable=False), run
        )
    events = () if sit.stalled_for(problem.reason) else (warning(problem.reason, problem.text),)
    return sit.plan(
        policy,
        Said("Waiting", problem.reason, problem.text),
        run=run,
        requeue_after=look,
        events=events,
    )


def failure_of(problem: Problem) -> DriverFailure:
    """The failure that a problem ends in where it does not heal."""
    return DriverFailure(problem.failure, problem.reason, problem.message, problem.field, retriable=False)


def fail(sit: Situation, policy: str, failure: DriverFailure, run: Run | None = None) -> Plan:
    """A new attempt where the class of the failure has retries left, else the end of the run."""
    run = run or sit.active
    limits = sit.spec.run_policy
    counts = next_counts(run.retries, failure.failure, limits.retries) if failure.retriable else None
    if counts is None:
        said = Said("Failed", failure.reason, failure.text, data_failed=failure.failure == "Data")
        return finish(sit, policy, "Failed", said, run.model_copy(update={"failure": recorded(failure)}))
    attempt = (run.attempt or 1) + 1
    pause = wait_before(retry_number(counts, failure.failure), limits.backoff, f"{run.uid}/{attempt}")
    again = run.model_copy(
        update={
            "phase": "Pending",
            "attempt": attempt,
            "retries": counts,
            "next_attempt_time": sit.now + pause,
            "failure": recorded(failure),
            # Nothing of the last attempt may be taken for the next one's.
            "driver_pod": None,
            "progress": None,
            "metrics": None,
            "expectations": None,
        }
    )
    message = f"attempt {run.attempt or 1} failed: {failure.text}; attempt {attempt} in {pause.total_seconds():.0f} s"
    return sit.plan(
        policy,
        Said("InProgress", failure.reason, message),
        run=again,
        delete=remains(sit),
        requeue_after=pause.total_seconds(),
        events=(warning(failure.reason, message),),
    )


def recorded(failure: DriverFailure) -> RunFailure:
    """The failure as status has it."""
    return RunFailure(
        class_=failure.failure, reason=failure.reason, message=shortened(failure.text), field=failure.field
    )


def finish(
    sit: Situation,
    policy: str,
    ended: Ended,
    said: Said,
    run: Run,
    *,
    objective: tuple[str, float] | None = None,
    changes: Mapping[str, Any] | None = None,
    effects: Sequence[Effect] = (),
    events: Sequence[Event] = (),
    follows: bool | None = None,
) -> Plan:
    """The end of the run; it is final.

    `events`: what is to be told beside the end itself. `follows`: whether another run starts at once, by default where
    the spec changed.
    """
    over = run.model_copy(
        update={
            "phase": ended,
            "completion_time": sit.now,
            "next_attempt_time": None,
            "progress": None,
            # What never had a driver has no log, and none that could be lost.
            "logs": run.logs if run.launch_time or (run.attempt or 1) > 1 else None,
        }
    )
    limit = sit.spec.run_policy.history_limit
    history = (over, *(each for each in sit.status.history or () if each.number != over.number))
    dropped = history[limit:]
    if follows is None:
        follows = run.training_spec_hash != sit.spec_hash
    if follows:
        said = Said("InProgress", "RunFollows", f"run {run.number} is over ({said.message}); a new one starts")
    # Where it went from the launch to its end unseen, or never ran.
    linked = link_to_logs(over) if sit.active.phase in ("Pending", "Submitting") else []
    end = [end_run(sit, over, ended)] if over.mlflow else []
    plan = sit.plan(
        policy,
        said,
        run=over,
        objective=objective,
        changes={**(changes or {}), "history": history[:limit] or None},
        effects=[*effects, *linked, *end],
        delete=[*remains(sit), *(config_map_ref(sit, each) for each in dropped)],
        requeue_after=0 if follows else float(sit.spec.run_policy.ttl_seconds_after_finished),
        events=(*events, _event(ended, said, over)),
    )
    # What is known of its logs by now, or the run that follows, is written with it.
    return replace(plan, held=True)


def link_to_logs(run: Run) -> Sequence[Effect]:
    """The MLflow run says where its logs are."""
    if run.mlflow is None or run.logs is None or run.logs.uri is None:
        return []
    return [TagRun(run.mlflow.run_id, LOGS_TAG, run.logs.uri)]


def _event(ended: Ended, said: Said, run: Run) -> Event:
    message = f"run {run.number}: {said.message}"
    if ended == "Failed":
        return warning(run.failure.reason if run.failure else "RunFailed", message)
    return normal(f"Run{ended}", message)


def end_run(sit: Situation, run: Run, ended: Ended) -> EndRun:
    """A run that did well waits for MLflow to know it. One that did not must not stay because MLflow is down."""
    if run.mlflow is None:
        raise LookupError("the run has no MLflow run")
    spec = sit.run_spec
    nested = run.mlflow.experiment_id if spec.search is not None or spec.estimator is None else None
    best_effort = ended != "Succeeded"
    return EndRun(run.mlflow.run_id, _MLFLOW_STATUS[ended], sit.now, best_effort=best_effort, nested_in=nested)


def remains(sit: Situation) -> list[ObjectRef]:
    """What of the active run's pods is still alive: executors outlive a dead driver's process for a while."""
    uid = sit.active.uid
    own = [pod for pod in sit.observed.pods if drivers.labels(pod).get("lakeloop.io/run-uid") == uid]
    return [pod_ref(pod) for pod in own if not drivers.is_terminal(pod) and not drivers.is_terminating(pod)]


def config_map_ref(sit: Situation, run: Run) -> ObjectRef:
    """The run's ConfigMap."""
    meta = sit.observed.job.metadata
    name = RunIdentity(meta.namespace, meta.name, meta.uid, run.number, run.uid, 1).config_map
    return ObjectRef("v1", "ConfigMap", meta.namespace, name)
