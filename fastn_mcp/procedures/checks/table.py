"""The table of checks: what can be wrong. An overview prints all of them, a diagnosis those of its subject."""

from functools import partial

from fastn_mcp.procedures.checks.access import (
    KEY_CHECKS,
    PENDING_CUSTOMERS,
    UNANSWERED_INVITATIONS,
    administrators,
    expiring_keys,
    full_quotas,
)
from fastn_mcp.procedures.checks.check import AccountCheck, Reading, Subject
from fastn_mcp.procedures.checks.connections import connections_of_status, expiring_connections, renewed_connections
from fastn_mcp.procedures.checks.finding import Finding, Severity
from fastn_mcp.procedures.checks.runs import WORKFLOW_CHECKS, failing_workflows, hanging_runs
from fastn_mcp.procedures.checks.triggers import TRIGGER_CHECKS
from fastn_mcp.records.states import BROKEN_STATUSES

CHECKS = (
    AccountCheck("failing workflows", "workflows", failing_workflows, entries="causes"),
    AccountCheck("hanging runs", "workflows", hanging_runs, entries="stuck_runs"),
    *(
        AccountCheck(
            f"connections that are {status}",
            "connections",
            partial(connections_of_status, status),
            entries="connections",
        )
        for status in BROKEN_STATUSES
    ),
    AccountCheck(PENDING_CUSTOMERS.name, "customers", PENDING_CUSTOMERS.find),
    AccountCheck("connections that expire", "expiry", expiring_connections),
    AccountCheck("connections that Fastn renews", "expiry", renewed_connections),
    AccountCheck("keys that expire", "expiry", expiring_keys),
    *(
        AccountCheck(check.name, "triggers", check.find, entries="triggers" if check.has_problem else None)
        for check in TRIGGER_CHECKS
    ),
    *(AccountCheck(check.name, "triggers", check.find) for check in WORKFLOW_CHECKS),
    AccountCheck("quotas", "quotas", lambda reading: full_quotas(reading.quotas, reading.now)),
    AccountCheck("AI credits", "quotas", lambda reading: full_quotas(reading.credits, reading.now)),
    *(AccountCheck(check.name, "access", check.find) for check in KEY_CHECKS),
    AccountCheck(UNANSWERED_INVITATIONS.name, "access", UNANSWERED_INVITATIONS.find),
    AccountCheck("administrators", "access", administrators),
)
"""In the order in which findings of the same severity are printed."""


def run_checks(reading: Reading, subject: Subject | None = None) -> list[tuple[AccountCheck, Finding]]:
    """Return what the checks on one subject, or all of them, find, worst first."""
    findings = [
        (check, finding) for check in CHECKS if subject in (None, check.subject) for finding in check.find(reading)
    ]
    severities = list(Severity)
    return sorted(findings, key=lambda each: severities.index(each[1].severity))
