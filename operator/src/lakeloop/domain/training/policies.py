"""Policies about the job as a whole: deletion, refusal, stop, suspension, what starts a run, what is left of one."""

from dataclasses import replace
from datetime import timedelta

from lakeloop.api.v1alpha1.common import Condition
from lakeloop.api.v1alpha1.implemented import unimplemented_fields
from lakeloop.api.v1alpha1.trainingjob import Run
from lakeloop.domain.plan import ObjectRef, Plan
from lakeloop.domain.training import driver as drivers
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
from lakeloop.domain.training.triggers import Wish, held_back, problem, wish
from lakeloop.domain.training.watch import POLL_SECONDS
from lakeloop.render.training.names import RUN_UID
from lakeloop.status.conditions import STALLED, SUSPENDED, find, is_true
from lakeloop.status.training import Said, violations


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


def suspension(sit: Situation) -> Plan | None:
    """No run starts; a driver at work is stopped, and its run takes up again, with the same inputs, afterwards."""
    if not sit.suspended:
        return None
    by = "spec.suspend" if sit.spec.suspend else f"the action {SUSPEND}"
    said = Said("Suspended", "Suspended", f"held back by {by}{held_back(sit)}")
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
    forbidden = sit.spec.run_policy.concurrency == "Forbid"
    # What a trigger asks for stays asked for: a run that is ending anyway ends as it does.
    ending = sit.driver is not None and drivers.is_terminal(sit.driver)
    wished = None if forbidden or ending else wish(sit)
    if not (asked or changed or wished):
        return None
    if run.launch_time is not None and forbidden:
        return None
    why = "the training spec changed" if changed else f"{RUN_NOW}: {asked}" if asked else wished.why if wished else ""
    said = Said("Stopped", "Superseded", f"a newer run takes its place ({why})")
    return finish(sit, "replacement", "Stopped", said, run, follows=True)


def start(sit: Situation) -> Plan | None:
    """A run for a training spec that was not acted on yet, for an action, or for a trigger; all at once are one run."""
    if sit.run is not None:
        return None
    wanted = _wanted(sit)
    if wanted is None:
        return None
    last = sit.status.run
    number = max([0, *(each.number for each in (last, *(sit.status.history or ())) if each is not None)]) + 1
    run = Run(
        number=number,
        uid=sit.observed.fresh_uid,
        trigger=wanted.trigger,
        trigger_key=wanted.key,
        training_spec_hash=sit.spec_hash,
        phase="Pending",
        attempt=1,
        start_time=sit.now,
    )
    # A stop that was asked for while nothing ran is answered; it must not stop this run.
    handled = sit.handled_with(RUN_NOW, STOP)
    plan = sit.plan(
        "start",
        Said("InProgress", "RunStarted", f"run {number} started: {wanted.why}"),
        run=run,
        fresh=True,
        changes={"training_spec_hash": sit.spec_hash, "last_handled": handled},
        requeue_after=0,
        events=(normal("RunStarted", f"run {number}: {wanted.why}"),),
    )
    # Its inputs are looked at next, and only when they are pinned is anything made of the run.
    return replace(plan, held=True)


def _wanted(sit: Situation) -> Wish | None:
    if sit.status.training_spec_hash != sit.spec_hash:
        return Wish("SpecChange", sit.spec_hash, "the training spec is new")
    if asked := sit.requested(RUN_NOW):
        return Wish("Manual", asked, f"{RUN_NOW}: {asked}")
    return wish(sit)


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
        if end <= sit.now:
            going.append(pod_ref(pod))
        elif not drivers.is_terminal(pod):
            # A pod that is alive, although its run is over, is a leftover of a stop; or it is over, and the list old.
            going.append(replace(pod_ref(pod), resource_version=pod["metadata"].get("resourceVersion")))
            due.append(sit.now + timedelta(seconds=POLL_SECONDS))
        else:
            due.append(end)
    again = seconds_until(min(due), sit.now, least=1.0) if due else None
    changes = {"last_handled": sit.handled_with(STOP, SUSPEND)}
    said = _at_rest(sit)
    plan = sit.plan("rest", said, changes=changes, delete=going, requeue_after=again)
    if said.blocked is None or _stalled(plan) == find(sit.status.conditions, STALLED):
        return plan
    return replace(plan, events=(warning(*said.blocked),))


def _stalled(plan: Plan) -> Condition | None:
    return find((Condition.parse(each) for each in (plan.status or {})["conditions"]), STALLED)


def _at_rest(sit: Situation) -> Said:
    found = problem(sit)
    return replace(_of_last_run(sit), blocked=(found.reason, found.text) if found is not None else None)


def _of_last_run(sit: Situation) -> Said:
    run = sit.status.run
    if run is None or run.phase not in ("Succeeded", "Failed", "Stopped"):
        return Said("InProgress", "NotStarted", "no run started yet")
    if run.phase == "Succeeded":
        message = _message(sit, f"run {run.number} succeeded")
        return Said("Succeeded", "RunSucceeded", message, data_note=violations(run))
    if run.phase == "Stopped":
        return Said("Stopped", "Stopped", _message(sit, f"run {run.number} was stopped"))
    failure = run.failure
    if failure is None:
        return Said("Failed", "RunFailed", f"run {run.number} failed")
    return Said("Failed", failure.reason, failure.message, data_failed=failure.class_ == "Data")


def _message(sit: Situation, fallback: str) -> str:
    found = find(sit.status.conditions, "RunSucceeded")
    return found.message if found is not None and found.message else fallback
