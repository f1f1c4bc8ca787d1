"""What servers have counted, against the bounds of an analysis, and what follows for a canary."""

import math
from typing import Any

import pytest
from deployment_world import World, serving
from hypothesis import given
from hypothesis import strategies as st
from unit.deployment.test_canary import until_paused

from lakeloop.api.v1alpha1.defaults import EffectiveAnalysis
from lakeloop.domain.deployment.analysis import Counters, between, measured, quantile
from lakeloop.domain.deployment.observed import Counted

INF = math.inf
FAST = {0.01: 90.0, 0.1: 99.0, INF: 100.0}
METRICS = [{"name": "error-rate", "max": 0.01}, {"name": "latency-p99", "max": 0.1}]


def analysis(**parts: Any) -> EffectiveAnalysis:
    written = {"intervalSeconds": 10, "failureLimit": 1, "minRequests": 20, "metrics": METRICS, **parts}
    return EffectiveAnalysis.model_validate(written, by_alias=True, by_name=False)


@pytest.mark.parametrize(
    ("share", "seconds", "value"),
    [
        pytest.param(0.5, FAST, 0.01 * 50 / 90, id="within the first bucket"),
        pytest.param(0.9, FAST, 0.01, id="at a bound"),
        pytest.param(0.95, FAST, 0.01 + 0.09 * 5 / 9, id="within the second"),
        pytest.param(0.999, FAST, 0.1, id="beyond the last bound"),
        pytest.param(0.5, {0.01: 0.0, INF: 0.0}, None, id="no requests"),
        pytest.param(0.5, {}, None, id="nothing counted"),
    ],
)
def test_quantiles(share: float, seconds: dict[float, float], value: float | None) -> None:
    found = quantile(share, seconds)
    assert found == (pytest.approx(value) if value is not None else None)


@given(st.lists(st.sampled_from([0.005, 0.05, 0.5, 5.0]), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_quantile_is_in_the_bucket_that_holds_it(times: list[float], share: float) -> None:
    bounds = [0.01, 0.1, 1.0, INF]
    found = quantile(share, {bound: float(sum(each <= bound for each in times)) for bound in bounds})
    exact = sorted(times)[max(0, math.ceil(share * len(times) - 1e-9) - 1)]
    upper = next(bound for bound in bounds if exact <= bound)
    assert found is not None
    assert found <= upper
    assert found >= max((bound for bound in bounds if bound < exact), default=0.0)


def test_servers_are_added_up_and_one_that_began_anew_counts_from_nothing() -> None:
    before = {"a": Counters(100, 2, {0.1: 100.0, INF: 100.0}), "b": Counters(50, 0, {0.1: 50.0, INF: 50.0})}
    now = {
        "a": Counters(130, 3, {0.1: 120.0, INF: 130.0}),
        "b": Counters(10, 1, {0.1: 10.0, INF: 10.0}),
        "c": Counters(5, 0, {0.1: 5.0, INF: 5.0}),
    }
    assert between(before, now) == Counters(45, 2, {0.1: 35.0, INF: 45.0})


@pytest.mark.parametrize(
    ("counters", "passed"),
    [
        pytest.param(Counters(100, 1, FAST), [True, True], id="at the bounds"),
        pytest.param(Counters(100, 2, FAST), [False, True], id="too many errors"),
        pytest.param(Counters(100, 0, {0.1: 98.0, 1.0: 100.0, INF: 100.0}), [True, False], id="too slow"),
        pytest.param(Counters(19, 19, {0.1: 0.0, INF: 19.0}), [None, None], id="too few to tell"),
        pytest.param(Counters(), [None, None], id="none"),
    ],
)
def test_measurements(counters: Counters, passed: list[bool | None]) -> None:
    assert [each.passed for each in measured(counters, analysis())] == passed


def test_no_request_says_nothing_even_where_none_is_wanted() -> None:
    assert [each.passed for each in measured(Counters(), analysis(minRequests=0))] == [None, None]


STEPS = [{"setWeight": 50}, {"pause": "UntilPromoted"}]
GOOD, BAD = Counters(100, 0, FAST), Counters(100, 50, FAST)


def measuring(*, steps: list[dict[str, Any]] | None = None, **parts: Any) -> World:
    """Version 2 has its half of the requests; nothing was measured yet."""
    canary = {"type": "Canary", "canary": {"steps": steps or STEPS}}
    written = {"intervalSeconds": 10, "failureLimit": 1, "minRequests": 20, "metrics": METRICS, **parts}
    world = serving(replicas=2, strategy=canary, analysis=written)
    world.version = 2
    until_paused(world, 0)
    for _ in range(4):
        world.pass_time(3)
        world.act()
        world.ready[world.revision(2)] = 2
    assert world.deployments() == {world.revision(1): 2, world.revision(2): 2}
    assert world.condition("RollingOut") == ("True", "Analysing")
    return world


def look(world: World, counters: Counters, seconds: float = 10) -> None:
    world.pass_time(seconds)
    world.counted = Counted(world.revision(2), counters)
    world.act()
    world.counted = None


def test_a_share_is_held_until_a_whole_interval_of_it_has_passed() -> None:
    world = measuring(intervalSeconds=60)
    look(world, GOOD, seconds=1)
    assert world.status["candidate"]["step"] == 0, "good, and measured over less than the step's own interval"
    look(world, GOOD, seconds=60)
    assert world.status["candidate"]["step"] == 1
    assert [each["passed"] for each in world.status["candidate"]["analysis"]] == [True, True]
    assert world.status["candidate"]["analysis"][0] == {
        "metric": "error-rate",
        "value": 0.0,
        "requests": 100,
        "passed": True,
    }


def test_failures_beyond_the_limit_give_all_traffic_back() -> None:
    world = measuring()
    look(world, BAD)
    assert world.status["candidate"]["analysisFailures"] == 1
    assert world.status["candidate"]["step"] == 0
    look(world, GOOD)
    look(world, BAD)
    assert world.selected() == world.revision(1)
    rejected = world.status["rejected"][0]
    assert rejected["reason"] == "AnalysisFailed"
    assert rejected["message"] == (
        "2 measurements failed, and 1 are borne: error-rate is 0.5, and may be at most 0.01 (of 100 requests)"
    )
    world.settle()
    assert world.deployments() == {world.revision(1): 2}


def test_too_few_requests_hold_the_share_for_as_long_as_it_takes() -> None:
    world = measuring()
    for _ in range(200):
        look(world, Counters(3, 0, {0.1: 3.0, INF: 3.0}))
    assert world.status["candidate"]["step"] == 0
    assert "rejected" not in world.status
    look(world, GOOD)
    assert world.status["candidate"]["step"] == 1


def test_too_few_requests_let_it_go_on_where_the_spec_says_so() -> None:
    world = measuring(onInconclusive="Proceed")
    look(world, Counters(3, 0, {0.1: 3.0, INF: 3.0}))
    assert world.status["candidate"]["step"] == 1


def test_what_was_counted_of_another_revision_says_nothing() -> None:
    world = measuring()
    world.pass_time(20)
    world.counted = Counted("00000000", BAD)
    world.act()
    assert "analysis" not in world.status["candidate"]


def test_a_third_version_begins_without_the_failures_of_the_second() -> None:
    world = measuring()
    look(world, BAD)
    world.version = 3
    world.act()
    assert "analysisFailures" not in world.status["candidate"]


def test_a_failed_measurement_is_told() -> None:
    world = measuring()
    world.pass_time(10)
    world.counted = Counted(world.revision(2), BAD)
    told = [(event.reason, event.message) for event in world.act().events]
    assert ("MeasurementFailed", "error-rate is 0.5, and may be at most 0.01 (of 100 requests)") in told


def test_it_is_looked_at_every_interval() -> None:
    world = measuring(intervalSeconds=7)
    world.pass_time(1)
    assert world.act().requeue_after == 7
