"""What the runtime and the reconcilers know of each other."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which object to look at. What happened to it is not part of it: a reconcile reads what is."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Reconciler(Protocol):
    """One per kind."""

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One pass: gather, decide, apply, report.

        Returns the seconds until the next look; None = only when something happens. An object that is gone is no
        error. Any exception makes the runtime try again later, each time after a longer wait; KubernetesError(409)
        means that the object changed meanwhile, and is tried again soon.
        """


class TaskHealth(Protocol):
    """What `/healthz` asks."""

    def problems(self) -> list[str]:
        """Why the process should be restarted; empty when all is well."""
