"""Hours of the week in a time zone, as `Mon-Thu 08:00-17:00 Europe/Berlin`.

They are what a clock on the wall shows: an hour that comes twice when summer time ends is open twice.
"""

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo, available_timezones

from fastn_mcp.errors import nearest

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FORM = re.compile(
    r"(?P<days>[A-Za-z][A-Za-z, -]*?)\s+(?P<start>\d\d:\d\d)\s?-\s?(?P<end>\d\d:\d\d)(?:\s+(?P<zone>\S+))?"
)
_WHOLE_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """From `start` to before `end`, in minutes of the day; where `end` is not later, until the next day."""

    text: str
    days: frozenset[int]
    start: int
    end: int
    zone: ZoneInfo

    def open_at(self, now: datetime) -> bool:
        """Whether `now` lies in them."""
        local = now.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        today = local.weekday() in self.days
        if self.start < self.end:
            return today and self.start <= minute < self.end
        yesterday = (local.weekday() - 1) % 7 in self.days
        return (today and minute >= self.start) or (yesterday and minute < self.end)

    def next_after(self, now: datetime) -> datetime:
        """When they begin next, in their own time zone."""
        first = now.astimezone(self.zone).date()
        begin = time(self.start // 60, self.start % 60, tzinfo=self.zone)
        days = (datetime.combine(first + timedelta(days=ahead), begin) for ahead in count())
        return next(day for day in days if day.weekday() in self.days and day.timestamp() > now.timestamp())

    def __str__(self) -> str:
        return self.text


def hours(text: str) -> Hours:
    """The hours that a text names. Raises `ValueError`."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{text!r} is not of the form "Mon-Thu 08:00-17:00 Europe/Berlin"')
    if found["zone"] is None:
        raise ValueError(f'{text!r} names no time zone, as in "Mon-Thu 08:00-17:00 Europe/Berlin"')
    start, end = _minute(found["start"]), _minute(found["end"])
    if start in (end, _WHOLE_DAY):
        raise ValueError(f"{found['start']}-{found['end']} is no span of time; a whole day is 00:00-24:00")
    return Hours(text, _days(found["days"]), start, end, _zone(found["zone"]))


def _minute(text: str) -> int:
    hour, minute = (int(part) for part in text.split(":"))
    if minute > 59 or hour * 60 + minute > _WHOLE_DAY:
        raise ValueError(f"{text!r} is no time of day")
    return hour * 60 + minute


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        begin = _day(first)
        length = (_day(last) - begin) % 7 if dash else 0
        days |= {(begin + ahead) % 7 for ahead in range(length + 1)}
    return frozenset(days)


def _day(text: str) -> int:
    name = text.strip().capitalize()
    if name not in _DAYS:
        raise ValueError(f"unknown day {text.strip()!r}{nearest(name, _DAYS)}; use one of {', '.join(_DAYS)}")
    return _DAYS.index(name)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = available_timezones()
        if not known:
            raise ValueError("this machine has no time zones; install the package tzdata") from None
        raise ValueError(f"there is no time zone {name!r}{nearest(name, known)}") from None
