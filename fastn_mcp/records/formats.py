"""Counts, times and ages as people read them."""

from datetime import UTC, datetime, timedelta

_STEPS = (
    (60, "second"),
    (60, "minute"),
    (24, "hour"),
    (7, "day"),
    (4.35, "week"),
    (12, "month"),
    (float("inf"), "year"),
)


def counted(count: int, noun: str, *, at_least: bool = False, plural: str = "") -> str:
    """Return a count with its noun: `1 key`, `3 keys`, `at least 100 keys`."""
    words = f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
    return f"at least {words}" if at_least else words


def lasting(length: timedelta) -> str:
    """Return a length of time: `22 h`."""
    seconds = length.total_seconds()
    size, unit = next(step for step in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= 2 * step[0] or step[0] == 1)
    return f"{seconds / size:,.0f} {unit}"


def sentence(text: str) -> str:
    """Capitalize the first letter."""
    return text[:1].upper() + text[1:]


def kind_in_words(kind: str) -> str:
    """Return a kind of resource in words: `API key` for `api_key`."""
    return kind.replace("_", " ").replace("api", "API")


def aged(moment: datetime, now: datetime) -> str:
    """Format a time with its age: `2026-11-25T09:00:00Z (3 hours ago)`."""
    return f"{stamp(moment)} ({age(moment, now)})"


def stamp(moment: datetime) -> str:
    """Format a time: `2026-11-25T09:00:00Z`."""
    return f"{moment.astimezone(UTC).isoformat()[:19]}Z"


def dated(moment: datetime, now: datetime) -> str:
    """Format a date with its age: `2026-11-25 (3 hours ago)`."""
    return f"{moment.astimezone(UTC).date().isoformat()} ({age(moment, now)})"


def since(at: float, now: float) -> str:
    """Format Unix seconds as `aged` does."""
    return aged(datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC))


def age(moment: datetime, now: datetime) -> str:
    """Format an age: `3 hours ago`, `in 5 days`, `just now`."""
    seconds = (now - moment).total_seconds()
    amount = abs(seconds)
    if amount < 5:
        return "just now"
    unit = "second"
    for step, unit in _STEPS:  # noqa: B007 the unit is used after the loop
        if amount < step:
            break
        amount /= step
    count = int(amount)
    words = counted(count, unit)
    return f"{words} ago" if seconds > 0 else f"in {words}"
