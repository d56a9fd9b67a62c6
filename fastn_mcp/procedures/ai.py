"""The tools `ai_chat` and `ai_build`: uniform replies, the next step, and the changes that a build made.

The AI's questions and approval requests are never answered here: a person has to.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import cast

from pydantic import JsonValue

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import FastnError, LeftOut, UnknownOutcome
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.context import Pending, ProcedureContext
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.reads import AccountReads
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.rows import Row, key_of, number, row_of, timestamp, word
from fastn_mcp.tools.ai import FAILED, IN_PROGRESS, AiBuild, AiChat, AiReply, is_over, normalize_reply, waits_for_person
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.connectors import ListConnectors
from fastn_mcp.tools.tool import MAY_BE_ID, suggested
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows


def next_step(reply: Mapping[str, JsonValue], created: Row | None = None, kind: str = "", name: str = "") -> JsonValue:
    """Return the next step; None if the AI has finished and asks nothing.

    `created` is what was just built, `kind` and `name` what the AI is building.
    """
    session = reply.get("session_id")
    session = session if MAY_BE_ID.fullmatch(str(session)) else None
    if session is None and waits_for_person(reply):
        return "Fastn names no session, so this conversation cannot be continued."
    if reply.get("pending_approvals") or (reply.get("plan") and waits_for_person(reply)):
        return {
            "what": (
                "Show the person the plan and pending_approvals in full: only they can approve. "
                f"A rejection says what to do instead. {_costs(reply)}"
            ),
            "if_they_agree": _answer(session, "approve"),
            "otherwise": _answer(session, "reject"),
        }
    if waits_for_person(reply):
        return {"what": f"Ask the person, and answer with ai_chat. {_costs(reply)}", "ai_chat": {"session_id": session}}
    key = reply.get("resourceId")
    if isinstance(key, str) and MAY_BE_ID.fullmatch(key):
        # Workflow ids start with wf_. Other ids do not say their kind.
        return suggested(GetWorkflow, workflow_id=key) if key.startswith("wf_") else suggested(Find, query=key)
    if created is not None:
        return suggested(OPERATIONS[f"get_{created['kind']}"], **{f"{created['kind']}_id": created["id"]})
    if word(reply, "status") in IN_PROGRESS and kind:
        return follow(kind, name)
    if session is None:
        return None
    if word(reply, "status") in IN_PROGRESS:
        return ask_status(reply)
    if word(reply, "status") in FAILED:
        return {"what": "It failed. Ask why with ai_chat, in the same session.", "ai_chat": {"session_id": session}}
    return None


def follow(kind: str, name: str = "") -> dict[str, JsonValue]:
    """Return the next step while something is being built that nothing keeps from being made."""
    step = suggested(_LIST_CALLS[kind], **({"search": name} if name else {})) or {}
    return {
        "what": (
            "The build continues. Look for its result in this list, which costs nothing; asking the AI spends credits."
        ),
        **step,
    }


def ask_status(reply: Mapping[str, JsonValue]) -> JsonValue:
    """Return the next step while the AI works on a plan that it will ask a person to approve."""
    session = reply.get("session_id")
    if session is None:
        return "Look later with list_workflows or list_connectors; Fastn names no session that could be asked."
    return {
        "what": (
            "It is planning, and builds nothing until a person approves the plan. Only the AI shows the plan; Fastn "
            f"has no free way to read it. {_costs(reply)}"
        ),
        **(_answer(session, "status?")),
    }


def _costs(reply: Row) -> str:
    """Say what a further message costs."""
    used = number(reply, "credits_used")
    price = "" if used is None else f" (the last one used {used:,.10g})"
    return f"Each message spends AI credits{price} and needs a person's approval."


def _answer(session: JsonValue, message: str) -> dict[str, JsonValue]:
    return suggested(AiChat, session_id=session, message=message) or {}


MAX_PAGES = 6
"""Maximum number of pages of 100 rows read for one inventory, both kinds together."""

_MAX_NAMED = 20
_LOOKED_AT = "workflows and connectors only; query_audit_log has changes of other kinds"
_LIST_CALLS: dict[str, type[ListWorkflows | ListConnectors]] = {"workflow": ListWorkflows, "connector": ListConnectors}


@dataclass(frozen=True, slots=True)
class Inventory:
    """Rows by kind and id; `partial` holds the reason for each kind that was not read completely."""

    rows: dict[tuple[str, str], Row]
    partial: dict[str, str]


async def _take_inventory(look: AnswerReads, first: str) -> Inventory:
    """Read the first page of both kinds, further pages of `first`, and pages of the other kind if all may be read.

    Otherwise the first page, with the newest rows, has to do for the other kind.
    """
    reads = AccountReads(look)
    await reads.read({kind: listing(limit=100) for kind, listing in _LIST_CALLS.items()})
    left = MAX_PAGES - len(_LIST_CALLS)
    for kind in filter(reads.has_more, dict.fromkeys((first, *_LIST_CALLS))):
        if left > 0 and (kind == first or (reads.total(kind) or 0) <= left * 100):
            await reads.read({kind: _LIST_CALLS[kind](limit=100)}, left)
            left -= ceil(len(reads.lists[kind].rows) / 100)
    # Without the advice to call again, which would send the message again.
    partial = {
        name.removeprefix("more "): (
            "left out, to keep within Fastn's rate limit" if isinstance(error, LeftOut) else error.what
        )
        for name, error in reads.failed.items()
    }
    for kind, listed in reads.lists.items():
        if reads.has_more(kind):
            partial.setdefault(kind, f"there are more than the {len(listed.rows)} that were read")
    return Inventory({(kind, _id(row)): row for kind, listed in reads.lists.items() for row in listed.rows}, partial)


def _changed(before: Inventory, after: Inventory, since: datetime) -> dict[str, JsonValue]:
    """Return the rows created, updated and deleted, by id and name, and the kinds not checked."""
    current = after.rows
    earlier = before.rows
    rows_by_change: dict[str, list[tuple[str, Row]]] = {
        "created": [(kind, row) for (kind, _), row in current.items() if _is_new(kind, row, before, since)],
        "updated": [(key[0], row) for key, row in current.items() if key in earlier and _differ(row, earlier[key])],
        "deleted": [
            (key[0], row) for key, row in earlier.items() if key not in current and key[0] not in after.partial
        ],
    }
    changed: dict[str, JsonValue] = {name: _named(rows) for name, rows in rows_by_change.items()}
    partial = before.partial | after.partial
    if partial:
        changed["not_checked"] = [f"Not all {kind}s: {why}" for kind, why in partial.items()]
    return changed


def _is_new(kind: str, row: Row, before: Inventory, since: datetime) -> bool:
    """Whether the row is new. After a partial inventory, only one created after `since` counts as new."""
    if (kind, _id(row)) in before.rows:
        return False
    created = timestamp(row, "createdAt")
    return kind not in before.partial or (created is not None and created >= since)


def _differ(row: Row, other: Row) -> bool:
    fields = ("updatedAt", "version", "status", "publishedVersion")
    return name_of(row) != name_of(other) or any(row.get(field) != other.get(field) for field in fields)


def _named(rows: list[tuple[str, Row]]) -> JsonValue:
    named: list[JsonValue] = [{"kind": kind, "id": _id(row), "name": name_of(row)} for kind, row in rows[:_MAX_NAMED]]
    return [*named, f"{len(rows) - _MAX_NAMED} more"] if len(rows) > _MAX_NAMED else named


def _id(row: Row) -> str:
    return key_of(row) or name_of(row)


_FIRST_PAUSE = 2.0
_MAX_PAUSE = 10.0
_GROWTH = 1.5

_SKEW = timedelta(minutes=2)
"""Tolerance for a Fastn clock that is behind ours."""


async def chat(call: AiChat, context: ProcedureContext) -> Done | Pending:
    """Send a message to the AI, and report what changed.

    The account is looked at before and after a message that may change something: one into a session may approve a
    change, and in another mode than manual the AI does not ask. Else the reply says what was done.
    """
    if call.needs_person:
        return await _follow(call, context)
    outcome = await context.change(call)
    if not isinstance(outcome, Done):
        return outcome
    reply = normalize_reply(row_of(outcome.result), call.session_id)
    return Done(_with_next(reply, {}, next_step(reply)), outcome.change, {"changed": _changed_by_first_message(reply)})


def _changed_by_first_message(reply: Row) -> dict[str, JsonValue]:
    """Return what a first message in manual mode changed, by the reply alone."""
    if reply.get("tool_calls"):
        return {
            "not_checked": ["Fastn's AI says what it called in tool_calls; query_audit_log tells what was changed."]
        }
    return {
        "according_to_fastn": "Nothing: in manual mode the AI asks before each change. Its reply lists no tool calls."
    }


async def build(call: AiBuild, context: ProcedureContext) -> Done | Pending:
    """Have the AI build, and report what changed."""
    try:
        return await _follow(call, context)
    except UnknownOutcome as error:
        (kind, *_), name = _built_by(call)
        listing = _LIST_CALLS[kind]
        error.facts.setdefault("settle", suggested(listing, **({"search": name} if name else {})))
        error.next_step = f"Check with {listing.tool_name()} whether it was built."
        raise


def _built_by(call: AiBuild | AiChat) -> tuple[tuple[str, ...], str]:
    """Return the kinds of what a message may build, the likeliest first, and its name; empty if not known."""
    if not isinstance(call, AiBuild):
        return tuple(_LIST_CALLS), ""
    return ("connector" if call.type.casefold() == "connector" else "workflow",), call.name or ""


async def _follow(call: AiBuild | AiChat, context: ProcedureContext) -> Done | Pending:
    """Send a message, and report what changed. Polls the lists for `wait_seconds`, since reads cost no credits.

    A build in manual mode is not waited for: it makes nothing before its plan is approved, and no list shows the plan.
    """
    (kind, *_), name = _built_by(call)
    before = await _take_inventory(context.look, kind)  # again in each call while a person decides
    sent = context.system.now() - _SKEW
    outcome = await context.change(call)
    if not isinstance(outcome, Done):
        return outcome
    reply = normalize_reply(row_of(outcome.result), call.session_id)
    created = None
    waited = 0.0
    plans = isinstance(call, AiBuild) and call.approval_mode == "manual"
    try:
        if not (plans or _has_ended(reply) or waits_for_person(reply)):
            waited = await _wait(call, before, sent, context)
        context.look.snapshot.forget(call.toolset())  # what others have read meanwhile
        changed = _changed(before, await _take_inventory(context.look, kind), sent) | {"looked_at": _LOOKED_AT}
        created = next((row for row in cast("list[Row | str]", changed["created"]) if isinstance(row, dict)), None)
    except Exception as error:  # the request was sent, and no later error may hide that
        why = error.what if isinstance(error, FastnError) else type(error).__name__
        changed: dict[str, JsonValue] = {"not_checked": [f"It was sent, but its changes could not be read: {why}"]}
    step = next_step(reply, created, "" if plans else kind, name)
    if step is None and isinstance(call, AiBuild) and not _has_ended(reply):
        step = ask_status(reply) if plans else follow(kind, name)
    observed: dict[str, JsonValue] = {"waited_seconds": round(waited, 1)} if call.wait_seconds else {}
    return Done(_with_next(reply, observed, step), outcome.change, {"changed": changed})


async def _wait(call: AiBuild | AiChat, before: Inventory, sent: datetime, context: ProcedureContext) -> float:
    """Wait until something was created, or `wait_seconds` are over. Returns the seconds waited.

    It is looked for after each pause but the last, after which everything is read.
    """
    kinds, name = _built_by(call)
    began = context.system.monotonic()
    waited = 0.0
    pause = _FIRST_PAUSE
    while waited < call.wait_seconds:
        await context.report(f"building for {waited:.0f} s", waited, float(call.wait_seconds))
        await context.system.sleep(min(pause, call.wait_seconds - waited))
        waited = context.system.monotonic() - began
        pause = min(pause * _GROWTH, _MAX_PAUSE)
        for kind in kinds if waited < call.wait_seconds else ():
            with suppress(FastnError):  # the final inventory reports what could not be read
                page = await read_page(_LIST_CALLS[kind](limit=100, search=name or None), context.read)
                if any(_is_new(kind, row, before, sent) for row in page.rows):
                    return waited
    return waited


def _has_ended(reply: dict[str, JsonValue]) -> bool:
    return bool(reply.get("resourceId")) or is_over(reply)


def _with_next(reply: dict[str, JsonValue], observed: dict[str, JsonValue], step: JsonValue) -> AiReply:
    """Put our fields first, as a long answer is cut at its end."""
    ours = ("session_id", "status", "plan", "pending_approvals", "questions")
    first = {name: reply[name] for name in ours if name in reply} | observed
    if step is not None:
        first["next"] = step
    return AiReply.model_validate(first | {k: v for k, v in reply.items() if k not in first and k != "next"})
