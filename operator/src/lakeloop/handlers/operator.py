"""kopf as we use it: a watch and nothing else."""

import os
from typing import Any

import kopf


class NoDiff(kopf.DiffBaseStorage):
    """No handler of ours asks what has changed: no object is copied for it, at each event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def operator_settings() -> kopf.OperatorSettings:
    """Nothing is written by kopf: no events, no annotations, no finalizers, no peering."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = NoDiff()
    # A stream that ends now and then can move to another API server, and a silent one is found out.
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10
    # Handlers only note keys: a batch window, and workers that linger, would cost time and memory for nothing.
    settings.queueing.idle_timeout = 1.0
    settings.networking.request_timeout = 60
    return settings


def register_login(registry: kopf.OperatorRegistry) -> None:
    """By kopf's own small readers: its default ones import the synchronous Kubernetes client, at 40 MB."""

    @kopf.on.login(registry=registry, retries=10)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        if os.environ.get("KUBECONFIG") or not os.environ.get("KUBERNETES_SERVICE_HOST"):
            return kopf.login_with_kubeconfig(**kwargs)
        return kopf.login_with_service_account(**kwargs)
