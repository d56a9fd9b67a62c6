"""Fastn's AI agents, as far as a fake can be one: sessions, questions, approval cards, builds that take their time.

In `manual` mode the agent asks by a card before it changes anything, and a build once it has a plan; an answer that
begins with "approve" or "reject" decides. In `auto` mode nobody is asked. Looking ("status?") brings a build on, and so
does time.
"""

import re
from datetime import datetime

from fastn_mcp.sandbox.auth import OWNERS_ONLY
from fastn_mcp.sandbox.behaviour import SandboxRefusal, invalid, not_found
from fastn_mcp.sandbox.connectors import CONNECTORS, new_connector
from fastn_mcp.sandbox.resource import One, RouteContext, endpoint
from fastn_mcp.sandbox.state import Row, moment, slug_of
from fastn_mcp.sandbox.workflows import WORKFLOWS, new_workflow, trash
from fastn_mcp.tools.ai import AiBuild, AiChat

PHASES = ("Use cases", "Connectors", "Workflows", "Embed")
_STATES = ("PLANNING", "PLANNED", "GENERATING", "GENERATED", "DEPLOYED")
_PLANNED = _STATES.index("PLANNED")
_SECONDS_A_PHASE = 15
_WORKFLOW_ID = re.compile(r"wf_[0-9a-f]{12}")
_CREATES = re.compile(r"\b(create|make|add)\b")
_DELETES = re.compile(r"\b(delete|remove|trash)\b")


@endpoint(AiChat, OWNERS_ONLY)
def chat(context: RouteContext, call: AiChat) -> One:
    mode = _mode(call.approval_mode)
    session = _session(context, call.session_id, call.message)
    _charge(context, "Orchestrator")
    context.audit("ai.chat", "session", session["id"])
    words = call.message.casefold()
    cards = session["pendingApprovals"]
    if cards and words.startswith(("approve", "accept", "yes")):
        calls = [_do(context, card) for card in cards]
        planned = context.state.get("_builds", session["buildId"])
        if planned is not None and planned["resourceId"] is None:
            return _progress(
                context, context.state.put("_sessions", {**session, "pendingApprovals": []}), planned, calls
            )
        return _say(context, session, "Done.", calls=calls)
    if cards and words.startswith(("reject", "no")):
        return _say(context, session, "Then I leave it as it is. What should I do instead?")
    building = context.state.get("_builds", session["buildId"])
    if building is not None and (building["resourceId"] is None or "status" in words):
        return _progress(context, session, building)
    if cards:
        return _say(context, session, "I wait for your approval.", cards=cards)
    wanted = _change(context, call.message)
    if wanted is not None and mode == "manual":
        return _say(context, session, "I need your approval for this.", cards=[wanted])
    if wanted is not None:
        return _say(context, session, "Done.", calls=[_do(context, wanted)])
    if len(words.split()) < 2:
        question = {"id": "which", "text": "What is it about?", "options": ["Customers", "Workflows", "Failures"]}
        return _say(context, session, "I am not sure what you mean.", questions=[question])
    return _say(context, session, _summary(context))


@endpoint(AiBuild, OWNERS_ONLY)
def build(context: RouteContext, call: AiBuild) -> One:
    mode = _mode(call.approval_mode)
    kind = call.type.casefold()
    if kind not in ("connector", "workflow"):
        raise invalid("type", "connector or workflow")
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


def _progress(context: RouteContext, session: Row, row: Row, calls: list[Row] | None = None) -> One:
    """Somebody asks how the build is going, or agrees to its plan, which brings it on."""
    row["polls"] = row["polls"] + 1
    context.state.put("_builds", row)
    step = _step(row, context.now)
    if step >= _PLANNED and not row["approved"]:
        asked = session["pendingApprovals"]
        fresh = _card(context, f"create{str(row['type']).capitalize()}", {"buildId": row["id"], "name": row["name"]})
        shown = _build_shown(row, _PLANNED, "waiting_for_user")
        return _say(context, session, "The plan is ready. May I make it?", cards=asked or [fresh], more=shown)
    if step < len(PHASES):
        text = f"BUILD PROGRESS {step}/{len(PHASES)}: {PHASES[step]}"
        return _say(context, session, text, calls=calls, more=_build_shown(row, step, "running"))
    if row["resourceId"] is None:
        row["resourceId"] = _made(context, row["type"], row["name"], row["prompt"], row["connectors"])
        context.state.put("_builds", row)
    text = f"BUILD PROGRESS {len(PHASES)}/{len(PHASES)}: the {row['type']} {row['resourceId']} is ready."
    return _say(context, session, text, calls=calls, more=_build_shown(row, len(PHASES), "completed"))


def _step(row: Row, now: datetime) -> int:
    seconds = (now - moment(row["begun"])).total_seconds()
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


def _say(
    context: RouteContext,
    session: Row,
    text: str,
    *,
    cards: list[Row] | None = None,
    calls: list[Row] | None = None,
    questions: list[Row] | None = None,
    more: Row | None = None,
) -> One:
    waiting = cards or []
    context.state.put("_sessions", {**session, "turns": session["turns"] + 1, "pendingApprovals": waiting})
    reply: Row = {
        "sessionId": session["id"],
        "messageId": context.state.short_id("msg"),
        "message": text,
        "status": "waiting_for_user" if waiting or questions else "completed",
        "questions": questions or [],
        "pendingApprovals": waiting,
        "toolCalls": calls or [],
        "creditsUsed": 1,
    }
    return One(reply | (more or {}))


def _session(context: RouteContext, key: str | None, title: str) -> Row:
    if key is not None:
        known = context.state.get("_sessions", key)
        if known is None:
            raise not_found()
        return known
    fresh: Row = {
        "id": context.state.short_id("ses"),
        "title": title[:80],
        "turns": 0,
        "pendingApprovals": [],
        "buildId": None,
    }
    return context.state.put("_sessions", fresh)


def _charge(context: RouteContext, agent: str) -> None:
    account = context.state.rows["billing"]["billing"]
    credits_, by_agent = account["credits"], account["byAgent"]
    used: int = credits_["used"]
    if used >= credits_["included"]:
        raise SandboxRefusal(429, "QUOTA_EXCEEDED", "The AI credits of this month are used up")
    spent = {**by_agent, agent: by_agent.get(agent, 0) + 1}
    context.state.put("billing", {**account, "credits": {**credits_, "used": used + 1}, "byAgent": spent})


def _mode(text: str) -> str:
    if text.casefold() not in ("auto", "manual"):
        raise invalid("approvalMode", "auto or manual")
    return text.casefold()


def _change(context: RouteContext, message: str) -> Row | None:
    """What the message would have the agent change."""
    found = _WORKFLOW_ID.search(message)
    if found and _DELETES.search(message.casefold()) and context.state.get("workflows", found[0]) is not None:
        return _card(context, "deleteWorkflow", {"workflowId": found[0]})
    if _CREATES.search(message.casefold()):
        return _card(context, "createWorkflow", {"name": message[:60].strip(), "description": message})
    return None


def _card(context: RouteContext, tool: str, arguments: Row) -> Row:
    return {"id": context.state.short_id("apr"), "title": f"{tool}?", "tool": tool, "arguments": arguments}


def _do(context: RouteContext, card: Row) -> Row:
    """Do what a card says."""
    arguments = card["arguments"]
    if (row := context.state.get("_builds", arguments.get("buildId"))) is not None:
        # What was planned is nearly made by then: the next look finds it.
        context.state.put("_builds", {**row, "approved": True, "polls": max(row["polls"], len(PHASES) - 2)})
    elif card["tool"] == "deleteWorkflow":
        workflow = context.state.get("workflows", arguments["workflowId"])
        if workflow is not None:
            trash(context, workflow, actor="agent")
    else:
        _made(context, "workflow", arguments["name"], arguments["description"], [])
    return {"tool": card["tool"], "arguments": arguments, "status": "completed"}


def _made(context: RouteContext, kind: str, name: str, prompt: str, connectors: list[str]) -> str:
    """Make a draft workflow or a private connector; one of this name that is there already stays as it is."""
    slug = slug_of(name) or context.state.short_id("built")
    if kind == "connector":
        there = context.state.first("connectors", "slug", slug)
        return str(
            (there or CONNECTORS.make(context, new_connector(context.state, name, slug, prompt), by="agent"))["id"]
        )
    there = context.state.first("workflows", "slug", slug)
    if there is not None:
        return there["id"]
    row = new_workflow(context.state, name, slug, prompt)
    row |= {
        "code": f"// {prompt}\nexport default async function (ctx) {{\n  return {{ ok: true }};\n}}\n",
        "connectors": [{"slug": app, "scope": "MULTI_TENANT"} for app in connectors],
    }
    return str(WORKFLOWS.make(context, row, by="agent")["id"])


def _summary(context: RouteContext) -> str:
    state = context.state
    failed = [row for row in state.all("executions") if row["status"] == "failed"]
    return (
        f"You have {len(state.all('customers'))} customers and {len(state.all('workflows'))} workflows. "
        f"{len(failed) + len(context.history.numbers(status='failed'))} of the runs that I know of failed."
    )
