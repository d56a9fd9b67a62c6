"""The likely cause of a failure, what would fix it and what would not.

The first rule that the evidence meets decides. The words are ours; what Fastn says is looked through, never repeated.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastn_mcp.fastn.states import State
from fastn_mcp.procedures.diagnosis.failure_groups import Failure, FailureGroup
from fastn_mcp.procedures.diagnosis.workflow_state import ConnectionState, Setup
from fastn_mcp.tools.account import GetQuotas
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow


@dataclass(frozen=True, slots=True)
class FailureEvidence:
    """What is known of one cause."""

    cause: FailureGroup
    failure: Failure
    """The newest of it, as fully as it could be read."""
    setup: Setup
    connector: str | None
    """Slug of the app at which it fails."""
    connections: tuple[ConnectionState, ...] | None
    """The connections to that app of the customers concerned; None where they could not be read."""

    def speaks_of(self, pattern: str) -> bool:
        return re.search(pattern, self.failure.text) is not None


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to think of a cause, and what to do."""

    short: str
    """For the verdict: a clause without a full stop."""
    likely: str
    fix: str
    will_not_help: str
    see: type[Tool[Any]] = GetExecution
    """The tool that shows more."""


def remedy(evidence: FailureEvidence) -> Remedy:
    """The remedy for this cause."""
    return next(found for rule in _RULES if (found := rule(evidence)) is not None)


def _quota(evidence: FailureEvidence) -> Remedy | None:
    if not evidence.speaks_of(r"quota_exceeded|quota exceeded|payment_required"):
        return None
    return Remedy(
        "a quota of the plan is used up",
        "A quota of the plan is used up, which stops new work.",
        "See get_quotas; wait for its reset, or have the plan or the customer's override raised.",
        "Running it again before the reset.",
        GetQuotas,
    )


def _unpublished(evidence: FailureEvidence) -> Remedy | None:
    if not evidence.speaks_of(r"not_published|not published|no published version"):
        return None
    return Remedy(
        "the workflow is not published (WORKFLOW_NOT_PUBLISHED)",
        "The workflow has no published version in the environment that was run.",
        "Have somebody publish and deploy it in the dashboard; nothing here can.",
        "Running it again, or changing its code without publishing.",
        GetWorkflow,
    )


def _memory(evidence: FailureEvidence) -> Remedy | None:
    spoken = evidence.speaks_of(r"memory limit|out of memory|heap (out|limit)|\boom\b")
    if not spoken and evidence.failure.memory_used < 0.97:
        return None
    return Remedy(
        "it runs out of memory",
        "It needs more memory than a run has.",
        "Read less at once: smaller batches or pages in the code, or a narrower input.",
        "A retry: running out of memory is never retried, and the same input fails again.",
        GetWorkflow,
    )


def _timeout(evidence: FailureEvidence) -> Remedy | None:
    if not evidence.failure.timed_out and not evidence.speaks_of(r"wf-timeout|workflow_timeout|workflow took too long"):
        return None
    tier = evidence.setup.tier
    limit = "" if evidence.setup.timeout_ms is None else f" of {evidence.setup.timeout_ms / 1000:.0f} s"
    fix = {
        "INSTANT": "Set execution_tier STANDARD (up to 15 min) by update_workflow, and publish it.",
        "STANDARD": "Raise timeout_ms (up to 15 min) or set execution_tier LONG by update_workflow, and publish it.",
    }.get(tier, "Raise timeout_ms by update_workflow, and publish it, or let each run do less.")
    return Remedy(
        f"it takes longer than its limit{limit}",
        f"It takes longer than its limit{limit}{f' (tier {tier})' if tier else ''}.",
        fix,
        "A retry with as much to do.",
        GetWorkflow,
    )


def _rate_limit(evidence: FailureEvidence) -> Remedy | None:
    if not evidence.speaks_of(r"rate.?limit|too many requests|\b429\b|throttl"):
        return None
    return Remedy(
        f"{evidence.connector or 'an app'} limits how often it may be called",
        f"{evidence.connector or 'An app'} is called more often than it allows.",
        "Spread the calls: a rarer schedule, fewer calls for each run, retryPolicy with backoff.",
        "Running it again at once, which uses up the limit once more.",
    )


_AUTHORISE_FIRST = "A rerun, a retry, or a change of the code."
_CONNECTION = (
    r"\bconnection\b|conn-auth|conn-refresh|no active|pinned|unauthori[sz]ed|\b401\b|invalid_grant|token expired"
)


def _connection(evidence: FailureEvidence) -> Remedy | None:
    connections = evidence.connections or ()
    broken = [connection for connection in connections if connection.state is State.BROKEN]
    off = [connection for connection in connections if connection.state is State.OFF]
    working = [connection for connection in connections if connection.state is State.LIVE]
    if not evidence.speaks_of(_CONNECTION) and not ((broken or off) and evidence.speaks_of(r"connector\.")):
        return None
    app = evidence.connector or "an app"
    if broken:
        who = "The customer has" if broken[0].customer else "Somebody has"
        where = "the widget" if broken[0].customer else "the dashboard, for the account itself"
        return Remedy(
            f"the connection {broken[0].label} is {broken[0].status}",
            f"The connection {broken[0].label} is {broken[0].status}: Fastn can no longer use its credentials.",
            f"{who} to authorise the app again in {where}; then run the workflow once.",
            _AUTHORISE_FIRST,
            ListConnections,
        )
    if off:
        return Remedy(
            f"the connection {off[0].label} is {off[0].status}",
            f"The connection {off[0].label} is {off[0].status}: somebody switched it off.",
            "Have it reconnected in the dashboard; nothing here can. Then run the workflow once.",
            "Waiting, a rerun, or a change of the code.",
            ListConnections,
        )
    if connections and not working:
        return Remedy(
            f"the connection to {app} was refused, and whether it works is not known",
            f"The connection {connections[0].label} is {connections[0].status}, which is no documented status.",
            "Look at the connection in the dashboard, and authorise the app again if it asks for that.",
            _AUTHORISE_FIRST,
            ListConnections,
        )
    if evidence.speaks_of("no active connection") and any(connection.customer for connection in working):
        return Remedy(
            f"the connection to {app} was not found, though one is ACTIVE now",
            f"A connection to {app} is ACTIVE now: it was authorised since, or the run did not name the installation "
            "that it belongs to.",
            "Run it once with customer_id and, where a widget installed the workflow, this customer's installation_id "
            "(inst_…).",
            "Authorising again before that was tried.",
            GetWorkflow,
        )
    if working:
        return Remedy(
            f"the connection to {app} was refused, though one is ACTIVE now",
            f"A connection to {app} is ACTIVE now: it was authorised since, or the run is pinned to another one.",
            "Run it once. If it fails again, look in the workflow for the connection that it is pinned to.",
            "Authorising again before that was tried.",
            GetWorkflow,
        )
    known = "Its state could not be read." if evidence.connections is None else "There is none for whom it ran."
    return Remedy(
        f"there is no usable connection to {app}",
        f"The connection to {app} cannot be used. {known}",
        f"The customer has to connect {app} in the widget; then run the workflow once."
        if evidence.cause.customers
        else "Run it for a customer: customer_id, and installation_id where a widget installed it.",
        _AUTHORISE_FIRST,
        ListConnections,
    )


def _code(evidence: FailureEvidence) -> Remedy | None:
    if not evidence.speaks_of(
        r"typeerror|referenceerror|syntaxerror|rangeerror|usercodeerror|user.?code|is not a function|undefined"
    ):
        return None
    return Remedy(
        "its code throws an error",
        "The workflow's own code throws an error.",
        "Look at its code (get_workflow) and at the run's input, fix it with update_workflow, and have it published.",
        "A rerun with the same input.",
    )


def _app(evidence: FailureEvidence) -> Remedy | None:
    if not evidence.speaks_of(r"dependency|conn-exec|upstream|\b50[0234]\b|econn|enotfound|service unavailable"):
        return None
    app = evidence.connector or "An app that it calls"
    return Remedy(
        f"{app} does not respond as expected",
        f"{app} failed or could not be reached.",
        "Look at the run for the app's answer. If the app is down, run it again once it is back.",
        "A retry: an error of a dependency is not fixed by a retry.",
    )


def _data(evidence: FailureEvidence) -> Remedy | None:
    if not evidence.speaks_of(r"\b(user_)?data\b|validation|\b4(00|04|22)\b|invalid|missing"):
        return None
    return Remedy(
        "it is given data that it or an app does not accept",
        "The input, or what an app was sent, is not accepted.",
        "Compare the input of the run (get_execution) with what the failing step needs.",
        "A rerun with the same input.",
    )


def _configuration(evidence: FailureEvidence) -> Remedy | None:
    if not evidence.speaks_of(r"configuration|secret"):
        return None
    return Remedy(
        "a setting is missing or wrong",
        "A setting is missing or wrong: a secret, a mapping, an environment.",
        "Look at the run (get_execution), and whether the secrets that the code reads are there (list_secrets).",
        "A rerun before that is set.",
    )


def _unknown(evidence: FailureEvidence) -> Remedy:
    said = "" if evidence.failure.text.strip() else " The run does not say why it failed."
    return Remedy(
        "the cause is not a known one",
        f"Not one of the known causes.{said}",
        "Read the run (get_execution) and the code of its failing step (get_workflow).",
        "Guessing: a rerun has real effects.",
    )


_RULES: tuple[Callable[[FailureEvidence], Remedy | None], ...] = (
    _quota,
    _unpublished,
    _memory,
    _timeout,
    _rate_limit,
    _connection,
    _code,
    _app,
    _data,
    _configuration,
    _unknown,
)
