"""What the journal is told of a change: the state before it is sent, and what became of it. Secrets never go there."""

import logging
from dataclasses import replace

from pydantic import JsonValue

from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.show import name_of
from fastn_mcp.operation import Effect, Record
from fastn_mcp.procedures.journal import Change, Journal
from fastn_mcp.procedures.target import Call, Send, read_target
from fastn_mcp.redaction import redact_object
from fastn_mcp.system import System

log = logging.getLogger(__name__)


class Journalling:
    """Journals the changes on one account, which `account` names."""

    def __init__(self, journal: Journal, account: str, system: System) -> None:
        self.journal = journal
        self.account = account
        self._system = system

    async def begin(self, call: Call, principal: str, target: Record | None, read: Send) -> Change | None:
        """Record that `call` is about to be sent; None where it changes nothing.

        Raises a `Refused` where that cannot be written. `target` is what was read of it already.
        """
        if call.effect is Effect.READ:
            return None
        if target is None and call.target is not None:
            target = await _read(call, read)
        sent = call.model_copy(update=dict.fromkeys(call.secrets())).request().body
        change = Change(
            id=f"chg_{self._system.token()}",
            principal=principal,
            account=self.account,
            tool=call.tool_name(),
            arguments=call.shown(),
            target=call.target,
            name=name_of(target),
            before=None if target is None else _without_secrets(target),
            sent=redact_object(sent or {}),
            at=self._system.now().timestamp(),
        )
        try:
            await self.journal.note(change)
        except FastnError:
            raise
        except Exception as error:
            log.exception("%s could not be journalled", call.tool_name())
            raise Refused(
                f"The journal could not be written ({type(error).__name__}).", "Tell the operator: the log says more."
            ) from error
        return change

    async def end(self, change: Change | None, outcome: str, result: Record | None = None) -> Change | None:
        """Record what became of it. The call was made: what cannot be written now is logged instead."""
        if change is None:
            return None
        made = {} if result is None else _without_secrets(result)
        target = change.target or (str(made["id"]) if isinstance(made.get("id"), (str, int)) else None)
        shown = {name: made.get(name, value) for name, value in change.sent.items()}
        ended = replace(change, outcome=outcome, target=target, name=change.name or name_of(result), sent=shown)
        try:
            await self.journal.settle(ended.id, outcome, target, ended.name, shown)
        except Exception:
            log.exception("the outcome %s of %s could not be journalled", outcome, change.tool)
        return ended


async def _read(call: Call, read: Send) -> Record | None:
    """The target of a call that needed no consent. What cannot be read cannot be undone, and is still changed."""
    try:
        return await read_target(call, read)
    except FastnError:
        return None


def _without_secrets(record: Record) -> dict[str, JsonValue]:
    return redact_object(record.model_dump(exclude_unset=True))
