"""Answers of `list_api_keys`: what each key did lately, by the audit log, and which one is this server's own."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.history import LOG_LACKS
from fastn_mcp.procedures.list_results import ListAnswer, collected, shown
from fastn_mcp.records.formats import aged, stamp
from fastn_mcp.records.rows import Row, key_of, text
from fastn_mcp.redaction import own_key_row
from fastn_mcp.tools.access import KEY_ACTIONS, ListApiKeys, QueryAuditLog
from fastn_mcp.tools.paging import FULL, MAX_LIMIT, List, created

_PERIOD = timedelta(days=30)

_COUNTING = "select actor, count(*), max(at) from audit where actor_kind = 'key' group by 1"
"""Statement that counts the actions of keys, where the newest entries do not cover the period."""


async def list_api_keys(call: ListApiKeys, context: ProcedureContext) -> ListAnswer:
    """Return the page that `call` asks for. Raises a `FastnError`."""
    listing = cast("List[Any]", call)
    page = await collected(listing, context)
    notes: dict[str, JsonValue] = {}
    shows_actions = call.detail != FULL if call.fields is None else not {*KEY_ACTIONS}.isdisjoint(call.fields)
    if page.items and shows_actions:
        page, notes["actions_of"] = await _with_actions(page, context)
    known = [*page.items, *context.look.stored(ListApiKeys(limit=MAX_LIMIT)).rows]
    own = own_key_row(context.look.settings.api_key, {key_of(row): row for row in known}.values())
    if own is not None:
        notes["own_key"] = key_of(own)
    answer = await shown(listing, page, context)
    return answer.model_copy(update=notes)


async def _with_actions(page: ListAnswer, context: ProcedureContext) -> tuple[ListAnswer, str]:
    """Add to each key what it did, by the newest entries of the audit log. Return also which entries these are."""
    now = context.system.now()
    since = now - _PERIOD
    newest = QueryAuditLog(limit=MAX_LIMIT)
    try:
        entries: Sequence[Row] = (await read_page(newest, context.look)).rows
    except FastnError as error:
        return page, f"not known. query_audit_log: {error.what}"
    log = context.look.stored(newest)
    by_actor = _by_actor(entries, since)
    items = [{**key, **_actions_of(key, by_actor, now)} for key in page.items]
    oldest = min(filter(None, map(created, entries)), default=None)
    begins = f", which begins at {stamp(oldest)}" if log.is_complete and oldest is not None and oldest > since else ""
    words = f"30 days, by the audit log{begins}; it lacks {LOG_LACKS}"
    if not log.covers(since):
        back = "" if oldest is None else f", back to {stamp(oldest)}"
        words = (
            f"the newest {len(entries):,} entries of the audit log{back}; it lacks {LOG_LACKS}. For more, query:"
            f" {_COUNTING}"
        )
    return page.model_copy(update={"items": items}), words


Action = tuple[datetime, Row]
"""An entry of the audit log, after its time."""


def _by_actor(entries: Sequence[Row], since: datetime) -> dict[str, list[Action]]:
    """Return the entries since a time, by their actor in lower case."""
    by_actor: dict[str, list[Action]] = {}
    for row in entries:
        at = created(row)
        if at is not None and at >= since:
            by_actor.setdefault(text(row, "actor").casefold(), []).append((at, row))
    return by_actor


def _actions_of(key: Row, by_actor: Mapping[str, Sequence[Action]], now: datetime) -> dict[str, JsonValue]:
    """Return how many entries are of a key, and the last of them."""
    actions = by_actor.get(f"apikey:{key_of(key)}".casefold(), ())
    facts: dict[str, JsonValue] = {"actions": len(actions)}
    if actions:
        at, last = max(actions, key=lambda action: action[0])
        facts["lastAction"] = f"{text(last, 'action')}, {aged(at, now)}"
    return facts
