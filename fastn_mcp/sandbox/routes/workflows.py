"""Routes of workflows and executions."""

from fastn_mcp.sandbox import runs
from fastn_mcp.sandbox.dataset.workflows import TIMEOUTS
from fastn_mcp.sandbox.paging import Merged, instant, matching, newest_first
from fastn_mcp.sandbox.reply import Many, One, Outcome, SandboxRefusal, conflict, forbidden, invalid
from fastn_mcp.sandbox.request_context import RouteContext
from fastn_mcp.sandbox.routes.resource import FLAG, NUMBER, OBJECT, OBJECTS, TEXT, TEXTS, Resource, stop_triggers_of
from fastn_mcp.sandbox.state import Row, SandboxState, slug_of
from fastn_mcp.tools.workflows import (
    CreateWorkflow,
    DeleteWorkflow,
    GetExecution,
    GetWorkflow,
    ListExecutions,
    RunWorkflow,
    UpdateWorkflow,
)

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


def get_workflow(desk: RouteContext, call: GetWorkflow) -> Outcome:
    return One(WORKFLOWS.find(desk, call.workflow_id))


def create(desk: RouteContext, call: CreateWorkflow) -> Outcome:
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


def update(desk: RouteContext, call: UpdateWorkflow) -> Outcome:
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


def delete(desk: RouteContext, call: DeleteWorkflow) -> Outcome:
    return trash(desk, WORKFLOWS.find(desk, call.workflow_id))


def trash(desk: RouteContext, row: Row, actor: str | None = None) -> One:
    """To where only the dashboard can bring it back from."""
    desk.state.put("_trash", {**row, "id": f"workflow {row['id']}"})
    gone = WORKFLOWS.remove(desk, row, "trash", actor)
    stop_triggers_of(desk, row)
    return gone


def new_workflow(state: SandboxState, name: str, slug: str, description: str | None) -> Row:
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


def not_published() -> SandboxRefusal:
    return SandboxRefusal(409, "WORKFLOW_NOT_PUBLISHED", "The workflow has no published version")


def _tier(tier: str) -> str:
    if tier.upper() not in TIMEOUTS:
        raise invalid("executionTier", f"one of {', '.join(TIMEOUTS)}")
    return tier.upper()


EXECUTIONS = Resource(
    "executions",
    "execution",
    settable={},
    unique=(),
    long=frozenset({"input", "output", "summary"}),
)


def list_all(desk: RouteContext, call: ListExecutions) -> Outcome:
    kept = newest_first(matching(desk.state.all("executions"), call))
    numbers = desk.history.numbers(
        workflow=call.workflow_id,
        customer=call.customer_id,
        status=call.status,
        since=None if call.since is None else instant("since", call.since),
        until=None if call.until is None else instant("until", call.until),
    )
    return Many(Merged(kept, desk.history, numbers, EXECUTIONS.brief))


def get_execution(desk: RouteContext, call: GetExecution) -> Outcome:
    runs.look(desk.state, call.execution_id, desk.now)
    if (number := desk.history.number(call.execution_id)) is not None:
        return One(desk.history.row(number))
    return One(EXECUTIONS.find(desk, call.execution_id))


def run(desk: RouteContext, call: RunWorkflow) -> Outcome:
    workflow = WORKFLOWS.find(desk, call.workflow_id)
    if workflow["publishedVersion"] is None:
        raise not_published()
    customer = _customer(desk, call)
    _check_installation(desk, call, customer)
    asked: Row = {"input": call.input or {}, "customer": customer, "environment": call.environment}
    asked |= {"installation": call.installation_id}
    replay = f"{call.workflow_id} {call.idempotency_key}"
    if call.idempotency_key is not None and (earlier := desk.state.get("_replays", replay)) is not None:
        if earlier["asked"] != asked:
            raise conflict("The Idempotency-Key was used for another run")
        return _answer(desk, str(earlier["executionId"]))
    environment = call.environment or ("test" if desk.key["mode"] == "Test" else "live")
    more: Row = {"input": call.input or {}, "environment": environment}
    row = runs.begin(desk.state, desk.now, workflow, customer, call.installation_id, **more)
    if call.idempotency_key is not None:
        desk.state.put("_replays", {"id": replay, "asked": asked, "executionId": row["id"]})
    desk.audit("workflow.execute", "workflow_executions", row["id"], customer)
    return _answer(desk, str(row["id"]))


def _answer(desk: RouteContext, key: str) -> One:
    """A workflow that throws is a failed execution, no failed request: that, too, is 200."""
    row = desk.state.rows["executions"][key]
    answer: Row = {"executionId": key, "status": row["status"], "workflowId": row["workflowId"]}
    if row["tier"] != "INSTANT":
        return One(answer, 202)
    return One(answer | {"output": row["output"], "error": row["error"], "durationMs": row["durationMs"]})


def _customer(desk: RouteContext, call: RunWorkflow) -> str | None:
    """The id of the customer that a run is for, by its id or by the account's own reference of it."""
    if call.customer_id is None and call.customer_ref is None:
        return None
    if call.customer_ref is None:
        found = desk.state.get("customers", call.customer_id)
        if found is None:
            raise SandboxRefusal(404, "NOT_FOUND", "x-org-id does not match a customer organization of this account")
    else:
        found = desk.state.first("customers", "externalRef", call.customer_ref)
    served = desk.key.get("customers")
    if found is None or (isinstance(served, list) and found["id"] not in served):
        raise forbidden("Requested org is outside your tenant scope")
    if found["status"] != "Active":
        raise conflict(f"The customer is {found['status']}; its integrations do not run")
    return str(found["id"])


def _check_installation(desk: RouteContext, call: RunWorkflow, customer: str | None) -> None:
    if call.installation_id is None:
        return
    installed = desk.state.get("_installations", call.installation_id)
    if installed is None or (installed["workflowId"], installed["endOrgId"]) != (call.workflow_id, customer):
        raise forbidden(f'Installation "{call.installation_id}" does not serve the requesting tenant')
