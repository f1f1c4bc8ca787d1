"""Writes of a TrainingJob's plan outside Kubernetes. Each looks first whether it is done already."""

import asyncio
import json
import logging

from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.adapters.object_store_protocol import StorageError, StorageFull, StorageUnavailable
from lakeloop.adapters.tracking_protocol import TrackedRun, TrackingError, TrackingServer
from lakeloop.domain.plan import Effect
from lakeloop.domain.training.observed import (
    DryRun,
    EndRun,
    EnsureRun,
    Problem,
    RegisterVersion,
    SeenRun,
    SetAlias,
    TagRun,
    TagVersion,
    WriteManifest,
)
from lakeloop.domain.training.situation import Situation
from lakeloop.reconcile.apply import ManifestRefused, NameTaken
from lakeloop.reconcile.training_lookups import ProblemFound, Sources, tracking_problem
from lakeloop.render.training.names import DRIVER, RUN_UID

logger = logging.getLogger(__name__)
_INVALID = frozenset({400, 413, 422})
_ALIAS_LOCK = asyncio.Lock()


class TrainingEffects:
    """Runs the effects of one plan. Raises ProblemFound for what the cluster or MLflow refuses."""

    def __init__(self, sources: Sources, sit: Situation) -> None:
        self._sources = sources
        self._sit = sit
        self.tracked: SeenRun | None = None
        """The run in MLflow, where an effect made it or found it."""

    async def __call__(self, effect: Effect) -> None:
        try:
            await self._run(effect)
        except TrackingError as error:
            if isinstance(effect, EndRun) and effect.best_effort:
                logger.warning("the MLflow run %s could not be ended: %s", effect.run_id, error.message)
                return
            if isinstance(effect, TagRun):
                logger.warning("the MLflow run %s has no tag %s: %s", effect.run_id, effect.key, error.message)
                return
            field = "spec.register" if isinstance(effect, RegisterVersion | SetAlias) else "spec.tracking.experiment"
            # A name that the registry does not take is not taken later either.
            heals = not isinstance(effect, RegisterVersion | SetAlias)
            raise ProblemFound(tracking_problem(error, field, heals=heals)) from error
        except StorageError as error:
            raise ProblemFound(_storage_problem(error)) from error

    async def _run(self, effect: Effect) -> None:
        match effect:
            case WriteManifest():
                store = self._sources.stores.connect(await self._sources.storage_access(self._sit))
                await store.write_if_absent(effect.uri, json.dumps(effect.content).encode())
            case DryRun():
                await self._dry_run(effect)
            case EnsureRun():
                made = await ensure_run(await self._sources.server(self._sit), effect)
                self.tracked = SeenRun(made.run_id, made.experiment_id, made.artifact_uri)
            case TagRun():
                server = await self._sources.server(self._sit)
                await server.set_run_tag(effect.run_id, effect.key, effect.value)
            case EndRun():
                await end_run(await self._sources.server(self._sit), effect)
            case RegisterVersion():
                await register(await self._sources.server(self._sit), effect)
            case SetAlias():
                await set_alias(await self._sources.server(self._sit), effect)
            case TagVersion():
                server = await self._sources.server(self._sit)
                for key, value in effect.tags.items():
                    await server.set_model_version_tag(effect.model, effect.version, key, value)
            case _:
                raise TypeError(f"a TrainingJob's plan holds {type(effect).__name__}, which is no effect of its own")

    async def _dry_run(self, effect: DryRun) -> None:
        try:
            await self._sources.kubernetes.apply(effect.manifest, dry_run=True)
        except KubernetesError as error:
            if error.status not in (_INVALID | {403}):
                raise
            problem = Problem("TemplateRefused", error.detail, effect.field, "Submission", heals=False)
            raise ProblemFound(problem) from error


def _storage_problem(error: StorageError) -> Problem:
    if isinstance(error, StorageFull | StorageUnavailable):
        return Problem(error.reason, error.message, "spec.storage", "Infrastructure")
    return Problem(error.reason, error.message, "spec.storage.secretRef", "Submission")


async def ensure_run(server: TrackingServer, effect: EnsureRun) -> TrackedRun:
    """One MLflow run per run uid."""
    experiment_id = await server.ensure_experiment(effect.experiment)
    found = None if effect.new else await server.find_run(experiment_id, RUN_UID, effect.uid)
    started = int(effect.started.timestamp() * 1000)
    return found or await server.create_run(experiment_id, effect.name, started, effect.tags)


async def end_run(server: TrackingServer, effect: EndRun) -> None:
    """Ends the run, and before it what a driver that died has left open in it."""
    ended = int(effect.ended.timestamp() * 1000)
    if effect.nested_in is not None:
        for child in await server.open_children(effect.nested_in, effect.run_id):
            await server.end_run(child, "KILLED", ended)
    await server.end_run(effect.run_id, effect.status, ended)


async def register(server: TrackingServer, effect: RegisterVersion) -> None:
    """One model version per run uid."""
    await server.ensure_registered_model(effect.model)
    if not await server.search_model_versions(effect.model, RUN_UID, effect.run_uid, limit=1):
        await server.create_model_version(
            effect.model, effect.source, effect.run_id, effect.model_id, effect.description, effect.tags
        )


async def set_alias(server: TrackingServer, effect: SetAlias) -> None:
    """Moves the alias. Raises ProblemFound where it is guarded and was moved meanwhile.

    MLflow has no compare-and-set. Of two jobs in this process only one is between its look and its move.
    """
    if not effect.guarded:
        await server.set_alias(effect.model, effect.alias, effect.version)
        return
    async with _ALIAS_LOCK:
        found = await server.get_model_version_by_alias(effect.model, effect.alias)
        now = found.version if found is not None else None
        if now == effect.version:
            return
        if now != effect.instead_of:
            message = f"alias {effect.alias} of {effect.model} was moved to version {now} meanwhile"
            raise ProblemFound(Problem("AliasMoved", message, "spec.evaluation.champion", "Infrastructure"))
        await server.set_alias(effect.model, effect.alias, effect.version)


def refusal_of(error: ManifestRefused, sit: Situation) -> Problem:
    """What the API server's refusal of a manifest means for the run."""
    message = error.detail
    is_driver = error.manifest["kind"] == "Pod" and error.manifest["metadata"]["name"].endswith(f"-{DRIVER}")
    template = sit.run_spec.spark.driver.template if is_driver and sit.run is not None else {}
    if isinstance(error, NameTaken):
        return Problem("NameTaken", message, "metadata.name", "Submission")
    if error.status == 403 and "exceeded quota" in message:
        return Problem("QuotaExceeded", message, "spec.spark", "Submission")
    if template and error.status in (_INVALID | {403}):
        return Problem("TemplateRefused", message, "spec.spark.driver.template", "Submission", heals=False)
    # A policy, a role or a namespace can be put right while the run waits; what is invalid stays so.
    return Problem("SubmissionRefused", message, "spec.spark", "Submission", heals=error.status not in _INVALID)
