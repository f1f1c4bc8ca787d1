"""Counts runs that ended, for the metrics, from what the watch shows of them."""

from collections.abc import Callable
from typing import Final

from lakeloop.reconcile.protocol import Key

TERMINAL: Final = frozenset({"Succeeded", "Failed", "Stopped"})


class RunOutcomes:
    """Each run counts once, when it is seen to end: one that had ended before we first saw it does not."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._going: dict[Key, str] = {}

    def see(self, key: Key, run_uid: str | None, phase: str | None) -> None:
        """The newest run of the TrainingJob, and its phase; None where it has none."""
        if run_uid and phase not in TERMINAL:
            self._going[key] = run_uid
        elif self._going.pop(key, None) == run_uid and run_uid and phase:
            self._count(phase)

    def discard(self, key: Key) -> None:
        """The TrainingJob is gone."""
        self._going.pop(key, None)
