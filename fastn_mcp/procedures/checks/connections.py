"""Checks of connections: those that do not work, and those that will stop working."""

from collections.abc import Iterable, Sequence

from fastn_mcp.account.short_ids import short_id
from fastn_mcp.procedures.checks.check import Reading
from fastn_mcp.procedures.checks.expiry import expires_within, expiry_of, within
from fastn_mcp.procedures.checks.finding import Cells, Finding, Severity, TableRow, unread_names
from fastn_mcp.procedures.checks.parts import PartState, connection_states, listed, repairs
from fastn_mcp.records.formats import age, counted, dated, sentence
from fastn_mcp.records.rows import Row, text, timestamp
from fastn_mcp.records.states import State, auth_type, broken_since, connection_state, renews_itself

BROKEN = "broken connections"
"""The list of connections with a status of those that do not work; of a short list, all connections."""


def connections_of_status(status: str, reading: Reading) -> list[Finding]:
    """Report the connections with a status of those that do not work, the one with most failed runs first."""
    connections = reading.of(BROKEN)
    states = connection_states(connections.rows, unread_names(connections.rows))
    broken = [each for each in states if each.status == status]
    if not broken:
        return []
    rows = [_broken_row(each, reading) for each in broken]
    rows.sort(key=lambda row: -row.failed)
    count = counted(len(broken), "connection", at_least=connections.more)
    has = "has" if len(broken) == 1 else "have"
    severity = Severity.HIGH if broken[0].state is State.BROKEN else Severity.LOW
    what = f"{count} {has} the status {status}: {broken[0].problem}."
    return [Finding(severity, sentence(what), distinct_repairs(broken), rows=rows)]


def _broken_row(connection: PartState, reading: Reading) -> TableRow:
    fails = reading.fails_without.get(connection.id, {})
    failed = sum(fails.values())
    cells: Cells = {
        "id": short_id(connection.id),
        "name": connection.label,
        "since": broken_since(connection.row, reading.now).partition(" (")[0],
        "failed": reading.counts.failed(failed) or None,
        "auth": text(connection.row, "authType", "auth.type"),
        "fails": listed([f"{name} ({runs})" for name, runs in fails.items()], 1),
    }
    at = expiry_of(connection.row) or timestamp(connection.row, "lastUsedAt", "lastUsed")
    return TableRow(cells, failed, at=at, customer=connection.customer)


def distinct_repairs(connections: Iterable[PartState]) -> str:
    """Return who has to repair them, each customer counted once for each kind of authentication."""
    distinct = {(each.customer, auth_type(each.row)): each for each in connections}
    return repairs(distinct.values(), named=0)


def _expiring(reading: Reading) -> list[Row]:
    """Return the live connections that expire in the time looked ahead, or should have."""
    rows = reading.of("connections").rows
    return [row for row in rows if connection_state(row).is_usable and expires_within(row, reading.now, reading.ahead)]


def expiring_connections(reading: Reading) -> list[Finding]:
    """Report the live connections that expire, or should have, and that Fastn does not renew, the first first."""
    now = reading.now
    rows = [row for row in _expiring(reading) if not renews_itself(row, now)]
    if not rows:
        return []
    ending = connection_states(rows, unread_names(rows))
    table = [_expiring_row(each, reading) for each in ending]
    table.sort(key=lambda row: row.at or now)
    first = age(table[0].at or now, now)
    what = f"{_that_expire(rows, 'connection', reading)}, the first {first}; Fastn does not renew {_them(rows)} itself."
    return [Finding(Severity.MEDIUM, sentence(what), distinct_repairs(ending), rows=table)]


def _expiring_row(connection: PartState, reading: Reading) -> TableRow:
    at = expiry_of(connection.row)
    cells: Cells = {
        "id": short_id(connection.id),
        "name": connection.label,
        "expires": dated(at, reading.now) if at else "",
        "auth": text(connection.row, "authType"),
    }
    return TableRow(cells, at=at, customer=connection.customer)


def renewed_connections(reading: Reading) -> list[Finding]:
    """Report the connections that expire and that Fastn renews, if the answer is about one subject."""
    rows = [row for row in _expiring(reading) if renews_itself(row, reading.now)]
    if not rows or reading.is_whole:
        return []
    expire = _that_expire(rows, "OAuth connection", reading)
    what = f"{expire}; Fastn renews {_them(rows)} itself while the app accepts the refresh token."
    return [Finding(Severity.LOW, sentence(what))]


def _that_expire(rows: Sequence[Row], noun: str, reading: Reading) -> str:
    count = counted(len(rows), noun, at_least=reading.of("connections").more)
    return f"{count} {'expires' if len(rows) == 1 else 'expire'} {within(reading.ahead)}"


def _them(rows: Sequence[Row]) -> str:
    return "it" if len(rows) == 1 else "them"
