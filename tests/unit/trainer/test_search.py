"""The search's pure parts: space, study, loop with a clock of its own, folds, what is refused before any data is read."""

from __future__ import annotations

import csv
import itertools
import math
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakeloop_trainer.failures import RunFailure
from lakeloop_trainer.progress import Progress
from lakeloop_trainer.result import Outcome, termination_message
from lakeloop_trainer.run_spec import Search, SearchParameter, Step, parse
from lakeloop_trainer.search import core, loop, report, sklearn_space, space, spark_ml_space
from lakeloop_trainer.search.folds import folds
from lakeloop_trainer.search.scoring import Folds, outcome
from lakeloop_trainer.search.study import MOST_TRIES, Study
from lakeloop_trainer.search.trial import FAILED, FINISHED, PRUNED, RUNNING, Trial, best, from_record

LOGISTIC = (
    Step("sklearn.preprocessing.StandardScaler", {}),
    Step("sklearn.linear_model.LogisticRegression", {"C": 1}),
)


def ranged(name: str, low: float, high: float, *, log: bool = False, integer: bool = False) -> SearchParameter:
    return SearchParameter(name, low, high, log, integer, ())


def listed(name: str, *values: Any) -> SearchParameter:
    return SearchParameter(name, None, None, False, False, values)


def search_of(*parameters: SearchParameter, **changes: Any) -> Search:
    fields: dict[str, Any] = {
        "algorithm": "Random", "folds": 2, "max_trials": 10, "parallelism": 2, "pruning": False, "timeout_seconds": 100,
    }  # fmt: skip
    return Search(parameters=parameters, **{**fields, **changes})


@st.composite
def parameters(draw: Any, finite: bool = False) -> SearchParameter:
    name = draw(st.text("abc.01", min_size=1, max_size=6))
    kind = draw(st.sampled_from(["values", "ints"] if finite else ["values", "ints", "floats"]))
    if kind == "values":
        return listed(name, *draw(st.lists(st.sampled_from([1, 1.0, True, None, "a", [1]]), min_size=1, max_size=4)))
    log = draw(st.booleans())
    if kind == "ints":
        low = draw(st.integers(1 if log else -5, 5))
        return ranged(name, float(low), float(low + draw(st.integers(0, 4))), log=log, integer=True)
    low = draw(st.floats(1e-6 if log else -1e6, 1e6))
    return ranged(name, low, low + draw(st.floats(0, 1e6)), log=log)


spaces = st.lists(parameters(), min_size=1, max_size=3, unique_by=lambda each: each.name)
finite_spaces = st.lists(parameters(finite=True), min_size=1, max_size=3, unique_by=lambda each: each.name)


# the space


@given(finite_spaces, st.integers(0, 2**40))
def test_a_grid_has_every_point_once_and_its_order_is_the_seeds(found: list[SearchParameter], seed: int) -> None:
    search = search_of(*found, algorithm="Grid")
    points = list(space.grid(search, seed))
    expected = itertools.product(
        *(
            range(len(each.values))
            if each.minimum is None or each.maximum is None
            else range(int(each.minimum), int(each.maximum) + 1)
            for each in found
        )
    )
    names = [each.name for each in found]
    assert sorted(tuple(point[name] for name in names) for point in points) == sorted(expected)
    assert len(points) == space.size(search)
    assert points == list(space.grid(search, seed))
    for point in points:
        space.values(search, point)


def test_a_grid_too_large_for_memory_gives_its_first_points() -> None:
    search = search_of(*(ranged(f"{i}.a", 1, 2**40, integer=True) for i in range(16)), algorithm="Grid")
    assert space.size(search) == 2**640
    first = list(itertools.islice(space.grid(search, 3), 50))
    assert len({tuple(point.items()) for point in first}) == 50


@settings(max_examples=60, deadline=None)
@given(spaces, st.sampled_from(["Random", "TPE"]), st.integers(-(2**63), 2**63 - 1))
def test_points_are_in_the_space_and_values_of_their_type(
    found: list[SearchParameter], algorithm: str, seed: int
) -> None:
    search = search_of(*found, algorithm=algorithm, max_trials=4)
    study = Study(search, seed, maximize=True)
    for _ in range(study.total):
        trial = study.ask()
        assert trial is not None
        for each in found:
            value = trial.params[each.name]
            if each.minimum is None or each.maximum is None:
                assert any(value is known for known in each.values)  # True is not 1, and 1 is not 1.0
            else:
                assert type(value) is (int if each.integer else float)
                assert each.minimum <= value <= each.maximum
        trial.state, trial.values = FINISHED, [0.5, 0.5]
        study.tell(trial)
    assert study.ask() is None


REFUSED = {
    "a grid over floats": (search_of(ranged("1.C", 0, 1), algorithm="Grid"), "spec.search.parameters[0]"),
    "half an integer": (search_of(ranged("1.C", 0.5, 3, integer=True)), "spec.search.parameters[0].min"),
    "a logarithm of zero": (
        search_of(listed("0.copy", True), ranged("1.C", 0, 3, log=True)),
        "spec.search.parameters[1].min",
    ),
    "upside down": (search_of(ranged("1.C", 3, 1)), "spec.search.parameters[0].min"),
    "a range wider than a number": (search_of(ranged("1.C", -1.7e308, 1.7e308)), "spec.search.parameters[0].min"),
    "an integer beyond a float": (search_of(ranged("1.C", 1, 1e300, integer=True)), "spec.search.parameters[0].max"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_space_that_makes_no_sense_is_refused(name: str) -> None:
    search, field = REFUSED[name]
    with pytest.raises(RunFailure) as caught:
        space.check(search)
    assert (caught.value.reason, caught.value.field) == ("InvalidParameter", field)
    assert caught.value.message.startswith(field)


# scikit-learn

BAD_NAMES = {
    "no step": ("C", "name"),
    "a step that is not there": ("2.C", "name"),
    "a parameter that is not there": ("1.c", "name"),
    "another writing of a step": ("01.C", "name"),
    "below a parameter": ("1.C.x", "name"),
    "of a nested estimator": ("1.estimator__C", "name"),
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_parameter_is_refused(name: str) -> None:
    written, part = BAD_NAMES[name]
    with pytest.raises(RunFailure) as caught:
        sklearn_space.check(LOGISTIC, [listed("0.copy", True), ranged(written, 1, 2)])
    assert (caught.value.reason, caught.value.field) == ("InvalidParameter", f"spec.search.parameters[1].{part}")


@pytest.mark.parametrize(
    ("parameter", "field", "reason"),
    [
        pytest.param(ranged("1.C", -1, 2), "min", "InvalidParameter", id="below what C may be"),
        pytest.param(ranged("1.max_iter", 1.0, 9.0), "min", "InvalidParameter", id="floats for an integer"),
        pytest.param(listed("1.solver", "lbfgs", "magic"), "values[1]", "InvalidParameter", id="no such solver"),
        pytest.param(listed("1.C", 1, None), "values[1]", "InvalidParameter", id="null"),
        pytest.param(listed("0.copy", [1]), "values[0]", "InvalidParameter", id="a list"),
    ],
)
def test_a_value_that_the_estimator_refuses_is_refused(parameter: Any, field: str, reason: str) -> None:
    with pytest.raises(RunFailure) as caught:
        sklearn_space.check(LOGISTIC, [parameter])
    assert (caught.value.reason, caught.value.field) == (reason, f"spec.search.parameters[0].{field}")


SPARK = (
    Step("pyspark.ml.feature.StandardScaler", {}),
    Step("pyspark.ml.classification.LogisticRegression", {"regParam": 1}),
)


@pytest.mark.parametrize(
    ("parameter", "field", "says"),
    [
        pytest.param(ranged("1.regparam", 0, 1), "name", "regParam", id="no such parameter"),
        pytest.param(ranged("2.regParam", 0, 1), "name", "the steps are 0 to 1", id="no such step"),
        pytest.param(listed("1.labelCol", "a"), "name", "LogisticRegression has", id="the label is the target"),
        pytest.param(ranged("1.maxIter", 1, 9), "min", "type: Int", id="floats for a whole number, whole at its ends"),
        pytest.param(listed("1.maxIter", 3, 1.5), "values[1]", "int", id="half an iteration"),
        pytest.param(listed("1.fitIntercept", True, 1), "values[1]", "bool", id="a number for a boolean"),
        pytest.param(listed("1.regParam", "much"), "values[0]", "float", id="text for a number"),
        pytest.param(listed("1.regParam", None), "values[0]", "float", id="null"),
    ],
)
def test_what_a_step_of_spark_does_not_take_is_refused(parameter: Any, field: str, says: str) -> None:
    with pytest.raises(RunFailure) as caught:
        spark_ml_space.check(SPARK, [listed("0.withMean", True), parameter], 0)
    assert (caught.value.reason, caught.value.field) == ("InvalidParameter", f"spec.search.parameters[1].{field}")
    assert says in caught.value.message


def test_numbers_reach_spark_as_what_its_parameters_are() -> None:
    from lakeloop_trainer.spark_ml import steps as checking

    dimensions = [ranged("1.regParam", 0, 1, integer=True), listed("1.maxIter", 5.0), ranged("1.tol", 0.1, 1)]
    spark_ml_space.check(SPARK, dimensions, 0)
    found = spark_ml_space.with_params(SPARK, {"1.regParam": 1, "1.maxIter": 5.0, "1.tol": 0.5, "0.withMean": True})
    scaler, logistic = checking.check(found, 0)
    assert scaler.params == {"withMean": True}
    assert logistic.params == {"regParam": 1.0, "maxIter": 5, "tol": 0.5}
    assert [type(value) for value in logistic.params.values()] == [float, int, float]
    assert SPARK[1].params == {"regParam": 1}  # of the next trial, too


def test_a_number_of_a_range_has_its_type_and_a_bare_one_stays_ambiguous() -> None:
    forest = [Step("sklearn.ensemble.RandomForestClassifier", {})]
    counts, shares = ranged("0.max_features", 1, 5, integer=True), ranged("0.max_features", 0.1, 1)
    sklearn_space.check(forest, [counts])
    sklearn_space.check(forest, [shares])
    _, one = sklearn_space.with_params(forest, [counts], {"0.max_features": 1})
    assert one.steps[0][1].max_features == 1
    with pytest.raises(RunFailure) as caught:
        sklearn_space.check(forest, [listed("0.max_features", 1)])
    assert (caught.value.reason, caught.value.field) == ("AmbiguousNumber", "spec.search.parameters[0].values[0]")


def test_the_winners_parameters_are_in_the_steps_and_in_the_code() -> None:
    from lakeloop_trainer.estimator import pipeline_code

    steps, pipeline = sklearn_space.with_params(
        LOGISTIC,
        [ranged("1.C", 0.1, 10, log=True), listed("0.with_mean", True, False)],
        {"1.C": 2.5, "0.with_mean": False},
    )
    assert steps[1].params == {"C": 2.5}
    names: dict[str, Any] = {}
    exec(pipeline_code(steps, pipeline), names)  # noqa: S102
    built = names["build"]()
    assert (built.steps[1][1].C, built.steps[0][1].with_mean) == (2.5, False)


def test_what_an_estimator_raises_is_told_without_values_of_rows() -> None:
    import pandas as pd

    features = pd.DataFrame({"a": ["Ms Secret", "b"] * 3})
    rows = [(np.arange(3), np.arange(3, 6))]
    found = Folds(features, pd.Series([0, 1] * 3), rows, LOGISTIC, [], 1)
    metrics, message = outcome(found, {}, 0)
    assert metrics is None
    assert message.startswith("ValueError: could not convert string to float")
    assert "Secret" not in message


# the study


def ended(study: Study, values: list[float], state: str = FINISHED) -> Trial:
    trial = study.ask()
    assert trial is not None
    for value in values:
        trial.values.append(value)
        study.report(trial)
    trial.state = state
    study.tell(trial)
    return trial


@settings(max_examples=40, deadline=None)
@given(
    spaces,
    st.sampled_from(["Grid", "Random", "TPE"]),
    st.lists(st.sampled_from([FINISHED, PRUNED, FAILED, RUNNING]), max_size=6),
    st.integers(0, 2**31),
)
def test_a_resumed_study_goes_on_and_repeats_nothing(
    found: list[SearchParameter], algorithm: str, states: list[str], seed: int
) -> None:
    search = search_of(*found, algorithm=algorithm, max_trials=8)
    if algorithm == "Grid" and space.size(search) is None:
        return
    first = Study(search, seed, maximize=False)
    past = []
    for state in states:
        trial = first.ask()
        if trial is None:
            break
        trial.state = state
        trial.values = [1.0, 2.0] if state == FINISHED else [1.0] if state == PRUNED else []
        if state != RUNNING:
            first.tell(trial)
        again = from_record(str(trial.number), trial.record(), "run")
        assert again is not None
        past.append(again)
    known = core.known(search, past)
    assert len(known) == len(past)

    second = Study(search, seed, maximize=False, past=known)
    begun = []
    while (trial := second.ask()) is not None:
        begun.append(trial)
    cut_off = [each.number for each in past if each.state == RUNNING]
    assert [each.number for each in begun[: len(cut_off)]] == cut_off
    assert all(each.tries == 2 for each in begun[: len(cut_off)])
    numbers = sorted({each.number for each in second.trials})
    assert numbers == list(range(1, space.trials_in_all(search) + 1))
    if space.size(search) is not None:
        assert len({tuple(sorted(each.point.items())) for each in second.trials}) == len(second.trials)


def test_the_points_of_random_are_the_same_whether_or_not_an_attempt_died() -> None:
    search = search_of(ranged("1.C", 0, 1), max_trials=6)
    whole, first = Study(search, 7, maximize=True), Study(search, 7, maximize=True)
    wanted = [ended(whole, [0.5, 0.5]).point for _ in range(6)]
    past = [ended(first, [0.5, 0.5]) for _ in range(2)]
    second = Study(search, 7, maximize=True, past=past)
    assert [each.point for each in [*past, *(ended(second, [0.5, 0.5]) for _ in range(4))]] == wanted


def test_a_trial_that_was_cut_off_with_every_driver_is_given_up() -> None:
    search = search_of(listed("1.C", 1, 2), max_trials=2)
    lost = Trial(1, {"1.C": 0}, {"1.C": 1}, tries=MOST_TRIES)
    study = Study(search, 0, maximize=True, past=[lost])
    assert (lost.state, study.ask().number) == (FAILED, 2)  # type: ignore[union-attr]
    assert study.ask() is None


def test_tpe_finds_what_random_misses() -> None:
    def typical(algorithm: str) -> float:
        search = search_of(ranged("1.C", -1000, 1000), algorithm=algorithm, max_trials=60, parallelism=1)
        study = Study(search, 1, maximize=False)
        found = []
        for _ in range(60):
            trial = study.ask()
            assert trial is not None
            value = abs(trial.params["1.C"] - 123.0)
            trial.values, trial.state = [value, value], FINISHED
            study.tell(trial)
            found.append(value)
        return statistics.median(found[30:])

    assert typical("TPE") < typical("Random") / 3


def test_a_trial_behind_the_median_is_pruned_and_no_other() -> None:
    study = Study(search_of(ranged("1.C", 0, 1), pruning=True, folds=3, max_trials=9), 0, maximize=True)
    for value in (0.8, 0.82, 0.84, 0.86, 0.88):
        ended(study, [value, value, value])
    for value, hopeless in ((0.7, True), (0.9, False)):
        trial = study.ask()
        assert trial is not None
        trial.values.append(value)
        assert study.report(trial) is hopeless


# the loop


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Instantly:
    """Workers whose folds take so many seconds of the clock, and are over at once."""

    def __init__(self, clock: Clock, seconds: float, score: Callable[[Trial, int], Mapping[str, float]]) -> None:
        self.slots = 2
        self._clock, self._seconds, self._score = clock, seconds, score
        self.cancelled: list[int] = []
        self.asked: list[tuple[int, int]] = []

    def submit(self, trial: Trial, fold: int) -> Future[Mapping[str, float]]:
        self.asked.append((trial.number, fold))
        self._clock.now += self._seconds
        future: Future[Mapping[str, float]] = Future()
        try:
            future.set_result(self._score(trial, fold))
        except Exception as error:
            future.set_exception(error)
        return future

    def cancel(self, trial: Trial) -> None:
        self.cancelled.append(trial.number)

    def close(self) -> None:
        pass


def run(
    search: Search, workers: Any, clock: Clock, spent: float = 0.0, past: list[Trial] | None = None
) -> tuple[Study, list[tuple[int, str]]]:
    study = Study(search, 0, maximize=True, past=past or [])
    seen: list[tuple[int, str]] = []
    budget = loop.Budget(search.timeout_seconds, spent, clock(), clock)
    loop.run(search, study, workers, budget, "accuracy", lambda trial: seen.append((trial.number, trial.state)))
    return study, seen


def fair(trial: Trial, fold: int) -> Mapping[str, float]:
    return {"accuracy": trial.params["1.C"] + fold}


def test_trials_run_fold_by_fold_and_are_told_of() -> None:
    clock = Clock()
    workers = Instantly(clock, 1.0, fair)
    study, seen = run(search_of(ranged("1.C", 0, 1), max_trials=3), workers, clock)
    assert sorted(workers.asked) == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert {state for _, state in seen} == {RUNNING, FINISHED}
    winner = best(study.trials, maximize=True)
    assert winner is not None
    assert winner.params["1.C"] == max(each.params["1.C"] for each in study.trials)
    assert winner.deviation == pytest.approx(0.5)


@pytest.mark.parametrize(("spent", "begun"), [(0.0, 5), (60.0, 2), (100.0, 0), (5000.0, 0)])
def test_no_trial_begins_when_the_time_of_all_attempts_is_over(spent: float, begun: int) -> None:
    clock = Clock()
    search = search_of(ranged("1.C", 0, 1), max_trials=50, timeout_seconds=100, parallelism=1)
    study, _ = run(search, Instantly(clock, 10.0, fair), clock, spent)
    assert len(study.trials) == begun
    assert all(each.state == FINISHED for each in study.trials)


def test_a_trial_that_goes_on_and_on_is_ended_beyond_the_time() -> None:
    clock = Clock()
    search = search_of(ranged("1.C", 0, 1), max_trials=5, folds=20, timeout_seconds=100, parallelism=1)
    study, _ = run(search, Instantly(clock, 30.0, fair), clock)
    assert [(each.state, each.message) for each in study.trials] == [(FAILED, loop.OUT_OF_TIME)]
    assert clock.now - 1000.0 <= 150
    found = core.failure(study.trials)
    assert (found.reason, found.field) == ("SearchFailed", "spec.search.timeoutSeconds")


def test_a_trial_that_hangs_is_cancelled() -> None:
    clock = Clock()

    class Hanging(Instantly):
        def submit(self, trial: Trial, fold: int) -> Future[Mapping[str, float]]:
            clock.now = 5000.0  # beyond the time and the grace: nothing is waited for
            return Future()

    workers = Hanging(clock, 0.0, fair)
    study, seen = run(search_of(ranged("1.C", 0, 1)), workers, clock)
    assert workers.cancelled == [1]
    assert seen == [(1, RUNNING), (1, FAILED)]
    assert study.trials[0].message == loop.OUT_OF_TIME


def test_failed_trials_are_told_and_the_others_go_on() -> None:
    def moody(trial: Trial, fold: int) -> Mapping[str, float]:
        if trial.number % 2:
            raise loop.TrialError("it raised")
        return {"accuracy": math.nan} if trial.number == 4 else fair(trial, fold)

    clock = Clock()
    study, _ = run(search_of(ranged("1.C", 0, 1), max_trials=6), Instantly(clock, 1.0, moody), clock)
    states = {each.number: each.state for each in study.trials}
    assert states == {1: FAILED, 2: FINISHED, 3: FAILED, 4: FAILED, 5: FAILED, 6: FINISHED}
    found = core.failure([each for each in study.trials if each.state == FAILED])
    assert found.reason == "SearchFailed"
    assert found.message == "None of the 4 trials finished; 3 failed with: it raised"


def test_what_is_no_trials_fault_ends_the_search() -> None:
    def broken(trial: Trial, fold: int) -> Mapping[str, float]:
        raise ConnectionError("no executors")

    clock = Clock()
    workers = Instantly(clock, 1.0, broken)
    with pytest.raises(ConnectionError):
        run(search_of(ranged("1.C", 0, 1)), workers, clock)


@given(st.integers(0, 50), st.floats(0, 1e6), st.integers(-3, 50), st.floats(0, 1e6))
def test_the_estimate_is_no_more_than_the_time(over: int, elapsed: float, left: int, time_left: float) -> None:
    found = loop.remaining_seconds(over, elapsed, left, time_left)
    assert found is None or 0 <= found <= time_left
    assert (found is None) == (left > 0 and over == 0)


# what goes into MLflow and out again


@given(
    st.integers(1, 10_000), st.sampled_from([FINISHED, PRUNED, FAILED, RUNNING]),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20), st.text(max_size=500),
)  # fmt: skip
def test_a_record_is_read_as_it_was_written(number: int, state: str, values: list[float], message: str) -> None:
    trial = Trial(number, {"1.C": 0.1, "0.a": 2}, {}, state, [], values, message, 1.5, 20.25, 1, "run")
    found = from_record(str(number), trial.record(), "run")
    if state == FINISHED and not values:
        assert found is None
    else:
        assert found == trial


@given(st.one_of(st.text(), st.sampled_from(["", "[]", "null", "{}", '{"point": {"a": true}}', "1" * 5000])))
def test_a_tag_that_somebody_wrote_is_no_trial(text: str) -> None:
    assert from_record("1", text, "run") is None
    assert from_record(text, Trial(1, {}, {}).record(), "run") is None or text.strip().isdigit()


def test_trials_of_another_space_are_left_out() -> None:
    search = search_of(listed("1.C", 1, 2))
    past = [Trial(1, {"1.C": 5}, {}), Trial(2, {"1.x": 0}, {}), Trial(3, {"1.C": 1}, {})]
    assert [(each.number, each.params) for each in core.known(search, past)] == [(3, {"1.C": 2})]


def test_a_search_is_in_the_result_as_far_as_there_is_room() -> None:
    trials = [Trial(1, {}, {"1.C": 0.5}, FINISHED, [], [0.25, 0.75]), Trial(2, {}, {"1.C": "x" * 3000}, FAILED)]
    summary = core.summary(trials, trials[0])
    assert summary == {
        "trials": 2, "finished": 1, "pruned": 0, "failed": 1,
        "best": {"trial": 1, "value": 0.5, "params": {"1.C": "0.5"}},
    }  # fmt: skip
    many = {f"{i}.{'p' * 100}": "v" * 100 for i in range(16)}
    long = core.summary(trials, Trial(1, {}, many, FINISHED, [], [1.0]))
    model = {"modelId": "m-1", "uri": "u" * 900, "artifactUri": "s3://x", "digest": "sha256:0", "signature": True}
    message = termination_message(Outcome("uid", 1, metrics={"a": 1.0}, model=model, search=long).document())
    assert len(message.encode()) <= 4096
    assert '"search":{"trials":2' in message


def test_progress_never_goes_back() -> None:
    progress = Progress("uid", 1, None)
    progress.trials(3, 20, 40, 12.345)
    progress.stage("Training", 30)
    assert '"percent":40' in progress.value()
    assert '"trialsFinished":3,"trialsTotal":20' in progress.value()


def test_the_report_of_a_search(tmp_path: Path) -> None:
    search = search_of(
        ranged("1.C", 0.1, 10, log=True), listed("0.copy", True, [1, "x"]), ranged("1.n", 3, 3, integer=True)
    )
    trials = [
        Trial(1, {"1.C": 1.0, "0.copy": 1, "1.n": 3}, {"1.C": 1.0, "0.copy": [1, "x"], "1.n": 3}, FINISHED, [], [0.5, 0.7]),
        Trial(2, {"1.C": 2.0, "0.copy": 0, "1.n": 3}, {"1.C": 2.0, "0.copy": True, "1.n": 3}, PRUNED, [], [0.4]),
        Trial(3, {"1.C": 9.0, "0.copy": 0, "1.n": 3}, {"1.C": 9.0, "0.copy": True, "1.n": 3}, FAILED, message="no"),
    ]  # fmt: skip
    for found in (trials, trials[2:]):
        files = report.write(tmp_path / str(len(found)), search, found, "accuracy", maximize=True)
        assert set(files) == {"search/trials.csv", "search/history.png", "search/parallel_coordinates.png"}
        assert all(path.read_bytes()[:4] == b"\x89PNG" for name, path in files.items() if name.endswith("png"))
    with (tmp_path / "3/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["state"], row["1.C"], row["fold_2"]) for row in rows] == [
        ("1", "Finished", "1.0", "0.7"), ("2", "Pruned", "2.0", ""), ("3", "Failed", "9.0", ""),
    ]  # fmt: skip


# folds


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=8, max_size=60), st.integers(2, 5), st.booleans(), st.integers(0, 2**40),
    st.sampled_from(["rows", "groups", "few groups", "time"]),
)  # fmt: skip
def test_folds_are_of_the_rows_and_hold_each_out_once(
    target: list[int], wanted: int, classifier: bool, seed: int, kind: str
) -> None:
    import pandas as pd

    count = len(target)
    groups = pd.Series(np.arange(count) // (2 if kind == "groups" and count >= 2 * wanted else count))
    order = pd.Series(np.arange(count)[::-1]) if kind == "time" else None
    made = folds(pd.Series(target), wanted, classifier, seed, groups if "groups" in kind else None, order)
    assert len(made) == wanted
    for fit, held_out in made:
        assert not set(fit) & set(held_out)
        if kind == "groups" and groups.nunique() >= wanted:
            assert not set(groups.iloc[fit]) & set(groups.iloc[held_out])
        if order is not None:
            assert order.iloc[fit].max() < order.iloc[held_out].min()
    if order is None:
        assert sorted(row for _, held_out in made for row in held_out) == list(range(count))


def test_a_key_with_most_of_the_rows_leaves_no_fold_empty() -> None:
    groups = [0] * 90 + [1, 2, 3, 4]
    made = folds([0, 1] * 45 + [0, 1, 0, 1], 5, True, 0, np.array(groups))
    assert all(len(fit) and len(held_out) for fit, held_out in made)


def test_fewer_rows_than_folds_are_refused() -> None:
    with pytest.raises(RunFailure) as caught:
        folds([0, 1, 0], 5, True, 0)
    assert caught.value.field == "spec.search.validation.folds"


# the run spec


def test_a_search_is_for_an_estimator_of_either_library(document: Any) -> None:
    search = {
        "algorithm": "TPE", "folds": 3, "maxTrials": 20, "parallelism": 2, "pruning": True, "timeoutSeconds": 1800,
        "parameters": [{"name": "0.C", "min": 0.001, "max": 100, "scale": "Log", "type": "Float", "values": None}],
    }  # fmt: skip
    assert parse(document(search=search)).search == Search(
        "TPE", (ranged("0.C", 0.001, 100.0, log=True),), 3, 20, 2, True, 1800
    )
    spark = {"library": "spark", "steps": [{"class": "pyspark.ml.classification.LogisticRegression", "params": {}}]}
    assert parse(document(search=search, estimator=spark)).search is not None
    script = {"estimator": None, "script": {"path": "train.py", "args": [], "uri": None}}
    with pytest.raises(RunFailure):
        parse(document(search=search, **script))


def test_a_process_that_is_cancelled_ends_and_another_takes_its_place(tmp_path: Path) -> None:
    import pandas as pd
    from lakeloop_trainer.search.process_workers import ProcessWorkers

    rows = [(np.arange(10), np.arange(10, 20))]
    found = Folds(pd.DataFrame({"a": range(20)}), pd.Series([0, 1] * 10), rows, LOGISTIC, [listed("1.C", 1, 2)], 1)
    workers = ProcessWorkers(found, tmp_path, 1)
    first, second = Trial(1, {}, {"1.C": 1}), Trial(2, {}, {"1.C": 2})
    future = workers.submit(first, 0)
    workers.cancel(first)
    with pytest.raises(loop.TrialError, match="its process ended"):
        future.result(60)
    assert "accuracy" in workers.submit(second, 0).result(60)
    workers.close()
    assert not (tmp_path / "search-rows").exists()
