"""Pins a run's inputs: a version of each table, or the files that a run is to load into it."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lakeloop.adapters.delta_log_protocol import TableNotFound
from lakeloop.adapters.object_store_protocol import ObjectStore, StorageAccess, StorageError
from lakeloop.api.v1alpha1.defaults import EffectiveIngest, EffectiveInput
from lakeloop.api.v1alpha1.trainingjob import RunInput
from lakeloop.domain.training import ingestion
from lakeloop.domain.training.observed import Problem, WriteManifest
from lakeloop.domain.training.retention import vacuum_problem
from lakeloop.domain.training.situation import Situation
from lakeloop.reconcile.training_lookups import ProblemFound, Sources, storage_problem
from lakeloop.render.errors import Unrenderable
from lakeloop.render.training.storage import input_uri


async def pinned_inputs(sources: Sources, sit: Situation) -> tuple[list[RunInput], list[WriteManifest]]:
    """The run's inputs, pinned now; and the manifests that must be written before. Raises ProblemFound."""
    access = await sources.storage_access(sit)
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
                pinned.append(await _table(sources, sit, access, uri, index, item))
            else:
                found = await _ingestion(sources, sit, access, uri, index, item, item.ingest)
                if isinstance(found, WriteManifest):
                    missing.append(found)
                else:
                    pinned.append(found)
        except StorageError as error:
            raise ProblemFound(storage_problem(error, index, item)) from error
        except Unrenderable as error:
            problem = Problem(error.reason, error.message, error.path, "Submission", heals=False)
            raise ProblemFound(problem) from error
    return pinned, missing


async def _table(
    sources: Sources, sit: Situation, access: StorageAccess, uri: str, index: int, item: EffectiveInput
) -> RunInput:
    found = await sources.tables.resolve(access, uri, version=item.version, timestamp=item.timestamp)
    if item.version is not None or item.timestamp is not None:  # of the latest version nothing was removed
        await _not_vacuumed(sources, sit, access, uri, index, item, found.version)
    timestamp = found.timestamp.replace(microsecond=0)
    return RunInput(name=item.name, uri=uri, version=found.version, timestamp=timestamp)


async def _not_vacuumed(
    sources: Sources, sit: Situation, access: StorageAccess, uri: str, index: int, item: EffectiveInput, version: int
) -> None:
    """Raises ProblemFound where VACUUM has taken the version, or may take it before the run's deadline."""
    gone = await sources.tables.removed_since(access, uri, version)
    if gone is None:
        return
    deadline = sit.now + timedelta(seconds=sit.spec.run_policy.active_deadline_seconds)
    wrong = vacuum_problem(uri, version, gone.by, gone.at, gone.there, gone.retention, deadline)
    if wrong is not None:
        field = f"spec.inputs[{index}].{'version' if item.version is not None else 'timestamp'}"
        raise ProblemFound(Problem(*wrong, field, "Data", heals=False))


async def _ingestion(
    sources: Sources,
    sit: Situation,
    access: StorageAccess,
    uri: str,
    index: int,
    item: EffectiveInput,
    ingest: EffectiveIngest,
) -> RunInput | WriteManifest:
    store = sources.stores.connect(access)
    where = ingestion.manifest_uri(uri, sit.identity.job_uid, sit.active.uid)
    written = await store.read(where)
    if written is None:
        return await _new_manifest(sources, sit, access, store, uri, index, ingest)
    manifest = _manifest(written, where, index)
    base, files = manifest.get("baseVersion"), len(manifest["files"])
    # Nothing to load: the run reads the table as it is.
    version = base if not files else None
    return RunInput(name=item.name, uri=uri, base_version=base, manifest=where, files=files, version=version)


async def _new_manifest(
    sources: Sources,
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
        base: int | None = (await sources.tables.resolve(access, uri)).version
    except TableNotFound:
        base = None
    if ingest.files == "New" and base is not None:
        before = await _manifests(store, ingestion.manifest_folder(uri, job_uid), index)
        committed = await sources.tables.known_app_ids(access, uri, tuple(before))
        files = ingestion.not_yet_ingested(files, before, committed)
    if not files and base is None:
        message = f"no file matches {ingest.from_}, and there is no table at {uri} yet"
        raise ProblemFound(Problem("SourceNotFound", message, f"spec.inputs[{index}].ingest.from", "Data"))
    content = ingestion.manifest(run_uid, ingest.from_, files, base)
    return WriteManifest(ingestion.manifest_uri(uri, job_uid, run_uid), content)


async def _manifests(store: ObjectStore, folder: str, index: int) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for each in await store.list(folder):
        uid = ingestion.run_uid_of(each.uri)
        content = await store.read(each.uri) if uid else None
        if uid and content:
            found[uid] = _manifest(content, each.uri, index)
    return found


async def ingested_versions(sources: Sources, sit: Situation) -> dict[str, int]:
    """Input → version that an earlier attempt of this run committed. Raises ProblemFound."""
    access = await sources.storage_access(sit)
    found: dict[str, int] = {}
    for index, each in enumerate(sit.active.inputs or ()):
        if each.manifest is None or each.version is not None:
            continue
        try:
            version = await sources.tables.committed_by(access, each.uri, sit.active.uid, after=each.base_version)
        except StorageError as error:
            raise ProblemFound(storage_problem(error, index, sit.run_spec.inputs[index])) from error
        if version is not None:
            found[each.name] = version
    return found


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
