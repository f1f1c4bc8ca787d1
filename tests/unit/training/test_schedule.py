"""When schedules tick: time zones, days that lack an hour or have one twice, and what is no schedule."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakeloop.domain.training.schedule import InvalidSchedule, rfc3339, schedule

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"

# schedule, time zone, after, the next ticks
TICKS: dict[str, tuple[str, str, str, list[str]]] = {
    "every day, UTC": ("0 3 * * *", "UTC", "2026-11-24T08:00:00", ["2026-11-25T03:00:00", "2026-11-26T03:00:00"]),
    "by name": ("@daily", "UTC", "2026-11-24T00:00:00", ["2026-11-25T00:00:00"]),
    "hourly by name": ("@hourly", "UTC", "2026-11-24T08:30:00", ["2026-11-24T09:00:00"]),
    "a question mark is a star": ("0 3 ? * ?", "UTC", "2026-11-24T08:00:00", ["2026-11-25T03:00:00"]),
    "winter in Berlin": ("0 3 * * *", BERLIN, "2026-11-24T08:00:00", ["2026-11-25T02:00:00"]),
    "summer in Berlin": ("0 3 * * *", BERLIN, "2026-07-01T08:00:00", ["2026-07-02T01:00:00"]),
    "the night that lacks 02:30: right after the gap, once": (
        "30 2 * * *",
        BERLIN,
        "2026-03-28T12:00:00",
        ["2026-03-29T01:00:00", "2026-03-30T00:30:00"],
    ),
    "the night that has 02:30 twice: once": (
        "30 2 * * *",
        BERLIN,
        "2026-10-24T12:00:00",
        ["2026-10-25T00:30:00", "2026-10-26T01:30:00"],
    ),
    "after the second 02:15 of that night": ("30 2 * * *", BERLIN, "2026-10-25T01:15:00", ["2026-10-26T01:30:00"]),
    "every hour through the gap": (
        "0 * * * *",
        BERLIN,
        "2026-03-28T23:30:00",
        ["2026-03-29T00:00:00", "2026-03-29T01:00:00", "2026-03-29T02:00:00"],
    ),
    "every hour through the hour that comes twice": (
        "0 * * * *",
        BERLIN,
        "2026-10-24T23:30:00",
        ["2026-10-25T00:00:00", "2026-10-25T01:00:00", "2026-10-25T02:00:00"],
    ),
    "half an hour of daylight saving": (
        "15 2 * * *",
        LORD_HOWE,
        "2026-10-03T12:00:00",
        ["2026-10-03T15:30:00", "2026-10-04T15:15:00"],
    ),
    "leap day": ("0 0 29 2 *", "UTC", "2026-11-24T08:00:00", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
    "second Monday": ("0 6 * * 1#2", NEW_YORK, "2026-11-24T08:00:00", ["2026-12-14T11:00:00"]),
}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("name", TICKS)
def test_ticks(name: str) -> None:
    cron, zone, after, expected = TICKS[name]
    ticks, moment = [], utc(after)
    for _ in expected:
        moment = schedule(cron, zone).next(moment)
        ticks.append(moment)
    assert ticks == [utc(each) for each in expected]


# schedule, time zone, field, what the message says
INVALID: dict[str, tuple[str, str, str, str]] = {
    "30 February": ("0 0 30 2 *", "UTC", "cron", "never fires"),
    "a fifth Monday on 29 February that is far away": ("0 0 31 4 *", "UTC", "cron", "never fires"),
    "no such minute": ("61 * * * *", "UTC", "cron", "bad minute"),
    "no such day of the week": ("0 0 * * 9", "UTC", "cron", "bad day-of-week"),
    "a step of nothing": ("*/0 * * * *", "UTC", "cron", "bad minute"),
    "words": ("every day at three o'clock", "UTC", "cron", "bad minute"),
    "no such zone": ("0 3 * * *", "Europe/Atlantis", "timeZone", "no time zone 'Europe/Atlantis'"),
    "a folder of zones": ("0 3 * * *", "Europe", "timeZone", "no time zone 'Europe'"),
    "a path": ("0 3 * * *", "/etc/passwd", "timeZone", "no time zone"),
    "an abbreviation that is none": ("0 3 * * *", "CEST", "timeZone", "no time zone"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid(name: str) -> None:
    cron, zone, field, message = INVALID[name]
    with pytest.raises(InvalidSchedule, match=message) as raised:
        schedule(cron, zone)
    assert raised.value.field == f"spec.triggers.schedule.{field}"


CRONS = ["0 3 * * *", "30 2 * * *", "*/7 * * * *", "0,30 1-3 * * *", "15 2,3 * * 0", "0 */5 * * *", "59 23 L * *"]


@given(
    cron=st.sampled_from(CRONS),
    zone=st.sampled_from(["UTC", BERLIN, NEW_YORK, LORD_HOWE, "Asia/Kathmandu"]),
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda each: each.replace(tzinfo=UTC)),
)
def test_the_last_tick_is_the_one_before_the_next(cron: str, zone: str, moment: datetime) -> None:
    found = schedule(cron, zone)
    last, following = found.last(moment), found.next(moment)
    assert last is not None
    assert last <= moment < following
    assert found.next(last) == following, "nothing lies between"
    assert found.last(last) == last
    assert found.count(last, following, 5) == 1


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
@pytest.mark.parametrize("cron", CRONS)
def test_back_and_forth_around_a_change_of_the_clock(cron: str, day: str) -> None:
    found = schedule(cron, BERLIN)
    moment = utc(f"{day}T00:00:00") - timedelta(hours=3)
    for minute in range(0, 10 * 60, 5):
        at = moment + timedelta(minutes=minute)
        last = found.last(at)
        assert last is not None
        assert last <= at < found.next(last)


def test_rfc3339() -> None:
    assert rfc3339(utc("2026-11-24T03:00:00")) == "2026-11-24T03:00:00Z"
