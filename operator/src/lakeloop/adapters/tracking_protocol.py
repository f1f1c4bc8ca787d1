"""What the operator needs of an MLflow server: runs and the model registry. Shapes follow MLflow's REST API 2.0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

PARENT_TAG = "mlflow.parentRunId"
"""MLflow's own, on a nested run."""
RunEnd = Literal["FINISHED", "FAILED", "KILLED"]


class TrackingError(Exception):
    """MLflow refused or did not answer. `code` is MLflow's `error_code`, or empty."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class TrackingUnavailable(TrackingError):
    """No answer, or one (429, 5xx) that asks to come again."""


class TrackingDenied(TrackingError):
    """The user name or password is wrong, missing or not allowed to do this (401, 403)."""


class TrackingNotFound(TrackingError):
    """No such run, model, version or alias. `get_…` and `find_…` return None instead."""


class TrackingInvalid(TrackingError):
    """MLflow says that the request is wrong (other 4xx)."""


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """A user of MLflow. The password is not shown."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """An MLflow run."""

    run_id: str
    experiment_id: str
    status: str
    """RUNNING, SCHEDULED, FINISHED, FAILED or KILLED."""
    artifact_uri: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in the registry."""

    name: str
    version: int
    source: str
    """Where the model's files lie, as registered."""
    run_id: str | None
    status: str
    """PENDING_REGISTRATION, FAILED_REGISTRATION or READY."""
    tags: Mapping[str, str]
    aliases: Sequence[str]
    created_ms: int
    """Milliseconds since the epoch."""
    model_id: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A registry webhook. Its secret is never given back."""

    id: str
    name: str
    url: str
    events: Sequence[str]
    """`<entity>.<action>`, such as `model_version_alias.created`."""
    active: bool


class TrackingServer(Protocol):
    """MLflow as one user. Every method raises TrackingError, never a client's own exception, and may be repeated."""

    async def ensure_experiment(self, name: str) -> str:
        """The experiment's id; made where it is not there. TrackingInvalid where it is deleted."""

    async def get_experiment(self, name: str) -> str | None:
        """The id of an experiment that is there and active."""

    async def find_run(self, experiment_id: str, tag: str, value: str) -> TrackedRun | None:
        """The oldest run with this tag."""

    async def get_run(self, run_id: str) -> TrackedRun | None:
        """A run by its id."""

    async def create_run(self, experiment_id: str, name: str, started_ms: int, tags: Mapping[str, str]) -> TrackedRun:
        """A new run, RUNNING. Not idempotent: look with `find_run` first."""

    async def set_run_tag(self, run_id: str, key: str, value: str) -> None:
        """Sets one tag of a run."""

    async def end_run(self, run_id: str, status: RunEnd, ended_ms: int) -> None:
        """Sets the run's final state."""

    async def open_children(self, experiment_id: str, run_id: str) -> Sequence[str]:
        """Ids of the runs nested in this one that are RUNNING."""

    async def ensure_registered_model(self, name: str) -> None:
        """Makes the registered model where it is not there."""

    async def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str,
        model_id: str | None,
        description: str,
        tags: Mapping[str, str],
    ) -> ModelVersion:
        """A new version. Not idempotent: look with `search_model_versions` first."""

    async def search_model_versions(
        self, name: str, tag: str | None = None, value: str = "", *, limit: int = 100
    ) -> Sequence[ModelVersion]:
        """Versions of the model, newest first; those with the tag only, where one is given."""

    async def get_model_version(self, name: str, version: int) -> ModelVersion | None:
        """One version, with its tags and aliases."""

    async def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that the alias points to."""

    async def get_download_uri(self, name: str, version: int) -> str:
        """Where the version's files lie."""

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        """Points the alias to the version."""

    async def delete_alias(self, name: str, alias: str) -> None:
        """Takes the alias away; no error where it is not there."""

    async def set_model_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        """Sets one tag."""

    async def delete_model_version_tag(self, name: str, version: int, key: str) -> None:
        """Takes one tag away; no error where it is not there."""

    async def create_webhook(self, name: str, url: str, events: Sequence[str], secret: str) -> Webhook:
        """A new, active webhook, signed with the secret."""

    async def list_webhooks(self) -> Sequence[Webhook]:
        """All webhooks."""

    async def delete_webhook(self, webhook_id: str) -> None:
        """Takes the webhook away; no error where it is not there."""


class TrackingServers(Protocol):
    """Gives the server, seen as one user."""

    def connect(self, auth: BasicAuth | None) -> TrackingServer:
        """Costs nothing: connections are shared. None: without a user."""
