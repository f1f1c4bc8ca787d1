"""Policies about the job as a whole: deletion, refusal, stop, suspension, what starts a run, what is left of one."""

from datetime import timedelta

from lakeloop.api.v1alpha1.implemented import unimplemented_fields
from lakeloop.api.v1alpha1.trainingjob import Run
from lakeloop.domain.plan import ObjectRef, Plan
from lakeloop.domain.training import driver as drivers
from lakeloop.domain.training.active import POLL_SECONDS
from lakeloop.domain.training.outcomes import end_run, finish, remains
from lakeloop.domain.training.situation import (
    FINALIZER,
    RUN_NOW,
    STOP,
    SUSPEND,
    Situation,
    after,
    normal,
    pod_ref,
    seconds_until,
    warning,
)
from lakeloop.render.training.names import RUN_UID
from lakeloop.status.conditions import STALLED, SUSPENDED, find, is_true
from lakeloop.status.training import Said


def deletion(sit: Situation) -> Plan | None:
    """The object goes: its pods first, then its run in MLflow is ended, then the finalizer is taken off."""
    meta = sit.observed.job.metadata
    if meta.deletion_timestamp is None:
        return None
    if FINALIZER not in meta.finalizers:
        return Plan("deletion", "the object is being deleted, and nothing of it is ours to do")
    # The pods of a node that does not answer go when it comes back, or with it.
    alive = [pod for pod in sit.observed.pods if not (drivers.is_terminal(pod) or drivers.is_lost(pod, sit.now))]
    if alive:
        going = [pod_ref(pod) for pod in alive if not drivers.is_terminating(pod)]
        reason = f"{len(alive)} pods are being stopped"
        return Plan("deletion", reason, delete=going, requeue_after=POLL_SECONDS)
    run = sit.run
    ended = [end_run(sit, run, "Stopped")] if run is not None and run.mlflow is not None else []
    return Plan("deletion", "nothing of the job runs any more", finalizer=False, effects=ended)


def refusal(sit: Situation) -> Plan | None:
    """What this release does not do is refused before a run starts, never ignored. A run under way goes on."""
    if sit.run is not None:
        return None
    fields = unimplemented_fields("TrainingJob", sit.observed.raw["spec"])
    if not fields:
        return None
    message = f"this release does not act on {', '.join(fields)}: take it away, or use a release that does"
    events = () if _said_already(sit, "NotImplemented", message) else (warning("NotImplemented", message),)
    return sit.plan("refusal", Said("Refused", "NotImplemented", message), events=events)


def _said_already(sit: Situation, reason: str, message: str) -> bool:
    found = find(sit.status.conditions, STALLED)
    return found is not None and found.reason == reason and found.message == message


def stop(sit: Situation) -> Plan | None:
    """The action `lakeloop.io/stop` ends the active run."""
    asked = sit.requested(STOP)
    if asked is None or sit.run is None:
        return None
    handled = {"last_handled": sit.handled_with(STOP)}
    said = Said("Stopped", "Stopped", f"run {sit.run.number} was stopped by {STOP}: {asked}")
    return finish(sit, "stop", "Stopped", said, sit.run, changes=handled)


def suspended(sit: Situation) -> bool:
    """By the spec, or by the newest action. An action `off-…` takes back an action `on-…`, not the spec."""
    action = sit.asked(SUSPEND) or sit.handled(SUSPEND) or ""
    return sit.spec.suspend or action.startswith("on-")


def suspension(sit: Situation) -> Plan | None:
    """No run starts; a driver at work is stopped, and its run takes up again, with the same inputs, afterwards."""
    if not suspended(sit):
        return None
    by = "spec.suspend" if sit.spec.suspend else f"the action {SUSPEND}"
    said = Said("Suspended", "Suspended", f"held back by {by}")
    changes = {"last_handled": sit.handled_with(SUSPEND)}
    run = sit.run
    if run is None:
        return sit.plan("suspension", said, changes=changes)
    if sit.driver is not None and drivers.is_terminal(sit.driver):
        return None  # what the driver did is not thrown away: its run is over first, or waits for its next attempt
    going = remains(sit)
    if run.phase != "Pending" or sit.driver is not None:
        # The next attempt has a name of its own. This one's end is no failure and costs no retry.
        run = run.model_copy(
            update={
                "phase": "Pending",
                "attempt": (run.attempt or 1) + 1,
                "driver_pod": None,
                "progress": None,
                "launch_time": None,
                "next_attempt_time": None,
            }
        )
    return sit.plan(
        "suspension", said, run=run, changes=changes, delete=going, requeue_after=POLL_SECONDS if going else None
    )


def resumption(sit: Situation) -> Plan | None:
    """The suspension is over: deadlines count from now."""
    if not is_true(sit.status.conditions, SUSPENDED):
        return None
    changes = {"last_handled": sit.handled_with(SUSPEND)}
    run = sit.run
    if run is None:
        return sit.plan("resumption", _at_rest(sit), changes=changes, requeue_after=0)
    said = Said("InProgress", "Resumed", f"run {run.number} goes on")
    again = run.model_copy(update={"start_time": sit.now})
    return sit.plan("resumption", said, run=again, changes=changes, requeue_after=0)


def replacement(sit: Situation) -> Plan | None:
    """A newer wish takes the place of a run that was not launched yet, and with `Replace` of any."""
    run = sit.run
    if run is None:
        return None
    asked = sit.requested(RUN_NOW)
    changed = run.training_spec_hash != sit.spec_hash
    if not (asked or changed):
        return None
    if run.launch_time is not None and sit.spec.run_policy.concurrency == "Forbid":
        return None
    why = "the training spec changed" if changed else f"{RUN_NOW}: {asked}"
    said = Said("Stopped", "Superseded", f"a newer run takes its place ({why})")
    return finish(sit, "replacement", "Stopped", said, run, follows=True)


def start(sit: Situation) -> Plan | None:
    """A run for a training spec that was not acted on yet, or for an action; both at once are one run."""
    if sit.run is not None:
        return None
    asked, changed = sit.requested(RUN_NOW), sit.status.training_spec_hash != sit.spec_hash
    if not (asked or changed):
        return None
    last = sit.status.run
    number = max([0, *(each.number for each in (last, *(sit.status.history or ())) if each is not None)]) + 1
    run = Run(
        number=number,
        uid=sit.observed.fresh_uid,
        trigger="SpecChange" if changed else "Manual",
        trigger_key=sit.spec_hash if changed else asked,
        training_spec_hash=sit.spec_hash,
        phase="Pending",
        attempt=1,
        start_time=sit.now,
    )
    why = "the training spec is new" if changed else f"{RUN_NOW}: {asked}"
    # A stop that was asked for while nothing ran is answered; it must not stop this run.
    handled = sit.handled_with(RUN_NOW, STOP)
    return sit.plan(
        "start",
        Said("InProgress", "RunStarted", f"run {number} started: {why}"),
        run=run,
        fresh=True,
        changes={"training_spec_hash": sit.spec_hash, "last_handled": handled},
        status_first=True,
        requeue_after=0,
        events=(normal("RunStarted", f"run {number}: {why}"),),
    )


def rest(sit: Situation) -> Plan | None:
    """Nothing to run: pods of finished runs go when their time is over."""
    if sit.run is not None:
        return None
    ttl = sit.spec.run_policy.ttl_seconds_after_finished
    ended = {run.uid: run.completion_time for run in (sit.status.run, *(sit.status.history or ())) if run is not None}
    going: list[ObjectRef] = []
    due = []
    for pod in sit.observed.pods:
        if drivers.is_terminating(pod):
            continue
        uid = drivers.labels(pod).get(RUN_UID, "")
        end = after(ended.get(uid), ttl, sit.now - timedelta(seconds=ttl))
        # A pod that is alive, although its run is over, is a leftover of a stop.
        if end <= sit.now or not drivers.is_terminal(pod):
            going.append(pod_ref(pod))
        else:
            due.append(end)
    again = seconds_until(min(due), sit.now, least=1.0) if due else None
    changes = {"last_handled": sit.handled_with(STOP, SUSPEND)}
    return sit.plan("rest", _at_rest(sit), changes=changes, delete=going, requeue_after=again)


def _at_rest(sit: Situation) -> Said:
    run = sit.status.run
    if run is None or run.phase not in ("Succeeded", "Failed", "Stopped"):
        return Said("InProgress", "NotStarted", "no run started yet")
    if run.phase == "Succeeded":
        return Said("Succeeded", "RunSucceeded", _message(sit, f"run {run.number} succeeded"))
    if run.phase == "Stopped":
        return Said("Stopped", "Stopped", _message(sit, f"run {run.number} was stopped"))
    failure = run.failure
    if failure is None:
        return Said("Failed", "RunFailed", f"run {run.number} failed")
    return Said("Failed", failure.reason, failure.message, data_failed=failure.class_ == "Data")


def _message(sit: Situation, fallback: str) -> str:
    found = find(sit.status.conditions, "RunSucceeded")
    return found.message if found is not None and found.message else fallback
