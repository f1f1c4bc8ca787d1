"""Stand-ins that behave: an API server with resource versions and finalizers, an MLflow, a Delta log, a store.

Every write goes through one counter, so that a test can let the operator die right after any of them.
"""

import copy
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lakeloop.adapters.delta_log_protocol import (
    Commit,
    CommitPage,
    Removed,
    TableNotFound,
    TableVersion,
    VersionNotFound,
)
from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.adapters.object_store_protocol import (
    BucketNotFound,
    CredentialsRefused,
    ObjectStore,
    StorageAccess,
    StorageUnavailable,
    StoredObject,
)
from lakeloop.adapters.tracking_protocol import (
    PARENT_TAG,
    BasicAuth,
    ModelVersion,
    RunEnd,
    TrackedRun,
    TrackingDenied,
    TrackingInvalid,
    TrackingNotFound,
    TrackingServer,
    TrackingUnavailable,
    Webhook,
)
from lakeloop.domain.plan import Event, Manifest, ObjectRef

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
Key = tuple[str, str, str, str]


class Crash(BaseException):
    """The operator dies. No handler of errors may catch it."""


@dataclass
class Writes:
    """Counts writes to the outside, and ends the process after the n-th, or refuses it before."""

    made: int = 0
    crash_after: int | None = None
    log: list[str] = field(default_factory=list)

    def wrote(self, what: str) -> None:
        self.made += 1
        self.log.append(what)
        if self.crash_after is not None and self.made >= self.crash_after:
            self.crash_after = None
            raise Crash(what)


@dataclass
class FakeClock:
    """Stands still until told otherwise."""

    moment: datetime = START

    def now(self) -> datetime:
        return self.moment

    def tick(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class FakeKubernetes:
    """Implements Kubernetes."""

    def __init__(self, clock: FakeClock, writes: Writes) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.events: list[tuple[str, Event]] = []
        self.refuse: Callable[[Manifest, bool], KubernetesError | None] = lambda manifest, dry_run: None
        """What a policy, a quota or the validation says to a manifest."""
        self.unlisted: set[str] = set()
        """Names that lists, which are of a while ago, do not have yet."""
        self._clock = clock
        self._writes = writes
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)

    # -- what the operator calls

    async def get(self, ref: ObjectRef) -> Mapping[str, Any] | None:
        found = self.objects.get(_key(ref))
        return copy.deepcopy(found) if found else None

    async def list(
        self, api_version: str, kind: str, namespace: str | None, labels: Mapping[str, str]
    ) -> Sequence[Mapping[str, Any]]:
        return [
            copy.deepcopy(obj)
            for (version, its_kind, ns, _), obj in sorted(self.objects.items())
            if (version, its_kind) == (api_version, kind)
            and namespace in (None, ns)
            and labels.items() <= (obj["metadata"].get("labels") or {}).items()
            and obj["metadata"]["name"] not in self.unlisted
        ]

    async def create(self, manifest: Manifest) -> bool:
        key = _key_of(manifest)
        self._check(manifest, dry_run=False)
        if key in self.objects:
            return False
        self.put(manifest)
        self._writes.wrote(f"create {key[1]} {key[3]}")
        return True

    async def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Mapping[str, Any]:
        key = _key_of(manifest)
        self._check(manifest, dry_run=dry_run)
        if dry_run:
            return copy.deepcopy(dict(manifest))
        before = self.objects.get(key)
        if before is None:
            self.put(manifest)
            self._writes.wrote(f"apply {key[1]} {key[3]}")
            return copy.deepcopy(self.objects[key])
        after = copy.deepcopy(before)
        for part, value in manifest.items():
            if part == "metadata":
                after["metadata"] |= copy.deepcopy(dict(value))
            else:
                after[part] = copy.deepcopy(value)
        if after != before:
            after["metadata"]["generation"] = before["metadata"].get("generation", 0) + (
                after.get("spec") != before.get("spec")
            )
            self._store(key, after)
            self._writes.wrote(f"apply {key[1]} {key[3]}")
        return copy.deepcopy(self.objects[key])

    async def delete(self, ref: ObjectRef, *, grace_seconds: int | None = None) -> None:
        found = self.objects.get(_key(ref))
        if found is None:
            return
        if ref.uid is not None and found["metadata"]["uid"] != ref.uid:
            raise KubernetesError(409, "Conflict", "the precondition on the uid does not hold")
        if ref.resource_version is not None and found["metadata"]["resourceVersion"] != ref.resource_version:
            return
        self.remove(_key(ref))
        self._writes.wrote(f"delete {ref.kind} {ref.name}")

    async def replace_status(
        self, ref: ObjectRef, status: Mapping[str, Any], *, resource_version: str
    ) -> Mapping[str, Any]:
        found = self._versioned(ref, resource_version)
        if found.get("status") != status:
            self._store(_key(ref), found | {"status": copy.deepcopy(dict(status))})
            self._writes.wrote(f"status {ref.kind} {ref.name}")
        return copy.deepcopy(self.objects[_key(ref)])

    async def set_finalizers(
        self, ref: ObjectRef, finalizers: Sequence[str], *, resource_version: str
    ) -> Mapping[str, Any]:
        found = self._versioned(ref, resource_version)
        found["metadata"]["finalizers"] = list(finalizers)
        self._store(_key(ref), found)
        if not finalizers and found["metadata"].get("deletionTimestamp"):
            self._collect(_key(ref))
        self._writes.wrote(f"finalizers {ref.kind} {ref.name}")
        return copy.deepcopy(found)

    async def emit(self, regarding: ObjectRef, event: Event) -> None:
        self.events.append((regarding.name, event))

    # -- what tests do to the cluster

    def put(self, manifest: Manifest) -> dict[str, Any]:
        """Makes or replaces an object as the API server would store a new one."""
        obj = copy.deepcopy(dict(manifest))
        obj["metadata"] = {
            **obj["metadata"],
            "uid": obj["metadata"].get("uid") or f"uid-{next(self._uids)}",
            "generation": obj["metadata"].get("generation", 1),
            "creationTimestamp": self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if obj["kind"] == "Pod":
            obj.setdefault("status", {"phase": "Pending"})
        self._store(_key_of(obj), obj)
        return obj

    def change(self, ref: ObjectRef, change: Callable[[dict[str, Any]], None]) -> None:
        """Somebody else's write. A change of `spec` makes a new generation."""
        before = self.objects[_key(ref)]
        after = copy.deepcopy(before)
        change(after)
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] += 1
        self._store(_key(ref), after)

    def remove(self, key: Key) -> None:
        """A deletion: finalizers hold the object, and a running pod goes when it has stopped (`settle`)."""
        obj = copy.deepcopy(self.objects[key])
        running = obj["kind"] == "Pod" and obj["status"].get("phase") == "Running"
        if obj["metadata"].get("finalizers") or running:
            if not obj["metadata"].get("deletionTimestamp"):
                obj["metadata"]["deletionTimestamp"] = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
                self._store(key, obj)
            return
        self._collect(key)

    def settle(self) -> None:
        """The kubelet has stopped the pods that are being deleted."""
        for key, obj in list(self.objects.items()):
            if obj["kind"] == "Pod" and obj["metadata"].get("deletionTimestamp"):
                self._collect(key)

    def pods(self) -> Sequence[dict[str, Any]]:
        return [obj for (_, kind, _, _), obj in sorted(self.objects.items(), key=lambda each: each[0]) if kind == "Pod"]

    def _collect(self, key: Key) -> None:
        gone = self.objects.pop(key)
        for other, obj in list(self.objects.items()):
            owners = obj["metadata"].get("ownerReferences") or ()
            if any(each["uid"] == gone["metadata"]["uid"] for each in owners) and other in self.objects:
                self.remove(other)

    def _store(self, key: Key, obj: dict[str, Any]) -> None:
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = obj

    def _versioned(self, ref: ObjectRef, resource_version: str | None) -> dict[str, Any]:
        found = self.objects.get(_key(ref))
        if found is None:
            raise KubernetesError(404, "NotFound", f"there is no {ref.kind} {ref.name}")
        if resource_version is not None and found["metadata"]["resourceVersion"] != resource_version:
            raise KubernetesError(409, "Conflict", f"{ref.kind} {ref.name} was changed meanwhile")
        return copy.deepcopy(found)

    def _check(self, manifest: Manifest, *, dry_run: bool) -> None:
        error = self.refuse(manifest, dry_run)
        if error is not None:
            raise error


def _key(ref: ObjectRef) -> Key:
    return (ref.api_version, ref.kind, ref.namespace, ref.name)


def _key_of(manifest: Manifest) -> Key:
    meta = manifest["metadata"]
    return (manifest["apiVersion"], manifest["kind"], meta.get("namespace", ""), meta["name"])


class FakeTracking:
    """Implements TrackingServers and TrackingServer: one MLflow in memory."""

    def __init__(self, writes: Writes) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, TrackedRun] = {}
        self.models: set[str] = set()
        self.versions: dict[tuple[str, int], ModelVersion] = {}
        self.aliases: dict[tuple[str, str], int] = {}
        self.webhooks: dict[str, Webhook] = {}
        self.down = False
        self.password: str | None = None
        """Where it is set, others are refused."""
        self.refused_names: set[str] = set()
        self._auth: BasicAuth | None = None
        self._writes = writes

    def connect(self, auth: BasicAuth | None) -> TrackingServer:
        self._auth = auth
        return self

    def _reach(self) -> None:
        if self.down:
            raise TrackingUnavailable("MLflow does not answer")
        if self.password is not None and (self._auth is None or self._auth.password != self.password):
            raise TrackingDenied("MLflow refuses the user")

    async def get_experiment(self, name: str) -> str | None:
        self._reach()
        return self.experiments.get(name)

    async def ensure_experiment(self, name: str) -> str:
        self._reach()
        if name not in self.experiments:
            self.experiments[name] = str(len(self.experiments) + 1)
            self._writes.wrote(f"experiment {name}")
        return self.experiments[name]

    async def find_run(self, experiment_id: str, tag: str, value: str) -> TrackedRun | None:
        self._reach()
        found = (run for run in self.runs.values() if run.experiment_id == experiment_id and run.tags.get(tag) == value)
        return next(found, None)

    async def get_run(self, run_id: str) -> TrackedRun | None:
        self._reach()
        return self.runs.get(run_id)

    async def create_run(self, experiment_id: str, name: str, started_ms: int, tags: Mapping[str, str]) -> TrackedRun:
        self._reach()
        run_id = f"run{len(self.runs) + 1}"
        artifacts = f"s3://mlflow/{experiment_id}/{run_id}/artifacts"
        self.runs[run_id] = TrackedRun(run_id, experiment_id, "RUNNING", artifacts, dict(tags), {})
        self._writes.wrote(f"run {name}")
        return self.runs[run_id]

    async def set_run_tag(self, run_id: str, key: str, value: str) -> None:
        self._reach()
        run = self.runs[run_id]
        if run.tags.get(key) != value:
            self.runs[run_id] = replace(run, tags={**run.tags, key: value})
            self._writes.wrote(f"tag {run_id} {key}")

    async def end_run(self, run_id: str, status: RunEnd, ended_ms: int) -> None:
        self._reach()
        self.runs[run_id] = replace(self.runs[run_id], status=status)
        self._writes.wrote(f"end {run_id} {status}")

    async def open_children(self, experiment_id: str, run_id: str) -> Sequence[str]:
        self._reach()
        runs = self.runs.values()
        return [each.run_id for each in runs if each.tags.get(PARENT_TAG) == run_id and each.status == "RUNNING"]

    async def ensure_registered_model(self, name: str) -> None:
        self._reach()
        if name in self.refused_names:
            raise TrackingInvalid(f"{name!r} is no name for a model", "INVALID_PARAMETER_VALUE")
        if name not in self.models:
            self.models.add(name)
            self._writes.wrote(f"model {name}")

    async def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str,
        model_id: str | None,
        description: str,
        tags: Mapping[str, str],
    ) -> ModelVersion:
        self._reach()
        if name not in self.models:
            raise TrackingNotFound(f"there is no model {name}", "RESOURCE_DOES_NOT_EXIST")
        number = 1 + max((version for each, version in self.versions if each == name), default=0)
        made = ModelVersion(name, number, source, run_id, "READY", dict(tags), (), 0, model_id, description)
        self.versions[name, number] = made
        self._writes.wrote(f"version {name}/{number}")
        return made

    async def search_model_versions(
        self, name: str, tag: str | None = None, value: str = "", *, limit: int = 100
    ) -> Sequence[ModelVersion]:
        self._reach()
        found = [each for each in self.versions.values() if each.name == name]
        wanted = [each for each in found if tag is None or each.tags.get(tag) == value]
        return sorted(wanted, key=lambda each: -each.version)[:limit]

    async def get_model_version(self, name: str, version: int) -> ModelVersion | None:
        self._reach()
        found = self.versions.get((name, version))
        aliases = tuple(alias for (model, alias), at in self.aliases.items() if (model, at) == (name, version))
        return replace(found, aliases=aliases) if found else None

    async def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        self._reach()
        at = self.aliases.get((name, alias))
        return await self.get_model_version(name, at) if at is not None else None

    async def get_download_uri(self, name: str, version: int) -> str:
        self._reach()
        if (name, version) not in self.versions:
            raise TrackingNotFound(f"there is no {name}/{version}", "RESOURCE_DOES_NOT_EXIST")
        return self.versions[name, version].source

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        self._reach()
        if (name, version) not in self.versions:
            raise TrackingNotFound(f"there is no {name}/{version}", "RESOURCE_DOES_NOT_EXIST")
        self.aliases[name, alias] = version
        self._writes.wrote(f"alias {name} {alias} {version}")

    async def delete_alias(self, name: str, alias: str) -> None:
        self._reach()
        if self.aliases.pop((name, alias), None) is not None:
            self._writes.wrote(f"no alias {name} {alias}")

    async def set_model_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        self._reach()
        found = self.versions[name, version]
        self.versions[name, version] = replace(found, tags={**found.tags, key: value})
        self._writes.wrote(f"tag {name}/{version} {key}")

    async def delete_model_version_tag(self, name: str, version: int, key: str) -> None:
        self._reach()
        found = self.versions[name, version]
        self.versions[name, version] = replace(found, tags={k: v for k, v in found.tags.items() if k != key})
        self._writes.wrote(f"no tag {name}/{version} {key}")

    async def create_webhook(self, name: str, url: str, events: Sequence[str], secret: str) -> Webhook:
        self._reach()
        made = Webhook(f"hook{len(self.webhooks) + 1}", name, url, tuple(events), True)
        self.webhooks[made.id] = made
        self._writes.wrote(f"webhook {name}")
        return made

    async def list_webhooks(self) -> Sequence[Webhook]:
        self._reach()
        return list(self.webhooks.values())

    async def delete_webhook(self, webhook_id: str) -> None:
        self._reach()
        if self.webhooks.pop(webhook_id, None) is not None:
            self._writes.wrote(f"no webhook {webhook_id}")


class FakeStores:
    """Implements ObjectStores and ObjectStore: buckets in memory, which know one secret key."""

    def __init__(self, clock: FakeClock, writes: Writes) -> None:
        self.objects: dict[str, bytes] = {}
        self.buckets = {"lake", "raw", "mlflow"}
        self.secret_key = "right"
        self.down = False
        self._clock = clock
        self._writes = writes
        self.access: StorageAccess | None = None
        """As whom it was asked last."""

    def connect(self, access: StorageAccess) -> ObjectStore:
        self.access = access
        return self

    def reach(self, uri: str, access: StorageAccess | None = None) -> None:
        """Raises what a store would answer to this caller."""
        self.access = access = access or self.access
        if self.down:
            raise StorageUnavailable("the store does not answer")
        if access is None or access.secret_key != self.secret_key:
            raise CredentialsRefused(f"the store refuses these credentials for {uri}")
        if uri.split("/")[2] not in self.buckets:
            raise BucketNotFound(f"there is no bucket {uri.split('/')[2]!r}")

    async def list(
        self, prefix_uri: str, *, start_after: str | None = None, limit: int | None = None
    ) -> Sequence[StoredObject]:
        self.reach(prefix_uri)
        return [
            StoredObject(uri, str(hash(content)), len(content), self._clock.now())
            for uri, content in sorted(self.objects.items())
            if uri.startswith(prefix_uri) and uri > (start_after or "")
        ][:limit]

    async def read(self, uri: str) -> bytes | None:
        self.reach(uri)
        return self.objects.get(uri.replace("s3://", "s3a://"))

    async def write_if_absent(self, uri: str, content: bytes) -> bool:
        self.reach(uri)
        if uri in self.objects:
            return False
        self.objects[uri] = content
        self._writes.wrote(f"object {uri}")
        return True


@dataclass
class FakeTable:
    """The times of a table's versions, the application ids of its commits, and what these did."""

    times: list[datetime] = field(default_factory=list)
    app_ids: dict[str, int] = field(default_factory=dict)
    rows: list[int | None] = field(default_factory=list)
    """None: maintenance, or an ingestion."""
    first: int = 0
    """The oldest commit that the log still holds."""


class FakeTables:
    """Implements DeltaLog."""

    page = 3
    """Commits read at one look."""

    def __init__(self, stores: FakeStores) -> None:
        self.tables: dict[str, FakeTable] = {}
        self.looks = 0
        self.read: list[int] = []
        self.removed: dict[tuple[str, int], Removed] = {}
        self._stores = stores

    def commit(self, uri: str, moment: datetime, app_id: str | None = None, rows: int | None = 1) -> int:
        table = self.tables.setdefault(uri, FakeTable())
        table.times.append(moment)
        table.rows.append(None if app_id else rows)
        if app_id:
            table.app_ids[app_id] = len(table.times) - 1
        return len(table.times) - 1

    async def resolve(
        self, access: StorageAccess, uri: str, *, version: int | None = None, timestamp: datetime | None = None
    ) -> TableVersion:
        self._stores.reach(uri, access)
        if uri not in self.tables:
            raise TableNotFound(f"there is no Delta table at {uri}")
        times = self.tables[uri].times
        found = version if version is not None else len(times) - 1
        if timestamp is not None:
            found = sum(time <= timestamp for time in times) - 1
        if not 0 <= found < len(times):
            raise VersionNotFound(f"{uri} has versions 0 to {len(times) - 1}")
        return TableVersion(found, times[found])

    async def removed_since(self, access: StorageAccess, uri: str, version: int) -> Removed | None:
        self._stores.reach(uri, access)
        return self.removed.get((uri, version))

    async def committed_by(self, access: StorageAccess, uri: str, app_id: str, *, after: int | None) -> int | None:
        self._stores.reach(uri, access)
        return self.tables.get(uri, FakeTable()).app_ids.get(app_id)

    async def known_app_ids(self, access: StorageAccess, uri: str, app_ids: Collection[str]) -> frozenset[str]:
        self._stores.reach(uri, access)
        return frozenset(app_ids) & self.tables.get(uri, FakeTable()).app_ids.keys()

    async def commits(self, access: StorageAccess, uri: str, *, after: int) -> CommitPage:
        self.looks += 1
        newest = (await self.resolve(access, uri)).version
        if newest < after:
            return CommitPage(recreated=True)
        table = self.tables[uri]
        versions = [each for each in range(after + 1, newest + 1) if each >= table.first]
        self.read += versions[: self.page]
        found = tuple(
            Commit(each, table.times[each], table.rows[each] is not None, table.rows[each] or 0)
            for each in versions[: self.page]
        )
        missing = found[-1].version - after - len(found) if found else 0
        return CommitPage(found, missing, more=len(versions) > self.page)

    async def changed(self, access: StorageAccess, uri: str, *, after: int) -> bool:
        self.looks += 1
        return (await self.resolve(access, uri)).version != after
