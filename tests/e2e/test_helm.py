"""Helm on the real node: the charts' own tests, an upgrade and a rollback while a model is served, an uninstall."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pyhelm3
import pytest
from e2e.conftest import Platform
from e2e.load import Load

from lakeloop.cli.demo import NAMESPACE, address, condition, fresh
from lakeloop.cli.releases import Command, Helm, Release, find_charts

pytestmark = pytest.mark.e2e
CHARTS = find_charts(None)
OPERATOR = Release("lakeloop", CHARTS / "lakeloop", "lakeloop-system")
PLATFORM = Release("lakeloop-platform", CHARTS / "lakeloop-platform", "lakeloop-platform")
TIMEOUT = timedelta(seconds=180)


@pytest.fixture(scope="module")
def executable() -> str:
    found = os.environ.get("LAKELOOP_HELM") or shutil.which("helm")
    assert found, "make up puts helm into .lakeloop/bin"
    return found


@pytest.fixture(scope="module")
def client(platform: Platform, executable: str) -> Any:
    """pyhelm3 on the cluster."""
    return pyhelm3.Client(Command(executable=executable, kubeconfig=platform.kubeconfig), executable=executable)


@pytest.fixture(scope="module")
def served(platform: Platform) -> str:
    """The quickstart's model is served; where."""
    for file in ("1-data.yaml", "2-train.yaml"):
        platform.kubectl("apply", "-f", f"samples/quickstart/{file}")
    platform.succeeded("quickstart")
    platform.kubectl("apply", "-f", "samples/quickstart/3-serve.yaml")
    platform.until("modeldeployment", "quickstart", is_ready)
    return address(platform.kubectl, "quickstart")


def is_ready(obj: Mapping[str, Any]) -> bool:
    return fresh(obj) and condition(obj, "Ready").get("status") == "True"


def log_level(platform: Platform) -> str:
    """That of the operator that runs."""
    found = platform.kubectl.get("deployment", "lakeloop-operator", "lakeloop-system")
    assert found["status"]["readyReplicas"] == found["status"]["updatedReplicas"] == found["spec"]["replicas"]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return str(next(each["value"] for each in container["env"] if each["name"] == "LAKELOOP_LOG_LEVEL"))


@pytest.mark.parametrize("release", [PLATFORM, OPERATOR], ids=lambda release: release.name)
def test_the_charts_own_tests_pass(platform: Platform, executable: str, release: Release) -> None:
    command = [executable, "--kubeconfig", str(platform.kubeconfig), "test", release.name, "-n", release.namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Succeeded" in done.stdout


async def test_upgrade_and_rollback_while_a_model_is_served(
    platform: Platform, client: Any, executable: str, served: str
) -> None:
    before = await client.get_current_revision(OPERATOR.name, namespace=OPERATOR.namespace)
    values, level = await before.values(), log_level(platform)
    secret = platform.kubectl.get("secret", "lakeloop-webhook", "lakeloop-system")["data"]
    with Load(served) as load:
        helm = Helm(executable, platform.kubeconfig)
        upgraded = await helm.install(OPERATOR, {**values, "log": {"level": "debug"}}, TIMEOUT)
        assert upgraded == before.revision + 1
        assert log_level(platform).lower() == "debug" != level.lower()
        current = await client.get_current_revision(OPERATOR.name, namespace=OPERATOR.namespace)
        await current.release.rollback(before.revision, wait=True)
        assert log_level(platform) == level
        assert platform.kubectl.get("secret", "lakeloop-webhook", "lakeloop-system")["data"] == secret
        # The operator of the rollback works.
        platform.kubectl("-n", NAMESPACE, "scale", "md", "quickstart", "--replicas=2")
        platform.until("modeldeployment", "quickstart", lambda obj: obj["status"]["stable"]["readyReplicas"] == 2)
        platform.kubectl("-n", NAMESPACE, "scale", "md", "quickstart", "--replicas=1")
        platform.until("modeldeployment", "quickstart", lambda obj: obj["status"]["replicas"] == 1)
    assert load.failures == []
    assert load.answers


async def test_uninstalling_leaves_nothing_stuck_and_serving_goes_on(
    platform: Platform, client: Any, executable: str, served: str
) -> None:
    values = await (await client.get_current_revision(OPERATOR.name, namespace=OPERATOR.namespace)).values()
    helm = Helm(executable, platform.kubeconfig)
    platform.job("uninstalled", {**JOB, "suspend": True})
    platform.until("trainingjob", "uninstalled", lambda obj: bool(obj["metadata"].get("finalizers")))
    with Load(served) as load:
        await helm.uninstall(OPERATOR, TIMEOUT)
        try:
            # Nobody is there to take a finalizer off, so that there must be none.
            platform.kubectl("-n", NAMESPACE, "delete", "tj", "uninstalled", "--wait=true", "--timeout=20s")
        finally:
            await helm.install(OPERATOR, values, TIMEOUT)
        platform.until("modeldeployment", "quickstart", is_ready)
    assert load.failures == []


JOB: Mapping[str, Any] = {
    "inputs": [{"name": "points", "uri": "s3a://lake/quickstart/points"}],
    "dataset": {"features": ["feature"], "target": "target"},
    "estimator": {"library": "sklearn", "steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
}
