"""Checks that report problems of an account. A row with a missing field is never reported for it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from pydantic import JsonValue

from fastn_mcp.procedures.diagnosis.account_parts import (
    PartState,
    broken_since,
    failures_in_a_row,
    is_public,
    listed,
    repairs,
)
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.diagnosis.failures import EndedRun, Period, grouped
from fastn_mcp.records.formats import age, aged, counted, sentence
from fastn_mcp.records.labels import label_of, name_of
from fastn_mcp.records.quotas import Quota
from fastn_mcp.records.rows import Row, key_of, short, started_workflows, text, timestamp, value, word
from fastn_mcp.records.states import (
    MANY_FAILURES,
    NOT_WORKING,
    PENDING,
    State,
    is_pending,
    switched_off,
    trigger_state,
    workflow_state,
)
from fastn_mcp.tools.account import EXPIRES, ListApiKeys, ListUsers
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.triggers import GetTrigger, ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows

SOON = timedelta(days=14)
"""Time before its expiry in which a key is reported."""

UNUSED = timedelta(days=7)
"""Time until an unused key, or an invitation that was not accepted, is reported."""

NEAR = 80
"""Usage in percent from which a limit is reported."""


class Severity(Enum):
    """Severity of a finding, highest first."""

    HIGH = "high"
    """Something does not work."""
    MEDIUM = "medium"
    """Something will stop working, or gives access to the wrong people."""
    LOW = "low"
    """Something to tidy up."""


FindingRow = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class AccountFinding:
    """One problem: `what` is a sentence with numbers, and `more` the call that shows more."""

    severity: Severity
    what: str
    more: Tool[Any]
    rows: Sequence[FindingRow] = ()
    """All resources concerned, in a stated order."""

    def data(self, rows: Sequence[FindingRow]) -> FindingRow:
        """Return the finding as JSON, with these of its rows."""
        found: FindingRow = {"severity": self.severity.value, "what": self.what}
        if rows:
            found["rows"] = [*rows]
        if len(rows) < len(self.rows):
            found["of"] = len(self.rows)
        found["more"] = {"tool": self.more.tool_name(), "arguments": self.more.model_dump(exclude_unset=True)}
        return found


def worst_first(findings: Iterable[AccountFinding]) -> list[AccountFinding]:
    """Sort by severity; equal findings keep their order."""
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _rows(rows: Iterable[Row], kind: str = "") -> list[FindingRow]:
    """Return id and name of each row that has an id."""
    return [
        {"id": key, "name": short(str(label_of(kind, row) or key)) if kind else name_of(row)}
        for row in rows
        if (key := key_of(row))
    ]


_DETAILS: dict[str, type[Operation[Any]]] = {"trigger": GetTrigger, "webhook": GetTrigger, "workflow": GetWorkflow}
"""Tool that shows one resource, by the noun of a finding."""


def _about(
    severity: Severity, rows: Sequence[Row], noun: str, singular: str, plural: str, more: Tool[Any], start: str = ""
) -> list[AccountFinding]:
    """Return a finding about the rows, if there are any."""
    if not rows:
        return []
    if len(rows) == 1 and noun in _DETAILS and (key := key_of(rows[0])):
        details = _DETAILS[noun]
        more = details.model_validate({details.route.parameters[-1]: key})
    what = f"{start}{counted(len(rows), noun)} {singular if len(rows) == 1 else plural}."
    return [AccountFinding(severity, what, more, _rows(rows))]


def failing_workflows(
    runs: Sequence[EndedRun], names: Mapping[str, str], period: Period, whole: str
) -> list[AccountFinding]:
    """Report the workflows of failed runs. `names` maps their ids to names; `whole` says of how many runs in all."""
    if not runs:
        return []
    found = grouped(runs, lambda run: run.workflow)
    more = Diagnose(hours=period.hours)
    if len(found) == 1 and found[0].newest.workflow.startswith("wf_"):  # some rows have only the slug
        more = Diagnose(workflow_id=found[0].newest.workflow, hours=period.hours)
    what = f"{counted(len(found), 'workflow')} failed: {whole} in {period}."
    rows: list[FindingRow] = []
    for group in found:
        last = group.newest
        row: FindingRow = {"id": last.workflow, "name": last.workflow_name or names.get(last.workflow) or "A workflow"}
        row |= {
            "failed": len(group.runs),
            "last_failure": aged(last.at, period.now) if last.at else None,
            "why": last.reason,
        }
        rows.append({name: item for name, item in row.items() if item not in (None, "")})
    return [AccountFinding(Severity.HIGH, sentence(what), more, rows)]


def unusable_connections(
    connections: Sequence[PartState], failures: Mapping[str, Mapping[str, int]], now: datetime, *, more: bool
) -> list[AccountFinding]:
    """Report connections that do not work, those with most failed runs first.

    `failures` maps a connection's id to the workflows that fail without it. `more`: some connections were not read.
    """
    findings: list[AccountFinding] = []
    for status in NOT_WORKING:
        found = [connection for connection in connections if connection.status == status]
        if not found:
            continue
        found.sort(key=lambda connection: -sum(failures.get(connection.id, {}).values()))
        is_broken, why = found[0].state is State.BROKEN, found[0].problem
        if len(found) > 1:
            why = re.sub(r"^its", "their", re.sub(r"^it was", "they were", why))
        count = counted(len(found), "connection", at_least=more)
        what = f"{count} {'is' if len(found) == 1 else 'are'} {status}: {why}. {repairs(found, named=0)}"
        rows: list[FindingRow] = []
        for connection in found:
            row: FindingRow = {"name": connection.label, "since": broken_since(connection, now).partition(" (")[0]}
            if connection.id in failures:
                row["fails"] = [f"{name} ({runs})" for name, runs in failures[connection.id].items()]
            rows.append(row)
        severity = Severity.HIGH if is_broken else Severity.LOW
        findings.append(AccountFinding(severity, sentence(what), ListConnections(status=status), rows))
    return findings


def trigger_problems(triggers: Sequence[Row], workflows: Sequence[Row]) -> list[AccountFinding]:
    """Report problems of triggers, and drafts that triggers start. Disabled triggers start nothing."""
    off = [row for row in triggers if trigger_state(row) is State.OFF]
    on = [row for row in triggers if trigger_state(row) is not State.OFF]
    silent = [row for row in on if trigger_state(row) is State.BROKEN]
    stopped = [row for row in off if switched_off(row).is_platform]
    started = {key for row in on for key in started_workflows(row)}
    drafts = [row for row in workflows if workflow_state(row) is State.DRAFT and key_of(row) in started]
    failing = [row for row in on if failures_in_a_row(row) >= MANY_FAILURES]
    public = [row for row in on if is_public(row)]

    def most_failures(rows: Sequence[Row], noun: str) -> str:
        failures = max(map(failures_in_a_row, rows), default=0)
        return f"{'' if len(rows) == 1 else 'up to '}{counted(failures, noun)} in a row" if failures else ""

    subscriptions = ", ".join(sorted({text(row, "subscriptionStatus") for row in silent}))[:60]
    probably = "probably " if stopped and switched_off(stopped[0]).is_presumed else ""
    after = f" after {failures}" if (failures := most_failures(stopped, "failure")) else ""
    by_platform = f"{probably}switched off by the platform{after}"
    failed = f"failed {most_failures(failing, 'time')}"
    unpublished, public_calls = "never published, so that nothing runs", "calls from anybody: authentication is NONE"
    return [
        *_about(
            Severity.HIGH,
            silent,
            "trigger",
            f"is not disabled and never fires: its subscription at the app is {subscriptions}",
            f"are not disabled and never fire: their subscription at the app is {subscriptions}",
            ListTriggers(type="app_event"),
        ),
        *_about(
            Severity.HIGH,
            stopped,
            "trigger",
            f"was {by_platform}",
            f"were {by_platform}",
            ListTriggers(status="Disabled"),
        ),
        *_about(
            Severity.HIGH,
            drafts,
            "workflow",
            f"that was {unpublished}",
            f"that were {unpublished}",
            ListWorkflows(status="draft"),
            "Triggers start ",
        ),
        *_about(Severity.MEDIUM, failing, "trigger", failed, failed, ListTriggers(status="Active")),
        *_about(
            Severity.MEDIUM,
            public,
            "webhook",
            f"takes {public_calls}",
            f"take {public_calls}",
            ListTriggers(type="webhook"),
        ),
    ]


def key_problems(rows: Sequence[Row], now: datetime) -> list[AccountFinding]:
    """Report API keys that expire soon, have expired, were never used, or have full access."""
    usable = [row for row in rows if word(row, "status") not in ("revoked", "expired", "disabled")]
    expired = [row for row in usable if (at := timestamp(row, *EXPIRES)) is not None and at <= now]
    usable = [row for row in usable if row not in expired]
    soon = [row for row in usable if (at := timestamp(row, *EXPIRES)) is not None and at <= now + SOON]
    full = [row for row in usable if word(row, "permissions.preset", "permissions", "preset") == "full access"]
    unused = [row for row in usable if _is_unused(row) and _is_older(row, now)]
    first = age(min((timestamp(row, *EXPIRES) or now for row in soon), default=now), now)
    expire, unneeded = f"expire within two weeks, the first {first}", "never used and could be revoked"
    return [
        *_about(Severity.MEDIUM, soon, "API key", f"expires {first}", expire, ListApiKeys()),
        *_about(Severity.MEDIUM, full, "API key", "has Full access", "have Full access", ListApiKeys()),
        *_about(Severity.LOW, expired, "API key", "has expired", "have expired", ListApiKeys()),
        *_about(Severity.LOW, unused, "API key", f"was {unneeded}", f"were {unneeded}", ListApiKeys()),
    ]


def _is_unused(key: Row) -> bool:
    fields = ("lastUsed", "lastUsedAt", "last_used", "last_used_at")
    return any(field in key for field in fields) and value(key, *fields) in (None, "", "never", "Never")


def _is_older(row: Row, now: datetime) -> bool:
    created = timestamp(row, "createdAt", "addedAt", "invitedAt")
    return created is not None and created < now - UNUSED


def invited_users(users: Sequence[Row], now: datetime, *, more: bool) -> list[AccountFinding]:
    """Report invitations that were not accepted."""
    rows = [row for row in users if word(row, "status") in ("invited", "pending") and _is_older(row, now)]
    if not rows:
        return []
    who = counted(len(rows), "person", at_least=more, plural="people")
    what = f"{who} {'was' if len(rows) == 1 else 'were'} invited over a week ago and never came."
    return [AccountFinding(Severity.LOW, sentence(what), ListUsers(status="Invited"), _rows(rows, "user"))]


def pending_customers(customers: Sequence[Row], total: int | None, *, more: bool) -> list[AccountFinding]:
    """Report customers not yet activated. `total`: Fastn's count, if known; `more`: some rows were not read."""
    rows = list(filter(is_pending, customers))
    if not rows:
        return []
    who = counted(total or len(rows), "customer", at_least=more and total is None)
    what = f"{who} {'waits' if len(rows) == 1 else 'wait'} for activation by the admin; nothing runs there yet."
    return [AccountFinding(Severity.MEDIUM, sentence(what), ListCustomers(status=PENDING), _rows(rows))]


def full_quotas(quotas: Sequence[Quota], more: Tool[Any], now: datetime) -> list[AccountFinding]:
    """Report the quotas that are nearly used up, the fullest first."""
    near = [quota for quota in quotas if quota.percent >= NEAR]
    if not near:
        return []
    verb = "quota is" if len(near) == 1 else "quotas are"
    severity = Severity.HIGH if near[0].percent >= 100 else Severity.MEDIUM
    what = f"{len(near)} {verb} at {NEAR} % or more: {listed([str(quota) for quota in near])}."
    return [AccountFinding(severity, what, more, [quota.data(now) for quota in near])]
