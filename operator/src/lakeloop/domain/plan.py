"""What a reconcile pass decided to do: data, not actions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One object in the cluster. `uid` and `resource_version`, where given, are preconditions of a deletion."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str | None = None
    resource_version: str | None = None


def controller_of(obj: Manifest) -> Mapping[str, Any] | None:
    """The owner reference of whoever made the object; None where it is nobody's."""
    references: Sequence[Mapping[str, Any]] = obj["metadata"].get("ownerReferences") or ()
    return next((each for each in references if each.get("controller")), None)


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event on the reconciled resource. `reason` is part of the API: CamelCase."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Effect:
    """A write outside Kubernetes (MLflow, object store). Each kind is a frozen dataclass derived from this one.

    Effects are idempotent: what they made is seen by the next pass's `gather`, and only then goes into status.
    """


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of `decide`.

    Applied in this order: finalizer set, status when `status_first`, effects, apply, create, delete, status otherwise,
    events, finalizer taken off.
    Status and events of a plan that is `held` are written with those of the next one of the same pass.
    A crash between any two is repaired by the next pass, since `decide` looks at what is and not at what was planned.
    """

    policy: str
    """Name of the policy that decided; goes to the logs."""
    reason: str
    """One sentence on why; goes to the logs."""
    status: Mapping[str, Any] | None = None
    """The whole next status; None leaves it. Skipped where it equals the present one."""
    status_first: bool = False
    """True where status fixes an identity (run number, uid, pinned versions): stored before anything comes of it."""
    held: bool = False
    """True where the next plan is made at once, as if the status were written: it is, together with that one's, and
    before anything that one does. Nothing outside has come of it by then but what comes before it anyway."""
    finalizer: bool | None = None
    """True: ours must be there; False: take it off; None: leave it."""
    effects: Sequence[Effect] = ()
    apply: Sequence[Manifest] = ()
    """Server-side applied in order, field manager `lakeloop`, forced; not where they are there just so."""
    apply_new: bool = False
    """True where none of them is likely to be there: each is created first, and applied where one of its name is."""
    create: Sequence[Manifest] = ()
    """Created, not applied: for pods, which must never be changed or made twice. AlreadyExists is success."""
    delete: Sequence[ObjectRef] = ()
    requeue_after: float | None = None
    """Seconds until the next look; None = only when something happens. 0 = at once."""
    events: Sequence[Event] = field(default=())

    @property
    def acts(self) -> bool:
        """Whether anything but status and events comes of it."""
        return bool(self.effects or self.apply or self.create or self.delete)

    @property
    def act(self) -> "Plan":
        """All that comes before status and events."""
        return replace(self, status=None, events=(), finalizer=self.finalizer if self.acts else None)

    @property
    def word(self) -> "Plan":
        """Status and events."""
        return replace(self, effects=(), apply=(), create=(), delete=())
