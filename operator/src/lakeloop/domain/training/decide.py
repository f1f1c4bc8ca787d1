"""The decision about a TrainingJob: an ordered chain of policies, the first of which that has a plan decides."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from lakeloop.api.v1alpha1.actions import refusals
from lakeloop.domain.plan import Plan
from lakeloop.domain.training import active, logs, policies
from lakeloop.domain.training.observed import Observed
from lakeloop.domain.training.situation import FINALIZER, Situation, warning
from lakeloop.domain.training.triggers import accounted

Policy = Callable[[Situation], Plan | None]

CHAIN: Final[tuple[Policy, ...]] = (
    policies.deletion,  # nothing else matters to an object that goes
    logs.settle,  # whatever the job does next, or is kept from doing
    policies.stop,  # a stop is heard even while suspended
    policies.suspension,  # nothing starts, whatever asks for it
    policies.resumption,
    policies.replacement,  # before work on the run that it replaces
    policies.refusal,  # before a run starts; one under way goes on
    policies.start,
)
RUN_CHAIN: Final[tuple[Policy, ...]] = active.CHAIN
AT_REST: Final[Policy] = policies.rest


def decide(observed: Observed, now: datetime) -> Plan:
    """What is to be done. Pure: the same observation at the same moment gives the same plan."""
    sit = Situation(observed, now.replace(microsecond=0))
    for policy in (*CHAIN, *(RUN_CHAIN if sit.run is not None else ()), AT_REST):
        plan = policy(sit)
        if plan is not None:
            return _with_look_at_logs(sit, _with_finalizer(sit, _with_answers(sit, accounted(sit, plan))))
    return Plan("none", "nothing is to be done")


def _with_answers(sit: Situation, plan: Plan) -> Plan:
    """Actions that are not done are answered, once, whatever else there is to do."""
    meta = sit.observed.job.metadata
    found = refusals("TrainingJob", meta.annotations, sit.status.last_handled)
    if not found or meta.deletion_timestamp is not None or plan.status is None:
        return plan
    handled = {**(plan.status.get("lastHandled") or {}), **{each.key: each.id for each in found}}
    events = [warning(each.reason, each.message) for each in found]
    return replace(plan, status={**plan.status, "lastHandled": handled}, events=[*plan.events, *events])


def _with_look_at_logs(sit: Situation, plan: Plan) -> Plan:
    """A run that is over, and whose logs may still be on their way, is looked at again soon."""
    soon = None if sit.observed.job.metadata.deletion_timestamp else logs.next_look(sit, plan.status)
    if soon is None or (plan.requeue_after is not None and plan.requeue_after <= soon):
        return plan
    return replace(plan, requeue_after=soon)


def _with_finalizer(sit: Situation, plan: Plan) -> Plan:
    meta = sit.observed.job.metadata
    if meta.deletion_timestamp is not None or FINALIZER in meta.finalizers:
        return plan
    return replace(plan, finalizer=True)
