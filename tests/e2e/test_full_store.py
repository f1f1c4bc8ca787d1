"""An object store whose volume is full: what needs room waits, or is tried again, and goes on once there is some."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from e2e.conftest import Platform, s3

from lakeloop.cli.demo import NAMESPACE, address, condition

pytestmark = pytest.mark.e2e
NAME = "full-store"
JUNK = "junk"
ROWS = "".join(f'{{"feature": {n}, "target": {n % 2}}}\n' for n in range(1, 6))


def server(image: str) -> Mapping[str, Any]:
    """MinIO on a volume that holds 96 MiB, and not a byte more."""
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "lakeloop-storage", "key": key}}}
        for name, key in (("MINIO_ROOT_USER", "AWS_ACCESS_KEY_ID"), ("MINIO_ROOT_PASSWORD", "AWS_SECRET_ACCESS_KEY"))
    ]
    container = {
        "name": "minio",
        "image": image,
        "command": ["/usr/bin/minio"],
        "args": ["server", "/data", "--address=:9000"],
        "env": [*secret, {"name": "HOME", "value": "/tmp"}, {"name": "MINIO_REGION", "value": "us-east-1"}],
        "readinessProbe": {"httpGet": {"path": "/minio/health/ready", "port": 9000}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app": NAME}},
        "spec": {
            "containers": [container],
            "securityContext": security,
            "automountServiceAccountToken": False,
            "volumes": [
                {"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "96Mi"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }


@pytest.fixture(scope="module")
def store(platform: Platform) -> Iterator[Any]:
    """A second store with its own small volume, full to the brim."""
    minio = platform.kubectl.get("statefulset", "minio", "lakeloop-platform")
    platform.apply(server(minio["spec"]["template"]["spec"]["containers"][0]["image"]))
    ports = {"type": "NodePort", "selector": {"app": NAME}, "ports": [{"port": 9000}]}
    metadata = {"name": NAME, "namespace": NAMESPACE}
    platform.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": ports})
    try:
        platform.kubectl("-n", NAMESPACE, "wait", "pod", NAME, "--for=condition=Ready", "--timeout=180s")
        client = s3(address(platform.kubectl, NAME), platform.keys)
        for bucket in ("lake", "raw", "mlflow"):
            client.create_bucket(Bucket=bucket)
        client.put_object(Bucket="raw", Key="points.json", Body=ROWS.encode())
        yield client
    finally:
        jobs = (f"{NAME}-operator", f"{NAME}-driver")
        platform.kubectl("-n", NAMESPACE, "delete", "tj", *jobs, "--ignore-not-found", "--wait=true")
        platform.kubectl("-n", NAMESPACE, "delete", f"pod/{NAME}", f"service/{NAME}", "--grace-period=0", "--force")


def fill(store: Any) -> None:
    """Puts smaller and smaller objects until not even the smallest is taken, and then sees that none is taken still.

    MinIO wants twice an object's size, and 1 % left: where 1 MiB is refused, a model of 10 KiB has room. Free space is
    known to it by the second, and what it cut off (as IncompleteBody) it clears away later: hence again, from the top.
    """
    numbers = itertools.count()

    def taken(size: int) -> bool:
        try:
            store.put_object(Bucket="raw", Key=f"{JUNK}/{next(numbers)}", Body=b"x" * size)
        except store.exceptions.ClientError as error:
            return bool(error.response["Error"]["Code"] != "XMinioStorageFull")
        return True

    for _ in range(20):
        puts = [sum(itertools.takewhile(bool, (taken(size) for _ in range(400)))) for size in (1 << 20, 1 << 16, 1)]
        if not any(puts):
            return
    raise AssertionError("the store takes more than its volume holds")


def empty(store: Any) -> None:
    """Takes them away again."""
    for each in store.list_objects_v2(Bucket="raw", Prefix=JUNK).get("Contents", []):
        store.delete_object(Bucket="raw", Key=each["Key"])


def spec(points: Mapping[str, Any]) -> Mapping[str, Any]:
    """A driver-only job on that store, which waits a second before it is tried again."""
    return {
        "inputs": [{"name": "points", "uri": "s3a://lake/points", **points}],
        "dataset": {"features": ["feature"], "target": "target", "split": {"testFraction": 0}},
        "estimator": {"steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
        "storage": {"endpoint": f"http://{NAME}.{NAMESPACE}.svc:9000"},
        "spark": {"executor": {"instances": 0}},
        # no logs: a pod would wait for the store for as long as it may
        "runPolicy": {"backoff": {"initialSeconds": 1}, "logs": {"tailBytes": 0}},
    }


def test_the_operator_waits_for_room(platform: Platform, store: Any) -> None:
    """For the list of files to ingest, which is there before anything is launched."""
    job = f"{NAME}-operator"
    fill(store)
    platform.job(job, spec({"ingest": {"from": "s3a://raw/points.json", "format": "json"}}))
    seen = platform.until("trainingjob", job, lambda obj: condition(obj, "Stalled").get("reason") == "StorageFull", 120)
    assert seen["status"]["run"]["phase"] == "Pending"
    assert "spec.storage" in condition(seen, "Stalled")["message"]
    assert platform.pods(f"lakeloop.io/training-job={job}") == []
    empty(store)
    assert platform.succeeded(job)["attempt"] == 1


def test_a_driver_without_room_is_tried_again(platform: Platform, store: Any) -> None:
    job = f"{NAME}-driver"
    fill(store)
    platform.job(job, spec({"version": 0}))
    seen = platform.until("trainingjob", job, lambda obj: "failure" in obj.get("status", {}).get("run", {}), 300)
    failure = seen["status"]["run"]["failure"]
    assert (failure["class"], failure["reason"], failure["field"]) == ("Infrastructure", "StorageFull", "spec.storage")
    assert "no room left" in failure["message"]
    empty(store)
    run = platform.succeeded(job)
    assert run["mlflow"]["runId"] == seen["status"]["run"]["mlflow"]["runId"]
    assert run["attempt"] > 1
