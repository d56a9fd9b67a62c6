"""Diagnosis of a connector: for which customers it is broken, since when, and what to tell them."""

from collections.abc import Iterable, Sequence

from pydantic import JsonValue

from fastn_mcp.procedures.checks.connections import distinct_repairs
from fastn_mcp.procedures.checks.parts import PartState, connections_to, listed
from fastn_mcp.procedures.checks.run_counts import RunCounts
from fastn_mcp.procedures.diagnosis.evidence import Evidence
from fastn_mcp.records.formats import counted, dated, quoted, sentence
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.rows import Row, text, without_empty
from fastn_mcp.records.states import State, broken_since

_CUSTOMER_MESSAGES = {
    State.BROKEN: (
        "{app} no longer accepts the access that you gave us: please connect {app} again in the widget. "
        "What should have run since then was not done; we run it again once you have connected."
    ),
    State.OFF: "Your connection to {app} is switched off, so nothing runs through it. It has to be connected again.",
}


def connector_verdict(evidence: Evidence, broken: Sequence[PartState]) -> str:
    """Say for how many customers a connector is broken, or whether it is for the given one, and what failed at it."""
    counts = evidence.counts
    in_all = evidence.connections_in_all
    customer = evidence.subject.customer
    if customer is not None:
        in_all = len(_connections(evidence)) if customer in evidence.connected else None

    def whom(customers: Iterable[str | None], *, at_least: bool = False) -> str:
        number = 0 if customer is not None else len({*customers} - {None})
        return f", for {counted(number, 'customer', at_least=at_least)}" if number else ""

    is_part = any("connections" in gap.what for gap in evidence.gaps)
    more = counts.is_lower_bound
    numbers = f"{len(broken):,}" if in_all is None else f"{len(broken):,} of {in_all:,}"
    are = "connections are"
    if len(broken) == 1:
        are = "connection is" if numbers == "1" else "connections is"
    state = f"{'at least ' if is_part else ''}{numbers} {are} broken{whom(each.customer for each in broken)}"
    if in_all == 0:
        state = "not connected"
    elif is_part and not broken:
        state = "it is not known whether its connections work, since not all were read"
    for_ = whom((run.customer for run in counts.failures), at_least=more)
    of = "" if customer is None else f" of {quoted(evidence.owner(customer))}"
    further = _failed_elsewhere(evidence) + _other_broken(evidence)
    return f"{_app(evidence)}{of}: {state}; {_failed(counts)} {counts.window}{for_}.{further}"


def _failed_elsewhere(evidence: Evidence) -> str:
    """Say how many runs of workflows that use the connector failed, but not at it; empty if none did."""
    counts = evidence.counts
    if not counts.failed_elsewhere:
        return ""
    runs = sentence(counted(counts.failed_elsewhere, "other run", at_least=counts.is_lower_bound))
    return f" {runs} of workflows that use it failed {counts.window}: see diagnose(workflow_id)."


def _other_broken(evidence: Evidence) -> str:
    """Name the customer's broken connections to other apps of the workflows that use the connector."""
    customer = evidence.subject.customer
    if customer is None:
        return ""
    apps = {app for key in evidence.using_connector for app in evidence.apps(key)}
    own = [each for each in connections_to(apps, evidence.connections) if each.customer == customer]
    others = [each for each in own if each.state in _CUSTOMER_MESSAGES and each not in _connections(evidence)]
    named = listed([f"{quoted(each.label)} is {quoted(each.status)}" for each in others])
    return f" Of the other apps of workflows that use it, {named}." if named else ""


def _failed(counts: RunCounts) -> str:
    """Say how many runs failed at a connector."""
    if not counts.knows_failures:
        return "it is not known whether runs failed at it"
    if counts.has_failures_unread and not counts.failures:
        return "none of the failed runs that were read failed at it"
    return f"{counted(len(counts.failures), 'run', at_least=counts.is_lower_bound)} failed at it"


def affected_customers(evidence: Evidence, broken: Sequence[PartState]) -> list[JsonValue]:
    """Return the customers with a broken connection, and the customers whose runs failed at it; the last first."""
    counts = evidence.counts
    failures = evidence.counts.failures
    now = evidence.counts.period.now
    connections = {each.customer: each for each in broken}
    rows: list[JsonValue] = []
    for customer in dict.fromkeys([*connections, *(run.customer for run in failures)]):
        connection = connections.get(customer)
        failed = [run for run in failures if run.customer == customer]
        workflows = [evidence.workflow(run.workflow) for run in failed]
        first = min((run.at for run in failed if run.at), default=None)
        row: Row = {
            "customer": evidence.owner(customer),
            "id": customer,
            "connection": connection.status if connection else "none known to be broken: see causes",
            "since": broken_since(connection.row, now) if connection else None,
            "failed": counts.failed(len(failed)),
            "first_failed": dated(first, now) if first and not counts.has_failures_unread else None,
            "workflows": listed(workflows),
        }
        rows.append(without_empty(row))
    return rows


def advice(evidence: Evidence, broken: Sequence[PartState]) -> list[JsonValue]:
    """Return what has to be done about the broken connections, and what to tell the customers."""
    rows: list[JsonValue] = []
    for state, tell in _CUSTOMER_MESSAGES.items():
        connections = [each for each in broken if each.state is state]
        if connections:
            rows.append(
                {
                    "for": ", ".join(sorted({each.status for each in connections})),
                    "fix": distinct_repairs(connections),
                    "tell": tell.format(app=_app(evidence)),
                }
            )
    return rows


def _app(evidence: Evidence) -> str:
    return quoted(name_of(evidence.subject.resources["connector"].row) or str(evidence.subject.connector))


def broken_connections(evidence: Evidence) -> list[PartState]:
    """Return the connector's broken connections, the most recently broken first."""
    now = evidence.counts.period.now
    broken = [each for each in _connections(evidence) if each.state in _CUSTOMER_MESSAGES]
    return sorted(broken, key=lambda each: broken_since(each.row, now).removeprefix("last used "), reverse=True)


def _connections(evidence: Evidence) -> list[PartState]:
    """Return the connector's connections that were read; only the given customer's if there is one."""
    subject = evidence.subject
    keys = [str(subject.connector), text(subject.resources["connector"].row, "slug")]
    own = connections_to(keys, evidence.connections)
    return [each for each in own if subject.customer in (None, each.customer)]
