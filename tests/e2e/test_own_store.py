"""A job and a server with an object store of their own, behind a certificate that nothing trusts unasked."""

from collections.abc import Iterator, Mapping
from typing import Any

import arro3.core as arrow
import deltalake
import pytest
from e2e.conftest import manifest, s3

from lakeloop.cli.demo import NAMESPACE, address, condition, fresh, predict
from localcluster.pki import Leaf, issue, new_authority, pem

pytestmark = pytest.mark.e2e
NAME = "own-store"
STORE = f"{NAME}-s3"
HOST = f"{STORE}.{NAMESPACE}.svc"
KEYS = {"AWS_ACCESS_KEY_ID": "of-own-store", "AWS_SECRET_ACCESS_KEY": "secret-of-own-store"}
STORAGE = {
    "endpoint": f"https://{HOST}:9000",
    "secretRef": {"name": f"{NAME}-keys"},
    "caSecretRef": {"name": f"{NAME}-ca"},
}
JOB = {
    "inputs": [{"name": "points", "uri": f"s3a://lake/{NAME}"}],
    "dataset": {"features": ["feature"], "target": "target"},
    "estimator": {"steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
    "register": {"model": NAME, "alias": "champion"},
    "storage": STORAGE,
    "spark": {"executor": {"instances": 1, "cores": 1, "memory": "1Gi"}},
}
SERVER = {
    "model": {"name": NAME, "alias": "champion"},
    "replicas": 1,
    "server": {"batching": {"maxSize": 8}},
    "storage": STORAGE,
}


def store_pod(platform: Any) -> dict[str, Any]:
    """The platform's MinIO once more, with a certificate, and with what it holds gone with it."""
    chart = platform.kubectl.get("statefulset", "minio", "lakeloop-platform")["spec"]["template"]["spec"]
    (container,) = chart["containers"]
    probe = {"httpGet": {"path": "/minio/health/ready", "port": 9000, "scheme": "HTTPS"}, "periodSeconds": 1}
    own = {
        "MINIO_ROOT_USER": KEYS["AWS_ACCESS_KEY_ID"],
        "MINIO_ROOT_PASSWORD": KEYS["AWS_SECRET_ACCESS_KEY"],
        "HOME": "/tmp",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": STORE, "namespace": NAMESPACE, "labels": {"app": STORE}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": chart["securityContext"],
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "minio",
                    "image": container["image"],
                    "command": container["command"],
                    "args": ["server", "/data", "--address=:9000", "--certs-dir=/certs", "--quiet"],
                    "env": [{"name": name, "value": value} for name, value in own.items()],
                    "securityContext": container["securityContext"],
                    "resources": container["resources"],
                    "readinessProbe": probe,
                    "volumeMounts": [
                        {"name": "data", "mountPath": "/data"},
                        {"name": "tmp", "mountPath": "/tmp"},
                        {"name": "certs", "mountPath": "/certs", "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "certs", "secret": {"secretName": f"{NAME}-certificate"}},
            ],
        },
    }


@pytest.fixture(scope="module")
def store(platform: Any) -> Iterator[Any]:
    """The store, with a Delta table in it; as boto3 knows it."""
    authority = new_authority(NAME)
    certificate, key = pem(*issue(authority, Leaf(NAME, NAME, hosts=(HOST,), server=True, client=False)))
    ca = pem(authority.certificate, authority.key)[0].decode()
    platform.secret(f"{NAME}-certificate", {"public.crt": certificate.decode(), "private.key": key.decode()})
    platform.secret(f"{NAME}-ca", {"ca.crt": ca})
    platform.secret(f"{NAME}-keys", KEYS)
    platform.apply(store_pod(platform))
    ports = [{"port": 9000, "targetPort": 9000}]
    spec = {"type": "NodePort", "selector": {"app": STORE}, "ports": ports}
    metadata = {"name": STORE, "namespace": NAMESPACE}
    platform.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    try:
        platform.until("pod", STORE, lambda pod: condition(pod, "Ready").get("status") == "True")
        # From outside of the cluster it has another name than the certificate says.
        url = address(platform.kubectl, STORE).replace("http://", "https://")
        options = {**KEYS, "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "allow_invalid_certificates": "true"}
        client = s3(url, KEYS, verify=False)
        for bucket in ("lake", "mlflow"):
            client.create_bucket(Bucket=bucket)
        columns = {"feature": list(range(40)), "target": [int(each > 19) for each in range(40)]}
        typed = {name: arrow.Array(each, arrow.DataType.int64()) for name, each in columns.items()}
        rows = arrow.Table.from_pydict(typed)
        deltalake.write_deltalake(f"s3://lake/{NAME}", rows, storage_options=options)
        yield client
    finally:
        words = ("--ignore-not-found", "--wait=true")
        platform.kubectl("-n", NAMESPACE, "delete", "trainingjob,modeldeployment", NAME, *words)
        platform.kubectl("-n", NAMESPACE, "delete", "pod,service", STORE, *words)
        secrets = (f"{NAME}-certificate", f"{NAME}-ca", f"{NAME}-keys")
        platform.kubectl("-n", NAMESPACE, "delete", "secret", *secrets)


@pytest.fixture(scope="module")
def run(platform: Any, store: Any) -> Mapping[str, Any]:
    """A run with an executor, once it went well."""
    platform.job(NAME, JOB)
    found: Mapping[str, Any] = platform.succeeded(NAME, timeout=600)
    assert found["metrics"]["roc_auc"] > 0.9
    return found


def test_all_that_a_run_leaves_is_in_its_own_store(platform: Any, store: Any, run: Mapping[str, Any]) -> None:
    logs = platform.until(
        "trainingjob", NAME, lambda obj: obj["status"]["run"].get("logs", {}).get("complete") is not None
    )["status"]["run"]["logs"]
    assert logs["complete"] is True
    held = {each["Key"] for each in store.list_objects_v2(Bucket="mlflow")["Contents"]}
    for wanted in ("artifacts/MLmodel", "logs/driver-1.json", "logs/executor-1-1.json", "lakeloop/result.json"):
        assert any(key.endswith(wanted) for key in held), (wanted, held)


def test_its_model_is_served_from_there(platform: Any, run: Mapping[str, Any]) -> None:
    platform.apply(manifest("ModelDeployment", NAME, SERVER))
    platform.until("modeldeployment", NAME, lambda obj: fresh(obj) and condition(obj, "Ready").get("status") == "True")
    predictions, by = predict(address(platform.kubectl, NAME), [1, 39])
    assert predictions == [0, 1]
    assert by == f"{NAME}/{run['model']['version']}"
