"""A TrainingJob on a real API server: what is stored, what is refused, and an operator that may die after any write.

Pods are moved along by the test; MLflow, the tables and the store are those of the unit tests.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from unit.training.fakes import Crash, FakeClock, FakeStores, FakeTables, FakeTracking, Writes
from unit.training.world import METRICS, PLATFORM, TABLE, Counts

from lakeloop.adapters.kubernetes import MERGE_PATCH, KubernetesApi, load_configuration
from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.domain.plan import Event, Manifest, ObjectRef
from lakeloop.reconcile.trainingjob import TrainingJobReconciler
from localcluster.apiserver import ApiServer

SPEC: dict[str, Any] = {
    "inputs": [{"name": "customers", "uri": TABLE}],
    "dataset": {"target": "churned"},
    "estimator": {"steps": [{"class": "sklearn.linear_model.LogisticRegression"}]},
    "explanation": {"method": "None"},
    "register": {"model": "churn", "alias": "champion"},
}


class Mortal:
    """The real adapter, which counts its writes and may end the operator after one."""

    def __init__(self, api: KubernetesApi, writes: Writes) -> None:
        self.api = api
        self.writes = writes

    async def get(self, ref: ObjectRef) -> Mapping[str, Any] | None:
        return await self.api.get(ref)

    async def list(
        self, api_version: str, kind: str, namespace: str | None, labels: Mapping[str, str]
    ) -> Sequence[Mapping[str, Any]]:
        return await self.api.list(api_version, kind, namespace, labels)

    async def create(self, manifest: Manifest) -> Mapping[str, Any] | None:
        made = await self.api.create(manifest)
        self.writes.wrote(f"create {manifest['metadata']['name']}")
        return made

    async def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Mapping[str, Any]:
        made = await self.api.apply(manifest, dry_run=dry_run)
        self.writes.wrote(f"apply {manifest['metadata']['name']}")
        return made

    async def delete(self, ref: ObjectRef, *, grace_seconds: int | None = None) -> None:
        await self.api.delete(ref, grace_seconds=grace_seconds)
        self.writes.wrote(f"delete {ref.name}")

    async def patch_status(
        self, ref: ObjectRef, status: Mapping[str, Any], *, resource_version: str | None
    ) -> Mapping[str, Any]:
        made = await self.api.patch_status(ref, status, resource_version=resource_version)
        self.writes.wrote("status")
        return made

    async def set_finalizers(self, ref: ObjectRef, finalizers: Sequence[str], *, resource_version: str) -> None:
        await self.api.set_finalizers(ref, finalizers, resource_version=resource_version)
        self.writes.wrote("finalizers")

    async def emit(self, regarding: ObjectRef, event: Event) -> None:
        await self.api.emit(regarding, event)


class Cluster:
    """One job in one namespace of the API server."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        # The API server stamps pods with its own time.
        self.clock, self.writes = FakeClock(datetime.now(UTC)), Writes()
        self.tracking = FakeTracking(self.writes)
        self.stores = FakeStores(self.clock, self.writes)
        self.tables = FakeTables(self.stores)
        self.tables.commit(TABLE, self.clock.now())
        self.uids = 0
        self.restart()

    def restart(self) -> None:
        self.reconciler = TrainingJobReconciler(
            Mortal(self.api, self.writes),
            self.tracking,
            self.tables,
            self.stores,
            self.clock,
            PLATFORM,
            Counts(),
            self._uid,
        )

    def _uid(self) -> str:
        self.uids += 1
        return f"uid-{self.uids}"

    async def secret(self) -> None:
        data = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "right"}
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        meta = {"name": "lakeloop-storage", "namespace": self.namespace}
        await self.api.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded})

    async def apply(self, annotations: Mapping[str, str] | None = None, **parts: Any) -> None:
        """Server-side apply as the user."""
        meta = {"name": "churn", "namespace": self.namespace, "annotations": dict(annotations or {})}
        body = {"apiVersion": API_VERSION, "kind": "TrainingJob", "metadata": meta, "spec": {**SPEC, **parts}}
        await self.api.request(
            "PATCH", self.path, {"fieldManager": "user"}, body, content_type="application/apply-patch+yaml"
        )

    @property
    def path(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/trainingjobs/churn"

    async def job(self) -> Mapping[str, Any] | None:
        return await self.api.get(ObjectRef(API_VERSION, "TrainingJob", self.namespace, "churn"))

    async def status(self) -> dict[str, Any]:
        job = await self.job()
        assert job is not None
        found: dict[str, Any] = job.get("status", {})
        return found

    async def condition(self, kind: str) -> Mapping[str, Any]:
        found = [each for each in (await self.status())["conditions"] if each["type"] == kind]
        return found[0] if found else {}

    async def pods(self) -> Sequence[Mapping[str, Any]]:
        return await self.api.list("v1", "Pod", self.namespace, {"lakeloop.io/training-job": "churn"})

    async def settle(self) -> None:
        for _ in range(80):
            before = self.writes.made
            try:
                again = await self.reconciler.reconcile(self.namespace, "churn")
            except Crash:
                self.restart()
                continue
            except KubernetesError as error:
                if error.status != 409:
                    raise
                continue
            if again != 0 and self.writes.made == before:
                return
        raise AssertionError(f"never at rest: {self.writes.log[-10:]}")

    async def pod_status(self, **status: Any) -> None:
        name = (await self.status())["run"]["driverPod"]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/status"
        await self.api.request("PATCH", path, None, {"status": status}, content_type=MERGE_PATCH)

    async def driver_succeeds(self) -> None:
        run = (await self.status())["run"]
        result = {
            "uid": run["uid"],
            "attempt": run["attempt"],
            "outcome": "Succeeded",
            "inputs": [],
            "metrics": METRICS,
            "objective": {"metric": "roc_auc", "value": 0.91},
            "model": {"modelId": "m-1", "artifactUri": "s3://mlflow/1/models/m-1/artifacts", "digest": "sha256:abc"},
        }
        terminated = {"exitCode": 0, "message": json.dumps(result), "containerID": "x://1"}
        container = {"name": "driver", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
        await self.pod_status(phase="Succeeded", containerStatuses=[{**container, "state": {"terminated": terminated}}])


@pytest.fixture
async def cluster(apiserver: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    async with KubernetesApi(await load_configuration()) as api:
        made = Cluster(api, namespace)
        await made.secret()
        yield made


async def whole_way(cluster: Cluster) -> dict[str, Any]:
    """From apply through an eviction and a retry to a registered model; the status at the end."""
    await cluster.apply()
    await cluster.settle()
    await cluster.pod_status(phase="Running")
    await cluster.settle()
    await cluster.pod_status(phase="Failed", reason="Evicted")
    await cluster.settle()
    cluster.clock.tick(10)
    await cluster.settle()
    await cluster.driver_succeeds()
    await cluster.settle()
    return await cluster.status()


async def test_from_apply_to_a_registered_model(cluster: Cluster) -> None:
    status = await whole_way(cluster)
    job = await cluster.job()
    assert job is not None
    assert status["observedGeneration"] == job["metadata"]["generation"] == 1
    assert (await cluster.condition("Ready"))["status"] == "True"
    assert status["summary"] == {"table": "customers@0", "metric": "roc_auc 0.91", "model": "churn/1"}
    assert status["run"]["retries"]["infrastructure"] == 1
    assert sorted(pod["metadata"]["name"] for pod in await cluster.pods()) == ["churn-1-1-driver", "churn-1-2-driver"]
    before = cluster.writes.made
    await cluster.settle()
    assert cluster.writes.made == before, "a job at rest is left alone"


async def test_all_that_is_written_is_stored(cluster: Cluster) -> None:
    """The schema prunes nothing of status: the operator would otherwise forget what it decided."""
    written: list[Mapping[str, Any]] = []
    patch = cluster.api.patch_status

    async def recording(ref: ObjectRef, status: Mapping[str, Any], *, resource_version: str | None) -> Any:
        stored = await patch(ref, status, resource_version=resource_version)
        written.append(status)
        assert stored["status"] == status
        return stored

    cluster.api.patch_status = recording  # type: ignore[method-assign]
    await whole_way(cluster)
    assert len(written) > 5


@pytest.mark.parametrize("crash_after", range(1, 29))
async def test_a_crash_after_any_write(cluster: Cluster, crash_after: int) -> None:
    cluster.writes.crash_after = crash_after
    status = await whole_way(cluster)
    assert cluster.writes.crash_after is None, "the operator did crash"
    assert status["run"]["phase"] == "Succeeded"
    assert status["run"]["attempt"] == 2
    assert [run["number"] for run in status["history"]] == [1]
    assert len(cluster.tracking.runs) == len(cluster.tracking.versions) == 1
    assert cluster.tracking.aliases == {("churn", "champion"): 1}
    assert len(await cluster.pods()) == 2


async def test_pods_pass_the_restricted_level(cluster: Cluster) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    path = f"/api/v1/namespaces/{cluster.namespace}"
    await cluster.api.request("PATCH", path, None, labels, content_type=MERGE_PATCH)
    toleration = {"template": {"spec": {"tolerations": [{"key": "spot", "operator": "Exists"}]}}}
    await cluster.apply(spark={"driver": toleration, "executor": toleration})
    await cluster.settle()
    assert (await cluster.status())["run"]["phase"] == "Submitting"
    (pod,) = await cluster.pods()
    assert {"key": "spot", "operator": "Exists"} in pod["spec"]["tolerations"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "driver": ({"driver": {"template": {"spec": {"priorityClassName": "nobody"}}}}, "spec.spark.driver.template"),
    "driver, nonsense": (
        {"driver": {"template": {"spec": {"tolerations": [{"key": "a", "operator": "Sometimes"}]}}}},
        "spec.spark.driver.template",
    ),
    "driver, unknown field": ({"driver": {"template": {"spec": {"nodeSelectr": {}}}}}, "spec.spark.driver.template"),
    "driver, wrong type": ({"driver": {"template": {"spec": {"nodeSelector": "x"}}}}, "spec.spark.driver.template"),
    "executor": (
        {"executor": {"template": {"spec": {"tolerations": [{"key": "a", "operator": "Sometimes"}]}}}},
        "spec.spark.executor.template",
    ),
    "executor, unknown field": (
        {"executor": {"template": {"spec": {"nodeSelectr": {}}}}},
        "spec.spark.executor.template",
    ),
    "executor, wrong type": (
        {"executor": {"template": {"metadata": {"labels": {"a": 1}}}}},
        "spec.spark.executor.template",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_the_api_server_refuses_an_overlay(cluster: Cluster, name: str) -> None:
    spark, field = REFUSED[name]
    await cluster.apply(spark=spark)
    await cluster.settle()
    run = (await cluster.status())["run"]
    assert run["phase"] == "Failed"
    assert (run["failure"]["class"], run["failure"]["reason"]) == ("Submission", "TemplateRefused")
    assert run["failure"]["field"] == field
    assert (await cluster.condition("Stalled"))["status"] == "True"
    assert await cluster.pods() == []


async def test_deletion_leaves_nothing_stuck(cluster: Cluster) -> None:
    await cluster.apply()
    await cluster.settle()
    await cluster.api.delete(ObjectRef(API_VERSION, "TrainingJob", cluster.namespace, "churn"))
    job = await cluster.job()
    assert job is not None, "our finalizer holds it"
    await cluster.settle()
    assert await cluster.job() is None
    assert await cluster.pods() == []
    assert [run.status for run in cluster.tracking.runs.values()] == ["KILLED"]


async def test_a_foreign_write_between_reading_and_writing_is_a_conflict(cluster: Cluster) -> None:
    await cluster.apply()
    job = await cluster.job()
    assert job is not None
    ref = ObjectRef(API_VERSION, "TrainingJob", cluster.namespace, "churn")
    version = job["metadata"]["resourceVersion"]
    await cluster.apply(dataset={"target": "other"})
    with pytest.raises(KubernetesError) as conflict:
        await cluster.api.patch_status(ref, {"observedGeneration": 1}, resource_version=version)
    assert conflict.value.status == 409


async def test_a_driver_is_created_within_a_second_of_the_object(cluster: Cluster) -> None:
    await cluster.apply()
    began = time.monotonic()
    await cluster.settle()
    took = time.monotonic() - began
    assert len(await cluster.pods()) == 1
    assert took < 5, f"{took:.2f} s: the bench measures it well; this sees only a change for the worse"
