"""The operator as a process on a real API server: start, lease, probes, metrics, webhook, memory."""

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fake_registry import FakeRegistry
from kubectl import Kubectl, busy, eventually
from operator_process import SECRET, OperatorProcess

from builders import TRAINING_SPEC
from lakeloop.adapters.webhook import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from lakeloop.codegen.rbac import rules
from localcluster.apiserver import ApiServer

Start = Callable[..., OperatorProcess]
MEMORY_BUDGET_MEGABYTES = 150


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        fake.register("churn", 1, {"lakeloop.io/digest": "sha256:" + "a" * 64})
        fake.set_alias("churn", "champion", 1)
        yield fake


@pytest.fixture
def start(apiserver: ApiServer, kubectl: Kubectl, registry: FakeRegistry, tmp_path: Path) -> Iterator[Start]:
    kubectl.storage_secret()
    started: list[OperatorProcess] = []

    def begin(name: str = "operator-0", **env: str) -> OperatorProcess:
        process = OperatorProcess(
            apiserver.kubeconfig,
            tmp_path,
            namespace=kubectl.namespace,
            tracking_uri=registry.url,
            name=name,
            env=env,
        )
        started.append(process.__enter__())
        return process

    yield begin
    for process in started:
        process.__exit__(None, None, None)


def deployment(name: str = "churn") -> dict[str, Any]:
    spec = {"model": {"name": "churn", "alias": "champion"}}
    return {"apiVersion": "lakeloop.io/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": name}, "spec": spec}


def holder(kubectl: Kubectl) -> str:
    return str(kubectl.get("lease", "lakeloop-operator")["spec"].get("holderIdentity"))


def delivery(body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Headers as MLflow writes them."""
    delivery_id, timestamp = str(uuid.uuid4()), str(int(time.time() if at is None else at))
    return {
        "Content-Type": "application/json",
        DELIVERY_HEADER: delivery_id,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: sign(secret.encode(), delivery_id, timestamp, body),
    }


def alias_moved(version: int) -> bytes:
    data = {"name": "churn", "alias": "champion", "version": str(version)}
    return json.dumps({"entity": "model_version_alias", "action": "created", "data": data}).encode()


def revision(kubectl: Kubectl) -> str:
    """Version of the only server Deployment; empty while there is none."""
    items = kubectl.items("deployments")
    return ",".join(sorted(each["metadata"]["labels"]["lakeloop.io/model-version"] for each in items))


def test_a_standby_takes_over_when_the_leader_is_killed(start: Start, kubectl: Kubectl) -> None:
    first = start("operator-a")
    first.wait_until_leading()
    second = start("operator-b")
    eventually(lambda: second.get("/readyz")[0] == 200)
    assert second.get("/healthz") == (200, "ok")
    assert second.metric("lakeloop_leader") == 0
    assert holder(kubectl) == "operator-a"
    body = alias_moved(1)
    assert second.post("/webhooks/mlflow", body, delivery(body)) == 503
    assert first.process is not None
    first.process.kill()
    second.wait_until_leading()
    assert holder(kubectl) == "operator-b"
    kubectl.apply(deployment())
    eventually(lambda: revision(kubectl) == "1")


def test_a_leader_that_is_told_to_stop_hands_over_at_once(start: Start, kubectl: Kubectl) -> None:
    first = start("operator-a")
    first.wait_until_leading()
    second = start("operator-b")
    eventually(lambda: second.get("/readyz")[0] == 200)
    began = time.monotonic()
    assert first.terminate() == 0
    second.wait_until_leading()
    assert time.monotonic() - began < 15 or busy(), "as long as if the lease had to run out"
    assert second.terminate() == 0


def test_a_standby_ends_when_told_to(start: Start) -> None:
    start("operator-a").wait_until_leading()
    second = start("operator-b")
    eventually(lambda: second.get("/readyz")[0] == 200)
    assert second.terminate() == 0


def test_a_leader_that_loses_the_lease_ends(start: Start, kubectl: Kubectl) -> None:
    process = start()
    process.wait_until_leading()
    stolen = {"spec": {"holderIdentity": "somebody-else"}}
    kubectl("patch", "lease", "lakeloop-operator", "--type=merge", "-p", json.dumps(stolen))
    eventually(lambda: process.ended() is not None)
    assert process.ended() == 1
    assert holder(kubectl) == "somebody-else"


def test_a_wrong_setting_is_named(start: Start) -> None:
    process = start(LAKELOOP_SERVER_SERVICE_TYPE="LoadBalancer")
    eventually(lambda: process.ended() is not None)
    assert process.ended() == 2
    assert process.log.read_text().strip() == (
        "lakeloop-operator: LAKELOOP_SERVER_SERVICE_TYPE: found 'LoadBalancer'; write one of ClusterIP, NodePort"
    )


def test_killed_after_any_write_it_goes_on_from_there(start: Start, kubectl: Kubectl) -> None:
    kubectl.apply(deployment())
    for attempt, kind in enumerate(("networkpolicy", "service", "deployments")):
        process = start(f"operator-{attempt}", LAKELOOP_LEADER_ELECTION="false")
        eventually(lambda kind=kind: bool(kubectl.items(kind)))
        assert process.process is not None
        process.process.kill()
        process.process.wait(10)
    last = start("operator-last", LAKELOOP_LEADER_ELECTION="false")
    eventually(lambda: "conditions" in kubectl.get("modeldeployment", "churn").get("status", {}))
    assert last.ended() is None
    assert len(kubectl.items("deployments")) == len(kubectl.items("configmaps", labels="lakeloop.io/revision"))
    assert revision(kubectl) == "1"


def until_quiet(process: OperatorProcess, seconds: float = 1.0) -> None:
    """Until no pass was made for so long: what the operator itself has written is news to it, too."""
    seen, since = -1.0, 0.0

    def quiet() -> bool:
        nonlocal seen, since
        now = process.metric('lakeloop_reconciles_total{kind="ModelDeployment",outcome="ok"}')
        if now != seen:
            seen, since = now, time.monotonic()
        return now > 0 and time.monotonic() - since > seconds

    eventually(quiet)


def test_a_webhook_is_verified_and_acted_on_within_a_second(
    start: Start, kubectl: Kubectl, registry: FakeRegistry
) -> None:
    process = start(LAKELOOP_REGISTRY_RESYNC_SECONDS="3600")
    process.wait_until_leading()
    eventually(lambda: len(registry.webhooks) == 1)
    (webhook,) = registry.webhooks.values()
    assert webhook["name"] == "lakeloop"
    assert webhook["secret"] == SECRET
    assert {(each["entity"], each["action"]) for each in webhook["events"]} == {
        ("MODEL_VERSION_ALIAS", "CREATED"),
        ("MODEL_VERSION_ALIAS", "DELETED"),
        ("MODEL_VERSION", "CREATED"),
    }
    kubectl.apply(deployment())
    eventually(lambda: revision(kubectl) == "1")
    until_quiet(process)
    registry.register("churn", 2, {"lakeloop.io/digest": "sha256:" + "b" * 64})
    registry.set_alias("churn", "champion", 2)
    body = alias_moved(2)
    path = "/webhooks/mlflow"
    assert process.post(path, body, delivery(body, secret="another")) == 401
    assert process.post(path, body, delivery(body, at=time.time() - 3600)) == 401
    assert process.post(path, b"x" * 100_000, delivery(b"x" * 100_000)) == 413
    assert revision(kubectl) == "1"
    headers = delivery(body)
    began = time.monotonic()
    assert process.post(path, body, headers) == 202
    eventually(lambda: revision(kubectl) == "2")
    took = time.monotonic() - began
    assert took < 2 or busy(), f"{took:.1f} s"
    assert process.post(path, body, headers) == 200, "known, and not acted on again"
    moved = kubectl.get("modeldeployment", "churn")["status"]["lastRollout"]["aliasMovedTime"]
    assert abs(datetime.fromisoformat(moved).timestamp() - time.time()) < 30


def test_probes_metrics_and_logs_say_what_goes_on(start: Start, kubectl: Kubectl) -> None:
    process = start()
    process.wait_until_leading()
    kubectl.apply(deployment())
    eventually(lambda: revision(kubectl) == "1")
    sample = 'lakeloop_reconciles_total{kind="ModelDeployment",outcome="ok"}'
    eventually(lambda: process.metric(sample) > 0)
    assert process.get("/healthz") == (200, "ok")
    assert process.get("/readyz") == (200, "ok")
    text = process.get("/metrics")[1]
    for name in ("lakeloop_queue_depth", "lakeloop_runs_total", "lakeloop_rollouts_total"):
        assert f"# TYPE {name}" in text
    for phase in ("queue", "reconcile", "gather", "decide", "apply"):
        assert process.metric(f'lakeloop_reconcile_phase_seconds_count{{kind="ModelDeployment",phase="{phase}"}}') > 0
    about = [each for each in process.records() if each.get("name") == "churn"]
    assert about
    assert {(each["kind"], each["namespace"]) for each in about} == {("ModelDeployment", kubectl.namespace)}
    assert SECRET not in process.log.read_text()
    assert base64.b64encode(SECRET.encode()).decode() not in process.log.read_text()


def test_every_run_that_ends_is_counted_and_told(start: Start, kubectl: Kubectl) -> None:
    """Also those that end within a moment of their start."""
    process = start(LAKELOOP_STORAGE_WAREHOUSE="")
    process.wait_until_leading()
    inputs = [{"name": "a", "table": "sales.customers"}]
    for i in range(8):
        spec = {
            **TRAINING_SPEC,
            "explanation": {"method": "None"},
            "inputs": inputs,
        }
        kubectl.apply(
            {"apiVersion": "lakeloop.io/v1alpha1", "kind": "TrainingJob", "metadata": {"name": f"j{i}"}, "spec": spec}
        )

    def phases() -> list[str]:
        return [each.get("status", {}).get("run", {}).get("phase", "") for each in kubectl.items("tj")]

    eventually(lambda: phases() == ["Failed"] * 8)
    eventually(lambda: process.metric('lakeloop_runs_total{outcome="Failed"}') == 8)
    for phase in ("queue", "reconcile", "gather", "decide", "apply"):
        assert process.metric(f'lakeloop_reconcile_phase_seconds_count{{kind="TrainingJob",phase="{phase}"}}') > 0
    about = [each for each in process.records() if each.get("run") == 1]
    assert {(each["kind"], each["namespace"]) for each in about} == {("TrainingJob", kubectl.namespace)}
    assert {each["name"] for each in about} == {f"j{i}" for i in range(8)}


def test_what_the_chart_grants_is_enough(
    apiserver: ApiServer, kubectl: Kubectl, registry: FakeRegistry, tmp_path: Path
) -> None:
    user = f"operator-{kubectl.namespace}"
    for scope, granted in rules().items():
        name = f"{user}-{scope}"
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
        kubectl.apply({**role, "rules": granted})
        kind = "clusterrolebinding" if scope == "cluster" else "rolebinding"
        kubectl("create", kind, name, f"--clusterrole={name}", f"--user={user}")
    kubectl.storage_secret()
    kubectl.apply(deployment())
    with OperatorProcess(
        apiserver.kubeconfig_for(user), tmp_path, namespace=kubectl.namespace, tracking_uri=registry.url
    ) as process:
        process.wait_until_leading()
        eventually(lambda: "conditions" in kubectl.get("modeldeployment", "churn").get("status", {}))
        eventually(lambda: len(registry.webhooks) == 1)
        eventually(lambda: "RolloutStarted" in [each["reason"] for each in kubectl.items("events")])
        assert process.terminate() == 0
    said = [each["message"] for each in process.records()]
    assert not [each for each in said if "forbidden" in each.lower()]


@pytest.mark.parametrize("depth", [900, 9_000])
def test_an_object_that_is_nested_without_end_ends_nothing(start: Start, kubectl: Kubectl, depth: int) -> None:
    """The API server stores 10,000 levels; Python's JSON decoder gave up at 1,000, and the watch of all with it."""
    process = start()
    process.wait_until_leading()
    job = {
        "apiVersion": "lakeloop.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "deep"},
        "spec": {**TRAINING_SPEC, "estimator": {"steps": [{"class": "a.B", "params": {"x": "@"}}]}},
    }
    path = f"/apis/lakeloop.io/v1alpha1/namespaces/{kubectl.namespace}/trainingjobs"
    text = json.dumps(job).replace('"@"', '{"a":' * depth + "1" + "}" * depth)
    kubectl("create", "--raw", path, "-f", "-", stdin=text)
    # read by kubectl: Python's decoder gives up here as well
    jsonpath = 'jsonpath={.status.conditions[?(@.type=="Stalled")].message}'
    told = "spec.estimator.steps[0].params.x: is nested more than 64 levels deep"
    eventually(lambda: told in kubectl("get", "tj", "deep", "-o", jsonpath))
    kubectl.apply(deployment())
    eventually(lambda: revision(kubectl) == "1")
    assert process.ended() is None
    kubectl("delete", "tj", "deep", "--timeout=10s")


def test_kopf_writes_nothing(start: Start, kubectl: Kubectl) -> None:
    process = start()
    process.wait_until_leading()
    kubectl.apply(deployment())
    eventually(lambda: "conditions" in kubectl.get("modeldeployment", "churn").get("status", {}))
    obj = kubectl.get("modeldeployment", "churn")
    assert {each["manager"] for each in obj["metadata"]["managedFields"]} == {"kubectl-client-side-apply", "lakeloop"}
    assert not [key for key in obj["metadata"]["annotations"] if "kopf" in key]
    assert "finalizers" not in obj["metadata"]
    kubectl("delete", "modeldeployment", "churn", "--timeout=10s")


def test_memory_at_rest_is_within_budget(start: Start, kubectl: Kubectl) -> None:
    process = start()
    process.wait_until_leading()
    for i in range(20):
        kubectl.apply(deployment(f"churn-{i}"))
    sample = 'lakeloop_reconciles_total{kind="ModelDeployment",outcome="ok"}'
    eventually(lambda: process.metric(sample) >= 40)
    resident = process.resident_mib()
    print(f"resident memory with 20 ModelDeployments: {resident:.0f} MiB")
    assert resident < MEMORY_BUDGET_MEGABYTES
