"""The platform's chart: MLflow's wiring, users of the store, parts switched off."""

import fnmatch
import json
from typing import Any

import pytest
from charts.rendering import Object, one, render

USERS = [
    {"name": "team-a", "namespace": "team-a"},
    {"name": "b", "namespace": "b", "secretName": "s", "buckets": ["lake"]},
]


def environment(objects: list[Object], container: str = "mlflow") -> dict[str, Any]:
    """MLflow's variables: a string, or where it comes from."""
    spec = one(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]
    (found,) = [each for each in [*spec["initContainers"], *spec["containers"]] if each["name"] == container]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in found["env"]}


@pytest.mark.parametrize(
    "host",
    [
        "mlflow:5000",
        "mlflow.lakeloop-platform:5000",
        "mlflow.lakeloop-platform.svc:5000",
        "mlflow.lakeloop-platform.svc.cluster.local:5000",
        "127.0.0.1:5000",
        "127.0.0.1:12345",
        "localhost:5000",
        "10.1.2.3:30500",
        "mlflow.example.com",
    ],
)
def test_hosts_that_mlflow_answers(host: str) -> None:
    """By its Service's names, through a port-forward, and where the values say so; the page's own requests too."""
    found = environment(render("lakeloop-platform", mlflow={"extraAllowedHosts": ["10.1.2.3", "mlflow.example.com"]}))
    # As MLflow compares them.
    assert any(fnmatch.fnmatch(host, each) for each in found["MLFLOW_SERVER_ALLOWED_HOSTS"].split(","))
    origins = found["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert any(fnmatch.fnmatch(f"http://{host}", each) for each in origins)


@pytest.mark.parametrize("host", ["evil.example.com", "10.1.2.4:30500", "mlflow.evil:5000", "10.1.2.3.evil.com:80"])
def test_hosts_that_mlflow_refuses(host: str) -> None:
    """DNS rebinding would come with such."""
    found = environment(render("lakeloop-platform", mlflow={"extraAllowedHosts": ["10.1.2.3"]}))
    assert not any(fnmatch.fnmatch(host, each) for each in found["MLFLOW_SERVER_ALLOWED_HOSTS"].split(","))


def test_webhooks_reach_the_operator() -> None:
    """Inside the cluster, by http, with a key that outlives a restart."""
    found = environment(render("lakeloop-platform"))
    assert found["MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"] == "true"
    assert found["MLFLOW_WEBHOOK_ALLOWED_SCHEMES"] == "http,https"
    assert found["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"] == {
        "secretKeyRef": {"name": "mlflow", "key": "webhookEncryptionKey"}
    }


@pytest.mark.parametrize("container", ["migrate", "mlflow"])
def test_the_database_of_ours(container: str) -> None:
    """The kubelet puts the password in; the variable comes before the one that uses it."""
    found = environment(render("lakeloop-platform"), container)
    assert (
        found["MLFLOW_BACKEND_STORE_URI"]
        == "postgresql+psycopg2://mlflow:$(POSTGRES_PASSWORD)@postgresql.lakeloop-platform.svc:5432/mlflow"
    )
    assert found["POSTGRES_PASSWORD"] == {"secretKeyRef": {"name": "postgresql", "key": "password"}}
    assert list(found).index("POSTGRES_PASSWORD") < list(found).index("MLFLOW_BACKEND_STORE_URI")


@pytest.mark.parametrize("container", ["migrate", "mlflow"])
def test_the_users_own_database(container: str) -> None:
    """Its address comes whole from a Secret."""
    objects = render(
        "lakeloop-platform", postgresql={"enabled": False}, mlflow={"backendStore": {"existingSecret": "database"}}
    )
    assert environment(objects, container)["MLFLOW_BACKEND_STORE_URI"] == {
        "secretKeyRef": {"name": "database", "key": "uri"}
    }
    assert not [each for each in objects if each["metadata"]["name"] == "postgresql"]


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ({}, {"AWS_REGION": "us-east-1"}),
        (
            {"endpoint": "https://s3.example.com", "existingSecret": "store"},
            {
                "AWS_ENDPOINT_URL_S3": "https://s3.example.com",
                "MLFLOW_S3_ENDPOINT_URL": "https://s3.example.com",
                "AWS_ACCESS_KEY_ID": {"secretKeyRef": {"name": "store", "key": "AWS_ACCESS_KEY_ID"}},
            },
        ),
    ],
    ids=["workload-identity", "endpoint-and-secret"],
)
def test_the_users_own_store(storage: dict[str, str], expected: dict[str, Any]) -> None:
    """No MinIO, nothing of it, and no empty variable that would confuse boto3."""
    objects = render("lakeloop-platform", minio={"enabled": False}, externalStorage=storage)
    found = environment(objects)
    assert expected.items() <= found.items()
    assert ("AWS_ENDPOINT_URL_S3" in found) == bool(storage.get("endpoint"))
    assert ("AWS_ACCESS_KEY_ID" in found) == bool(storage.get("existingSecret"))
    assert not [each for each in objects if "minio" in each["metadata"]["name"]]


def test_everything_off_leaves_nothing_that_runs() -> None:
    """Only the account is left."""
    off = {"enabled": False}
    assert [each["kind"] for each in render("lakeloop-platform", minio=off, postgresql=off, mlflow=off)] == [
        "ServiceAccount"
    ]


def test_each_user_has_a_key_of_its_own() -> None:
    """In its namespace the same as the setup job gives to MinIO, and nobody else's."""
    objects = render("lakeloop-platform", minio={"users": USERS})
    secrets = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["data"]
        for each in objects
        if each["kind"] == "Secret"
    }
    platform = "lakeloop-platform"
    assert secrets[("team-a", "lakeloop-storage")] == secrets[(platform, "minio-user-team-a")]
    assert secrets[("b", "s")] == secrets[(platform, "minio-user-b")]
    keys = [secrets[(platform, f"minio-user-{user}")]["AWS_ACCESS_KEY_ID"] for user in ("mlflow", "team-a", "b")]
    assert len(set(keys)) == 3
    setup = json.loads(one(objects, "ConfigMap", "minio-setup")["data"]["setup.json"])
    assert setup == {
        "buckets": ["lake", "raw", "mlflow"],
        "users": [
            {"name": "mlflow", "buckets": ["mlflow"]},
            {"name": "team-a", "buckets": ["lake", "raw", "mlflow"]},
            {"name": "b", "buckets": ["lake"]},
        ],
    }


def test_secrets_of_the_user_are_not_replaced() -> None:
    """With existingSecret, none is generated and all references go there."""
    objects = render(
        "lakeloop-platform",
        minio={"existingSecret": "my-root"},
        postgresql={"existingSecret": "my-db"},
        mlflow={"webhooks": {"existingSecret": "my-key"}},
    )
    names = {each["metadata"]["name"] for each in objects if each["kind"] == "Secret"}
    assert names == {"minio-user-mlflow"}
    found = environment(objects)
    assert found["POSTGRES_PASSWORD"]["secretKeyRef"]["name"] == "my-db"
    assert found["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"]["secretKeyRef"]["name"] == "my-key"
    assert "my-root" in json.dumps(one(objects, "StatefulSet", "minio"))
    assert "my-db" in json.dumps(one(objects, "StatefulSet", "postgresql"))


def test_only_mlflow_reaches_the_database() -> None:
    """And the database reaches nobody."""
    spec = one(render("lakeloop-platform"), "NetworkPolicy", "postgresql")["spec"]
    (rule,) = spec["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "mlflow"
    assert spec["egress"] == []


def test_data_is_on_volumes() -> None:
    """In a claim of the StatefulSet, of the size and class in the values."""
    objects = render("lakeloop-platform", minio={"persistence": {"size": "7Gi", "storageClass": "fast"}})
    (claim,) = one(objects, "StatefulSet", "minio")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "7Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    (claim,) = one(objects, "StatefulSet", "postgresql")["spec"]["volumeClaimTemplates"]
    assert "storageClassName" not in claim["spec"]
