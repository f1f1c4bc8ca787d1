"""What reconcilers need of a Kubernetes API server."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lakeloop.domain.plan import Event, Manifest, ObjectRef


class KubernetesError(Exception):
    """The API server refused or could not answer.

    `status` is the HTTP code (0: no answer), `reason` the API's CamelCase one, `detail` the message without the request
    that it is about, for people who did not send it.
    """

    def __init__(self, status: int, reason: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.detail = detail or message


class Kubernetes(Protocol):
    """Typed by plain dicts: the shapes are the Kubernetes API's own.

    Every method raises KubernetesError, never a client's own exception.
    """

    async def get(self, ref: ObjectRef) -> Mapping[str, Any] | None:
        """A live read; None when there is no such object."""

    async def list(
        self, api_version: str, kind: str, namespace: str | None, labels: Mapping[str, str]
    ) -> Sequence[Mapping[str, Any]]:
        """A live, labelled list."""

    async def create(self, manifest: Manifest) -> bool:
        """Whether it was made: False when one of that name is there already."""

    async def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Mapping[str, Any]:
        """Server-side apply, field manager `lakeloop`, forced."""

    async def delete(self, ref: ObjectRef, *, grace_seconds: int | None = None) -> None:
        """Deletes in the background; no error when it is gone. `ref.uid` is a precondition where given."""

    async def replace_status(
        self, ref: ObjectRef, status: Mapping[str, Any], *, resource_version: str
    ) -> Mapping[str, Any]:
        """Replaces the status subresource; 409 on a conflict. Returns the object as it is then."""

    async def set_finalizers(
        self, ref: ObjectRef, finalizers: Sequence[str], *, resource_version: str
    ) -> Mapping[str, Any]:
        """Replaces metadata.finalizers; 409 on a conflict. Returns the object as it is then."""

    async def emit(self, regarding: ObjectRef, event: Event) -> None:
        """Best effort: a failure is logged and forgotten."""
