"""Checks that report problems of an account. A row with a missing field is never reported for it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from pydantic import JsonValue

from fastn_mcp.fastn.credits import LIMITS, USES, credits_of
from fastn_mcp.fastn.names import counted, label_of, name_of, sentence
from fastn_mcp.fastn.rows import Row, key_of, number, short, text, timestamp, value, word
from fastn_mcp.fastn.states import (
    MANY_FAILURES,
    NOT_WORKING,
    PENDING,
    State,
    switched_off,
    trigger_state,
    workflow_state,
)
from fastn_mcp.procedures.diagnosis.account_parts import (
    connection_states,
    failures_in_a_row,
    is_public,
    triggers_of,
    who_authorises,
)
from fastn_mcp.procedures.diagnosis.diagnose_workflow import DiagnoseWorkflow
from fastn_mcp.procedures.diagnosis.failures import EndedRun, FailingWorkflow, Period, by_workflow
from fastn_mcp.procedures.tables import age
from fastn_mcp.tools.account import EXPIRES, GetBilling, GetQuotas, ListApiKeys, ListUsers
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.triggers import GetTrigger, ListTriggers
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow, ListExecutions, ListWorkflows

FEW = 3
"""Maximum number of examples of a finding in the overview of the whole account."""

SOON = timedelta(days=14)
"""Time before its expiry in which a key is reported."""

UNUSED = timedelta(days=7)
"""Time until an unused key, or an invitation that was not accepted, is reported."""

NAMED = 2
"""Connections named per status: their ids are long, and `about` connections shows all of them."""

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


@dataclass(frozen=True, slots=True)
class AccountFinding:
    """One problem: `what` is a sentence with numbers, and `more` the call that shows more."""

    severity: Severity
    what: str
    more: Tool[Any]
    examples: Sequence[tuple[str, str]] = ()
    """Ids and names of all resources concerned."""

    def data(self, most: int = FEW) -> dict[str, JsonValue]:
        """Return the finding as JSON, with at most `most` examples."""
        found: dict[str, JsonValue] = {"severity": self.severity.value, "what": self.what}
        if self.examples:
            found["examples"] = [{"id": key, "name": name} for key, name in self.examples[:most]]
        found["more"] = {"tool": self.more.tool_name(), "arguments": self.more.model_dump(exclude_unset=True)}
        return found


def worst_first(findings: Iterable[AccountFinding]) -> list[AccountFinding]:
    """Sort by severity; equal findings keep their order."""
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _examples(rows: Iterable[Row], kind: str = "") -> list[tuple[str, str]]:
    """Return id and name of each row that has an id."""
    return [
        (key, short(str(label_of(kind, row) or key)) if kind else name_of(row)) for row in rows if (key := key_of(row))
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
    return [AccountFinding(severity, what, more, _examples(rows))]


def failing_workflows(
    runs: Sequence[EndedRun], names: Mapping[str, str], period: Period, *, more: bool
) -> list[AccountFinding]:
    """Report the workflows of failed runs, those with most failures first. `more`: there are older runs."""
    ordered = by_workflow(runs, names)
    rest = ordered[FEW:]
    findings = [_failing_workflow(workflow, period, more=more) for workflow in ordered[:FEW]]
    if rest:
        count = counted(sum(len(workflow.runs) for workflow in rest), "time", at_least=more)
        what = f"{counted(len(rest), 'more workflow', at_least=more)} failed {count} in {period}."
        examples = [(workflow.id, workflow.name) for workflow in rest if workflow.id]
        shows = ListExecutions(status="failed", since=period.since)
        findings.append(AccountFinding(Severity.HIGH, sentence(what), shows, examples))
    return findings


def _failing_workflow(workflow: FailingWorkflow, period: Period, *, more: bool) -> AccountFinding:
    last = workflow.last
    what = f'"{workflow.name}" failed {counted(len(workflow.runs), "time", at_least=more)} in {period}'
    what += f", last {age(last.at, period.now)}" if last.at else ""
    what += f": {last.reason}." if last.reason else "."
    shows: Tool[Any] = ListExecutions(status="failed", since=period.since)
    if workflow.id.startswith("wf_"):  # some rows have only the slug
        shows = DiagnoseWorkflow(workflow_id=workflow.id)
    elif last.id:
        shows = GetExecution(execution_id=last.id)
    examples = [(workflow.id, workflow.name)] if workflow.id else []
    return AccountFinding(Severity.HIGH, what, shows, examples)


def unusable_connections(rows: Sequence[Row], customers: Mapping[str, str], *, more: bool) -> list[AccountFinding]:
    """Report connections that do not work. `customers` maps ids to names; `more`: some were not read."""
    findings: list[AccountFinding] = []
    states = connection_states(rows, customers)
    for status in NOT_WORKING:
        found = [connection for connection in states if connection.status == status]
        if not found:
            continue
        is_broken, why = found[0].state is State.BROKEN, found[0].problem
        who, _ = who_authorises(found)
        cure = f"{who} has to authorise again" if is_broken else "somebody has to reconnect it in the dashboard"
        if len(found) > 1:
            why = re.sub(r"^its", "their", re.sub(r"^it was", "they were", why))
            cure = cure.replace("reconnect it", "reconnect them")
        what = f"{counted(len(found), 'connection', at_least=more)} {'is' if len(found) == 1 else 'are'} {status}"
        named = [(connection.id, connection.label) for connection in found[:NAMED] if connection.id]
        severity = Severity.HIGH if is_broken else Severity.LOW
        findings.append(
            AccountFinding(severity, sentence(f"{what}: {why}; {cure}."), ListConnections(status=status), named)
        )
    return findings


def trigger_problems(triggers: Sequence[Row], workflows: Sequence[Row]) -> list[AccountFinding]:
    """Report problems of triggers, and drafts that triggers start. Disabled triggers start nothing."""
    off = [row for row in triggers if trigger_state(row) is State.OFF]
    on = [row for row in triggers if trigger_state(row) is not State.OFF]
    silent = [row for row in on if trigger_state(row) is State.BROKEN]
    stopped = [row for row in off if switched_off(row).is_platform]
    drafts = [row for row in workflows if workflow_state(row) is State.DRAFT and triggers_of(key_of(row), on)]
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
    return [AccountFinding(Severity.LOW, sentence(what), ListUsers(status="Invited"), _examples(rows, "user"))]


def pending_customers(customers: Sequence[Row], total: int | None, *, more: bool) -> list[AccountFinding]:
    """Report customers not yet activated. `total`: Fastn's count, if known; `more`: some rows were not read."""
    rows = [row for row in customers if word(row, "status").startswith("pending")]
    if not rows:
        return []
    who = counted(total or len(rows), "customer", at_least=more and total is None)
    what = f"{who} {'waits' if len(rows) == 1 else 'wait'} for activation by the admin; nothing runs there yet."
    return [AccountFinding(Severity.MEDIUM, sentence(what), ListCustomers(status=PENDING), _examples(rows))]


_PERCENTS = ("percent", "percentage", "percentUsed", "usedPercent", "usagePercent")
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit, and the percentage used."""

    name: str
    percent: float
    numbers: str

    def __str__(self) -> str:
        return f"{self.name} {self.numbers}{self.percent:.0f} %"


def full_quotas(answer: JsonValue) -> list[AccountFinding]:
    """Report the quotas that are nearly used up, the fullest first."""
    near = sorted((quota for quota in _quotas(answer) if quota.percent >= NEAR), key=lambda quota: -quota.percent)
    if not near:
        return []
    verb = "quota is" if len(near) == 1 else "quotas are"
    severity = Severity.HIGH if near[0].percent >= 100 else Severity.MEDIUM
    named = ", ".join(map(str, near[:FEW])) + (f" and {more} more" if (more := len(near) - FEW) > 0 else "")
    return [AccountFinding(severity, f"{len(near)} {verb} at {NEAR} % or more: {named}.", GetQuotas())]


def _quotas(found: JsonValue, path: tuple[str, ...] = (), depth: int = 0) -> Iterator[Quota]:
    """Yield every quota in an answer."""
    if depth > _DEEPEST:
        return
    if isinstance(found, list):
        for item in found:
            yield from _quotas(item, path, depth + 1)
    elif isinstance(found, dict):
        if (quota := _quota(found, path)) is not None:
            yield quota
            return
        for name, item in found.items():
            # Names of mere wrappers are not part of a quota's name.
            wraps = isinstance(item, list) or name in ("data", "value", "quotas", "limits")
            yield from _quotas(item, path if wraps else (*path, name), depth + 1)


def _quota(row: Row, path: tuple[str, ...]) -> Quota | None:
    limit, used, percent = number(row, *LIMITS), number(row, *USES), number(row, *_PERCENTS)
    numbers = ""
    if limit is not None and used is not None and limit > 0:
        percent = 100 * used / limit
        numbers = f"{used:,.10g} of {limit:,.10g}, "
    if percent is None:
        return None
    name = text(row, "name", "metric", "resource", "key") or " ".join(path)
    name = " ".join(filter(None, (name, text(row, "scope"))))
    return Quota(short(name or "a quota", 60), percent, numbers)


def plan(billing: Row) -> dict[str, JsonValue]:
    """Return plan and credits, as far as the answer contains them."""
    credits_ = credits_of(billing)
    found: dict[str, JsonValue] = {
        "name": short(text(billing, "plan.name", "plan.slug", "plan.id", "plan", "planName", "tier")),
        "credits_used": credits_.used,
        "credits_included": credits_.included,
        "credits_reset_at": credits_.resets_at and f"{credits_.resets_at:%Y-%m-%dT%H:%M:%SZ}",
    }
    return {name: item for name, item in found.items() if item not in (None, "")}


def spent_credits(billing: Row) -> list[AccountFinding]:
    """Report AI credits that are nearly used up."""
    used, included = credits_of(billing).used, credits_of(billing).included
    if used is None or not included or 100 * used / included < NEAR:
        return []
    severity = Severity.HIGH if used >= included else Severity.MEDIUM
    return [AccountFinding(severity, f"{used:,.10g} of {included:,.10g} AI credits are used.", GetBilling())]
