"""A whole small world around one TrainingJob: cluster, kubelet, driver, user, MLflow and store, all in memory."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from unit.training.fakes import Crash, FakeClock, FakeKubernetes, FakeStores, FakeTables, FakeTracking, Writes

from builders import NAMESPACE, training_job_dict
from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.domain.plan import ObjectRef
from lakeloop.reconcile.trainingjob import TrainingJobReconciler
from lakeloop.render.training.names import Platform

TABLE = "s3a://lake/customers"
PLATFORM = Platform(
    tracking_uri="http://mlflow.lakeloop-platform.svc:5000",
    tracking_ui_url="http://127.0.0.1:5000",
    storage_endpoint="http://minio.lakeloop-platform.svc:9000",
    storage_region="us-east-1",
    storage_path_style=True,
    storage_ca_file=None,
    warehouse="s3a://lake/warehouse",
    trainer_image="lakeloop/trainer:test",
)
# What the samples say too: the release does not explain models yet.
PLAIN = {"explanation": {"method": "None"}}
METRICS = {"test_roc_auc": 0.91, "train_roc_auc": 0.99}


class Counts:
    """Implements Telemetry."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def phase(self, kind: str, name: str, seconds: float) -> None:
        pass

    def rollout(self, outcome: str, seconds: float | None = None) -> None:
        pass

    def run(self, outcome: str) -> None:
        self.runs.append(outcome)


class World:
    """Holds everything, and moves it along as its parts would."""

    def __init__(self, name: str = "churn") -> None:
        self.name = name
        self.clock = FakeClock()
        self.writes = Writes()
        self.telemetry = Counts()
        self.kubernetes = FakeKubernetes(self.clock, self.writes)
        self.tracking = FakeTracking(self.writes)
        self.stores = FakeStores(self.clock, self.writes)
        self.tables = FakeTables(self.stores)
        self._uids = 0
        self.ref = ObjectRef("lakeloop.io/v1alpha1", "TrainingJob", NAMESPACE, name)
        self.restart()
        self.secret("lakeloop-storage", AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="right")
        self.tables.commit(TABLE, self.clock.now())

    # -- the operator

    def restart(self) -> None:
        """A new operator process, which remembers nothing."""
        self.reconciler = TrainingJobReconciler(
            self.kubernetes,
            self.tracking,
            self.tables,
            self.stores,
            self.clock,
            PLATFORM,
            self.telemetry,
            self._new_uid,
        )

    def _new_uid(self) -> str:
        self._uids += 1
        return f"{self.name}-run-{self._uids}"

    async def step(self) -> float | None:
        """One pass."""
        return await self.reconciler.reconcile(NAMESPACE, self.name)

    async def settle(self, passes: int = 40) -> float | None:
        """Passes until the operator wants to wait for something; restarts it where it dies.

        What it wrote to the job is no news to it, nor is a pod that it made: only one that goes is.
        """
        for _ in range(passes):
            before = self.writes.made
            try:
                again = await self.step()
            except Crash:
                self.restart()
                continue
            except KubernetesError as error:
                if error.status != 409:
                    raise
                continue
            made = self.writes.log[len(self.writes.log) - (self.writes.made - before) :]
            if again != 0 and not any(each.startswith("delete Pod ") for each in made):
                return again
        raise AssertionError(f"still not at rest after {passes} passes: {self.writes.log[-10:]}")

    # -- the user

    def apply(self, **parts: Any) -> None:
        """`kubectl apply` of a TrainingJob. `parts`: see builders."""
        wanted = training_job_dict(self.name, **{**PLAIN, **parts})
        if self.exists:
            self.kubernetes.change(self.ref, lambda obj: obj.update(spec=wanted["spec"]))
        else:
            self.kubernetes.put(wanted)

    def annotate(self, key: str, value: str | None) -> None:
        def change(obj: dict[str, Any]) -> None:
            annotations = obj["metadata"].setdefault("annotations", {})
            annotations.pop(key, None)
            if value is not None:
                annotations[key] = value

        self.kubernetes.change(self.ref, change)

    def delete(self) -> None:
        self.kubernetes.remove((self.ref.api_version, self.ref.kind, NAMESPACE, self.name))

    def secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        meta = {"name": name, "namespace": NAMESPACE}
        self.kubernetes.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})

    # -- what is

    @property
    def exists(self) -> bool:
        return any(key[1] == "TrainingJob" for key in self.kubernetes.objects)

    @property
    def job(self) -> dict[str, Any]:
        return self.kubernetes.objects[self.ref.api_version, self.ref.kind, NAMESPACE, self.name]

    @property
    def status(self) -> dict[str, Any]:
        return self.job.get("status", {})

    @property
    def run(self) -> dict[str, Any]:
        return self.status["run"]

    def condition(self, kind: str) -> tuple[str, str] | None:
        """Status and reason; None where there is no such condition."""
        found = [each for each in self.status.get("conditions", []) if each["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else None

    def message(self, kind: str) -> str:
        return next(each["message"] for each in self.status["conditions"] if each["type"] == kind)

    @property
    def drivers(self) -> list[dict[str, Any]]:
        return [pod for pod in self.kubernetes.pods() if pod["metadata"]["labels"]["lakeloop.io/role"] == "driver"]

    @property
    def live_drivers(self) -> list[dict[str, Any]]:
        return [pod for pod in self.drivers if pod["status"]["phase"] not in ("Succeeded", "Failed")]

    def object(self, kind: str, name: str) -> dict[str, Any]:
        return next(obj for key, obj in self.kubernetes.objects.items() if (key[1], key[3]) == (kind, name))

    # -- the driver and its node

    def pod_ref(self) -> ObjectRef:
        return ObjectRef("v1", "Pod", NAMESPACE, self.run["driverPod"])

    def pod_status(self, **status: Any) -> None:
        self.kubernetes.change(self.pod_ref(), lambda pod: pod.update(status=status))

    def runs(self, **progress: Any) -> None:
        """The driver is at work."""
        self.pod_status(phase="Running")
        if progress:
            identity = {"uid": self.run["uid"], "attempt": self.run["attempt"]}
            text = json.dumps({**identity, **progress})
            self.kubernetes.change(
                self.pod_ref(),
                lambda pod: pod["metadata"].setdefault("annotations", {}).update({"lakeloop.io/progress": text}),
            )

    def result(self, **parts: Any) -> dict[str, Any]:
        """A good result of the present attempt."""
        return {
            "uid": self.run["uid"],
            "attempt": self.run["attempt"],
            "outcome": "Succeeded",
            "inputs": [],
            "metrics": METRICS,
            "objective": {"metric": "roc_auc", "value": 0.91},
            "model": {
                "modelId": "m-1",
                "uri": "models:/m-1",
                "artifactUri": "s3://mlflow/1/models/m-1/artifacts",
                "digest": "sha256:abc",
                "signature": True,
            },
            **parts,
        }

    def failure(self, kind: str, reason: str, field: str | None = None) -> dict[str, Any]:
        """A result that says what went wrong."""
        failure = {"class": kind, "reason": reason, "message": f"{reason} happened", "field": field}
        return self.result(outcome="Failed", failure=failure, model=None, metrics={}, objective=None)

    def ends(self, result: Mapping[str, Any] | None, *, code: int = 0, reason: str = "Completed") -> None:
        """The driver's container ends, with this as its termination message."""
        terminated: dict[str, Any] = {"exitCode": code, "reason": reason}
        if result is not None:
            terminated["message"] = json.dumps(result)
        phase = "Succeeded" if code == 0 else "Failed"
        self.uploaded(f"driver-{self.run['attempt']}")
        self.pod_status(phase=phase, containerStatuses=[{"name": "driver", "state": {"terminated": terminated}}])

    def uploaded(self, container: str, *, complete: bool = True) -> None:
        """The sidecar leaves its marker."""
        if logs := self.run.get("logs"):
            document = {"container": container, "complete": complete}
            self.stores.objects[f"{logs['uri']}/{container}.json"] = json.dumps(document).encode()

    def records(self, result: Mapping[str, Any]) -> None:
        """The driver leaves its result in MLflow."""
        artifacts = self.tracking.runs[self.run["mlflow"]["runId"]].artifact_uri.replace("s3://", "s3a://")
        self.stores.objects[f"{artifacts}/lakeloop/result.json"] = json.dumps(result).encode()

    async def until_running(self, **parts: Any) -> None:
        """Applies the job and follows it until its driver is at work."""
        self.apply(**parts)
        await self.settle()
        self.runs()
        await self.settle()

    async def until_succeeded(self, **parts: Any) -> None:
        """The whole way."""
        await self.until_running(**parts)
        self.ends(self.result())
        await self.settle()
