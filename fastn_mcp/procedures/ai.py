"""Fastn's AI: replies in one shape, how to go on, and what a build has made.

Nothing here answers the AI: what wants approving is put before a person, and so is a question.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import cast

from pydantic import JsonValue

from fastn_mcp.errors import FastnError, UnknownOutcome
from fastn_mcp.fastn.ai_replies import FAILED, GOING_ON, is_over, shaped, status_of, waits_for_a_person
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.find.find import Find
from fastn_mcp.procedures.next_step import following
from fastn_mcp.procedures.overview.snapshot import Inventory, appeared, compared, take
from fastn_mcp.tools.ai import AiBuild, AiChat, AiReply
from fastn_mcp.tools.connectors import ListConnectors
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows


def how_to_go_on(reply: Mapping[str, JsonValue]) -> JsonValue:
    """What to do next; None where the AI has ended and asks nothing."""
    session = reply.get("session_id")
    if session is None and waits_for_a_person(reply):
        return "Fastn names no session, so this conversation cannot be continued."
    if reply.get("pending_approvals"):
        return {
            "what": "Show the person what pending_approvals holds: only they can agree. "
            "A rejection says what to do instead. Each answer spends credits.",
            "if_they_agree": _answer(session, "approve"),
            "otherwise": _answer(session, "reject"),
        }
    if waits_for_a_person(reply):
        return {"what": "Ask the person, and answer by ai_chat.", "ai_chat": {"session_id": session}}
    if isinstance(made := reply.get("resourceId"), str) and made:
        # What was made is a draft; an id that is no workflow's may be anything's.
        return following(GetWorkflow, workflow_id=made) if made.startswith("wf_") else following(Find, query=made)
    if session is None:
        return None
    if status_of(reply) in GOING_ON:
        return asking_how_it_goes(reply)
    if status_of(reply) in FAILED:
        return {"what": "It failed. Ask in the same session why, by ai_chat.", "ai_chat": {"session_id": session}}
    return None


def asking_how_it_goes(reply: Mapping[str, JsonValue]) -> JsonValue:
    """What to do while a build goes on."""
    session = reply.get("session_id")
    if session is None:
        return "Look later with list_workflows or list_connectors; Fastn names no session that could be asked."
    return {
        "what": "It goes on. Looking at the lists is free; asking spends a credit, and a person approves it.",
        **(_answer(session, "status?")),
    }


def _answer(session: JsonValue, message: str) -> dict[str, JsonValue]:
    return following(AiChat, session_id=session, message=message) or {}


_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 2.0, 10.0, 1.5

_SKEW = timedelta(minutes=2)
"""By which Fastn's clock may be behind ours."""


async def chat(call: AiChat, means: ProcedureContext) -> AiReply:
    """Say something to the AI. What it asks is for a person to answer, by a call of its own."""
    reply = _shaped(await means.send(call), call.session_id)
    onward = how_to_go_on(reply)
    return _reply(reply, {} if onward is None else {"next": onward})


async def build(call: AiBuild, means: ProcedureContext) -> AiReply:
    """Have the AI build, and say what there is then that was not before. Looks on for `wait_seconds`, for free."""
    kind = _kind(call)
    before = await take(means.send, kind)
    sent = means.system.now() - _SKEW
    try:
        answer = await means.send(call)
    except UnknownOutcome as error:
        listing = ListConnectors if kind == "connector" else ListWorkflows
        error.facts.setdefault("settle", following(listing, **({"search": call.name} if call.name else {})))
        error.next_step = f"Look with {listing.tool_name()} for what was built."
        raise
    reply = _shaped(answer, call.session_id)
    try:
        said: dict[str, JsonValue] = await _followed(call, reply, before, sent, means)
    except Exception as error:  # it was sent, and nothing may hide that
        why = error.what if isinstance(error, FastnError) else type(error).__name__
        unseen: list[JsonValue] = [f"It was sent; what it changed could not be read: {why}"]
        said = {"changed": {"not_checked": unseen}}
    onward = how_to_go_on(reply)
    if onward is None and not _has_ended(reply):
        onward = asking_how_it_goes(reply)
    return _reply(reply, said | ({} if onward is None else {"next": onward}))


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
            if await appeared(before, _kind(call), call.name, sent, means.send):
                break
        except FastnError:
            continue  # the last look, at all, says what could not be read
    after = await take(means.send, _kind(call))
    said: dict[str, JsonValue] = {"changed": compared(before, after, sent)}
    return said | ({"waited_seconds": round(waited, 1)} if call.wait_seconds else {})


def _kind(call: AiBuild) -> str:
    return "connector" if call.type.casefold() == "connector" else "workflow"


def _has_ended(reply: dict[str, JsonValue]) -> bool:
    return bool(reply.get("resourceId")) or is_over(reply)


def _shaped(answer: FastnObject, session: str | None) -> dict[str, JsonValue]:
    return shaped(cast("dict[str, JsonValue]", answer.model_dump(exclude_unset=True)), session)


def _reply(reply: dict[str, JsonValue], said: dict[str, JsonValue]) -> AiReply:
    """Ours first: what is too long is cut from the end."""
    first = {name: reply[name] for name in ("session_id", "status") if name in reply} | said
    return AiReply.model_validate(first | {name: value for name, value in reply.items() if name not in first})
