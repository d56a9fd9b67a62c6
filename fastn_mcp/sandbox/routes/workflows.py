"""Workflows. New ones are drafts, deleted ones lie in Trash, and nothing here can publish."""

from fastn_mcp.sandbox.dataset.workflows import TIMEOUTS
from fastn_mcp.sandbox.desk import Desk
from fastn_mcp.sandbox.reply import One, Outcome, Refusal, invalid
from fastn_mcp.sandbox.routes.fields import FLAG, NUMBER, OBJECT, OBJECTS, TEXT, TEXTS
from fastn_mcp.sandbox.routes.resource import Resource
from fastn_mcp.sandbox.routes.stopping import stop_triggers_of
from fastn_mcp.sandbox.slugs import slug_of
from fastn_mcp.sandbox.state import Row, State
from fastn_mcp.tools.workflows import CreateWorkflow, DeleteWorkflow, GetWorkflow, UpdateWorkflow

WORKFLOWS = Resource(
    "workflows",
    "workflow",
    settable={
        "name": TEXT,
        "description": TEXT,
        "code": TEXT,
        "executionTier": TEXT,
        "timeoutMs": NUMBER,
        "status": TEXT,
        "retryPolicy": OBJECT,
        "escalateOnTimeout": FLAG,
        "inputSchema": OBJECT,
        "outputSchema": OBJECT,
        "testInput": OBJECT,
        "connectors": OBJECTS,
        "labels": TEXTS,
    },
    fixed={"slug": TEXT},
    unique=("name", "slug"),
    long=frozenset({"code", "inputSchema", "outputSchema", "testInput"}),
)


def get(desk: Desk, call: GetWorkflow) -> Outcome:
    return One(WORKFLOWS.find(desk, call.workflow_id))


def create(desk: Desk, call: CreateWorkflow) -> Outcome:
    WORKFLOWS.check(desk.body)
    slug = call.slug or slug_of(call.name)
    if not slug:
        raise invalid("slug", "cannot be made from the name; give one")
    tier = _tier(call.execution_tier or "INSTANT")
    if desk.body.get("status") not in (None, "draft"):
        raise invalid("status", "a new workflow is a draft until it is published")
    row = new_workflow(desk.state, call.name, slug, call.description)
    row |= {name: value for name, value in desk.body.items() if name in WORKFLOWS.settable and value is not None}
    row |= {"executionTier": tier, "timeoutMs": call.timeout_ms or TIMEOUTS[tier]}
    return One(WORKFLOWS.make(desk, row), 201)


def update(desk: Desk, call: UpdateWorkflow) -> Outcome:
    row = WORKFLOWS.find(desk, call.workflow_id)
    changed = WORKFLOWS.replaced(desk, row, row)
    if call.execution_tier is not None:
        _tier(call.execution_tier)
    status = None if call.status is None else call.status.casefold()
    if status not in (None, "active", "inactive", "draft"):
        raise invalid("status", "active or inactive")
    if status == "active" and row["publishedVersion"] is None:
        raise not_published()
    return One(WORKFLOWS.keep(desk, changed))


def delete(desk: Desk, call: DeleteWorkflow) -> Outcome:
    return trash(desk, WORKFLOWS.find(desk, call.workflow_id))


def trash(desk: Desk, row: Row, actor: str | None = None) -> One:
    """To where only the dashboard can bring it back from."""
    desk.state.put("_trash", {**row, "id": f"workflow {row['id']}"})
    gone = WORKFLOWS.remove(desk, row, "trash", actor)
    stop_triggers_of(desk, row)
    return gone


def new_workflow(state: State, name: str, slug: str, description: str | None) -> Row:
    """A draft with nothing in it yet."""
    return {
        "id": state.short_id("wf"),
        "name": name,
        "slug": slug,
        "description": description,
        "code": None,
        "executionTier": "INSTANT",
        "timeoutMs": TIMEOUTS["INSTANT"],
        "status": "draft",
        "publishedVersion": None,
        "retryPolicy": None,
        "inputSchema": None,
        "connectors": [],
        "labels": [],
    }


def not_published() -> Refusal:
    return Refusal(409, "WORKFLOW_NOT_PUBLISHED", "The workflow has no published version")


def _tier(tier: str) -> str:
    if tier.upper() not in TIMEOUTS:
        raise invalid("executionTier", f"one of {', '.join(TIMEOUTS)}")
    return tier.upper()
