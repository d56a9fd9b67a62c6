"""Who gets in and who does not: connections that lost their credentials, keys, invitations, activations. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from fastn_mcp.procedures.ages import age
from fastn_mcp.procedures.troubles import Example, Finding, Severity, counted, examples, sentence
from fastn_mcp.procedures.troubles.rows import Row, inside, key_of, moment, name_of, short, text, word
from fastn_mcp.tools.api_keys import ListApiKeys
from fastn_mcp.tools.connections import ListConnections
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.users import ListUsers

SOON = timedelta(days=14)
"""A key that expires within this time is worth a word."""

UNUSED = timedelta(days=7)
"""Nobody has to use a key, or accept an invitation, on the first day."""

NAMED = 2
"""Broken connections of one status that are named: their ids are long, and the focus on connections shows them all."""

PENDING = "Pending Admin Activation"

_BROKEN = {
    "FAILED": "its authorisation was revoked or no longer fits",
    "EXPIRED": "its credentials could not be renewed",
}


def owner_of(connection: Row) -> str | None:
    """Id of the customer whose connection it is."""
    return text(connection, "endOrgId", "customerId")


def broken(connections: Sequence[Row], customers: Mapping[str, str], more: bool) -> list[Finding]:
    """Connections that no longer work. `customers` are names by id; `more`: there are others that were not read."""
    findings: list[Finding] = []
    for status, why in _BROKEN.items():
        rows = [row for row in connections if word(row, "status") == status.casefold()]
        if not rows:
            continue
        verb = "is" if len(rows) == 1 else "are"
        what = f"{counted(len(rows), 'connection', at_least=more)} {verb} {status}: "
        what += f"{why if len(rows) == 1 else why.replace('its', 'their', 1)}; the customer has to authorise again."
        named = tuple(Example(key_of(row), called(row, customers)) for row in rows[:NAMED] if key_of(row))
        findings.append(Finding(Severity.HIGH, sentence(what), ListConnections(status=status), named))
    return findings


def called(row: Row, customers: Mapping[str, str]) -> str:
    """What people call a connection: its own name is mostly "default". `customers` are names by id."""
    connector = inside(row, "connector")
    app = text(connector, "name", "slug") or text(row, "connectorName", "name", "connectorId") or "a connection"
    owner = owner_of(row)
    return short(f"{app} of {customers.get(owner, owner) if owner else 'the account itself'}")


def keys(rows: Sequence[Row], now: datetime) -> list[Finding]:
    """API keys that expire, have expired, were never used, or may do everything."""
    usable = [row for row in rows if word(row, "status") not in ("revoked", "expired", "disabled")]
    expiries = {key_of(row): moment(row, "expiresAt", "expires") for row in usable}
    gone = [row for row in usable if (at := expiries[key_of(row)]) is not None and at <= now]
    usable = [row for row in usable if row not in gone]
    soon = [row for row in usable if (at := expiries[key_of(row)]) is not None and at <= now + SOON]
    unused = [row for row in usable if _never_used(row) and _older(row, now)]
    full = [row for row in usable if word(row, "permissions", "preset").replace("_", " ") == "full access"]
    findings: list[Finding] = []
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


def _of_keys(severity: Severity, rows: Sequence[Row], noun: str, what: str) -> Finding:
    return Finding(severity, f"{counted(len(rows), noun)} {what}.", ListApiKeys(), examples(rows))


def _never_used(row: Row) -> bool:
    for field in ("lastUsed", "lastUsedAt"):
        if field in row:
            return row[field] is None or word(row, field) in ("", "never")
    return False


def _older(row: Row, now: datetime) -> bool:
    made = moment(row, "createdAt", "addedAt", "invitedAt")
    return made is not None and made < now - UNUSED


def invited(users: Sequence[Row], now: datetime, more: bool) -> list[Finding]:
    """People who never came."""
    rows = [row for row in users if word(row, "status") in ("invited", "pending") and _older(row, now)]
    if not rows:
        return []
    who = counted(len(rows), "person", at_least=more, plural="people")
    verb = "was" if len(rows) == 1 else "were"
    what = f"{who} {verb} invited over a week ago and never came."
    named = tuple(Example(key_of(row), short(text(row, "email") or name_of(row))) for row in rows if key_of(row))
    return [Finding(Severity.LOW, sentence(what), ListUsers(status="Invited"), named)]


def pending(customers: Sequence[Row], total: int | None, more: bool) -> list[Finding]:
    """Customers whose admin has not activated them; `total` of them where Fastn says so, else `more` than these."""
    rows = [row for row in customers if word(row, "status").startswith("pending")]
    if not rows:
        return []
    verb = "waits" if len(rows) == 1 else "wait"
    said = counted(total or len(rows), "customer", at_least=more and total is None)
    what = f"{said} {verb} for activation by the admin; nothing runs there yet."
    return [Finding(Severity.MEDIUM, sentence(what), ListCustomers(status=PENDING), examples(rows))]
