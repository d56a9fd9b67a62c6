"""Answers of `query_audit_log`: names beside ids, names in place of ids, how far the log reaches, what was left out."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.account.entries import LISTS, Entry, read_contents, read_labels
from fastn_mcp.client.reads import MAX_LOOKUPS, read_each, read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.history import LOG_LACKS, read_beginning
from fastn_mcp.procedures.list_results import ListAnswer, collected, shown
from fastn_mcp.procedures.lookup import named
from fastn_mcp.records.formats import aged, counted, quoted, stamp
from fastn_mcp.records.labels import label_of
from fastn_mcp.records.rows import Row, connection_refers, inside, key_of, parse_timestamp, row_of, text, timestamp
from fastn_mcp.tools.access import AuditEntry, QueryAuditLog, entry_kind
from fastn_mcp.tools.paging import FULL, MAX_LIMIT, List
from fastn_mcp.tools.workflows import GetExecution

_ID = re.compile(r"[a-z-]+_[0-9a-f]{8,}|[0-9a-f]{8}-[0-9a-f-]{27}|ucl:.+|\d+|(org|personal)_\w+", re.IGNORECASE)

_NAMED_KINDS = ("workflow", "trigger", "api_key", "secret", "role", "user", "connector", "customer")
"""Kinds by whose names entries are asked for, the shortest lists first."""

_RUN = "workflow_executions"
"""Type of the resource of an entry about a run."""

_MAX_RUNS = 10
"""Maximum number of runs that are read for the names of their workflows."""

_WHOLE = QueryAuditLog(limit=MAX_LIMIT)
"""The newest entries of the whole log, which answers share."""

_COUNTING = "select actor_kind, action, count(*) from audit group by 1, 2"
"""Statement that counts what filters left out."""


async def entries(call: QueryAuditLog, context: ProcedureContext) -> ListAnswer:
    """Return the page that `call` asks for. Raises a `FastnError`."""
    resource = call.resource_id
    matches = await _resources_named(resource, context) if resource and not _ID.fullmatch(resource) else []
    if len(matches) == 1:
        call = call.model_copy(update={"resource_id": matches[0].id})
    listing = cast("List[Any]", call)
    page = await collected(listing, context)
    is_concise = call.detail != FULL and "resource" in (call.fields or AuditEntry.columns)
    names = await _names(page.items, context) if is_concise else {}
    answer = await shown(listing, page, context, names)
    notes: dict[str, JsonValue] = {}
    if len(matches) == 1:
        notes["resource"] = f"{matches[0].kind} {matches[0].id} ({quoted(matches[0].name)})"
    if call.cursor is None:
        notes |= await _reach(call, page, context)
    if not page.items and call.cursor is None:
        notes |= await _last_before(call, context)
        notes["now"] = stamp(context.system.now())
        notes["see"] = "list_changes for changes made here; updatedAt and updatedBy of the resource itself."
        unknown: list[JsonValue] = [*(page.unknown or ()), *_doubts(call, matches)]
        if unknown:
            notes["unknown"] = unknown
    return answer.model_copy(update=notes)


async def _resources_named(name: str, context: ProcedureContext) -> list[Entry]:
    """Return the resources with this name, slug or email, of the first kind that has one."""
    for kind in _NAMED_KINDS:
        try:
            contents = await read_contents(kind, context.look)
        except FastnError:
            continue  # the answer says that nothing of this name was found
        matches = named(name, contents.entries)
        if matches:
            return matches
    return []


def _doubts(call: QueryAuditLog, matches: list[Entry]) -> Iterable[str]:
    """Yield why a filter may match nothing."""
    if len(matches) > 1:
        ids = ", ".join(item.id for item in matches[:MAX_LOOKUPS])
        ids += " or another, see find" if len(matches) > MAX_LOOKUPS else ""
        yield f"resource_id: {counted(len(matches), matches[0].kind)} of this name; give the id: {ids}"
    elif call.resource_id and not matches and not _ID.fullmatch(call.resource_id):
        yield "resource_id: nothing has this name; find its id with find"
    if call.actor and not re.search(r"@|^apikey:\d+$|^(agent|system)$", call.actor):
        yield "actor: an email address, apikey:N, agent or system"


async def _reach(call: QueryAuditLog, page: ListAnswer, context: ProcedureContext) -> dict[str, JsonValue]:
    """Return how far the log reaches, what it lacks, and what the filters left out."""
    with suppress(FastnError):  # the beginning is then not known
        await read_page(_WHOLE, context.look)
    begins = await read_beginning(QueryAuditLog, context.look, searches=not page.items)
    notes: dict[str, JsonValue] = {"log_begins": begins.in_words(context.system.now()), "log_lacks": LOG_LACKS}
    return notes | _filtered_out(call, page, context)


def _filtered_out(call: QueryAuditLog, page: ListAnswer, context: ProcedureContext) -> dict[str, JsonValue]:
    """Count by kind the entries of the period that the filters left out, or name the statement that counts them."""
    filters = {name: value for name, value in call.filters.items() if name not in ("since", "until")}
    if not filters:
        return {}
    period = {name: value for name, value in call.filters.items() if name in ("since", "until")}
    rows: Sequence[Row] = [row for _, row in call.matching_rows(page.dropped, period)[0]]
    if not {"changes_only"}.issuperset(filters):  # Fastn may not have sent the others
        whole = context.look.stored(_WHOLE)
        if not whole.is_complete and not whole.covers(call.since):
            return {"filtered_out": f"not counted; query: {_COUNTING}"}
        of_period = [row for _, row in call.matching_rows(whole.rows, period)[0]]
        matching = {key_of(row) for _, row in call.matching_rows(of_period, filters)[0]}
        rows = [row for row in of_period if key_of(row) not in matching]
    counts = Counter(map(entry_kind, rows)).most_common()
    kinds = [f"{counted(count, noun)} by {actors}" for (noun, actors), count in counts]
    return {"filtered_out": "; ".join(kinds)} if kinds else {}


async def _last_before(call: QueryAuditLog, context: ProcedureContext) -> dict[str, JsonValue]:
    """Return the newest matching entry before the period of an empty answer, if it has a begin."""
    since = parse_timestamp(call.since)
    if since is None:
        return {}
    earlier = call.model_copy(update={"since": None, "until": stamp(since), "limit": MAX_LIMIT, "fields": None})
    try:
        page = await read_page(cast("List[Any]", earlier), context.look)
    except FastnError as error:
        return {"last_before": f"not known ({error.outcome})"}
    if not page.rows:
        return {"last_before": "none" if page.next_cursor is None else f"none in the {page.received} entries before"}
    row = page.rows[0]
    at = timestamp(row, "timestamp", "createdAt")
    when = aged(at, context.system.now()) if at else "at an unknown time"
    resource = " ".join(filter(None, (text(row, "resource.type"), text(row, "resource.id"))))
    words = (when, text(row, "action"), resource and f"of {resource}", f"by {text(row, 'actor') or 'unknown'}")
    return {"last_before": " ".join(filter(None, words))}


async def _names(rows: Iterable[Row], context: ProcedureContext) -> dict[str, dict[str, str]]:
    """Return the names of the resources of entries, by type and id, as far as few reads tell them."""
    ids: dict[str, set[str]] = {}
    for resource in (inside(row, "resource") for row in rows):
        key = text(resource, "id")
        if key:
            ids.setdefault(text(resource, "type"), set()).add(key)

    async def of_run(key: str) -> str:
        run = row_of(await context.read(GetExecution(execution_id=key)))
        return text(run, "workflowName", "workflowSlug", "workflowId")

    async def of_kind(kind: str) -> dict[str, str]:
        if kind == _RUN:
            return await read_each(sorted(ids[kind])[:_MAX_RUNS], of_run)
        if kind == "connection":
            return await _connection_names(ids[kind], context)
        contents = await read_contents(kind, context.look)
        return {entry.id: entry.name for entry in contents.entries if entry.id in ids[kind]}

    named = {_RUN, *LISTS} - {"customer", "connector"}
    return await read_each([kind for kind in ids if kind in named], of_kind)


async def _connection_names(ids: Iterable[str], context: ProcedureContext) -> dict[str, str]:
    """Return the names of connections, by the app and the customer in their ids."""
    rows = {key: connection_refers(key) for key in ids}
    names: dict[str, dict[str, str]] = {}
    for kind, field in (("customer", "endOrgId"), ("connector", "connectorId")):
        keys = filter(None, (text(row, field) for row in rows.values()))
        names[kind] = await read_labels(kind, keys, context.look)
    return {
        key: str(label_of("connection", row, names))
        for key, row in rows.items()
        if text(row, "connectorId") in names["connector"]
    }
