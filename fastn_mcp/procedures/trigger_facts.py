"""What a trigger causes: which workflows it starts, who may call it, for whom it fires and how often."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from pydantic import JsonValue

from fastn_mcp.account.entries import read_many_labels
from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.reads import failure
from fastn_mcp.records.cron import firings
from fastn_mcp.records.formats import stamp
from fastn_mcp.records.platform import NO_CUSTOMER, callers_of
from fastn_mcp.records.rows import Row, objects, owner_of, row_of, started_workflows, text, timestamp, word
from fastn_mcp.records.states import trigger_state
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.triggers import GetTrigger, Trigger
from fastn_mcp.tools.workflows import ListExecutions

MAX_WORKFLOWS = 3
"""Maximum number of workflows of a trigger whose runs are counted, with a request each."""

_DAY = timedelta(hours=24)
_SHORTEST = timedelta(hours=1)
"""Minimum time since its creation by which the pace of a new trigger is told."""

_MONTH = timedelta(days=30)

_STARTED_BY = {"webhook": "webhook", "scheduler": "scheduler"}
"""By the type of a trigger: what the runs say that it starts. What they say of app events is not documented."""


@dataclass(frozen=True, slots=True)
class StartedRuns:
    """Runs of the last day that a trigger may have started, of one workflow or of several."""

    count: int = 0
    more: bool = False
    """Whether the count is a lower bound."""
    customers: frozenset[str] = frozenset()
    for_none: bool = False
    """Whether some of them are for no customer."""
    are_all_read: bool = True
    """Whether no customer can be missing."""

    def __add__(self, other: "StartedRuns") -> "StartedRuns":
        return StartedRuns(
            self.count + other.count,
            self.more or other.more,
            self.customers | other.customers,
            self.for_none or other.for_none,
            self.are_all_read and other.are_all_read,
        )


async def get_trigger(call: GetTrigger, context: ProcedureContext) -> Trigger:
    """Read a trigger, with the names of its workflows, its callers, and how often and for whom it fires."""
    row = row_of(await context.read(call))
    names: dict[str, str] = {}
    facts: dict[str, JsonValue] = {}
    if trigger_state(row).is_usable:
        facts["fires"] = await _pace(row, names, context)
    workflows = started_workflows(row)
    try:
        unnamed = [key for key in workflows if key not in names]
        names |= await read_many_labels("workflow", unnamed, context.look)
    except FastnError as error:
        facts["names_not_read"] = failure(error, error.what)
    routes = [_named_route(route, names) for route in objects(row, "routes")]
    if routes and len(routes) == len(cast("list[JsonValue]", row["routes"])):
        row["routes"] = [*routes]
    callers = callers_of(row)
    facts |= {"callers": callers} if callers else {}
    return Trigger.model_validate(row | facts)


def _named_route(route: Row, names: Mapping[str, str]) -> dict[str, JsonValue]:
    name = names.get(text(route, "routeId", "workflowId"))
    return {**route} if name is None else {"workflow": name, **route}


async def _pace(trigger: Row, names: dict[str, str], context: ProcedureContext) -> JsonValue:
    """Return how often a trigger fires, and for whom. Adds the names of workflows that its runs tell."""
    now = context.system.now()
    pace: dict[str, JsonValue] = {}
    by_schedule = _firings(trigger, now)
    if by_schedule is not None:
        pace["times_a_day"] = by_schedule
    runs = StartedRuns()
    for workflow in started_workflows(trigger)[:MAX_WORKFLOWS]:
        try:
            page = await read_page(_listing(trigger, workflow, now), context.look)
        except FastnError as error:
            return pace | {"not_counted": failure(error, error.what)}
        name = next(filter(None, (text(row, "workflowName") for row in page.rows)), "")
        names |= {workflow: name} if name else {}
        runs += _started(page)
    pace |= _counts(runs, trigger, now)
    if len(started_workflows(trigger)) > MAX_WORKFLOWS:
        pace["not_counted"] = f"runs of more than the first {MAX_WORKFLOWS} workflows"
    return pace


def _firings(trigger: Row, now: datetime) -> int | None:
    """Return how often a schedule fires in a day; None for another trigger, or a schedule that is not understood."""
    schedule = text(trigger, "schedule", "cron")
    try:
        return firings(schedule, text(trigger, "timezone") or "UTC", now, _DAY) if schedule else None
    except ValueError:
        return None


def _listing(trigger: Row, workflow: str, now: datetime) -> ListExecutions:
    return ListExecutions(
        workflow_id=workflow,
        customer_id=owner_of(trigger),
        started_by=_STARTED_BY.get(word(trigger, "type")),
        since=stamp(now - _DAY),
        limit=100,
    )


def _started(page: Listed) -> StartedRuns:
    """Return the runs of a page. Fastn's count is believed where it has filtered all rows of the page."""
    is_whole = page.next_cursor is None
    is_filtered = page.received == len(page.rows) and not page.not_checked
    total = page.total if is_filtered and page.total is not None else len(page.rows)
    owners = [owner_of(row) for row in page.rows]
    return StartedRuns(
        len(page.rows) if is_whole else max(total, len(page.rows)),
        more=not is_whole and (not is_filtered or page.total is None),
        customers=frozenset(filter(None, owners)),
        for_none=None in owners,
        are_all_read=is_whole,
    )


def _counts(runs: StartedRuns, trigger: Row, now: datetime) -> dict[str, JsonValue]:
    created = timestamp(trigger, "createdAt")
    age = _DAY if created is None else min(_DAY, max(_SHORTEST, now - created))
    started_by = _STARTED_BY.get(word(trigger, "type"))
    which = (
        "all runs of its workflows" if started_by is None else f"runs of its workflows with triggeredBy {started_by}"
    )
    counts: dict[str, JsonValue] = {
        "runs_in_24_hours": _number(runs.count, at_least=runs.more),
        "runs_a_month_at_this_pace": _number(round(runs.count * (_MONTH / age)), at_least=runs.more),
        "counted": f"{which}; other triggers may start some of them",
    }
    if runs.count:
        counts["customers"] = _number(len(runs.customers), at_least=not runs.are_all_read)
    elif not owner_of(trigger):
        counts["customers"] = NO_CUSTOMER
    if runs.for_none:
        counts["also"] = "runs for no customer"
    return counts


def _number(count: int, *, at_least: bool) -> JsonValue:
    return f"at least {count:,}" if at_least else count
