"""The likely cause of a failure, what would fix it and what would not.

The first matching rule decides. The texts are ours; Fastn's texts are only matched, never repeated.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from fastn_mcp.account.typed_argument import typed_argument
from fastn_mcp.procedures.checks.failures import EndedRun, FailureGroup, grouped
from fastn_mcp.procedures.checks.parts import PartState, apps_of, connections_to, listed, repairs
from fastn_mcp.records.formats import lasting, quoted
from fastn_mcp.records.labels import app_of
from fastn_mcp.records.rows import Row, key_of, number, text
from fastn_mcp.records.states import State
from fastn_mcp.tools.billing import GetQuotas
from fastn_mcp.tools.connectors import CreateConnection, ListConnections
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow

PUBLISH = "Have somebody publish and deploy it in the dashboard; nothing here can."
_MIN_BLAMED = 8
"""Minimum number of characters of an id that is looked for in errors: a shorter one may be a part of other words."""

MORE_QUOTA = "Wait for its reset, or have the plan or the customer's override raised."


@dataclass(frozen=True, slots=True)
class FailureEvidence:
    """Facts about one cause of failures."""

    run: EndedRun
    """Its newest run, in full if that could be read."""
    workflow: Row
    """Its workflow; empty if that could not be read."""
    for_customers: bool
    """Whether it failed for any customer, and not only for your own account."""
    connector: str | None
    """Slug of the app at which the runs fail."""
    connections: Sequence[PartState]
    """Connections of the affected customers to that app, as far as they were read."""
    knows_connections: bool
    """Whether the connections of all these customers were read."""
    takes_credentials: bool
    """Whether the app is certain to take credentials that a person can type, if none of them has connected it."""
    blames_connection: bool = False
    """Whether the error has the id of one of the connections, which is broken."""
    further: Sequence[PartState] = ()
    """All broken connections that the next runs would meet."""
    lengths: Sequence[timedelta] = ()
    """How long completed runs of its workflow took, as far as they were read."""
    completed_since: str = ""
    """How long ago it completed since its last failure; empty if it did not, or that is not known."""

    def mentions(self, pattern: str) -> bool:
        inferred = {"out of memory": self.run.memory_used >= 0.97, "workflow took too long": self.run.timed_out}
        error = " ".join([self.run.text, *(words for words, applies in inferred.items() if applies)])
        return re.search(pattern, error) is not None


@dataclass(frozen=True, slots=True)
class Remedy:
    """Likely cause of a failure, and what to do."""

    cause: str
    """A clause without a full stop."""
    fix: str
    will_not_help: str
    see: type[Tool[Any]] = GetExecution
    """The tool that shows more."""
    repairs: Sequence[PartState] = ()
    """The connections that are the cause."""
    further: Sequence[PartState] = ()
    """Other broken connections that the next runs would meet, which `fix` is about, too."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What failed runs depend on, as far as it was read."""

    workflows: Mapping[str, Row]
    """Rows by id."""
    connections: Sequence[PartState]
    connected: Collection[str | None] = ()
    """Customers all of whose connections were read."""
    missing_apps: Mapping[str, Row] = field(default_factory=dict[str, Row])
    """Connectors, by slug, that no customer of a cause has connected."""
    lengths: Mapping[str, Sequence[timedelta]] = field(default_factory=dict[str, Sequence[timedelta]])
    """How long completed runs took, by workflow."""


def remedy_of(
    failures: FailureGroup,
    newest: EndedRun,
    dependencies: Dependencies,
    further: Sequence[PartState] = (),
    completed_since: str = "",
) -> Remedy:
    """Return the likely cause of failures, and what to do. `newest` is their newest run, in full if it was read.

    `further` and `completed_since` are as in `FailureEvidence`.
    """
    workflow = dependencies.workflows.get(newest.workflow, {})
    apps = apps_of(workflow)
    connector = newest.app(apps)
    customers = failures.customers
    of_owners = [each for each in dependencies.connections if each.customer in (None, *customers)]
    candidates = connections_to([connector] if connector else apps, of_owners)
    blamed = _blamed([newest, *failures.runs], of_owners) if not (connector and candidates) else []
    candidates = blamed or candidates
    theirs = [each for each in of_owners if each.customer is not None]
    is_known = {*customers} <= {*dependencies.connected}
    is_known = is_known and all(text(each.row, "connectorSlug", "connector.slug") for each in theirs)
    return _remedy(
        FailureEvidence(
            newest,
            workflow,
            bool(customers),
            connector=connector,
            connections=[each for each in candidates if each in theirs] or candidates,
            knows_connections=is_known,
            takes_credentials=_takes_credentials(dependencies.missing_apps.get(connector or "", {})),
            blames_connection=bool(blamed),
            further=further,
            lengths=dependencies.lengths.get(newest.workflow, ()),
            completed_since=completed_since,
        )
    )


def _blamed(runs: Sequence[EndedRun], connections: Sequence[PartState]) -> list[PartState]:
    """Return the broken connections whose id stands in the error of a run."""
    errors = [run.whole_error for run in runs]
    broken = [each for each in connections if each.state.is_broken and len(each.id) >= _MIN_BLAMED]
    return [each for each in broken if any(each.id.casefold() in error for error in errors)]


def _takes_credentials(connector: Row) -> bool:
    """Whether it is certain that a person can type the credentials of a connection to this connector."""
    if not key_of(connector):
        return False
    typed = typed_argument(CreateConnection(connector_id=key_of(connector)), connector)
    return typed is not None and typed.is_certain


def remedies_by_workflow(
    failed: Sequence[EndedRun], dependencies: Dependencies
) -> Iterator[tuple[FailureGroup, Remedy]]:
    """Yield the failed runs of each workflow and customer with the same cause, and what would help."""
    by_owner = dict[str | None, list[PartState]]()
    for connection in dependencies.connections:
        by_owner.setdefault(connection.customer, []).append(connection)
    for group in grouped(failed, lambda run: (run.cause, run.filter)):
        owner = group.newest.customer
        own = [*by_owner.get(owner, ()), *(by_owner.get(None, ()) if owner else ())]
        yield group, remedy_of(group, group.newest, replace(dependencies, connections=own))


def _remedy(evidence: FailureEvidence) -> Remedy:
    """Return the likely cause, with everything that the next run would fail at, as far as it is known."""
    remedy = _remedy_of_cause(evidence)
    further = [each for each in evidence.further if each not in remedy.repairs]
    if further:
        return _with_further_repairs(remedy, further)
    if evidence.completed_since and not remedy.repairs:
        again = f"It has completed since, {evidence.completed_since}: running it again may do. If it fails again: "
        return replace(remedy, fix=again + remedy.fix[:1].lower() + remedy.fix[1:], will_not_help="")
    return remedy


def _with_further_repairs(remedy: Remedy, further: Sequence[PartState]) -> Remedy:
    """Add the broken connections that the next runs would meet once the cause is gone."""
    named = listed([f"{quoted(each.label)} ({quoted(each.status)})" for each in further])
    cause = f"{remedy.cause}, and the next run would then meet {named}"
    fix = f"{remedy.fix} {repairs(further)}"
    if remedy.repairs:
        fix = f"{repairs([*remedy.repairs, *further])} {_RUN_ONCE}"
    return replace(remedy, cause=cause, fix=fix, further=further)


def _remedy_of_cause(evidence: FailureEvidence) -> Remedy:
    says_nothing = "" if evidence.run.text.strip() else ", and the run does not say why it failed"
    return (
        _first_matching(_CERTAIN, evidence)
        or _connection(evidence)
        or _first_matching(_LESS_SURE, evidence)
        or Remedy(
            f"no known cause fits{says_nothing}",
            "Read the run (get_execution) and the code of its failing step (get_workflow).",
            "Guessing: a rerun has real effects.",
        )
    )


def _first_matching(rules: Mapping[str, Remedy], evidence: FailureEvidence) -> Remedy | None:
    """Return the remedy of the first matching pattern, filled in for the workflow."""
    rule = next((remedy for pattern, remedy in rules.items() if evidence.mentions(pattern)), None)
    if rule is None:
        return None
    tier = text(evidence.workflow, "executionTier").upper()
    timeout = number(evidence.workflow, "timeoutMs")
    longest = max(evidence.lengths, default=None)
    read = len(evidence.lengths)
    if rule is _TOO_LONG and timeout is not None and longest is not None and longest < _share_of(timeout):
        rule = _HANGS if read >= _MIN_COMPLETED else _MAY_HANG
    seen = "and no completed run was seen"
    if longest is not None:
        seen = f"while completed runs take at most {lasting(longest)} ({read} seen)"
    facts = {
        "app": quoted(evidence.connector or "an app"),
        "limit": "" if timeout is None else f" of {timeout / 1000:.0f} s",
        "tier": f" (tier {quoted(tier)})" if tier else "",
        "seen": seen,
        "longer": _LONGER_TIMEOUTS.get(
            tier, "Raise timeout_ms by update_workflow, and publish it, or let each run do less."
        ),
    }
    return replace(rule, cause=rule.cause.format_map(facts), fix=rule.fix.format_map(facts))


_MAX_SHARE_OF_HANGING = 0.5
"""Share of its limit up to which completed runs of a workflow may take for a timed-out run to have hung."""


_MIN_COMPLETED = 3
"""Number of completed runs from which on their length tells that a timed-out run has hung."""


def _share_of(timeout: float) -> timedelta:
    return timedelta(milliseconds=timeout * _MAX_SHARE_OF_HANGING)


_TOO_LONG = Remedy(
    "a run takes longer than its limit{limit}{tier}, {seen}",
    "{longer}",
    "A retry with as much to do.",
    GetWorkflow,
)
_HANGS = Remedy(
    "a run hangs until its limit{limit}{tier}, {seen}",
    "Look at which step it waits for (get_execution), and limit the time of that call in the code, or its input.",
    "A higher timeout_ms: it would hang for longer.",
)
_MAY_HANG = Remedy(
    "a run does not end within its limit{limit}{tier}, {seen}",
    "See how long more completed runs take (list_executions). If they are as short, it hangs: look at which step it "
    "waits for (get_execution). Otherwise it needs more time. {longer}",
    "If it hangs, a higher timeout_ms.",
)

_LONGER_TIMEOUTS = {
    "INSTANT": "Set execution_tier STANDARD (up to 15 min) by update_workflow, and publish it.",
    "STANDARD": "Raise timeout_ms (up to 15 min) or set execution_tier LONG by update_workflow, and publish it.",
}

_CERTAIN = {
    r"quota_exceeded|quota exceeded|payment_required": Remedy(
        "a quota of the plan is used up, which stops new work",
        f"See get_quotas. {MORE_QUOTA}",
        "Running it again before the reset.",
        GetQuotas,
    ),
    r"not_published|not published|no published version": Remedy(
        "the workflow has no published version in the environment that was run (WORKFLOW_NOT_PUBLISHED)",
        PUBLISH,
        "Running it again, or changing its code without publishing.",
        GetWorkflow,
    ),
    r"memory limit|out of memory|heap (out|limit)|\boom\b": Remedy(
        "a run needs more memory than it has",
        "Read less at once: smaller batches or pages in the code, or a narrower input.",
        "A retry: running out of memory is never retried, and the same input fails again.",
        GetWorkflow,
    ),
    r"wf-timeout|workflow_timeout|workflow took too long": _TOO_LONG,
    r"rate.?limit|too many requests|\b429\b|throttl": Remedy(
        "{app} is called more often than it allows",
        "Spread the calls: a rarer schedule, fewer calls for each run, retryPolicy with backoff.",
        "Running it again immediately, which uses up the limit once more.",
    ),
}
"""Remedies by a pattern of the error; the first match counts."""

_LESS_SURE = {
    r"typeerror|referenceerror|syntaxerror|rangeerror|usercodeerror|user.?code|is not a function|undefined": Remedy(
        "the workflow's own code throws an error",
        "Look at its code (get_workflow) and at the run's input, fix it with update_workflow, and have it published.",
        "A rerun with the same input.",
    ),
    r"dependency|conn-exec|upstream|\b50[0234]\b|econn|enotfound|service unavailable": Remedy(
        "{app} failed or could not be reached",
        "Look at the run for the app's answer. If the app is down, run it again once it is back.",
        "A retry: an error of a dependency is not fixed by a retry.",
    ),
    r"\b(user_)?data\b|validation|\b4(00|04|22)\b|invalid|missing": Remedy(
        "the input, or what an app was sent, is not accepted",
        "Compare the input of the run (get_execution) with what the failing step needs.",
        "A rerun with the same input.",
    ),
    r"configuration|secret": Remedy(
        "a setting is missing or wrong: a secret, a mapping or an environment",
        "Look at the run (get_execution), and whether the secrets that the code reads are there (list_secrets).",
        "A rerun before that is set.",
    ),
}
"""Remedies by patterns that errors of connections may match too, so these are tried after them."""

_RUN_ONCE = "Then run the workflow once."
_AUTHORISE_FIRST = "A rerun, a retry, or a change of the code."
_CONNECTION = (
    r"\bconnection\b|conn-auth|conn-refresh|no active|pinned|unauthori[sz]ed|\b401\b|invalid_grant|token expired"
)


def _connection(evidence: FailureEvidence) -> Remedy | None:
    connections = evidence.connections
    app = quoted(evidence.connector or "an app")
    live, broken, off = (
        [connection for connection in connections if connection.state is state]
        for state in (State.LIVE, State.BROKEN, State.OFF)
    )
    is_about_connection = evidence.blames_connection or evidence.mentions(_CONNECTION)
    if not is_about_connection and not ((broken or off) and evidence.mentions(r"connector\.")):
        return None
    if broken or off:
        return remedy_for_broken([*broken, *off])
    if live:
        refused = "refused"
        otherwise = "is pinned to another one"
        fix = "Run it once. If it fails again, look in the workflow for the connection that it is pinned to."
        if evidence.mentions("no active connection") and any(connection.customer for connection in live):
            refused = "not found"
            otherwise = "did not name the installation that it belongs to"
            fix = (
                "Run it once with customer_id and, if a widget installed the workflow, this customer's installation_id "
                "(inst_…)."
            )
        cause = f"the connection to {app} was {refused}, though one is ACTIVE now: it was authorised since, or the run "
        return Remedy(f"{cause}{otherwise}", fix, "Authorising again before that was tried.", GetWorkflow)
    if connections:
        label = quoted(connections[0].label)
        status = quoted(connections[0].status)
        cause = f"the connection {label} is {status}, which is not a documented status"
        fix = "Look at the connection in the dashboard, and authorise the app again if it asks for that."
        return Remedy(cause, fix, _AUTHORISE_FIRST, ListConnections)
    return _not_connected(evidence, app)


def _not_connected(evidence: FailureEvidence, app: str) -> Remedy:
    """Return the remedy where no connection to an app was found."""
    why = "it ran for no customer"
    fix = "Run it for a customer: customer_id, and installation_id if a widget installed it."
    see: type[Tool[Any]] = ListConnections
    if evidence.for_customers:
        unread = "not all connections of the affected customers were read"
        why = "no affected customer has connected it" if evidence.knows_connections else unread
        fix = f"The customer has to connect {app} in the widget; then run the workflow once."
        if evidence.takes_credentials:
            fix = (
                f"The customer has to connect {app} in the widget, or use create_connection, where a person types the "
            )
            fix += "credentials. Then run the workflow once for the customer (run_workflow with customer_id)."
            see = CreateConnection
    return Remedy(f"there is no working connection to {app}: {why}", fix, _AUTHORISE_FIRST, see)


def remedy_for_broken(connections: Sequence[PartState]) -> Remedy:
    """Return the remedy for broken connections to one app."""
    first = connections[0]
    states = {quoted(connection.status): connection.problem for connection in connections}
    cause = f"the connection {quoted(first.label)} is {quoted(first.status)}"
    if len(connections) > 1:
        owners = listed([quoted(connection.owner) for connection in connections])
        cause = f"the connections to {quoted(app_of(first.row))} of {owners} are {' or '.join(sorted(states))}"
    is_broken = any(connection.state is State.BROKEN for connection in connections)
    return Remedy(
        f"{cause} ({', or '.join(states[status] for status in sorted(states))})",
        f"{repairs(connections)} {_RUN_ONCE}",
        _AUTHORISE_FIRST if is_broken else "Waiting, a rerun, or a change of the code.",
        see=ListConnections,
        repairs=connections,
    )
