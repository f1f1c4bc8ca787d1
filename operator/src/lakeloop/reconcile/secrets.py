"""Secrets that an object names: what is in them, and what is wrong with them."""

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from lakeloop.adapters.kubernetes_protocol import Kubernetes
from lakeloop.adapters.tracking_protocol import BasicAuth
from lakeloop.api.v1alpha1.common import CaSecretReference
from lakeloop.domain.plan import ObjectRef
from lakeloop.render.certificates import CA_KEY, as_pem, certificates
from lakeloop.render.training.storage import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN

Secret = Mapping[str, Any]
LARGEST_CA: Final = 256 * 1024
"""It is copied into ConfigMaps, which hold 1 MiB."""
_NEEDED: Final = (ACCESS_KEY, SECRET_KEY)


def value_of(secret: Secret | None, key: str) -> str:
    """As pods get it; empty where it is not there."""
    try:
        return base64.b64decode(((secret or {}).get("data") or {}).get(key) or "").decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""


class RecentSecrets:
    """Secrets as they were a moment ago: of hundreds of jobs that start in a namespace, each needs the same two.

    None is kept for longer than `seconds`, so that one that is put right or renewed is seen by the next look.
    """

    def __init__(self, kubernetes: Kubernetes, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._kubernetes = kubernetes
        self._seconds = seconds
        self._now = now
        self._read: dict[tuple[str, str], tuple[float, Secret | None]] = {}

    async def get(self, namespace: str, name: str) -> Secret | None:
        """None where there is none of that name."""
        began = self._now()
        self._read = {key: each for key, each in self._read.items() if began - each[0] < self._seconds}
        if (namespace, name) in self._read:
            return self._read[namespace, name][1]
        found = await self._kubernetes.get(ObjectRef("v1", "Secret", namespace, name))
        self._read[namespace, name] = began, found
        return found


async def tracking_auth(kubernetes: Kubernetes, namespace: str, name: str) -> BasicAuth | None:
    """The user in the Secret of that name; see `user_in`."""
    return user_in(await kubernetes.get(ObjectRef("v1", "Secret", namespace, name)))


def user_in(secret: Secret | None) -> BasicAuth | None:
    """The user in the Secret (`MLFLOW_TRACKING_USERNAME`, `…_PASSWORD`); None where it, or the name, is not there."""
    username, password = (value_of(secret, f"MLFLOW_TRACKING_{key}") for key in ("USERNAME", "PASSWORD"))
    return BasicAuth(username, password) if username else None


class CaWrong(Exception):
    """`storage.caSecretRef` gives no certificates. `reason` is part of the API."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def ca_of(secret: Secret | None, reference: CaSecretReference, namespace: str) -> str:
    """The certificates in the Secret, PEM, and nothing else that is in it. Raises CaWrong."""
    name, key = reference.name or "", reference.key or CA_KEY
    if secret is None:
        raise CaWrong("SecretNotFound", f"there is no Secret {name} in namespace {namespace}: make it, with {key}")
    content = value_of(secret, key)
    if not content:
        raise CaWrong("SecretIncomplete", f"Secret {name} lacks {key}: put the certificates there, in PEM form")
    if len(content) > LARGEST_CA:
        raise CaWrong("SecretInvalid", f"{key} of Secret {name} is too long: the store's own CA is enough")
    try:
        return as_pem(certificates(content))
    except ValueError as error:
        raise CaWrong("SecretInvalid", f"{key} of Secret {name} holds no certificate in PEM form: {error}") from None


def wrong_with_storage(secret: Secret | None, name: str, namespace: str) -> tuple[str, str] | None:
    """Reason and message where the Secret does not give keys for the store; None where it does."""
    if secret is None:
        keys = " and ".join(_NEEDED)
        return "SecretNotFound", f"there is no Secret {name} in namespace {namespace}: make it, with the keys {keys}"
    missing = [key for key in _NEEDED if not value_of(secret, key)]
    if missing:
        return "SecretIncomplete", f"Secret {name} lacks {' and '.join(missing)}"
    for key in (*_NEEDED, SESSION_TOKEN):
        value = value_of(secret, key)
        if not value.isascii() or not value.isprintable() or " " in value:
            # What `echo key | base64` makes: pods would send the line break along.
            told = "holds a space, a line break or a letter that no key has"
            return (
                "SecretInvalid",
                f"{key} of Secret {name} {told}: make it anew, by kubectl create secret --from-literal",
            )
    return None
