"""The steps of a canary: how many servers a share is, what a step waits for, and the whole way."""

from datetime import timedelta
from typing import Any

import pytest
from deployment_world import NOW, World, serving
from hypothesis import given
from hypothesis import strategies as st

from lakeloop.api.v1alpha1.deployment_rollout import CanaryStep
from lakeloop.domain.deployment.canary import Stage, split, stage_of
from lakeloop.domain.deployment.observed import Death

STEPS = [{"setWeight": 10}, {"pauseSeconds": 60}, {"setWeight": 50}, {"pause": "UntilPromoted"}]
BAD = Death("EnvironmentMismatch", "needs numpy 3", 0)


@pytest.mark.parametrize(
    ("wanted", "share", "servers"),
    [
        pytest.param(1, 10, (1, 1), id="one server can only be halved"),
        pytest.param(3, 10, (3, 1), id="one is the least"),
        pytest.param(9, 10, (9, 1), id="a tenth"),
        pytest.param(3, 25, (3, 1), id="a quarter"),
        pytest.param(3, 50, (3, 3), id="half"),
        pytest.param(4, 80, (1, 4), id="four fifths"),
        pytest.param(4, 99, (1, 4), id="one of the old is the least"),
    ],
)
def test_servers_of_a_share(wanted: int, share: int, servers: tuple[int, int]) -> None:
    assert split(wanted, share) == servers


@given(st.integers(1, 50), st.integers(1, 99))
def test_no_share_leaves_fewer_servers_than_are_wanted(wanted: int, share: int) -> None:
    stable, candidate = split(wanted, share)
    assert max(stable, candidate) == wanted
    assert min(stable, candidate) >= 1


def steps(*written: dict[str, Any]) -> list[CanaryStep]:
    return [CanaryStep.parse(each) for each in written]


@pytest.mark.parametrize(
    ("step", "waited", "has", "expected"),
    [
        pytest.param(0, 0, 0, (0, 10, None), id="the first share is not there yet"),
        pytest.param(0, 5, 10, (1, 10, 60.0), id="it is, and the pause begins"),
        pytest.param(1, 59, 10, (1, 10, 1.0), id="the pause goes on"),
        pytest.param(1, 60, 10, (2, 50, None), id="the pause is over"),
        pytest.param(2, 0, 50, (3, 50, None), id="the pause until somebody promotes"),
        pytest.param(3, 10_000, 50, (3, 50, None), id="however long that takes"),
        pytest.param(4, 0, 50, (4, None, None), id="all steps are done"),
        pytest.param(9, 0, 50, (4, None, None), id="the steps were made fewer meanwhile"),
    ],
)
def test_stages(step: int, waited: float, has: int, expected: tuple[int, int | None, float | None]) -> None:
    since = NOW - timedelta(seconds=waited)
    found = stage_of(steps(*STEPS), step, since, lambda share: share == has, NOW)
    assert (found.step, found.share, found.pause.again if found.pause else None) == expected
    assert found.since == (NOW if found.step > step else since)


def test_a_pause_before_any_share_keeps_the_candidate_warm_and_without_requests() -> None:
    found = stage_of(steps({"pause": "UntilPromoted"}, {"setWeight": 50}), 0, NOW, lambda share: False, NOW)
    assert isinstance(found, Stage)
    assert (found.share, found.pause is not None) == (0, True)


def rolling(replicas: int = 4, **parts: Any) -> World:
    """Version 1 serves, and the alias has just moved to 2."""
    world = serving(replicas=replicas, strategy={"type": "Canary", "canary": {"steps": STEPS}, **parts})
    world.version = 2
    return world


def until_paused(world: World, step: int) -> None:
    for _ in range(60):
        world.act()
        for key, each in world.objects.items():
            if key[0] == "Deployment":
                world.ready[each["metadata"]["labels"]["lakeloop.io/revision"]] = each["spec"]["replicas"]
        if world.status.get("candidate", {}).get("step") == step:
            world.act()
            return
        world.pass_time(3)
    raise AssertionError(world.status)


def test_the_whole_way() -> None:
    world = rolling()
    old, new = world.revision(1), world.revision(2)
    until_paused(world, 1)
    assert world.deployments() == {old: 4, new: 1}
    assert world.selected() is None
    candidate = world.status["candidate"]
    assert (candidate["weight"], candidate["effectiveWeight"], world.status["stable"]["weight"]) == (10, 20, 90)
    assert world.condition("RollingOut") == ("True", "Paused")
    told = next(each["message"] for each in world.status["conditions"] if each["type"] == "RollingOut")
    assert (
        told
        == "churn/2 has 20 % of the requests (10 % wanted), step 2 of 4: waits for 60 s, or for lakeloop.io/promote"
    )
    world.pass_time(30)
    assert 0 < (world.act().requeue_after or 0) <= 60
    assert world.status["candidate"]["step"] == 1
    until_paused(world, 3)
    assert world.deployments() == {old: 4, new: 4}
    assert world.status["candidate"]["effectiveWeight"] == 50
    world.pass_time(100_000)
    world.act()
    assert world.status["candidate"]["step"] == 3, "no deadline runs in a pause"
    assert world.condition("Ready") == ("True", "Serving")
    world.annotations["lakeloop.io/promote"] = "looks good"
    assert "Promoted" in [event.reason for event in world.act().events]
    world.settle()
    assert world.deployments() == {new: 4}
    assert world.selected() == new
    assert world.status["stable"]["version"] == 2
    assert "candidate" not in world.status
    world.annotations["lakeloop.io/promote"] = "once more"
    assert [event.reason for event in world.act().events] == ["NothingToPromote"]


def test_a_timed_pause_can_be_cut_short() -> None:
    world = rolling()
    until_paused(world, 1)
    world.annotations["lakeloop.io/promote"] = "now"
    world.act()
    assert world.status["candidate"]["step"] == 2


def test_a_first_version_takes_no_steps() -> None:
    world = World(replicas=2, strategy={"type": "Canary", "canary": {"steps": STEPS}})
    world.settle()
    assert world.status["stable"]["version"] == 1


def test_a_candidate_that_fails_half_way_gives_all_traffic_back() -> None:
    world = rolling()
    until_paused(world, 3)
    world.deaths[world.revision(2)] = BAD
    world.ready[world.revision(2)] = 3
    world.act()
    assert world.selected() == world.revision(1), "the stable version still has all its servers"
    world.settle()
    assert world.deployments() == {world.revision(1): 4}
    assert world.status["rejected"][0]["reason"] == "EnvironmentMismatch"


def test_an_abort_in_a_pause_gives_all_traffic_back() -> None:
    world = rolling()
    until_paused(world, 3)
    world.annotations["lakeloop.io/abort"] = "no"
    world.act()
    assert world.selected() == world.revision(1)
    world.settle()
    assert world.deployments() == {world.revision(1): 4}


def test_the_alias_moves_on_half_way_and_the_third_version_begins_with_the_first_step() -> None:
    world = rolling()
    until_paused(world, 3)
    world.version = 3
    until_paused(world, 1)
    assert world.status["candidate"]["version"] == 3
    assert world.deployments() == {world.revision(1): 4, world.revision(3): 1}


def test_a_rollback_takes_no_steps() -> None:
    world = rolling()
    until_paused(world, 1)
    world.annotations["lakeloop.io/promote"] = "1"
    until_paused(world, 3)
    world.annotations["lakeloop.io/promote"] = "2"
    world.settle()
    world.annotations["lakeloop.io/rollback"] = "back"
    world.settle()
    assert world.status["stable"]["version"] == 1
    assert world.deployments() == {world.revision(1): 4}


def test_a_stable_version_without_servers_does_not_hold_up_the_candidate() -> None:
    world = rolling()
    until_paused(world, 3)
    world.objects.pop(("Deployment", f"churn-{world.revision(1)}"))
    world.settle()
    assert world.status["stable"]["version"] == 2


def test_the_deadline_runs_in_each_step() -> None:
    world = rolling(progressDeadlineSeconds=600)
    until_paused(world, 1)
    world.pass_time(60)
    world.act()
    assert world.status["candidate"]["step"] == 2
    world.pass_time(599)
    world.act()
    assert "rejected" not in world.status
    world.pass_time(5)
    world.act()
    assert [each["reason"] for each in world.status["rejected"]] == ["ProgressDeadlineExceeded"]
