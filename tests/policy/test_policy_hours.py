"""Hours of the week, across nights, weekends and the two days on which clocks are moved."""

from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import product
from zoneinfo import ZoneInfo, reset_tzpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_mcp.policy.rules import hours


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment", "is_open"),
    [
        # 2026-11-25 is a Wednesday; Berlin is one hour ahead in winter, two in summer.
        ("Mon-Thu 08:00-17:00 Europe/Berlin", "2026-11-25T06:59:59", False),
        ("Mon-Thu 08:00-17:00 Europe/Berlin", "2026-11-25T07:00:00", True),
        ("Mon-Thu 08:00-17:00 Europe/Berlin", "2026-11-25T15:59:59", True),
        ("Mon-Thu 08:00-17:00 Europe/Berlin", "2026-11-25T16:00:00", False),
        ("Mon-Thu 08:00-17:00 Europe/Berlin", "2026-11-27T10:00:00", False),
        ("Mon-Thu 08:00-17:00 Europe/Berlin", "2026-07-01T06:00:00", True),
        ("Mon-Thu 08:00-17:00 Europe/Berlin", "2026-07-01T05:59:00", False),
        ("mon,Wed,fri 08:00-17:00 UTC", "2026-11-25T08:00:00", True),
        ("Mon, Tue 08:00-17:00 UTC", "2026-11-25T08:00:00", False),
        ("Mon-Tue,Fri-Sun 08:00-17:00 UTC", "2026-11-25T08:00:00", False),
        ("Fri-Mon 08:00-17:00 UTC", "2026-11-29T08:00:00", True),
        ("Fri-Mon 08:00-17:00 UTC", "2026-11-25T08:00:00", False),
        ("Mon-Sun 00:00-24:00 UTC", "2026-11-25T23:59:59", True),
        # Over night: it begins on the days that are named, and ends on the day after.
        ("Fri 22:00-06:00 UTC", "2026-11-27T21:59:00", False),
        ("Fri 22:00-06:00 UTC", "2026-11-27T22:00:00", True),
        ("Fri 22:00-06:00 UTC", "2026-11-28T05:59:00", True),
        ("Fri 22:00-06:00 UTC", "2026-11-28T06:00:00", False),
        ("Fri 22:00-06:00 UTC", "2026-11-27T05:00:00", False),
        ("Sun 22:00-06:00 UTC", "2026-11-30T05:00:00", True),
        # 2026-03-29 in Berlin: 02:00 becomes 03:00, at 01:00 UTC.
        ("Sun 01:00-03:30 Europe/Berlin", "2026-03-29T00:59:59", True),
        ("Sun 01:00-03:30 Europe/Berlin", "2026-03-29T01:29:59", True),
        ("Sun 01:00-03:30 Europe/Berlin", "2026-03-29T01:30:00", False),
        ("Sun 02:00-03:00 Europe/Berlin", "2026-03-29T01:00:00", False),
        # 2026-10-25 in Berlin: 03:00 becomes 02:00, at 01:00 UTC, and 02:30 comes twice.
        ("Sun 02:15-02:45 Europe/Berlin", "2026-10-25T00:30:00", True),
        ("Sun 02:15-02:45 Europe/Berlin", "2026-10-25T01:30:00", True),
        ("Sun 02:15-02:45 Europe/Berlin", "2026-10-25T01:00:00", False),
        ("Sat 22:00-06:00 Europe/Berlin", "2026-10-25T04:59:00", True),
        ("Sat 22:00-06:00 Europe/Berlin", "2026-10-25T05:00:00", False),
    ],
)
def test_hours_are_local_time(text: str, moment: str, is_open: bool) -> None:
    assert hours(text).open_at(at(moment)) is is_open


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Mon-Thu 08:00-17:00", "names no time zone"),
        ("Mon-Thu 08:00-17:00 Europe/Berln", "did you mean 'Europe/Berlin'"),
        ("Mon-Thu 08:00-17:00 Europe", "no time zone 'Europe'"),
        ("Mon-Thu 08:00-17:00 ../../etc/passwd", "no time zone"),
        ("Mon-Thr 08:00-17:00 UTC", "unknown day 'Thr'"),
        ("Mon,,Tue 08:00-17:00 UTC", "unknown day ''"),
        ("Mon 8:00-17:00 UTC", "form"),
        ("Mon 08:00-25:00 UTC", "'25:00' is not a time of day"),
        ("Mon 08:60-09:00 UTC", "'08:60' is not a time of day"),
        ("Mon 08:00-24:01 UTC", "'24:01' is not a time of day"),
        ("Xy 08:00-09:00 UTC", "unknown day 'Xy'; use one of Mon, Tue, Wed, Thu, Fri, Sat, Sun"),
        ("Mon 24:00-09:00 UTC", "not a time span"),
        ("Mon 08:00-08:00 UTC", "not a time span"),
        ("08:00-17:00 UTC", "form"),
        ("", "form"),
    ],
)
def test_invalid_hours_are_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        hours(text)


SOME = ["Mon-Thu 08:00-17:00 Europe/Berlin", "Sat,Sun 22:30-06:00 America/New_York", "Wed 00:00-24:00 Asia/Kathmandu"]


@given(st.sampled_from(SOME), st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)))  # noqa: DTZ001 - UTC below
def test_next_opening_lies_ahead_and_is_open(text: str, moment: datetime) -> None:
    some, now = hours(text), moment.replace(tzinfo=UTC)
    opens = some.next_after(now)
    assert now < opens <= now + timedelta(days=8)
    assert some.open_at(opens)
    assert not some.open_at(opens - timedelta(minutes=1)) or text.startswith("Wed")


DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def test_day_ranges_include_both_ends() -> None:
    """Also across the end of the week and for the last minute of the hour."""
    monday = at("2026-11-23T08:58")
    for first, length in product(range(7), range(7)):
        some = hours(f"{DAYS[first]}-{DAYS[(first + length) % 7]} 08:00-08:59 UTC")
        named = {(first + ahead) % 7 for ahead in range(length + 1)}
        assert {day for day in range(7) if some.open_at(monday + timedelta(days=day))} == named, some


@pytest.mark.parametrize(
    ("text", "moment", "opens"),
    [
        ("Mon 08:00-17:00 UTC", "2026-11-23T07:59", "2026-11-23T08:00"),
        ("Mon 08:00-17:00 UTC", "2026-11-23T08:00", "2026-11-30T08:00"),
        # In New York it is still Saturday.
        ("Sat 22:30-06:00 America/New_York", "2026-11-29T02:00", "2026-11-29T03:30"),
        # In Kathmandu it is already Wednesday.
        ("Wed 00:15-24:00 Asia/Kathmandu", "2026-11-24T18:20", "2026-11-24T18:30"),
    ],
)
def test_next_opening_is_the_first_one(text: str, moment: str, opens: str) -> None:
    assert hours(text).next_after(at(moment)) == at(opens)


@pytest.mark.skipif(find_spec("tzdata") is not None, reason="the package tzdata is installed")
def test_missing_time_zone_data_is_reported() -> None:
    reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    try:
        with pytest.raises(ValueError, match=r"^this machine has no time zones; install the package tzdata$"):
            hours("Mon 08:00-17:00 Europe/Berlin")
    finally:
        reset_tzpath()
