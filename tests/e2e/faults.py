"""What is done to a cluster to see a run through it, and how it must end."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import deltalake
import yaml
from e2e.conftest import Platform

from lakeloop.cli.demo import NAMESPACE, fresh, job_over

SAMPLE = Path(__file__).parents[2] / "samples/quickstart"
OPERATOR = ("lakeloop-system", "lakeloop-operator")
MLFLOW = ("lakeloop-platform", "mlflow")


def upload_rows(platform: Platform) -> None:
    """The quickstart's raw data is there."""
    platform.kubectl("apply", "-f", str(SAMPLE / "1-data.yaml"))
    platform.until("job", "quickstart-data", job_over)


def quickstart(job: str) -> dict[str, Any]:
    """The quickstart's spec, in the driver alone; its table and its model have the job's name."""
    spec: dict[str, Any] = yaml.safe_load((SAMPLE / "2-train.yaml").read_text())["spec"]
    spec["inputs"][0]["uri"] = f"s3a://lake/faults/{job}"
    return {**spec, "register": {"model": job, "alias": "champion"}, "spark": {"executor": {"instances": 0}}}


def scale(platform: Platform, deployment: tuple[str, str], replicas: int) -> None:
    """Waits until it is so."""
    namespace, name = deployment
    platform.kubectl("-n", namespace, "scale", f"deployment/{name}", f"--replicas={replicas}")
    if replicas:
        platform.kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=300s")
        return
    selector = selector_of(platform, deployment)
    platform.kubectl("-n", namespace, "wait", "pod", "--for=delete", "--timeout=120s", "-l", selector)


def selector_of(platform: Platform, deployment: tuple[str, str]) -> str:
    """The label selector of its pods."""
    namespace, name = deployment
    labels = platform.kubectl.get("deployment", name, namespace)["spec"]["selector"]["matchLabels"]
    return ",".join(f"{key}={value}" for key, value in labels.items())


def operators(pod_uid: str) -> list[int]:
    """The processes of an operator's pod, seen from the machine that the node runs on."""
    cgroups = (pod_uid, pod_uid.replace("-", "_"))
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            cgroup, command = (each / "cgroup").read_text(), (each / "cmdline").read_text()
        except OSError:
            continue  # it is gone
        if "lakeloop-operator" in command and any(uid in cgroup for uid in cgroups):
            found.append(int(each.name))
    return found


def kill(processes: list[int]) -> None:
    """Without a last word: SIGKILL."""
    assert processes, "the operator's process is not seen from here: is the node on another machine?"
    for each in processes:
        os.kill(each, signal.SIGKILL)


def stage(*stages: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the driver is at one of these."""

    def done(obj: Mapping[str, Any]) -> bool:
        progress = obj.get("status", {}).get("run", {}).get("progress", {})
        return fresh(obj) and progress.get("stage") in stages

    return done


def ended_well(platform: Platform, job: str) -> Mapping[str, Any]:
    """The job's only run: one run in MLflow, FINISHED; one version of its model, which has the alias; no pod at work."""
    run = platform.succeeded(job, 400)
    own = f"tags.`lakeloop.io/run-uid` = '{run['uid']}'"
    experiment = platform.mlflow("GET", "experiments/get-by-name", experiment_name=f"{NAMESPACE}/{job}")["experiment"]
    runs = platform.mlflow("POST", "runs/search", experiment_ids=[experiment["experiment_id"]], filter=own)["runs"]
    assert [(each["info"]["run_id"], each["info"]["status"]) for each in runs] == [(run["mlflow"]["runId"], "FINISHED")]
    wanted = f"name = '{job}' AND {own}"
    (version,) = platform.mlflow("GET", "model-versions/search", filter=wanted)["model_versions"]
    alias = platform.mlflow("GET", "registered-models/alias", name=job, alias="champion")["model_version"]
    assert alias["version"] == version["version"] == str(run["model"]["version"])
    pods = platform.pods(f"lakeloop.io/training-job={job}")
    assert {pod["status"]["phase"] for pod in pods} <= {"Succeeded", "Failed"}
    assert len([pod for pod in pods if pod["status"]["phase"] == "Succeeded"]) <= 1
    return run


def rows(platform: Platform, job: str) -> int:
    """How many rows the job's table has."""
    table = f"s3://lake/faults/{job}"
    if not deltalake.DeltaTable.is_deltatable(table, storage_options=platform.delta):
        return 0
    return int(deltalake.DeltaTable(table, storage_options=platform.delta).count())
