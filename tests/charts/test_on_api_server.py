"""Both charts on a real API server, installed, upgraded and rolled back through pyhelm3 as the command line does."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pyhelm3
import pytest
from charts.rendering import CHARTS, NAMESPACES, pod_templates, render
from kubectl import Kubectl, Refused

from lakeloop.cli.cluster import Cluster
from lakeloop.cli.releases import Command
from localcluster.apiserver import ApiServer

GENERATED = {
    "lakeloop": [("lakeloop-system", "lakeloop-webhook")],
    "lakeloop-platform": [
        ("lakeloop-platform", "minio-root"),
        ("lakeloop-platform", "postgresql"),
        ("lakeloop-platform", "mlflow"),
        ("lakeloop-platform", "minio-user-mlflow"),
        ("lakeloop-platform", "minio-user-team-a"),
        ("team-a", "lakeloop-storage"),
    ],
}
VALUES: dict[str, dict[str, Any]] = {
    "lakeloop": {},
    "lakeloop-platform": {"minio": {"users": [{"name": "team-a", "namespace": "team-a"}]}},
}
CHANGED: dict[str, dict[str, Any]] = {
    "lakeloop": {"log": {"level": "debug"}},
    "lakeloop-platform": {**VALUES["lakeloop-platform"], "mlflow": {"workers": 2}},
}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """One API server; the namespaces as `kubectl lakeloop up` makes them."""
    with ApiServer() as api:
        cluster = Cluster(api.kubeconfig)
        for namespace in ("lakeloop-system", "lakeloop-platform", "team-a", "restricted"):
            cluster.ensure_namespace(namespace)
            cluster.ensure_namespace(namespace)
        yield api


def kubectl(server: ApiServer, namespace: str) -> Kubectl:
    return Kubectl(server.kubectl, server.kubeconfig, namespace)


def client(server: ApiServer, helm: str) -> Any:
    return pyhelm3.Client(Command(executable=helm, kubeconfig=server.kubeconfig), executable=helm)


async def install(server: ApiServer, helm: str, chart: str, values: dict[str, Any]) -> int:
    """Without waiting and without hooks: no pod ever runs here."""
    on = client(server, helm)
    revision = await on.install_or_upgrade_release(
        chart, await on.get_chart(CHARTS / chart), values, namespace=NAMESPACES[chart], no_hooks=True
    )
    return int(revision.revision)


def generated(server: ApiServer, chart: str) -> dict[tuple[str, str], dict[str, str]]:
    """The data of all Secrets that the chart makes."""
    return {(ns, name): kubectl(server, ns).get("secret", name)["data"] for ns, name in GENERATED[chart]}


@pytest.mark.parametrize("chart", ["lakeloop-platform", "lakeloop"])
async def test_passwords_outlive_the_release(server: ApiServer, helm: str, chart: str) -> None:
    """Install, upgrade, rollback, uninstall, install: data on volumes stays readable all the way."""
    assert await install(server, helm, chart, VALUES[chart]) == 1
    first = generated(server, chart)
    assert all(len(base64.b64decode(value)) >= 13 for data in first.values() for value in data.values())
    assert await install(server, helm, chart, CHANGED[chart]) == 2
    assert generated(server, chart) == first
    current = await client(server, helm).get_current_revision(chart, namespace=NAMESPACES[chart])
    await current.release.rollback(1, no_hooks=True)
    assert generated(server, chart) == first
    await client(server, helm).uninstall_release(chart, namespace=NAMESPACES[chart], no_hooks=True)
    copies = {("team-a", "lakeloop-storage")} & first.keys()
    for namespace, name in copies:
        with pytest.raises(Refused, match="not found"):
            kubectl(server, namespace).get("secret", name)
    assert await install(server, helm, chart, VALUES[chart]) == 1
    assert generated(server, chart) == first


async def test_the_encryption_key_is_a_fernet_key(server: ApiServer, helm: str) -> None:
    """MLflow takes nothing else."""
    from cryptography.fernet import Fernet

    await install(server, helm, "lakeloop-platform", VALUES["lakeloop-platform"])
    key = generated(server, "lakeloop-platform")[("lakeloop-platform", "mlflow")]["webhookEncryptionKey"]
    fernet = Fernet(base64.b64decode(key))
    assert fernet.decrypt(fernet.encrypt(b"secret")) == b"secret"


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(template, id=f"{chart}:{name}")
        for chart in ("lakeloop", "lakeloop-platform")
        for name, template in pod_templates(render(chart, **VALUES[chart]))
    ],
)
def test_pods_are_admitted_at_the_restricted_level(server: ApiServer, template: Any) -> None:
    """By the API server's own Pod Security admission, in a namespace that enforces it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", "labels": template["metadata"].get("labels", {})},
        "spec": template["spec"],
    }
    assert kubectl(server, "restricted").create(pod, dry_run=True)["metadata"]["name"] == "pod"


def test_that_level_refuses_others(server: ApiServer) -> None:
    """The test above could fail."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod"},
        "spec": {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}]},
    }
    with pytest.raises(Refused, match="violates PodSecurity"):
        kubectl(server, "restricted").create(pod, dry_run=True)


@pytest.fixture(scope="module")
def watching_all(server: ApiServer, helm: str) -> ApiServer:
    """With the chart's defaults installed."""
    asyncio.run(install(server, helm, "lakeloop", {}))
    return server


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "allowed"),
    [
        ("list", "trainingjobs.lakeloop.io", "team-a", True),
        ("patch", "modeldeployments.lakeloop.io/status", "team-a", True),
        ("get", "secrets", "team-a", True),
        ("list", "secrets", "team-a", False),
        ("create", "secrets", "team-a", False),
        ("delete", "trainingjobs.lakeloop.io", "team-a", False),
        ("update", "leases.coordination.k8s.io", "lakeloop-system", True),
        ("update", "leases.coordination.k8s.io", "team-a", False),
        ("create", "clusterroles.rbac.authorization.k8s.io", "team-a", False),
        ("delete", "nodes", "team-a", False),
    ],
)
def test_what_the_operator_may_do(
    watching_all: ApiServer, verb: str, resource: str, namespace: str, allowed: bool
) -> None:
    """With the chart's roles, as the API server sees it."""
    account = "system:serviceaccount:lakeloop-system:lakeloop-operator"
    try:
        answer = kubectl(watching_all, namespace)("auth", "can-i", verb, resource, f"--as={account}")
    except Refused:
        answer = "no"
    assert (answer.strip() == "yes") is allowed


async def test_one_namespace_alone(server: ApiServer, helm: str) -> None:
    """With watchNamespaces, the operator may do there what it may not elsewhere."""
    await install(server, helm, "lakeloop", {"watchNamespaces": ["team-a"]})
    account = "--as=system:serviceaccount:lakeloop-system:lakeloop-operator"
    assert kubectl(server, "team-a")("auth", "can-i", "create", "pods", account).strip() == "yes"
    with pytest.raises(Refused):
        kubectl(server, "restricted")("auth", "can-i", "create", "pods", account)
