"""Findings and table rows that are made of several lists: workflows, connections, customers and runs under way."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from fastn_mcp.account.short_ids import short_id
from fastn_mcp.procedures.diagnosis.blockers import PartState, connection_states, listed, repairs
from fastn_mcp.procedures.diagnosis.failures import FailureGroup, RunFilter, grouped
from fastn_mcp.procedures.diagnosis.run_counts import RunCounts, RunRecord
from fastn_mcp.procedures.diagnosis.stuck_runs import StuckRun
from fastn_mcp.procedures.overview.checks import AccountFinding, Severity, expires_within, within
from fastn_mcp.procedures.overview.table import UNREAD_NAME, Cells, TableRow, unread_names
from fastn_mcp.records.formats import age, counted, date_age, dated, sentence
from fastn_mcp.records.labels import ACCOUNT, app_of, name_of
from fastn_mcp.records.rows import Row, key_of, short, started_workflows, text, timestamp, value, word
from fastn_mcp.records.states import (
    BROKEN_STATUSES,
    State,
    auth_type,
    broken_since,
    connection_state,
    is_pending,
    renews_itself,
    trigger_state,
    workflow_state,
)
from fastn_mcp.tools.access import EXPIRY_FIELDS
from fastn_mcp.tools.paging import created

_MAX_STUCK = 10
"""Maximum number of runs under way that are shown beside a table of workflows."""


def _recent(moment: datetime, now: datetime) -> str:
    """Return the age of a time, with its date if that is another day."""
    return age(moment, now) if now - moment < timedelta(days=1) else dated(moment, now)


def _reasons(group: FailureGroup) -> str:
    """Return the most frequent reason, and how many others there are."""
    (reason, _), *others = Counter(run.reason for run in group.runs).most_common()
    also = f" (and {counted(len(others), 'other reason')})" if others else ""
    return f"{reason or 'no reason named'}{also}"


def failing_workflows(counts: RunCounts, rows: Sequence[TableRow]) -> list[AccountFinding]:
    """Report the workflows of failed runs, given the rows of all workflows, the one with most failed runs first."""
    runs = counts.failures
    more = counts.is_lower_bound
    customers = {run.customer for run in runs if run.customer}
    workflows = {run.workflow for run in runs}
    whom = f", for {counted(len(customers), 'customer', at_least=more)}" if customers else ""
    failing = f"{counted(len(workflows), 'workflow', at_least=more)} failed"
    what = f"{failing}: {counts.failures_of_runs} in {counts.period}{whom}."
    if counts.counted_since is not None:
        of_window = f"{counted(len(runs), 'run')} {counts.window}{whom}"
        what = f"{failing}: {of_window}; {counts.failures_of_runs} in {counts.period}."
    return [AccountFinding(Severity.HIGH, sentence(what), rows[: len(workflows)])] if runs else []


def workflow_rows(
    counts: RunCounts, workflows: Sequence[Row], triggers: Sequence[Row], records: Mapping[str, RunRecord]
) -> list[TableRow]:
    """Return all workflows, the one with most failed runs first. `triggers` are empty if they were not all read."""
    now = counts.period.now
    groups = {group.newest.workflow: group for group in grouped(counts.failures, lambda run: run.workflow)}
    by_id = {key_of(row): row for row in workflows}
    starts = dict[str, list[str]]()
    for trigger in triggers:
        for key in started_workflows(trigger):
            starts.setdefault(key, []).append(_start(trigger))
    rows: list[TableRow] = []
    for key in dict.fromkeys([*groups, *by_id]):
        row = by_id.get(key, {})
        group = groups.get(key)
        record = records.get(key, RunRecord(RunFilter(key)))
        failed = len(group.runs) if group else 0
        completed = record.completed
        state = workflow_state(row)
        rate = None if completed is None or not completed + failed else 100 * completed / (completed + failed)
        last = record.last_success and record.last_success.at
        most = "at most " if counts.is_lower_bound else ""
        cells: Cells = {
            "id": key,
            "name": name_of(row) or (group.newest.workflow_name if group else "") or "A workflow",
            "failed": counts.failed(failed),
            "completed": completed,
            "success_rate": None if rate is None or (most and not failed) else f"{most}{rate:.1f} %",
            "last_success": _recent(last, now) if last else record.last_success_in_words(now),
            "starts": listed(starts.get(key, []), 1),
            "why": _reasons(group) if group else "",
            "state": state.value if row and not state.is_usable else "",
        }
        rows.append(TableRow(cells, failed, rate, created(row)))
    return rows


def _start(trigger: Row) -> str:
    """Return what kind of trigger it is: `webhook`, `schedule 0 * * * *`, `event contact.creation`."""
    events = value(trigger, "events")
    schedule = text(trigger, "schedule", "cron")
    words = f"event {events[0]}" if isinstance(events, list) and events else word(trigger, "type")
    words = f"schedule {schedule}" if schedule else words
    return short(words) + (f" ({State.OFF.value})" if trigger_state(trigger) is State.OFF else "")


def broken_connections(
    connections: Sequence[PartState], failures: Mapping[str, Mapping[str, int]], counts: RunCounts, *, more: bool
) -> list[AccountFinding]:
    """Report broken connections, the one with most failed runs first.

    `failures` maps a connection's id to the workflows that fail without it. `more`: some connections were not read.
    """
    findings = list[AccountFinding]()
    now = counts.period.now
    for status in BROKEN_STATUSES:
        broken = [connection for connection in connections if connection.status == status]
        if not broken:
            continue
        rows: list[TableRow] = []
        for connection in broken:
            fails = failures.get(connection.id, {})
            cells: Cells = {
                "id": short_id(connection.id),
                "name": connection.label,
                "since": broken_since(connection.row, now).partition(" (")[0],
                "failed": counts.failed(sum(fails.values())) or None,
                "auth": text(connection.row, "authType", "auth.type"),
                "fails": listed([f"{name} ({runs})" for name, runs in fails.items()], 1),
            }
            at = timestamp(connection.row, *EXPIRY_FIELDS) or timestamp(connection.row, "lastUsedAt", "lastUsed")
            rows.append(TableRow(cells, sum(fails.values()), at=at, customer=connection.customer))
        rows.sort(key=lambda row: -row.failed)
        count = counted(len(broken), "connection", at_least=more)
        has = "has" if len(broken) == 1 else "have"
        what = f"{count} {has} the status {status}: {broken[0].problem}. {_distinct_repairs(broken)}"
        severity = Severity.HIGH if broken[0].state is State.BROKEN else Severity.LOW
        findings.append(AccountFinding(severity, sentence(what), rows))
    return findings


def _distinct_repairs(connections: Iterable[PartState]) -> str:
    """Return who has to repair them, each customer counted once for each kind of authentication."""
    distinct = {(each.customer, auth_type(each.row)): each for each in connections}
    return repairs(distinct.values(), named=0)


def expiring_connections(
    rows: Iterable[Row], now: datetime, time: timedelta, *, more: bool, tells: bool
) -> list[AccountFinding]:
    """Report live connections that expire in this time, or should have, and that Fastn does not renew, the first first.

    With `tells`, connections that it does renew are counted too. `more`: some connections were not read.
    """
    soon = [row for row in rows if connection_state(row).is_usable and expires_within(row, now, time)]
    renewed = [row for row in soon if renews_itself(row, now)]
    ending = connection_states((row for row in soon if row not in renewed), unread_names(soon))
    expiring = list[TableRow]()
    for each in ending:
        at = timestamp(each.row, *EXPIRY_FIELDS)
        if at is not None:
            cells: Cells = {
                "id": short_id(each.id),
                "name": each.label,
                "expires": dated(at, now),
                "auth": text(each.row, "authType"),
            }
            expiring.append(TableRow(cells, at=at, customer=each.customer))
    expiring.sort(key=lambda row: row.at or now)
    findings: list[AccountFinding] = []
    if expiring:
        count = counted(len(expiring), "connection", at_least=more)
        first = date_age(expiring[0].at or now, now)
        expire = "expires" if len(expiring) == 1 else "expire"
        them = "it" if len(expiring) == 1 else "them"
        what = f"{count} {expire} {within(time)}, the first {first}; Fastn does not renew {them} itself. "
        findings.append(AccountFinding(Severity.MEDIUM, sentence(what + _distinct_repairs(ending)), expiring))
    if renewed and tells:
        count = counted(len(renewed), "OAuth connection", at_least=more)
        expire = "expires" if len(renewed) == 1 else "expire"
        them = "it" if len(renewed) == 1 else "them"
        what = f"{count} {expire} {within(time)}; Fastn renews {them} itself while the app accepts the refresh token."
        findings.append(AccountFinding(Severity.LOW, sentence(what)))
    return findings


def stuck_runs(runs: Sequence[StuckRun], names: Mapping[str, str], *, more: bool) -> list[AccountFinding]:
    """Report the runs that take far longer than usual, the longest first. `names` are workflow names by id.

    `more`: there may be others.
    """
    if not runs:
        return []
    rows = [
        TableRow(
            {**run.data(names), "customer": UNREAD_NAME if run.run.customer else ACCOUNT},
            at=run.run.at,
            customer=run.run.customer,
        )
        for run in runs
    ]
    count = counted(len(runs), "run", at_least=more)
    is_ = "is" if len(runs) == 1 else "are"
    what = f"{count} {is_} taking far longer than usual (the longest: {runs[0].length})."
    return [AccountFinding(Severity.HIGH, sentence(what), rows, shown=rows[:_MAX_STUCK])]


def customer_rows(counts: RunCounts, not_working: Iterable[PartState], customers: Iterable[Row]) -> list[TableRow]:
    """Return the given customers, and customers with failed runs or a broken connection, worst first."""
    now = counts.period.now
    groups = {group.newest.customer: group for group in grouped(counts.failures, lambda run: run.customer)}
    by_id = {key_of(row): row for row in customers}
    broken = dict[str | None, list[str]]()
    for each in not_working:
        broken.setdefault(each.customer, []).append(f"{app_of(each.row)} {each.status}")
    rows: list[TableRow] = []
    for key in dict.fromkeys([*groups, *broken, *by_id]):
        row = by_id.get(key or "", {})
        group = groups.get(key)
        name = UNREAD_NAME if key else ACCOUNT
        if row:
            name = name_of(row)
        cells: Cells = {
            "id": key,
            "name": name,
            "failed": counts.failed(len(group.runs) if group else 0),
            "workflows": len({run.workflow for run in group.runs}) if group else None,
            "last_failure": _recent(group.newest.at, now) if group and group.newest.at else "",
            "connections": listed(broken.get(key, []), 2),
            "why": _reasons(group) if group else "",
            "state": "activation pending" if is_pending(row) else "",
        }
        rows.append(TableRow(cells, len(group.runs) if group else 0, at=created(row), customer=key))
    return rows
