"""The tool `get_overview`: an overview of the account, or one subject in full, page by page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, JsonValue
from pydantic_core import to_json

from fastn_mcp.account.dependents import Unchecked
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.account_parts import PartState, connection_states, workflow_setup
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.diagnosis.failures import EndedRun, Period, Scope
from fastn_mcp.procedures.overview.checks import (
    AccountFinding,
    FindingRow,
    failing_workflows,
    full_quotas,
    invited_users,
    key_problems,
    pending_customers,
    trigger_problems,
    unusable_connections,
    worst_first,
)
from fastn_mcp.procedures.overview.snapshot import RUNS, AccountSnapshot
from fastn_mcp.records.formats import counted, stamp
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.quotas import credits_quota, plan, quotas_of
from fastn_mcp.records.rows import connector_keys, key_of, owner_of
from fastn_mcp.records.states import STATES, State, connection_state
from fastn_mcp.tools.account import GetBilling, GetQuotas
from fastn_mcp.tools.tool import Effect, FastnObject, suggested

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

_MOST, _MOST_WORKFLOWS = 30, 12
"""Maximum number of rows of a finding in an answer, and of failing workflows, whose runs are counted one by one."""

_ROOM = 7_000
"""Maximum size of the findings on one subject in characters."""

_CURSOR = r"^\d{1,6}(\.\d{1,6}){0,50}$"
_ERRORS = 5

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
        snapshot = AccountSnapshot(context, Period(self.hours, context.system.now()))
        if self.about == "approvals":
            found: dict[str, JsonValue] = {"now": stamp(snapshot.period.now), "guard": await context.allowance()}
            return Overview.model_validate(found | {"findings": [], "not_checked": []})
        await snapshot.take(None if self.about is None else READS[self.about])
        findings = await _findings(snapshot, self.about)
        page, next_cursor = _page(findings, self.cursor, self.about)
        shown = await _with_run_records(page, snapshot)
        now = snapshot.period.now
        answer: dict[str, JsonValue] = {"now": stamp(now)}
        answer["order"] = "Worst first; workflows and connections by failed runs, most first."
        answer["findings"] = [finding.data(rows) for finding, rows in shown]
        if next_cursor:
            answer["next_cursor"] = next_cursor
        if self.about is None:
            answer |= await _account(snapshot)
        elif self.about in ("runs", "connections"):
            answer |= _runs(snapshot, self.about, findings)
        return Overview.model_validate(answer | _not_checked(snapshot))


def _page(
    findings: Sequence[AccountFinding], cursor: str | None, about: Subject | None
) -> tuple[list[tuple[AccountFinding, list[FindingRow]]], str | None]:
    """Return some rows of each finding, and the next cursor: at least a few, and more of the first as far as they fit.

    A cursor holds the number of rows of each finding that were shown before.
    """
    starts = [int(start) for start in cursor.split(".")] if cursor else []
    starts += [0] * (len(findings) - len(starts))
    rows = [list(map(_brief, found.rows)) if about is None else [*found.rows] for found in findings]
    ends = [min(start + FEW, len(of)) for start, of in zip(starts, rows, strict=False)]
    parts = list(zip(findings, rows, starts, strict=False))
    shown = [found.data(of[start:end]) for (found, of, start), end in zip(parts, ends, strict=True)]
    room = 0 if about is None else _ROOM - len(to_json(shown))
    most = _MOST_WORKFLOWS if about == "runs" else _MOST
    for number, (_, of, start) in enumerate(parts):
        while ends[number] < min(len(of), start + most):
            room -= len(to_json(of[ends[number]]))
            if room < 0:
                break
            ends[number] += 1
    page = [(found, of[start:end]) for (found, of, start), end in zip(parts, ends, strict=True)]
    is_whole = all(end >= len(of) for of, end in zip(rows, ends, strict=True))
    return [(found, of) for found, of in page if of or not cursor], None if is_whole else ".".join(map(str, ends))


def _brief(row: FindingRow) -> FindingRow:
    """Return a row with the first entry of each of its lists, and the number of others."""
    return {
        name: [*item[:1], f"{len(item) - 1} more"] if isinstance(item, list) and len(item) > 2 else item
        for name, item in row.items()
    }


async def _findings(snapshot: AccountSnapshot, about: Subject | None) -> list[AccountFinding]:
    """Run the checks on one subject, or all of them. Returns their findings, worst first."""
    period, records = snapshot.period, snapshot.records
    workflows, users, customers = map(snapshot.chosen, ("workflows", "users", "customers"))
    connections = snapshot.chosen("connections")
    failures = snapshot.failures
    names = {key_of(row): name_of(row) for row in workflows.rows}
    states = connection_states(connections.rows, await _customers(snapshot)) if about in (None, "connections") else []
    waiting = customers.total if "customers" in snapshot.matching else None
    found: dict[Subject, list[AccountFinding]] = {
        "runs": failing_workflows(failures, names, period, snapshot.failures_of_runs),
        "connections": unusable_connections(
            states,
            _fails_without(states, failures, snapshot),
            period.now,
            more=connections.more and connections.total is None,
        ),
        "triggers": trigger_problems(snapshot.chosen("triggers").rows, workflows.rows),
        "quotas": [
            *full_quotas(quotas_of(records.get("quotas", {})), GetQuotas(), period.now),
            *full_quotas(credits_quota(records.get("billing", {})), GetBilling(), period.now),
        ],
        "access": [
            *pending_customers(customers.rows, waiting, more=customers.more),
            *key_problems(snapshot.chosen("API keys").rows, period.now),
            *invited_users(users.rows, period.now, more=users.more),
        ],
    }
    return worst_first(finding for subject, of in found.items() if about in (None, subject) for finding in of)


def _fails_without(
    connections: Sequence[PartState], failures: Sequence[EndedRun], snapshot: AccountSnapshot
) -> dict[str, dict[str, int]]:
    """Return by connection the workflows whose runs failed for its customer at its app, with the number of runs."""
    setups = {key_of(row): workflow_setup(row) for row in snapshot.chosen("workflows").rows}
    by_customer: dict[str | None, list[EndedRun]] = {}
    for run in failures:
        by_customer.setdefault(run.customer, []).append(run)
    found: dict[str, dict[str, int]] = {}
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
            found[connection.id] = dict(names.most_common())
    return found


async def _customers(snapshot: AccountSnapshot) -> dict[str, str]:
    """Return names by id of the customers that own connections that do not work."""
    read = (*snapshot.rows("customers"), *snapshot.chosen("customers").rows)
    names = {key_of(row): name_of(row) for row in read}
    broken = (row for row in snapshot.chosen("connections").rows if connection_state(row) is not State.LIVE)
    unnamed = [owner for owner in set(map(owner_of, broken)) if owner and owner not in names]
    return names | await snapshot.read_customer_names(unnamed)


async def _with_run_records(
    page: Sequence[tuple[AccountFinding, list[FindingRow]]], snapshot: AccountSnapshot
) -> list[tuple[AccountFinding, list[FindingRow]]]:
    """Add to failing workflows how many runs there were, and the last success."""
    failures = snapshot.failures
    wanted = {
        Scope(str(row["id"])): [run for run in failures if run.workflow == row["id"]]
        for _, rows in page
        for row in rows
        if "last_failure" in row and row.get("id")
    }
    await snapshot.read_records(wanted)
    records = {scope.workflow: record for scope, record in snapshot.run_records.items()}
    now = snapshot.period.now

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

    return [(finding, list(map(completed, rows))) for finding, rows in page]


async def _account(snapshot: AccountSnapshot) -> dict[str, JsonValue]:
    """Return totals, plan and what the guard still allows."""
    answer: dict[str, JsonValue] = {}
    if totals := _run_totals(snapshot):
        answer["runs"] = totals
    counts = {kind.replace(" ", "_").lower(): _count(snapshot, kind) for kind in _COUNTED if kind in snapshot.lists}
    if (ever := snapshot.ever) is not None:
        counts["executions"] = ever
    answer["counts"] = {**counts}
    if found := plan(snapshot.records.get("billing", {})):
        answer["plan"] = found
    try:
        guard = await snapshot.context.allowance()
        answer["guard"] = {name: said for name, said in guard.items() if name != "decided"}
    except FastnError as error:
        snapshot.gaps.append(Unchecked("budgets", error.what))
    return answer


def _count(snapshot: AccountSnapshot, kind: str) -> int | str:
    """Return the number of rows, or `at least N` if it is not known exactly."""
    total = snapshot.total(kind)
    return f"at least {len(snapshot.lists[kind].rows)}" if total is None else total


def _run_totals(snapshot: AccountSnapshot) -> dict[str, JsonValue]:
    """Return the run totals of the period. Records a gap if they are not plausible."""
    totals = snapshot.totals()
    if not totals:
        snapshot.gaps.append(Unchecked("success rate", "Fastn gives no totals that certainly cover this period."))
        return {}
    return {"hours": snapshot.period.hours, **totals}


def _runs(snapshot: AccountSnapshot, about: Subject, findings: Sequence[AccountFinding]) -> dict[str, JsonValue]:
    """Return the totals and the most frequent errors of the runs, or what the rows of connections say of them."""
    if about == "connections":
        hours = f"in {snapshot.period}"
        return {"fails": f"Workflows whose runs failed {hours} for this customer at this app, with the number of runs."}
    totals = _run_totals(snapshot)
    answer: dict[str, JsonValue] = {"runs": totals} if totals else {}
    failures = snapshot.failures
    errors = Counter(run.reason for run in failures if run.reason)
    answer["top_errors"] = [{"error": why, "runs": count} for why, count in errors.most_common(_ERRORS)]
    if findings:
        answer["next"] = suggested(Diagnose, workflow_id=findings[0].rows[0].get("id"), hours=snapshot.period.hours)
    return answer


def _not_checked(snapshot: AccountSnapshot) -> dict[str, JsonValue]:
    """Return the gaps and unknown states, grouped by reason."""
    gaps = snapshot.all_gaps()
    for kind, state in STATES.items():
        unknown = sum(state(row) is State.UNKNOWN for row in snapshot.chosen(kind).rows)
        if unknown:
            why = "Their status is missing or undocumented."
            gaps.append(Unchecked(counted(unknown, kind.removesuffix("s")), why))
    by_reason: dict[str, list[str]] = {}
    for gap in gaps:
        by_reason.setdefault(gap.why, []).append(gap.what)
    return {"not_checked": [{"what": ", ".join(what), "why": why} for why, what in by_reason.items()]}
