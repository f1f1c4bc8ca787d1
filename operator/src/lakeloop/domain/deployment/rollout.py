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

A canary's steps say what share of the traffic the new revision may have; both keep so many servers (`canary.split`).

Every decision rests on what is there, so that a step may be lost, repeated, or find another target than the last one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lakeloop.domain.deployment.canary import split


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
    share: int | None = None
    """Percent of the requests that the target should have, and no more yet; None: all."""
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
    if fleet.share is not None:
        return _shared(fleet, fleet.stable, fleet.share, ready)
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
    left = fleet.wanted - ready if fleet.pinned is None and fleet.settled else fleet.wanted
    going_on = max(fleet.wanted + 1 - left, min(fleet.wanted, fleet.replicas.get(fleet.target, 0)))
    return _beside(fleet, {stable: left, fleet.target: going_on}, None, stable)


def _shared(fleet: Fleet, stable: str, share: int, ready: int) -> Step:
    """Both have traffic, or with a share of 0 or 100 one has, and the other stands by."""
    if ready == 0 or share == 0:
        alone = ready == 0 or (fleet.pinned == stable and fleet.settled)
        return _home(fleet, {stable: fleet.wanted, fleet.target: 1 if alone else fleet.replicas[fleet.target]})
    if share == 100 and ready >= fleet.wanted:
        counts = {stable: fleet.replicas.get(stable, 0), fleet.target: fleet.wanted}
        return _beside(fleet, counts, fleet.target, stable)
    return _beside(fleet, _counts(fleet, stable, share, ready), None, stable)


def _counts(fleet: Fleet, stable: str, share: int, ready: int) -> dict[str, int]:
    """Neither loses a server before the other has all of its own, and the proxies know of both."""
    wanted = dict(zip((stable, fleet.target), split(fleet.wanted, share), strict=True))
    whole = {stable: _ready(fleet, stable) >= wanted[stable], fleet.target: ready >= wanted[fleet.target]}
    others = {stable: fleet.target, fleet.target: stable}
    known = fleet.pinned is None and fleet.settled
    return {
        each: count if known and whole[others[each]] else max(count, fleet.replicas.get(each, 0))
        for each, count in wanted.items()
    }


def _beside(fleet: Fleet, counts: Mapping[str, int], pinned: str | None, stable: str) -> Step:
    """What is neither goes once these two suffice, and the proxies know of them."""
    known = fleet.pinned == pinned and fleet.settled
    enough = known and _ready(fleet, stable) + _ready(fleet, fleet.target) >= fleet.wanted
    replicas, removed = dict(counts), set()
    for each, count in fleet.replicas.items():
        if each in counts:
            continue
        if _ready(fleet, each) == 0 or enough:
            removed.add(each)
        else:
            replicas[each] = count
    there = {each: count for each, count in replicas.items() if each in fleet.replicas or each == fleet.target}
    return Step(there, frozenset(removed), pinned, promoted=False, unsettled=not known)


def has_share(fleet: Fleet, share: int) -> bool:
    """Whether the target has that share of the traffic, as far as whole servers make it. Only its own readiness counts:
    a bad stable revision holds up nothing."""
    if not fleet.admitted or not fleet.settled or fleet.stable is None:
        return False
    if share == 0:
        return fleet.pinned == fleet.stable and _ready(fleet, fleet.target) >= 1
    if share == 100:
        return fleet.pinned == fleet.target and _ready(fleet, fleet.target) >= fleet.wanted
    stable, target = split(fleet.wanted, share)
    counts = fleet.replicas.get(fleet.stable, 0), fleet.replicas.get(fleet.target, 0)
    return fleet.pinned is None and counts == (stable, target) and _ready(fleet, fleet.target) >= target


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
