"""Answers of `query_audit_log`: names beside ids, names in place of ids, and how far back an empty log reaches."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.account.entries import LISTS, Entry, read_contents, read_labels
from fastn_mcp.client.reads import MAX_LOOKUPS, Pages, read_each
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.list_results import ListAnswer, collected, shown
from fastn_mcp.procedures.lookup import named
from fastn_mcp.records.formats import aged, counted, quoted
from fastn_mcp.records.labels import label_of
from fastn_mcp.records.rows import Row, connection_refers, inside, row_of, text, timestamp
from fastn_mcp.tools.access import AuditEntry, QueryAuditLog
from fastn_mcp.tools.paging import FULL, List
from fastn_mcp.tools.workflows import GetExecution

_ID = re.compile(r"[a-z-]+_[0-9a-f]{8,}|[0-9a-f]{8}-[0-9a-f-]{27}|ucl:.+|\d+|(org|personal)_\w+", re.IGNORECASE)

_NAMED_KINDS = ("workflow", "trigger", "api_key", "secret", "role", "user", "connector", "customer")
"""Kinds by whose names entries are asked for, the shortest lists first."""

_RUN = "workflow_executions"
"""Type of the resource of an entry about a run."""

_MAX_RUNS = 10
"""Maximum number of runs that are read for the names of their workflows."""

_STEPS = (1_000, 365, 90, 30, 7, 0)
"""Ages, in days, from which on the oldest entry is looked for."""

_MAX_PAGES = 10
"""Maximum number of pages of 100 entries read to the oldest one."""


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
    if not page.items and call.cursor is None:
        notes["log_begins"] = await _beginning(context)
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


async def _beginning(context: ProcedureContext) -> str:
    """Return the time of the oldest entry of the whole log, or of the oldest that was reached."""
    now = context.system.now()
    oldest: datetime | None = None
    for days in _STEPS:
        until = {"until": (now - timedelta(days=days)).isoformat(timespec="seconds")} if days else {}
        pages = Pages(QueryAuditLog.model_validate({"limit": 100, **until}), context.read, _MAX_PAGES)
        try:
            async for page in pages:
                times = [timestamp(row, "timestamp", "createdAt") for row in page.rows]
                oldest = min(filter(None, (oldest, *times)), default=None)
                if oldest is None:
                    break
        except FastnError as error:
            if oldest is None:
                return f"not known ({error.outcome})"
        if oldest is not None:
            return aged(oldest, now) if pages.is_complete else f"{aged(oldest, now)} or earlier"
    return "it has no entry that this key may see"


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
