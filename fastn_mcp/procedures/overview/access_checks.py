"""Findings about connections, keys, invitations and activations."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from fastn_mcp.fastn.names import counted, label_of
from fastn_mcp.fastn.rows import Row, key_of, short, timestamp, value, word
from fastn_mcp.fastn.states import NOT_WORKING, State, connection_state
from fastn_mcp.procedures.overview.finding import AccountFinding, Example, Severity, examples, sentence
from fastn_mcp.procedures.tables import age
from fastn_mcp.tools.api_keys import EXPIRES, ListApiKeys
from fastn_mcp.tools.connections import ListConnections
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.users import ListUsers

SOON = timedelta(days=14)
"""A key that expires within this time is worth a word."""

UNUSED = timedelta(days=7)
"""Nobody has to use a key, or accept an invitation, on the first day."""

NAMED = 2
"""Connections of one status that are named: their ids are long, and the focus on connections shows them all."""

PENDING = "Pending Admin Activation"

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
