"""Drivers that real nodes end, or never start: each is told apart by its pod, with its class and what to do about it.

All of them are applied at once, since most of them wait.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import arro3.core as arrow
import deltalake
import pytest
from e2e.conftest import Platform, until
from e2e.faults import ended_well, quickstart, rows, stage, upload_rows

from lakeloop.cli.demo import NAMESPACE, condition

pytestmark = pytest.mark.e2e
NODE = "z-lost-node"
OUT_OF_MEMORY = "blocks = []\nwhile True:\n    blocks.append(b'x' * (8 << 20))\n"
FILL = """\
import time
with open("{folder}/much", "wb") as file:
    for _ in range(200):
        file.write(b"x" * (1 << 20))
        file.flush()
while True:
    time.sleep(1)
"""
WAIT = "import time\nwhile True:\n    time.sleep(1)\n"
SPEC: Mapping[str, Any] = {
    "inputs": [{"name": "points", "uri": "s3a://lake/deaths/points"}],
    "runPolicy": {"retries": {"infrastructure": 0}, "startDeadlineSeconds": 30},
}
SMALLEST: Mapping[str, Any] = {"memory": "480Mi", "memoryOverhead": "500Mi"}
LIMITED: Mapping[str, Any] = {
    "containers": [{"name": "driver", "resources": {"limits": {"ephemeral-storage": "100Mi"}}}]
}
WITH_VOLUME: Mapping[str, Any] = {
    "volumes": [{"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "100Mi"}}],
    "containers": [{"name": "driver", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
}


def on_lost_node() -> Mapping[str, Any]:
    """There and nowhere else."""
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": affinity}, "tolerations": [{"operator": "Exists"}]}


# the script; the driver; what the failure is: class, reason, field, and a part of the message
DEATHS: Mapping[str, tuple[str, Mapping[str, Any], tuple[str, str, str | None, str]]] = {
    "out-of-memory": (
        OUT_OF_MEMORY, SMALLEST,
        ("Infrastructure", "DriverOOMKilled", "spec.spark.driver.memoryOverhead", "more memory than it may have"),
    ),
    "evicted": (
        FILL.format(folder="/tmp"), {"template": {"spec": LIMITED}},
        ("Infrastructure", "DriverEvicted", "spec.spark.driver.template", "Raise that limit, or write less"),
    ),
    "disk-full": (
        FILL.format(folder="/data"), {"template": {"spec": WITH_VOLUME}},
        ("Infrastructure", "DiskFull", "spec.spark", "spec.script: train.py, line 4: OSError: [Errno 28] No space left on"),
    ),
    "unschedulable": (
        WAIT, {"coreRequest": "1000"},
        ("Submission", "DriverUnschedulable", "spec.spark.driver", "Insufficient cpu"),
    ),
    "no-image": (
        WAIT, {},
        ("Submission", "ImagePullFailed", "spec.spark.image", "image localhost/lakeloop/nothing:here cannot be had"),
    ),
    "node-gone": (
        WAIT, {"template": {"spec": on_lost_node()}},
        ("Infrastructure", "DriverLost", None, "gone"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def ended(platform: Platform) -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """Every job once its run is over, by what happened to its driver."""
    rows = arrow.Table({"feature": arrow.Array([1, 2, 3], type=arrow.DataType.int64())})
    deltalake.write_deltalake("s3://lake/deaths/points", rows, mode="overwrite", storage_options=platform.delta)
    make_node(platform)
    try:
        for name, (script, driver, _) in DEATHS.items():
            apply(platform, name, script, driver)
        lose_node(platform)
        yield {name: over(platform, name) for name in DEATHS}
    finally:
        platform.kubectl("delete", "node", NODE, "--ignore-not-found")
        for name in DEATHS:
            platform.kubectl("-n", NAMESPACE, "delete", f"tj/death-{name}", f"configmap/death-{name}", "--wait=true")


def apply(platform: Platform, name: str, script: str, driver: Mapping[str, Any]) -> None:
    """One driver-only job with that script."""
    code = {"name": f"death-{name}", "namespace": NAMESPACE}
    platform.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": code, "data": {"train.py": script}})
    image = {"image": "localhost/lakeloop/nothing:here"} if name == "no-image" else {}
    spark = {"driver": driver, "executor": {"instances": 0}, **image}
    script_ref = {"configMapRef": {"name": f"death-{name}"}, "path": "train.py"}
    platform.job(f"death-{name}", {**SPEC, "script": script_ref, "spark": spark})


def make_node(platform: Platform) -> None:
    """A node of which the API server alone knows: nothing but the driver that asks for it goes there."""
    platform.apply(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
            "spec": {"taints": [{"key": "test", "value": "lost", "effect": "NoSchedule"}]},
        }
    )
    room = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": room, "capacity": room}
    patch_status(platform, "node", NODE, ready)


def lose_node(platform: Platform) -> None:
    """Its driver was at work, and the node goes for good, as a cloud takes one away."""
    pod = "death-node-gone-1-1-driver"

    def bound() -> Mapping[str, Any]:
        found = platform.pods("lakeloop.io/training-job=death-node-gone")
        return found[0] if found else {"spec": {}}

    until(bound, lambda seen: seen["spec"].get("nodeName") == NODE, 300)
    patch_status(platform, "pod", pod, {"phase": "Running"}, "-n", NAMESPACE)
    platform.until("trainingjob", "death-node-gone", lambda obj: obj["status"]["run"]["phase"] == "Running", 300)
    platform.kubectl("delete", "node", NODE)


def patch_status(platform: Platform, kind: str, name: str, status: Mapping[str, Any], *options: str) -> None:
    """What a kubelet would say."""
    patch = json.dumps({"status": status})
    platform.kubectl(*options, "patch", kind, name, "--subresource=status", "--type=merge", "-p", patch)


def over(platform: Platform, name: str) -> Mapping[str, Any]:
    return platform.until(
        "trainingjob",
        f"death-{name}",
        lambda obj: obj.get("status", {}).get("run", {}).get("phase") in ("Failed", "Succeeded"),
        300,
    )


@pytest.mark.parametrize("name", DEATHS)
def test_it_is_told_apart(platform: Platform, ended: Mapping[str, Mapping[str, Any]], name: str) -> None:
    failure_class, reason, field, words = DEATHS[name][2]
    obj = ended[name]
    failure = obj["status"]["run"]["failure"]
    assert (failure["class"], failure["reason"], failure.get("field")) == (failure_class, reason, field), failure
    assert words in failure["message"]
    assert condition(obj, "Stalled")["reason"] == reason
    assert reason in platform.warnings(f"death-{name}")
    mlflow = platform.mlflow("GET", "runs/get", run_id=obj["status"]["run"]["mlflow"]["runId"])["run"]
    assert mlflow["info"]["status"] == "FAILED"
    live = {pod["status"]["phase"] for pod in platform.pods(f"lakeloop.io/training-job=death-{name}")}
    assert live <= {"Failed"}


def test_one_deleted_by_hand_is_tried_again(platform: Platform) -> None:
    job = "death-deleted"
    upload_rows(platform)
    before = rows(platform, job)
    platform.job(job, {**quickstart(job), "runPolicy": {"backoff": {"initialSeconds": 1}}})
    seen = platform.until("trainingjob", job, stage("Reading", "Training", "Evaluating"), 300)["status"]["run"]
    platform.kubectl("-n", NAMESPACE, "delete", "pod", seen["driverPod"], "--grace-period=0", "--force")
    run = ended_well(platform, job)
    assert (run["number"], run["attempt"], run["retries"]["infrastructure"]) == (1, 2, 1)
    assert run["mlflow"]["runId"] == seen["mlflow"]["runId"]
    assert rows(platform, job) == before + 5, "the raw data is loaded once"
    assert "DriverLost" in platform.warnings(job)
    platform.kubectl("-n", NAMESPACE, "delete", "tj", job, "--wait=true")
