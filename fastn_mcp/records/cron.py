"""Five-field cron schedules: the next occurrence, words, and whether one schedule fires only when another does."""

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_PART = r"(\*|\d+-\d+)(/\d+)?|\d+"
_PORTABLE = re.compile(rf"(({_PART})(,({_PART}))*[ ]){{4}}({_PART})(,({_PART}))*", re.ASCII)
_WRONG_ORDINAL = re.compile(r"\b([2-5][123])th\b")
"""Written by cronsim 2.8 in its explanations: `31th`."""

_LONGEST = 40
"""Maximum length of a schedule that is put into words, in characters."""

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
        raise ValueError("it never fires") from None


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
        raise ValueError("not an IANA time zone") from error


def _parsed(schedule: str, after: datetime) -> CronSim:
    if len(schedule.split()) != 5:
        raise ValueError("cron has five fields")
    try:
        return CronSim(schedule, after)
    except CronSimError as error:
        raise ValueError(f"not a cron schedule: {error}") from None


def words(schedule: str) -> str | None:
    """Return a schedule in words: `at 15:00 every day`. None if dialects of cron differ on it, or if it is long."""
    if len(schedule) > _LONGEST or not _PORTABLE.fullmatch(schedule):
        return None
    _, _, of_month, _, of_week = schedule.split()
    if "*" not in (of_month, of_week):  # either may have to match, or both
        return None
    try:
        explained = _parsed(schedule, datetime(2000, 1, 1, tzinfo=UTC)).explain()
    except ValueError:
        return None
    text = explained[0].lower() + explained[1:].replace(" minute of every hour", " minute")
    return _WRONG_ORDINAL.sub(lambda match: match[1] + {"1": "st", "2": "nd", "3": "rd"}[match[1][-1]], text)
