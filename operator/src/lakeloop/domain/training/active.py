"""Policies for a run that is not over: pin, track, launch, watch, conclude. The first that has a plan decides."""

from lakeloop.api.v1alpha1.trainingjob import (
    MlflowRun,
    RunLogs,
)
from lakeloop.domain.plan import Plan
from lakeloop.domain.training.conclude import conclude, outcome, provenance
from lakeloop.domain.training.driver import DriverFailure
from lakeloop.domain.training.launch import launch
from lakeloop.domain.training.observed import EnsureRun
from lakeloop.domain.training.outcomes import fail, wait
from lakeloop.domain.training.situation import Situation, after
from lakeloop.domain.training.watch import described, watch
from lakeloop.render.training.logs import logs_uri
from lakeloop.render.training.run_config import experiment
from lakeloop.status.conditions import STALLED, find
from lakeloop.status.training import Said


def deadline(sit: Situation) -> Plan | None:
    """From launch to the end, over all attempts, a run may take so long."""
    run, limit = sit.active, sit.spec.run_policy.active_deadline_seconds
    if run.launch_time is None or sit.now < after(run.launch_time, limit, sit.now):
        return None
    waits = sit.observed.problems or sit.observed.refusal is not None
    if run.phase != "Pending" and outcome(sit) is not None and not waits:
        return None  # the driver was over in time, and nobody was there to see it
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
    said = Said("InProgress", "InputsPinned", f"run {run.number}: {described(seen.inputs)}")
    return sit.plan("pin", said, run=pinned, status_first=True, requeue_after=0)


def track(sit: Situation) -> Plan | None:
    """The run is in MLflow before it is launched; where nothing is in the way of that, the launch stores its id."""
    run, seen = sit.active, sit.observed
    if run.mlflow is not None:
        return None
    if seen.tracked is None:
        # Without a status: the next step, at once, writes what came of it.
        return Plan("track", f"run {run.number} is put into MLflow", effects=[_ensure_run(sit)], requeue_after=0)
    said = Said("InProgress", "RunStarting", f"run {run.number} is being prepared")
    ui = seen.platform.tracking_ui_url
    tracked = MlflowRun(
        run_id=seen.tracked.run_id,
        experiment_id=seen.tracked.experiment_id,
        url=f"{ui}/#/experiments/{seen.tracked.experiment_id}/runs/{seen.tracked.run_id}",
    )
    known = run.model_copy(update={"mlflow": tracked, "logs": _logs(sit, seen.tracked.artifact_uri)})
    launched = launch(sit.with_run(known))
    if launched is not None and launched.policy == "launch":
        return launched
    return sit.plan("track", said, run=known, status_first=True, requeue_after=0)


def _logs(sit: Situation, artifact_uri: str) -> RunLogs | None:
    uri = logs_uri(artifact_uri, sit.active.inputs or (), sit.active.uid or "")
    return RunLogs(uri=uri) if uri and sit.spec.run_policy.logs.tail_bytes else None


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
            **provenance(sit, run),
            # What MLflow's page shows as the run's source.
            "mlflow.source.name": f"TrainingJob {name.namespace}/{name.job}",
            "mlflow.source.type": "JOB",
        },
        new=sit.observed.begun,
    )


CHAIN = (refused, deadline, pin, track, launch, watch, conclude)
