"""Policies for a run that is not over: pin, track, launch, watch, register. The first that has a plan decides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from lakeloop.api.v1alpha1.defaults import EffectiveRegistration
from lakeloop.api.v1alpha1.trainingjob import KIND, FailureClass, MlflowRun, Progress, Run, RunInput, RunModel, RunPhase
from lakeloop.domain.plan import Effect, Plan, controller_of
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.driver import DriverFailure, Result
from lakeloop.domain.training.observed import DryRun, EnsureRun, Problem, RegisterVersion, SetAlias
from lakeloop.domain.training.outcomes import config_map_ref, fail, finish, wait
from lakeloop.domain.training.situation import Situation, after, normal, pod_ref, seconds_until
from lakeloop.render.errors import InvalidParameter, Unrenderable
from lakeloop.render.training.driver import driver_pod
from lakeloop.render.training.driver_rbac import driver_rbac
from lakeloop.render.training.executor import executor_sample
from lakeloop.render.training.names import RUN_UID
from lakeloop.render.training.run_config import experiment, run_config
from lakeloop.status.conditions import STALLED, find
from lakeloop.status.training import Said

SAFETY_LOOK_SECONDS = 30.0
"""A look at a running driver although nothing was heard of it: events can be lost."""
POLL_SECONDS = 2.0
"""Between looks at a pod that is on its way out."""


def deadline(sit: Situation) -> Plan | None:
    """From launch to the end, over all attempts, a run may take so long."""
    run, limit = sit.active, sit.spec.run_policy.active_deadline_seconds
    if run.launch_time is None or sit.now < after(run.launch_time, limit, sit.now):
        return None
    message = f"the run took longer than spec.runPolicy.activeDeadlineSeconds, {limit} s"
    stalled = find(sit.status.conditions, STALLED)
    if stalled is None:
        return fail(sit, "deadline", DriverFailure("Application", "DeadlineExceeded", message, retriable=False))
    # It was not the user's code that took the time.
    message = f"{message}, and waited at last: {stalled.message}"
    return fail(sit, "deadline", DriverFailure("Infrastructure", "DeadlineExceeded", message, retriable=False))


def refused(sit: Situation) -> Plan | None:
    """What this same pass wanted was refused: wait where that may heal, else fail."""
    return wait(sit, "refused", sit.observed.refusal) if sit.observed.refusal is not None else None


def pin(sit: Situation) -> Plan | None:
    """Every input is resolved to one version, and stored, before anything is made."""
    run, seen = sit.active, sit.observed
    if run.inputs is not None:
        return None
    if seen.problems:
        return wait(sit, "pin", seen.problems[0])
    if seen.manifests:
        said = Said("InProgress", "PinningInputs", f"run {run.number}: the files to ingest are being listed")
        return sit.plan("pin", said, effects=seen.manifests, requeue_after=0)
    pinned = run.model_copy(update={"inputs": tuple(seen.inputs)})
    said = Said("InProgress", "InputsPinned", f"run {run.number}: {_described(seen.inputs)}")
    return sit.plan("pin", said, run=pinned, status_first=True, requeue_after=0)


def _described(inputs: Sequence[RunInput]) -> str:
    return ", ".join(
        f"{each.name}: {each.files} files" if each.manifest else f"{each.name}@{each.version}" for each in inputs
    )


def track(sit: Situation) -> Plan | None:
    """The run is in MLflow, and its id is stored, before it is launched."""
    run, seen = sit.active, sit.observed
    if run.mlflow is not None:
        return None
    if seen.problems:
        return wait(sit, "track", seen.problems[0])
    said = Said("InProgress", "RunStarting", f"run {run.number} is being prepared")
    if seen.tracked is None:
        return sit.plan("track", said, effects=[_ensure_run(sit)], requeue_after=0)
    ui = seen.platform.tracking_ui_url
    tracked = MlflowRun(
        run_id=seen.tracked.run_id,
        experiment_id=seen.tracked.experiment_id,
        url=f"{ui}/#/experiments/{seen.tracked.experiment_id}/runs/{seen.tracked.run_id}",
    )
    known = run.model_copy(update={"mlflow": tracked})
    return sit.plan("track", said, run=known, status_first=True, requeue_after=0)


def _ensure_run(sit: Situation) -> EnsureRun:
    run, spec = sit.active, sit.run_spec
    name = sit.identity
    return EnsureRun(
        experiment=experiment(name.namespace, name.job, spec),
        name=name.mlflow_run_name,
        uid=run.uid,
        started=run.start_time or sit.now,
        tags={
            **spec.tracking.tags,
            "lakeloop.io/run-uid": run.uid,
            "lakeloop.io/training-job": f"{name.namespace}/{name.job}",
            "lakeloop.io/run": str(run.number),
            "lakeloop.io/trigger": run.trigger,
            # What MLflow's page shows as the run's source.
            "mlflow.source.name": f"TrainingJob {name.namespace}/{name.job}",
            "mlflow.source.type": "JOB",
        },
    )


def launch(sit: Situation) -> Plan | None:
    """One driver pod, once the last attempt's is gone or over and the wait between attempts is."""
    run, seen = sit.active, sit.observed
    if run.phase != "Pending" or sit.driver is not None:
        return None
    due = run.next_attempt_time
    if due is not None and sit.now < due:
        message = run.failure.message if run.failure else ""
        said = Said("InProgress", "WaitingToRetry", f"attempt {run.attempt} starts at {due.isoformat()}: {message}")
        return sit.plan("backoff", said, requeue_after=seconds_until(due, sit.now))
    if sit.other_drivers:
        names = ", ".join(pod["metadata"]["name"] for pod in sit.other_drivers)
        said = Said("InProgress", "WaitingForPods", f"run {run.number} starts when {names} is gone")
        going = [pod_ref(pod) for pod in sit.other_drivers if not drivers.is_terminating(pod)]
        return sit.plan("one-driver", said, delete=going, requeue_after=POLL_SECONDS)
    in_the_way = _in_the_way(sit)
    if in_the_way is not None:
        return in_the_way
    if seen.problems:
        return wait(sit, "launch", seen.problems[0])
    known = run.model_copy(update={"inputs": with_versions(run.inputs, seen.ingested)})
    if known != run:
        said = Said("InProgress", "InputsPinned", f"run {run.number}: {_described(known.inputs or ())}")
        return sit.plan("pin-ingested", said, run=known, status_first=True, requeue_after=0)
    try:
        return _launched(sit, known)
    except Unrenderable as error:
        return fail(sit, "launch", unrenderable(error))


def _in_the_way(sit: Situation) -> Plan | None:
    """A finished pod or a ConfigMap of an object that had the same name is taken away first."""
    name, config_map = sit.identity, sit.observed.config_map
    said = Said("InProgress", "WaitingForPods", "what an object of the same name left is being removed")
    for pod in sit.observed.pods:
        if pod["metadata"]["name"] == name.driver_pod:
            return sit.plan("namesake", said, delete=[pod_ref(pod)], requeue_after=POLL_SECONDS)
    if config_map is None or config_map["metadata"].get("labels", {}).get(RUN_UID) == sit.active.uid:
        return None
    controller = controller_of(config_map)
    if controller is None or controller["kind"] != KIND:
        return None  # not ours to remove: the launch finds the name taken, and says so
    gone = replace(config_map_ref(sit, sit.active), uid=config_map["metadata"].get("uid"))
    return sit.plan("namesake", said, delete=[gone], requeue_after=POLL_SECONDS)


def unrenderable(error: Unrenderable) -> DriverFailure:
    """What the user asks for cannot be: no retry helps."""
    kind: FailureClass = "Application" if isinstance(error, InvalidParameter) else "Submission"
    return DriverFailure(kind, error.reason, error.message, error.path, retriable=False)


def _launched(sit: Situation, run: Run) -> Plan:
    name, spec, target, platform = sit.identity, sit.run_spec, sit.target, sit.observed.platform
    mlflow_run = run.mlflow.run_id if run.mlflow else ""
    config = run_config(name, run.trigger, sit.written, spec, run.inputs or (), target, platform, mlflow_run)
    pod = driver_pod(name, spec, target, platform, mlflow_run)
    checks: list[Effect] = []
    if spec.spark.executor.instances and spec.spark.executor.template:
        # Spark makes the executors: what the cluster thinks of their overlay would be known too late, and to no one.
        checks = [DryRun(executor_sample(name, spec.spark, target, platform), "spec.spark.executor.template")]
    submitted = run.model_copy(
        update={
            "phase": "Submitting",
            "driver_pod": name.driver_pod,
            "next_attempt_time": None,
            "launch_time": run.launch_time or sit.now,
        }
    )
    return sit.plan(
        "launch",
        Said("InProgress", "DriverCreated", f"run {run.number}, attempt {name.attempt}: the driver is starting"),
        run=submitted,
        effects=checks,
        apply=[*driver_rbac(name.namespace, name.job, name.job_uid, target.service_account), config],
        create=[pod],
        requeue_after=SAFETY_LOOK_SECONDS,
        events=(normal("DriverCreated", f"run {run.number}, attempt {name.attempt}: pod {name.driver_pod}"),),
    )


def watch(sit: Situation) -> Plan | None:
    """A driver that is not over: its progress goes into status, and the versions that it ingested are pinned."""
    pod = sit.driver
    if pod is None or drivers.is_terminal(pod) or drivers.is_lost(pod, sit.now):
        return None
    run = _adopted(sit, pod)
    seen = drivers.progress(pod, run.uid, sit.identity.attempt) or {}
    run = run.model_copy(update={"inputs": with_versions(run.inputs, drivers.versions(seen))})
    if drivers.phase(pod) == "Pending":
        return _not_running(sit, pod, run)
    progress = _progress(seen)
    stage = progress.stage if progress else None
    phase: RunPhase = "Evaluating" if stage in ("Evaluating", "Logging") else "Running"
    running = run.model_copy(update={"phase": phase, "progress": progress})
    said = Said(
        "InProgress", "DriverRunning", f"run {run.number}, attempt {sit.identity.attempt}: {stage or 'Starting'}"
    )
    return sit.plan("watch", said, run=running, requeue_after=_until_deadline(sit, run))


def _adopted(sit: Situation, pod: Mapping[str, Any]) -> Run:
    """The run as it is once its driver is there: the status may have been lost that was to say so."""
    run = sit.active
    return run.model_copy(
        update={
            "phase": "Submitting" if run.phase == "Pending" else run.phase,
            "driver_pod": pod["metadata"]["name"],
            "next_attempt_time": None,
            "launch_time": run.launch_time or sit.now,
        }
    )


def _not_running(sit: Situation, pod: Mapping[str, Any], run: Run) -> Plan:
    limit = sit.spec.run_policy.start_deadline_seconds
    created = pod["metadata"].get("creationTimestamp")
    since = datetime.fromisoformat(created) if created else sit.now
    why = drivers.waiting(pod)
    if sit.now >= after(since, limit, sit.now):
        reason, message = why or ("DriverNotStarted", f"the driver did not start within {limit} s")
        return fail(sit, "start-deadline", DriverFailure("Submission", reason, message, retriable=False), run)
    left = min(SAFETY_LOOK_SECONDS, seconds_until(after(since, limit, sit.now), sit.now, least=1.0))
    submitted = run.model_copy(update={"phase": "Submitting"})
    if why is None:
        said = Said("InProgress", "DriverCreated", f"run {run.number}, attempt {run.attempt}: the driver is starting")
        return sit.plan("starting", said, run=submitted, requeue_after=left)
    return wait(sit, "starting", Problem(why[0], why[1], None, "Submission"), submitted, within=left)


def _progress(seen: Mapping[str, Any]) -> Progress | None:
    known = {key: seen[key] for key in ("stage", "percent", "remainingSeconds") if seen.get(key) is not None}
    if seen.get("trialsTotal"):
        known |= {"trialsTotal": seen["trialsTotal"], "trialsFinished": seen.get("trialsFinished", 0)}
    try:
        return Progress.parse(known) if known else None
    except ValueError:
        # An annotation can be written by anyone who may patch pods; what is not a progress is not shown.
        return None


def _until_deadline(sit: Situation, run: Run) -> float:
    end = after(run.launch_time, sit.spec.run_policy.active_deadline_seconds, sit.now)
    return min(SAFETY_LOOK_SECONDS, seconds_until(end, sit.now, least=0.5))


def with_versions(inputs: Sequence[RunInput] | None, found: Mapping[str, int]) -> tuple[RunInput, ...] | None:
    """The inputs, with the versions that ingestion made where none is pinned yet. A pinned one never changes."""
    if inputs is None:
        return None
    return tuple(
        each.model_copy(update={"version": found[each.name]})
        if each.version is None and each.manifest is not None and each.name in found
        else each
        for each in inputs
    )


def outcome(sit: Situation) -> Result | None:
    """What the driver said at the end: by its pod, or by the record that it left in MLflow."""
    run, attempt = sit.active, sit.identity.attempt
    said = drivers.result(sit.driver, run.uid, attempt) if sit.driver is not None else None
    return said or drivers.read_result(sit.observed.record, run.uid, attempt)


def conclude(sit: Situation) -> Plan | None:
    """The driver is over or gone: its result decides, and without one its death is an infrastructure failure."""
    run = sit.active
    result = outcome(sit)
    if result is None:
        if sit.observed.problems:
            return wait(sit, "record", sit.observed.problems[0])
        return fail(sit, "death", drivers.death(sit.driver), _adopted(sit, sit.driver) if sit.driver else run)
    metrics = dict(result.metrics) | ({result.objective[0]: result.objective[1]} if result.objective else {})
    run = run.model_copy(
        update={"inputs": with_versions(run.inputs, result.inputs), "metrics": metrics or None, "failure": None}
    )
    if result.failure is not None:
        return fail(sit, "driver-failed", result.failure, run)
    registration = sit.run_spec.registration
    if registration is None:
        return _succeeded(sit, run, result, "the model is logged; spec.register is not set", ())
    return _registered(sit, run, result, registration)


def _registered(sit: Situation, run: Run, result: Result, registration: EffectiveRegistration) -> Plan:
    seen, model = sit.observed, result.model or {}
    if seen.problems:
        return wait(sit, "register", seen.problems[0], run.model_copy(update={"phase": "Evaluating"}))
    if not model.get("artifactUri"):
        lost = DriverFailure("Infrastructure", "ResultIncomplete", "the driver's result names no model")
        return fail(sit, "register", lost, run)
    if seen.version is None:
        evaluating = run.model_copy(update={"phase": "Evaluating"})
        said = Said("InProgress", "Registering", f"run {run.number}: the model is being registered")
        registering = [_register(sit, run, result, registration)]
        return sit.plan("register", said, run=evaluating, effects=registering, requeue_after=0)
    version = seen.version.version
    known = run.model_copy(
        update={
            "model": RunModel(
                name=registration.model,
                version=version,
                uri=f"models:/{registration.model}/{version}",
                digest=model.get("digest"),
            )
        }
    )
    alias = registration.alias if registration.promote == "OnPass" else None
    moves = alias is not None and alias not in seen.version.aliases
    effects = [SetAlias(registration.model, alias, version)] if alias and moves else []
    suffix = f", alias {alias}" if alias else ""
    return _succeeded(sit, known, result, f"registered {registration.model}/{version}{suffix}", effects)


def _register(sit: Situation, run: Run, result: Result, registration: EffectiveRegistration) -> RegisterVersion:
    model = result.model or {}
    job = f"{sit.identity.namespace}/{sit.identity.job}"
    tags = {
        **registration.tags,
        "lakeloop.io/run-uid": run.uid,
        "lakeloop.io/training-job": job,
        "lakeloop.io/run": str(run.number),
        **{f"lakeloop.io/input.{each.name}": f"{each.uri}@{each.version}" for each in run.inputs or ()},
    }
    if model.get("digest"):
        tags["lakeloop.io/digest"] = str(model["digest"])
    if result.objective:
        tags[f"lakeloop.io/metric.{result.objective[0]}"] = repr(result.objective[1])
    return RegisterVersion(
        model=registration.model,
        source=str(model["artifactUri"]),
        run_id=run.mlflow.run_id if run.mlflow else "",
        run_uid=run.uid,
        model_id=model.get("modelId"),
        description=f"Run {run.number} of TrainingJob {job}",
        tags=tags,
    )


def _succeeded(sit: Situation, run: Run, result: Result, message: str, effects: Sequence[Effect]) -> Plan:
    said = Said("Succeeded", "RunSucceeded", message)
    return finish(sit, "succeeded", "Succeeded", said, run, objective=result.objective, effects=effects)


CHAIN = (refused, deadline, pin, track, launch, watch, conclude)
