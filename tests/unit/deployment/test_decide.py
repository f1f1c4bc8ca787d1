"""What a pass over a ModelDeployment decides: the rows of the API's state table, then what else is promised."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from deployment_world import DIGEST, TAGS, World, serving

from builders import NAMESPACE
from lakeloop.domain.deployment.effects import TagVersion
from lakeloop.domain.deployment.observed import Death, Problem, Report, rejected_tag
from lakeloop.domain.plan import Plan
from lakeloop.render.serving import names

BAD = Death("EnvironmentMismatch", "needs numpy 3", 0)
DOWN = Problem("spec.model", "RegistryUnavailable", "MLflow does not answer")
NO_ALIAS = Problem("spec.model.alias", "AliasNotFound", "model 'churn' has no alias 'champion'")
FIXED = {"model": {"name": "churn", "version": 2}}
CONDITIONS = ("Ready", "Reconciling", "Stalled", "RollingOut", "GatesPassed", "Suspended")


@dataclass
class Row:
    """A state and what it must look like. A condition that is not named must not be there."""

    make: Callable[[], World]
    conditions: dict[str, tuple[str, str]]
    rejected: list[int] = field(default_factory=list)


def waiting_first() -> World:
    world = World()
    world.problem = NO_ALIAS
    world.act()
    return world


def waiting_with_stable() -> World:
    world = serving(replicas=2)
    world.problem = DOWN
    world.act()
    return world


def waiting_for_credentials() -> World:
    world = serving()
    world.version = 2
    world.act()
    world.deaths[world.revision(2)] = Death("CredentialsRefused", "the store refuses the key", 4)
    world.pass_time(100_000)
    world.act()
    return world


def first_rollout() -> World:
    world = World(replicas=2)
    world.act()
    world.act()
    return world


def first_half_ready() -> World:
    world = first_rollout()
    world.ready[world.revision(1)] = 1
    world.act()
    return world


def later_rollout() -> World:
    world = serving(replicas=2)
    world.version = 2
    world.act()
    world.act()
    return world


def alias_target_rejected() -> World:
    world = serving(replicas=2)
    world.version = 2
    world.deaths[world.revision(2)] = BAD
    world.settle()
    return world


def first_target_rejected() -> World:
    world = World()
    world.deaths[world.revision(1)] = BAD
    world.settle()
    return world


def fixed_version_rejected() -> World:
    world = serving(1, model={"name": "churn", "version": 1})
    world.spec.update(FIXED)
    world.version, world.generation = 2, 2
    world.deaths[world.revision(2)] = BAD
    world.settle()
    return world


def suspended() -> World:
    world = serving()
    world.spec["suspend"] = True
    world.version = 2
    world.settle()
    return world


def suspended_before_anything() -> World:
    world = World(suspend=True)
    world.settle()
    return world


def scaling() -> World:
    world = serving(replicas=1)
    world.spec["replicas"] = 3
    world.act()
    world.act()
    return world


def nothing_ready(replicas: int = 1) -> World:
    world = serving(replicas=replicas)
    world.ready.clear()
    world.deaths[world.revision(1)] = Death("", "the server ended with exit code 137, OOMKilled", 9, True)
    world.act()
    return world


def one_back() -> World:
    world = nothing_ready(replicas=2)
    world.deaths.clear()
    world.ready[world.revision(1)] = 1
    world.act()
    return world


def to_zero() -> World:
    world = serving()
    world.spec["replicas"] = 0
    world.settle()
    return world


STATES = {
    "waiting-nothing-served-yet": Row(
        waiting_first, {"Ready": ("False", "AliasNotFound"), "Stalled": ("True", "AliasNotFound")}
    ),
    "waiting-stable-serves-on": Row(
        waiting_with_stable,
        {
            "Ready": ("True", "Serving"),
            "Stalled": ("True", "RegistryUnavailable"),
            "GatesPassed": ("True", "Passed"),
        },
    ),
    "waiting-for-credentials-is-no-fault-of-the-model": Row(
        waiting_for_credentials,
        {
            "Ready": ("True", "Serving"),
            "Stalled": ("True", "CredentialsRefused"),
            "RollingOut": ("True", "RollingOut"),
            "GatesPassed": ("True", "Passed"),
        },
    ),
    "roll-out-first": Row(
        first_rollout,
        {
            "Ready": ("False", "RollingOut"),
            "Reconciling": ("True", "RollingOut"),
            "RollingOut": ("True", "RollingOut"),
        },
    ),
    "first-server-ready-others-to-come": Row(
        first_half_ready,
        {"Ready": ("False", "Scaling"), "Reconciling": ("True", "Scaling"), "GatesPassed": ("True", "Passed")},
    ),
    "roll-out-later": Row(
        later_rollout,
        {
            "Ready": ("True", "Serving"),
            "Reconciling": ("True", "RollingOut"),
            "RollingOut": ("True", "RollingOut"),
            "GatesPassed": ("True", "Passed"),
        },
    ),
    "serving": Row(serving, {"Ready": ("True", "Serving"), "GatesPassed": ("True", "Passed")}),
    "alias-target-rejected-stable-serves-on": Row(
        alias_target_rejected,
        {"Ready": ("True", "Serving"), "GatesPassed": ("False", "EnvironmentMismatch")},
        rejected=[2],
    ),
    "alias-target-rejected-nothing-served-yet": Row(
        first_target_rejected,
        {
            "Ready": ("False", "EnvironmentMismatch"),
            "Stalled": ("True", "EnvironmentMismatch"),
            "GatesPassed": ("False", "EnvironmentMismatch"),
        },
        rejected=[1],
    ),
    "fixed-version-rejected": Row(
        fixed_version_rejected,
        {
            "Ready": ("False", "EnvironmentMismatch"),
            "Stalled": ("True", "EnvironmentMismatch"),
            "GatesPassed": ("False", "EnvironmentMismatch"),
        },
        rejected=[2],
    ),
    "suspended": Row(
        suspended,
        {"Ready": ("True", "Serving"), "Suspended": ("True", "Suspended"), "GatesPassed": ("True", "Passed")},
    ),
    "suspended-nothing-served-yet": Row(
        suspended_before_anything, {"Ready": ("False", "Suspended"), "Suspended": ("True", "Suspended")}
    ),
    "scaling": Row(
        scaling,
        {"Ready": ("True", "Serving"), "Reconciling": ("True", "Scaling"), "GatesPassed": ("True", "Passed")},
    ),
    "no-server-ready": Row(
        nothing_ready,
        {"Ready": ("False", "NoServerReady"), "Reconciling": ("True", "Scaling"), "GatesPassed": ("True", "Passed")},
    ),
    "one-server-back-after-none": Row(
        one_back,
        {"Ready": ("True", "Serving"), "Reconciling": ("True", "Scaling"), "GatesPassed": ("True", "Passed")},
    ),
    "scaled-to-zero": Row(to_zero, {"Ready": ("True", "ScaledToZero"), "GatesPassed": ("True", "Passed")}),
}


@pytest.mark.parametrize("name", STATES)
def test_state_table(name: str) -> None:
    row = STATES[name]
    world = row.make()
    found = {kind: state for kind in CONDITIONS if (state := world.condition(kind)) is not None}
    assert found == row.conditions
    assert [each["version"] for each in world.status.get("rejected", ())] == row.rejected
    assert {each["observedGeneration"] for each in world.status["conditions"]} <= {1, 2}
    assert world.status["observedGeneration"] == world.generation


@pytest.mark.parametrize("name", STATES)
def test_a_pass_that_changes_nothing_writes_nothing(name: str) -> None:
    world = STATES[name].make()
    first = world.act()
    again = world.act()
    assert again.status == first.status
    assert again.apply == ()
    assert again.delete == ()
    assert not again.events


def tags(plan: Plan) -> dict[tuple[int, str], str | None]:
    return {(e.version, e.key): e.value for e in plan.effects if isinstance(e, TagVersion)}


def events(plan: Plan) -> list[tuple[str, str]]:
    return [(each.type, each.reason) for each in plan.events]


def test_first_rollout_makes_everything_in_order() -> None:
    world = World(replicas=2)
    plan = world.act()
    assert [each["kind"] for each in plan.apply] == [
        "NetworkPolicy",
        "Service",
        "PodDisruptionBudget",
        "ConfigMap",
        "Deployment",
    ]
    assert world.selected() == world.revision(1)
    assert events(plan) == [("Normal", "RolloutStarted")]
    assert plan.requeue_after == 600


def test_what_serves_is_told_with_its_lineage() -> None:
    world = World()
    world.tags[1] = {
        **TAGS,
        "lakeloop.io/training-job": "team-a/churn",
        "lakeloop.io/input.customers": "s3a://lake/customers@11",
        "lakeloop.io/input.odd": "s3a://lake/odd",
    }
    world.settle()
    stable = world.status["stable"]
    assert stable["trainingJob"] == "team-a/churn"
    assert stable["runId"] == "run-1"
    assert stable["inputs"] == [
        {"name": "customers", "uri": "s3a://lake/customers", "version": 11},
        {"name": "odd", "uri": "s3a://lake/odd"},
    ]
    assert (stable["weight"], stable["readyReplicas"], stable["digest"]) == (100, 1, DIGEST)
    assert world.status["internalURL"] == world.status["url"] == f"http://churn.{NAMESPACE}.svc:80"
    assert world.status["replicas"] == 1
    assert world.status["selector"] == "lakeloop.io/model-deployment=churn,lakeloop.io/role=server"


def test_a_later_rollout_ends_with_one_revision() -> None:
    world = serving(replicas=3)
    world.version = 2
    world.settle()
    assert world.deployments() == {world.revision(2): 3}
    assert world.selected() == world.revision(2)
    assert [kind for kind, _ in world.objects].count("ConfigMap") == 1
    newest, first = world.status["history"]
    assert (newest["version"], newest["reason"], "endTime" in newest) == (2, "AliasMoved", False)
    assert (first["version"], first["reason"], first["endTime"]) == (1, "FirstRollout", newest["startTime"])


def test_a_digest_that_a_crash_left_behind_goes() -> None:
    world = serving()
    left = dict(world.objects["ConfigMap", f"churn-{world.revision(1)}"])
    left["metadata"] = {**left["metadata"], "name": "churn-0", "labels": {"lakeloop.io/revision": "0"}}
    world.objects["ConfigMap", "churn-0"] = left
    world.objects["ConfigMap", "users"] = {"kind": "ConfigMap", "metadata": {"name": "users"}}
    world.act()
    assert sorted(name for kind, name in world.objects if kind == "ConfigMap") == [
        f"churn-{world.revision(1)}",
        "users",
    ]


def test_weights_while_both_serve() -> None:
    world = serving(replicas=3)
    world.version = 2
    world.act()
    world.ready[world.revision(2)] = 1
    world.act()
    candidate, stable = world.status["candidate"], world.status["stable"]
    assert world.selected() is None
    assert (stable["weight"], candidate["weight"], candidate["effectiveWeight"]) == (75, 25, 25)


def test_times_of_the_last_rollout() -> None:
    world = serving()
    world.version = 2
    world.alias_moved = world.now + timedelta(seconds=1)
    world.pass_time(2)
    began = world.now
    world.act()
    world.settle()
    rollout = world.status["lastRollout"]
    assert rollout["aliasMovedTime"] < rollout["observedTime"] < rollout["servingTime"]
    assert rollout["observedTime"] == began.isoformat().replace("+00:00", "Z")


def test_history_is_bounded() -> None:
    world = serving()
    for version in range(2, 15):
        world.version = version
        world.settle()
    assert [each["version"] for each in world.status["history"]] == list(range(14, 4, -1))


def test_rejected_version_is_tagged_and_not_tried_again() -> None:
    world = serving()
    world.version = 2
    bad = world.revision(2)
    world.act()
    world.deaths[bad] = BAD
    plan = world.act()
    assert ("Warning", "VersionRejected") in events(plan)
    assert tags(plan) == {(2, rejected_tag(NAMESPACE, "churn")): "EnvironmentMismatch"}
    assert bad not in world.deployments()
    world.deaths.clear()
    world.pass_time(100_000)
    plan = world.act()
    assert bad not in world.deployments()
    assert not plan.events
    assert tags(plan) != {}, "the registry may have been away: until the tag is there it is written"
    world.tags[2] = {**TAGS, rejected_tag(NAMESPACE, "churn"): "EnvironmentMismatch"}
    assert tags(world.act()) == {}


def rejected_second() -> World:
    world = alias_target_rejected()
    world.deaths.clear()
    return world


@pytest.mark.parametrize("suspend", [False, True])
def test_what_is_no_action_is_answered_once(suspend: bool) -> None:
    world = serving(1, suspend=suspend) if not suspend else World(suspend=True)
    before = world.deployments()
    world.annotations["lakeloop.io/promotion"] = "7"
    answers = [event for event in world.act().events if event.reason == "UnknownAction"]
    assert [event.type for event in answers] == ["Warning"]
    assert world.status["lastHandled"] == {"promotion": "7"}
    assert [event for event in world.act().events if event.reason == "UnknownAction"] == []
    assert world.deployments() == before
    world.annotations["lakeloop.io/promotion"] = "8"
    assert [e.reason for e in world.act().events] == ["UnknownAction"]


def test_retry_is_honoured_once() -> None:
    world = rejected_second()
    world.tags[2] = {**TAGS, rejected_tag(NAMESPACE, "churn"): "EnvironmentMismatch"}
    world.annotations["lakeloop.io/retry"] = "please"
    plan = world.act()
    assert world.status["lastHandled"] == {"retry": "please"}
    assert tags(plan) == {(2, rejected_tag(NAMESPACE, "churn")): None}
    world.tags.clear()
    world.settle()
    assert world.status["stable"]["version"] == 2
    world.version = 3
    world.deaths[world.revision(3)] = BAD
    world.settle()
    world.deaths.clear()
    world.settle()
    assert world.status["stable"]["version"] == 2, "the annotation is still there, and does nothing more"


def left_to_be_looked_at() -> World:
    """Version 2 has failed, and one of its servers is there still."""
    world = serving(replicas=3, strategy={"onFailure": "Pause"})
    world.version = 2
    world.deaths[world.revision(2)] = BAD
    world.settle()
    assert [each["version"] for each in world.status["rejected"]] == [2]
    return world


def test_what_failed_is_left_without_traffic_where_the_spec_says_so() -> None:
    world = left_to_be_looked_at()
    good, bad = world.revision(1), world.revision(2)
    world.deaths.clear()
    world.settle()
    assert world.deployments() == {good: 3, bad: 1}
    assert world.selected() == good
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("GatesPassed") == ("False", BAD.reason)
    told = next(each["message"] for each in world.status["conditions"] if each["type"] == "GatesPassed")
    assert "lakeloop.io/retry tries again, lakeloop.io/abort takes it away" in told
    world.version = 3
    world.settle()
    assert world.deployments() == {world.revision(3): 3}, "the alias moves on"


def test_what_is_left_goes_when_it_is_aborted() -> None:
    world = left_to_be_looked_at()
    world.annotations["lakeloop.io/abort"] = "seen"
    world.settle()
    assert world.deployments() == {world.revision(1): 3}
    assert [each["reason"] for each in world.status["rejected"]] == ["Aborted"]
    world.annotations["lakeloop.io/abort"] = "again"
    assert [event.reason for event in world.act().events] == ["NothingToAbort"]


def test_what_is_left_begins_anew_when_it_is_retried() -> None:
    world = left_to_be_looked_at()
    world.annotations["lakeloop.io/retry"] = "mended"
    bad = world.revision(2)
    plan = world.act()
    assert [(ref.kind, ref.name) for ref in plan.delete] == [("Deployment", names.revision_name("churn", bad))]
    assert bad not in world.deployments(), "its pod would be judged by how it died"
    world.deaths.clear()
    world.settle()
    assert world.deployments() == {bad: 3}
    assert world.status["stable"]["version"] == 2


def test_nothing_is_left_of_a_first_version_that_fails() -> None:
    """The Service would select it."""
    world = World(strategy={"onFailure": "Pause"})
    world.deaths[world.revision(1)] = BAD
    world.settle()
    assert world.deployments() == {}
    assert world.condition("Stalled") == ("True", BAD.reason)


def test_a_rejected_version_is_tried_again_once_the_alias_has_moved_on_and_back() -> None:
    world = rejected_second()
    world.version = 3
    world.settle()
    assert world.status["stable"]["version"] == 3
    assert "rejected" not in world.status
    world.version = 2
    world.settle()
    assert world.status["stable"]["version"] == 2


def test_a_rejected_version_is_tried_again_with_other_servers() -> None:
    world = rejected_second()
    world.spec["server"] = {"image": "localhost/lakeloop/model-server:2"}
    world.generation = 2
    world.settle()
    assert world.status["stable"]["version"] == 2
    assert "rejected" not in world.status


def test_rejection_half_way_brings_the_stable_version_back() -> None:
    world = serving(replicas=3)
    world.version = 2
    good, bad = world.revision(1), world.revision(2)
    world.act()
    world.ready[bad] = 1
    world.act()
    world.pass_time(6)
    world.act()
    assert world.deployments() == {good: 2, bad: 2}
    world.deaths[bad] = BAD
    world.act()
    assert world.selected() is None, "the one ready candidate serves until stable has all its servers back"
    assert world.deployments() == {good: 3, bad: 2}
    world.settle()
    assert world.deployments() == {good: 3}
    assert world.selected() == good


@pytest.mark.parametrize(
    ("seconds", "rejected"), [pytest.param(599, False, id="in-time"), pytest.param(601, True, id="too-late")]
)
def test_deadline(seconds: float, rejected: bool) -> None:
    world = serving()
    world.version = 2
    world.act()
    world.waiting[world.revision(2)] = "ImagePullBackOff: no such image"
    world.pass_time(seconds)
    world.act()
    assert ("rejected" in world.status) is rejected
    if rejected:
        told = world.status["rejected"][0]
        assert told["reason"] == "ProgressDeadlineExceeded"
        assert "ImagePullBackOff: no such image" in told["message"]


def test_suspension_does_not_count_towards_the_deadline() -> None:
    world = serving()
    world.version = 2
    world.act()
    world.spec["suspend"] = True
    world.act()
    world.pass_time(100_000)
    world.act()
    world.spec["suspend"] = False
    world.act()
    assert "rejected" not in world.status
    world.settle()
    assert world.status["stable"]["version"] == 2


def test_suspended_changes_no_child() -> None:
    world = serving(replicas=2)
    before = dict(world.objects)
    world.spec |= {"suspend": True, "replicas": 5, "server": {"workers": 3}}
    world.version = 2
    world.settle()
    assert world.objects == before


def test_scaling_makes_no_revision() -> None:
    world = serving(replicas=1)
    revision = world.status["stable"]["revision"]
    world.spec["replicas"] = 4
    world.settle()
    assert world.deployments() == {revision: 4}
    assert ("PodDisruptionBudget", "churn") in world.objects
    world.spec["replicas"] = 1
    world.settle()
    assert ("PodDisruptionBudget", "churn") not in world.objects


def test_editing_the_server_rolls_the_same_version() -> None:
    world = serving()
    before = world.status["stable"]["revision"]
    world.spec["server"] = {"env": [{"name": "A", "value": "b"}]}
    world.settle()
    assert world.status["stable"]["version"] == 1
    assert world.status["stable"]["revision"] != before
    assert world.status["history"][0]["reason"] == "SpecChange"


def test_a_rollout_goes_on_while_the_registry_is_down() -> None:
    world = serving(replicas=2)
    world.version = 2
    world.act()
    world.problem = DOWN
    world.settle()
    assert world.status["stable"]["version"] == 2
    assert world.condition("Stalled") == ("True", "RegistryUnavailable")
    assert world.condition("Ready") == ("True", "Serving")


def test_bad_stable_does_not_hold_up_a_good_candidate() -> None:
    world = serving(replicas=2)
    world.ready.clear()
    world.deaths[world.revision(1)] = Death("LoadFailed", "no", 9)
    world.version = 2
    world.settle()
    assert world.status["stable"]["version"] == 2
    assert world.deployments() == {world.revision(2): 2}


def test_stable_whose_servers_are_gone_comes_back_though_the_alias_points_to_a_rejected_one() -> None:
    world = rejected_second()
    world.spec["server"] = {"workers": 2}
    world.deaths[world.revision(2)] = BAD
    world.settle()
    for key in [key for key in world.objects if key[0] == "Deployment"]:
        del world.objects[key]
    world.ready.clear()
    world.recovery = 1
    world.settle()
    assert world.status["stable"]["version"] == 1
    assert world.deployments() == {world.revision(1): 2}
    assert world.condition("GatesPassed") == ("False", "EnvironmentMismatch")


def test_digest_of_a_version_registered_elsewhere_is_recorded_from_its_first_server() -> None:
    world = World()
    world.tags[1] = {}
    revision = world.revision(1)
    world.act()
    assert world.objects["ConfigMap", f"churn-{revision}"]["data"] == {"digest": ""}
    world.ready[revision] = 1
    assert world.act().requeue_after is not None, "it is asked again until it tells"
    world.reports[revision] = Report(DIGEST, ("numpy 2.4.0 here, 2.4.1 there",))
    plan = world.act()
    assert world.status["stable"]["digest"] == DIGEST
    assert tags(plan) == {(1, "lakeloop.io/digest"): DIGEST}
    assert world.objects["ConfigMap", f"churn-{revision}"]["data"] == {"digest": DIGEST}
    assert world.deployments() == {revision: 1}, "no other revision"
    world.tags[1] = {"lakeloop.io/digest": "sha256:" + "f" * 64}
    world.act()
    assert world.objects["ConfigMap", f"churn-{revision}"]["data"] == {"digest": DIGEST}, "what was verified counts"


def test_warnings_of_the_servers_are_told_once() -> None:
    world = World()
    revision = world.revision(1)
    world.act()
    world.ready[revision] = 1
    world.reports[revision] = Report(DIGEST, ("numpy 2.4.0 here, 2.4.1 there",))
    assert events(world.act()) == [("Normal", "RolloutCompleted"), ("Warning", "ServerWarning")]
    assert not world.act().events


@pytest.mark.parametrize(
    ("child", "damage"),
    [
        pytest.param(("Service", "churn"), {"selector": {"app": "other"}}, id="selector"),
        pytest.param(("Service", "churn"), None, id="service-deleted"),
        pytest.param(("NetworkPolicy", "churn"), None, id="policy-deleted"),
        pytest.param(("NetworkPolicy", "churn"), {"egress": [{}]}, id="policy-opened"),
    ],
)
def test_what_somebody_changed_is_put_right(child: tuple[str, str], damage: dict[str, Any] | None) -> None:
    world = serving()
    good = world.objects[child]["spec"]
    if damage is None:
        del world.objects[child]
    else:
        world.objects[child] = {**world.objects[child], "spec": {**good, **damage}}
    world.settle()
    assert world.objects[child]["spec"] == good
