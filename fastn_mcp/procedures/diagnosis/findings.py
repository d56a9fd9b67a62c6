"""What the checks find about the subject of a diagnosis. About the whole account, it is what the overview says."""

from collections.abc import Iterable
from dataclasses import replace

from pydantic import JsonValue

from fastn_mcp.procedures.checks.account_rows import started
from fastn_mcp.procedures.checks.check import Reading
from fastn_mcp.procedures.checks.connections import BROKEN
from fastn_mcp.procedures.checks.parts import PartState, connections_to
from fastn_mcp.procedures.checks.runs import STARTED
from fastn_mcp.procedures.checks.table import run_checks
from fastn_mcp.procedures.diagnosis.evidence import Evidence
from fastn_mcp.procedures.overview.get_overview import with_first_rows
from fastn_mcp.procedures.reads import RowList
from fastn_mcp.records.quotas import quotas_of
from fastn_mcp.records.rows import Row, text


def findings(evidence: Evidence) -> list[JsonValue]:
    """Return what the checks find, worst first, without what other entries of the answer say."""
    if evidence.subject.is_account:
        hours = evidence.counts.period.hours
        of_account = [
            with_first_rows(check.subject, each, hours)
            for check, each in evidence.account_findings
            if check.entries not in ("causes", "stuck_runs")
        ]
        return [each.data(evidence.names) for each in of_account]
    of_subject = [each for check, each in run_checks(_reading(evidence)) if check.entries is None]
    return [replace(each, shown=each.first_rows).data(evidence.names) for each in of_subject]


def _reading(evidence: Evidence) -> Reading:
    """Return the rows that the subject depends on, as far as they were read."""
    subject = evidence.subject
    rows = [evidence.workflows[key] for key in evidence.relevant_workflows if key in evidence.workflows]
    workflows = RowList(rows)
    triggers = _rows(evidence.triggers or ())
    customer = subject.resources.get("customer")
    connections = _rows(_connections(evidence))
    is_whole = evidence.connections_in_all == len(connections)
    if subject.customer is not None:
        is_whole = subject.customer in evidence.connected
    lists = {
        "workflows": workflows,
        STARTED: started(workflows, triggers),
        "triggers": RowList(triggers, more=evidence.has_more_triggers),
        "customers": RowList([customer.row] if customer else ()),
        "connections": RowList(connections, more=not is_whole),
        BROKEN: RowList(connections),
    }
    return Reading(evidence.counts, lists, quotas=quotas_of(evidence.quotas))


def _connections(evidence: Evidence) -> list[PartState]:
    """Return the connections through which the subject's runs may go."""
    subject = evidence.subject
    connections = evidence.connections
    if subject.connector:
        slug = text(subject.resources["connector"].row, "slug")
        connections = connections_to([subject.connector, slug], connections)
    elif subject.workflows:
        connections = connections_to([app for key in subject.workflows for app in evidence.apps(key)], connections)
    if subject.customer is None:
        return list(connections)
    owners = {subject.customer} if subject.is_any_of_customer else {None, subject.customer}
    return [each for each in connections if each.customer in owners]


def _rows(parts: Iterable[PartState]) -> list[Row]:
    return [part.row for part in parts]
