"""Counts, times and ages as people read them."""

import re
from datetime import UTC, datetime, timedelta

from fastn_mcp.redaction import quote

_PLAIN_NAME = re.compile(r"(?=.{1,60}\Z)[-&@+/.]?[^\W_]+(?:[-&@+/.][^\W_]+)*(?: [^\W_]+(?:[-&@+/.][^\W_]+)*){,6}")
"""A few words without a mark that could end a sentence, begin another or name a tool."""

_DAY = 86_400
_UNITS = (
    (60, 1, "second"),
    (3_600, 60, "minute"),
    (_DAY, 3_600, "hour"),
    (60 * _DAY, _DAY, "day"),  # no weeks: `2 weeks` of 20 days
    (365 * _DAY, 30.4 * _DAY, "month"),
    (float("inf"), 365 * _DAY, "year"),
)
"""Age in seconds up to which a unit is used, and its length."""


def counted(count: int, noun: str, *, at_least: bool = False) -> str:
    """Return a count with its noun: `1 key`, `3 keys`, `at least 100 keys`."""
    words = f"{count:,} {noun if count == 1 else f'{noun}s'}"
    return f"at least {words}" if at_least else words


def lasting(length: timedelta) -> str:
    """Return a length of time: `22 h`."""
    seconds = length.total_seconds()
    size, unit = next(step for step in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= 2 * step[0] or step[0] == 1)
    return f"{seconds / size:,.0f} {unit}"


def sentence(text: str) -> str:
    """Capitalize the first letter."""
    return text[:1].upper() + text[1:]


def quoted(name: str) -> str:
    """Return a text from Fastn for one of our sentences: in quotes, so that it cannot pose as ours, unless plain."""
    return name if not name or _PLAIN_NAME.fullmatch(name) else quote(name, is_name=True)


def kind_in_words(kind: str) -> str:
    """Return a kind of resource in words: `API key` for `api_key`."""
    return kind.replace("_", " ").replace("api", "API")


def field_in_words(name: str) -> str:
    """Return the name of a field in words: `external ref` for `externalRef`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


def aged(moment: datetime, now: datetime) -> str:
    """Format a time with its age: `2026-11-25T09:00:00Z (3 hours ago)`."""
    return f"{stamp(moment)} ({age(moment, now)})"


_TIME_WITH_AGE = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)[\d:.]*Z)? \(([^()]*)\)(?=,|$)")
"""A time or a date as `aged` and `dated` format it."""


def age_only(text: str) -> str:
    """Return a text with the age alone of each time in it: `3 hours ago`."""
    return _TIME_WITH_AGE.sub(r"\3", text)


def age_first(text: str) -> str:
    """Return a text with the age of each time in it before the time: `3 hours ago, 2026-11-25 09:00 UTC`."""

    def turned(match: re.Match[str]) -> str:
        day, time, age = match.groups()
        return f"{age}, {day}" if time is None else f"{age}, {day} {time} UTC"

    return _TIME_WITH_AGE.sub(turned, text)


def named_id(key: str, name: str) -> str:
    """Format an id with the name that it stands for: `wf_8a1f03c2 (Nightly sync)`."""
    return f"{key} ({name})"


_ID_WITH_NAME = re.compile(
    r"\b(?:[a-z]+ )?(?:[a-z]+_\w{8,}|[0-9a-f]{8}-[0-9a-f-]{27}|\w+:[\w:.~-]{20,}) \((.+?)\)(?=, |$)"
)
"""An id as `named_id` formats it, perhaps after its kind."""


def name_only(text: str) -> str:
    """Return a text with the name alone of each id in it that has one: `Nightly sync`."""
    return _ID_WITH_NAME.sub(r"\1", text)


def stamp(moment: datetime) -> str:
    """Format a time: `2026-11-25T09:00:00Z`."""
    return f"{moment.astimezone(UTC).isoformat()[:19]}Z"


def dated(moment: datetime, now: datetime) -> str:
    """Format a date with its age: `2026-11-25 (3 hours ago)`."""
    return f"{moment.astimezone(UTC).date().isoformat()} ({date_age(moment, now)})"


def date_age(moment: datetime, now: datetime) -> str:
    """Format the age of a date: from a day on, the days between the dates, of which the 4th is two after the 2nd."""
    length = abs(now - moment)
    if not timedelta(days=1) <= length < timedelta(days=60):
        return age(moment, now)
    days = (now.astimezone(UTC).date() - moment.astimezone(UTC).date()).days
    return f"{counted(days, 'day')} ago" if days > 0 else f"in {counted(-days, 'day')}"


def since(at: float, now: float) -> str:
    """Format Unix seconds as `aged` does."""
    return aged(datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC))


def age(moment: datetime, now: datetime) -> str:
    """Format an age: `3 hours ago`, `in 5 days`, `just now`."""
    seconds = (now - moment).total_seconds()
    amount = abs(seconds)
    if amount < 5:
        return "just now"
    length, unit = next((length, unit) for limit, length, unit in _UNITS if amount < limit)
    words = counted(int(amount / length), unit)
    return f"{words} ago" if seconds > 0 else f"in {words}"
