"""The object store as a run's pods are told of it, and where tables lie."""

from dataclasses import dataclass
from typing import Any, Final

from lakeloop.api.v1alpha1.common import CaSecretReference, Storage
from lakeloop.api.v1alpha1.defaults import storage_secret_name
from lakeloop.api.v1alpha1.trainingjob import Input
from lakeloop.render.certificates import CA_KEY
from lakeloop.render.errors import Unrenderable
from lakeloop.render.training.names import MOUNT, Platform

ACCESS_KEY: Final = "AWS_ACCESS_KEY_ID"
SECRET_KEY: Final = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 (the name of a variable)
SESSION_TOKEN: Final = "AWS_SESSION_TOKEN"  # noqa: S105 (the name of a variable)


@dataclass(frozen=True, slots=True)
class StorageTarget:
    """Where the store is, and where the pods get their credentials from."""

    endpoint: str | None
    region: str
    path_style: bool
    secret: str | None
    """Secret with the keys; None: the service account has an identity."""
    service_account: str | None
    ca: str | None = None
    """Certificates that the endpoint's is checked against, PEM; None: those of the image."""


def storage_target(storage: Storage, platform: Platform, ca: str | None = None) -> StorageTarget:
    """What the resource says, and for the rest what the operator's settings say. `ca`: what its caSecretRef holds."""
    return StorageTarget(
        endpoint=storage.endpoint or platform.storage_endpoint,
        region=storage.region or platform.storage_region,
        path_style=platform.storage_path_style if storage.path_style is None else storage.path_style,
        secret=None if storage.service_account_name else storage_secret_name(storage),
        service_account=storage.service_account_name,
        ca=ca if own_ca(storage) else platform.storage_ca,
    )


def own_ca(storage: Storage) -> CaSecretReference | None:
    """Where the resource names certificates of its own for the store."""
    reference = storage.ca_secret_ref
    return reference if reference is not None and reference.name else None


def input_uri(index: int, item: Input, storage: Storage, platform: Platform) -> str:
    """Where the input's table lies, without a slash at the end. Raises Unrenderable where there is no warehouse."""
    if item.uri:
        return item.uri.rstrip("/")
    warehouse = storage.warehouse or platform.warehouse
    if not warehouse or not item.table:
        raise Unrenderable(
            f"spec.inputs[{index}].table",
            "there is no warehouse: write spec.storage.warehouse, or uri in place of table",
        )
    database, table = item.table.split(".")
    return f"{warehouse.rstrip('/')}/{database}.db/{table}"


def storage_env(target: StorageTarget) -> list[dict[str, Any]]:
    """Environment of a container that goes to the store. Keys come from the Secret, never as values."""
    env: list[dict[str, Any]] = []
    if target.secret:
        env = [
            _from_secret(ACCESS_KEY, target.secret),
            _from_secret(SECRET_KEY, target.secret),
            _from_secret(SESSION_TOKEN, target.secret, optional=True),
        ]
    env += [{"name": name, "value": target.region} for name in ("AWS_REGION", "AWS_DEFAULT_REGION")]
    if target.endpoint:
        env += [{"name": name, "value": target.endpoint} for name in ("AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL")]
    if target.ca:
        env.append({"name": "AWS_CA_BUNDLE", "value": f"{MOUNT}/{CA_KEY}"})
    return env


def secret_env(name: str, secret: str) -> dict[str, Any]:
    """A variable from a Secret that need not be there."""
    return _from_secret(name, secret, optional=True)


def _from_secret(name: str, secret: str, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": secret, "key": name}
    if optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}
