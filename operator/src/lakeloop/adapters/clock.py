"""Time, as a thing that tests replace."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The one source of time for reconcilers."""

    def now(self) -> datetime:
        """The present moment, in UTC with a time zone, to the microsecond."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)
