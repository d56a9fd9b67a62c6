"""Dependents of a resource, the same for the guard, its previews and `find_dependents`.

Rules say which lists to read for a resource, how their rows refer to it, and what cannot be checked.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial

from pydantic import JsonValue

from fastn_mcp.account.dependence import OWNED_KINDS, Dependence, Dependents, Unchecked
from fastn_mcp.account.dependency_rules import DependencyRule, DependencyRules, dependency_rules
from fastn_mcp.account.dependent_rows import MAX_DETAILS, MAX_PAGES, LimitedReads, RowSearch, Uses
from fastn_mcp.client.reads import Pages, read_each, read_names, read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.records.formats import aged
from fastn_mcp.records.labels import Names, label_of
from fastn_mcp.records.rows import (
    FastnObject,
    Row,
    connection_refers,
    key_of,
    owner_of,
    row_of,
    short,
    started_workflows,
    text,
    timestamp,
)
from fastn_mcp.records.states import STATES, run_state, trigger_state
from fastn_mcp.runtime import Report, no_progress
from fastn_mcp.tools.connectors import CreateConnector, UpdateConnector
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.related_reads import kind_of, own_label, suggested_read
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListExecutions, UpdateWorkflow

MAX_EXAMPLES = {"connections": 5, "executions": 5}
"""Maximum number of examples by kind, if they hardly differ. Ids of connections are long: the list has them."""

_MAX_OTHER_EXAMPLES = 30
"""Maximum number of examples of the other kinds."""

_FEW_RUNS = 3
"""Number of workflows above which a page of the newest runs is read first, which shows the last run of several."""

_MAX_RUNS = 10
"""Maximum number of workflows whose last run is read one by one."""

_HISTORY = "Fastn's history"
"""Where runs are looked for. It does not reach back for ever, so that a workflow without a run may have run."""

MAX_READS = 4
"""Maximum number of reads for the dependents of a call that deletes nothing. Its target makes five."""

_MAX_READS_OF_CREATE = 2
"""The same for a create that overwrites something, which takes three to find that."""


async def find_dependents(
    call: Call, target: FastnObject | None, send: Send, earlier: Send | None = None
) -> Dependence:
    """Find the certain dependents of the target of `call`, from lists alone.

    `earlier` repeats the reads of an evaluation a short time ago. What it read tells how long the lists are.
    """
    rules = _rules(call, target)
    own = _own(call, target)
    certain = await _apply(rules.certain, _limited(call, send), own, earlier=earlier)
    return replace(certain, gaps=(*rules.unchecked, *certain.gaps))


async def describe_dependents(
    call: Call,
    target: FastnObject | None,
    send: Send,
    now: datetime,
    report: Report = no_progress,
    earlier: Send | None = None,
) -> Dependence:
    """Find the certain and the possible dependents of the target of `call`, with the triggers and runs of workflows."""
    rules = _rules(call, target)
    own = _own(call, target)
    send = _limited(call, send)
    certain = await _apply(rules.certain, send, own, earlier=earlier, now=now, report=report)
    possible = await _apply(rules.possible, send, own, earlier=earlier, now=now, report=report)
    customer = owner_of(row_of(target)) if kind_of(call) == "connection" else None
    used_by, may_be_used_by = [
        tuple([await _with_facts(each, send, now, customer) if each.kind == "workflows" else each for each in group])
        for group in (certain.certain, possible.certain)
    ]
    none = certain.none if rules.unchecked else (*certain.none, *possible.none)
    return Dependence(used_by, (*certain.gaps, *possible.gaps, *rules.unchecked), may_be_used_by, none)


async def _with_facts(dependents: Dependents, send: Send, now: datetime, customer: str | None) -> Dependents:
    """Add the last runs of workflows, for a customer or for any, and the triggers that start them.

    What cannot be read is left out.
    """
    keys = [str(row["id"]) for row in dependents.rows]
    triggers: dict[str, list[JsonValue]] = {key: [] for key in keys}
    is_complete = False
    with suppress(FastnError):
        pages = Pages(ListTriggers(limit=100), send, MAX_PAGES)
        async for page in pages:
            for row in page.rows:
                for key in triggers.keys() & set(started_workflows(row)):
                    triggers[key].append(_trigger_in_words(row))
        is_complete = pages.is_complete
    runs = await _last_runs(keys, customer, send, now)
    facts = (
        {"last_run": runs.get(key, "not read")} | ({"triggers": triggers[key]} if is_complete or triggers[key] else {})
        for key in keys
    )
    rows = tuple({**row, **more} for row, more in zip(dependents.rows, facts, strict=True))
    return replace(dependents, rows=rows)


async def _last_runs(keys: Sequence[str], customer: str | None, send: Send, now: datetime) -> dict[str, str]:
    """Return the last runs of workflows by id: from a page of the newest runs, and others one by one.

    With a customer, only its runs count, and only its page of newest runs is read.
    """
    page: Listed | None = None
    if customer is not None or len(keys) > _FEW_RUNS:
        with suppress(FastnError):
            page = await read_page(ListExecutions(customer_id=customer, limit=100), send)
    rows = [] if page is None or page.not_checked else page.rows
    of = "" if customer is None else " for this customer"
    runs = {text(row, "workflowId"): run_in_words(row, now) + of for row in reversed(rows)}
    unread = [key for key in keys if key not in runs]
    if customer is None:
        left_out = dict.fromkeys(unread[_MAX_RUNS:], f"not read: at most {_MAX_RUNS} are read one by one")
        return runs | left_out | await read_each(unread[:_MAX_RUNS], partial(_last_run, send, now))
    where = f"the newest {len(rows)}" if page and page.next_cursor else _HISTORY
    return runs | ({} if page is None or page.not_checked else dict.fromkeys(unread, f"no run{of} in {where}"))


async def _last_run(send: Send, now: datetime, workflow: str) -> str:
    page = await read_page(ListExecutions(workflow_id=workflow, limit=1), send)
    return run_in_words(page.rows[0], now) if page.rows else f"no run in {_HISTORY}"


def _trigger_in_words(row: Row) -> str:
    label = label_of("trigger", {**row, "routes": None, "endOrgId": None})
    state = trigger_state(row)
    return f"{label or key_of(row)}{'' if state.is_usable else f', {state.value}'}"


def _rules(call: Call, target: FastnObject | None) -> DependencyRules:
    is_switched = isinstance(call, UpdateWorkflow) and call.status is not None
    may_overwrite = isinstance(call, CreateConnector) and target is not None
    if not (call.route.method == "DELETE" or isinstance(call, UpdateConnector) or is_switched or may_overwrite):
        return DependencyRules()
    # Other rows refer to the target by its id, whatever the call names it by.
    id_ = key_of(row_of(target)) or call.target
    return dependency_rules(kind_of(call), id_, target) if id_ else dependency_rules("unknown", "", None)


def _own(call: Call, target: FastnObject | None) -> dict[str, dict[str, str]]:
    """Return the name of the target by kind and id: it was read already and needs no look-up."""
    label = own_label(call, target) if call.target else None
    return {kind_of(call): {call.target: label.name}} if call.target and label else {}


def _limited(call: Call, send: Send) -> Send:
    """Return a `Send` for the reads that a call may make for its dependents. A deletion may make all."""
    if call.route.method == "DELETE":
        return send
    if call.target is None:
        return LimitedReads(send, _MAX_READS_OF_CREATE)
    return LimitedReads(send, MAX_READS)


async def _apply(
    rules: Sequence[DependencyRule],
    send: Send,
    own: Names,
    *,
    earlier: Send | None,
    now: datetime | None = None,
    report: Report = no_progress,
) -> Dependence:
    """Return the dependents that the rules find, and what they could not check: without `now`, from lists alone.

    Where reads are limited and dependents of another kind were found, Fastn's own filter is believed without proof.
    """
    searches = [RowSearch(rule, send, earlier) for rule in rules]
    whole_lists_first = sorted(searches, key=lambda each: each.rule.depends is None)
    is_large = False
    for number, search in enumerate(whole_lists_first):
        await report(f"Looking through {search.rule.kind}", number, None)
        await search.begin(is_large=is_large)
        is_large = is_large or search.is_long
    is_limited = isinstance(send, LimitedReads)
    is_used = False
    for search in whole_lists_first:
        await search.finish(0 if now is None else MAX_DETAILS, needs_proof=not (is_limited and is_used))
        is_used = is_used or (search.uses is not None and search.uses.count > 0)
    dependents: list[Dependents] = []
    unchecked: list[Unchecked] = []
    none: list[str] = []
    for search in searches:
        rule = search.rule
        uses = search.uses
        if uses is None:
            why = "" if search.error is None else search.error.what
            unchecked.append(Unchecked(rule.kind, why, rule.kind))
            continue
        if uses.count:
            dependents.append(await _dependents(rule, uses, own, send, now=now))
        gap = uses.gap(rule.kind)
        if gap:
            unchecked.append(gap)
        elif not uses.count:
            none.append(rule.looked_for or rule.kind)
    return Dependence(tuple(dependents), tuple(unchecked), none=tuple(none))


async def _dependents(rule: DependencyRule, uses: Uses, own: Names, send: Send, *, now: datetime | None) -> Dependents:
    """Return the dependents with the first rows. Runs are grouped by workflow."""
    rows = uses.rows
    if rule.kind == "executions":
        shown = _runs_by_workflow(rows, now)
    else:
        first = rows[: MAX_EXAMPLES.get(rule.kind, _MAX_OTHER_EXAMPLES)]
        owners = filter(None, map(owner_of, first)) if rule.kind == "connections" else ()
        unknown = [key for key in owners if key not in own.get("customer", {})]
        read = (await read_names({"customer": unknown}, send)).get("customer", {})
        names = {**own, "customer": {**read, **own.get("customer", {})}}
        with_id = len(first) == uses.count or rule.depends is not None
        shown = [_example(rule, row, names, with_id=with_id) for row in first]
    states = None
    if rule.kind in STATES and len(rows) == uses.count > len(shown):
        states = Counter(STATES[rule.kind](row).value for row in rows)
    rest = suggested_read(rule.reading) if len(shown) < uses.count and rule.depends is None else None
    owners = set[str]()
    hides_owners = uses.more or uses.count > len(rows)
    for row in rows if rule.kind in OWNED_KINDS else ():
        connection = text(row, "connectionId")
        refers = connection_refers(connection)
        owners.update(filter(None, map(owner_of, (row, refers))))
        hides_owners |= bool(connection) and not (refers or owner_of(row))
    return Dependents(
        rule.kind,
        uses.count,
        tuple(shown),
        more=uses.more,
        states=states,
        rest=rest,
        owners=frozenset(owners),
        hides_owners=hides_owners,
    )


def _example(rule: DependencyRule, row: Row, names: Names, *, with_id: bool) -> dict[str, JsonValue]:
    kind = rule.kind
    key = key_of(row)
    label = label_of(kind.removesuffix("s"), row, names)
    name = short(label.name) if label else key
    example: dict[str, JsonValue] = {"id": key} if with_id or name == key else {}
    if name != key:
        example["name"] = name
    example |= {"state": STATES[kind](row).value} if kind in STATES else {}
    others: list[JsonValue] = [each for each in started_workflows(row) if rule.workflow not in (None, each)]
    if others:
        example["also_starts"] = others
    return example


def _runs_by_workflow(runs: Sequence[Row], now: datetime | None) -> list[dict[str, JsonValue]]:
    """Return the workflows of runs, newest first, with the number of runs read and the newest one."""
    groups: dict[str, list[Row]] = {}
    for run in runs:
        groups.setdefault(text(run, "workflowId", "workflowName"), []).append(run)
    return [
        {
            "id": key,
            "name": short(text(group[0], "workflowName", "workflowSlug", "workflowId", "id")),
            "runs": len(group),
            "last_run": run_in_words(group[0], now),
        }
        for key, group in list(groups.items())[: MAX_EXAMPLES["executions"]]
    ]


def run_in_words(run: Row, now: datetime | None) -> str:
    """Return the state of a run and when it began: `failed 2026-11-25T09:00:00Z (3 hours ago)`."""
    at = timestamp(run, "startedAt", "createdAt")
    return " ".join(filter(None, (run_state(run).value, aged(at, now) if at and now else "")))
