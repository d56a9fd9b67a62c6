"""When a schedule fires next: cron of five fields. Pure."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# Minute, hour, day of the month, month, day of the week: the least and the greatest value.
_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_PART = re.compile(r"(\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?")
_FARTHEST_DAYS = 366 * 5


def next_run(schedule: str, timezone: str, after: datetime) -> datetime:
    """The first minute after `after` at which it fires, in UTC. Raises ValueError."""
    minutes, hours, days, months, weekdays = _fields(schedule)
    restricted = schedule.split()[2] != "*" and schedule.split()[4] != "*"
    start = after.astimezone(_zone(timezone)).replace(second=0, microsecond=0) + timedelta(minutes=1)
    day = start
    for _ in range(_FARTHEST_DAYS):
        of_month, of_week = day.day in days, day.isoweekday() % 7 in weekdays
        # Where both are restricted, cron takes either.
        if day.month in months and (of_month or of_week if restricted else of_month and of_week):
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    found = day.replace(hour=hour, minute=minute)
                    if found >= start:
                        return found.astimezone(UTC)
        day = day.replace(hour=0, minute=0) + timedelta(days=1)
    raise ValueError("it never fires")


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC  # some machines have no data of time zones
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("not an IANA time zone") from error


def _fields(schedule: str) -> list[frozenset[int]]:
    fields = schedule.split()
    if len(fields) != len(_LIMITS):
        raise ValueError("cron has five fields")
    parsed = [_values(text, low, high) for text, (low, high) in zip(fields, _LIMITS, strict=True)]
    return [*parsed[:4], frozenset(day % 7 for day in parsed[4])]


def _values(text: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise ValueError(f"{part!r} is no cron field")
        whole, first, last, step = found.groups()
        begin = low if whole == "*" else int(first)
        end = high if whole == "*" or (step and not last) else int(last or first)
        if not low <= begin <= end <= high or step == "0":
            raise ValueError(f"{part!r} is out of range")
        values.update(range(begin, end + 1, int(step or 1)))
    return frozenset(values)
