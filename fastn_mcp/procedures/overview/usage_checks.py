"""Findings about quotas and credits."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from fastn_mcp.fastn.rows import Row, inside, number, short, text
from fastn_mcp.procedures.overview.finding import AccountFinding, Severity
from fastn_mcp.tools.billing import GetBilling, GetQuotas

NEAR = 80.0
"""Percent of a limit at which it is worth a word."""

_FULL = 100.0
_NAMED = 3
_LIMITS = ("limit", "max", "maximum", "included", "quota", "allowed", "total")
_USES = ("used", "usage", "current", "consumed", "count", "value")
_PERCENTS = ("percent", "percentage", "percentUsed", "usedPercent", "usagePercent")
_CREDITS = ("credits", "aiCredits")
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit and how much of it is used, in percent."""

    name: str
    percent: float
    numbers: str

    def __str__(self) -> str:
        return f"{self.name} {self.numbers}{self.percent:.0f} %"


def quotas(answer: JsonValue) -> list[Quota]:
    """Every limit in an answer, the fullest first."""
    return sorted(_found(answer, (), 0), key=lambda quota: -quota.percent)


def near(answer: JsonValue) -> list[AccountFinding]:
    """The limits that are nearly used up."""
    close = [quota for quota in quotas(answer) if quota.percent >= NEAR]
    if not close:
        return []
    verb = "quota is" if len(close) == 1 else "quotas are"
    severity = Severity.HIGH if close[0].percent >= _FULL else Severity.MEDIUM
    said = ", ".join(map(str, close[:_NAMED])) + (f" and {more} more" if (more := len(close) - _NAMED) > 0 else "")
    what = f"{len(close)} {verb} at {NEAR:.0f} % or more: {said}."
    return [AccountFinding(severity, what, GetQuotas())]


def plan(billing: Row) -> dict[str, JsonValue]:
    """Plan and credits, as far as they are said."""
    found: dict[str, JsonValue] = {}
    if name := text(billing, "plan.name", "plan.slug", "plan.id", "plan", "planName", "tier"):
        found["name"] = short(name)
    credits_ = _credits(billing)
    used, included = number(credits_, *_USES), number(credits_, *_LIMITS)
    if used is not None:
        found["credits_used"] = used
    if included is not None:
        found["credits_included"] = included
    if resets := text(credits_, "resetsAt"):
        found["credits_reset_at"] = short(resets)
    return found


def credits_left(billing: Row) -> list[AccountFinding]:
    """AI credits that are nearly spent."""
    used, included = number(_credits(billing), *_USES), number(_credits(billing), *_LIMITS)
    if used is None or not included or 100 * used / included < NEAR:
        return []
    severity = Severity.HIGH if used >= included else Severity.MEDIUM
    return [AccountFinding(severity, f"{used:,.10g} of {included:,.10g} AI credits are used.", GetBilling())]


def _credits(billing: Row) -> Row:
    for name in _CREDITS:
        if found := inside(billing, name):
            return found
    return {}


def _found(value: JsonValue, path: tuple[str, ...], depth: int) -> Iterator[Quota]:
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for item in value:
            yield from _found(item, path, depth + 1)
    elif isinstance(value, dict):
        quota = _quota(value, path)
        if quota is not None:
            yield quota
            return
        for name, item in value.items():
            # What merely wraps the quotas names none of them.
            named = path if isinstance(item, list) or name in ("data", "value", "quotas", "limits") else (*path, name)
            yield from _found(item, named, depth + 1)


def _quota(row: Row, path: tuple[str, ...]) -> Quota | None:
    limit, used = number(row, *_LIMITS), number(row, *_USES)
    percent = number(row, *_PERCENTS)
    numbers = ""
    if limit is not None and used is not None and limit > 0:
        percent = 100 * used / limit
        numbers = f"{used:,.10g} of {limit:,.10g}, "
    if percent is None:
        return None
    name = " ".join(
        filter(None, (text(row, "name", "metric", "resource", "key") or " ".join(path), text(row, "scope")))
    )
    return Quota(short(name or "a quota", 60), percent, numbers)
