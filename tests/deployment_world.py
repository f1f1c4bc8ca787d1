"""A ModelDeployment's world for tests of its decision: what is there, built from few words."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from builders import model_deployment
from lakeloop.api.v1alpha1.defaults import effective_deployment_spec
from lakeloop.api.v1alpha1.modeldeployment import ModelDeployment
from lakeloop.domain.deployment.actions import returns_to
from lakeloop.domain.deployment.decide import decide
from lakeloop.domain.deployment.observed import (
    Counted,
    Death,
    Observed,
    Problem,
    Registered,
    Report,
    ServerPod,
    Servers,
    Target,
)
from lakeloop.domain.plan import Plan
from lakeloop.render.serving import names
from lakeloop.render.serving.pod import ModelSource, server_template, with_revision
from lakeloop.settings import Settings

NOW = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
TAGS = {"lakeloop.io/digest": DIGEST}
SETTINGS = Settings.from_env(
    {
        "LAKELOOP_NAMESPACE": "lakeloop-system",
        "LAKELOOP_POD_NAME": "lakeloop-operator-0",
        "LAKELOOP_TRACKING_URI": "http://mlflow.lakeloop-platform.svc:5000",
        "LAKELOOP_STORAGE_ENDPOINT": "http://minio.lakeloop-platform.svc:9000",
        "LAKELOOP_STORAGE_WAREHOUSE": "s3a://lake/warehouse",
        "LAKELOOP_TRAINER_IMAGE": "localhost/lakeloop/trainer:1",
        "LAKELOOP_SERVER_IMAGE": "localhost/lakeloop/model-server:1",
    }
)


def target_of(
    deployment: ModelDeployment,
    version: int,
    tags: Mapping[str, str] | None = None,
    settings: Settings = SETTINGS,
) -> Target:
    """What `gather` makes of a version in the registry."""
    name, model = deployment.metadata.name, deployment.spec.model.name
    uri = f"s3://mlflow/1/models/m-{version}/artifacts"
    spec = effective_deployment_spec(deployment.spec)
    template = server_template(name, spec, ModelSource(model, version, uri), settings)
    revision = names.revision_of(model, version, template)
    registered = Registered(model, version, uri, f"run-{version}", TAGS if tags is None else tags)
    return Target(registered, revision, with_revision(template, name, revision))


class World:
    """Applies plans to a cluster in memory. Pods are what the test says they are."""

    def __init__(self, **spec: Any) -> None:
        self.settings = SETTINGS
        self.spec: dict[str, Any] = spec
        self.annotations: dict[str, str] = {}
        self.status: dict[str, Any] = {}
        self.generation = 1
        self.version: int | None = 1
        self.tags: dict[int, Mapping[str, str]] = {}
        self.problem: Problem | None = None
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.ready: dict[str, int] = {}
        self.deaths: dict[str, Death] = {}
        self.waiting: dict[str, str] = {}
        self.reports: dict[str, Report] = {}
        self.counted: Counted | None = None
        self.alias_moved: datetime | None = None
        self.recovery: int | None = None
        self.deleted: set[int] = set()
        self.ready_since: datetime | None = None
        self.now = NOW

    @property
    def deployment(self) -> ModelDeployment:
        metadata = {"annotations": self.annotations, "generation": self.generation}
        return model_deployment(metadata=metadata, status=self.status, **self.spec)

    def revision(self, version: int) -> str:
        """The revision that the present spec makes of a version."""
        return target_of(self.deployment, version, settings=self.settings).revision

    def observed(self) -> Observed:
        """What `gather` would see."""
        deployment = self.deployment
        target = None
        if self.version is not None and self.problem is None:
            target = target_of(deployment, self.version, self.tags.get(self.version), self.settings)
        return Observed(
            deployment=deployment,
            spec=effective_deployment_spec(deployment.spec),
            target=target,
            problem=self.problem,
            recovery=self._recovery(deployment),
            servers={each.revision: each for each in self._servers()},
            live={key: each for key, each in self.objects.items() if key[0] != "Deployment"},
            reports=self.reports,
            counted=self.counted,
            alias_moved=self.alias_moved,
        )

    def _recovery(self, deployment: ModelDeployment) -> Target | None:
        version = self.recovery or returns_to(deployment)
        if version is None or version == self.version or version in self.deleted:
            return None
        return target_of(deployment, version, settings=self.settings)

    def _servers(self) -> list[Servers]:
        return [
            self._group(each, each["metadata"]["labels"][names.REVISION])
            for key, each in self.objects.items()
            if key[0] == "Deployment"
        ]

    def _group(self, live: Mapping[str, Any], revision: str) -> Servers:
        count = live["spec"]["replicas"]
        ready = min(self.ready.get(revision, 0), count)
        pods = tuple(
            ServerPod(
                name=f"{revision}-{i}",
                revision=revision,
                ready=i < ready,
                ip="10.0.0.1",
                ready_since=self.ready_since if i < ready else None,
                death=None if i < ready else self.deaths.get(revision),
                waiting=None if i < ready else self.waiting.get(revision),
            )
            for i in range(count)
        )
        version = int(live["metadata"]["labels"][names.MODEL_VERSION])
        return Servers(live=live, revision=revision, version=version, replicas=count, pods=pods)

    def act(self) -> Plan:
        """One pass."""
        plan = decide(self.observed(), self.now, self.settings)
        if plan.status is not None:
            self.status = dict(plan.status)
        for manifest in plan.apply:
            self.objects[manifest["kind"], manifest["metadata"]["name"]] = dict(manifest)
        for ref in plan.delete:
            self.objects.pop((ref.kind, ref.name), None)
        return plan

    def settle(self, *, ready: bool = True, passes: int = 40) -> Plan:
        """Passes with time in between, and with all servers ready that are not said to die, until nothing changes."""
        plan, still = self.act(), 0
        for _ in range(passes):
            self.now += timedelta(seconds=6)
            if ready:
                for key, each in self.objects.items():
                    revision = each["metadata"]["labels"].get(names.REVISION, "")
                    if key[0] == "Deployment" and revision not in self.deaths:
                        self.ready[revision] = each["spec"]["replicas"]
            before = (self.status, dict(self.objects))
            plan = self.act()
            still = still + 1 if (self.status, self.objects) == before else 0
            if still == 2:
                return plan
        raise AssertionError(f"still changing: {plan}")

    def pass_time(self, seconds: float) -> None:
        """The clock goes on."""
        self.now += timedelta(seconds=seconds)

    def condition(self, kind: str) -> tuple[str, str] | None:
        """Status and reason of a condition."""
        found = next((each for each in self.status.get("conditions", ()) if each["type"] == kind), None)
        return (found["status"], found["reason"]) if found else None

    def deployments(self) -> dict[str, int]:
        """Revision → replicas."""
        return {
            each["metadata"]["labels"][names.REVISION]: each["spec"]["replicas"]
            for key, each in self.objects.items()
            if key[0] == "Deployment"
        }

    def selected(self) -> str | None:
        """The revision that the Service selects; None: all."""
        selector: Mapping[str, str] = self.objects["Service", "churn"]["spec"]["selector"]
        return selector.get(names.REVISION)


def serving(version: int = 1, **spec: Any) -> World:
    """A world in which that version serves and nothing is to be done."""
    world = World(**spec)
    world.version = version
    world.settle()
    return world
