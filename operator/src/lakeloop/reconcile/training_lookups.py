"""Reads what a run depends on outside, with the object's own credentials. What cannot be had is a Problem."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lakeloop.adapters.delta_log_protocol import DeltaLog, TableNotFound, VersionNotFound
from lakeloop.adapters.kubernetes_protocol import Kubernetes
from lakeloop.adapters.object_store_protocol import (
    BucketNotFound,
    CredentialsRefused,
    ObjectStore,
    ObjectStores,
    StorageAccess,
    StorageError,
)
from lakeloop.adapters.tracking_protocol import (
    TrackingDenied,
    TrackingError,
    TrackingServer,
    TrackingServers,
    TrackingUnavailable,
)
from lakeloop.api.v1alpha1.defaults import STORAGE_SECRET, EffectiveIngest, EffectiveInput, tracking_secret_name
from lakeloop.api.v1alpha1.trainingjob import RunInput
from lakeloop.domain.plan import ObjectRef
from lakeloop.domain.training import ingestion
from lakeloop.domain.training.observed import Problem, SeenRun, SeenVersion, WriteManifest
from lakeloop.domain.training.situation import Situation
from lakeloop.reconcile.secrets import tracking_auth, value_of, wrong_with_storage
from lakeloop.render.errors import Unrenderable
from lakeloop.render.training.names import RUN_UID
from lakeloop.render.training.run_config import experiment
from lakeloop.render.training.storage import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, input_uri

RESULT_ARTIFACT: Final = "lakeloop/result.json"
_STORAGE_FIELD: Final = "spec.storage.secretRef"
_TRACKING_FIELD: Final = "spec.tracking.secretRef"


class ProblemFound(Exception):
    """Ends a lookup."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything outside that a run depends on."""

    kubernetes: Kubernetes
    tracking: TrackingServers
    tables: DeltaLog
    stores: ObjectStores

    async def inputs(self, sit: Situation) -> tuple[list[RunInput], list[WriteManifest]]:
        """The run's inputs, pinned now; and the manifests that must be written before. Raises ProblemFound."""
        access = await self.storage_access(sit)
        pinned: list[RunInput] = []
        missing: list[WriteManifest] = []
        loaded: dict[str, int] = {}
        for index, item in enumerate(sit.run_spec.inputs):
            try:
                uri = input_uri(index, item, sit.run_spec.storage, sit.observed.platform)
                if item.ingest is not None and loaded.setdefault(uri, index) != index:
                    # One commit per run and table: the run's uid is its mark in the log.
                    where = f"spec.inputs[{index}].ingest"
                    raise Unrenderable(where, f"spec.inputs[{loaded[uri]}] loads into {uri} already: take one away")
                if item.ingest is None:
                    pinned.append(await self._table(access, uri, item))
                else:
                    found = await self._ingestion(sit, access, uri, index, item, item.ingest)
                    (missing if isinstance(found, WriteManifest) else pinned).append(found)  # type: ignore[arg-type]
            except StorageError as error:
                raise ProblemFound(_storage_problem(error, index, item)) from error
            except Unrenderable as error:
                problem = Problem(error.reason, error.message, error.path, "Submission", heals=False)
                raise ProblemFound(problem) from error
        return pinned, missing

    async def _table(self, access: StorageAccess, uri: str, item: EffectiveInput) -> RunInput:
        found = await self.tables.resolve(access, uri, version=item.version, timestamp=item.timestamp)
        timestamp = found.timestamp.replace(microsecond=0)
        return RunInput(name=item.name, uri=uri, version=found.version, timestamp=timestamp)

    async def _ingestion(
        self,
        sit: Situation,
        access: StorageAccess,
        uri: str,
        index: int,
        item: EffectiveInput,
        ingest: EffectiveIngest,
    ) -> RunInput | WriteManifest:
        store = self.stores.connect(access)
        where = ingestion.manifest_uri(uri, sit.identity.job_uid, sit.active.uid)
        written = await store.read(where)
        if written is None:
            return await self._new_manifest(sit, access, store, uri, index, ingest)
        manifest = _manifest(written, where, index)
        base, files = manifest.get("baseVersion"), len(manifest["files"])
        # Nothing to load: the run reads the table as it is.
        version = base if not files else None
        return RunInput(name=item.name, uri=uri, base_version=base, manifest=where, files=files, version=version)

    async def _new_manifest(
        self,
        sit: Situation,
        access: StorageAccess,
        store: ObjectStore,
        uri: str,
        index: int,
        ingest: EffectiveIngest,
    ) -> WriteManifest:
        job_uid, run_uid = sit.identity.job_uid, sit.active.uid
        listed = await _listed(store, ingestion.listing_prefix(ingest.from_))
        files = ingestion.matching(ingest.from_, listed)
        try:
            base: int | None = (await self.tables.resolve(access, uri)).version
        except TableNotFound:
            base = None
        if ingest.files == "New" and base is not None:
            before = await self._manifests(store, ingestion.manifest_folder(uri, job_uid), index)
            committed = await self.tables.known_app_ids(access, uri, tuple(before))
            files = ingestion.not_yet_ingested(files, before, committed)
        if not files and base is None:
            message = f"no file matches {ingest.from_}, and there is no table at {uri} yet"
            raise ProblemFound(Problem("SourceNotFound", message, f"spec.inputs[{index}].ingest.from", "Data"))
        content = ingestion.manifest(run_uid, ingest.from_, files, base)
        return WriteManifest(ingestion.manifest_uri(uri, job_uid, run_uid), content)

    async def _manifests(self, store: ObjectStore, folder: str, index: int) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for each in await store.list(folder):
            uid = ingestion.run_uid_of(each.uri)
            content = await store.read(each.uri) if uid else None
            if uid and content:
                found[uid] = _manifest(content, each.uri, index)
        return found

    async def ingested(self, sit: Situation) -> dict[str, int]:
        """Input → version that an earlier attempt of this run committed. Raises ProblemFound."""
        access = await self.storage_access(sit)
        found: dict[str, int] = {}
        for index, each in enumerate(sit.active.inputs or ()):
            if each.manifest is None or each.version is not None:
                continue
            try:
                version = await self.tables.committed_by(access, each.uri, sit.active.uid, after=each.base_version)
            except StorageError as error:
                raise ProblemFound(_storage_problem(error, index, sit.run_spec.inputs[index])) from error
            if version is not None:
                found[each.name] = version
        return found

    async def tracked(self, sit: Situation) -> SeenRun | None:
        """The run in MLflow, where it is there. Raises ProblemFound."""
        server = await self.server(sit)
        try:
            name = experiment(sit.identity.namespace, sit.identity.job, sit.run_spec)
            found_experiment = await server.get_experiment(name)
            found = await server.find_run(found_experiment, RUN_UID, sit.active.uid) if found_experiment else None
        except TrackingError as error:
            raise ProblemFound(tracking_problem(error, "spec.tracking.experiment")) from error
        return SeenRun(found.run_id, found.experiment_id) if found else None

    async def record(self, sit: Situation) -> Mapping[str, Any] | None:
        """The result that the driver left in MLflow; None where there is none. Raises ProblemFound."""
        server = await self.server(sit)
        mlflow = sit.active.mlflow
        try:
            run = await server.get_run(mlflow.run_id) if mlflow else None
        except TrackingError as error:
            raise ProblemFound(tracking_problem(error, "spec.tracking")) from error
        if run is None or not run.artifact_uri.startswith(("s3://", "s3a://")):
            return None
        store = self.stores.connect(await self.storage_access(sit))
        try:
            content = await store.read(f"{run.artifact_uri.rstrip('/')}/{RESULT_ARTIFACT}")
            document = json.loads(content) if content else None
        except StorageError as error:
            problem = Problem(error.reason, error.message, _STORAGE_FIELD, "Infrastructure")
            raise ProblemFound(problem) from error
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, Mapping) else None

    async def version(self, sit: Situation) -> SeenVersion | None:
        """The model version that the run registered, where it did. Raises ProblemFound."""
        registration = sit.run_spec.registration
        if registration is None:
            return None
        server = await self.server(sit)
        try:
            found = await server.search_model_versions(registration.model, RUN_UID, sit.active.uid, limit=1)
            current = await server.get_model_version(registration.model, found[0].version) if found else None
        except TrackingError as error:
            raise ProblemFound(tracking_problem(error, "spec.register.model")) from error
        # A search does not tell aliases.
        return SeenVersion(current.version, current.aliases) if current else None

    async def server(self, sit: Situation) -> TrackingServer:
        """MLflow, as the object's own user where there is a Secret with one."""
        name = tracking_secret_name(sit.run_spec.tracking.secret_ref)
        return self.tracking.connect(await tracking_auth(self.kubernetes, sit.identity.namespace, name))

    async def storage_access(self, sit: Situation) -> StorageAccess:
        """The object's own credentials. Raises ProblemFound where its Secret is not there or lacks a key."""
        storage, target, namespace = sit.run_spec.storage, sit.target, sit.identity.namespace
        reference = storage.secret_ref
        name = reference.name if reference and reference.name else STORAGE_SECRET
        secret = await self.kubernetes.get(ObjectRef("v1", "Secret", namespace, name))
        if (wrong := wrong_with_storage(secret, name, namespace)) is not None:
            reason, message = wrong
            if secret is None and storage.service_account_name:
                message += "; the service account's identity is the pods' alone, and the operator reads the table's log"
            raise ProblemFound(Problem(reason, message, _STORAGE_FIELD, "Submission"))
        return StorageAccess(
            endpoint=target.endpoint,
            region=target.region,
            path_style=target.path_style,
            access_key=value_of(secret, ACCESS_KEY),
            secret_key=value_of(secret, SECRET_KEY),
            session_token=value_of(secret, SESSION_TOKEN) or None,
            ca_file=sit.observed.platform.storage_ca_file,
        )


def _manifest(content: bytes, uri: str, index: int) -> Mapping[str, Any]:
    try:
        document: Mapping[str, Any] = json.loads(content)
        if all(isinstance(each["uri"], str) and isinstance(each["etag"], str) for each in document["files"]):
            base = document.get("baseVersion")
            if base is None or (isinstance(base, int) and base >= 0):
                return document
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    # Left out, its files would be loaded once more.
    message = f"{uri} is no manifest of an ingestion: put it right, or delete it if no run has used it"
    raise ProblemFound(Problem("ManifestUnreadable", message, f"spec.inputs[{index}].ingest", "Data"))


async def _listed(store: ObjectStore, prefix: str) -> list[ingestion.SourceFile]:
    return [ingestion.SourceFile(each.uri, each.etag, each.size) for each in await store.list(prefix)]


def _storage_problem(error: StorageError, index: int, item: EffectiveInput) -> Problem:
    here = f"spec.inputs[{index}]"
    where = f"{here}.uri" if item.uri else f"{here}.table"
    if isinstance(error, VersionNotFound):
        field = f"{here}.version" if item.version is not None else f"{here}.timestamp"
        return Problem(error.reason, error.message, field, "Data")
    if isinstance(error, TableNotFound):
        return Problem(error.reason, error.message, where, "Data")
    if isinstance(error, CredentialsRefused):
        return Problem(error.reason, f"{error.message}, which {where} needs", _STORAGE_FIELD, "Submission")
    if isinstance(error, BucketNotFound):
        message = error.message if item.ingest is None else f"{error.message}, or it is that of {here}.ingest.from"
        return Problem(error.reason, message, where, "Submission")
    return Problem(error.reason, error.message, where, "Infrastructure")


def tracking_problem(error: TrackingError, field: str, *, heals: bool = True) -> Problem:
    """What MLflow's refusal means for a run. `field` is what the request was about."""
    if isinstance(error, TrackingUnavailable):
        return Problem("TrackingUnavailable", error.message, "spec.tracking", "Infrastructure")
    if isinstance(error, TrackingDenied):
        return Problem("CredentialsRefused", error.message, _TRACKING_FIELD, "Submission")
    return Problem("TrackingRefused", error.message, field, "Submission", heals=heals)
