"""Rows of the tables that have all workflows, or the customers, whether something is wrong with them or not."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from fastn_mcp.procedures.checks.check import Reading
from fastn_mcp.procedures.checks.connections import BROKEN
from fastn_mcp.procedures.checks.failures import FailureGroup, RunFilter, grouped
from fastn_mcp.procedures.checks.finding import UNREAD_NAME, Cells, TableRow
from fastn_mcp.procedures.checks.parts import PartState, connection_states, listed, repair
from fastn_mcp.procedures.checks.run_counts import RunCounts, RunRecord
from fastn_mcp.records.formats import age, counted, dated
from fastn_mcp.records.labels import ACCOUNT, app_of, name_of
from fastn_mcp.records.rows import Row, key_of, short, started_workflows, text, value, word
from fastn_mcp.records.states import State, broken_since, is_pending, trigger_state, workflow_state
from fastn_mcp.tools.paging import created


def _recent(moment: datetime, now: datetime) -> str:
    """Return the age of a time, with its date if that is another day."""
    return age(moment, now) if now - moment < timedelta(days=1) else dated(moment, now)


def _failing_since(record: RunRecord) -> str:
    if record.since is None or not record.is_failing:
        return ""
    return record.or_earlier(f"{record.since:%Y-%m-%d}")


def _reasons(group: FailureGroup) -> str:
    """Return the most frequent reason, and how many others there are."""
    (reason, _), *others = Counter(run.reason for run in group.runs).most_common()
    also = f" (and {counted(len(others), 'other reason')})" if others else ""
    return f"{reason or 'no reason named'}{also}"


def workflow_rows(
    counts: RunCounts, workflows: Sequence[Row], triggers: Sequence[Row], records: Mapping[str, RunRecord]
) -> list[TableRow]:
    """Return all workflows, the one with most failed runs first. `triggers` are empty if they were not all read."""
    now = counts.period.now
    groups = {group.newest.workflow: group for group in grouped(counts.failures, lambda run: run.workflow)}
    by_id = {key_of(row): row for row in workflows}
    starts = _starts(triggers)
    rows: list[TableRow] = []
    for key in dict.fromkeys([*groups, *by_id]):
        row = by_id.get(key, {})
        group = groups.get(key)
        record = records.get(key, RunRecord(RunFilter(key)))
        failed = len(group.runs) if group else 0
        state = workflow_state(row)
        rate = _success_rate(record.completed, failed)
        last = record.last_success and record.last_success.at
        most = "at most " if counts.is_lower_bound else ""
        cells: Cells = {
            "id": key,
            "name": name_of(row) or (group.newest.workflow_name if group else "") or "A workflow",
            "failed": counts.failed(failed),
            "completed": record.completed,
            "success_rate": None if rate is None or (most and not failed) else f"{most}{rate:.1f} %",
            "last_success": _recent(last, now) if last else record.last_success_in_words(now),
            "starts": listed(starts.get(key, []), 1),
            "why": _reasons(group) if group else "",
            "failing_since": _failing_since(record),
            "state": state.value if row and not state.is_usable else "",
        }
        rows.append(TableRow(cells, failed, rate, created(row)))
    return rows


def _success_rate(completed: int | None, failed: int) -> float | None:
    """Return the rate in per cent; None if nothing ended, or that is not known."""
    ended = None if completed is None else completed + failed
    return 100 * completed / ended if completed is not None and ended else None


def _starts(triggers: Sequence[Row]) -> dict[str, list[str]]:
    """Return what starts each workflow, by its id."""
    starts = dict[str, list[str]]()
    for trigger in triggers:
        for key in started_workflows(trigger):
            starts.setdefault(key, []).append(_start(trigger))
    return starts


def _start(trigger: Row) -> str:
    """Return what kind of trigger it is: `webhook`, `schedule 0 * * * *`, `event contact.creation`."""
    events = value(trigger, "events")
    schedule = text(trigger, "schedule", "cron")
    words = f"event {events[0]}" if isinstance(events, list) and events else word(trigger, "type")
    words = f"schedule {schedule}" if schedule else words
    return short(words) + (f" ({State.OFF.value})" if trigger_state(trigger) is State.OFF else "")


def customer_rows(reading: Reading, customers: Iterable[Row]) -> list[TableRow]:
    """Return the given customers, and customers with failed runs or a broken connection, worst first."""
    counts = reading.counts
    now = reading.now
    groups = {group.newest.customer: group for group in grouped(counts.failures, lambda run: run.customer)}
    by_id = {key_of(row): row for row in customers}
    broken = dict[str | None, list[PartState]]()
    for each in connection_states(reading.of(BROKEN).rows, {}):
        if each.state.is_broken:
            broken.setdefault(each.customer, []).append(each)
    rows: list[TableRow] = []
    for key in dict.fromkeys([*groups, *broken, *by_id]):
        row = by_id.get(key or "", {})
        group = groups.get(key)
        name = UNREAD_NAME if key else ACCOUNT
        if row:
            name = name_of(row)
        connections = broken.get(key, [])
        cells: Cells = {
            "id": key,
            "name": name,
            "failed": counts.failed(len(group.runs) if group else 0),
            "workflows": len({run.workflow for run in group.runs}) if group else None,
            "last_failure": _recent(group.newest.at, now) if group and group.newest.at else "",
            "broken_connections": listed([f"{app_of(each.row)} {each.status}" for each in connections], 2),
            "broken_since": listed([broken_since(each.row, now).partition(" (")[0] for each in connections], 2),
            "fix": _fix(connections, row, fails=group is not None),
            "why": _reasons(group) if group else "",
            "state": "activation pending" if is_pending(row) else "",
        }
        rows.append(TableRow(cells, len(group.runs) if group else 0, at=created(row), customer=key))
    return rows


def _fix(broken: Sequence[PartState], customer: Row, *, fails: bool) -> str:
    """Return what helps a customer; empty if nothing is wrong."""
    if broken:
        return listed([repair(each) for each in broken], 2)
    if is_pending(customer):
        return "its admin has to accept the invitation"
    return "see diagnose(customer_id)" if fails else ""
