"""Quotas and AI credits: their use, whose they are and when they reset, as far as Fastn says so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from fastn_mcp.records.formats import aged, quoted, stamp
from fastn_mcp.records.rows import Row, as_word, inside, number, owner_of, short, text, timestamp, without_empty, word

_USES = ("used", "usage", "current", "consumed", "count", "value")
_LIMITS = ("limit", "max", "maximum", "included", "quota", "allowed", "total")
"""Fields with a used and a permitted amount, the most usual name first."""

_PERCENTS = ("percent", "percentage", "percentUsed", "usedPercent", "usagePercent")
_RESETS = ("resetsAt", "resetAt", "resetTime", "nextReset", "periodEnd")
_MAX_DEPTH = 6

_RESET_OF_PERIOD = {
    "minute": "each minute",
    "hour": "each hour",
    "day": "each day; Fastn does not say at which hour",
    "month": "each month; Fastn does not say on which day",
}
"""When a quota resets whose time Fastn does not name, by a word of its scope."""

_NO_PERIOD = "no period is named: it counts what there is"

_RUN_WORDS = ("execution", "run")
"""Parts of the names of quotas that limit runs."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit, and the percentage used."""

    name: str
    """With its scope: `API calls per day`."""
    percent: float
    numbers: str
    whose: str
    """Whose use it limits; empty if Fastn does not say."""
    resets_at: datetime | None
    scope: str = ""
    """As `per day`."""

    def __str__(self) -> str:
        numbers = f"{self.numbers}, " if self.numbers else ""
        return f"{quoted(self.name)} {numbers}{self.percent:.0f} %"

    def data(self, now: datetime) -> dict[str, JsonValue]:
        return {
            "name": self.name,
            "used": f"{self.numbers} ({self.percent:.0f} %)" if self.numbers else f"{self.percent:.0f} %",
            "whose": self.whose or "Fastn does not say",
            "resets": self.resets(now),
        }

    def resets(self, now: datetime) -> str:
        """Return when it resets: by its time, or else by the period of its scope."""
        if self.resets_at is not None:
            return aged(self.resets_at, now)
        return next((words for period, words in _RESET_OF_PERIOD.items() if period in self.scope), _NO_PERIOD)


def quotas_of(answer: JsonValue | Row) -> list[Quota]:
    """Return every quota in an answer, the fullest first."""
    return sorted(_quotas(answer), key=lambda quota: -quota.percent)


def _quotas(found: JsonValue | Row, path: tuple[str, ...] = (), depth: int = 0) -> Iterator[Quota]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(found, list):
        for item in found:
            yield from _quotas(item, path, depth + 1)
    elif isinstance(found, dict):
        quota = _quota(found, path)
        if quota is not None:
            yield quota
            return
        for name, item in found.items():
            # Names of mere wrappers are not part of a quota's name.
            wraps = isinstance(item, list) or name in ("data", "value", "quotas", "limits")
            yield from _quotas(item, path if wraps else (*path, name), depth + 1)


def _quota(row: Row, path: tuple[str, ...]) -> Quota | None:
    limit = number(row, *_LIMITS)
    used = number(row, *_USES)
    percent = number(row, *_PERCENTS)
    numbers = ""
    if limit is not None and used is not None and limit > 0:
        percent = 100 * used / limit
        numbers = f"{used:,.10g} of {limit:,.10g}"
    if percent is None:
        return None
    name = text(row, "name", "metric", "resource", "key") or " ".join(path)
    name = " ".join(filter(None, (name, text(row, "scope"))))
    return Quota(
        short(name or "a quota", 60),
        percent,
        numbers,
        whose=_whose(row),
        resets_at=timestamp(row, *_RESETS),
        scope=word(row, "scope", "period", "window") or as_word(name),
    )


def with_resets(answer: Row, now: datetime) -> dict[str, JsonValue]:
    """Return an answer about quotas with when each of its listed ones resets."""

    def described(item: JsonValue) -> JsonValue:
        quota = _quota(item, ()) if isinstance(item, dict) else None
        return item if quota is None or not isinstance(item, dict) else {**item, "resets": quota.resets(now)}

    return {name: [*map(described, rows)] if isinstance(rows, list) else rows for name, rows in answer.items()}


def unlimited(quotas: Sequence[Quota]) -> str:
    """Return what none of the quotas limits that people ask about, and what they do not say they count."""
    limits_runs = any(part in quota.name.casefold() for quota in quotas for part in _RUN_WORDS)
    runs = "" if limits_runs else "No quota named here limits how many runs a workflow makes. "
    return f"{runs}API calls are requests to Fastn's API, this server's too. Fastn does not document what else counts."


def _whose(row: Row) -> str:
    """Return whose quota a row is. One for each customer, or an override, is some customer's, who may not be named."""
    named = text(row, "customer.name", "customerName", "endOrg.name") or owner_of(row) or ""
    of_customers = "customer" in word(row, "scope") or word(row, "source") == "override"
    return short(named) or ("" if of_customers else "the account")


@dataclass(frozen=True, slots=True)
class Credits:
    """AI credits: None for what the record does not tell."""

    used: float | None
    included: float | None
    resets_at: datetime | None

    @property
    def balance(self) -> str:
        """The credits that are left, in a sentence; empty if they are not known."""
        if self.used is None or self.included is None:
            return ""
        until = f" until {self.resets_at:%Y-%m-%d}" if self.resets_at else ""
        return f"{max(self.included - self.used, 0):,.10g} of {self.included:,.10g} are left{until}."


def credits_of(billing: Row) -> Credits:
    """Return the AI credits of a billing record."""
    row = _credits(billing)
    return Credits(number(row, *_USES), number(row, *_LIMITS), timestamp(row, *_RESETS))


def _credits(billing: Row) -> Row:
    return inside(billing, "credits") or inside(billing, "aiCredits")


def credits_used(reply: Row) -> float | None:
    """Return the credits that a reply of Fastn's AI says it used; None if it does not say."""
    return number(reply, "credits_used")


def plan(billing: Row) -> dict[str, JsonValue]:
    """Return plan and credits, as far as the answer contains them."""
    credits_ = credits_of(billing)
    fields: Row = {
        "name": short(text(billing, "plan.name", "plan.slug", "plan.id", "plan", "planName", "tier")),
        "credits_used": credits_.used,
        "credits_included": credits_.included,
        "credits_reset_at": credits_.resets_at and stamp(credits_.resets_at),
    }
    return without_empty(fields)


def credits_quota(billing: Row) -> list[Quota]:
    """Return the AI credits as a quota, if the answer contains them."""
    quota = _quota(_credits(billing), ("AI credits",))
    return [quota] if quota else []
