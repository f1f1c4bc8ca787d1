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


class Telemetry(Protocol):
    """Who wants to know how things go, beside the runtime's own figures."""

    def phase(self, kind: str, name: str, seconds: float) -> None:
        """One part of a pass: `gather`, `decide`, `apply`."""

    def rollout(self, outcome: str, seconds: float | None = None) -> None:
        """A roll-out ended: `completed` or `rejected`. Seconds since the alias was moved, as far as is known."""

    def run(self, outcome: str) -> None:
        """A run ended: `Succeeded`, `Failed` or `Stopped`."""
