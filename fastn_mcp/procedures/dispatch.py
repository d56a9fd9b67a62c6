"""The one way through: guard, journal, client, outcome."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.client.client import FastnClient
from fastn_mcp.errors import AppliedUnreadable, FastnError, NotSent
from fastn_mcp.fastn.directory import Directory
from fastn_mcp.guard.approval.batch import Agreed, BatchCalls
from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.approval.request import Asking, PendingApproval
from fastn_mcp.guard.audit.recorder import Consent, Recorder
from fastn_mcp.guard.changes import Batch, BatchStep, Change, Made
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.journal import Journalling
from fastn_mcp.guard.key_files import KeyFileWriter, SecretValues
from fastn_mcp.guard.preview import Shown
from fastn_mcp.procedures.context import ProcedureContext, Report, unheard
from fastn_mcp.procedures.run_call import perform
from fastn_mcp.runtime import System
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect, FastnObject, Tool

Call = Operation[Any]


@dataclass(frozen=True, slots=True)
class Done:
    """A call that was made: what came back, and the change that it made, where it made one."""

    result: FastnObject
    change: Change | None = None


class _Asked(Exception):
    """A person is asked about a call that others were made for."""

    def __init__(self, outcome: Asking | PendingApproval) -> None:
        super().__init__()
        self.outcome = outcome


class _PreviewedChange(Exception):
    """The first change that a procedure would make, or those that it would make together, shown instead of made."""

    def __init__(self, preview: Shown) -> None:
        super().__init__()
        self.preview = preview


Agreeing = Callable[[BatchCalls, Caller, Sequence[int]], Awaitable[Agreed]]
Sending = Callable[[Call, Caller, Consent], Awaitable[Done]]


class _Batch:
    """Calls that are agreed to together, each made once."""

    def __init__(self, several: BatchCalls, caller: Caller, guard: Guard, agreeing: Agreeing, sending: Sending) -> None:
        self._several = several
        self._caller = caller
        self._guard = guard
        self._agreeing = agreeing
        self._sending = sending
        self._agreed: Agreed = {}
        self.id = several.id

    async def earlier(self) -> Mapping[int, BatchStep]:
        return await self._guard.progress(self._several, self._caller)

    async def agree(self, numbers: Sequence[int]) -> None:
        self._agreed = await self._agreeing(self._several, self._caller, numbers)

    async def make(self, number: int) -> Made:
        call = self._several.calls[number - 1]
        admitted = await self._guard.admit_one(self._several, number, self._agreed, self._caller)
        try:
            done = await self._sending(call, self._caller, admitted)
        except FastnError as error:
            await self._guard.ended(self._several, number, error.outcome)
            raise
        await self._guard.ended(self._several, number, "done", done.change.id if done.change else None)
        return Made(done.result, done.change)


class Dispatcher:
    """Makes calls for agents."""

    def __init__(
        self,
        client: FastnClient,
        guard: Guard,
        recorder: Recorder,
        journalling: Journalling,
        secrets: SecretValues,
        delivery: KeyFileWriter | None,
        system: System,
    ) -> None:
        """Without `delivery`, a new key stands in the result."""
        self._client = client
        self._guard = guard
        self._recorder = recorder
        self._journalling = journalling
        self._secrets = secrets
        self._delivery = delivery
        self.system = system
        self.directory = Directory(system)
        self.dashboard_url = client.dashboard_url

    async def __call__(
        self, call: Tool[Any], caller: Caller, report: Report = unheard
    ) -> Done | Asking | PendingApproval:
        """Make `call`, or ask about it. Raises a `FastnError` that says what became of it."""
        self._check(call, caller)
        changes: list[Change] = []

        async def send(inner: Call) -> FastnObject:
            outcome = await self._make(inner, caller)
            if not isinstance(outcome, Done):
                raise _Asked(outcome)
            if outcome.change is not None:
                changes.append(outcome.change)
            return outcome.result

        try:
            result = await perform(call, self._means(send, report, caller, self._together))
        except _Asked as asked:
            return asked.outcome
        return Done(result, changes[-1] if changes else None)

    async def preview(self, call: Tool[Any], caller: Caller) -> Shown:
        """What `call` would do, by fresh reads. Nothing is sent."""
        self._check(call, caller)

        async def send(inner: Call) -> FastnObject:
            if inner.effect is Effect.READ:
                return await self._client.send(inner)
            _, shown = await self._guard.judged(inner, caller.principal)
            raise _PreviewedChange(shown)

        try:
            await perform(call, self._means(send, unheard, caller, self._shown))
        except _PreviewedChange as shown:
            return shown.preview
        raise NotSent(f"{call.tool_name()} would change nothing.")

    def _check(self, call: Tool[Any], caller: Caller) -> None:
        """Refuse before a person is asked what could not be sent. Raises `NotSent`."""
        self._client.check(call)
        for inner in (call, *call.made_of):
            try:
                self._secrets.fill(inner)
            except NotSent as error:
                self._recorder.not_sent(inner, caller.principal, error)
                raise

    def _means(
        self,
        send: Callable[[Call], Awaitable[FastnObject]],
        report: Report,
        caller: Caller,
        agreeing: Agreeing,
    ) -> ProcedureContext:
        kept = self._journalling

        def batch(offer: Tool[Any], calls: Sequence[Call], name: str | None) -> Batch:
            several = self._guard.several(offer, calls, name, caller)
            return _Batch(several, caller, self._guard, agreeing, self._sent)

        allowance = partial(self._guard.allowance, caller.principal)
        return ProcedureContext(send, self.system, report, kept.account, kept.journal, self.directory, batch, allowance)

    async def _together(self, several: BatchCalls, caller: Caller, numbers: Sequence[int]) -> Agreed:
        agreed = await self._guard.agree(several, numbers, caller)
        if isinstance(agreed, PendingApproval):
            self._recorder.waits(several.offer, caller.principal, agreed.preview)
        if isinstance(agreed, (Asking, PendingApproval)):
            raise _Asked(agreed)
        return agreed

    async def _shown(self, several: BatchCalls, caller: Caller, numbers: Sequence[int]) -> Agreed:
        raise _PreviewedChange(await self._guard.judged_together(several, numbers, caller.principal))

    async def _make(self, call: Call, caller: Caller) -> Done | Asking | PendingApproval:
        admitted = await self._guard.admit(call, caller)
        if isinstance(admitted, PendingApproval):
            self._recorder.waits(call, caller.principal, admitted.preview)
        if not isinstance(admitted, Consent):
            return admitted
        if call.effect is Effect.READ:
            self._recorder.read()
            return Done(await self._client.send(call))
        return await self._sent(call, caller, admitted)

    async def _sent(self, call: Call, caller: Caller, admitted: Consent) -> Done:
        """Send what may be sent, and record what becomes of it."""
        try:
            filled = self._secrets.fill(call)
            digest, deadline = self._guard.digest(call, caller), self._client.deadline(call)
            change = await self._journalling.begin(
                call,
                digest,
                caller.principal,
                admitted.target,
                self._client.send,
                deadline,
                admitted.name,
                admitted.by,
            )
        except FastnError as error:
            self._recorder.not_sent(call, caller.principal, error)
            raise
        intent = None
        try:
            intent = self._recorder.intent(call, caller.principal, admitted, change.id if change else None)
            await self._recorder.anchor()
        except BaseException as error:
            outcome, what = (error.outcome, error.what) if isinstance(error, FastnError) else ("cancelled", "")
            self._recorder.outcome(intent, outcome, what)
            await self._journalling.end(change, outcome)
            raise
        self._guard.answered(call, None)
        try:
            result = await self._client.send(filled)
        except BaseException as error:
            outcome, what = "unknown_outcome", type(error).__name__  # cancelled, or a defect of ours: it may have left
            if isinstance(error, FastnError):
                outcome, what = error.outcome, error.what
            self._recorder.outcome(intent, outcome, what)
            await self._journalling.end(change, outcome)
            if isinstance(error, FastnError):
                await self._recorder.settle()
            raise
        finally:
            self.directory.forget(call.toolset())
        self._guard.answered(call, result)
        self._recorder.outcome(intent, "done", result=result)
        ended = await self._journalling.end(change, "done", result)
        await self._recorder.settle()
        return Done(self._delivered(call, result), ended)

    def _delivered(self, call: Call, result: FastnObject) -> FastnObject:
        try:
            return result if self._delivery is None else self._delivery(call, result)
        except OSError as error:
            raise AppliedUnreadable(
                f"The key was created, but no file could be written for it ({type(error).__name__}).",
                "Revoke it with revoke_api_key, and tell the operator.",
                facts={"settle": {"tool": "list_api_keys", "arguments": {}}},
            ) from error

    def redacted(self, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """An answer without the key of the account, whatever put it there."""
        redactor = self._client.redactor
        return redactor.object(body) if redactor.may_stand_in(to_json(body)) else body

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask."""
        return self._guard.asks

    @property
    def approval_lifetime(self) -> float:
        """Seconds in which a request can be answered, and the approved call made."""
        return self._guard.approval_lifetime

    async def aclose(self) -> None:
        await self._client.aclose()
