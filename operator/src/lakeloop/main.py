"""The operator's process: puts the parts together, and decides when it ends.

Probes, metrics and the webhook's address are up first; then it waits for the Lease; only then is anything watched.
Exit codes: 0 after SIGTERM, 1 when the Lease is lost or a part has failed, 2 when the environment is wrong.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import kopf

from lakeloop.adapters import logs, nesting
from lakeloop.adapters.clock import SystemClock
from lakeloop.adapters.delta_log import S3DeltaLog
from lakeloop.adapters.http_server import HttpServer
from lakeloop.adapters.kubernetes import KubernetesApi, load_configuration
from lakeloop.adapters.kubernetes_protocol import KubernetesError
from lakeloop.adapters.leader import LeaderElector
from lakeloop.adapters.metrics import Metrics
from lakeloop.adapters.object_store import S3Stores
from lakeloop.adapters.servers import HttpModelServers
from lakeloop.adapters.tracking import MlflowServers
from lakeloop.adapters.webhook import Inbox, RegistryChange
from lakeloop.api.v1alpha1 import API_VERSION
from lakeloop.domain.plan import Event, ObjectRef
from lakeloop.handlers import children, modeldeployment, operator, trainingjob
from lakeloop.reconcile.apply import reference
from lakeloop.reconcile.followers import AliasMoves, Followers
from lakeloop.reconcile.modeldeployment import ModelDeploymentReconciler
from lakeloop.reconcile.protocol import Key, Reconciler
from lakeloop.reconcile.queue import WorkQueue
from lakeloop.reconcile.registry import WebhookKeeper, resync
from lakeloop.reconcile.runtime import Runtime
from lakeloop.reconcile.table_watch import TableWatch
from lakeloop.reconcile.trainingjob import TrainingJobReconciler
from lakeloop.render.certificates import as_pem, certificates
from lakeloop.render.training.names import Platform
from lakeloop.settings import Settings, SettingsError, numeric_level

logger = logging.getLogger(__name__)

LARGEST_CA_BYTES = 256 * 1024
"""The store's CA is copied into ConfigMaps, which hold 1 MiB."""
SECRET_SECONDS = 2.0
"""Less than any pass waits for a Secret that is to be put right."""
STOP_SECONDS = 10.0
"""How long parts have to end; the pod has 30 s."""


def main() -> None:
    """The command `lakeloop-operator`."""
    try:
        settings = with_storage_ca(Settings.from_env(os.environ))
        secret = webhook_secret(settings)
    except SettingsError as error:
        print(f"lakeloop-operator: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if settings.storage_ca_file is not None:
        # deltalake takes a CA by no other way. Python's own contexts are made already, or name their CA themselves.
        os.environ.setdefault("SSL_CERT_FILE", str(settings.storage_ca_file))
    logs.configure(numeric_level(settings), settings.log_format)
    nesting.take_what_the_api_server_takes()
    # What was imported stays for good, and what a pass makes has few cycles: neither is worth a look each time.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    raise SystemExit(asyncio.run(run(settings, secret)))


def webhook_secret(settings: Settings) -> bytes | None:
    """What MLflow signs with. Raises SettingsError where the file cannot be used."""
    path = settings.webhook_secret_file
    if path is None:
        return None
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError("LAKELOOP_WEBHOOK_SECRET_FILE", f"cannot read {path}: {error.strerror}") from None
    if not secret:
        raise SettingsError("LAKELOOP_WEBHOOK_SECRET_FILE", f"{path} is empty; put the shared secret into it")
    try:
        secret.decode()
    except UnicodeDecodeError:
        raise SettingsError(
            "LAKELOOP_WEBHOOK_SECRET_FILE", f"{path} is not text; MLflow takes text as a secret"
        ) from None
    return secret


def with_storage_ca(settings: Settings) -> Settings:
    """With the certificates that pods are given. Raises SettingsError where there are none in the file."""
    path = settings.storage_ca_file
    if path is None:
        return settings
    variable = "LAKELOOP_STORAGE_CA_FILE"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(variable, f"cannot read {path}: {error.strerror}") from None
    if len(content) > LARGEST_CA_BYTES:
        raise SettingsError(
            variable, f"{path} has {len(content)} bytes; write the store's own CA alone, at most {LARGEST_CA_BYTES}"
        )
    try:
        found = certificates(content.decode(errors="replace"))
    except ValueError as error:
        raise SettingsError(variable, f"{path} holds no certificate in PEM form: {error}") from None
    return replace(settings, storage_ca=as_pem(found))


def platform_of(settings: Settings) -> Platform:
    """What a run's pods are told of the world around them."""
    return Platform(
        tracking_uri=settings.tracking_uri,
        tracking_ui_url=settings.tracking_ui_url,
        storage_endpoint=settings.storage_endpoint,
        storage_region=settings.storage_region,
        storage_path_style=settings.storage_path_style,
        storage_ca_file=str(settings.storage_ca_file) if settings.storage_ca_file else None,
        storage_ca=settings.storage_ca,
        warehouse=settings.storage_warehouse,
        trainer_image=settings.trainer_image,
        image_pull_policy=settings.image_pull_policy,
    )


async def run(settings: Settings, secret: bytes | None) -> int:
    """The whole life of the process. Returns its exit code."""
    metrics, health = Metrics(), _Health()
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with AsyncExitStack() as stack:
        try:
            configuration = await load_configuration()
        except KubernetesError as error:
            logger.error("no way to the Kubernetes API: %s", error)
            return 1
        api = await stack.enter_async_context(KubernetesApi(configuration, reporter=settings.pod_name))
        http = await stack.enter_async_context(
            HttpServer(
                port=settings.http_port,
                metrics=metrics,
                clock=SystemClock(),
                problems=health.problems,
                ready=api.ready,
                inbox=Inbox(secret) if secret else None,
            )
        )
        elector = LeaderElector(api, settings.namespace, settings.pod_name) if settings.leader_election else None
        if elector is not None and not await _first(elector.acquire(), stopped):
            return 0
        metrics.leader.set(1)
        try:
            return await _Leader(settings, api, http, metrics, health, stack).run(elector, secret, stopped)
        finally:
            metrics.leader.set(0)
            http.on_change = None
            if elector is not None:
                await elector.release()


@dataclass(slots=True)
class _Health:
    """What `/healthz` asks, before and after there is a runtime."""

    runtime: Runtime | None = None

    def problems(self) -> list[str]:
        return self.runtime.problems() if self.runtime else []


async def _first(waiting: Coroutine[Any, Any, None], stopped: asyncio.Event) -> bool:
    """Whether it was done before the process was told to stop."""
    work, stop = asyncio.create_task(waiting), asyncio.create_task(stopped.wait())
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    done = work.done()
    await _end([work, stop])
    if done:
        work.result()
    return done


class _Leader:
    """The parts that only the leader has."""

    def __init__(
        self,
        settings: Settings,
        api: KubernetesApi,
        http: HttpServer,
        metrics: Metrics,
        health: _Health,
        stack: AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._api = api
        self._http = http
        self._metrics = metrics
        self._followers = Followers()
        self._moves = AliasMoves()
        self._queue: WorkQueue[Key] = WorkQueue()
        stores = S3Stores()
        stack.callback(stores.close)
        self._stores, self._tables = stores, S3DeltaLog(stores)
        self._tables_watched = TableWatch(self._tables, SystemClock(), settings.delta_poll_seconds)
        self._tracking = MlflowServers(settings.tracking_uri)
        stack.push_async_callback(self._tracking.close)
        self._runtime = Runtime(
            self._queue, self._reconcilers(stack), metrics, workers=settings.workers, complain=self._complain
        )
        health.runtime = self._runtime
        metrics.watch_depth(self._queue.depth)

    def _reconcilers(self, stack: AsyncExitStack) -> dict[str, Reconciler]:
        servers = HttpModelServers()
        stack.push_async_callback(servers.close)
        clock = SystemClock()
        return {
            "TrainingJob": TrainingJobReconciler(
                self._api,
                self._tracking,
                self._tables,
                self._stores,
                clock,
                platform_of(self._settings),
                self._metrics,
                watch=self._tables_watched,
                secret_seconds=SECRET_SECONDS,
            ),
            "ModelDeployment": ModelDeploymentReconciler(
                self._api, self._tracking, servers, clock, self._settings, self._metrics, self._moves
            ),
        }

    async def run(self, elector: LeaderElector | None, secret: bytes | None, stopped: asyncio.Event) -> int:
        """Until SIGTERM (0), or until the Lease is lost or a part fails (1)."""
        kopf_stop = asyncio.Event()
        parts: dict[str, asyncio.Task[Any]] = {
            "watch": asyncio.create_task(self._watch(kopf_stop)),
            "workers": asyncio.create_task(self._runtime.run()),
            "resync": asyncio.create_task(
                resync(self._followers, self._queue.add, self._settings.registry_resync_seconds)
            ),
            "tables": asyncio.create_task(self._tables_watched.run(self._enqueue)),
            "stop": asyncio.create_task(stopped.wait()),
        }
        if elector is not None:
            parts["lease"] = asyncio.create_task(elector.hold())
        if secret and self._settings.webhook_url:
            keeper = WebhookKeeper(
                self._api, self._tracking, self._settings.namespace, self._settings.webhook_url, secret.decode()
            )
            parts["webhook"] = asyncio.create_task(keeper.run())
        self._http.on_change = self._changed
        await asyncio.wait(parts.values(), return_when=asyncio.FIRST_COMPLETED)
        code = self._exit_code(parts)
        kopf_stop.set()
        # What is in work is broken off: the next pass, here or elsewhere, goes on from what is there.
        await _end([task for name, task in parts.items() if name != "watch"])
        await asyncio.wait({parts["watch"]}, timeout=STOP_SECONDS)
        await _end([parts["watch"]])
        return code

    def _exit_code(self, parts: dict[str, asyncio.Task[Any]]) -> int:
        # kopf takes the signals over, ends by itself, and cancels what tasks it finds: that is no failure.
        ended = {name: task for name, task in parts.items() if task.done() and not task.cancelled()}
        failed = {name: error for name, task in ended.items() if (error := task.exception()) is not None}
        for name, error in failed.items():
            logger.error("part %r has failed", name, exc_info=error)
        return 1 if failed or "lease" in ended or not ended.keys() & {"stop", "watch"} else 0

    async def _watch(self, stop: asyncio.Event) -> None:
        registry, settings = kopf.OperatorRegistry(), operator.operator_settings()
        operator.register_login(registry)
        trainingjob.register(registry, self._enqueue, self._api.wrote)
        modeldeployment.register(registry, self._enqueue, self._followers)
        children.register(registry, settings, self._enqueue)
        namespaces = self._settings.watch_namespaces
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop,
        )

    async def _complain(self, key: Key, message: str) -> None:
        obj = await self._api.get(ObjectRef(API_VERSION, key.kind, key.namespace, key.name))
        if obj is not None:
            await self._api.emit(reference(obj), Event("Warning", "ReconcileFailed", message))

    def _enqueue(self, key: Key) -> None:
        self._queue.add(key)

    def _changed(self, change: RegistryChange) -> None:
        if change.alias is not None and change.version is not None:
            self._moves.note(change.model, change.alias, change.version, change.time)
        keys = self._followers.of(change.model)
        logger.info("the registry tells of a change to model %s, which %d objects follow", change.model, len(keys))
        for key in keys:
            self._queue.add(key)


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
