"""Findings about connections, keys, invitations, activations, quotas and credits."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue

from fastn_mcp.fastn.names import counted, label_of, sentence
from fastn_mcp.fastn.rows import Row, inside, key_of, number, short, text, timestamp, value, word
from fastn_mcp.fastn.states import NOT_WORKING, PENDING, State, connection_state
from fastn_mcp.procedures.overview.snapshot import AccountFinding, Example, Severity, examples
from fastn_mcp.procedures.tables import age
from fastn_mcp.tools.account import EXPIRES, GetBilling, GetQuotas, ListApiKeys, ListUsers
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import ListCustomers

SOON = timedelta(days=14)
"""A key that expires within this time is worth a word."""

UNUSED = timedelta(days=7)
"""Nobody has to use a key, or accept an invitation, on the first day."""

NAMED = 2
"""Connections of one status that are named: their ids are long, and the focus on connections shows them all."""

_AGAIN = "the customer has to authorise again"
_WHY = {
    "FAILED": ("its authorisation was revoked or no longer fits", _AGAIN),
    "EXPIRED": ("its credentials could not be renewed", _AGAIN),
    "INACTIVE": ("it was switched off", "somebody has to reconnect it in the dashboard"),
}


def not_working(connections: Sequence[Row], customers: Mapping[str, str], more: bool) -> list[AccountFinding]:
    """Connections that cannot be used. `customers` are names by id; `more`: there are others that were not read."""
    findings: list[AccountFinding] = []
    for status in NOT_WORKING:
        rows = [row for row in connections if word(row, "status") == status.lower()]
        if not rows:
            continue
        one, (why, cure) = len(rows) == 1, _WHY[status]
        if not one:
            why = re.sub(r"^its", "their", re.sub(r"^it was", "they were", why))
            cure = cure.replace("reconnect it", "reconnect them")
        what = f"{counted(len(rows), 'connection', at_least=more)} {'is' if one else 'are'} {status}: {why}; {cure}."
        names = {"customer": customers}
        named = tuple(
            Example(key_of(row), short(str(label_of("connection", row, names)))) for row in rows[:NAMED] if key_of(row)
        )
        severity = Severity.HIGH if connection_state(rows[0]) is State.BROKEN else Severity.LOW
        findings.append(AccountFinding(severity, sentence(what), ListConnections(status=status), named))
    return findings


def keys(rows: Sequence[Row], now: datetime) -> list[AccountFinding]:
    """API keys that expire, have expired, were never used, or may do everything."""
    usable = [row for row in rows if word(row, "status") not in ("revoked", "expired", "disabled")]
    expiries = {key_of(row): timestamp(row, *EXPIRES) for row in usable}
    gone = [row for row in usable if (at := expiries[key_of(row)]) is not None and at <= now]
    usable = [row for row in usable if row not in gone]
    soon = [row for row in usable if (at := expiries[key_of(row)]) is not None and at <= now + SOON]
    unused = [row for row in usable if _never_used(row) and _older(row, now)]
    full = [row for row in usable if word(row, "permissions.preset", "permissions", "preset") == "full access"]
    findings: list[AccountFinding] = []
    if soon:
        first = min(soon, key=lambda row: expiries[key_of(row)] or now)
        when = age(expiries[key_of(first)] or now, now)
        verb = "expires" if len(soon) == 1 else "expire within two weeks, the first"
        findings.append(_of_keys(Severity.MEDIUM, soon, "API key", f"{verb} {when}"))
    if full:
        verb = "has" if len(full) == 1 else "have"
        findings.append(_of_keys(Severity.MEDIUM, full, "API key", f"{verb} Full access"))
    if gone:
        verb = "has" if len(gone) == 1 else "have"
        findings.append(_of_keys(Severity.LOW, gone, "API key", f"{verb} expired"))
    if unused:
        verb = "was" if len(unused) == 1 else "were"
        findings.append(_of_keys(Severity.LOW, unused, "API key", f"{verb} never used and could be revoked"))
    return findings


def _of_keys(severity: Severity, rows: Sequence[Row], noun: str, what: str) -> AccountFinding:
    return AccountFinding(severity, f"{counted(len(rows), noun)} {what}.", ListApiKeys(), examples(rows))


def _never_used(row: Row) -> bool:
    fields = ("lastUsed", "lastUsedAt", "last_used", "last_used_at")
    return any(field in row for field in fields) and value(row, *fields) in (None, "", "never", "Never")


def _older(row: Row, now: datetime) -> bool:
    made = timestamp(row, "createdAt", "addedAt", "invitedAt")
    return made is not None and made < now - UNUSED


def invited(users: Sequence[Row], now: datetime, more: bool) -> list[AccountFinding]:
    """People who never came."""
    rows = [row for row in users if word(row, "status") in ("invited", "pending") and _older(row, now)]
    if not rows:
        return []
    who = counted(len(rows), "person", at_least=more, plural="people")
    verb = "was" if len(rows) == 1 else "were"
    what = f"{who} {verb} invited over a week ago and never came."
    named = tuple(Example(key_of(row), short(str(label_of("user", row) or key_of(row)))) for row in rows if key_of(row))
    return [AccountFinding(Severity.LOW, sentence(what), ListUsers(status="Invited"), named)]


def pending(customers: Sequence[Row], total: int | None, more: bool) -> list[AccountFinding]:
    """Customers whose admin has not activated them; `total` of them where Fastn says so, else `more` than these."""
    rows = [row for row in customers if word(row, "status").startswith("pending")]
    if not rows:
        return []
    verb = "waits" if len(rows) == 1 else "wait"
    said = counted(total or len(rows), "customer", at_least=more and total is None)
    what = f"{said} {verb} for activation by the admin; nothing runs there yet."
    return [AccountFinding(Severity.MEDIUM, sentence(what), ListCustomers(status=PENDING), examples(rows))]


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
