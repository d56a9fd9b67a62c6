"""Fastn's AI: replies in one shape, how to go on, and what a build has made.

Nothing here answers the AI: what wants approving is put before a person, and so is a question.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import anyio
from pydantic import JsonValue

from fastn_mcp.errors import FastnError, UnknownOutcome
from fastn_mcp.fastn.rows import Row, key_of, row_of, text, timestamp, word
from fastn_mcp.fastn.targets import Call, Send
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.context import Pending, ProcedureContext
from fastn_mcp.procedures.find import Find
from fastn_mcp.tools.ai import (
    FAILED,
    GOING_ON,
    AiBuild,
    AiChat,
    AiReply,
    is_over,
    shaped_reply,
    waits_for_a_person,
)
from fastn_mcp.tools.connectors import ListConnectors
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import FastnObject, suggested
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows


def how_to_go_on(reply: Mapping[str, JsonValue]) -> JsonValue:
    """What to do next; None where the AI has ended and asks nothing."""
    session = reply.get("session_id")
    if session is None and waits_for_a_person(reply):
        return "Fastn names no session, so this conversation cannot be continued."
    if reply.get("pending_approvals"):
        return {
            "what": "Show the person what pending_approvals holds: only they can approve. "
            "A rejection says what to do instead. Each answer spends credits.",
            "if_they_agree": _answer(session, "approve"),
            "otherwise": _answer(session, "reject"),
        }
    if waits_for_a_person(reply):
        return {"what": "Ask the person, and answer by ai_chat.", "ai_chat": {"session_id": session}}
    if isinstance(made := reply.get("resourceId"), str) and made:
        # What was made is a draft; an id that is no workflow's may be anything's.
        return suggested(GetWorkflow, workflow_id=made) if made.startswith("wf_") else suggested(Find, query=made)
    if session is None:
        return None
    if word(reply, "status") in GOING_ON:
        return asking_how_it_goes(reply)
    if word(reply, "status") in FAILED:
        return {"what": "It failed. Ask in the same session why, by ai_chat.", "ai_chat": {"session_id": session}}
    return None


def asking_how_it_goes(reply: Mapping[str, JsonValue]) -> JsonValue:
    """What to do while a build goes on."""
    session = reply.get("session_id")
    if session is None:
        return "Look later with list_workflows or list_connectors; Fastn names no session that could be asked."
    return {
        "what": "It continues. Looking at the lists is free; asking spends a credit, and a person approves it.",
        **(_answer(session, "status?")),
    }


def _answer(session: JsonValue, message: str) -> dict[str, JsonValue]:
    return suggested(AiChat, session_id=session, message=message) or {}


PAGES = 6
"""Pages of a hundred rows that are read for one inventory, of both kinds together."""

_MOST_NAMED = 20
_LISTS: dict[str, type[ListWorkflows | ListConnectors]] = {"workflow": ListWorkflows, "connector": ListConnectors}


@dataclass(frozen=True, slots=True)
class Item:
    """One resource, and what tells that it was changed."""

    kind: str
    id: str
    name: str
    state: str
    created: datetime | None


@dataclass(slots=True)
class Inventory:
    """What there is, by kind and id; `partial` says of which kinds not all could be read, and why."""

    items: dict[tuple[str, str], Item] = field(default_factory=dict[tuple[str, str], Item])
    partial: dict[str, str] = field(default_factory=dict[str, str])


async def take(send: Send, first: str) -> Inventory:
    """Both kinds, `first` before the other where there are more pages than are read."""
    found = Inventory()
    further: dict[str, Call] = {}

    async def read(kind: str, call: Call) -> None:
        further.pop(kind, None)
        try:
            page = cast("Listed[FastnObject]", await send(call))
        except FastnError as error:
            found.partial[kind] = error.what
            return
        for row in page.items:
            item = _item(kind, row_of(row))
            found.items[kind, item.id] = item
        if page.next_cursor is not None:
            further[kind] = call.model_copy(update={"cursor": page.next_cursor})

    async with anyio.create_task_group() as group:
        for kind, listing in _LISTS.items():
            group.start_soon(read, kind, cast(Call, listing(limit=100)))
    for _ in range(PAGES - len(_LISTS)):
        if not further:
            break
        kind = first if first in further else next(iter(further))
        await read(kind, further[kind])
    for kind in further:
        found.partial[kind] = f"there are more than the {len(_of(found, kind))} that were read"
    return found


async def appeared(before: Inventory, kind: str, name: str | None, since: datetime, send: Send) -> bool:
    """Whether a new resource of this kind is there, by one read. Raises a `FastnError`."""
    listing: Any = _LISTS[kind]
    page = cast("Listed[FastnObject]", await send(listing(limit=100, search=name)))
    items = [_item(kind, row_of(row)) for row in page.items]
    return any(_is_new(item, before, since) for item in items)


def compared(before: Inventory, after: Inventory, since: datetime) -> dict[str, JsonValue]:
    """What was created, updated and deleted, by id and name, and what cannot be said."""
    created = [item for item in after.items.values() if _is_new(item, before, since)]
    updated = [
        item
        for key, item in after.items.items()
        if (was := before.items.get(key)) is not None and (was.state, was.name) != (item.state, item.name)
    ]
    deleted = [item for key, item in before.items.items() if key not in after.items and item.kind not in after.partial]
    changed: dict[str, JsonValue] = {
        name: _named(items) for name, items in (("created", created), ("updated", updated), ("deleted", deleted))
    }
    partial = {kind: why for found in (before, after) for kind, why in found.partial.items()}
    if partial:
        changed["not_checked"] = [f"Not all {kind}s: {why}" for kind, why in partial.items()]
    return changed


def _is_new(item: Item, before: Inventory, since: datetime) -> bool:
    """Whether it was not there before. Where not all was seen then, it has to have been made since."""
    if (item.kind, item.id) in before.items:
        return False
    return item.kind not in before.partial or (item.created is not None and item.created >= since)


def _named(items: list[Item]) -> JsonValue:
    named: list[JsonValue] = [
        {"kind": item.kind, "id": item.id, "name": item.name[:120]} for item in items[:_MOST_NAMED]
    ]
    return [*named, f"{len(items) - _MOST_NAMED} more"] if len(items) > _MOST_NAMED else named


def _of(found: Inventory, kind: str) -> list[Item]:
    return [item for item in found.items.values() if item.kind == kind]


def _item(kind: str, row: Row) -> Item:
    state = " ".join(str(row.get(name)) for name in ("updatedAt", "version", "status", "publishedVersion"))
    name = text(row, "name", "slug")
    return Item(kind, key_of(row) or name, name, state, timestamp(row, "createdAt"))


_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 2.0, 10.0, 1.5

_SKEW = timedelta(minutes=2)
"""By which Fastn's clock may be behind ours."""


async def chat(call: AiChat, means: ProcedureContext) -> Done | Pending:
    """Say something to the AI. What it asks is for a person to answer, by a call of its own."""
    made = await means.change(call)
    if not isinstance(made, Done):
        return made
    reply = _shaped(made.result, call.session_id)
    onward = how_to_go_on(reply)
    return Done(_reply(reply, {} if onward is None else {"next": onward}), made.change)


async def build(call: AiBuild, means: ProcedureContext) -> Done | Pending:
    """Have the AI build, and say what there is then that was not before. Looks on for `wait_seconds`, for free."""
    kind = _kind(call)
    before = await take(means.read, kind)
    sent = means.system.now() - _SKEW
    try:
        made = await means.change(call)
    except UnknownOutcome as error:
        listing = ListConnectors if kind == "connector" else ListWorkflows
        error.facts.setdefault("settle", suggested(listing, **({"search": call.name} if call.name else {})))
        error.next_step = f"Look with {listing.tool_name()} for what was built."
        raise
    if not isinstance(made, Done):
        return made
    reply = _shaped(made.result, call.session_id)
    try:
        said: dict[str, JsonValue] = await _followed(call, reply, before, sent, means)
    except Exception as error:  # it was sent, and nothing may hide that
        why = error.what if isinstance(error, FastnError) else type(error).__name__
        unseen: list[JsonValue] = [f"It was sent; what it changed could not be read: {why}"]
        said = {"changed": {"not_checked": unseen}}
    onward = how_to_go_on(reply)
    if onward is None and not _has_ended(reply):
        onward = asking_how_it_goes(reply)
    return Done(_reply(reply, said | ({} if onward is None else {"next": onward})), made.change)


async def _followed(
    call: AiBuild, reply: dict[str, JsonValue], before: Inventory, sent: datetime, means: ProcedureContext
) -> dict[str, JsonValue]:
    """What has changed, once the build has made something, asks a person, or the time is over."""
    began = means.system.monotonic()
    pause, waited = _FIRST_PAUSE, 0.0
    while waited < call.wait_seconds and not _has_ended(reply) and not waits_for_a_person(reply):
        await means.report(f"building for {waited:.0f} s", waited, float(call.wait_seconds))
        await means.system.sleep(min(pause, call.wait_seconds - waited))
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)
        waited = means.system.monotonic() - began
        try:
            if await appeared(before, _kind(call), call.name, sent, means.read):
                break
        except FastnError:
            continue  # the last look, at all, says what could not be read
    after = await take(means.read, _kind(call))
    said: dict[str, JsonValue] = {"changed": compared(before, after, sent)}
    return said | ({"waited_seconds": round(waited, 1)} if call.wait_seconds else {})


def _kind(call: AiBuild) -> str:
    return "connector" if call.type.casefold() == "connector" else "workflow"


def _has_ended(reply: dict[str, JsonValue]) -> bool:
    return bool(reply.get("resourceId")) or is_over(reply)


def _shaped(answer: FastnObject, session: str | None) -> dict[str, JsonValue]:
    return shaped_reply(cast("dict[str, JsonValue]", answer.model_dump(exclude_unset=True)), session)


def _reply(reply: dict[str, JsonValue], said: dict[str, JsonValue]) -> AiReply:
    """Ours first: what is too long is cut from the end."""
    first = {name: reply[name] for name in ("session_id", "status") if name in reply} | said
    return AiReply.model_validate(first | {name: value for name, value in reply.items() if name not in first})
