"""What the journal is told of a change: the state before it is sent, and what became of it. Secrets never go there.

A call that is not idempotent is not repeated unasked while the outcome of an earlier one is not known. The journal says
so: it is written before a request is sent, so that a cancelled call, a killed process and a loss of power count too.
"""

import logging
from dataclasses import replace

import anyio
from pydantic import JsonValue

from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.show import name_of
from fastn_mcp.operation import Effect, Record
from fastn_mcp.procedures.journal import PERHAPS_MADE, Change, Journal
from fastn_mcp.procedures.target import Call, Send, read_target
from fastn_mcp.redaction import redact_object, redact_row
from fastn_mcp.system import System
from fastn_mcp.tools.api_keys import NewApiKey

log = logging.getLogger(__name__)

UNSETTLED = 600.0
"""Seconds in which a call is not repeated unasked after its outcome was lost."""

_IDEMPOTENT = ("GET", "PUT", "DELETE")

_NOTICED = 0.5
"""Seconds in which a client that gave up is noticed: its next request may arrive before the end of its connection."""


class Journalling:
    """Journals the changes on one account, which `account` names."""

    def __init__(self, journal: Journal, account: str, system: System) -> None:
        self.journal = journal
        self.account = account
        self._system = system
        self._sending: dict[str, tuple[str, anyio.Event]] = {}
        """By change: the digest of its call, and what is set once its outcome is known or lost."""
        self._lost: dict[str, float] = {}
        """By digest of a call: until when it is unsettled. The ledger may be what was lost."""

    async def is_unsettled(self, call: Call, digest: str) -> bool:
        """Whether an earlier one of this call may have happened. One that this process is sending is not lost."""
        if call.route.method in _IDEMPOTENT:
            return False
        with anyio.move_on_after(_NOTICED):
            for ended in [ended for of, ended in self._sending.values() if of == digest]:
                await ended.wait()
        now, sending = self._system.now().timestamp(), set(self._sending)
        open_ = await self.journal.unsettled(digest, now - UNSETTLED)
        return self._lost.get(digest, 0.0) > now or not open_ <= sending | self._sending.keys()

    async def begin(self, call: Call, digest: str, principal: str, target: Record | None, read: Send) -> Change | None:
        """Record that `call` is about to be sent; None where it changes nothing.

        `digest` names the call, and `target` is what was read of its target already. What this returns must be ended.
        Raises a `Refused` where that cannot be written.
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
            call="" if call.route.method in _IDEMPOTENT else digest,
        )
        self._sending[change.id] = change.call, anyio.Event()
        try:
            await self.journal.note(change)
        except BaseException as error:
            self._sent(change)
            if isinstance(error, FastnError) or not isinstance(error, Exception):
                raise
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
        if outcome in PERHAPS_MADE:
            now = self._system.now().timestamp()
            self._lost = {call: until for call, until in self._lost.items() if until > now}
            self._lost[change.call] = now + UNSETTLED
        try:
            with anyio.CancelScope(shield=True):
                await self.journal.settle(ended)
        except Exception:
            log.exception("the outcome %s of %s could not be journalled", outcome, change.tool)
        finally:
            self._sent(change)
        return ended

    def _sent(self, change: Change) -> None:
        self._sending.pop(change.id)[1].set()


async def _read(call: Call, read: Send) -> Record | None:
    """The target of a call that needed no consent. What cannot be read cannot be undone, and is still changed."""
    try:
        return await read_target(call, read)
    except FastnError:
        return None


def _without_secrets(record: Record) -> dict[str, JsonValue]:
    fields = record.model_dump(exclude_unset=True)
    return redact_row(fields) if isinstance(record, NewApiKey) else redact_object(fields)
