"""One step of a change-over from one revision's servers to another's, without losing a request.

The Service selects either one revision (`pinned`) or all servers (`pinned` None); only ready pods ever get traffic, and
a server is ready only after its model is loaded, verified and warm. So:

1. the new revision gets one server, which is not selected;
2. once that is ready, and has passed its gates, all are selected, and servers move over one at a time: the new
   revision may have as many servers as keep the sum at the wanted number plus one, the old one loses a server for each
   new one that is ready;
3. once the new revision has all that are wanted ready, it alone is selected, and is stable.

With one server wanted, step 1 leads straight to step 3. Blue-green is that for any number: once the first server has
passed its gates, the new revision gets all that are wanted, not selected, and step 3 comes when they are ready.

Every decision rests on what is there, so that a step may be lost, repeated, or find another target than the last one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fleet:
    """What there is. Revisions are any strings; those in `replicas` have a Deployment."""

    wanted: int
    stable: str | None
    """None until something has ever served."""
    target: str
    """Equal to `stable` where nothing is to change."""
    replicas: Mapping[str, int] = field(default_factory=dict)
    ready: Mapping[str, int] = field(default_factory=dict)
    pinned: str | None = None
    admitted: bool = True
    """Whether the target may have traffic once it is ready."""
    blue_green: bool = False
    """Whether all traffic moves over at once."""
    kept: str | None = None
    """A revision that has failed, and of which one server is left for people to look at. It gets no traffic."""
    settled: bool = True
    """Whether the Service has selected what it selects for long enough that the proxies know."""


@dataclass(frozen=True, slots=True)
class Step:
    """What should be next."""

    replicas: Mapping[str, int]
    """Revision → servers. The target is always there, to be made if it is not."""
    remove: frozenset[str]
    """Revisions whose servers can go."""
    pinned: str | None
    promoted: bool
    """The target is stable from now on."""
    unsettled: bool = False
    """Something waits for the Service to settle: look again soon."""


def next_step(fleet: Fleet) -> Step:
    """The step that follows from what there is."""
    if not fleet.admitted and (fleet.stable is None or fleet.wanted == 0):
        return _held(fleet)
    if fleet.stable is None or fleet.wanted == 0:
        return _at_once(fleet)
    if fleet.stable == fleet.target:
        return _home(fleet, {fleet.target: fleet.wanted})
    ready = _ready(fleet, fleet.target) if fleet.admitted else 0
    if ready >= fleet.wanted:
        # The others stay until the Service has settled.
        return Step({**fleet.replicas, fleet.target: fleet.wanted}, frozenset(), fleet.target, promoted=True)
    if ready == 0 or fleet.blue_green:
        return _home(fleet, {fleet.stable: fleet.wanted, fleet.target: _unselected(fleet, ready)})
    return _side_by_side(fleet, fleet.stable, ready)


def _unselected(fleet: Fleet, ready: int) -> int:
    """How many servers the target has while none of them is selected."""
    if not fleet.blue_green or not fleet.admitted:
        return 1
    return fleet.wanted if ready else max(1, min(fleet.wanted, fleet.replicas.get(fleet.target, 0)))


def _at_once(fleet: Fleet) -> Step:
    """Nothing has served before, or nothing shall: there is nothing to protect."""
    others = frozenset(fleet.replicas) - {fleet.target}
    serving = {each for each in others if _ready(fleet, each) and _selected(fleet, each)}
    ready = _ready(fleet, fleet.target)
    if fleet.wanted == 0 or ready >= fleet.wanted:
        serving = set()
    # One that serves without ever having been found stable, because the target moved at that very moment, may stay
    # until the target has all its servers.
    replicas = {fleet.target: fleet.wanted, **{each: fleet.replicas[each] for each in serving}}
    there = not serving and (ready > 0 or fleet.wanted == 0)
    pinned = fleet.pinned if serving else fleet.target
    return Step(replicas, others - serving, pinned, promoted=there and fleet.stable != fleet.target)


def _held(fleet: Fleet) -> Step:
    """The target is not even started: with no stable servers it would be selected as soon as it is ready."""
    kept = {fleet.target: 0} | ({fleet.stable: fleet.wanted} if fleet.stable in fleet.replicas and fleet.stable else {})
    others = frozenset(fleet.replicas) - frozenset(kept)
    serving = {each for each in others if fleet.stable is None and _ready(fleet, each) and _selected(fleet, each)}
    pinned = fleet.pinned if serving else fleet.stable or fleet.target
    return Step({**kept, **{each: fleet.replicas[each] for each in serving}}, others - serving, pinned, promoted=False)


def _home(fleet: Fleet, replicas: Mapping[str, int]) -> Step:
    """Only the stable revision shall have traffic."""
    stable = fleet.stable or fleet.target
    enough = _ready(fleet, stable) >= fleet.wanted
    others_serve = any(_ready(fleet, each) and _selected(fleet, each) for each in fleet.replicas if each != stable)
    pinned = stable if fleet.pinned == stable or enough or not others_serve else None
    kept, removed, unsettled = dict(replicas), set(), False
    for each, count in fleet.replicas.items():
        if each in replicas:
            continue
        if not _removable(fleet, each, pinned, enough):
            kept[each] = count
            unsettled = unsettled or pinned is not None
        elif each == fleet.kept:
            kept[each] = min(1, count)
        else:
            removed.add(each)
    wanted = {each: count for each, count in kept.items() if each in fleet.replicas or each == fleet.target}
    return Step(wanted, frozenset(removed), pinned, promoted=False, unsettled=unsettled)


def _side_by_side(fleet: Fleet, stable: str, ready: int) -> Step:
    """Both have traffic. Only the target's readiness counts, so that a bad stable revision holds up nothing."""
    wide = fleet.pinned is None
    left = fleet.wanted - ready if wide and fleet.settled else fleet.wanted
    replicas = {
        stable: left,
        fleet.target: max(fleet.wanted + 1 - left, min(fleet.wanted, fleet.replicas.get(fleet.target, 0))),
    }
    enough = _ready(fleet, stable) + ready >= fleet.wanted
    removed = set()
    for each, count in fleet.replicas.items():
        if each in replicas:
            continue
        if _ready(fleet, each) == 0 or enough:
            removed.add(each)
        else:
            replicas[each] = count
    there = {each: count for each, count in replicas.items() if each in fleet.replicas or each == fleet.target}
    return Step(there, frozenset(removed), None, promoted=False, unsettled=not (wide and fleet.settled))


def _removable(fleet: Fleet, revision: str, pinned: str | None, enough: bool) -> bool:
    if _ready(fleet, revision) == 0:
        return True
    if pinned is None:
        return enough
    # It may still get requests from proxies that have not heard yet.
    return fleet.pinned == pinned and fleet.settled


def _ready(fleet: Fleet, revision: str) -> int:
    return fleet.ready.get(revision, 0)


def _selected(fleet: Fleet, revision: str) -> bool:
    return fleet.pinned is None or fleet.pinned == revision
