"""What a candidate has to pass before it gets traffic, and how people take a roll-out back."""

from datetime import timedelta

import pytest
from deployment_world import DIGEST, World, serving

from lakeloop.domain.deployment.gates import REPORT_PATIENCE_SECONDS
from lakeloop.domain.deployment.observed import Death, Report
from lakeloop.domain.deployment.signature import Column, Signature

OLD = Signature(inputs=(Column("tenure", "long"), Column("spend", "double")))
WIDER = Signature(inputs=(Column("tenure", "long"), Column("spend", "double"), Column("age", "long", required=False)))
BREAKING = Signature(inputs=(Column("tenure", "string"), Column("spend", "double"), Column("age", "long")))
APPROVAL = {"gates": {"approval": "Required"}}
ALLOWED = {"gates": {"signature": {"allowBreakingChange": True}}}


def tell(world: World, version: int, signature: Signature | None) -> None:
    """A server of that version has told of its model."""
    world.reports[world.revision(version)] = Report(DIGEST, (), signature)


def one_ready(new: Signature | None, **spec: object) -> World:
    """Version 1 serves with two servers; one server of version 2 is ready and has not been asked yet."""
    world = serving(replicas=2, **spec)
    tell(world, 1, OLD)
    world.version = 2
    world.act()
    world.act()
    world.ready[world.revision(2)] = 1
    world.ready_since = world.now
    if new is not None:
        tell(world, 2, new)
    return world


def test_a_signature_that_breaks_callers_is_rejected_before_any_traffic() -> None:
    world = one_ready(BREAKING)
    plan = world.act()
    assert world.selected() == world.revision(1)
    assert ("Warning", "VersionRejected") in [(each.type, each.reason) for each in plan.events]
    (rejected,) = world.status["rejected"]
    assert (rejected["version"], rejected["reason"]) == (2, "SignatureBreaking")
    assert rejected["message"] == (
        "callers of churn/1 would break: input tenure was long and is string; input age is new (long) and required."
        " Set spec.gates.signature.allowBreakingChange: true where they are ready for it"
    )
    world.settle()
    assert world.deployments() == {world.revision(1): 2}
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("GatesPassed") == ("False", "SignatureBreaking")


@pytest.mark.parametrize(
    ("new", "spec"), [(WIDER, {}), (BREAKING, ALLOWED), (OLD, {})], ids=["compatible", "allowed", "the same"]
)
def test_a_signature_that_may_serve(new: Signature, spec: dict[str, object]) -> None:
    world = one_ready(new, **spec)
    world.act()
    assert world.selected() is None, "both versions have traffic"
    world.settle()
    assert world.status["stable"]["version"] == 2


def test_no_traffic_before_the_server_has_told_of_its_model() -> None:
    world = one_ready(None)
    plan = world.act()
    assert (world.selected(), plan.requeue_after) == (world.revision(1), 1.0)
    assert world.condition("GatesPassed") == ("Unknown", "ComparingSignatures")
    tell(world, 2, BREAKING)
    world.act()
    assert [each["reason"] for each in world.status["rejected"]] == ["SignatureBreaking"]


def test_servers_that_the_operator_cannot_reach_hold_a_rollout_up_for_seconds_only() -> None:
    world = one_ready(None)
    world.act()
    world.pass_time(REPORT_PATIENCE_SECONDS)
    world.act()
    assert world.selected() is None


def test_traffic_that_was_given_is_not_taken_back_for_a_question() -> None:
    """A new operator has asked nobody yet."""
    world = one_ready(WIDER)
    world.act()
    world.pass_time(3)
    world.act()
    world.reports.clear()
    world.act()
    assert world.selected() is None


def test_a_bad_stable_version_holds_up_nothing() -> None:
    world = one_ready(OLD)
    world.reports.pop(world.revision(1))
    world.ready[world.revision(1)] = 0
    world.act()
    assert world.selected() != world.revision(1)


def test_a_model_without_a_signature_is_compared_with_nothing() -> None:
    world = one_ready(OLD)
    tell(world, 1, None)
    world.settle()
    assert world.status["stable"]["version"] == 2


# -- approval


def test_a_version_waits_for_its_approval_with_a_server_that_is_warm() -> None:
    world = serving(replicas=2)
    world.spec |= APPROVAL
    world.version = 2
    world.settle()
    assert world.deployments() == {world.revision(1): 2, world.revision(2): 1}
    assert world.selected() == world.revision(1)
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("RollingOut") == ("True", "AwaitingApproval")
    assert world.condition("GatesPassed") == ("Unknown", "AwaitingApproval")
    message = next(each["message"] for each in world.status["conditions"] if each["type"] == "RollingOut")
    assert message == 'churn/2 waits for lakeloop.io/approve: "2"'

    world.pass_time(timedelta(days=3).total_seconds())
    world.act()
    assert "rejected" not in world.status, "the deadline does not run while a person is waited for"
    world.annotations["lakeloop.io/approve"] = "3"
    world.settle()
    assert world.status["stable"]["version"] == 1, "that is another version"
    assert "approve" not in world.status.get("lastHandled", {})

    world.annotations["lakeloop.io/approve"] = "2"
    plan = world.act()
    assert ("Normal", "Approved") in [(each.type, each.reason) for each in plan.events]
    world.settle()
    assert world.status["stable"]["version"] == 2
    assert world.condition("GatesPassed") == ("True", "Passed")


def test_the_first_version_too() -> None:
    world = World(replicas=2, **APPROVAL)
    world.settle()
    assert world.deployments() == {world.revision(1): 0}
    assert world.condition("Ready") == ("False", "AwaitingApproval")
    world.annotations["lakeloop.io/approve"] = "1"
    world.settle()
    assert world.deployments() == {world.revision(1): 2}
    assert world.condition("Ready") == ("True", "Serving")


def test_an_approval_that_came_before_its_version() -> None:
    world = serving()
    world.spec |= APPROVAL
    world.annotations["lakeloop.io/approve"] = "2"
    world.settle()
    world.version = 2
    world.settle()
    assert world.status["stable"]["version"] == 2


def test_other_servers_of_an_approved_version_need_no_approval() -> None:
    world = serving()
    world.spec |= APPROVAL | {"server": {"env": [{"name": "A", "value": "b"}]}}
    world.generation += 1
    world.settle()
    assert world.deployments() == {world.revision(1): 1}


def test_no_servers_are_wanted_and_none_are_started() -> None:
    world = serving(replicas=2)
    world.spec |= APPROVAL | {"replicas": 0}
    world.settle()
    world.version = 2
    world.settle()
    assert world.status["stable"]["version"] == 1
    assert set(world.deployments().values()) == {0}


# -- abort


def test_abort_takes_a_candidate_away_until_asked_again() -> None:
    world = serving(replicas=2)
    world.version = 2
    world.act()
    world.act()
    world.annotations["lakeloop.io/abort"] = "no"
    plan = world.act()
    assert ("Warning", "VersionRejected") in [(each.type, each.reason) for each in plan.events]
    world.settle()
    assert world.deployments() == {world.revision(1): 2}
    assert [(each["version"], each["reason"]) for each in world.status["rejected"]] == [(2, "Aborted")]
    assert world.condition("GatesPassed") == ("False", "Aborted")
    world.annotations["lakeloop.io/retry"] = "yes"
    world.settle()
    assert world.status["stable"]["version"] == 2


def test_abort_with_nothing_under_way_is_answered_once() -> None:
    world = serving()
    world.annotations["lakeloop.io/abort"] = "no"
    assert [each.reason for each in world.act().events] == ["NothingToAbort"]
    assert [each.reason for each in world.act().events] == []
    world.version = 2
    world.settle()
    assert world.status["stable"]["version"] == 2, "an action is honoured once"


# -- rollback


def two_served() -> World:
    world = serving(replicas=2)
    world.version = 2
    world.settle()
    return world


def test_rollback_brings_the_version_before_back_and_stays_until_the_alias_moves() -> None:
    world = two_served()
    world.annotations["lakeloop.io/rollback"] = "now"
    plan = world.act()
    assert ("Normal", "RollingBack") in [(each.type, each.reason) for each in plan.events]
    assert world.status["candidate"]["version"] == 1
    world.settle()
    assert world.deployments() == {world.revision(1): 2}
    assert world.status["stable"]["version"] == 1
    assert [(each["version"], each["reason"]) for each in world.status["rejected"]] == [(2, "RolledBack")]
    assert [(each["version"], each["reason"]) for each in world.status["history"]] == [
        (1, "RolledBack"),
        (2, "AliasMoved"),
        (1, "FirstRollout"),
    ]
    assert world.condition("Ready") == ("True", "Serving")
    world.version = 3
    world.settle()
    assert world.status["stable"]["version"] == 3
    assert "rejected" not in world.status


def test_a_crash_after_each_write_of_a_rollback_loses_nothing() -> None:
    """The annotation is handled and the way back is known by the same write."""
    world = two_served()
    world.annotations["lakeloop.io/rollback"] = "now"
    status, objects = world.status, dict(world.objects)
    world.act()
    after = world.status
    for kept in (status, after):  # nothing was written; the status alone was written
        again = two_served()
        again.annotations["lakeloop.io/rollback"] = "now"
        again.status, again.objects = kept, dict(objects)
        again.settle()
        assert again.status["stable"]["version"] == 1


def test_rollback_to_a_chosen_version() -> None:
    world = two_served()
    world.version = 3
    world.settle()
    world.annotations["lakeloop.io/rollback"] = "to-1-because"
    world.settle()
    assert world.status["stable"]["version"] == 1


def test_rollback_during_a_rollout_goes_back_to_what_serves() -> None:
    world = serving(replicas=2)
    world.version = 2
    world.act()
    world.act()
    world.annotations["lakeloop.io/rollback"] = "now"
    world.settle()
    assert world.status["stable"]["version"] == 1
    assert [(each["version"], each["reason"]) for each in world.status["rejected"]] == [(2, "RolledBack")]


def test_a_rollback_that_fails_leaves_what_serves() -> None:
    world = two_served()
    world.deaths[world.revision(1)] = Death("EnvironmentMismatch", "needs numpy 3", 0)
    world.ready.pop(world.revision(1), None)
    world.annotations["lakeloop.io/rollback"] = "now"
    world.settle()
    assert world.status["stable"]["version"] == 2
    assert world.condition("Ready") == ("True", "Serving")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: serving(), "of what served before there is nothing"),
        (lambda: serving(1, model={"name": "churn", "version": 1}), "spec.model.version is fixed"),
    ],
    ids=["nothing before", "a fixed version"],
)
def test_a_rollback_that_cannot_be(make: object, told: str) -> None:
    world = make()  # type: ignore[operator]
    world.annotations["lakeloop.io/rollback"] = "now"
    (event,) = world.act().events
    assert event.reason == "RollbackRefused"
    assert told in event.message
    assert not world.act().events


def test_a_rollback_to_a_version_that_was_deleted() -> None:
    world = two_served()
    world.deleted = {1}
    world.annotations["lakeloop.io/rollback"] = "now"
    (event,) = world.act().events
    assert (event.reason, "no version 1" in event.message) == ("RollbackRefused", True)
    assert world.status["stable"]["version"] == 2


def test_signatures_do_not_bar_the_way_back() -> None:
    world = two_served()
    tell(world, 1, BREAKING)
    tell(world, 2, OLD)
    world.spec |= APPROVAL
    world.annotations["lakeloop.io/rollback"] = "now"
    world.settle()
    assert world.status["stable"]["version"] == 1
