"""Which failures are tried again, how often, and after how long."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.training.world import World

from lakeloop.api.v1alpha1.defaults import EffectiveBackoff
from lakeloop.domain.training.retries import wait_before

THREE = {"runPolicy": {"retries": {"application": 3}, "backoff": {"initialSeconds": 1, "factor": 1}}}


async def attempts(world: World, kind: str, reason: str, **parts: Any) -> int:
    """How many attempts a run makes whose driver always fails like this."""
    await world.until_running(**parts)
    for _ in range(12):
        world.ends(world.failure(kind, reason), code=1)
        await world.settle()
        if world.run["phase"] == "Failed":
            break
        world.clock.tick(2)
        await world.settle()
    return int(world.run["attempt"])


# class and reason of the failure, what the spec says, attempts in all
ROWS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "application, not asked": ("Application", "FitFailed", {}, 1),
    "application, asked": ("Application", "FitFailed", THREE, 4),
    "application, wrong in the spec": ("Application", "InvalidParameter", THREE, 1),
    "application, ambiguous in the spec": ("Application", "AmbiguousNumber", THREE, 1),
    "data": ("Data", "EmptyTable", THREE, 1),
    "gate": ("Gate", "ThresholdMissed", THREE, 1),
    "submission, wrong in the spec": ("Submission", "InvalidConf", THREE, 1),
}


@pytest.mark.parametrize("name", ROWS)
async def test_attempts(name: str) -> None:
    kind, reason, parts, made = ROWS[name]
    world = World()
    assert await attempts(world, kind, reason, **parts) == made
    assert len(world.drivers) == made
    assert world.run["failure"]["class"] == kind
    assert len(world.tracking.runs) == 1


async def test_a_retry_of_user_code_may_succeed() -> None:
    world = World()
    await world.until_running(**THREE)
    world.ends(world.failure("Application", "FitFailed"), code=1)
    await world.settle()
    assert world.run["retries"] == {"infrastructure": 0, "submission": 0, "application": 1}
    world.clock.tick(2)
    await world.settle()
    world.ends(world.result())
    await world.settle()
    assert (world.run["phase"], world.run["attempt"]) == ("Succeeded", 2)
    assert world.tracking.aliases == {("churn", "champion"): 1}


async def test_the_active_deadline_is_no_failure_to_try_again() -> None:
    world = World()
    await world.until_running(runPolicy={"retries": {"application": 3}, "activeDeadlineSeconds": 60})
    world.clock.tick(60)
    await world.settle()
    assert (world.run["phase"], world.run["failure"]["reason"]) == ("Failed", "DeadlineExceeded")


@given(
    retry=st.integers(1, 10_000),
    initial=st.integers(0, 10_000),
    factor=st.floats(1, 100),
    most=st.integers(0, 100_000),
    salt=st.text(max_size=40),
)
def test_waits_are_bounded_and_the_same_for_the_same_attempt(
    retry: int, initial: int, factor: float, most: int, salt: str
) -> None:
    backoff = EffectiveBackoff(initial_seconds=initial, factor=factor, max_seconds=most)
    wait = wait_before(retry, backoff, salt).total_seconds()
    plain = min(initial * factor ** min(retry - 1, 64), most)
    assert plain * 0.8 - 1 <= wait <= min(plain * 1.2 + 1, most)
    assert wait == wait_before(retry, backoff, salt).total_seconds()


def test_waits_of_many_runs_are_spread() -> None:
    backoff = EffectiveBackoff(initial_seconds=100, factor=2, max_seconds=300)
    waits = [wait_before(1, backoff, f"run{each}/2").total_seconds() for each in range(200)]
    assert min(waits) < 85
    assert max(waits) > 115
    assert len(set(waits)) > 30
