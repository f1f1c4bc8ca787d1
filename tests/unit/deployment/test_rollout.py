"""Steps of a roll-out: by example, and the promise that no request is lost under any order of events."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lakeloop.domain.deployment.rollout import Fleet, Step, next_step


def fleet(wanted: int, replicas: Mapping[str, int], ready: Mapping[str, int], **parts: Any) -> Fleet:
    return Fleet(**{"wanted": wanted, "stable": "old", "target": "new", "replicas": replicas, "ready": ready} | parts)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            fleet(3, {}, {}, stable=None),
            Step({"new": 3}, frozenset(), "new", promoted=False),
            id="first-roll-out-goes-straight",
        ),
        pytest.param(
            fleet(3, {"new": 3}, {"new": 1}, stable=None, pinned="new"),
            Step({"new": 3}, frozenset(), "new", promoted=True),
            id="first-roll-out-serves-with-its-first-server",
        ),
        pytest.param(
            fleet(3, {"old": 3}, {"old": 3}, pinned="old"),
            Step({"old": 3, "new": 1}, frozenset(), "old", promoted=False),
            id="candidate-starts-with-one-that-is-not-selected",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3}, pinned="old"),
            Step({"old": 3, "new": 1}, frozenset(), "old", promoted=False),
            id="candidate-is-not-ready-yet",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 1}, pinned="old"),
            Step({"old": 3, "new": 1}, frozenset(), None, promoted=False, unsettled=True),
            id="candidate-is-ready-so-all-are-selected-before-any-goes",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 1}, pinned=None, settled=False),
            Step({"old": 3, "new": 1}, frozenset(), None, promoted=False, unsettled=True),
            id="proxies-have-not-heard-yet",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 1}, pinned=None),
            Step({"old": 2, "new": 2}, frozenset(), None, promoted=False),
            id="one-moves-over",
        ),
        pytest.param(
            fleet(3, {"old": 2, "new": 2}, {"old": 2, "new": 2}, pinned=None),
            Step({"old": 1, "new": 3}, frozenset(), None, promoted=False),
            id="another-moves-over",
        ),
        pytest.param(
            fleet(3, {"old": 1, "new": 3}, {"old": 1, "new": 3}, pinned=None),
            Step({"old": 1, "new": 3}, frozenset(), "new", promoted=True),
            id="new-alone-is-selected-while-old-still-answers",
        ),
        pytest.param(
            fleet(3, {"old": 1, "new": 3}, {"old": 1, "new": 3}, stable="new", pinned="new", settled=False),
            Step({"new": 3, "old": 1}, frozenset(), "new", promoted=False, unsettled=True),
            id="old-waits-for-the-proxies",
        ),
        pytest.param(
            fleet(3, {"old": 1, "new": 3}, {"old": 1, "new": 3}, stable="new", pinned="new"),
            Step({"new": 3}, frozenset({"old"}), "new", promoted=False),
            id="old-goes",
        ),
        pytest.param(
            fleet(1, {"old": 1, "new": 1}, {"old": 1, "new": 1}, pinned="old"),
            Step({"old": 1, "new": 1}, frozenset(), "new", promoted=True),
            id="one-server-switches-over",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 0, "new": 1}, pinned=None),
            Step({"old": 2, "new": 2}, frozenset(), None, promoted=False),
            id="bad-stable-does-not-hold-up-a-good-candidate",
        ),
        pytest.param(
            fleet(3, {"old": 2, "new": 2}, {"old": 2, "new": 2}, target="old", pinned=None),
            Step({"old": 3, "new": 2}, frozenset(), None, promoted=False),
            id="abandoned-half-way-stable-grows-back-first",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 2}, {"old": 3, "new": 2}, target="old", pinned=None),
            Step({"old": 3, "new": 2}, frozenset(), "old", promoted=False, unsettled=True),
            id="abandoned-stable-is-back-and-alone-selected",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 0}, target="old", pinned="old"),
            Step({"old": 3}, frozenset({"new"}), "old", promoted=False),
            id="abandoned-before-it-was-ready",
        ),
        pytest.param(
            fleet(3, {"old": 2, "mid": 2}, {"old": 2, "mid": 2}, pinned=None),
            Step({"old": 3, "new": 1, "mid": 2}, frozenset(), None, promoted=False),
            id="third-version-half-way",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 0}, pinned="old", blue_green=True),
            Step({"old": 3, "new": 1}, frozenset(), "old", promoted=False),
            id="blue-green-starts-with-one",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 1}, pinned="old", blue_green=True),
            Step({"old": 3, "new": 3}, frozenset(), "old", promoted=False),
            id="blue-green-has-all-servers-before-any-is-selected",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 1}, pinned="old", blue_green=True, admitted=False),
            Step({"old": 3, "new": 1}, frozenset(), "old", promoted=False),
            id="blue-green-waits-for-its-gates-with-one",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 3}, {"old": 3, "new": 2}, pinned="old", blue_green=True),
            Step({"old": 3, "new": 3}, frozenset(), "old", promoted=False),
            id="blue-green-waits-for-the-last",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 3}, {"old": 3, "new": 3}, pinned="old", blue_green=True),
            Step({"old": 3, "new": 3}, frozenset(), "new", promoted=True),
            id="blue-green-moves-all-traffic-at-once",
        ),
        pytest.param(
            fleet(3, {"old": 2, "new": 2}, {"old": 2, "new": 2}, pinned=None, blue_green=True),
            Step({"old": 3, "new": 3}, frozenset(), None, promoted=False),
            id="blue-green-from-the-middle-of-a-rolling-update",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 0}, target="old", pinned="old", kept="new"),
            Step({"old": 3, "new": 1}, frozenset(), "old", promoted=False),
            id="failed-and-left-to-be-looked-at",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 3}, {"old": 3, "new": 2}, target="old", pinned="old", kept="new"),
            Step({"old": 3, "new": 1}, frozenset(), "old", promoted=False),
            id="one-of-them-is-left",
        ),
        pytest.param(
            fleet(3, {"old": 2, "new": 2}, {"old": 2, "new": 2}, target="old", pinned=None, kept="new"),
            Step({"old": 3, "new": 2}, frozenset(), None, promoted=False),
            id="failed-half-way-stable-grows-back-before-all-but-one-go",
        ),
        pytest.param(
            fleet(1, {"old": 1, "new": 1, "mid": 1}, {"old": 1, "mid": 1}, pinned=None, settled=False, share=50),
            Step({"old": 1, "new": 1, "mid": 1}, frozenset(), "old", promoted=False, unsettled=True),
            id="canary-not-ready-yet-third-version-waits-for-the-proxies",
        ),
        pytest.param(
            fleet(2, {"old": 2, "new": 1, "mid": 1}, {"old": 2, "new": 1, "mid": 1}, pinned=None, settled=False),
            Step({"old": 2, "new": 1, "mid": 1}, frozenset(), None, promoted=False, unsettled=True),
            id="third-version-waits-for-the-proxies",
        ),
        pytest.param(
            fleet(3, {"old": 3, "new": 1}, {"old": 3, "new": 1}, pinned="old", share=50),
            Step({"old": 3, "new": 3}, frozenset(), None, promoted=False, unsettled=True),
            id="canary-both-are-selected-and-the-new-one-grows",
        ),
        pytest.param(
            fleet(4, {"old": 4, "new": 4}, {"old": 4, "new": 3}, pinned=None, share=80),
            Step({"old": 4, "new": 4}, frozenset(), None, promoted=False),
            id="canary-old-stays-until-the-new-one-is-whole",
        ),
        pytest.param(
            fleet(4, {"old": 4, "new": 4}, {"old": 4, "new": 4}, pinned=None, share=80),
            Step({"old": 1, "new": 4}, frozenset(), None, promoted=False),
            id="canary-old-shrinks",
        ),
        pytest.param(
            fleet(4, {"old": 1, "new": 4}, {"old": 1, "new": 4}, pinned=None, share=20),
            Step({"old": 4, "new": 4}, frozenset(), None, promoted=False),
            id="canary-a-smaller-share-waits-for-the-old-servers",
        ),
        pytest.param(
            fleet(4, {"old": 1, "new": 4}, {"old": 1, "new": 4}, pinned=None, share=0),
            Step({"old": 4, "new": 4}, frozenset(), None, promoted=False),
            id="canary-none-waits-for-them-too",
        ),
        pytest.param(
            fleet(2, {"old": 2, "new": 2}, {"old": 2, "new": 2}, pinned=None, share=100),
            Step({"old": 2, "new": 2}, frozenset(), "new", promoted=False, unsettled=True),
            id="canary-with-everything-keeps-the-old-servers",
        ),
        pytest.param(
            fleet(0, {"old": 2}, {"old": 2}, pinned="old"),
            Step({"new": 0}, frozenset({"old"}), "new", promoted=True),
            id="scaled-to-zero",
        ),
        pytest.param(
            fleet(2, {}, {}, target="old", pinned="old"),
            Step({"old": 2}, frozenset(), "old", promoted=False),
            id="deleted-by-somebody",
        ),
        pytest.param(
            fleet(2, {"old": 5}, {"old": 5}, target="old", pinned="old"),
            Step({"old": 2}, frozenset(), "old", promoted=False),
            id="scaled-down",
        ),
    ],
)
def test_steps(given: Fleet, expected: Step) -> None:
    assert next_step(given) == expected


class Cluster(RuleBasedStateMachine):
    """Servers start, die and are removed at any moment; the target moves; the operator acts whenever it likes.

    What it does takes effect at its worst: what it adds is not ready, what it takes away was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wanted = 2
        self.stable: str | None = None
        self.target = "v1"
        self.count: dict[str, int] = {}
        self.ready: dict[str, int] = {}
        self.pinned: str | None = "v1"
        self.blue_green = False
        self.kept: str | None = None
        self.share: int | None = None
        self.heard: str | None = "v1"
        """What the proxies last heard of the Service's selection."""

    @property
    def settled(self) -> bool:
        return self.heard == self.pinned

    def ready_behind(self, pinned: str | None) -> int:
        return sum(ready for each, ready in self.ready.items() if pinned in (None, each))

    @rule()
    def operator_acts(self) -> None:
        before, before_heard = self.ready_behind(self.pinned), self.ready_behind(self.heard)
        protected = self.stable is not None and self.wanted > 0
        step = next_step(
            Fleet(
                wanted=self.wanted,
                stable=self.stable,
                target=self.target,
                replicas=dict(self.count),
                ready=dict(self.ready),
                pinned=self.pinned,
                blue_green=self.blue_green,
                kept=self.kept if self.kept != self.target else None,
                share=self.share,
                settled=self.settled,
            )
        )
        assert self.target in step.replicas
        self.pinned = step.pinned
        for each in step.remove:
            self.count.pop(each)
            self.ready.pop(each, None)
        for each, replicas in step.replicas.items():
            # The ReplicaSet controller takes away what is not ready first.
            self.ready[each] = min(self.ready.get(each, 0), replicas)
            self.count[each] = replicas
        if step.promoted:
            self.stable = self.target
        assert self.ready_behind(self.pinned) >= min(before, self.wanted)
        assert self.ready_behind(self.heard) >= min(before_heard, self.wanted) or not protected
        assert sum(self.count.values()) <= 3 * (self.wanted + 1) + 3

    @precondition(lambda self: any(self.ready.get(each, 0) < count for each, count in self.count.items()))
    @rule(data=st.data())
    def server_becomes_ready(self, data: st.DataObject) -> None:
        starting = sorted(each for each, count in self.count.items() if self.ready.get(each, 0) < count)
        self.ready[data.draw(st.sampled_from(starting))] += 1

    @precondition(lambda self: any(self.ready.values()))
    @rule(data=st.data())
    def server_dies(self, data: st.DataObject) -> None:
        self.ready[data.draw(st.sampled_from(sorted(each for each, n in self.ready.items() if n)))] -= 1

    @rule(to=st.sampled_from(["v1", "v2", "v3"]))
    def alias_moves(self, to: str) -> None:
        self.target = to

    @rule(wanted=st.integers(0, 4))
    def user_scales(self, wanted: int) -> None:
        self.wanted = wanted

    @rule(blue_green=st.booleans(), kept=st.sampled_from([None, "v2", "v3"]))
    def user_changes_the_strategy(self, blue_green: bool, kept: str | None) -> None:
        self.blue_green, self.kept = blue_green, kept

    @rule(share=st.sampled_from([None, 0, 10, 50, 80, 100]))
    def canary_moves_on(self, share: int | None) -> None:
        self.share = share

    @rule()
    def proxies_hear(self) -> None:
        self.heard = self.pinned

    @rule(passes=st.integers(1, 4))
    def all_goes_well(self, passes: int) -> None:
        for _ in range(passes):
            self.heard = self.pinned
            self.ready = dict(self.count)
            self.operator_acts()

    @invariant()
    def never_more_ready_than_there_are(self) -> None:
        assert all(self.ready.get(each, 0) <= count for each, count in self.count.items())

    def teardown(self) -> None:
        """From wherever this ended, a calm world comes to rest with the target serving alone."""
        self.kept = self.share = None
        self.all_goes_well(60)
        assert self.count == {self.target: self.wanted}
        assert self.pinned == self.target
        assert self.stable == self.target


Cluster.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCluster = Cluster.TestCase
