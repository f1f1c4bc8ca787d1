"""One TrainingJob on a real API server, with an operator that may die after any write.

Pods are moved along by the test; MLflow, the tables and the store are those of the unit tests.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from unit.training.fakes import Crash, FakeClock, FakeStores, FakeTables, FakeTracking, Writes
from unit.training.world import METRICS, PLATFORM, TABLE, Counts

from lakeloop.adapters.kubernetes import MERGE_PATCH, KubernetesApi
from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.domain.plan import Event, Manifest, ObjectRef
from lakeloop.reconcile.trainingjob import TrainingJobReconciler

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

    async def create(self, manifest: Manifest) -> bool:
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

    async def replace_status(
        self, ref: ObjectRef, status: Mapping[str, Any], *, resource_version: str
    ) -> Mapping[str, Any]:
        made = await self.api.replace_status(ref, status, resource_version=resource_version)
        self.writes.wrote("status")
        return made

    async def set_finalizers(
        self, ref: ObjectRef, finalizers: Sequence[str], *, resource_version: str
    ) -> Mapping[str, Any]:
        found = await self.api.set_finalizers(ref, finalizers, resource_version=resource_version)
        self.writes.wrote("finalizers")
        return found

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
        """Server-side apply as the user. A part that is None is left out."""
        meta = {"name": "churn", "namespace": self.namespace, "annotations": dict(annotations or {})}
        spec = {key: value for key, value in {**SPEC, **parts}.items() if value is not None}
        body = {"apiVersion": API_VERSION, "kind": "TrainingJob", "metadata": meta, "spec": spec}
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

    async def driver_ends(self, **parts: Any) -> None:
        """The driver's container ends with a good result, but for `parts`."""
        run = (await self.status())["run"]
        result = {
            "uid": run["uid"],
            "attempt": run["attempt"],
            "outcome": "Succeeded",
            "inputs": [],
            "metrics": METRICS,
            "objective": {"metric": "roc_auc", "value": 0.91},
            "model": {"modelId": "m-1", "artifactUri": "s3://mlflow/1/models/m-1/artifacts", "digest": "sha256:abc"},
            **parts,
        }
        terminated = {"exitCode": 0, "message": json.dumps(result), "containerID": "x://1"}
        container = {"name": "driver", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
        await self.pod_status(phase="Succeeded", containerStatuses=[{**container, "state": {"terminated": terminated}}])
