"""Operations that are more than one request, or whose answers are completed: what `perform` does for each."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import FastnError, NotFound, NotSent
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.ai import build, chat
from fastn_mcp.procedures.api_keys import list_api_keys
from fastn_mcp.procedures.audit_log import entries
from fastn_mcp.procedures.context import Pending, Procedure, ProcedureContext
from fastn_mcp.procedures.list_results import ListAnswer, listed
from fastn_mcp.procedures.lookup import ids_named, names_in
from fastn_mcp.procedures.run_origin import get_execution
from fastn_mcp.procedures.trigger_facts import get_trigger
from fastn_mcp.procedures.wait_for_execution import run_workflow
from fastn_mcp.records.code_input import input_use
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.platform import NO_CUSTOMER, callers_of
from fastn_mcp.records.quotas import quotas_of, unlimited, with_resets
from fastn_mcp.records.rows import (
    FastnObject,
    Row,
    inside,
    key_of,
    objects,
    owner_of,
    row_of,
    started_workflows,
    text,
    value,
)
from fastn_mcp.records.states import State, trigger_state
from fastn_mcp.tools.access import ListApiKeys, QueryAuditLog
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.billing import GetQuotas
from fastn_mcp.tools.connectors import Connector, GetConnector
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import MAY_BE_ID, Effect, Tool
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, GetTrigger, ListTriggers, UpdateTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow, RunWorkflow, Workflow

_SCHEMAS = ("inputSchema", "input_schema", "input", "parameters", "schema")
_MAX_DESCRIPTION = 120
_MAX_WORKFLOWS = 3
"""Maximum number of workflows whose other triggers are read."""


async def get_connector(call: GetConnector, context: ProcedureContext) -> Connector:
    """Read a connector, with each action's JSON Schema as one line per field."""
    row = row_of(await context.read(call))
    actions = objects(row, "actions")
    if actions:
        row["actions"] = [_action(action) for action in actions]
        row["actions_note"] = "input: type of each field, * if it is required."
    return Connector.model_validate(row)


def _action(action: Row) -> JsonValue:
    fields: dict[str, JsonValue] = {
        name: action[name] for name in ("slug", "name", "method") if action.get(name) is not None
    }
    description = text(action, "description")
    if description:
        fields["description"] = description[:_MAX_DESCRIPTION]
    schema = next((inside(action, name) for name in _SCHEMAS if inside(action, name)), None)
    if schema is not None:
        fields["input"] = _fields(schema)
    return fields or {**action}


def _fields(schema: Row) -> JsonValue:
    """Return the type of each field of an object's schema; the schema itself if it has no fields."""
    required = schema.get("required")
    needed = cast("list[JsonValue]", required) if isinstance(required, list) else []
    fields = inside(schema, "properties")
    if not fields:
        return {**schema}
    return {name: _type(field) + ("*" if name in needed else "") for name, field in fields.items()}


def _type(schema: JsonValue) -> str:
    """Return a field's type in words, as `array of string` or `object {id, name}`."""
    if not isinstance(schema, dict):
        return "any"
    kind = text(schema, "type") or "any"
    options = schema.get("enum")
    if options:
        return " | ".join(map(str, cast("list[JsonValue]", options))) if isinstance(options, list) else kind
    if kind == "array" and (items := inside(schema, "items")):
        return f"array of {_type({**items})}"
    fields = inside(schema, "properties")
    if fields:
        return f"{kind} {{{', '.join(fields)}}}"
    return kind


async def get_workflow(call: GetWorkflow, context: ProcedureContext) -> Workflow:
    """Read a workflow, with the fields of `input` that its code reads."""
    row = row_of(await context.read(call))
    use = input_use(value(row, "code"))
    facts: dict[str, JsonValue] = {}
    if use is not None:
        facts["input_fields"] = [*use.fields]
    if use is not None and use.is_whole:
        facts["input_note"] = "The code may read more: it passes the input on whole, or by names made at run time."
    return Workflow.model_validate(facts | row)


async def get_quotas(call: GetQuotas, context: ProcedureContext) -> FastnObject:
    """Read the quotas, with when each resets, what is not limited and what counts."""
    row = row_of(await context.read(call))
    answer = with_resets(row, context.system.now())
    return FastnObject.model_validate(answer | {"what_counts": unlimited(quotas_of(row))})


async def create_trigger(call: CreateTrigger, context: ProcedureContext) -> Done | Pending:
    """Create it. Add to its receipt who may call a webhook, and for whom it runs."""
    outcome = await context.change(call)
    if not isinstance(outcome, Done):
        return outcome
    made = {**call.defaults, **call.arguments(), **row_of(outcome.result)}
    notes: dict[str, JsonValue] = {}
    callers = callers_of(made)
    if callers:
        notes["callers"] = callers
    if not owner_of(made):
        notes["customers"] = NO_CUSTOMER
    return replace(outcome, notes=notes)


async def change_trigger(call: UpdateTrigger | DeleteTrigger, context: ProcedureContext) -> Done | Pending:
    """Make the change. If it stops the trigger, add to its receipt what else starts its workflows.

    Raises a `FastnError`.
    """
    outcome = await context.change(call)
    stops = isinstance(call, DeleteTrigger) or trigger_state({"status": call.status}) is State.OFF
    if not isinstance(outcome, Done) or outcome.change is None:
        return outcome
    if not stops:
        is_secured = isinstance(call, UpdateTrigger) and call.authentication is not None
        callers = callers_of(row_of(outcome.result)) if is_secured else ""
        return replace(outcome, notes={"callers": callers}) if callers else outcome
    others: dict[str, JsonValue] = {}
    for workflow in started_workflows(outcome.change.before or {})[:_MAX_WORKFLOWS]:
        try:
            others[workflow] = await _others(workflow, call.trigger_id, context)
        except Exception as error:  # the change was made, and no later error may hide that
            others[workflow] = f"not checked: {error.what if isinstance(error, FastnError) else type(error).__name__}"
    return replace(outcome, notes={"still_started_by": others} if others else {})


async def _others(workflow: str, trigger: str, context: ProcedureContext) -> JsonValue:
    page = await read_page(ListTriggers(workflow_id=workflow, limit=100), context.look)
    rows = [row for row in page.rows if key_of(row) != trigger and trigger_state(row) is not State.OFF]
    if page.not_checked or (page.next_cursor and not rows):
        return "not checked: there are more triggers, or they do not say what they start"
    return [f"{name_of(row)} ({key_of(row)})" for row in rows] or "no other trigger"


_CHANGES: Mapping[type[Tool[Any]], Callable[[Any, ProcedureContext], Awaitable[FastnObject | Done | Pending]]] = {
    AiChat: chat,
    AiBuild: build,
    CreateTrigger: create_trigger,
    UpdateTrigger: change_trigger,
    DeleteTrigger: change_trigger,
    RunWorkflow: run_workflow,
}
"""Changes that are more than one request."""

_READS: Mapping[type[Tool[Any]], Callable[[Any, ProcedureContext], Awaitable[FastnObject]]] = {
    QueryAuditLog: entries,
    ListApiKeys: list_api_keys,
    GetExecution: get_execution,
    GetConnector: get_connector,
    GetQuotas: get_quotas,
    GetTrigger: get_trigger,
    GetWorkflow: get_workflow,
}
"""Reads that are more than one request."""


async def perform(call: Tool[Any], context: ProcedureContext) -> FastnObject | Done | Pending:
    change = _CHANGES.get(type(call))
    if change is not None:
        return await change(call, context)
    match call:
        case Procedure():
            return await cast("Procedure[FastnObject]", call).run(context)
        case Operation() if call.effect is Effect.READ:
            return await _read(call, context)
        case Operation():
            return await context.change(call)
        case _:
            raise TypeError(f"{call.tool_name()} is neither an operation nor a procedure")


async def _read(call: Operation[Any], context: ProcedureContext) -> FastnObject:
    """Read. What an argument takes for an id is tried as one, and else looked up as a slug or name.

    An id takes no further request where it looks like one of Fastn's, or where the read has rows.
    """
    unclear = names_in(call)
    result = None
    may_be_ids = all(MAY_BE_ID.fullmatch(getattr(call, argument)) for argument in unclear)
    if may_be_ids:
        try:
            result = await _read_once(call, context)
        except (NotFound, NotSent):
            if not unclear:
                raise
        # Without rows, or with rows that may not match these arguments, it is not settled that they are ids.
        may_be_names = isinstance(result, ListAnswer) and (
            not result.items or {*unclear} & {*(result.not_checked or ())}
        )
        if result is not None and not (unclear and may_be_names):
            return result
    ids = await ids_named(call, unclear, context, are_tried=may_be_ids and result is None)
    if result is not None and not ids:
        return result
    result = await _read_once(call.model_copy(update=ids), context)
    return result.model_copy(update={"named": ids}) if ids and isinstance(result, ListAnswer) else result


async def _read_once(call: Operation[Any], context: ProcedureContext) -> FastnObject:
    read = _READS.get(type(call))
    if read is not None:
        return await read(call, context)
    return await (listed(cast("List[Any]", call), context) if isinstance(call, List) else context.read(call))
