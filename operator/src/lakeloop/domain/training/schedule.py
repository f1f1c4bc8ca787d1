"""Cron schedules in a time zone: when they tick. Pure but for the time zone data, which comes with the release.

As Debian's cron does it: a job at a fixed time that daylight saving skips runs right after the gap, one that it repeats
runs once; a job at every hour or minute (`*`) goes by the time that really passes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_CRON: Final = "spec.triggers.schedule.cron"
_ZONE: Final = "spec.triggers.schedule.timeZone"
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class InvalidSchedule(ValueError):
    """A schedule that never ticks, or a time zone that there is none of. `field` is the path in the resource."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Schedule:
    """Ticks, in UTC. Made by `schedule`."""

    expression: str
    zone: ZoneInfo

    def next(self, after: datetime) -> datetime:
        """The first tick later than that. Raises StopIteration where there is none in 50 years."""
        ticks = CronSim(self.expression, after.astimezone(self.zone))
        while (tick := next(ticks).astimezone(UTC)) <= after:
            # An hour that comes twice: the library answers with its first pass.
            pass
        return tick

    def last(self, until: datetime) -> datetime | None:
        """The newest tick that is not later than that."""
        found = next(self._back(until), None)
        if found is None:
            return None
        while (later := self.next(found)) <= until:
            found = later
        return found

    def count(self, after: datetime, until: datetime, most: int) -> int:
        """How many ticks there are later than the one and not later than the other, counted up to a bound."""
        ticks = 0
        while ticks < most and (after := self.next(after)) <= until:
            ticks += 1
        return ticks

    def _back(self, until: datetime) -> Iterator[datetime]:
        ticks = CronSim(self.expression, (until + timedelta(seconds=1)).astimezone(self.zone), reverse=True)
        # A few at most lie after `until`, where daylight saving turns the clock.
        return (tick for each in islice(ticks, 10_000) if (tick := each.astimezone(UTC)) <= until)


@lru_cache(maxsize=1024)
def schedule(cron: str, time_zone: str) -> Schedule:
    """Raises InvalidSchedule."""
    try:
        zone = ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):
        raise InvalidSchedule(
            _ZONE, f"there is no time zone {time_zone!r}: write one as Europe/Berlin, or take it off for UTC"
        ) from None
    fields = _NAMED.get(cron, cron).split()
    made = Schedule(" ".join("*" if each == "?" else each for each in fields), zone)
    try:
        made.next(_EPOCH)
    except CronSimError as error:
        raise InvalidSchedule(_CRON, f"{cron!r} never fires, or is no schedule: {str(error).lower()}") from None
    except StopIteration:
        raise InvalidSchedule(_CRON, f"{cron!r} never fires: no such day comes in the next 50 years") from None
    return made


def rfc3339(moment: datetime) -> str:
    """Such as `2026-11-24T03:00:00Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
