"""The tool `get_overview`: the account at a glance, or one subject in full.

Reads three counts for each of the worst by the sender that it is given; a count that cannot be believed is not told.
"""

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
from fastn_mcp.fastn.rows import Row, key_of, owner_of, text, word
from fastn_mcp.fastn.states import NOT_WORKING, STATES, State
from fastn_mcp.fastn.targets import LOOKUPS
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.diagnose_workflow import DiagnoseWorkflow
from fastn_mcp.procedures.diagnosis.failure_groups import failed_at, failed_why
from fastn_mcp.procedures.overview import account_checks, run_checks
from fastn_mcp.procedures.overview.connection_impact import Breakage, not_working
from fastn_mcp.procedures.overview.run_checks import Failing, Period, by_workflow
from fastn_mcp.procedures.overview.snapshot import FEW, AccountFinding, Seen, Survey, survey, worst_first
from fastn_mcp.procedures.tables import aged
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import Effect, FastnObject, suggested
from fastn_mcp.tools.workflows import ListExecutions

FAILED = ("failed runs", "timed-out runs")

NO_TOTALS = Unchecked("success rate", "Fastn gives no totals that certainly cover this period.")


def told(findings: Sequence[AccountFinding], room: int, most: int = FEW) -> list[JsonValue]:
    """The findings, with as many examples as there is room for, and one at least."""
    said: list[JsonValue] = []
    while most:
        said = [finding.data(most) for finding in findings]
        if len(to_json(said)) <= room:
            break
        most -= 1
    return said


def findings(found: Survey, names: Mapping[str, str], period: run_checks.Period) -> dict[str, list[AccountFinding]]:
    """Everything that is wrong by subject, in the order in which equals are told. `names` are of customers, by id."""
    failed = [found.all[kind] for kind in FAILED if kind in found.all]
    more = any(seen.more for seen in failed)
    workflows = {key_of(row): name_of(row) for row in found.rows("workflows")}
    waiting = found.chosen("customers")
    return {
        "runs": run_checks.failing(failures(found), workflows, period, more),
        "connections": account_checks.not_working(found.rows("connections"), names, found.chosen("connections").more),
        "triggers": run_checks.wrong_with(found.rows("triggers"), found.rows("workflows")),
        "quotas": [
            *account_checks.near(found.answers.get("quotas")),
            *account_checks.credits_left(found.answers.get("billing", {})),
        ],
        "access": [
            *account_checks.pending(
                waiting.rows, waiting.total if "customers" in found.matching else None, waiting.more
            ),
            *account_checks.keys(found.rows("API keys"), period.now),
            *account_checks.invited(found.rows("users"), period.now, found.chosen("users").more),
        ],
    }


def failures(found: Survey) -> list[Row]:
    """The runs that failed, as far as they were read."""
    return [row for kind in FAILED if kind in found.all for row in found.all[kind].rows]


async def customers(found: Survey, means: ProcedureContext) -> dict[str, str]:
    """Names by id: those on the page that was read, and those of the first connections that do not work."""
    read = found.all.get("customers", Seen())
    names = {key_of(row): name_of(row) for row in (*read.rows, *found.rows("customers"))}
    wanted: list[str] = []
    for status in NOT_WORKING:
        owners = [owner_of(row) for row in found.rows("connections") if word(row, "status") == status.lower()]
        wanted += [owner for owner in owners[: account_checks.NAMED] if owner and owner not in names]
    return names | await means.directory.names("customer", wanted, means.read)


def totals(found: Survey) -> run_checks.Totals:
    def total(kind: str) -> int | None:
        seen = found.all.get(kind)
        return None if seen is None else seen.total

    return run_checks.Totals(
        ever=total("executions"),
        all=total("runs"),
        completed=total("completed runs"),
        failed=total("failed runs"),
        timeout=total("timed-out runs"),
    )


def not_checked(found: Survey) -> dict[str, JsonValue]:
    """What was not looked at or not understood, and why."""
    gaps = [*found.gaps, *_unknown_states(found)]
    return {"not_checked": [{"what": gap.what, "why": gap.why} for gap in _together(gaps)]}


def _unknown_states(found: Survey) -> list[Unchecked]:
    """Resources of which nothing was said, since nobody documented what their rows say."""
    counts = {kind: sum(state(row) is State.UNKNOWN for row in found.rows(kind)) for kind, state in STATES.items()}
    why = "Their status is missing or undocumented."
    return [Unchecked(counted(count, kind.removesuffix("s")), why) for kind, count in counts.items() if count]


def _together(gaps: list[Unchecked]) -> list[Unchecked]:
    """What was not checked for the same reason, said once."""
    by_reason: dict[str, list[str]] = {}
    for gap in gaps:
        by_reason.setdefault(gap.why, []).append(gap.what)
    return [Unchecked(", ".join(what), why) for why, what in by_reason.items()]


WORST = 8
"""Workflows of which the runs are counted."""

_ERRORS = 5
_STATUSES = ("completed", "failed", "timeout")


async def rates(
    failures: Sequence[Row],
    names: Mapping[str, str],
    period: Period,
    overall: Mapping[str, JsonValue],
    means: ProcedureContext,
) -> dict[str, JsonValue]:
    """The workflows of these failed runs, the worst first. `names` are of workflows by id, `overall` all runs."""
    found = by_workflow(failures, names)
    counts = await _counted([workflow.key for workflow in found[:WORST] if workflow.key], period, means)
    worst = sorted(found[:WORST], key=lambda workflow: -_failed(counts.get(workflow.key, {}), workflow))
    workflows = [_told(workflow, counts.get(workflow.key, {}), overall, period) for workflow in worst]
    answer: dict[str, JsonValue] = {"workflows": [*workflows]}
    if len(found) > WORST:
        answer["more_failing_workflows"] = len(found) - WORST
    errors = Counter(why for run in failures if (why := failed_why(run)))
    answer["top_errors"] = [{"error": why, "runs": count} for why, count in errors.most_common(_ERRORS)]
    if worst and worst[0].key:
        answer["next"] = suggested(DiagnoseWorkflow, workflow_id=worst[0].key, hours=period.hours)
    return answer


async def _counted(keys: list[str], period: Period, means: ProcedureContext) -> dict[str, dict[str, int]]:
    """How many runs of each workflow ended how, where Fastn says so."""
    found: dict[str, dict[str, int]] = {key: {} for key in keys}

    async def count(key: str, status: str) -> None:
        reading: Any = ListExecutions(limit=1, workflow_id=key, status=status, since=period.since)
        try:
            page = cast("Listed[Any]", await means.read(reading))
        except FastnError:
            return
        total = page.total if page.total is not None or page.next_cursor else len(page.items)
        if total is not None:
            found[key][status] = total

    await means.report("Counting the runs of the worst workflows", 0, None)
    async with anyio.create_task_group() as group:
        for key in keys:
            for status in _STATUSES:
                group.start_soon(count, key, status)
    return found


def _failed(counts: Mapping[str, int], workflow: Failing) -> int:
    return max(counts.get("failed", 0) + counts.get("timeout", 0), len(workflow.runs))


def _told(
    workflow: Failing, counts: Mapping[str, int], overall: Mapping[str, JsonValue], period: Period
) -> dict[str, JsonValue]:
    told: dict[str, JsonValue] = {"id": workflow.key, "name": workflow.name}
    if believable(counts, overall, len(workflow.runs)):
        ended = sum(counts.values())
        told |= {status: count for status, count in counts.items() if count}
        told["success_rate"] = f"{100 * counts['completed'] / ended:.1f} %"
    else:
        told["failed_at_least"] = len(workflow.runs)
    if (when := failed_at(workflow.last)) is not None:
        told["last_failure"] = aged(when, period.now)
    if why := failed_why(workflow.last):
        told["why"] = why
    return told


def believable(counts: Mapping[str, int], overall: Mapping[str, JsonValue], seen: int) -> bool:
    """Whether these can be one workflow's: a Fastn that ignores a filter counts the same runs each time."""
    whole = [overall.get(status) for status in _STATUSES]
    if any(status not in counts for status in _STATUSES) or any(not isinstance(number, int) for number in whole):
        return False
    fits = all(counts[status] <= cast(int, number) for status, number in zip(_STATUSES, whole, strict=True))
    return fits and seen <= counts["failed"] + counts["timeout"]


About = Literal["runs", "connections", "triggers", "access"]

_DETAIL_ROOM = 7_000
"""Characters for findings."""

_MANY = 20
"""Examples of a finding at most."""

_PAGES = 5
"""Pages of failed runs."""

_COUNTS = ("completed runs", "the number of runs", "the number of all runs")


async def focused(about: About, period: run_checks.Period, means: ProcedureContext) -> dict[str, JsonValue]:
    """All that is known of this subject. Raises a `FastnError`."""
    match about:
        case "runs":
            return await _runs(period, means)
        case "connections":
            return await _connections(period, means)
        case "triggers":
            return await _findings(about, ("triggers", "workflows"), period, means)
        case "access":
            return await _findings(about, ("customers", "users", "API keys"), period, means)


async def _findings(
    about: About, read: Sequence[str], period: run_checks.Period, means: ProcedureContext
) -> dict[str, JsonValue]:
    """What is wrong, with as many examples as there is room for."""
    found = await survey(period.since, means.read, means.report, read)
    wrong = worst_first(findings(found, await customers(found, means), period)[about])
    answer: dict[str, JsonValue] = {"findings": told(wrong, _DETAIL_ROOM, _MANY)}
    return answer | not_checked(found)


async def _runs(period: run_checks.Period, means: ProcedureContext) -> dict[str, JsonValue]:
    """The workflows that fail, in numbers."""
    found = await survey(period.since, means.read, means.report, (*FAILED, *_COUNTS), _PAGES)
    overall = run_checks.summary(totals(found))
    answer: dict[str, JsonValue] = {"runs": {"hours": period.hours, **overall}}
    if not overall:
        found.gaps.append(NO_TOTALS)
    failed = failures(found)
    if (since := _read_since(found)) is not None:
        failed = [row for row in failed if (when := failed_at(row)) is None or when >= since]
        answer["looked_at"] = f"The failures since {aged(since, period.now)}; the numbers are of the whole period."
    return answer | await rates(failed, await _names(failed, means), period, overall, means) | not_checked(found)


def _read_since(found: Survey) -> datetime | None:
    """From when on all failures were read, where there are older ones: or else what is frequent looks rare."""
    cut = [found.all[kind].rows for kind in FAILED if kind in found.all and found.all[kind].more]
    oldest = [min(when for row in rows if (when := failed_at(row))) for rows in cut if any(map(failed_at, rows))]
    return max(oldest, default=None)


async def _names(failed: Sequence[Row], means: ProcedureContext) -> dict[str, str]:
    """Of workflows by id, where runs do not say them themselves."""
    wanted = [text(row, "workflowId") for row in failed if not text(row, "workflowName")]
    return await means.directory.names("workflow", filter(None, wanted), means.read)


async def _connections(period: run_checks.Period, means: ProcedureContext) -> dict[str, JsonValue]:
    """The connections that no longer work, and what fails for want of them."""
    found = await survey(period.since, means.read, means.report, (*FAILED, "connections", "workflows"), _PAGES)
    rows = not_working(found.rows("connections"))
    if found.chosen("connections").more:
        found.gaps.append(
            Unchecked("more broken connections", "Only the first hundred were read; list_connections goes on.")
        )
    owners = list(dict.fromkeys(owner for row in rows if (owner := owner_of(row))))
    if len(owners) > LOOKUPS:
        try:
            await means.directory.contents("customer", means.read)
        except FastnError as error:
            found.gaps.append(Unchecked("names of customers", error.what))
    names = await means.directory.names("customer", owners, means.read)
    failed = failures(found)
    failing = run_checks.by_workflow(failed, await _names(failed, means))
    answer: dict[str, JsonValue] = {"hours": period.hours}
    if (since := _read_since(found)) is not None:
        answer["looked_at"] = f"The failures since {aged(since, period.now)}."
    seen = Breakage(rows, found.rows("workflows"), failing, names, period.now)
    return answer | seen.data() | not_checked(found)


MOST = 12
"""Findings in an answer; the others are counted."""

_ROOM = 3_000
"""Characters for the findings; beyond, they are told with fewer examples."""


class Overview(FastnObject):
    """An account at a glance."""


class GetOverview(Procedure[Overview]):
    """The account at a glance: what fails, expires, never fires or is open, worst first; counts, quotas. Start here."""

    effect = Effect.READ

    hours: Annotated[int, Field(ge=1, le=720, description="For runs: 1-720, default 24.")] = 24
    about: Annotated[About | None, Field(description="Only this, in full.")] = None

    async def run(self, means: ProcedureContext) -> Overview:
        period = run_checks.Period(self.hours, means.system.now())
        answer = await (_glance(period, means) if self.about is None else focused(self.about, period, means))
        return Overview.model_validate(answer)


async def _glance(period: run_checks.Period, means: ProcedureContext) -> dict[str, JsonValue]:
    """Everything, in little."""
    found = await survey(period.since, means.read, means.report)
    subjects = findings(found, await customers(found, means), period)
    wrong = worst_first(finding for of_subject in subjects.values() for finding in of_subject)
    answer: dict[str, JsonValue] = {"findings": told(wrong[:MOST], _ROOM)}
    if rest := Counter(finding.severity.value for finding in wrong[MOST:]):
        answer["more_findings"] = dict(rest)
    if summary := run_checks.summary(totals(found)):
        answer["runs"] = {"hours": period.hours, **summary}
    else:
        found.gaps.append(NO_TOTALS)
    answer["counts"] = {_field(kind): found.all[kind].count for kind in _COUNTED if _is_counted(found, kind)}
    if "billing" in found.answers and (plan := account_checks.plan(found.answers["billing"])):
        answer["plan"] = plan
    try:
        answer["guard"] = await means.allowance()
    except FastnError as error:
        found.gaps.append(Unchecked("budgets", error.what))
    return answer | not_checked(found)


_COUNTED = (
    "customers",
    "connectors",
    "connections",
    "workflows",
    "triggers",
    "users",
    "API keys",
    "secrets",
    "executions",
)


def _is_counted(found: Survey, kind: str) -> bool:
    """Of the runs only one row was read, which says nothing without a total."""
    return kind in found.all and (kind != "executions" or found.all[kind].total is not None)


def _field(kind: str) -> str:
    return kind.lower().replace(" ", "_")
