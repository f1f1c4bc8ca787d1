"""Where a run's logs go, whether they are whole, and that no log decides about a run."""

import json
from typing import Any

import pytest
from unit.training.world import TABLE, World

from builders import NAMESPACE
from lakeloop.api.v1alpha1.trainingjob import RunInput
from lakeloop.domain.training import driver as drivers
from lakeloop.render.training.logs import logs_uri

FOLDER = "s3a://mlflow/1/run1/artifacts/logs"


def logs(world: World) -> dict[str, Any] | None:
    newest, (finished, *_) = world.status["run"], world.status.get("history", [None])
    if finished is not None and finished["number"] == newest["number"]:
        assert newest.get("logs") == finished.get("logs")
    found: dict[str, Any] | None = newest.get("logs")
    return found


def executor(world: World, number: int, **status: Any) -> None:
    labels = world.drivers[0]["metadata"]["labels"] | {"lakeloop.io/role": "executor", "spark-exec-id": str(number)}
    meta = {"name": f"{world.run['driverPod']}-exec-{number}", "namespace": NAMESPACE, "labels": labels}
    world.kubernetes.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": status})


async def ended(**parts: Any) -> World:
    """A run whose driver succeeded, and whose sidecar has not said yet that it is done."""
    world = World()
    await world.until_running(**parts)
    world.ends(world.result())
    world.uploaded("driver-1", complete=False)
    await world.settle()
    assert world.run["phase"] == "Succeeded"
    return world


async def test_the_folder_is_known_from_the_launch_on() -> None:
    world = World()
    await world.until_running()
    assert logs(world) == {"uri": FOLDER}
    assert world.tracking.runs["run1"].tags["lakeloop.io/logs"] == FOLDER
    (sidecar,) = world.drivers[0]["spec"]["initContainers"]
    assert {"name": "LAKELOOP_LOG_URI", "value": FOLDER} in sidecar["env"]


async def test_complete() -> None:
    world = World()
    await world.until_succeeded()
    assert logs(world) == {"uri": FOLDER, "complete": True}


async def test_the_run_does_not_wait_for_its_logs() -> None:
    world = await ended()
    assert logs(world) == {"uri": FOLDER}
    world.uploaded("driver-1")
    again = await world.settle()
    assert again is not None
    assert again > 5
    assert logs(world) == {"uri": FOLDER, "complete": True}


async def test_a_tail_that_never_comes() -> None:
    world = await ended()
    assert await world.settle() == 5.0
    world.clock.tick(15)
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": False}
    assert world.condition("Ready") == ("True", "RunSucceeded")


async def test_it_is_said_once_and_for_all() -> None:
    world = await ended()
    world.clock.tick(15)
    await world.settle()
    world.uploaded("driver-1")
    world.clock.tick(60)
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": False}


async def test_a_driver_that_is_stopped_gets_its_grace_period() -> None:
    world = World()
    await world.until_running()
    world.uploaded("driver-1", complete=False)
    world.annotate("lakeloop.io/stop", "now")
    await world.settle()
    assert world.run["phase"] == "Stopped"
    world.clock.tick(20)
    await world.settle()
    assert logs(world) == {"uri": FOLDER}
    world.uploaded("driver-1")
    world.kubernetes.settle()
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": True}


async def test_a_node_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    world = World()
    await world.until_running()
    world.annotate("lakeloop.io/stop", "now")
    await world.settle()
    world.clock.tick(61)
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": False}


async def test_the_first_attempts_tail_is_missed_too() -> None:
    world = World()
    await world.until_running()
    world.uploaded("driver-1", complete=False)
    world.pod_status(phase="Failed", reason="NodeLost")
    await world.settle()
    world.clock.tick(20)
    await world.settle()
    world.runs()
    world.ends(world.result())
    await world.settle()
    world.clock.tick(15)
    await world.settle()
    assert world.run["attempt"] == 2
    assert logs(world) == {"uri": FOLDER, "complete": False}


async def test_executors_count() -> None:
    world = World()
    await world.until_running()
    executor(world, 1, phase="Running")
    world.uploaded("executor-1-1", complete=False)
    world.ends(world.result())
    await world.settle()
    world.kubernetes.settle()
    await world.settle()
    assert logs(world) == {"uri": FOLDER}
    world.uploaded("executor-1-1")
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": True}


async def test_an_executor_that_left_no_marker() -> None:
    world = World()
    await world.until_running()
    executor(world, 1, phase="Failed")
    world.ends(world.result())
    await world.settle()
    world.clock.tick(15)
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": False}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"complete": "true"}', b"[" * 10_000, b"x" * 5000])
async def test_a_marker_that_is_none(content: bytes) -> None:
    world = await ended()
    world.stores.objects[f"{FOLDER}/driver-1.json"] = content
    world.clock.tick(15)
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": False}


async def test_other_objects_of_the_folder_are_not_looked_at() -> None:
    world = await ended()
    for name in ("driver-1.000001.log", "events/eventlog_v2_a/driver-9.json", "notes.json"):
        world.stores.objects[f"{FOLDER}/{name}"] = b"{}"
    world.uploaded("driver-1")
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": True}


async def test_a_store_that_does_not_answer_is_asked_for_longer() -> None:
    world = await ended()
    world.stores.down = True
    world.clock.tick(60)
    assert await world.settle() == 30.0
    assert logs(world) == {"uri": FOLDER}
    world.stores.down = False
    world.uploaded("driver-1")
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": True}


async def test_and_not_for_ever() -> None:
    world = await ended()
    world.stores.down = True
    world.clock.tick(600)
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": False}


async def test_a_run_that_follows_does_not_hide_it() -> None:
    world = await ended()
    world.annotate("lakeloop.io/run-now", "again")
    await world.settle()
    assert world.run["number"] == 2
    world.stores.objects[f"{FOLDER}/driver-1.json"] = json.dumps({"complete": True}).encode()
    await world.settle()
    assert world.status["history"][0]["logs"] == {"uri": FOLDER, "complete": True}
    assert world.run["logs"] == {"uri": "s3a://mlflow/1/run2/artifacts/logs"}


async def test_a_suspended_job_hears_of_it_too() -> None:
    world = await ended()
    world.annotate("lakeloop.io/suspend", "on-1")
    world.uploaded("driver-1")
    await world.settle()
    assert logs(world) == {"uri": FOLDER, "complete": True}
    assert world.condition("Suspended") == ("True", "Suspended")


async def test_no_logs() -> None:
    world = World()
    await world.until_succeeded(runPolicy={"logs": {"tailBytes": 0}})
    assert logs(world) is None
    assert "initContainers" not in world.drivers[0]["spec"]
    assert "lakeloop.io/logs" not in world.tracking.runs["run1"].tags


async def test_a_run_that_was_never_launched_has_none() -> None:
    world = World()
    world.kubernetes.refuse = lambda manifest, dry_run: None
    world.apply(storage={"secretRef": {"name": "nobody"}})
    await world.settle()
    world.clock.tick(601)
    await world.settle()
    assert world.run["phase"] == "Failed"
    assert logs(world) is None


async def test_mlflow_that_takes_no_tag_holds_no_run_up() -> None:
    world = World()
    world.apply()
    await world.settle()
    assert "lakeloop.io/logs" not in world.tracking.runs["run1"].tags, "the launch asks for no more than it needs"
    world.tracking.down = True
    world.runs()
    await world.settle()
    assert world.run["phase"] == "Running"
    assert logs(world) == {"uri": FOLDER}


async def test_a_run_that_nobody_saw_running_is_linked_too() -> None:
    world = World()
    world.apply()
    await world.settle()
    world.ends(world.failure("Data", "EmptyTable"), code=1)
    await world.settle()
    assert world.tracking.runs["run1"].tags["lakeloop.io/logs"] == FOLDER


PINNED = [RunInput(name="customers", uri=f"{TABLE}/", version=1)]


@pytest.mark.parametrize(
    ("artifacts", "expected"),
    [
        ("s3://mlflow/1/abc/artifacts", "s3a://mlflow/1/abc/artifacts/logs"),
        ("s3a://mlflow/1/abc/artifacts/", "s3a://mlflow/1/abc/artifacts/logs"),
        ("mlflow-artifacts:/1/abc/artifacts", f"{TABLE}/_lakeloop/logs/uid"),
        ("file:///mlruns/1", f"{TABLE}/_lakeloop/logs/uid"),
        ("s3://", f"{TABLE}/_lakeloop/logs/uid"),
        ("", f"{TABLE}/_lakeloop/logs/uid"),
    ],
)
def test_where(artifacts: str, expected: str) -> None:
    assert logs_uri(artifacts, PINNED, "uid") == expected


# -- the sidecar's state is nobody else's


def pod(phase: str, sidecar: dict[str, Any], driver: dict[str, Any] | None = None) -> dict[str, Any]:
    status = {
        "phase": phase,
        "initContainerStatuses": [{"name": "logs", "image": "trainer", "state": sidecar}],
        "containerStatuses": [{"name": "driver", "image": "trainer", "state": driver or {}}],
    }
    return {"metadata": {"name": "p"}, "status": status}


OOM = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


def test_an_oom_of_the_sidecar_is_not_the_drivers() -> None:
    found = drivers.death(pod("Failed", OOM, {"terminated": {"exitCode": 3, "reason": "Error"}}))
    assert (found.reason, "exit code 3" in found.message) == ("DriverDied", True)
    assert drivers.death(pod("Failed", {"running": {}}, OOM)).reason == "DriverOOMKilled"


def test_a_sidecar_that_crashes_keeps_no_run_waiting() -> None:
    crashing = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert drivers.waiting(pod("Pending", crashing)) is None
    assert not drivers.is_terminal(pod("Running", OOM))


def test_a_sidecar_that_cannot_start_is_told() -> None:
    found = drivers.waiting(pod("Pending", {"waiting": {"reason": "ErrImagePull"}}))
    assert found is not None
    assert (found.reason, found.field) == ("ImagePullFailed", "spec.spark.image")
    broken = {"waiting": {"reason": "CreateContainerError", "message": "no such file"}}
    found = drivers.waiting(pod("Pending", broken))
    assert found is not None
    assert found.reason == "DriverConfigError"
    assert "container logs" in found.message


def test_the_result_is_read_of_the_driver() -> None:
    said = json.dumps({"uid": "u", "attempt": 1, "outcome": "Succeeded"})
    done = {"terminated": {"exitCode": 0, "message": said}}
    assert drivers.result(pod("Succeeded", {"running": {}}, done), "u", 1) is not None
