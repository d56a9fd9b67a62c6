"""The tool `get_overview`: an overview of the account, or one subject in full, page by page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, JsonValue
from pydantic_core import to_json

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.account.dependence import Unchecked, by_reason
from fastn_mcp.account.entries import MAX_NAMED, MAX_PAGES, read_customer_names
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.blockers import PartState, connection_states, workflow_setup
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.diagnosis.failures import EndedRun, Period, RunFilter
from fastn_mcp.procedures.diagnosis.run_counts import RunRecord, read_records, read_rest_of_runs
from fastn_mcp.procedures.overview.account_rows import RUNS, AccountRows, read_account
from fastn_mcp.procedures.overview.checks import (
    KEY_CHECKS,
    PENDING_CUSTOMERS,
    UNANSWERED_INVITATIONS,
    AccountFinding,
    FindingRow,
    Severity,
    failing_workflows,
    full_quotas,
    trigger_findings,
    unusable_connections,
)
from fastn_mcp.procedures.reads import AccountReads
from fastn_mcp.records.formats import counted, stamp
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.quotas import credits_quota, plan, quotas_of
from fastn_mcp.records.rows import FastnObject, Row, connector_keys, key_of
from fastn_mcp.records.states import NOT_WORKING, STATES, State
from fastn_mcp.tools.billing import GetBilling, GetQuotas
from fastn_mcp.tools.tool import Effect, suggested
from fastn_mcp.tools.workflows import ListExecutions

Subject = Literal["runs", "connections", "triggers", "access", "quotas", "approvals"]

READS: Mapping[Subject, tuple[str, ...]] = {
    "runs": (RUNS, "workflows"),
    "connections": (RUNS, "connections", "workflows"),
    "triggers": ("triggers", "workflows"),
    "access": ("customers", "users", "API keys"),
    "quotas": ("quotas", "billing"),
    "approvals": (),
}
"""What is read for one subject."""

FEW = 3
"""Number of rows of each finding in the overview of the whole account, and at least on one subject."""

_MAX_ROWS, _MAX_WORKFLOWS = 30, 12
"""Maximum number of rows of a finding in an answer, and of failing workflows, whose runs are counted one by one."""

_ROOM = 7_000
"""Maximum size of the findings on one subject in characters."""

_CURSOR = r"^([\w-]{1,32}:)?\d{1,6}(\.\d{1,6}){0,50}$"
_ERRORS = 5

_FEW_REQUESTS = 3
"""Maximum number of requests for how the workflows on later pages ran, beside those for the first page."""

_ORDER = "Worst first; workflows and connections by failed runs, most first."

_COUNTED = ("customers", "connectors", "connections", "workflows", "triggers", "users", "API keys", "secrets")
"""Lists whose rows are counted in an answer."""


class Overview(FastnObject):
    """Overview of an account."""

    shape = (("findings", "array"), ("not_checked", "array"))


class GetOverview(Procedure[Overview]):
    """The account at a glance: what fails, expires, never fires or is open, worst first; counts, quotas. Start here."""

    effect = Effect.READ

    hours: Annotated[int, Field(ge=1, le=720, description="For runs: 1-720, default 24.")] = 24
    about: Annotated[Subject | None, Field(description="Only this, in full.")] = None
    cursor: Annotated[str | None, Field(description="The last next_cursor.", pattern=_CURSOR)] = None

    async def run(self, context: ProcedureContext) -> Overview:
        name, _, starts = (self.cursor or "").rpartition(":")
        if self.about == "approvals":
            answer: dict[str, JsonValue] = {"now": stamp(context.system.now()), "findings": [], "not_checked": []}
            answer["guard"] = await context.guard.allowance(context.caller.principal)
            return Overview.model_validate(answer)
        pages = context.look.snapshot.kept(name) if name else None
        if not isinstance(pages, _Pages) or pages.of != (context.caller.principal, self.about, self.hours):
            pages = await self._read(context, starts)
        context.look.use(pages.read_at)
        page, next_cursor = _page(pages.findings, starts, self.about)
        if next_cursor:
            name = name if pages is context.look.snapshot.kept(name) else context.look.snapshot.keep(pages)
            next_cursor = f"{name}:{next_cursor}"
        entries: list[JsonValue] = [finding.data(rows) for finding, rows in page]
        answer = {"now": pages.frame["now"], "order": _ORDER, "findings": entries}
        more: dict[str, JsonValue] = {"next_cursor": next_cursor} if next_cursor else {}
        return Overview.model_validate(answer | more | {**pages.frame} | context.look.age())

    async def _read(self, context: ProcedureContext, starts: str) -> "_Pages":
        """Read the findings for all pages, and what else is said on each. `starts`: as `_page`."""
        look = context.look
        period = Period(self.hours, look.snapshot.instant())
        account = await read_account(context, period, None if self.about is None else READS[self.about])
        connections = await _connections(account, look, self.about) if self.about in (None, "connections") else []
        findings = _findings(account, self.about, connections)
        first = _page(findings, starts, self.about)[0]
        findings, unread = await _with_run_records(findings, [row for _, rows in first for row in rows], account, look)
        if unread and self.about == "runs":
            what = f"how often {counted(unread, 'workflow')} on later pages ran"
            account.reads.gaps.append(Unchecked(what, "Each takes a request: see diagnose."))
        frame: dict[str, JsonValue] = {"now": stamp(period.now)}
        if self.about is None:
            frame |= await _account(account, context)
        elif self.about in ("runs", "connections"):
            frame |= _runs(account, self.about, findings)
        if starts:
            frame["note"] = "The first page is no longer kept: this one was read anew."
        of = (context.caller.principal, self.about, self.hours)
        return _Pages(of, look.oldest, findings, frame | _not_checked(account))


@dataclass(frozen=True, slots=True)
class _Pages:
    """The findings of all pages of an answer, and the fields that each page has besides."""

    of: tuple[str, Subject | None, int]
    """The principal, the subject and the hours."""
    read_at: float
    """Time of the oldest read, on the monotonic clock."""
    findings: Sequence[AccountFinding]
    frame: Mapping[str, JsonValue]


def _page(
    findings: Sequence[AccountFinding], cursor: str, about: Subject | None
) -> tuple[list[tuple[AccountFinding, list[FindingRow]]], str | None]:
    """Return some rows of each finding, and the next cursor: at least a few, and more of the first as far as they fit.

    A cursor holds the number of rows of each finding that were shown before.
    """
    starts = [int(start) for start in cursor.split(".")] if cursor else []
    starts += [0] * (len(findings) - len(starts))
    rows = [list(map(_brief, finding.rows)) if about is None else [*finding.rows] for finding in findings]
    ends = [min(start + FEW, len(of)) for start, of in zip(starts, rows, strict=False)]
    parts = list(zip(findings, rows, starts, strict=False))
    entries = [finding.data(of[start:end]) for (finding, of, start), end in zip(parts, ends, strict=True)]
    room = 0 if about is None else _ROOM - len(to_json(entries))
    most = _MAX_WORKFLOWS if about == "runs" else _MAX_ROWS
    for number, (_, of, start) in enumerate(parts):
        while ends[number] < min(len(of), start + most):
            room -= len(to_json(of[ends[number]]))
            if room < 0:
                break
            ends[number] += 1
    page = [(finding, of[start:end]) for (finding, of, start), end in zip(parts, ends, strict=True)]
    is_whole = all(end >= len(of) for of, end in zip(rows, ends, strict=True))
    return [(finding, of) for finding, of in page if of or not cursor], None if is_whole else ".".join(map(str, ends))


def _brief(row: FindingRow) -> FindingRow:
    """Return a row with the first entry of each of its lists, and the number of others."""
    return {
        name: [*item[:1], f"{len(item) - 1} more"] if isinstance(item, list) and len(item) > 2 else item
        for name, item in row.items()
    }


def _findings(account: AccountRows, about: Subject | None, states: Sequence[PartState]) -> list[AccountFinding]:
    """Run the checks on one subject, or all of them. `states` are those of the connections. Worst first."""
    records, counts = account.reads.records, account.counts
    period, now, failures = counts.period, counts.period.now, counts.failures
    workflows, users, waiting = map(account.chosen, ("workflows", "users", "customers"))
    connections = account.chosen("connections")
    names = {key_of(row): name_of(row) for row in workflows.rows}
    findings: dict[Subject, list[AccountFinding]] = {
        "runs": failing_workflows(failures, names, period, counts.failures_of_runs),
        "connections": unusable_connections(
            states,
            _fails_without(states, failures, workflows.rows),
            now,
            more=connections.more and connections.total is None,
        ),
        "triggers": trigger_findings(account.chosen("triggers").rows, workflows.rows, now),
        "quotas": [
            *full_quotas(quotas_of(records.get("quotas", {})), GetQuotas(), now),
            *full_quotas(credits_quota(records.get("billing", {})), GetBilling(), now),
        ],
        "access": [
            *PENDING_CUSTOMERS.findings(
                waiting.rows, now, total=waiting.total if "customers" in account.matching else None, more=waiting.more
            ),
            *(each for check in KEY_CHECKS for each in check.findings(account.chosen("API keys").rows, now)),
            *UNANSWERED_INVITATIONS.findings(users.rows, now, more=users.more),
        ],
    }
    selected = [finding for subject, of in findings.items() if about in (None, subject) for finding in of]
    return sorted(selected, key=lambda finding: list(Severity).index(finding.severity))


def _fails_without(
    connections: Sequence[PartState], failures: Sequence[EndedRun], workflows: Sequence[Row]
) -> dict[str, dict[str, int]]:
    """Return by connection the workflows whose runs failed for its customer at its app, with the number of runs."""
    setups = {key_of(row): workflow_setup(row) for row in workflows}
    by_customer: dict[str | None, list[EndedRun]] = {}
    for run in failures:
        by_customer.setdefault(run.customer, []).append(run)
    failing: dict[str, dict[str, int]] = {}
    for connection in connections:
        if connection.state is State.LIVE:
            continue
        apps = connector_keys(connection.row)
        runs = [
            run
            for run in by_customer.get(connection.customer, ())
            if run.app(setups[run.workflow].apps if run.workflow in setups else ()) in apps or run.blames(connection.id)
        ]
        names = Counter(run.workflow_name or run.workflow for run in runs)
        if names:
            failing[connection.id] = dict(names.most_common())
    return failing


async def _connections(account: AccountRows, look: AnswerReads, about: Subject | None) -> list[PartState]:
    """Return the connections, with the names of their customers: for the whole account, of those shown first."""
    rows = account.chosen("connections").rows
    known = (*account.reads.rows("customers"), *account.chosen("customers").rows)
    names = {key_of(row): name_of(row) for row in known}
    broken = [connection for connection in connection_states(rows, names) if connection.state is not State.LIVE]
    if about is None:
        fails = _fails_without(broken, account.counts.failures, account.chosen("workflows").rows)
        broken.sort(key=lambda connection: -sum(fails.get(connection.id, {}).values()))
        broken = [each for status in NOT_WORKING for each in [it for it in broken if it.status == status][:FEW]]
    unnamed = [owner for owner in dict.fromkeys(each.customer for each in broken) if owner and owner not in names]
    try:
        names |= await read_customer_names(unnamed, look, MAX_NAMED if about is None else MAX_PAGES)
    except FastnError as error:
        account.reads.failed["names of customers"] = error
    return connection_states(rows, names)


async def _with_run_records(
    findings: Sequence[AccountFinding], first: Sequence[FindingRow], account: AccountRows, look: AnswerReads
) -> tuple[list[AccountFinding], int]:
    """Add to failing workflows how many runs there were, and the last success.

    Of those that are not among the `first` rows, only if it takes few requests. Returns also the number of the others.
    """
    failures, now = account.counts.failures, account.counts.period.now
    failing = [row for finding in findings for row in finding.rows if "last_failure" in row and row.get("id")]
    later = [row for row in failing if row not in first]
    records: dict[str | None, RunRecord] = {}
    for rows in ([row for row in failing if row in first], later):
        wanted = {RunFilter(str(row["id"])): [run for run in failures if run.workflow == row["id"]] for row in rows}
        reads = account.reads if rows is not later else AccountReads(look)
        read = await read_records(reads, account.counts, wanted, look)
        records |= {which.workflow: record for which, record in read.items()}
        if rows is not later:
            await _prepare(later, look)
    unread = sum(not records[str(row["id"])].knows_success for row in later)

    def completed(row: FindingRow) -> FindingRow:
        record = records.get(str(row.get("id")))
        if "last_failure" not in row or record is None:
            return row
        more: FindingRow = {}
        if record.runs is not None:
            more["failed"] = f"{len(record.failures):,} of {record.runs:,}"
        if record.completed is not None and record.failures:
            more["success_rate"] = f"{100 * record.completed / (record.completed + len(record.failures)):.1f} %"
        if last := record.last_success_in_words(now):
            more["last_success"] = last
        return row | more

    return [replace(finding, rows=list(map(completed, finding.rows))) for finding in findings], unread


async def _prepare(later: Sequence[FindingRow], look: AnswerReads) -> None:
    """Read the rest of all runs if that tells how these workflows ran. Let no more be sent if each takes a request."""
    successes = [ListExecutions(workflow_id=str(row["id"]), status="completed", limit=1) for row in later]
    await read_rest_of_runs(look, sum(not look.snapshot.holds(call) for call in successes))
    if sum(not look.snapshot.holds(call) for call in successes) > _FEW_REQUESTS:
        look.send_no_more()


async def _account(account: AccountRows, context: ProcedureContext) -> dict[str, JsonValue]:
    """Return totals, plan and what the guard still allows."""
    answer: dict[str, JsonValue] = {}
    if totals := _run_totals(account):
        answer["runs"] = totals
    counts: dict[str, JsonValue] = {}
    for kind in filter(account.reads.lists.__contains__, _COUNTED):
        total = account.reads.total(kind)
        rows = account.reads.lists[kind].rows
        counts[kind.replace(" ", "_").lower()] = f"at least {len(rows)}" if total is None else total
    if (ever := account.counts.ever) is not None:
        counts["executions"] = ever
    answer["counts"] = counts
    if of_account := plan(account.reads.records.get("billing", {})):
        answer["plan"] = of_account
    try:
        allowance = await context.guard.allowance(context.caller.principal)
        answer["guard"] = {name: item for name, item in allowance.items() if name != "decided"}
    except FastnError as error:
        account.reads.gaps.append(Unchecked("budgets", error.what))
    return answer


def _run_totals(account: AccountRows) -> dict[str, JsonValue]:
    """Return the run totals of the period. Records a gap if they are not plausible."""
    totals = account.counts.totals
    if not totals:
        account.reads.gaps.append(Unchecked("success rate", "Fastn gives no totals that certainly cover this period."))
        return {}
    return {"hours": account.counts.period.hours, **totals}


def _runs(account: AccountRows, about: Subject, findings: Sequence[AccountFinding]) -> dict[str, JsonValue]:
    """Return the totals and the most frequent errors of the runs, or what the rows of connections say of them."""
    if about == "connections":
        hours = f"in {account.counts.period}"
        return {"fails": f"Workflows whose runs failed {hours} for this customer at this app, with the number of runs."}
    totals = _run_totals(account)
    answer: dict[str, JsonValue] = {"runs": totals} if totals else {}
    failures = account.counts.failures
    errors = Counter(run.reason for run in failures if run.reason)
    answer["top_errors"] = [{"error": why, "runs": count} for why, count in errors.most_common(_ERRORS)]
    if findings:
        answer["next"] = suggested(
            Diagnose, workflow_id=findings[0].rows[0].get("id"), hours=account.counts.period.hours
        )
    return answer


def _not_checked(account: AccountRows) -> dict[str, JsonValue]:
    """Return the gaps and unknown states, grouped by reason."""
    gaps = account.reads.all_gaps()
    for kind, state in STATES.items():
        unknown = sum(state(row) is State.UNKNOWN for row in account.chosen(kind).rows)
        if unknown:
            why = "Their status is missing or undocumented."
            gaps.append(Unchecked(counted(unknown, kind.removesuffix("s")), why))
    return {"not_checked": [{"what": what, "why": why} for why, what in by_reason(gaps).items()]}
