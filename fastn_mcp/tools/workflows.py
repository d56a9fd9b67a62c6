"""Tools for workflows, the automations that Fastn runs, and for executions, their runs."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator
from typing_extensions import override

from fastn_mcp.records.rows import FastnObject, Row, row_of
from fastn_mcp.records.states import State, run_state, workflow_state
from fastn_mcp.redaction import texts_in
from fastn_mcp.tools.bounds import TextBound
from fastn_mcp.tools.fields import (
    ConnectorId,
    CustomerFilter,
    CustomerId,
    Description,
    ExecutionId,
    Extra,
    JsonObject,
    Name,
    Search,
    Since,
    Until,
    WaitSeconds,
    WorkflowId,
    one_of,
)
from fastn_mcp.tools.operation import (
    DELETE,
    DOCUMENTED,
    GET,
    NOT_AN_ID,
    POST,
    PUT,
    Create,
    Operation,
    RefusedValue,
    Request,
    Route,
    Update,
)
from fastn_mcp.tools.paging import APPLIED_HERE, List, Match
from fastn_mcp.tools.tool import Effect

Code = Annotated[
    str | None, Field(description="JavaScript, not TypeScript: export default async function(ctx)."), TextBound(200_000)
]
Tier = Annotated[str | None, Field(description="INSTANT (default), STANDARD or LONG.")]
Timeout = Annotated[
    int | None, Field(description="Milliseconds from 1: INSTANT to 30 s, STANDARD 15 min, LONG 36 h.", ge=1)
]


_HEADER = re.compile(r"[\x21-\x7e]{1,256}")


def _header_value(value: str | None) -> str | None:
    # A validator, as a pattern in the schema would cost tokens in every conversation.
    if value is not None and _HEADER.fullmatch(value) is None:
        raise ValueError("1 to 256 visible ASCII characters, without a blank")
    return value


Header = AfterValidator(_header_value)


class Workflow(FastnObject):
    columns = ("id", "name", "status", "executionTier", "publishedVersion", "updatedAt")

    id: JsonValue = None
    name: JsonValue = None
    status: JsonValue = None


class Run(FastnObject):
    """A started run, or a finished one if the workflow is INSTANT."""


def _uses(row: Row, wanted: str) -> bool | None:
    """Match a connector by any text of the manifest, which has slugs."""
    connectors = row.get("connectors")
    if not wanted:
        return None if connectors is None else not connectors
    return None if connectors is None else wanted.casefold() in map(str.casefold, texts_in(connectors))


class ListWorkflows(List[Workflow]):
    """List workflows (flows), including drafts."""

    route = GET("/api/v1/workflows")
    evidence = DOCUMENTED("workflows")
    matching: ClassVar[Mapping[str, Match]] = {"connector_id": _uses}

    search: Search = None
    status: Annotated[str | None, *one_of("active", "inactive", "draft")] = None
    # Sent by its slug, which is what a workflow's manifest has.
    connector_id: Annotated[ConnectorId | None, Field(serialization_alias="connector")] = None


class GetWorkflow(Operation[Workflow]):
    """Get a workflow: code, input that it reads, connectors."""

    route = GET("/api/v1/workflows/{workflow_id}")
    effect = Effect.READ
    evidence = DOCUMENTED("workflows")

    workflow_id: WorkflowId


class CreateWorkflow(Create[Workflow]):
    """Create a draft that runs when published by Fastn or in the dashboard. A taken slug may overwrite."""

    route = POST("/api/v1/workflows")
    effect = Effect.WRITE
    evidence = DOCUMENTED("Fastn's own skill and gateway: slug, code, inputSchema; the path is inferred")
    raises_to = (Effect.EXTERNAL,)

    name: Name
    slug: Annotated[str | None, Field(description="Unique, fixed once created.")] = None
    description: Description = None
    code: Code = None
    execution_tier: Tier = None
    timeout_ms: Timeout = None
    extra: Extra = None

    @override
    def effect_on(self, target: FastnObject | None, dependents: int | None) -> Effect:
        # Nothing starts a new workflow; an overwritten one may go live with the new code.
        is_safe = target is None or (self.code is None and _is_off(row_of(target)))
        return self.effective if is_safe else self.effective.raised_to(Effect.EXTERNAL)


class UpdateWorkflow(Update[Workflow]):
    """Rename a workflow or change its named fields. Fastn may or may not publish the new code, within minutes."""

    route = PUT("/api/v1/workflows/{workflow_id}")
    effect = Effect.WRITE
    evidence = DOCUMENTED("Fastn's own skill: code, inputSchema, testInput; the path is inferred")
    raises_to = (Effect.EXTERNAL,)
    clears = frozenset({"executionTier", "timeoutMs"})

    workflow_id: WorkflowId
    name: Name | None = None
    description: Description = None
    code: Code = None
    execution_tier: Tier = None
    timeout_ms: Timeout = None
    status: Annotated[str | None, *one_of("active", "inactive")] = None
    extra: Extra = None

    @property
    @override
    def effective(self) -> Effect:
        # Fastn may publish new code by itself, even of a draft.
        is_switched_off = workflow_state({"status": self.status}) is State.OFF  # a draft is no documented value here
        stays_off = self.code is None and (self.status is None or is_switched_off)
        return super().effective if stays_off else super().effective.raised_to(Effect.EXTERNAL)

    @override
    def effect_on(self, target: FastnObject | None, dependents: int | None) -> Effect:
        return self.effective if _is_off(row_of(target)) else self.effective.raised_to(Effect.EXTERNAL)


class DeleteWorkflow(Operation[FastnObject]):
    """Move a workflow to Trash, where only the dashboard can restore it. Its triggers stop firing."""

    route = DELETE("/api/v1/workflows/{workflow_id}")
    effect = Effect.TRASH
    evidence = DOCUMENTED("workflows, trash")

    workflow_id: WorkflowId


class RunWorkflow(Operation[Run]):
    """Start a published workflow (sync, import) now: real effects, even with a test key. Then wait_for_execution."""

    route = POST("/api/v1/workflows/{workflow_id}/run")
    effect = Effect.EXTERNAL
    evidence = DOCUMENTED("workflows, run; third parties: x-installation-id, x-end-org-ref; the path is execute there")

    workflow_id: WorkflowId
    input: Annotated[JsonObject | None, Field(description="ctx.input of the run.")] = None
    customer_id: CustomerId | None = None
    customer_ref: Annotated[str | None, Field(description="Or your reference."), Header] = None
    installation_id: Annotated[str | None, Field(description="inst_… if a widget installed it."), Header] = None
    environment: Annotated[
        str | None,
        Field(description="test (latest published), live or a name; default the server's, else Fastn's."),
        Header,
    ] = None
    idempotency_key: Annotated[str | None, Field(description="The same key runs once."), Header] = None
    wait_seconds: WaitSeconds = 0

    @model_validator(mode="after")
    def _names_one_customer(self) -> Self:
        # Which of the two wins is not documented, and policy rules use the id.
        if self.customer_id is not None and self.customer_ref is not None:
            raise ValueError("customer_id and customer_ref name the same customer: give one of them")
        return self

    @property
    @override
    def unresolved(self) -> frozenset[str]:
        derived = self.customer_ref is not None or (self.installation_id is not None and self.customer_id is None)
        return frozenset({"customer_id"} if derived else ())

    def request(self, route: Route | None = None) -> Request:
        request = super().request(route)
        body: dict[str, JsonValue] = dict(request.body or {})
        if self.customer_id is not None and _HEADER.fullmatch(self.customer_id) is None:
            raise RefusedValue("customer_id", NOT_AN_ID)
        headers = {header: str(body.pop(wire)) for wire, header in RUN_HEADERS.items() if wire in body}
        return replace(request, body={"input": body.get("input") or {}}, headers=headers)

    @override
    def read(self, body: JsonValue, headers: Mapping[str, str]) -> JsonValue:
        """Return the run. An INSTANT workflow may answer with its output only, and the run's id in a header."""
        execution = headers.get("x-execution-id")
        if not execution or (isinstance(body, dict) and "executionId" in body):
            return body
        return {"executionId": execution, "status": headers.get("x-execution-status", "completed"), "output": body}

    @classmethod
    def received(cls, request: Request, route: Route | None = None) -> "RunWorkflow | None":
        named = {wire: request.headers[h.lower()] for wire, h in RUN_HEADERS.items() if h.lower() in request.headers}
        body: dict[str, JsonValue] = {**(request.body or {}), **named}
        return super().received(Request(request.method, request.path, request.query, body), route)


_VERSIONS = "test runs the latest published version; others run the deployed one"
UNNAMED_ENVIRONMENT = f"chosen by Fastn, since none is given ({_VERSIONS})"
"""Environment of a run that names none: not documented."""
NO_ENVIRONMENT = f"No environment is given, so Fastn chooses it ({_VERSIONS})."
"""The same as a sentence."""

RUN_HEADERS = {
    "customerId": "x-end-org-id",
    "customerRef": "x-end-org-ref",
    "installationId": "x-installation-id",
    "environment": "x-fastn-env",
    "idempotencyKey": "Idempotency-Key",
}


def _is_off(workflow: Row) -> bool:
    """Return whether a workflow certainly does not run. An unknown state may run."""
    return workflow_state(workflow).is_broken


ELAPSED_COLUMN = "elapsed"
"""Column of ours: how long a run that has not ended has been under way."""


STARTED_COLUMN = "startedBy"
"""Column of ours: who or what started a run, which `triggeredBy` does not tell of a manual one."""


class Execution(FastnObject):
    columns = (
        *("id", "status", "workflowId", "workflowName", "endOrgId", "createdAt", "durationMs", "triggeredBy"),
        *(STARTED_COLUMN, "error", "errorCategory", "fixSuggestion", ELAPSED_COLUMN),
    )
    added_columns = (STARTED_COLUMN, ELAPSED_COLUMN)

    id: JsonValue = None
    status: JsonValue = None


class ListExecutions(List[Execution]):
    """List failed, hanging or all runs, newest first. Many: filter."""

    route = GET("/api/v1/executions")
    evidence = DOCUMENTED("observed by third parties: limit, offset, workflowId, endOrgId")
    matching: ClassVar[Mapping[str, Match]] = {"under_way_minutes": lambda row, _: not run_state(row).has_ended}

    workflow_id: WorkflowId | None = None
    customer_id: Annotated[CustomerFilter | None, Field(serialization_alias="endOrgId")] = None
    status: Annotated[
        str | None, *one_of("pending", "queued", "running", "completed", "failed", "timeout", "cancelled")
    ] = None
    started_by: Annotated[
        str | None, *one_of("webhook", "scheduler", "manual", "agent-service"), Field(serialization_alias="triggeredBy")
    ] = None
    under_way_minutes: Annotated[int | None, Field(description="At least 1; longest first.", ge=1), APPLIED_HERE] = None
    since: Since = None
    until: Until = None


class GetExecution(Operation[Execution]):
    """Get a run's input, output, error, cause and fix."""

    route = GET("/api/v1/executions/{execution_id}")
    effect = Effect.READ
    evidence = DOCUMENTED(
        "executions: summary, error detail; third parties: errorCategory, fixSuggestion; the path is inferred"
    )

    execution_id: ExecutionId
