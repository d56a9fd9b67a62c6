"""Simulated AI agents of Fastn: sessions, questions, approval cards, and builds that take time.

In `manual` mode the agent sends an approval card before each change, and a build sends one with its plan. A message
that begins with "approve" or "reject" answers it. In `auto` mode there are no cards. A build proceeds with time, with
each poll ("status?"), and once it is approved with each list of its kind.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fastn_mcp.extensions.sandbox.auth import OWNERS_ONLY
from fastn_mcp.extensions.sandbox.connectors import CONNECTORS, new_connector
from fastn_mcp.extensions.sandbox.replies import SandboxRefusal, choice, invalid, not_found
from fastn_mcp.extensions.sandbox.resource import One, RouteContext, endpoint
from fastn_mcp.extensions.sandbox.state import Row, parse_stamp, slug_of
from fastn_mcp.extensions.sandbox.workflows import WORKFLOWS, new_workflow, trash
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.workflows import ListExecutions

PHASES = ("Use cases", "Connectors", "Workflows", "Embed")
_STATES = ("PLANNING", "PLANNED", "GENERATING", "GENERATED", "DEPLOYED")
_MODES = ("auto", "manual")
_PLANNED = _STATES.index("PLANNED")
_SECONDS_A_PHASE = 15
_WAITING_STATE = "waiting_for_user"
_WORKFLOW_ID = re.compile(r"wf_[0-9a-f]{12}")
_CREATES = re.compile(r"\b(create|make|add)\b")
_DELETES = re.compile(r"\b(delete|remove|trash)\b")


@endpoint(AiChat, OWNERS_ONLY)
def chat(context: RouteContext, call: AiChat) -> One:
    mode = choice("approvalMode", call.approval_mode, _MODES)
    session = _session(context, call.session_id, call.message)
    _charge(context, "Orchestrator")
    context.audit("ai.chat", "session", session["id"])
    words = call.message.casefold()
    cards: list[Row] = session["pendingApprovals"]
    calls: list[Row] = []
    if cards and words.startswith(("approve", "accept", "yes")):
        calls = [_execute(context, card) for card in cards]
        session = context.state.put("_sessions", {**session, "pendingApprovals": []})
        cards = []
    elif cards and words.startswith(("reject", "no")):
        return _reply(context, session, "Then I leave it as it is. What should I do instead?")
    building = context.state.get("_builds", session["buildId"])
    if building is not None and (building["resourceId"] is None or ("status" in words and not calls)):
        return _progress(context, session, building, calls)
    if cards:
        return _reply(context, session, "I wait for your approval.", cards)
    card = None if calls else _change(context, call.message)
    if card is not None and mode == "manual":
        return _reply(context, session, "I need your approval for this.", [card])
    if card is not None:
        calls = [_execute(context, card)]
    if calls:
        return _reply(context, session, "Done.", toolCalls=calls)
    if len(words.split()) < 2:
        question = {"id": "which", "text": "What is it about?", "options": ["Customers", "Workflows", "Failures"]}
        return _reply(context, session, "I am not sure what you mean.", status=_WAITING_STATE, questions=[question])
    return _reply(context, session, _summary(context))


@endpoint(AiBuild, OWNERS_ONLY)
def build(context: RouteContext, call: AiBuild) -> One:
    mode = choice("approvalMode", call.approval_mode, _MODES)
    kind = choice("type", call.type, ("connector", "workflow"))
    for slug in call.connectors or []:
        if context.state.first("connectors", "slug", slug) is None:
            raise invalid("connectors", f"there is no connector {slug}")
    session = _session(context, call.session_id, call.prompt)
    _charge(context, "Workflow Builder" if kind == "workflow" else "Connector Builder")
    row: Row = {
        "id": context.state.short_id("build"),
        "sessionId": session["id"],
        "type": kind,
        "name": call.name or call.prompt[:60].strip(),
        "prompt": call.prompt,
        "connectors": call.connectors or [],
        "approvalMode": mode,
        "polls": 0,
        "begun": context.time,
        "approved": mode == "auto",
        "resourceId": None,
    }
    context.state.put("_builds", row)
    context.state.put("_sessions", {**session, "buildId": row["id"]})
    context.audit("ai.build", "build", row["id"])
    return One(_build_shown(row, 0, "running"), 202)


def _progress(context: RouteContext, session: Row, row: Row, calls: list[Row]) -> One:
    """Advance a build after a poll, or after its plan was approved, and report its progress."""
    row["polls"] = row["polls"] + 1
    context.state.put("_builds", row)
    step = _step(row, context.now)
    if step >= _PLANNED and not row["approved"]:
        pending = session["pendingApprovals"]
        fresh = _card(context, f"create{str(row['type']).capitalize()}", {"buildId": row["id"], "name": row["name"]})
        reply = _build_shown(row, _PLANNED, _WAITING_STATE) | {"plan": _plan(row)}
        return _reply(context, session, "The plan is ready. May I make it?", pending or [fresh], **reply)
    status = "running" if step < len(PHASES) else "completed"
    row = row if status == "running" else _finished(context, row)
    news = PHASES[step] if status == "running" else f"the {row['type']} {row['resourceId']} is ready."
    text = f"BUILD PROGRESS {step}/{len(PHASES)}: {news}"
    return _reply(context, session, text, toolCalls=calls, **_build_shown(row, step, status))


def look(context: RouteContext, kind: str) -> None:
    """Advance the approved builds of a kind, whose list is read."""
    for row in context.state.all("_builds"):
        if row["type"] == kind and row["approved"] and row["resourceId"] is None:
            row = context.state.put("_builds", {**row, "polls": row["polls"] + 1})
            if _step(row, context.now) >= len(PHASES):
                _finished(context, row)


def _finished(context: RouteContext, row: Row) -> Row:
    if row["resourceId"] is None:
        created = _create(context, row["type"], row["name"], prompt=row["prompt"], connectors=row["connectors"])
        row = context.state.put("_builds", {**row, "resourceId": created})
    return row


def _plan(row: Row) -> str:
    """Return the plan of a build, in Markdown as Fastn's agent writes it."""
    steps = [f"Read from {app} and pass on what changed." for app in row["connectors"][:-1]]
    steps += [f"Write to {row['connectors'][-1]}."] if row["connectors"] else ["Run the code described in the prompt."]
    what = f"the workflow `{slug_of(row['name'])}` as a draft" if row["type"] == "workflow" else "a private connector"
    return "\n".join([f"## {row['name']}", f"Creates {what}. {row['prompt']}", *(f"- {step}" for step in steps)])


def _step(row: Row, now: datetime) -> int:
    seconds = (now - parse_stamp(row["begun"])).total_seconds()
    return min(max(row["polls"], int(seconds // _SECONDS_A_PHASE)), len(PHASES))


def _build_shown(row: Row, step: int, status: str) -> Row:
    return {
        "buildId": row["id"],
        "sessionId": row["sessionId"],
        "status": status,
        "buildStatus": _STATES[step],
        "phase": PHASES[min(step, len(PHASES) - 1)],
        "progress": {"step": step, "total": len(PHASES)},
        "resourceId": row["resourceId"],
    }


def _reply(context: RouteContext, session: Row, text: str, cards: Sequence[Row] = (), **more: Any) -> One:
    """Return a message that waits for an answer to each of the cards."""
    context.state.put("_sessions", {**session, "turns": session["turns"] + 1, "pendingApprovals": [*cards]})
    reply: Row = {
        "sessionId": session["id"],
        "messageId": context.state.short_id("msg"),
        "message": text,
        "status": _WAITING_STATE if cards else "completed",
        "questions": [],
        "pendingApprovals": [*cards],
        "toolCalls": [],
        "creditsUsed": 1,
    }
    return One(reply | more)


def _session(context: RouteContext, key: str | None, title: str) -> Row:
    if key is not None:
        session = context.state.get("_sessions", key)
        if session is None:
            raise not_found()
        return session
    fresh: Row = {"id": context.state.short_id("ses"), "title": title[:80], "turns": 0, "buildId": None}
    return context.state.put("_sessions", fresh | {"pendingApprovals": []})


def _charge(context: RouteContext, agent: str) -> None:
    account = context.state.rows["billing"]["billing"]
    credits_ = account["credits"]
    by_agent = account["byAgent"]
    used: int = credits_["used"]
    if used >= credits_["included"]:
        raise SandboxRefusal(429, "QUOTA_EXCEEDED", "The AI credits of this month are used up")
    spent = {**by_agent, agent: by_agent.get(agent, 0) + 1}
    context.state.put("billing", {**account, "credits": {**credits_, "used": used + 1}, "byAgent": spent})


def _change(context: RouteContext, message: str) -> Row | None:
    """Return a card for the change that the message asks for, if any."""
    match = _WORKFLOW_ID.search(message)
    if match and _DELETES.search(message.casefold()) and context.state.get("workflows", match[0]) is not None:
        return _card(context, "deleteWorkflow", {"workflowId": match[0]})
    if _CREATES.search(message.casefold()):
        return _card(context, "createWorkflow", {"name": message[:60].strip(), "description": message})
    return None


def _card(context: RouteContext, tool: str, arguments: Row) -> Row:
    return {"id": context.state.short_id("apr"), "title": f"{tool}?", "tool": tool, "arguments": arguments}


def _execute(context: RouteContext, card: Row) -> Row:
    arguments = card["arguments"]
    row = context.state.get("_builds", arguments.get("buildId"))
    if row is not None:
        # An approved build is nearly finished: the next poll completes it.
        context.state.put("_builds", {**row, "approved": True, "polls": max(row["polls"], len(PHASES) - 2)})
    elif card["tool"] == "deleteWorkflow":
        workflow = context.state.get("workflows", arguments["workflowId"])
        if workflow is not None:
            trash(context, workflow, actor="agent")
    else:
        _create(context, "workflow", arguments["name"], prompt=arguments["description"], connectors=[])
    return {"tool": card["tool"], "arguments": arguments, "status": "completed"}


def _create(context: RouteContext, kind: str, name: str, prompt: str, connectors: list[str]) -> str:
    """Create a draft workflow or a private connector, unless there is one of this name. Returns its id."""
    slug = slug_of(name) or context.state.short_id("built")
    existing = context.state.first(f"{kind}s", "slug", slug)
    if existing is not None:
        return existing["id"]
    if kind == "connector":
        return CONNECTORS.create(context, new_connector(context.state, name, slug, prompt), by="agent")["id"]
    row = new_workflow(context.state, name, slug, prompt)
    row |= {
        "code": f"// {prompt}\nexport default async function (ctx) {{\n  return {{ ok: true }};\n}}\n",
        "connectors": [{"slug": app, "scope": "MULTI_TENANT"} for app in connectors],
    }
    return WORKFLOWS.create(context, row, by="agent")["id"]


def _summary(context: RouteContext) -> str:
    state = context.state
    return (
        f"You have {len(state.all('customers'))} customers and {len(state.all('workflows'))} workflows. "
        f"{len(context.runs(ListExecutions(status='failed')))} of the runs that I know of failed."
    )
