"""Hours of the week, across nights, weekends and the two days on which clocks are moved. Ours (DESIGN 5.2)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_mcp.guard.rules.hours import hours


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
def test_hours_are_what_the_clock_on_the_wall_shows(text: str, moment: str, is_open: bool) -> None:
    """Ours (DESIGN 5.2)."""
    assert hours(text).open_at(at(moment)) is is_open


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Mon-Thu 08:00-17:00", "names no time zone"),
        ("Mon-Thu 08:00-17:00 Europe/Berln", "did you mean 'Europe/Berlin'"),
        ("Mon-Thu 08:00-17:00 Europe", "no time zone 'Europe'"),
        ("Mon-Thu 08:00-17:00 ../../etc/passwd", "no time zone"),
        ("Mon-Thr 08:00-17:00 UTC", "'Thr' is no day"),
        ("Mon,,Tue 08:00-17:00 UTC", "is no day"),
        ("Mon 8:00-17:00 UTC", "form"),
        ("Mon 08:00-25:00 UTC", "'25:00' is no time of day"),
        ("Mon 08:60-09:00 UTC", "'08:60' is no time of day"),
        ("Mon 24:00-09:00 UTC", "no span"),
        ("Mon 08:00-08:00 UTC", "no span"),
        ("08:00-17:00 UTC", "form"),
        ("", "form"),
    ],
)
def test_what_are_no_hours_is_refused_by_what_is_wrong(text: str, problem: str) -> None:
    """Ours: the file names it."""
    with pytest.raises(ValueError, match=problem):
        hours(text)


SOME = ["Mon-Thu 08:00-17:00 Europe/Berlin", "Sat,Sun 22:30-06:00 America/New_York", "Wed 00:00-24:00 Asia/Kathmandu"]


@given(st.sampled_from(SOME), st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)))  # noqa: DTZ001 - UTC below
def test_the_next_opening_lies_ahead_and_is_open(text: str, moment: datetime) -> None:
    """Ours: a refusal says when to come again."""
    some, now = hours(text), moment.replace(tzinfo=UTC)
    opens = some.next_after(now)
    assert now < opens <= now + timedelta(days=8)
    assert some.open_at(opens)
    assert not some.open_at(opens - timedelta(minutes=1)) or text.startswith("Wed")
