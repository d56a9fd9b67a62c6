"""Switching off or deleting a trigger: the receipt says which other triggers still start the same workflows."""

from dataclasses import replace

from pydantic import JsonValue

from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.batch import Done
from fastn_mcp.procedures.context import Pending, ProcedureContext
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.rows import key_of, started_workflows
from fastn_mcp.records.states import State, trigger_state
from fastn_mcp.tools.triggers import DeleteTrigger, ListTriggers, UpdateTrigger

_MAX_WORKFLOWS = 3
"""Maximum number of workflows whose other triggers are read."""


async def change_trigger(call: UpdateTrigger | DeleteTrigger, context: ProcedureContext) -> Done | Pending:
    """Make the change. If it stops the trigger, add to its receipt what else starts its workflows.

    Raises a `FastnError`.
    """
    outcome = await context.change(call)
    stops = isinstance(call, DeleteTrigger) or trigger_state({"status": call.status}) is State.OFF
    if not stops or not isinstance(outcome, Done) or outcome.change is None:
        return outcome
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
