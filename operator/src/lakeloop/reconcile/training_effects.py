"""Writes of a TrainingJob's plan outside Kubernetes. Each looks first whether it is done already."""

import json
import logging

from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.adapters.object_store_protocol import StorageError
from lakeloop.adapters.tracking_protocol import TrackingError, TrackingServer
from lakeloop.domain.plan import Effect
from lakeloop.domain.training.observed import (
    DryRun,
    EndRun,
    EnsureRun,
    Problem,
    RegisterVersion,
    SetAlias,
    WriteManifest,
)
from lakeloop.domain.training.situation import Situation
from lakeloop.reconcile.apply import ManifestRefused, NameTaken
from lakeloop.reconcile.training_lookups import ProblemFound, Sources, tracking_problem
from lakeloop.render.training.names import DRIVER, RUN_UID

logger = logging.getLogger(__name__)
_INVALID = frozenset({400, 413, 422})


class TrainingEffects:
    """Runs the effects of one plan. Raises ProblemFound for what the cluster or MLflow refuses."""

    def __init__(self, sources: Sources, sit: Situation) -> None:
        self._sources = sources
        self._sit = sit

    async def __call__(self, effect: Effect) -> None:
        try:
            await self._run(effect)
        except TrackingError as error:
            if isinstance(effect, EndRun) and effect.best_effort:
                logger.warning("the MLflow run %s could not be ended: %s", effect.run_id, error.message)
                return
            field = "spec.register" if isinstance(effect, RegisterVersion | SetAlias) else "spec.tracking.experiment"
            # A name that the registry does not take is not taken later either.
            heals = not isinstance(effect, RegisterVersion | SetAlias)
            raise ProblemFound(tracking_problem(error, field, heals=heals)) from error
        except StorageError as error:
            problem = Problem(error.reason, error.message, "spec.storage.secretRef", "Submission")
            raise ProblemFound(problem) from error

    async def _run(self, effect: Effect) -> None:
        match effect:
            case WriteManifest():
                store = self._sources.stores.connect(await self._sources.storage_access(self._sit))
                await store.write_if_absent(effect.uri, json.dumps(effect.content).encode())
            case DryRun():
                await self._dry_run(effect)
            case EnsureRun():
                await ensure_run(await self._sources.server(self._sit), effect)
            case EndRun():
                server = await self._sources.server(self._sit)
                await server.end_run(effect.run_id, effect.status, int(effect.ended.timestamp() * 1000))
            case RegisterVersion():
                await register(await self._sources.server(self._sit), effect)
            case SetAlias():
                server = await self._sources.server(self._sit)
                await server.set_alias(effect.model, effect.alias, effect.version)
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


async def ensure_run(server: TrackingServer, effect: EnsureRun) -> None:
    """One MLflow run per run uid."""
    experiment_id = await server.ensure_experiment(effect.experiment)
    if await server.find_run(experiment_id, RUN_UID, effect.uid) is None:
        started = int(effect.started.timestamp() * 1000)
        await server.create_run(experiment_id, effect.name, started, effect.tags)


async def register(server: TrackingServer, effect: RegisterVersion) -> None:
    """One model version per run uid."""
    await server.ensure_registered_model(effect.model)
    if not await server.search_model_versions(effect.model, RUN_UID, effect.run_uid, limit=1):
        await server.create_model_version(
            effect.model, effect.source, effect.run_id, effect.model_id, effect.description, effect.tags
        )


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
