"""The tool `get_overview`: an overview of the account, or one subject in full."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, cast

import anyio
from pydantic import Field, JsonValue
from pydantic_core import to_json

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.dependents import Unchecked
from fastn_mcp.fastn.names import counted, name_of
from fastn_mcp.fastn.rows import key_of, text
from fastn_mcp.fastn.states import NOT_WORKING, STATES, State
from fastn_mcp.fastn.targets import MAX_LOOKUPS
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.account_parts import connection_states
from fastn_mcp.procedures.diagnosis.diagnose_workflow import DiagnoseWorkflow
from fastn_mcp.procedures.diagnosis.failures import EndedRun, FailingWorkflow, Period, by_workflow, ended_runs
from fastn_mcp.procedures.overview.checks import (
    FEW,
    NAMED,
    AccountFinding,
    failing_workflows,
    full_quotas,
    invited_users,
    key_problems,
    pending_customers,
    plan,
    spent_credits,
    trigger_problems,
    unusable_connections,
    worst_first,
)
from fastn_mcp.procedures.overview.connection_impact import connection_impact
from fastn_mcp.procedures.overview.snapshot import COUNTS, FAILED, AccountSnapshot
from fastn_mcp.procedures.reads import RowList
from fastn_mcp.procedures.tables import aged
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import Effect, FastnObject, suggested
from fastn_mcp.tools.workflows import ListExecutions

Subject = Literal["runs", "connections", "triggers", "access"]

MOST = 12
"""Maximum number of findings in an answer; the rest are counted."""

_ROOM = 3_000
"""Maximum size of the findings on the whole account in characters; beyond it, they get fewer examples."""

_DETAIL_ROOM = 7_000
"""Maximum size of the findings on one subject in characters."""

_MANY = 20
"""Maximum number of examples of a finding on one subject."""

_FAILURE_PAGES = 5

_COUNTED = {
    **{kind: kind for kind in ("customers", "connectors", "connections", "workflows", "triggers", "users")},
    "API keys": "api_keys",
    "secrets": "secrets",
    "the number of all runs": "executions",
}
"""Names of the counts in an answer, by the name of the read."""


class Overview(FastnObject):
    """Overview of an account."""

    shape = (("findings", "array"), ("not_checked", "array"))


class GetOverview(Procedure[Overview]):
    """The account at a glance: what fails, expires, never fires or is open, worst first; counts, quotas. Start here."""

    effect = Effect.READ

    hours: Annotated[int, Field(ge=1, le=720, description="For runs: 1-720, default 24.")] = 24
    about: Annotated[Subject | None, Field(description="Only this, in full.")] = None

    async def run(self, context: ProcedureContext) -> Overview:
        snapshot = AccountSnapshot(context, Period(self.hours, context.system.now()))
        match self.about:
            case None:
                answer = await _everything(snapshot)
            case "runs":
                answer = await _runs(snapshot)
            case "connections":
                answer = await _connections(snapshot)
            case "triggers":
                await snapshot.take(("triggers", "workflows"))
                answer = await _all_findings(snapshot, self.about)
            case "access":
                await snapshot.take(("customers", "users", "API keys"))
                answer = await _all_findings(snapshot, self.about)
        return Overview.model_validate(answer | _not_checked(snapshot))


async def _everything(snapshot: AccountSnapshot) -> dict[str, JsonValue]:
    await snapshot.take()
    findings = worst_first(finding for found in (await _findings(snapshot)).values() for finding in found)
    answer: dict[str, JsonValue] = {"findings": _fitting(findings[:MOST], _ROOM)}
    if rest := Counter(finding.severity.value for finding in findings[MOST:]):
        answer["more_findings"] = dict(rest)
    if totals := _run_totals(snapshot):
        answer["runs"] = {"hours": snapshot.period.hours, **totals}
    counts = {name: _count(snapshot.lists[kind]) for kind, name in _COUNTED.items() if kind in snapshot.lists}
    if snapshot.total("the number of all runs") is None:
        counts.pop("executions", None)  # without a total, the one row read is not a count
    answer["counts"] = {**counts}
    if found := plan(snapshot.records.get("billing", {})):
        answer["plan"] = found
    try:
        answer["guard"] = await snapshot.context.allowance()
    except FastnError as error:
        snapshot.gaps.append(Unchecked("budgets", error.what))
    return answer


async def _all_findings(snapshot: AccountSnapshot, about: Subject) -> dict[str, JsonValue]:
    """Return all findings on one subject, with as many examples as fit."""
    findings = worst_first((await _findings(snapshot))[about])
    return {"findings": _fitting(findings, _DETAIL_ROOM, _MANY)}


async def _findings(snapshot: AccountSnapshot) -> dict[str, list[AccountFinding]]:
    """Run all checks. Returns their findings by subject."""
    period, records = snapshot.period, snapshot.records
    workflows, connections, users, customers = map(snapshot.chosen, ("workflows", "connections", "users", "customers"))
    more_failures = any(map(snapshot.has_more, FAILED))
    names = {key_of(row): name_of(row) for row in workflows.rows}
    waiting = customers.total if "customers" in snapshot.matching else None
    return {
        "runs": failing_workflows(snapshot.failures(), names, period, more=more_failures),
        "connections": unusable_connections(connections.rows, await _customers(snapshot), more=connections.more),
        "triggers": trigger_problems(snapshot.chosen("triggers").rows, workflows.rows),
        "quotas": [*full_quotas({**records.get("quotas", {})}), *spent_credits(records.get("billing", {}))],
        "access": [
            *pending_customers(customers.rows, waiting, more=customers.more),
            *key_problems(snapshot.chosen("API keys").rows, period.now),
            *invited_users(users.rows, period.now, more=users.more),
        ],
    }


async def _customers(snapshot: AccountSnapshot) -> dict[str, str]:
    """Return names by id: of the customers that were read, and of the first broken connections."""
    read = (*(snapshot.rows("customers") or ()), *snapshot.chosen("customers").rows)
    names = {key_of(row): name_of(row) for row in read}
    unnamed: list[str] = []
    connections = connection_states(snapshot.chosen("connections").rows, names)
    for status in NOT_WORKING:
        owners = [connection.customer for connection in connections if connection.status == status]
        unnamed += [owner for owner in owners[:NAMED] if owner and owner not in names]
    return names | await snapshot.context.directory.names("customer", unnamed, snapshot.context.read)


def _fitting(findings: Sequence[AccountFinding], room: int, most: int = FEW) -> list[JsonValue]:
    """Return the findings with as many examples as fit, at least one each."""
    found: list[JsonValue] = [finding.data(most) for finding in findings]
    return found if most == 1 or len(to_json(found)) <= room else _fitting(findings, room, most - 1)


def _count(found: RowList) -> int | str:
    """Return the number of rows, or `at least N` if it is not known exactly."""
    if found.more:
        return f"at least {len(found.rows)}" if found.total is None else max(found.total, len(found.rows))
    return len(found.rows)


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


def _run_totals(snapshot: AccountSnapshot) -> dict[str, JsonValue]:
    """Return the run totals of the period. Records a gap if they are not plausible."""
    completed, period, ever = map(snapshot.total, COUNTS)
    failed, timeout = map(snapshot.total, FAILED)
    totals = run_totals(ever, period, completed, failed, timeout)
    if not totals:
        snapshot.gaps.append(Unchecked("success rate", "Fastn gives no totals that certainly cover this period."))
    return totals


def run_totals(
    ever: int | None, period: int | None, completed: int | None, failed: int | None, timeout: int | None
) -> dict[str, JsonValue]:
    """Return the runs of a period by status, with a success rate; empty if the totals are not plausible.

    If Fastn ignores filters, every total counts the same runs, and they do not add up. `ever` is of all time.
    """
    if period is None or completed is None or failed is None or timeout is None:
        return {}
    ended = completed + failed + timeout
    # As many as of all time: Fastn may have ignored the period too.
    if ended > period or period == ever:
        return {}
    rate: dict[str, JsonValue] = {"success_rate": f"{100 * completed / ended:.1f} %"} if ended else {}
    return {"runs": period, "completed": completed, "failed": failed, "timeout": timeout, **rate}


_WORST = 8
"""Maximum number of failing workflows reported, with their runs counted."""

_ERRORS = 5
_STATUSES = ("completed", "failed", "timeout")


async def _runs(snapshot: AccountSnapshot) -> dict[str, JsonValue]:
    """Report the failing workflows with their numbers of runs, worst first."""
    await snapshot.take((*FAILED, *COUNTS), _FAILURE_PAGES)
    period, overall = snapshot.period, _run_totals(snapshot)
    answer: dict[str, JsonValue] = {"runs": {"hours": period.hours, **overall}}
    failures = snapshot.failures()
    if (since := _read_since(snapshot)) is not None:
        failures = [run for run in failures if run.at is None or run.at >= since]
        answer["looked_at"] = f"The failures since {aged(since, period.now)}; the numbers are of the whole period."
    found = by_workflow(failures, await _workflow_names(failures, snapshot.context))
    counts = await _count_runs([workflow.id for workflow in found[:_WORST] if workflow.id], snapshot)

    def failed(workflow: FailingWorkflow) -> int:
        known = counts.get(workflow.id, {})
        return max(known.get("failed", 0) + known.get("timeout", 0), len(workflow.runs))

    worst = sorted(found[:_WORST], key=lambda workflow: -failed(workflow))
    answer["workflows"] = [
        _failing_workflow(workflow, counts.get(workflow.id, {}), overall, period.now) for workflow in worst
    ]
    if len(found) > _WORST:
        answer["more_failing_workflows"] = len(found) - _WORST
    errors = Counter(run.reason for run in failures if run.reason)
    answer["top_errors"] = [{"error": why, "runs": count} for why, count in errors.most_common(_ERRORS)]
    if worst and worst[0].id:
        answer["next"] = suggested(DiagnoseWorkflow, workflow_id=worst[0].id, hours=period.hours)
    return answer


def _read_since(snapshot: AccountSnapshot) -> datetime | None:
    """Return the time since which all failures were read, if older ones were not: counts have to start there."""
    cut = [snapshot.lists[kind].rows for kind in FAILED if snapshot.has_more(kind)]
    times = [[run.at for run in ended_runs(rows) if run.at] for rows in cut]
    return max((min(of_list) for of_list in times if of_list), default=None)


async def _workflow_names(failures: Sequence[EndedRun], context: ProcedureContext) -> dict[str, str]:
    """Return workflow names by id, for runs that do not contain them."""
    unnamed = [text(run.row, "workflowId") for run in failures if not text(run.row, "workflowName")]
    return await context.directory.names("workflow", filter(None, unnamed), context.read)


async def _count_runs(keys: Sequence[str], snapshot: AccountSnapshot) -> dict[str, dict[str, int]]:
    """Count the runs of each workflow by status, as far as Fastn gives totals."""
    found: dict[str, dict[str, int]] = {key: {} for key in keys}

    async def count(key: str, status: str) -> None:
        reading: Any = ListExecutions(limit=1, workflow_id=key, status=status, since=snapshot.period.since)
        try:
            page = cast("Listed[Any]", await snapshot.context.read(reading))
        except FastnError:
            return
        total = page.total if page.total is not None or page.next_cursor else len(page.items)
        if total is not None:
            found[key][status] = total

    await snapshot.context.report("Counting the runs of the worst workflows", 0, None)
    async with anyio.create_task_group() as group:
        for key in keys:
            for status in _STATUSES:
                group.start_soon(count, key, status)
    return found


def _failing_workflow(
    workflow: FailingWorkflow, counts: Mapping[str, int], overall: Mapping[str, JsonValue], now: datetime
) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {"id": workflow.id, "name": workflow.name}
    if believable(counts, overall, len(workflow.runs)):
        found |= {status: count for status, count in counts.items() if count}
        found["success_rate"] = f"{100 * counts['completed'] / sum(counts.values()):.1f} %"
    else:
        found["failed_at_least"] = len(workflow.runs)
    last = workflow.last
    if last.at is not None:
        found["last_failure"] = aged(last.at, now)
    if last.reason:
        found["why"] = last.reason
    return found


def believable(counts: Mapping[str, int], overall: Mapping[str, JsonValue], failures: int) -> bool:
    """Whether counts can be one workflow's. If Fastn ignores a filter, every count is of the same runs."""
    whole = {status: total for status in _STATUSES if isinstance(total := overall.get(status), int)}
    if any(status not in counts or status not in whole for status in _STATUSES):
        return False
    fits = all(counts[status] <= total for status, total in whole.items())
    return fits and failures <= counts["failed"] + counts["timeout"]


async def _connections(snapshot: AccountSnapshot) -> dict[str, JsonValue]:
    """Report the connections that do not work, and the workflows that fail because of them."""
    await snapshot.take((*FAILED, "connections", "workflows"), _FAILURE_PAGES)
    context, period, connections = snapshot.context, snapshot.period, snapshot.chosen("connections")
    if connections.more:
        why = "Only the first hundred were read; list_connections goes on."
        snapshot.gaps.append(Unchecked("more broken connections", why))
    states = connection_states(connections.rows, {})
    unusable = [found for state in (State.BROKEN, State.OFF) for found in states if found.state is state]
    owners = list(dict.fromkeys(owner for connection in unusable if (owner := connection.customer)))
    if len(owners) > MAX_LOOKUPS:
        try:
            await context.directory.contents("customer", context.read)
        except FastnError as error:
            snapshot.gaps.append(Unchecked("names of customers", error.what))
    names = await context.directory.names("customer", owners, context.read)
    failures = snapshot.failures()
    failing = by_workflow(failures, await _workflow_names(failures, context))
    answer: dict[str, JsonValue] = {"hours": period.hours}
    if (since := _read_since(snapshot)) is not None:
        answer["looked_at"] = f"The failures since {aged(since, period.now)}."
    return answer | connection_impact(unusable, snapshot.chosen("workflows").rows, failing, names, period.now)
