"""A real etcd and kube-apiserver, with the CRDs in it, for all integration tests."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kubectl import Kubectl, eventually
from mlflow_process import MlflowProcess

from localcluster.apiserver import ApiServer

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"


def established(crd: Mapping[str, Any]) -> bool:
    """Whether the API server serves the resource."""
    conditions = crd.get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """One API server for the whole session, with both CRDs established. Tests keep apart by namespace."""
    with ApiServer() as server:
        admin = Kubectl(server.kubectl, server.kubeconfig)
        admin("apply", "-f", str(CRDS))
        # Not `kubectl wait`: it gives up on an object that has no conditions yet.
        eventually(lambda: len(found := admin.items("crd")) == 2 and all(map(established, found)))
        yield server


@pytest.fixture(scope="session")
def admin(apiserver: ApiServer) -> Kubectl:
    """kubectl as cluster admin in the namespace `default`."""
    return Kubectl(apiserver.kubectl, apiserver.kubeconfig)


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowProcess]:
    """One MLflow server for the whole session."""
    with MlflowProcess(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def namespace(admin: Kubectl) -> str:
    """A namespace of the test's own. Nothing deletes it: it goes with the API server."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    admin.create_namespace(name)
    return name


@pytest.fixture
def kubectl(apiserver: ApiServer, namespace: str) -> Kubectl:
    """kubectl as cluster admin in the test's own namespace."""
    return Kubectl(apiserver.kubectl, apiserver.kubeconfig, namespace)
