"""Reads what a run depends on outside, with the object's own credentials. What cannot be had is a Problem."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lakeloop.adapters.delta_log_protocol import DeltaLog, TableNotFound, VersionNotFound
from lakeloop.adapters.kubernetes_protocol import Kubernetes
from lakeloop.adapters.object_store_protocol import (
    BucketNotFound,
    CredentialsRefused,
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
from lakeloop.api.v1alpha1.defaults import STORAGE_SECRET, EffectiveInput, tracking_secret_name
from lakeloop.api.v1alpha1.trainingjob import KIND
from lakeloop.domain.plan import Manifest, ObjectRef
from lakeloop.domain.training import triggers
from lakeloop.domain.training.gates import champion_alias
from lakeloop.domain.training.logs import unsettled
from lakeloop.domain.training.observed import (
    NewCommits,
    Problem,
    SeenChampion,
    SeenLogs,
    SeenVersion,
)
from lakeloop.domain.training.situation import Situation
from lakeloop.reconcile.protocol import Key
from lakeloop.reconcile.secrets import CaWrong, RecentSecrets, ca_of, user_in, value_of, wrong_with_storage
from lakeloop.reconcile.table_watch import TableWatch
from lakeloop.render.errors import Unrenderable
from lakeloop.render.training.names import DIGEST, RUN_UID
from lakeloop.render.training.script import FIELD as SCRIPT_FIELD
from lakeloop.render.training.script import ScriptFiles, files_of
from lakeloop.render.training.storage import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, own_ca

RESULT_ARTIFACT: Final = "lakeloop/result.json"
_MARKER: Final = re.compile(r"((?:driver|executor)-[0-9-]+)\.json")
_LARGEST_MARKER: Final = 4096
_MOST_MARKERS: Final = 2000
_STORAGE_FIELD: Final = "spec.storage.secretRef"
_CA_FIELD: Final = "spec.storage.caSecretRef"
_TRACKING_FIELD: Final = "spec.tracking.secretRef"

logger = logging.getLogger(__name__)


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
    secrets: RecentSecrets
    _secrets: dict[str, Manifest | None] = field(default_factory=dict)

    def for_one_pass(self) -> "Sources":
        """The same, which reads each Secret once."""
        return replace(self, _secrets={})

    async def _secret(self, sit: Situation, name: str) -> Manifest | None:
        if name not in self._secrets:
            namespace = sit.observed.job.metadata.namespace
            self._secrets[name] = await self.secrets.get(namespace, name)
        return self._secrets[name]

    async def commits(self, sit: Situation, watch: TableWatch) -> NewCommits:
        """What was committed to the delta trigger's table since the last run. Raises ProblemFound."""
        index, uri = 0, ""
        try:
            found = triggers.table(sit)
            if found is None:
                told = "no input has this name: write one of spec.inputs"
                raise ProblemFound(Problem("InvalidSpec", told, "spec.triggers.delta.input", "Submission"))
            index, uri = found
            access = await self.storage_access(sit)
            return await watch.look(key_of(sit), access, uri, triggers.baseline(sit, uri))
        except StorageError as error:
            raise ProblemFound(storage_problem(error, index, sit.spec.inputs[index])) from error
        except Unrenderable as error:
            raise ProblemFound(Problem(error.reason, error.message, error.path, "Submission")) from error

    async def script(self, sit: Situation) -> ScriptFiles:
        """The files of the ConfigMap that the script is in. Raises ProblemFound."""
        script, namespace = sit.run_spec.script, sit.identity.namespace
        if script is None or script.config_map_ref is None:
            raise ValueError("the run has no script in a ConfigMap")
        name = script.config_map_ref.name
        found = await self.kubernetes.get(ObjectRef("v1", "ConfigMap", namespace, name))
        if found is None:
            message = f"there is no ConfigMap {name} in namespace {namespace}: make it, with the key {script.path}"
            raise ProblemFound(Problem("ScriptNotFound", message, SCRIPT_FIELD, "Submission"))
        files = files_of(found)
        if not files.holds(script.path):
            there = ", ".join(files.names[:10]) or "none"
            message = f"ConfigMap {name} has no key {script.path}, which spec.script.path names; its keys: {there}"
            raise ProblemFound(Problem("ScriptNotFound", message, SCRIPT_FIELD, "Submission"))
        return files

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

    async def logs(self, sit: Situation) -> SeenLogs:
        """What the sidecars of the finished run say of its logs; unknown where the store cannot be asked."""
        run = unsettled(sit)
        if run is None or run.logs is None or run.logs.uri is None:
            return SeenLogs(None)
        try:
            store = self.stores.connect(await self.storage_access(sit))
            found: dict[str, bool] = {}
            for each in await store.list(f"{run.logs.uri}/"):
                match = _MARKER.fullmatch(each.uri.removeprefix(f"{run.logs.uri}/"))
                if match and len(found) < _MOST_MARKERS:
                    content = await store.read(each.uri) if each.size <= _LARGEST_MARKER else None
                    found[match[1]] = _says_complete(content)
        except (StorageError, ProblemFound) as error:
            logger.info("the logs of run %s cannot be looked at: %s", run.number, error)
            return SeenLogs(None)
        return SeenLogs(found)

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

    async def champion(self, sit: Situation) -> SeenChampion | None:
        """The version that has the champion's alias now. Raises ProblemFound."""
        wanted = champion_alias(sit.run_spec)
        if wanted is None:
            return None
        server = await self.server(sit)
        try:
            found = await server.get_model_version_by_alias(*wanted)
        except TrackingError as error:
            raise ProblemFound(tracking_problem(error, "spec.evaluation.champion.alias")) from error
        if found is None:
            return None
        return SeenChampion(found.name, found.version, found.source, found.tags.get(DIGEST))

    async def server(self, sit: Situation) -> TrackingServer:
        """MLflow, as the object's own user where there is a Secret with one."""
        name = tracking_secret_name(sit.run_spec.tracking.secret_ref)
        return self.tracking.connect(user_in(await self._secret(sit, name)))

    async def storage_ca(self, sit: Situation) -> str | None:
        """The certificates that the object names for its store. Raises ProblemFound where they cannot be had."""
        reference = own_ca(sit.run_spec.storage)
        if reference is None or sit.observed.storage_ca is not None:
            return sit.observed.storage_ca
        namespace = sit.observed.job.metadata.namespace
        try:
            return ca_of(await self._secret(sit, reference.name or ""), reference, namespace)
        except CaWrong as wrong:
            raise ProblemFound(Problem(wrong.reason, wrong.message, _CA_FIELD, "Submission")) from wrong

    async def storage_access(self, sit: Situation) -> StorageAccess:
        """The object's own credentials. Raises ProblemFound where its Secret is not there or lacks a key."""
        storage, target, namespace = sit.run_spec.storage, sit.target, sit.observed.job.metadata.namespace
        reference = storage.secret_ref
        name = reference.name if reference and reference.name else STORAGE_SECRET
        secret = await self._secret(sit, name)
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
            ca=await self.storage_ca(sit),
        )


def key_of(sit: Situation) -> Key:
    """The object's place in the queue."""
    meta = sit.observed.job.metadata
    return Key(KIND, meta.namespace, meta.name)


def _says_complete(content: bytes | None) -> bool:
    """Anyone who may write to the bucket can have written it."""
    try:
        document = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return False
    return isinstance(document, Mapping) and document.get("complete") is True


def storage_problem(error: StorageError, index: int, item: EffectiveInput) -> Problem:
    """What the store's refusal of an input means for a run."""
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
