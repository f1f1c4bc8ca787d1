"""Gates: bounds on metrics, the champion beaten on the same rows, and the alias that moves on a pass alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.training.world import World

from builders import training_job
from lakeloop.api.v1alpha1.defaults import EffectiveTrainingSpec, effective_training_spec
from lakeloop.domain.training.driver import Result, ScoredChampion, read_result
from lakeloop.domain.training.gates import judge
from lakeloop.domain.training.observed import SetAlias
from lakeloop.reconcile.training_effects import set_alias
from lakeloop.reconcile.training_lookups import ProblemFound

CHAMPION = {"champion": {"alias": "champion"}}
METRICS = {"roc_auc": 0.91, "test_roc_auc": 0.91, "train_roc_auc": 0.99, "test_log_loss": 0.3}


def spec(**evaluation: Any) -> EffectiveTrainingSpec:
    return effective_training_spec(training_job(evaluation=evaluation).spec)


def result(value: float = 0.91, champion: ScoredChampion | None = None, metric: str = "roc_auc") -> Result:
    return Result(True, {}, METRICS, (metric, value), {}, None, champion)


def scored(value: float | None, problem: str | None = None, version: int = 4) -> ScoredChampion:
    return ScoredChampion(version, value, problem)


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [
        pytest.param({"metric": "roc_auc", "min": 0.7}, "GatesPassed", id="above min"),
        pytest.param({"metric": "roc_auc", "min": 0.91}, "GatesPassed", id="at min"),
        pytest.param({"metric": "roc_auc", "min": 0.95}, "ThresholdMissed", id="below min, training rows above"),
        pytest.param({"metric": "log_loss", "max": 0.3}, "GatesPassed", id="at max"),
        pytest.param({"metric": "log_loss", "max": 0.2}, "ThresholdMissed", id="above max"),
        pytest.param({"metric": "roc_auc", "min": 0.1, "max": 0.5}, "ThresholdMissed", id="out of a range"),
        pytest.param({"metric": "recall", "min": 0}, "MetricMissing", id="never measured"),
    ],
)
def test_thresholds(threshold: dict[str, Any], reason: str) -> None:
    verdict = judge(spec(thresholds=[threshold]), result(), METRICS, None)
    assert (verdict.passed, verdict.reason) == (reason == "GatesPassed", reason)
    assert threshold["metric"] in verdict.message
    if not verdict.passed:
        assert verdict.field is not None
        assert verdict.field.startswith("spec.evaluation.thresholds[0]")


@pytest.mark.parametrize(
    ("champion", "now", "least", "reason"),
    [
        pytest.param(None, None, 0, "GatesPassed", id="no champion yet"),
        pytest.param(scored(0.89), 4, 0, "GatesPassed", id="better"),
        pytest.param(scored(0.91), 4, 0, "GatesPassed", id="as good"),
        pytest.param(scored(0.92), 4, 0, "ChampionNotBeaten", id="worse"),
        pytest.param(scored(0.89), 4, 0.05, "ChampionNotBeaten", id="not better enough"),
        pytest.param(scored(0.5), 4, 0.05, "GatesPassed", id="better enough"),
        pytest.param(scored(None, "it needs column(s) age"), 4, 0, "ChampionNotComparable", id="not scored"),
        pytest.param(scored(0.5), 5, 0, "ChampionChanged", id="another one by now"),
        pytest.param(None, 1, 0, "ChampionChanged", id="one came meanwhile"),
        pytest.param(scored(0.5), None, 0, "ChampionChanged", id="it lost the alias"),
    ],
)
def test_champion(champion: ScoredChampion | None, now: int | None, least: float, reason: str) -> None:
    wanted = spec(champion={"alias": "champion", "minImprovement": least})
    verdict = judge(wanted, result(champion=champion), METRICS, now)
    assert (verdict.passed, verdict.reason) == (reason == "GatesPassed", reason)
    if champion is not None and champion.problem:
        assert champion.problem in verdict.message


@pytest.mark.parametrize(
    ("objective", "metric", "own", "other", "passes"),
    [
        pytest.param({"metric": "rmse"}, "rmse", 1.0, 2.0, True, id="an error falls"),
        pytest.param({"metric": "rmse"}, "rmse", 2.0, 1.0, False, id="an error rises"),
        pytest.param(None, "log_loss", 2.0, 1.0, False, id="an error by default"),
        pytest.param({"metric": "cost", "goal": "Minimize"}, "cost", 1.0, 2.0, True, id="a metric of the user's"),
        pytest.param({"metric": "cost"}, "cost", 1.0, 2.0, False, id="one of which nothing is said"),
    ],
)
def test_which_way_is_better(objective: Any, metric: str, own: float, other: float, passes: bool) -> None:
    parts = effective_training_spec(training_job(evaluation=CHAMPION, objective=objective).spec)
    assert judge(parts, result(own, scored(other), metric), {}, 4).passed is passes


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_never_promotes_what_is_worse(own: float, other: float, least: float) -> None:
    wanted = spec(champion={"minImprovement": least})
    if judge(wanted, result(own, scored(other)), {}, 4).passed:
        assert own - other >= least


@pytest.mark.parametrize(
    "champion",
    [
        {"version": "4", "value": 0.5},
        {"version": True, "value": 0.5},
        {"version": -1},
        {"value": 0.5},
        [],
        "4",
        {"version": 4, "value": float("nan"), "schemaChanges": {"a": 1}, "problem": 3},
    ],
    ids=["text", "boolean", "negative", "no version", "list", "a word", "values of other types"],
)
def test_a_champion_that_the_driver_made_up(champion: Any) -> None:
    document = {"uid": "u", "attempt": 1, "outcome": "Succeeded", "metrics": {}, "champion": champion}
    found = read_result(document, "u", 1)
    assert found is not None
    if found.champion is not None:
        assert (found.champion.value, found.champion.problem, found.champion.schema_changes) == (None, None, [])


def tags(world: World, version: int) -> dict[str, str]:
    return {
        key.removeprefix("lakeloop.io/"): value for key, value in world.tracking.versions["churn", version].tags.items()
    }


async def second_run(world: World, champion: Any, **parts: Any) -> None:
    """A first run without a champion; a second one that is compared with it."""
    await world.until_running(evaluation=CHAMPION, **parts)
    world.ends(world.result())
    await world.settle()
    world.annotate("lakeloop.io/run-now", "again")
    await world.settle()
    world.runs()
    await world.settle()
    world.ends(world.result(champion=champion))
    await world.settle()


async def test_the_first_model_has_no_champion_to_beat() -> None:
    world = World()
    await world.until_running(evaluation=CHAMPION)
    assert json.loads(world.object("ConfigMap", "churn-1-run")["data"]["run.json"])["champion"] is None
    world.ends(world.result())
    await world.settle()
    assert world.tracking.aliases == {("churn", "champion"): 1}
    assert world.condition("ModelAccepted") == ("True", "GatesPassed")
    assert tags(world, 1)["gate"] == "passed"


async def test_the_driver_is_told_of_the_champion_and_both_numbers_stay() -> None:
    world = World()
    await second_run(world, {"version": 1, "value": 0.89, "schemaChanges": ["age: added (long)"]})
    told = json.loads(world.object("ConfigMap", "churn-2-run")["data"]["run.json"])["champion"]
    source = world.tracking.versions["churn", 1].source
    assert told == {"model": "churn", "version": 1, "artifactUri": source, "digest": "sha256:abc"}
    assert world.run["champion"] == {"version": 1, "metric": 0.89, "schemaChanges": ["age: added (long)"]}
    assert world.run["metrics"]["roc_auc"] == 0.91
    assert world.tracking.aliases == {("churn", "champion"): 2}
    found = tags(world, 2)
    assert (found["champion.version"], found["champion.metric.roc_auc"], found["metric.roc_auc"]) == (
        "1",
        "0.89",
        "0.91",
    )


async def test_a_failed_gate_registers_the_version_without_the_alias() -> None:
    world = World()
    await second_run(world, {"version": 1, "value": 0.99})
    assert world.tracking.aliases == {("churn", "champion"): 1}
    assert tags(world, 2)["gate"] == "failed"
    assert tags(world, 2)["gate.reason"] == "ChampionNotBeaten"
    assert (world.run["phase"], world.run["model"]["version"]) == ("Failed", 2)
    assert (world.run["failure"]["class"], world.run["failure"]["reason"]) == ("Gate", "ChampionNotBeaten")
    assert world.condition("Ready") == ("False", "ChampionNotBeaten")
    assert world.condition("Stalled") == ("True", "ChampionNotBeaten")
    assert world.condition("ModelAccepted") == ("False", "ChampionNotBeaten")
    assert "0.99" in world.message("Ready")
    assert world.status["summary"]["metric"] == "roc_auc 0.91"


async def test_a_threshold_fails_a_model_that_is_not_registered_too() -> None:
    world = World()
    evaluation = {"thresholds": [{"metric": "roc_auc", "min": 0.95}]}
    await world.until_running(evaluation=evaluation, register=None)
    world.ends(world.result())
    await world.settle()
    assert world.run["failure"]["reason"] == "ThresholdMissed"
    assert world.tracking.versions == {}


async def test_metrics_that_the_message_had_no_room_for_are_read_from_mlflow() -> None:
    world = World()
    await world.until_running(evaluation={"thresholds": [{"metric": "accuracy", "min": 0.5}]})
    short = world.result()
    del short["metrics"]
    world.records(world.result(metrics={"test_accuracy": 0.8}))
    world.ends(short)
    await world.settle()
    assert world.run["phase"] == "Succeeded"


async def test_never_promotes_although_it_passes() -> None:
    world = World()
    await world.until_running(evaluation=CHAMPION, register={"model": "churn", "alias": "champion", "promote": "Never"})
    world.ends(world.result())
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert world.tracking.aliases == {}


async def test_the_alias_moved_by_somebody_else_during_the_run() -> None:
    world = World()
    await world.until_running(evaluation=CHAMPION)
    await world.tracking.ensure_registered_model("churn")
    await world.tracking.create_model_version("churn", "s3://mlflow/x", "r", None, "", {})
    await world.tracking.set_alias("churn", "champion", 1)
    world.ends(world.result())
    await world.settle()
    assert world.run["failure"]["reason"] == "ChampionChanged"
    assert world.tracking.aliases == {("churn", "champion"): 1}


@pytest.mark.parametrize("after", range(1, 12))
async def test_killed_after_any_write_of_the_end_it_promotes_once(after: int) -> None:
    world = World()
    await world.until_running(evaluation=CHAMPION)
    world.ends(world.result())
    world.writes.crash_after = world.writes.made + after
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    assert world.tracking.aliases == {("churn", "champion"): 1}
    assert len(world.tracking.versions) == 1
    assert world.condition("ModelAccepted") == ("True", "GatesPassed")


async def test_the_alias_is_not_moved_over_a_newer_one() -> None:
    world = World()
    await second_run(world, {"version": 1, "value": 0.5})
    for instead_of in (None, 1):
        with pytest.raises(ProblemFound, match="moved to version 2"):
            await set_alias(world.tracking, SetAlias("churn", "champion", 1, guarded=True, instead_of=instead_of))
    assert world.tracking.aliases == {("churn", "champion"): 2}
