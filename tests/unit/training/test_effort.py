"""What a run costs: each call is CPU of the operator, the API server or MLflow, and hundreds of jobs come at once."""

from collections import Counter
from typing import Any

import pytest
from unit.training.world import TABLE, World

KUBERNETES = ("get", "list", "create", "apply", "delete", "replace_status", "set_finalizers")
MLFLOW = ("get_experiment", "ensure_experiment", "find_run", "create_run", "get_run", "search_model_versions")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def calls(world: World, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each was called."""
    found: Counter[str] = Counter()

    def counted(on: Any, name: str) -> None:
        real = getattr(on, name)

        def call(*given: Any, **named: Any) -> Any:
            found[name if name != "get" else f"get {given[0].kind}"] += 1
            return real(*given, **named)

        monkeypatch.setattr(on, name, call)

    for on, names in ((world.kubernetes, KUBERNETES), (world.tracking, MLFLOW)):
        for name in names:
            counted(on, name)
    return found


async def test_from_apply_to_driver_pod(world: World, calls: Counter[str]) -> None:
    world.apply()
    assert await world.step() != 0, "one pass is enough"
    assert len(world.drivers) == 1
    assert calls == {
        "get TrainingJob": 1,
        "list": 1,
        "set_finalizers": 1,
        "replace_status": 2,  # the run with its inputs, before anything comes of it, and its driver
        "get Secret": 2,
        "get ConfigMap": 1,
        "create": 5,  # the driver's account, role and binding, the run's ConfigMap, the pod
        "ensure_experiment": 1,
        "create_run": 1,
    }


async def test_a_run_that_cannot_be_pinned_is_written_once(world: World, calls: Counter[str]) -> None:
    del world.tables.tables[TABLE]
    world.apply()
    assert await world.step() != 0
    assert (world.run["number"], world.condition("Stalled")) == (1, ("True", "TableNotFound"))
    assert [event.reason for _, event in world.kubernetes.events] == ["RunStarted", "TableNotFound"]
    assert calls["replace_status"] == 1


async def test_what_is_done_first_finds_the_run_written(world: World, calls: Counter[str]) -> None:
    """The list of files to ingest is named after the run."""
    world.stores.objects["s3a://raw/a.csv"] = b"a,b"
    load = {"from": "s3a://raw/a.csv", "format": "csv"}
    world.apply(inputs=[{"name": "customers", "uri": TABLE, "ingest": load}])
    await world.step()
    first = next(each for each in world.writes.log if each.startswith("object "))
    log = world.writes.log[: world.writes.log.index(first)]
    assert log == ["finalizers TrainingJob churn", "status TrainingJob churn"]
    assert world.run["uid"] in first


async def test_the_end_of_a_run_takes_one_pass(world: World, calls: Counter[str]) -> None:
    await world.until_running()
    calls.clear()
    world.ends(world.result())
    again = await world.step()
    assert (again or 0) > 60
    assert (world.run["phase"], world.run["logs"]["complete"]) == ("Succeeded", True)
    counted = {
        call: calls[call] for call in ("get TrainingJob", "list", "get ConfigMap", "get Secret", "replace_status")
    }
    assert counted == {
        "get TrainingJob": 1,
        "list": 1,
        "get ConfigMap": 1,
        "get Secret": 2,
        "replace_status": 2,  # that the model is being registered; the end, and that the logs are whole
    }


async def test_a_later_run_writes_what_has_changed(world: World, calls: Counter[str]) -> None:
    await world.until_succeeded()
    world.uploaded("driver-1")
    await world.settle()
    calls.clear()
    world.annotate("lakeloop.io/run-now", "again")
    await world.step()
    assert len(world.live_drivers) == 1
    assert {call: calls[call] for call in ("get ServiceAccount", "get Role", "get RoleBinding", "apply", "create")} == {
        "get ServiceAccount": 1,
        "get Role": 1,
        "get RoleBinding": 1,
        "apply": 1,  # the run's ConfigMap: what the driver may do is as it was
        "create": 1,
    }


async def test_a_look_at_a_driver_at_work(world: World, calls: Counter[str]) -> None:
    await world.until_running()
    calls.clear()
    await world.step()
    assert calls == {"get TrainingJob": 1, "list": 1, "get ConfigMap": 1}


async def test_a_look_at_a_job_that_is_done(world: World, calls: Counter[str]) -> None:
    await world.until_succeeded()
    for container in ("driver-1",):
        world.uploaded(container)
    await world.settle()
    calls.clear()
    await world.step()
    assert calls == {"get TrainingJob": 1, "list": 1}
