"""Checks that report problems of an account. A row with a missing field is never reported for it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from pydantic import JsonValue

from fastn_mcp.procedures.diagnosis.blockers import (
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
from fastn_mcp.tools.access import EXPIRES, ListApiKeys, ListUsers
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
        entry: FindingRow = {"severity": self.severity.value, "what": self.what}
        if rows:
            entry["rows"] = [*rows]
        if len(rows) < len(self.rows):
            entry["of"] = len(self.rows)
        entry["more"] = {"tool": self.more.tool_name(), "arguments": self.more.model_dump(exclude_unset=True)}
        return entry


_DETAILS: dict[str, type[Operation[Any]]] = {"trigger": GetTrigger, "webhook": GetTrigger, "workflow": GetWorkflow}
"""Tool that shows one resource, by the noun of a finding."""


@dataclass(frozen=True, slots=True)
class FindingCheck:
    """A problem that rows can have: whether a row has it, and the sentence about those that do.

    In `sentence`, `{rows}` is the number of rows with the noun, and `{detail}` what `detail` returns for the rows.
    """

    severity: Severity
    noun: str
    applies: Callable[[Row, datetime], bool]
    sentence: str
    next_call: Tool[Any]
    detail: Callable[[Sequence[Row], datetime], str] | None = None
    name: Callable[[Row], str] = name_of

    def findings(
        self, rows: Iterable[Row], now: datetime, *, total: int | None = None, more: bool = False
    ) -> list[AccountFinding]:
        """Return a finding if the check applies to any row. `total`: Fastn's count; `more`: some rows were not read."""
        affected = [row for row in rows if self.applies(row, now)]
        if not affected:
            return []
        resources: list[FindingRow] = [{"id": key, "name": self.name(row)} for row in affected if (key := key_of(row))]
        next_call = self.next_call
        if len(affected) == 1 and resources and self.noun in _DETAILS:
            details = _DETAILS[self.noun]
            next_call = details.model_validate({details.route.parameters[-1]: resources[0]["id"]})
        count = counted(total or len(affected), self.noun, at_least=more and total is None)
        detail = self.detail(affected, now) if self.detail else ""
        what = self.sentence.format(rows=count, detail=detail)
        return [AccountFinding(self.severity, sentence(what), next_call, resources)]


def _is_on(trigger: Row) -> bool:
    return trigger_state(trigger) is not State.OFF


def _subscriptions(triggers: Sequence[Row], _: datetime) -> str:
    return ", ".join(sorted({text(row, "subscriptionStatus") for row in triggers}))[:60]


def _most_failures(triggers: Sequence[Row]) -> str:
    """Return the most consecutive failures of a trigger; empty if there are none."""
    failures = max(map(failures_in_a_row, triggers))
    return f"{'' if len(triggers) == 1 else 'up to '}{counted(failures, 'failure')} in a row" if failures else ""


def _stopped(triggers: Sequence[Row], _: datetime) -> str:
    probably = "probably " if switched_off(triggers[0]).is_presumed else ""
    failures = _most_failures(triggers)
    return f"{probably}switched off by the platform{failures and f' after {failures}'}"


TRIGGER_CHECKS = (
    FindingCheck(
        Severity.HIGH,
        "trigger",
        lambda row, _: trigger_state(row) is State.BROKEN,
        "{rows} not disabled but never firing: the subscription at the app is {detail}.",
        ListTriggers(type="app_event"),
        _subscriptions,
    ),
    FindingCheck(
        Severity.HIGH,
        "trigger",
        lambda row, _: not _is_on(row) and switched_off(row).is_platform,
        "{rows} {detail}.",
        ListTriggers(status="Disabled"),
        _stopped,
    ),
    FindingCheck(
        Severity.MEDIUM,
        "trigger",
        lambda row, _: _is_on(row) and failures_in_a_row(row) >= MANY_FAILURES,
        "{rows} with {detail}.",
        ListTriggers(status="Active"),
        lambda rows, _: _most_failures(rows),
    ),
    FindingCheck(
        Severity.MEDIUM,
        "webhook",
        lambda row, _: _is_on(row) and is_public(row),
        "{rows} callable by anybody: authentication is NONE.",
        ListTriggers(type="webhook"),
    ),
)

UNPUBLISHED = FindingCheck(
    Severity.HIGH,
    "workflow",
    lambda row, _: workflow_state(row) is State.DRAFT,
    "{rows} started by triggers but never published, so that nothing runs.",
    ListWorkflows(status="draft"),
)


def trigger_findings(triggers: Sequence[Row], workflows: Iterable[Row], now: datetime) -> list[AccountFinding]:
    """Report problems of triggers, and drafts that triggers start. Disabled triggers start nothing."""
    started = {key for row in triggers if _is_on(row) for key in started_workflows(row)}
    drafts = UNPUBLISHED.findings((row for row in workflows if key_of(row) in started), now)
    return [*(finding for check in TRIGGER_CHECKS for finding in check.findings(triggers, now)), *drafts]


def _expires_within(key: Row, now: datetime, time: timedelta) -> bool:
    """Whether a key that is not revoked expires in this time, or has expired."""
    at = timestamp(key, *EXPIRES)
    return not _is_ended(key) and at is not None and at <= now + time


def _is_usable(key: Row, now: datetime) -> bool:
    return not _is_ended(key) and not _expires_within(key, now, timedelta())


def _is_ended(key: Row) -> bool:
    return word(key, "status") in ("revoked", "expired", "disabled")


def _permissions(key: Row) -> str:
    return word(key, "permissions.preset", "permissions", "preset")


def _is_unused(key: Row) -> bool:
    fields = ("lastUsed", "lastUsedAt", "last_used", "last_used_at")
    return any(field in key for field in fields) and value(key, *fields) in (None, "", "never", "Never")


def _is_older(row: Row, now: datetime) -> bool:
    created = timestamp(row, "createdAt", "addedAt", "invitedAt")
    return created is not None and created < now - UNUSED


KEY_CHECKS = (
    FindingCheck(
        Severity.MEDIUM,
        "API key",
        lambda row, now: _is_usable(row, now) and _expires_within(row, now, SOON),
        "{rows} expiring within two weeks, the first {detail}.",
        ListApiKeys(),
        lambda rows, now: age(min(timestamp(row, *EXPIRES) or now for row in rows), now),
    ),
    FindingCheck(
        Severity.MEDIUM,
        "API key",
        lambda row, now: _is_usable(row, now) and _permissions(row) == "full access",
        "{rows} with Full access.",
        ListApiKeys(),
    ),
    FindingCheck(
        Severity.LOW,
        "API key",
        lambda row, now: _expires_within(row, now, timedelta()),
        "{rows} expired.",
        ListApiKeys(),
    ),
    FindingCheck(
        Severity.LOW,
        "API key",
        lambda row, now: _is_usable(row, now) and _is_unused(row) and _is_older(row, now),
        "{rows} never used; could be revoked.",
        ListApiKeys(),
    ),
)

UNANSWERED_INVITATIONS = FindingCheck(
    Severity.LOW,
    "invitation",
    lambda row, now: word(row, "status") in ("invited", "pending") and _is_older(row, now),
    "{rows} not accepted for over a week.",
    ListUsers(status="Invited"),
    name=lambda row: short(str(label_of("user", row) or key_of(row))),
)

PENDING_CUSTOMERS = FindingCheck(
    Severity.MEDIUM,
    "customer",
    lambda row, _: is_pending(row),
    "{rows} waiting for activation by the admin; nothing runs there yet.",
    ListCustomers(status=PENDING),
)


def failing_workflows(
    runs: Sequence[EndedRun], names: Mapping[str, str], period: Period, whole: str
) -> list[AccountFinding]:
    """Report the workflows of failed runs. `names` maps their ids to names; `whole` says of how many runs in all."""
    if not runs:
        return []
    groups = grouped(runs, lambda run: run.workflow)
    more = Diagnose(hours=period.hours)
    if len(groups) == 1 and groups[0].newest.workflow.startswith("wf_"):  # some rows have only the slug
        more = Diagnose(workflow_id=groups[0].newest.workflow, hours=period.hours)
    what = f"{counted(len(groups), 'workflow')} failed: {whole} in {period}."
    rows: list[FindingRow] = []
    for group in groups:
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
        unusable = [connection for connection in connections if connection.status == status]
        if not unusable:
            continue
        unusable.sort(key=lambda connection: -sum(failures.get(connection.id, {}).values()))
        count = counted(len(unusable), "connection", at_least=more)
        what = f"{count} with status {status}: {unusable[0].problem}. {repairs(unusable, named=0)}"
        rows: list[FindingRow] = []
        for connection in unusable:
            row: FindingRow = {"name": connection.label, "since": broken_since(connection, now).partition(" (")[0]}
            if connection.id in failures:
                row["fails"] = [f"{name} ({runs})" for name, runs in failures[connection.id].items()]
            rows.append(row)
        severity = Severity.HIGH if unusable[0].state is State.BROKEN else Severity.LOW
        findings.append(AccountFinding(severity, sentence(what), ListConnections(status=status), rows))
    return findings


def full_quotas(quotas: Sequence[Quota], more: Tool[Any], now: datetime) -> list[AccountFinding]:
    """Report the quotas that are nearly used up, the fullest first."""
    near = [quota for quota in quotas if quota.percent >= NEAR]
    if not near:
        return []
    severity = Severity.HIGH if near[0].percent >= 100 else Severity.MEDIUM
    what = f"{counted(len(near), 'quota')} at {NEAR} % or more: {listed([str(quota) for quota in near])}."
    return [AccountFinding(severity, what, more, [quota.data(now) for quota in near])]
