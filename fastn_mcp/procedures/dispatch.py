"""Run each call as one request or as a procedure. All changes go through `Guard.execute`."""

from dataclasses import replace
from functools import partial
from typing import Any, cast

from pydantic import JsonValue
from pydantic_core import to_json
from typing_extensions import override

from fastn_mcp.account.answer_reads import AnswerReads, SharedReads
from fastn_mcp.account.short_ids import AnyCall, ShortIds
from fastn_mcp.client.cost import received
from fastn_mcp.errors import Disabled, FastnError, NotSent
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.key_files import SecretValues
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.guard.result import Done, ListResult
from fastn_mcp.guard.undo import receipt
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.composed_operations import perform
from fastn_mcp.procedures.context import Executor, Pending, PreviewOnly, Procedure, ProcedureContext
from fastn_mcp.procedures.lookup import ReadRow
from fastn_mcp.procedures.record_names import with_ids
from fastn_mcp.procedures.undo_change import UndoChange
from fastn_mcp.records.rows import FastnObject, row_of
from fastn_mcp.runtime import Report, SpanFacts, no_progress, work_on
from fastn_mcp.tools.operation import Call, Operation
from fastn_mcp.tools.paging import FULL, List
from fastn_mcp.tools.tool import Effect, Tool


class EnabledChanges(Executor):
    """Sends changes whose tools are all enabled. A procedure, for example `undo_change`, chooses tools itself."""

    def __init__(self, guard: Guard, recorder: Recorder) -> None:
        self._guard = guard
        self._recorder = recorder

    @override
    async def execute(
        self, tool: Tool[Any], caller: Caller, report: Report, undoes: Change | None = None
    ) -> Done | ListResult | PendingApproval:
        for call in tool.inner_calls or (tool,):
            try:
                self._guard.tools.check(call)
            except Disabled as error:
                self._recorder.not_sent(call, caller, error)
                raise
        return await self._guard.execute(tool, caller, report, undoes)


class Dispatcher:
    """Runs the calls of agents, or previews them."""

    def __init__(
        self,
        shared: SharedReads,
        guard: Guard,
        recorder: Recorder,
        changes: ChangeJournal,
        secrets: SecretValues,
    ) -> None:
        self._shared = shared
        self._client = client = shared.client
        self.guard = guard
        self._recorder = recorder
        self._changes = changes
        self._secrets = secrets
        self.tools = guard.tools
        self._executor = EnabledChanges(guard, recorder)
        self._short_ids = ShortIds()
        self.system = shared.system
        self.dashboard_url = client.settings.dashboard_url

    async def __call__(self, call: Tool[Any], caller: Caller, report: Report = no_progress) -> Done | PendingApproval:
        """Run `call`, or return its approval request. Raises a `FastnError` that states the outcome."""
        outcome = await self._run(call, caller, report)
        if isinstance(outcome, Evaluation):
            raise TypeError(f"{call.tool_name()} was evaluated, and not sent")
        return outcome

    async def preview(self, call: Tool[Any], caller: Caller, report: Report = no_progress) -> Question:
        """Return what the agent may read of the question about `call`, from fresh reads. No change is sent."""
        return (await self.evaluate(call, caller, report)).preview(caller)

    async def evaluate(self, call: Tool[Any], caller: Caller, report: Report = no_progress) -> Evaluation:
        """Return what `call` would do, with the question about it, from fresh reads. No change is sent."""
        return cast(Evaluation, await self._run(call, caller, report, is_preview=True))

    async def preview_undo(self, change: str, asker: Asker) -> Question:
        """Return what the undo of a change would do, for a person on the approval page. No change is sent."""
        return (await self.evaluate(UndoChange(change_id=change), Caller(asker, None))).people_question

    async def undo(self, change: str, asker: Asker) -> bool:
        """Undo a change for them, by a guarded call like any other. False if it waits for an approval."""
        caller = Caller(asker, None, undoes=change)
        return isinstance(await self(UndoChange(change_id=change), caller), Done)

    async def with_ids(self, call: AnyCall, caller: Caller) -> AnyCall:
        """Return a changing call with the ids that its short ids and names stand for. Raises a `FastnError`."""
        return await self._with_ids(call, self._context(caller, no_progress, is_preview=True))

    async def _with_ids(self, call: AnyCall, context: ProcedureContext) -> AnyCall:
        return await with_ids(await self._short_ids.expanded(call, context.look), context)

    async def preview_body(self, shown: Question) -> dict[str, JsonValue]:
        """Return a preview as JSON, with short ids."""
        body = await self._short_ids.shortened_body(await work_on(received(), shown.data_for_agent))
        return self.tools.without_disabled(body)

    def receipt(self, change: Change | None) -> dict[str, JsonValue] | None:
        """Return the receipt of a change for the agent; None if none was made."""
        return None if change is None else receipt(change, self.tools)

    def _reads(self, caller: Caller) -> AnswerReads:
        read = partial(self.guard.read, caller=caller)

        def permit(call: Call) -> None:
            self.tools.check(call)
            self.guard.check_read(call, caller)

        return AnswerReads(self._shared, read, permit)

    def _context(self, caller: Caller, report: Report, *, is_preview: bool) -> ProcedureContext:
        return ProcedureContext(
            self.guard,
            PreviewOnly(self.guard) if is_preview else self._executor,
            caller,
            report=report,
            system=self.system,
            changes=self._changes,
            look=self._reads(caller),
            tools=self.tools,
        )

    async def _run(
        self, call: Tool[Any], caller: Caller, report: Report, *, is_preview: bool = False
    ) -> Done | Pending:
        context = self._context(caller, report, is_preview=is_preview)
        attributes: SpanFacts = {"effect": call.effective.value}
        with self.system.span("execute_tool", call.tool_name(), attributes):
            self._client.check(call)
            try:
                call = await self._with_ids(call, context)
                if call.effect is not Effect.READ:
                    self._check_secrets(call, caller)
                outcome = await perform(call, context)
            except FastnError as error:
                self.tools.note_disabled(error)
                raise
            if is_preview and not isinstance(outcome, Evaluation):
                raise NotSent(f"{call.tool_name()} would change nothing.")
            attributes["outcome"] = _OUTCOMES.get(type(outcome), "done")
        if isinstance(outcome, Done):
            return replace(outcome, result=self._suggesting(outcome.result))
        if not isinstance(outcome, FastnObject):
            return outcome
        if isinstance(call, Procedure):
            outcome = self._suggesting(outcome)
        return Done(outcome if _is_whole(call) else await self._short_ids.shortened(outcome))

    def _suggesting(self, result: FastnObject) -> FastnObject:
        """Return a result that suggests enabled tools only."""
        if not self.tools.are_limited:
            return result
        body = row_of(result)
        left = self.tools.without_disabled(body)
        return result if left == body else type(result).model_validate(left)

    def _check_secrets(self, call: Tool[Any], caller: Caller) -> None:
        """Refuse a missing secret before a person is asked. Raises `NotSent`."""
        for inner in (call, *call.inner_calls):
            try:
                self._secrets.fill(inner)
            except NotSent as error:
                self._recorder.not_sent(inner, caller, error)
                raise

    def redacted(self, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Redact the account's key in an answer, wherever it came from."""
        redactor = self._client.redactor
        return redactor.object(body) if redactor.may_stand_in(to_json(body)) else body

    async def aclose(self) -> None:
        await self._client.aclose()


def _is_whole(call: Tool[Any]) -> bool:
    """Whether the answer to a call has whole ids: it is about a change or a single record, or has `detail=full`."""
    is_single = isinstance(call, ReadRow) or (isinstance(call, Operation) and not isinstance(call, List))
    return call.effect is not Effect.READ or is_single or (isinstance(call, List) and call.detail == FULL)


_OUTCOMES: dict[type, str] = {
    Evaluation: "previewed",
    PendingApproval: "approval_required",
}
