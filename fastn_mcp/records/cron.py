"""Five-field cron schedules: the next occurrence, and whether one schedule fires only when another does."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_PART = r"(\*|\d+-\d+)(/\d+)?|\d+"
_PORTABLE = re.compile(rf"(({_PART})(,({_PART}))*[ ]){{4}}({_PART})(,({_PART}))*", re.ASCII)
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def is_subset(schedule: str, other: object) -> bool:
    """Return whether `schedule` provably fires only when `other` does, in the same time zone."""
    # Cron dialects differ on names, L, # and a step without a range.
    if not isinstance(other, str) or not (_PORTABLE.fullmatch(schedule) and _PORTABLE.fullmatch(other)):
        return False
    try:
        ours, theirs = (_parsed(text, datetime(2000, 1, 1, tzinfo=UTC)) for text in (schedule, other))
    except ValueError:
        return False
    return (
        ours.minutes <= theirs.minutes
        and ours.hours <= theirs.hours
        and all(_days(ours, schedule, steps) <= _days(theirs, other, steps) for steps in (False, True))
    )


def next_run(schedule: str, timezone: str, after: datetime) -> datetime:
    """Return the first run after `after`, in UTC. Raises ValueError if there is none or an argument is invalid."""
    try:
        return next(_parsed(schedule, after.astimezone(_zone(timezone)))).astimezone(UTC)
    except StopIteration:
        raise ValueError("the schedule never fires") from None


def firings(schedule: str, timezone: str, after: datetime, length: timedelta) -> int:
    """Return how often a schedule fires in a time after `after`. Raises ValueError if an argument is invalid."""
    end = after + length
    coming = _parsed(schedule, after.astimezone(_zone(timezone)))
    return sum(1 for _ in takewhile(lambda at: at.astimezone(UTC) <= end, coming))


def _days(cron: CronSim, schedule: str, star_steps: bool) -> set[tuple[int, int, int]]:
    """Return each (month, day, weekday) on which it fires. Every combination occurs within 28 years.

    If both day fields are restricted, either may match. Dialects differ on whether `*/2` restricts: with `star_steps`
    it does.
    """
    _, _, of_month, _, of_week = schedule.split()
    restricted = [field != "*" if star_steps else not field.startswith("*") for field in (of_month, of_week)]
    weekdays = {day % 7 for day in cron.weekdays if isinstance(day, int)}
    combine = any if all(restricted) else all
    return {
        (month, day, weekday)
        for month in cron.months
        for day in range(1, _DAYS[month - 1] + 1)
        for weekday in range(7)
        if combine((day in cron.days, weekday in weekdays))
    }


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC  # a machine may have no time zone database
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("the time zone is not an IANA zone") from error


def _parsed(schedule: str, after: datetime) -> CronSim:
    if len(schedule.split()) != 5:
        raise ValueError("the schedule does not have the five fields of cron")
    try:
        return CronSim(schedule, after)
    except CronSimError as error:
        raise ValueError(f"the schedule is not one of cron ({error})") from None


_WEEKDAYS = ("Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")


def words(schedule: str) -> str | None:
    """Return a simple schedule in words: `every 15 minutes`, `daily at 15:00`. None if it is not simple."""
    fields = schedule.split()
    if len(fields) != 5 or fields[3] != "*":
        return None
    minute, hour, day, _, weekday = fields
    if (day, weekday) == ("*", "*") and (often := _interval(minute, hour)):
        return often
    if not (_is_below(minute, 60) and _is_below(hour, 24)):
        return None
    at = f"{int(hour):02}:{int(minute):02}"
    if (day, weekday) == ("*", "*"):
        return f"daily at {at}"
    if day == "*":
        on = None
        if weekday == "1-5":
            on = "weekdays"
        elif _is_below(weekday, 8):
            on = _WEEKDAYS[int(weekday)]
        return f"on {on} at {at}" if on else None
    return f"on day {int(day)} of each month at {at}" if weekday == "*" and _is_below(day, 32) else None


def _interval(minute: str, hour: str) -> str | None:
    """Return how often it fires if that is at equal intervals of up to some hours."""
    if hour == "*":
        if minute in ("*", "*/1"):
            return "every minute"
        if minute == "0":
            return "every hour"
        step = minute.removeprefix("*/")
        return f"every {int(step)} minutes" if minute != step and _divides(step, 60) else None
    step = hour.removeprefix("*/")
    return f"every {int(step)} hours" if minute == "0" and hour != step and _divides(step, 24) else None


def _is_below(field: str, limit: int) -> bool:
    return field.isascii() and field.isdecimal() and len(field) <= 2 and int(field) < limit


def _divides(step: str, whole: int) -> bool:
    return _is_below(step, whole) and int(step) > 1 and whole % int(step) == 0
