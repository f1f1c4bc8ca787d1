"""ModelDeployments on a real API server: the operator as a process, a registry over HTTP, pods moved by the test."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_nodes import FakeNodes
from fake_registry import FakeRegistry
from kubectl import Kubectl
from operator_process import OperatorProcess

from lakeloop.adapters.kubernetes import KubernetesApi, load_configuration
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.cli.commands import cli
from lakeloop.domain.plan import ObjectRef
from localcluster.apiserver import ApiServer

DIGEST = "sha256:" + "a" * 64
SECONDS = 150.0


@dataclass
class Shared:
    """One operator for all tests here: it takes seconds of CPU to start. Each test has one of its namespaces."""

    registry: FakeRegistry
    operator: OperatorProcess
    namespaces: list[str]


@pytest.fixture(scope="module")
def shared(
    apiserver: ApiServer, admin: Kubectl, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    tests = [item for item in request.session.items if item.path == request.path]
    names = [f"rollout-{uuid.uuid4().hex[:8]}" for _ in tests]
    for name in names:
        admin.create_namespace(name)
    with (
        FakeRegistry() as registry,
        OperatorProcess(
            apiserver.kubeconfig,
            tmp_path_factory.mktemp("operator"),
            namespace=names[0],
            tracking_uri=registry.url,
            env={"LAKELOOP_WATCH_NAMESPACES": ",".join(names)},
        ) as operator,
    ):
        operator.wait_until_leading()
        yield Shared(registry, operator, names)


@pytest.fixture
def namespace(shared: Shared) -> str:
    return shared.namespaces.pop()


@pytest.fixture
def registry(shared: Shared) -> FakeRegistry:
    """As for the first test: nothing of what another one left."""
    fake = shared.registry
    fake.versions.clear()
    fake.aliases.clear()
    fake.register("churn", 1, {"lakeloop.io/digest": DIGEST, "lakeloop.io/input.customers": "s3a://lake/c@11"})
    fake.register("churn", 2, {"lakeloop.io/digest": DIGEST})
    fake.set_alias("churn", "champion", 1)
    fake.down = False
    return fake


@pytest.fixture
async def api(apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesApi]:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    async with KubernetesApi(await load_configuration()) as client:
        yield client


@pytest.fixture
async def nodes(api: KubernetesApi, namespace: str) -> AsyncIterator[FakeNodes]:
    async with FakeNodes(api, namespace) as fake:
        yield fake


class Deployed:
    """The ModelDeployment under test."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.ref = ObjectRef(API_VERSION, "ModelDeployment", namespace, "churn")

    async def apply(self, **spec: Any) -> None:
        model = spec.pop("model", {"name": "churn", "alias": "champion"})
        manifest = {"apiVersion": API_VERSION, "kind": "ModelDeployment", "metadata": {"name": "churn"}}
        manifest["metadata"]["namespace"] = self.namespace  # type: ignore[index]
        path = f"/apis/{API_VERSION}/namespaces/{self.namespace}/modeldeployments/churn"
        await self.api.request(
            "PATCH",
            path,
            {"fieldManager": "user", "force": "true"},
            {**manifest, "spec": {"model": model, **spec}},
            content_type="application/apply-patch+yaml",
        )

    async def get(self) -> dict[str, Any]:
        found = await self.api.get(self.ref)
        assert found is not None
        return dict(found)

    async def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = SECONDS) -> dict[str, Any]:
        """The status, once that holds of it."""
        deadline, status = time.monotonic() + seconds, {}
        while time.monotonic() < deadline:
            status = (await self.get()).get("status") or {}
            if holds(status):
                return status
            await asyncio.sleep(0.05)
        raise AssertionError(f"still not so after {seconds} s: {status}")

    async def servers(self) -> dict[str, int]:
        """Deployment → replicas."""
        found = await self.api.list("apps/v1", "Deployment", self.namespace, {})
        return {each["metadata"]["name"]: each["spec"]["replicas"] for each in found}


@pytest.fixture
async def deployed(
    api: KubernetesApi, kubectl: Kubectl, nodes: FakeNodes, registry: FakeRegistry, shared: Shared
) -> AsyncIterator[Deployed]:
    kubectl.storage_secret()
    made = Deployed(api, kubectl.namespace)
    yield made
    await api.delete(made.ref)
    assert shared.operator.ended() is None


def condition(status: dict[str, Any], kind: str) -> tuple[str, str]:
    """`("True", "Serving")`; two empty strings where it is not there."""
    found = next((each for each in status.get("conditions", ()) if each["type"] == kind), {})
    return found.get("status", ""), found.get("reason", "")


def serves(version: int) -> Callable[[dict[str, Any]], bool]:
    return lambda status: (status.get("stable") or {}).get("version") == version and "candidate" not in status


async def one_revision(deployed: Deployed, replicas: int) -> None:
    deadline = time.monotonic() + SECONDS
    while list((await deployed.servers()).values()) != [replicas]:
        assert time.monotonic() < deadline, await deployed.servers()
        await asyncio.sleep(0.05)


async def test_first_rollout_serves_what_the_alias_points_to(deployed: Deployed) -> None:
    await deployed.apply(replicas=2)
    status = await deployed.until(lambda s: condition(s, "Ready")[0] == "True" and s["stable"]["readyReplicas"] == 2)
    assert status["stable"] | {"revision": ""} == {
        "version": 1,
        "digest": DIGEST,
        "runId": "run-1",
        "inputs": [{"name": "customers", "uri": "s3a://lake/c", "version": 11}],
        "revision": "",
        "weight": 100,
        "readyReplicas": 2,
    }
    assert status["url"] == status["internalURL"] == f"http://churn.{deployed.namespace}.svc:80"
    assert [each["reason"] for each in status["history"]] == ["FirstRollout"]
    assert condition(status, "Stalled") == condition(status, "Reconciling") == ("", "")
    obj = await deployed.get()
    assert "finalizers" not in obj["metadata"]
    assert "annotations" not in obj["metadata"]


@pytest.mark.parametrize(("way", "replicas"), [("RollingUpdate", 1), ("RollingUpdate", 3), ("BlueGreen", 3)])
async def test_moving_the_alias_rolls_forward_and_loses_nobody(
    deployed: Deployed, nodes: FakeNodes, registry: FakeRegistry, way: str, replicas: int
) -> None:
    await deployed.apply(replicas=replicas, strategy={"type": way})
    await deployed.until(lambda s: serves(1)(s) and s["stable"]["readyReplicas"] == replicas)
    nodes.lowest = None
    registry.set_alias("churn", "champion", 2)
    status = await deployed.until(serves(2))
    await one_revision(deployed, replicas)
    assert nodes.lowest is not None
    assert nodes.lowest >= replicas
    assert [each["reason"] for each in status["history"]] == ["AliasMoved", "FirstRollout"]
    assert status["lastRollout"]["servingTime"] >= status["lastRollout"]["observedTime"]
    service = await deployed.api.get(ObjectRef("v1", "Service", deployed.namespace, "churn"))
    assert service is not None
    assert service["spec"]["selector"]["lakeloop.io/revision"] == status["stable"]["revision"]


async def test_a_canary_goes_its_steps_and_loses_nobody(
    deployed: Deployed, nodes: FakeNodes, registry: FakeRegistry
) -> None:
    steps = [{"setWeight": 25}, {"pauseSeconds": 1}, {"setWeight": 80}, {"pause": "UntilPromoted"}]
    await deployed.apply(replicas=4, strategy={"type": "Canary", "canary": {"steps": steps}})
    before = await deployed.until(lambda s: serves(1)(s) and s["stable"]["readyReplicas"] == 4)
    nodes.lowest = None
    registry.set_alias("churn", "champion", 2)
    status = await deployed.until(lambda s: s.get("candidate", {}).get("step") == 3)
    assert (status["stable"]["weight"], status["candidate"]["weight"]) == (20, 80)
    await deployed.until(lambda s: s["candidate"]["effectiveWeight"] == 80)
    old, new = (f"churn-{each['revision']}" for each in (before["stable"], status["candidate"]))
    assert await deployed.servers() == {old: 1, new: 4}
    assert condition(status, "RollingOut") == ("True", "Paused")
    path = f"/apis/{API_VERSION}/namespaces/{deployed.namespace}/modeldeployments/churn"
    annotations = {"metadata": {"annotations": {"lakeloop.io/promote": "go"}}}
    await deployed.api.request("PATCH", path, body=annotations, content_type="application/merge-patch+json")
    await deployed.until(serves(2))
    await one_revision(deployed, 4)
    assert nodes.lowest is not None
    assert nodes.lowest >= 4


async def test_a_version_that_does_not_load_is_rejected_and_the_stable_one_serves_on(
    deployed: Deployed, nodes: FakeNodes, registry: FakeRegistry
) -> None:
    await deployed.apply(replicas=2)
    await deployed.until(lambda s: serves(1)(s) and s["stable"]["readyReplicas"] == 2)
    nodes.lowest, nodes.broken[2] = None, ("EnvironmentMismatch", "needs numpy 3")
    registry.set_alias("churn", "champion", 2)
    status = await deployed.until(lambda s: bool(s.get("rejected")) and serves(1)(s))
    await one_revision(deployed, 2)
    assert status["rejected"][0]["version"] == 2
    assert status["rejected"][0]["reason"] == "EnvironmentMismatch"
    assert condition(status, "Ready") == ("True", "Serving")
    assert condition(status, "GatesPassed") == ("False", "EnvironmentMismatch")
    assert condition(status, "Stalled") == ("", "")
    assert registry.tags("churn", 2)[f"lakeloop.io/rejected.{deployed.namespace}.churn"] == "EnvironmentMismatch"
    assert nodes.lowest == 2
    nodes.broken.clear()
    path = f"/apis/{API_VERSION}/namespaces/{deployed.namespace}/modeldeployments/churn"
    annotations = {"metadata": {"annotations": {"lakeloop.io/retry": "once"}}}
    await deployed.api.request("PATCH", path, body=annotations, content_type="application/merge-patch+json")
    status = await deployed.until(serves(2))
    assert status["lastHandled"] == {"retry": "once"}
    assert "rejected" not in status
    assert f"lakeloop.io/rejected.{deployed.namespace}.churn" not in registry.tags("churn", 2)


async def test_what_failed_is_left_to_be_looked_at_until_it_is_aborted(
    deployed: Deployed, nodes: FakeNodes, registry: FakeRegistry
) -> None:
    await deployed.apply(replicas=2, strategy={"onFailure": "Pause"})
    stable = await deployed.until(lambda s: serves(1)(s) and s["stable"]["readyReplicas"] == 2)
    nodes.lowest, nodes.broken[2] = None, ("EnvironmentMismatch", "needs numpy 3")
    registry.set_alias("churn", "champion", 2)
    status = await deployed.until(lambda s: bool(s.get("rejected")) and serves(1)(s) and s["replicas"] == 3)
    good, bad = (f"churn-{each['revision']}" for each in (stable["stable"], status["rejected"][0]))
    assert await deployed.servers() == {good: 2, bad: 1}
    path = f"/apis/{API_VERSION}/namespaces/{deployed.namespace}/modeldeployments/churn"
    for action, left in (("retry", 1), ("abort", 0)):
        old = await deployed.api.get(ObjectRef("apps/v1", "Deployment", deployed.namespace, bad))
        assert old is not None
        annotations = {"metadata": {"annotations": {f"lakeloop.io/{action}": "once"}}}
        await deployed.api.request("PATCH", path, body=annotations, content_type="application/merge-patch+json")
        status = await deployed.until(
            lambda s, action=action: (
                s.get("lastHandled", {}).get(action) == "once" and bool(s.get("rejected")) and "candidate" not in s
            )
        )
        deadline = time.monotonic() + SECONDS
        while len(await deployed.servers()) != 1 + left:
            assert time.monotonic() < deadline, await deployed.servers()
            await asyncio.sleep(0.05)
        now = await deployed.api.get(ObjectRef("apps/v1", "Deployment", deployed.namespace, bad))
        assert now is None or now["metadata"]["uid"] != old["metadata"]["uid"], "a retry begins with new servers"
    assert [each["reason"] for each in status["rejected"]] == ["Aborted"]
    assert nodes.lowest == 2


async def test_the_command_line_asks_and_says_what_the_operator_answers(
    deployed: Deployed, nodes: FakeNodes, registry: FakeRegistry, apiserver: ApiServer
) -> None:
    async def command(*words: str) -> Result:
        options = ["-n", deployed.namespace, "--kubeconfig", str(apiserver.kubeconfig)]
        return await asyncio.to_thread(CliRunner().invoke, cli, [*words, *options])

    steps = [{"setWeight": 50}, {"pause": "UntilPromoted"}]
    strategy = {"type": "Canary", "canary": {"steps": steps}}
    await deployed.apply(replicas=2, strategy=strategy, gates={"approval": "Required"})
    assert (await command("approve", "churn", "1", "--wait", "--timeout", "120")).exit_code == 0
    refused = await command("promote", "churn")
    assert (refused.exit_code, "no canary pauses" in refused.stdout) == (1, True), refused.output
    registry.set_alias("churn", "champion", 2)
    await command("approve", "churn", "2")
    await deployed.until(lambda s: s.get("candidate", {}).get("step") == 1)
    seen = await command("status", "churn")
    assert "candidate  churn/2  50 %  2 ready" in seen.stdout, seen.output
    assert "setWeight 50 → [pause UntilPromoted]" in seen.stdout
    promoted = await command("promote", "churn", "--wait", "--timeout", "120")
    assert (promoted.exit_code, "churn/2 gets everything" in promoted.stdout) == (0, True), promoted.output
    back = await command("rollback", "churn", "--wait", "--timeout", "120")
    assert "from churn/2 to churn/1" in back.stdout, back.output
    assert back.exit_code == 1, "what the alias names is rejected"
    versions = (await command("history", "churn")).stdout.splitlines()
    assert [line.split()[:2] for line in versions[1:]] == [
        ["1", "RolledBack"],
        ["2", "AliasMoved"],
        ["1", "FirstRollout"],
    ]
    assert (await command("rollback", "churn", "--to", "7")).exit_code == 1
    assert (await command("retry", "churn")).exit_code == 0
    await deployed.until(lambda s: s.get("candidate", {}).get("step") == 1)
    aborted = await command("abort", "churn", "--wait", "--timeout", "120")
    assert "Aborted" in aborted.stdout, aborted.output
    assert (await command("status", "nobody")).exit_code == 1
    document = json.loads((await command("status", "churn", "-o", "json")).stdout)
    assert (document["kind"], document["rejected"][0]["reason"]) == ("Rollout", "Aborted")


async def test_scaling_makes_no_new_revision(deployed: Deployed) -> None:
    await deployed.apply(replicas=1)
    before = await deployed.until(lambda s: condition(s, "Ready")[0] == "True")
    path = f"/apis/{API_VERSION}/namespaces/{deployed.namespace}/modeldeployments/churn/scale"
    await deployed.api.request(
        "PATCH", path, body={"spec": {"replicas": 3}}, content_type="application/merge-patch+json"
    )
    after = await deployed.until(lambda s: s["stable"]["readyReplicas"] == 3)
    assert after["stable"]["revision"] == before["stable"]["revision"]
    assert after["replicas"] == 3
    assert await deployed.api.get(ObjectRef("policy/v1", "PodDisruptionBudget", deployed.namespace, "churn"))


async def test_editing_the_server_makes_a_new_revision_of_the_same_version(deployed: Deployed) -> None:
    await deployed.apply()
    before = await deployed.until(lambda s: condition(s, "Ready")[0] == "True")
    await deployed.apply(server={"env": [{"name": "A", "value": "b"}]})
    after = await deployed.until(lambda s: serves(1)(s) and s["stable"]["revision"] != before["stable"]["revision"])
    assert after["history"][0]["reason"] == "SpecChange"


async def test_a_suspended_deployment_follows_nothing(deployed: Deployed, registry: FakeRegistry) -> None:
    await deployed.apply()
    await deployed.until(lambda s: condition(s, "Ready")[0] == "True")
    await deployed.apply(suspend=True)
    await deployed.until(lambda s: condition(s, "Suspended")[0] == "True")
    registry.set_alias("churn", "champion", 2)
    with pytest.raises(AssertionError, match="still not so"):
        await deployed.until(serves(2), seconds=3)
    await deployed.apply(suspend=False)
    status = await deployed.until(serves(2))
    assert condition(status, "Suspended") == ("", "")


async def test_what_is_missing_is_waited_for_and_named(
    deployed: Deployed, registry: FakeRegistry, kubectl: Kubectl
) -> None:
    await deployed.apply(model={"name": "nobody", "alias": "champion"})
    status = await deployed.until(lambda s: condition(s, "Stalled") == ("True", "ModelNotFound"))
    assert condition(status, "Ready") == ("False", "ModelNotFound")
    assert "spec.model.name" in next(c["message"] for c in status["conditions"] if c["type"] == "Stalled")
    await deployed.apply(model={"name": "churn", "alias": "challenger"})
    await deployed.until(lambda s: condition(s, "Stalled") == ("True", "AliasNotFound"))
    await deployed.apply(model={"name": "churn", "version": 9})
    await deployed.until(lambda s: condition(s, "Stalled") == ("True", "VersionNotFound"))
    await deployed.apply(model={"name": "churn", "version": 2}, storage={"secretRef": {"name": "mine"}})
    await deployed.until(lambda s: condition(s, "Stalled") == ("True", "SecretNotFound"))
    kubectl.secret("mine", AWS_ACCESS_KEY_ID="x")
    await deployed.until(lambda s: condition(s, "Stalled") == ("True", "SecretIncomplete"))
    kubectl("delete", "secret", "mine")
    kubectl.storage_secret("mine")
    await deployed.until(serves(2))
    wanted = {"ModelNotFound", "AliasNotFound", "VersionNotFound", "SecretNotFound", "RolloutCompleted"}
    deadline = time.monotonic() + SECONDS
    while missing := wanted - {each["reason"] for each in kubectl.items("events")}:
        assert time.monotonic() < deadline, missing
        await asyncio.sleep(0.05)


async def test_what_serves_goes_on_while_the_registry_is_down(
    deployed: Deployed, nodes: FakeNodes, registry: FakeRegistry
) -> None:
    await deployed.apply(replicas=2)
    await deployed.until(lambda s: serves(1)(s) and s["stable"]["readyReplicas"] == 2)
    nodes.lowest, registry.down = None, True
    status = await deployed.until(lambda s: condition(s, "Stalled") == ("True", "RegistryUnavailable"))
    assert condition(status, "Ready") == ("True", "Serving")
    assert nodes.lowest == 2
    registry.down = False
    await deployed.until(lambda s: condition(s, "Stalled") == ("", ""))


async def test_a_field_of_a_later_release_is_refused(deployed: Deployed) -> None:
    await deployed.apply(autoscaling={"maxReplicas": 3})
    status = await deployed.until(lambda s: condition(s, "Stalled") == ("True", "NotImplemented"))
    assert "spec.autoscaling" in next(c["message"] for c in status["conditions"] if c["type"] == "Stalled")
    assert await deployed.servers() == {}


async def test_a_template_that_the_api_server_refuses_is_told_of(deployed: Deployed) -> None:
    await deployed.apply()
    await deployed.until(lambda s: condition(s, "Ready")[0] == "True")
    await deployed.apply(
        server={"template": {"spec": {"containers": [{"name": "server", "livenessProbe": {"periodSeconds": -1}}]}}}
    )
    status = await deployed.until(lambda s: condition(s, "Stalled") == ("True", "ManifestRefused"))
    assert condition(status, "Ready") == ("True", "Serving")
    await deployed.apply()
    await deployed.until(lambda s: condition(s, "Stalled") == ("", ""))


async def test_children_that_somebody_deletes_are_made_again(deployed: Deployed) -> None:
    await deployed.apply()
    before = await deployed.until(lambda s: condition(s, "Ready")[0] == "True")
    name = f"churn-{before['stable']['revision']}"
    for api_version, kind, child in (("v1", "Service", "churn"), ("apps/v1", "Deployment", name)):
        ref = ObjectRef(api_version, kind, deployed.namespace, child)
        old = await deployed.api.get(ref)
        assert old is not None
        await deployed.api.delete(ref)
        deadline = time.monotonic() + SECONDS
        while (now := await deployed.api.get(ref)) is None or now["metadata"]["uid"] == old["metadata"]["uid"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    await deployed.until(lambda s: condition(s, "Ready")[0] == "True" and s["stable"]["readyReplicas"] == 1)
