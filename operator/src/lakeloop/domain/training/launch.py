"""The launch of an attempt: one driver pod, once nothing is in its way."""

from dataclasses import replace

from lakeloop.api.v1alpha1.trainingjob import (
    KIND,
    FailureClass,
    Run,
)
from lakeloop.domain.plan import Effect, Plan, controller_of
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.driver import DriverFailure
from lakeloop.domain.training.gates import (
    champion_document,
)
from lakeloop.domain.training.observed import DryRun
from lakeloop.domain.training.outcomes import config_map_ref, fail, wait
from lakeloop.domain.training.situation import Situation, normal, pod_ref, seconds_until
from lakeloop.domain.training.watch import POLL_SECONDS, SAFETY_LOOK_SECONDS, described, with_versions
from lakeloop.render.errors import InvalidParameter, Unrenderable
from lakeloop.render.training.driver import driver_pod
from lakeloop.render.training.driver_rbac import driver_rbac
from lakeloop.render.training.executor import executor_sample
from lakeloop.render.training.logs import LogTarget
from lakeloop.render.training.names import RUN_UID
from lakeloop.render.training.run_config import run_config
from lakeloop.render.training.script import FIELD
from lakeloop.render.training.spark_conf import has_executors
from lakeloop.status.training import Said


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
        said = Said("InProgress", "InputsPinned", f"run {run.number}: {described(known.inputs or ())}")
        return sit.plan("pin-ingested", said, run=known, status_first=True, requeue_after=0)
    if sit.lacks_script:
        said = Said("InProgress", "RunStarting", f"run {run.number}: the script is being read")
        return sit.plan("script", said, requeue_after=0)
    if run.code_digest is not None and sit.script is not None and run.code_digest != sit.script.digest():
        return fail(sit, "launch", _CODE_CHANGED)
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


_CODE_CHANGED = DriverFailure(
    "Submission",
    "CodeChanged",
    "the run's own copy of the script is gone, and the ConfigMap holds another one now: start a new run by the action"
    " lakeloop.io/run-now",
    FIELD,
    retriable=False,
)


def unrenderable(error: Unrenderable) -> DriverFailure:
    """What the user asks for cannot be: no retry helps."""
    kind: FailureClass = "Application" if isinstance(error, InvalidParameter) else "Submission"
    return DriverFailure(kind, error.reason, error.message, error.path, retriable=False)


def _launched(sit: Situation, run: Run) -> Plan:
    name, spec, target, platform = sit.identity, sit.run_spec, sit.target, sit.observed.platform
    mlflow_run = run.mlflow.run_id if run.mlflow else ""
    champion, logs, script = champion_document(sit.observed.champion), _log_target(sit, run), sit.script
    inputs = run.inputs or ()
    config = run_config(
        name,
        run.trigger,
        sit.written,
        spec,
        inputs,
        target,
        platform,
        mlflow_run,
        champion=champion,
        logs=logs,
        script=script,
    )
    pod = driver_pod(name, spec, target, platform, mlflow_run, logs, script)
    checks: list[Effect] = []
    if has_executors(spec.spark) and spec.spark.executor.template:
        # Spark makes the executors: what the cluster thinks of their overlay would be known too late, and to no one.
        sample = executor_sample(name, spec.spark, target, platform, logs)
        checks = [DryRun(sample, "spec.spark.executor.template")]
    submitted = run.model_copy(
        update={
            "phase": "Submitting",
            "code_digest": script.digest() if script else None,
            "driver_pod": name.driver_pod,
            "next_attempt_time": None,
            "launch_time": run.launch_time or sit.now,
            "logs": run.logs if logs else None,
        }
    )
    plan = sit.plan(
        "launch",
        Said("InProgress", "DriverCreated", f"run {run.number}, attempt {name.attempt}: the driver is starting"),
        run=submitted,
        effects=checks,
        apply=[*driver_rbac(name, target.service_account, executors=has_executors(spec.spark)), config],
        create=[pod],
        requeue_after=SAFETY_LOOK_SECONDS,
        events=(normal("DriverCreated", f"run {run.number}, attempt {name.attempt}: pod {name.driver_pod}"),),
    )
    return replace(plan, apply_new=(run.number, name.attempt) == (1, 1))


def _log_target(sit: Situation, run: Run) -> LogTarget | None:
    tail = sit.run_spec.run_policy.logs.tail_bytes
    return LogTarget(run.logs.uri, tail) if run.logs and run.logs.uri and tail else None
