"""The registry's news: by webhook where MLflow delivers it, and by looking again where it does not."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from lakeloop.adapters.kubernetes_protocol import Kubernetes, KubernetesError
from lakeloop.adapters.tracking_protocol import BasicAuth, TrackingError, TrackingServer, TrackingServers
from lakeloop.api.v1alpha1.defaults import TRACKING_SECRET
from lakeloop.reconcile.followers import Followers
from lakeloop.reconcile.protocol import Key
from lakeloop.reconcile.secrets import tracking_auth

logger = logging.getLogger(__name__)

WEBHOOK: Final = "lakeloop"
EVENTS: Final = ("model_version_alias.created", "model_version_alias.deleted", "model_version.created")
CHECK_SECONDS: Final = 300.0
RETRY_SECONDS: Final = 15.0


async def resync(followers: Followers, enqueue: Callable[[Key, float], None], seconds: float) -> None:
    """Has every ModelDeployment looked at once in each such time, not all at the same moment. Never returns."""
    while True:
        await asyncio.sleep(seconds)
        for key in followers.all():
            enqueue(key, random.random() * seconds)  # noqa: S311 - not a secret


class WebhookKeeper:
    """Keeps our webhook in MLflow, and only one."""

    def __init__(
        self, kubernetes: Kubernetes, tracking: TrackingServers, namespace: str, url: str, secret: str
    ) -> None:
        self._kubernetes = kubernetes
        self._tracking = tracking
        self._namespace = namespace
        self._url = url
        self._secret = secret
        self._made = False

    async def run(self) -> None:
        """Ensures it now and again. Never returns: a registry that is down, or has no webhooks, is tried again."""
        told = ""
        while True:
            try:
                await self.ensure(self._tracking.connect(await self._auth()))
                told, wait = "", CHECK_SECONDS
            except (TrackingError, KubernetesError) as error:
                wait = RETRY_SECONDS
                if error.message != told:
                    told = error.message
                    logger.warning("no registry webhook yet, changes are seen by looking again: %s", told)
            except Exception:
                # Without webhooks all goes on, a little slower; without this the operator would end.
                told, wait = "", RETRY_SECONDS
                logger.exception("the registry webhook could not be looked after")
            await asyncio.sleep(wait)

    async def _auth(self) -> BasicAuth | None:
        try:
            return await tracking_auth(self._kubernetes, self._namespace, TRACKING_SECRET)
        except KubernetesError as error:
            # An operator for some namespaces need not read the Secrets of its own.
            if error.status != 403:
                raise
            return None

    async def ensure(self, server: TrackingServer) -> None:
        """One webhook of ours, with our address, events and secret. Raises TrackingError.

        MLflow does not give a secret back, so that the first time a webhook is made anew: a secret that has changed
        would have every delivery refused.
        """
        ours = [each for each in await server.list_webhooks() if each.name == WEBHOOK]
        good = [each for each in ours if each.url == self._url and set(each.events) == set(EVENTS) and each.active]
        keep = good[0].id if good and self._made else None
        if keep is None:
            keep = (await server.create_webhook(WEBHOOK, self._url, EVENTS, self._secret)).id
            self._made = True
            logger.info("registry webhook to %s made", self._url)
        for each in ours:
            if each.id != keep:
                await server.delete_webhook(each.id)
