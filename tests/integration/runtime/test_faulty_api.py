"""The operator as a process behind an API server that fails, with a real MLflow and a real MinIO: always the same end."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arro3.core as arrow
import boto3
import deltalake
import pytest
from faulty_proxy import FaultyProxy
from kubectl import Kubectl, Refused, eventually
from operator_process import OperatorProcess

from localcluster.apiserver import ApiServer, free_port
from localcluster.images.hostmade import minio as minio_binary

ROOT = Path(__file__).parents[3]
KEYS = {"AWS_ACCESS_KEY_ID": "minio-for-tests", "AWS_SECRET_ACCESS_KEY": "minio-for-tests"}
JOBS = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MinIO with a Delta table of two rows at s3a://lake/customers."""
    folder = tmp_path_factory.mktemp("minio")
    port = free_port()
    environment = {**os.environ, "MINIO_ROOT_USER": "minio-for-tests", "MINIO_ROOT_PASSWORD": "minio-for-tests"}
    command = [str(minio_binary(ROOT / "images/minio") / "minio"), "server", "--quiet", f"--address=127.0.0.1:{port}"]
    endpoint = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, str(folder / "data")], env=environment, stdout=log, stderr=log)
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
                      aws_access_key_id="minio-for-tests", aws_secret_access_key="minio-for-tests")  # fmt: skip
    try:
        eventually(lambda: answers(s3))
        for bucket in ("lake", "mlflow"):
            s3.create_bucket(Bucket=bucket)
        ages = arrow.Array([30, 40], arrow.DataType.int64())
        rows = arrow.Table({"age": ages, "churned": arrow.Array([0, 1], arrow.DataType.int64())})
        options = {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        deltalake.write_deltalake("s3://lake/customers", rows, storage_options=options)
        yield endpoint
    finally:
        process.terminate()
        process.wait(20)


def answers(s3: Any) -> bool:
    try:
        s3.list_buckets()
    except Exception:
        return False
    return True


def job(name: str) -> dict[str, Any]:
    spec = {
        "inputs": [{"name": "customers", "uri": "s3a://lake/customers"}],
        "dataset": {"target": "churned"},
        "estimator": {"steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
        "evaluation": {"thresholds": [{"metric": "roc_auc", "min": 0.5}]},
        "register": {"model": name, "alias": "champion"},
    }
    return {"apiVersion": "lakeloop.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}


def end_driver(kubectl: Kubectl, name: str) -> bool:
    """The job's driver, once it is there, ends well; whether it has."""
    pods = kubectl.items("pods", labels=f"lakeloop.io/training-job={name},lakeloop.io/role=driver")
    if not pods:
        return False
    (pod,) = pods
    if pod["status"].get("phase") == "Succeeded":
        return True
    labels = pod["metadata"]["labels"]
    result = {
        "uid": labels["lakeloop.io/run-uid"],
        "attempt": int(labels["lakeloop.io/attempt"]),
        "outcome": "Succeeded",
        "inputs": [],
        "metrics": {"test_roc_auc": 0.9, "roc_auc": 0.9},
        "objective": {"metric": "roc_auc", "value": 0.9},
        "model": {"artifactUri": "s3://mlflow/0/models/m-1/artifacts", "digest": "sha256:abc"},
    }
    terminated = {"exitCode": 0, "message": json.dumps(result), "containerID": "x://1"}
    container = {"name": "driver", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
    status = {"phase": "Succeeded", "containerStatuses": [{**container, "state": {"terminated": terminated}}]}
    try:
        kubectl.patch_status("pod", pod["metadata"]["name"], status)
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("fault", "share"),
    [
        pytest.param("409", 0.2, id="conflicts"),
        pytest.param("429", 0.3, id="too many requests"),
        pytest.param("500", 0.15, id="internal errors"),
        pytest.param("lost", 0.15, id="answers lost after the deed"),
        pytest.param("watch", 0.5, id="watches cut, events lost"),
        pytest.param("stale", 0.5, id="stale lists"),
    ],
)
def test_the_same_end_whatever_the_api_server_does(
    apiserver: ApiServer, kubectl: Kubectl, mlflow: Any, store: str, tmp_path: Path, fault: str, share: float
) -> None:
    kubectl.secret("lakeloop-storage", **KEYS)
    names = [f"{kubectl.namespace}-{index}" for index in range(JOBS)]
    with (
        FaultyProxy(apiserver.kubeconfig, tmp_path, fault, share, seed=7) as proxy,
        OperatorProcess(
            proxy.kubeconfig,
            tmp_path,
            namespace=kubectl.namespace,
            tracking_uri=mlflow.uri,
            env={"LAKELOOP_STORAGE_ENDPOINT": store},
        ) as operator,
    ):
        operator.wait_until_leading()
        for name in names:
            kubectl.apply(job(name))
        over: set[str] = set()
        deadline = time.monotonic() + 150
        while over != set(names):
            assert time.monotonic() < deadline, operator.log.read_text()[-4000:]
            assert operator.ended() is None, operator.log.read_text()[-4000:]
            for name in set(names) - over:
                end_driver(kubectl, name)
                found = kubectl.get("trainingjob", name).get("status", {})
                ready = [each for each in found.get("conditions", ()) if each["type"] == "Ready"]
                if ready and ready[0]["status"] == "True":
                    over.add(name)
            time.sleep(0.1)  # a poll
        assert proxy.hits > 0
    for name in names:
        status = kubectl.get("trainingjob", name)["status"]
        assert [(run["number"], run["phase"], run["attempt"]) for run in status["history"]] == [(1, "Succeeded", 1)]
        pods = kubectl.items("pods", labels=f"lakeloop.io/training-job={name}")
        assert [pod["metadata"]["name"] for pod in pods] == [f"{name}-1-1-driver"]
        experiment = mlflow.get("experiments/get-by-name", experiment_name=f"{kubectl.namespace}/{name}")
        search = {"experiment_ids": [experiment["experiment"]["experiment_id"]]}
        assert [run["info"]["status"] for run in mlflow.post("runs/search", search)["runs"]] == ["FINISHED"]
        versions = mlflow.get("model-versions/search", filter=f"name = '{name}'")["model_versions"]
        assert [(each["version"], each.get("aliases")) for each in versions] == [("1", ["champion"])] or [
            each["version"] for each in versions
        ] == ["1"]
        aliased = mlflow.get("registered-models/alias", name=name, alias="champion")["model_version"]
        assert aliased["version"] == "1"
