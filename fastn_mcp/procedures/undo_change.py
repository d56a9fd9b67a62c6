"""The tools `list_changes` and `undo_change`."""

from datetime import timedelta
from typing import Annotated, Any, cast

from pydantic import Field, JsonValue

from fastn_mcp.client.targets import read_target
from fastn_mcp.errors import NotFound, NotSent, TargetChanged
from fastn_mcp.guard.result import Done
from fastn_mcp.guard.undo import NotUndoable, Undo, already, drift, hides_target, receipt, undo_of
from fastn_mcp.ledger.change import BEGUN, KEPT_DAYS, PERHAPS_MADE, Change
from fastn_mcp.procedures.context import Pending, Procedure, ProcedureContext
from fastn_mcp.records.formats import aged, since
from fastn_mcp.records.rows import FastnObject, Row, key_of, row_of, without_empty
from fastn_mcp.redaction import quote
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import UNKNOWN, Update
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.tool import Effect

_END_OF_TIME = 1e12
"""Later than any change, in Unix seconds."""


class ChangeList(FastnObject):
    """Changes, newest first."""

    shape = (("changes", "array"), ("next_cursor", "string"))


class UndoResult(FastnObject):
    """The undone change, and what the undo did not restore."""

    shape = (("undone", "string"), ("by", "string"))


class ListChanges(Procedure[ChangeList]):
    """List changes made through this server, newest first, with the change_id for undo_change."""

    effect = Effect.READ

    limit: Annotated[int, Field(ge=1, le=100, description="1-100, default 20.")] = 20
    cursor: Annotated[str | None, Field(description="Last next_cursor.", pattern=r"^\d+(\.\d+)?$")] = None

    async def run(self, context: ProcedureContext) -> ChangeList:
        before = _END_OF_TIME if self.cursor is None else float(self.cursor)
        changes = await context.changes.changes(self.limit + 1, before)
        page = changes[: self.limit]
        now = context.system.timestamp()
        answer: dict[str, JsonValue] = {"changes": [_row(change, now, context.tools) for change in page]}
        if not page and self.cursor is None:
            since_when = aged(context.system.now() - timedelta(days=KEPT_DAYS), context.system.now())
            answer["note"] = (
                f"No changes since {since_when}. Only changes made here with this key are kept; see query_audit_log."
            )
        if len(changes) > self.limit:
            answer["next_cursor"] = repr(page[-1].at)
        return ChangeList.model_validate(answer)


class UndoChange(Procedure[UndoResult]):
    """Undo a change, unless its target has been changed since."""

    effect = Effect.EXTERNAL

    change_id: Annotated[str, Field(description="From list_changes or a receipt.", min_length=1)]

    @property
    def target(self) -> str | None:
        return self.change_id

    async def run(self, context: ProcedureContext) -> Done | Pending:
        change = await context.changes.change(self.change_id)
        if change is None:
            raise NotFound("There is no such change.", "See list_changes.", certainty="Nothing was sent.")
        undo = undo_of(change)
        if isinstance(undo, NotUndoable):
            raise NotSent("undo_change cannot undo this.", undo.why)
        if change.undone:
            raise NotSent("This change has already been undone, or is being undone now.", "See list_changes.")
        await _check_drift(change, undo, context)
        outcome = await context.change(undo.call, undoes=change)
        if not isinstance(outcome, Done):
            return outcome
        name = receipt(change, context.tools).get("name")
        answer: Row = {
            "undone": change.id,
            "by": undo.call.tool_name(),
            "of": None if change.target is None else {"id": change.target, "name": name},
            "new_id": key_of(row_of(outcome.result)) if undo.call.target is None else None,
            "stays": undo.lost,
            "not_restored": [*undo.not_restored],
        }
        return Done(UndoResult.model_validate(without_empty(answer)), outcome.change)


async def _check_drift(change: Change, undo: Undo, context: ProcedureContext) -> None:
    """Raise a `FastnError` if the target is gone, was changed since, or is as before already."""
    call: Any = undo.call
    if call.target is None:
        deletion = OPERATIONS[change.tool].model_validate(change.arguments)
        deleted = await read_target(deletion, context.read_for_change) if change.outcome in PERHAPS_MADE else None
        if deleted is UNKNOWN:
            raise NotSent("Whether it is still there is not known: it is not among the first of its list.")
        if deleted is not None:
            raise NotSent("There is nothing to undo: it is still there.")
        return
    target = await read_target(call, context.read_for_change)
    if target is None:
        raise NotFound("The target no longer exists.", certainty="Nothing was sent.")
    if not isinstance(call, Update):
        return
    now = cast("dict[str, JsonValue]", target.model_dump())
    changed = drift(change, now)
    if changed:
        raise TargetChanged(
            f"The target has been changed since: {', '.join(map(quote, changed))}.",
            f"Check it, and set the wanted values with {call.tool_name()}.",
            facts={} if hides_target(change, context.tools) else {"now": {name: now.get(name) for name in changed}},
        )
    if already(change, now):
        raise NotSent("There is nothing to undo: it already has its earlier state.")


def _row(change: Change, now: float, tools: EnabledTools) -> dict[str, JsonValue]:
    fields = receipt(change, tools)
    row: dict[str, JsonValue] = {
        "change_id": change.id,
        "tool": change.tool,
        "target": change.target,
        "name": fields.get("name"),
        "at": since(change.at, now),
        "outcome": "unknown_outcome" if change.outcome == BEGUN else change.outcome,
    }
    row |= {name: fields[name] for name in ("changed", "stopped_triggers", "approved_by") if name in fields}
    row = {name: value for name, value in row.items() if value is not None}
    row["undo"] = "undone" if change.undone else fields.get("undo") or fields["why"]
    return row
