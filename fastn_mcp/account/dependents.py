"""Dependents of a resource, the same for the guard, its previews and `find_dependents`.

Rules say which lists to read for a resource, how their rows refer to it, and what cannot be checked.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import JsonValue

from fastn_mcp.account.dependence import OWNED_KINDS, Dependence, Dependents, Unchecked
from fastn_mcp.client.reads import Pages, read_each, read_names, read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.records.formats import aged
from fastn_mcp.records.labels import Names, label_of
from fastn_mcp.records.rows import (
    FastnObject,
    Row,
    connection_refers,
    connector_keys,
    key_of,
    owner_of,
    row_of,
    short,
    started_workflows,
    text,
    timestamp,
    word,
)
from fastn_mcp.records.states import STATES, run_state, trigger_state
from fastn_mcp.redaction import texts_in
from fastn_mcp.runtime import Report, no_progress
from fastn_mcp.tools.access import ListSecrets
from fastn_mcp.tools.connectors import CreateConnector, ListConnections, UpdateConnector
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.paging import List, Listed
from fastn_mcp.tools.related_reads import kind_of, own_label, suggested_read
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListExecutions, ListWorkflows, UpdateWorkflow

MAX_PAGES = 3
"""Maximum number of pages of 100 rows read for one kind."""

MAX_EXAMPLES = {"connections": 5, "executions": 5}
"""Maximum number of examples by kind, if they hardly differ. Ids of connections are long: the list has them."""

_MAX_OTHER_EXAMPLES = 30
"""Maximum number of examples of the other kinds."""

_FEW_RUNS = 3
"""Number of workflows above which a page of the newest runs is read first, which shows the last run of several."""

MAX_DETAILS = 30
"""Maximum number of rows of one kind to read one by one, if the list does not show enough."""

_MAX_RUNS = 10
"""Maximum number of workflows whose last run is read one by one."""


Depends = Callable[[Row], bool | None]
"""Whether a row depends on the resource; None if the row does not tell."""


@dataclass(frozen=True, slots=True)
class DependencyRule:
    """A kind that may depend on a resource. `detail` reads one row in full, as a list may omit fields."""

    kind: str
    reading: List[Any]
    depends: Depends | None = None
    """None if Fastn has filtered the list."""
    detail: Callable[[str], Call] | None = None
    workflow: str | None = None
    """Id of the workflow whose triggers are listed: each stays active for the other workflows that it starts."""


@dataclass(frozen=True, slots=True)
class DependencyRules:
    """Rules for certain and for possible dependents, and the kinds that cannot be checked."""

    certain: tuple[DependencyRule, ...] = ()
    possible: tuple[DependencyRule, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()


def dependency_rules(kind: str, subject: str, target: FastnObject | None) -> DependencyRules:
    """Return the rules for dependents of the resource with the id `subject`. `target` is its record, if it was read."""
    triggers = ListTriggers(limit=100)
    row = row_of(target)
    match kind:
        case "customer":
            return DependencyRules(
                certain=(
                    DependencyRule("connections", ListConnections(customer_id=subject, limit=100)),
                    DependencyRule("secrets", ListSecrets(customer_id=subject, limit=100)),
                    DependencyRule("executions", ListExecutions(customer_id=subject, limit=100)),
                ),
                possible=(DependencyRule("triggers", ListTriggers(customer_id=subject, limit=100)),),
            )
        case "connector":
            names = {subject, text(row, "slug") or subject}
            return DependencyRules(
                certain=(
                    DependencyRule("connections", ListConnections(connector_id=subject, limit=100)),
                    _of_workflows(_refers("connectors", names)),
                    DependencyRule("triggers", triggers, _app_event("connectorId", names)),
                )
            )
        case "connection":
            names = connector_keys(row)
            why = "Workflows name connectors, not connections, so whether one uses this connection is unknown."
            return DependencyRules(
                certain=(DependencyRule("triggers", triggers, _app_event("connectionId", {subject})),),
                possible=(_of_workflows(_refers("connectors", names)),) if names else (),
                unchecked=(Unchecked("workflows", why),),
            )
        case "workflow":
            return DependencyRules(
                certain=(DependencyRule("triggers", triggers, _starts(subject), workflow=subject),),
                unchecked=(Unchecked("other callers", "Callers through the API are unknown."),),
            )
        case "secret":
            name = text(row, "name")
            why = "Names that the code builds at run time are not visible."
            return DependencyRules(
                possible=(_of_workflows(_mentions(name)),) if name else (),
                unchecked=(Unchecked("workflows that read it", why),),
            )
        case "trigger":
            why = "Nothing in Fastn uses a trigger. Fastn does not know who calls a webhook or relies on its runs."
            return DependencyRules(unchecked=(Unchecked("who uses it", why),))
        case _:
            return DependencyRules(unchecked=(Unchecked("who uses it", "Fastn does not know."),))


def _of_workflows(depends: Depends) -> DependencyRule:
    return DependencyRule("workflows", ListWorkflows(limit=100), depends, lambda key: GetWorkflow(workflow_id=key))


def _refers(field: str, wanted: set[str], if_missing: Depends = lambda _: None) -> Depends:
    """Match rows with a wanted text in a field. `if_missing` decides for a row without that field."""

    def depends(row: Row) -> bool | None:
        value = row.get(field)
        return if_missing(row) if value is None else not wanted.isdisjoint(texts_in(value))

    return depends


def _app_event(field: str, wanted: set[str]) -> Depends:
    """Match triggers by a field that only app event triggers have."""
    return _refers(field, wanted, lambda row: None if "event" in (word(row, "type") or "event") else False)


def _starts(workflow_id: str) -> Depends:
    """Match triggers that start a workflow; None for a trigger without readable routes."""

    def depends(row: Row) -> bool | None:
        routes = row.get("routes")
        started = started_workflows(row)
        return None if routes is None or (routes and not started) else workflow_id in started

    return depends


def _mentions(name: str) -> Depends:
    """Match workflows whose code contains a name."""

    def depends(row: Row) -> bool | None:
        code = row.get("code")
        return name in code if isinstance(code, str) else None

    return depends


@dataclass(frozen=True, slots=True)
class Uses:
    """Rows of one kind that use the resource. `count` is exact, or a lower bound if `more`."""

    rows: Sequence[Row]
    count: int
    more: bool = False
    silent: int = 0
    """Number of rows that do not tell whether they use it."""

    def gap(self, rule: DependencyRule) -> Unchecked | None:
        """Return why the rows read do not settle if there are any dependents; None if they do."""
        if self.silent:
            why = f"The list does not show what they use, and at most {MAX_DETAILS} are read one by one."
            return Unchecked(f"{self.silent} {rule.kind}", why, rule.kind)
        if self.more and not self.count:
            return Unchecked(rule.kind, "Only the first were read, and none of them uses it.", rule.kind)
        return None


async def find_dependents(call: Call, target: FastnObject | None, send: Send) -> Dependence:
    """Find the certain dependents of the target of `call`, from lists alone."""
    rules = _rules(call, target)
    dependents, unchecked = await _apply(rules.certain, send, _own(call, target))
    return Dependence(dependents, (*rules.unchecked, *unchecked))


async def describe_dependents(
    call: Call, target: FastnObject | None, send: Send, now: datetime, report: Report = no_progress
) -> Dependence:
    """Find the certain and the possible dependents of the target of `call`, with the triggers and runs of workflows."""
    rules = _rules(call, target)
    own = _own(call, target)
    dependents, unchecked = await _apply(rules.certain, send, own, now=now, report=report)
    possible, more_unchecked = await _apply(rules.possible, send, own, now=now, report=report)
    customer = owner_of(row_of(target)) if kind_of(call) == "connection" else None
    dependents, possible = [
        tuple([await _with_facts(each, send, now, customer) if each.kind == "workflows" else each for each in group])
        for group in (dependents, possible)
    ]
    return Dependence(dependents, (*unchecked, *more_unchecked, *rules.unchecked), possible)


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
        return runs | await read_each(unread[:_MAX_RUNS], partial(_last_run, send, now))
    newest = f" in the newest {len(rows)} runs" if page and page.next_cursor else ""
    return runs | ({} if page is None or page.not_checked else dict.fromkeys(unread, f"never{of}{newest}"))


async def _last_run(send: Send, now: datetime, workflow: str) -> str:
    page = await read_page(ListExecutions(workflow_id=workflow, limit=1), send)
    return run_in_words(page.rows[0], now) if page.rows else "never"


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


async def _apply(
    rules: Iterable[DependencyRule],
    send: Send,
    own: Names,
    now: datetime | None = None,
    report: Report = no_progress,
) -> tuple[tuple[Dependents, ...], list[Unchecked]]:
    """Return the dependents that the rules find, and what they could not check: without `now`, from lists alone."""
    dependents: list[Dependents] = []
    unchecked: list[Unchecked] = []
    for number, rule in enumerate(rules):
        await report(f"Looking through {rule.kind}", number, None)
        try:
            uses = await _uses_of(rule, send, 0 if now is None else MAX_DETAILS)
        except FastnError as error:
            unchecked.append(Unchecked(rule.kind, error.what, rule.kind))
            continue
        if uses.count:
            dependents.append(await _dependents(rule, uses, own, send, now=now))
        gap = uses.gap(rule)
        if gap:
            unchecked.append(gap)
    return tuple(dependents), unchecked


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


async def _uses_of(rule: DependencyRule, send: Send, details: int) -> Uses:
    """Read the rows that match a rule, and up to `details` undecided rows one by one. Raises a `FastnError`."""
    rows: list[Row] = []
    silent: list[Row] = []
    pages = Pages(rule.reading, send, MAX_PAGES)
    async for page in pages:
        if page.not_checked:
            raise FastnError("The rows do not say what they belong to.")
        for row in page.rows:
            answer = True if rule.depends is None else rule.depends(row)
            if answer is None:
                silent.append(row)
            elif answer:
                rows.append(row)
    # Where Fastn has filtered, its total counts matching rows.
    is_filtered = rule.depends is None and all(len(page.rows) == 100 for page in pages.pages)
    total = pages.pages[-1].total if is_filtered and not pages.is_complete else None
    more = total is None and not pages.is_complete
    detail = rule.detail
    matches = rule.depends
    if detail is not None and matches is not None and details:

        async def depends(number: int) -> bool | None:
            return matches(row_of(await send(detail(key_of(silent[number])))))

        answers = await read_each(range(min(details, len(silent))), depends)
        rows += [row for number, row in enumerate(silent) if answers.get(number)]
        silent = [row for number, row in enumerate(silent) if answers.get(number) is None]
    return Uses(rows, max(len(rows), total or 0), more, len(silent))
