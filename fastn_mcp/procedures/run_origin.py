"""Who or what started a run: a person, an API key, Fastn's AI or a trigger."""

from collections.abc import Iterable, Sequence

from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.records.formats import counted, named_id
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.rows import Row, key_of, owner_of, row_of, started_workflows, text, word
from fastn_mcp.tools.access import EXECUTION, ListApiKeys, QueryAuditLog
from fastn_mcp.tools.paging import MAX_LIMIT
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import STARTED_COLUMN, Execution, GetExecution

_TRIGGER_TYPES = {"scheduler": ("scheduler",), "webhook": ("webhook", "app event")}
"""Types of the triggers that start runs, by what a run says of them."""

_AI = "Fastn's AI"

_MAX_NAMED = 3
"""Maximum number of triggers that are named where several may have started a run."""


async def get_execution(call: GetExecution, context: ProcedureContext) -> Execution:
    """Read a run, and say who or what started it, by at most one further request."""
    run = row_of(await context.read(call))
    return Execution.model_validate({STARTED_COLUMN: await _origin(run, context), **run})


async def _origin(run: Row, context: ProcedureContext) -> str:
    """Return who or what started a run, or why it is not known."""
    by = word(run, "triggeredBy")
    trigger = text(run, "triggerId", "trigger.id")
    if by == "agent service":
        return _AI
    try:
        if trigger:
            return f"trigger {named_id(trigger, text(run, 'trigger.name', 'triggerName') or 'its name is not known')}"
        return await (_of_trigger(run, by, context) if by in _TRIGGER_TYPES else _by_audit_log(run, context))
    except FastnError as error:
        return f"not known: {error.what}"


async def _by_audit_log(run: Row, context: ProcedureContext) -> str:
    """Return who started a run by the entry of its start in Fastn's audit log."""
    listing = QueryAuditLog(resource_id=key_of(run), limit=MAX_LIMIT)
    starters = _starters((await read_page(listing, context.look)).rows)
    actor = starters.get(key_of(run))
    return "not known: the audit log has no entry of its start" if actor is None else _in_words(actor, context)


def started_by_stored(runs: Sequence[Row], context: ProcedureContext) -> dict[str, str]:
    """Return who started runs, by id, as far as entries of the audit log that were read a short time ago tell."""
    look = context.look
    newest = QueryAuditLog(limit=MAX_LIMIT)
    is_needed = any(word(run, "triggeredBy") == "manual" for run in runs)
    if not is_needed or look.snapshot.stored(newest) is None or look.refusal(newest) is not None:
        return {}
    starters = _starters(look.stored(newest).rows)
    return {key_of(run): _in_words(starters[key_of(run)], context) for run in runs if key_of(run) in starters}


def _starters(entries: Iterable[Row]) -> dict[str, str]:
    """Return who started runs, by id. What the system did says nothing of who asked for it."""
    starts = (row for row in entries if text(row, "action", "event", "type") == EXECUTION)
    actors = {text(row, "resource.id", "resourceId"): text(row, "actor") for row in starts}
    return {run: actor for run, actor in actors.items() if run and actor and actor.casefold() != "system"}


def _in_words(actor: str, context: ProcedureContext) -> str:
    """Return an actor of the audit log in words, an API key with its name if keys were read a short time ago."""
    kind, _, number = actor.partition(":")
    if kind.casefold() == "agent":
        return _AI
    if kind.casefold() != "apikey" or not number:
        return actor
    listing = ListApiKeys(limit=MAX_LIMIT)
    key = context.look.listed(listing, number) if context.look.refusal(listing) is None else None
    return f"API key {number}" if key is None else f"API key {named_id(number, name_of(key))}"


async def _of_trigger(run: Row, by: str, context: ProcedureContext) -> str:
    """Return which trigger of the workflow may have started a run, by those that start it now."""
    workflow = text(run, "workflowId")
    page = await read_page(ListTriggers(workflow_id=workflow or None, limit=MAX_LIMIT), context.look)
    triggers = [
        row
        for row in page.rows
        if word(row, "type") in _TRIGGER_TYPES[by]
        and workflow in started_workflows(row)
        and owner_of(row) in (None, owner_of(run))
    ]
    names = [named_id(key_of(row), name_of(row)) for row in triggers[:_MAX_NAMED]]
    if page.next_cursor is not None or page.not_checked:
        return "not known: not all triggers were read"
    if not names:
        return f"not known: no {by} starts the workflow now"
    if len(triggers) == 1:
        return f"trigger {names[0]}, the only {by} that starts the workflow now"
    more = "" if len(triggers) == len(names) else " and others"
    return f"one of {counted(len(triggers), 'trigger')} that start the workflow now: {', '.join(names)}{more}"
