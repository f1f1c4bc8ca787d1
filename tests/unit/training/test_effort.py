"""What a run costs: each call is CPU of the operator, the API server or MLflow, and hundreds of jobs come at once."""

from collections import Counter
from typing import Any

import pytest
from unit.training.world import World

KUBERNETES = ("get", "list", "create", "apply", "delete", "patch_status", "set_finalizers")
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
        "patch_status": 3,  # the run, its inputs, its driver: each of the first two before what comes of it
        "get Secret": 2,
        "get ConfigMap": 1,
        "create": 5,  # the driver's account, role and binding, the run's ConfigMap, the pod
        "ensure_experiment": 1,
        "create_run": 1,
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
