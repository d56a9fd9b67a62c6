"""The guard: the only code that changes an account. `execute` handles a request, `_send_once` each call of it.

Fails closed: an error before a call is sent is a refusal; an unexpected error after that is an unknown outcome.
"""

import logging
from collections.abc import Collection, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import JsonValue

from fastn_mcp.account.directory import Directory
from fastn_mcp.account.targets import Call
from fastn_mcp.audit.log import Unwritten
from fastn_mcp.client.client import FastnClient
from fastn_mcp.errors import AppliedUnreadable, FastnError, Refused
from fastn_mcp.guard.approval.caller import Caller
from fastn_mcp.guard.approval.flow import Approval, ApprovalFlow, OutOfBandChannel
from fastn_mcp.guard.approval.request import PendingApproval, PendingForm
from fastn_mcp.guard.approval.wait import DecisionWait
from fastn_mcp.guard.changes import MADE, Batch, BatchResult, Done, NotDone
from fastn_mcp.guard.evaluation import CallEvaluation, Evaluation, Evaluator
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.key_files import KeyFileWriter, SecretValues, TypedSecrets
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.policy import Decision, PolicyDecision
from fastn_mcp.runtime import Report, SpanFacts, System, no_progress
from fastn_mcp.tools.tool import Effect, FastnObject, Tool

log = logging.getLogger(__name__)


class Guard:
    """Evaluates, approves, records and sends the calls on one account."""

    def __init__(
        self,
        evaluator: Evaluator,
        ledger: Ledger,
        recorder: Recorder,
        journal: ChangeJournal,
        client: FastnClient,
        secrets: SecretValues,
        typed: TypedSecrets,
        delivery: KeyFileWriter | None,
        system: System,
        out_of_band: OutOfBandChannel | None,
    ) -> None:
        """Without `delivery`, a new API key is returned in the result."""
        self._evaluator = evaluator
        self._ledger = ledger
        self._recorder = recorder
        self._journal = journal
        self._client = client
        self._secrets = secrets
        self._typed = typed
        self._delivery = delivery
        self._system = system
        self._approvals = ApprovalFlow(evaluator, ledger, recorder, system, out_of_band, typed)
        self.decisions = DecisionWait(ledger, system)
        self.directory = Directory(system)

    async def execute(
        self, batch: Batch, caller: Caller, report: Report = no_progress
    ) -> BatchResult | PendingForm | PendingApproval:
        """Send the permitted calls, or return the open approval request. Raises if no call was attempted."""
        began = self._system.timestamp()
        with self._span(batch.tool) as said, self._fail_closed(batch.tool, caller):
            execution = await self._resume(batch, caller)
            if len(execution.results) == len(batch.calls):
                return execution
            said |= {"calls": len(batch.calls) - len(execution.results)} if batch.is_list else {}
            await self._recorder.anchor()
            evaluation = await self._evaluate(batch, caller, execution.results, said)
            approval = await self._approvals.obtain(evaluation, caller)
            while isinstance(approval, PendingApproval) and await self._decided(approval, began, caller, report):
                caller = replace(caller, form=None, link=None)  # the answer is in the ledger
                evaluation = await self._evaluate(batch, caller, execution.results, said, reads=True)
                approval = await self._approvals.obtain(evaluation, caller)
            if not isinstance(approval, Approval):
                said["outcome"] = "approval_required"
                if isinstance(approval, PendingApproval):
                    self._recorder.waits(batch.tool, caller, approval.preview)
                return approval
            if approval.is_stale:
                evaluation = await self._evaluate(batch, caller, execution.results, said, reads=True)
            await self._approvals.check(approval, evaluation)
            by = approval.by if evaluation.verdict.permit is None else "plan"
            said |= {"outcome": "admitted", "consent": by, "asked": approval.request and approval.request.trace}
        if await self._send_each(evaluation, approval, execution, caller, report):
            return execution
        return await self.execute(batch, caller, report)  # evaluated again: the policy may ask, refuse or allow it now

    async def _send_each(
        self, evaluation: Evaluation, approval: Approval, execution: BatchResult, caller: Caller, report: Report
    ) -> bool:
        """Send the calls of a batch, up to the first failure, and add their results to `execution`.

        False if nothing was sent, since other calls used up the budget or plan entry that allowed a single call.
        """
        batch, first = evaluation.batch, next(iter(evaluation.calls))
        for number, call in evaluation.calls.items():
            if batch.is_list:
                await report(f"{number} of {len(batch.calls)}: {call.call.tool_name()}", number, len(batch.calls))
            try:
                done = await self._send_once(number, evaluation, approval, caller, is_stale=number != first)
            except FastnError as error:
                execution.results[number] = NotDone(error)
                if error.outcome not in MADE and not batch.keep_going:
                    break
            else:
                if done is None:
                    return False
                execution.results[number] = done
        return True

    async def _send_once(
        self, number: int, evaluation: Evaluation, approval: Approval, caller: Caller, *, is_stale: bool
    ) -> Done | None:
        """Send one approved call at most once, and record it before and after. Raises its error if it does not succeed.

        None if other calls used up the budget or plan entry that allowed a single call; a call of a list is evaluated
        again here. `is_stale`: calls sent since its evaluation may have changed its target, so it is evaluated again.
        """
        current, call = evaluation.calls[number], evaluation.calls[number].call
        is_list = evaluation.batch.is_list
        with self._span(call) if is_list else nullcontext(SpanFacts()) as said, self._fail_closed(call, caller):
            current = await self._reevaluate(call, caller) if is_stale else current
            said |= _decided(current.effect, current.verdict) if is_list else {}
            filled = await self._typed.fill(self._secrets.fill(call), current.typed, approval.request)
            approved = await self._approvals.use(approval, number, current, evaluation, caller)
            while approved is None and is_list:
                current = await self._reevaluate(call, caller)
                approved = await self._approvals.use(approval, number, current, evaluation, caller)
            if approved is None:
                return None
            said |= {"outcome": "admitted", "consent": approved.by, "asked": approved.trace}
            change = await self._journal.begin(approved, self._client.send, self._client.deadline(call))
        intent, is_sent = None, False
        try:
            intent = self._recorder.intent(approved, change.id)
            await self._recorder.anchor()
            self._evaluator.ai_sessions.note(call, None)
            is_sent = True  # from here on, the request may have left this process
            result = await self._client.send(filled)
        except BaseException as error:
            outcome, what = ("unknown_outcome", type(error).__name__) if is_sent else ("cancelled", "")
            if isinstance(error, FastnError):
                outcome, what = error.outcome, error.what
            self._recorder.outcome(intent, outcome, what)
            await self._journal.end(change, outcome)
            if is_sent and isinstance(error, FastnError):
                await self._recorder.settle()
            raise
        finally:
            self.directory.forget(call.toolset())
        self._evaluator.ai_sessions.note(call, result)
        self._recorder.outcome(intent, "done", result=result)
        change = await self._journal.end(change, "done", result)
        await self._recorder.settle()
        return Done(self._delivered(call, result), change)

    async def preview(self, batch: Batch, caller: Caller) -> Evaluation | BatchResult:
        """Evaluate a batch by fresh reads, without sending it. Return the earlier results if all calls were made."""
        execution = await self._resume(batch, caller)
        if len(execution.results) == len(batch.calls):
            return execution
        evaluation = await self._evaluator.evaluate(batch, caller.principal, execution.results)
        return await self._evaluator.describe(evaluation)

    async def evaluate(self, call: Call, principal: str = "local") -> CallEvaluation:
        """Evaluate one call by fresh reads, without an approval request and without sending it."""
        return await self._evaluator.evaluate_call(call, principal)

    async def explain(self, call: Call, principal: str = "local") -> tuple[CallEvaluation, list[PolicyDecision]]:
        """Evaluate one call as `evaluate` does. Return every rule that matches it too."""
        return await self._evaluator.explain(call, principal)

    async def check_customers(self) -> None:
        """Log, once, that the key may not read customers which the policy compares by name."""
        await self._evaluator.check_customers()

    async def read(self, call: Call, caller: Caller) -> FastnObject:
        """Send a read call. Raises a `FastnError`."""
        with self._fail_closed(call, caller):
            if call.effect is not Effect.READ:
                raise Refused(f"{call.tool_name()} is not a read. Nothing was sent.")
            caller.check(call.tool_name(), call.effective)
            self._recorder.read()
        return await self._client.send(call)

    async def allowance(self, principal: str) -> dict[str, JsonValue]:
        """Return the mode, what is left of budgets and plans, and the caller's requests. Raises a `FastnError`."""
        try:
            found = await self._evaluator.allowance(principal)
            return found | ({"page": self._approvals.page} if "waiting" in found and self._approvals.page else {})
        except FastnError:
            raise
        except Exception as error:
            log.exception("the budgets could not be read")
            raise Refused(
                "The ledger could not be read.", "Tell the operator; the server log has the details."
            ) from error

    @property
    def needs_client_prompt(self) -> bool:
        """Whether people are asked, and only the client can bring a request before one."""
        return self._evaluator.policy.asks and not self._approvals.notifies

    @property
    def approval_lifetime(self) -> float:
        """Seconds until an approval request expires; the approved call has to be made in that time."""
        return self._evaluator.policy.approval_lifetime

    async def _resume(self, batch: Batch, caller: Caller) -> BatchResult:
        """Return the calls that an earlier request made for the same list. They are not sent again."""
        if not batch.is_list:
            return BatchResult("", {})
        id_ = self._evaluator.batch_id(batch, caller.principal)
        return BatchResult(id_, {change.number: change for change in await self._ledger.changes_of(id_)})

    async def _decided(self, waiting: PendingApproval, began: float, caller: Caller, report: Report) -> bool:
        """Wait until people have decided about a request, for as long as a call that `began` then may wait."""
        until = min(began + self._evaluator.policy.approval_wait, waiting.until)
        if self._system.timestamp() >= until:
            return False
        await report("Waiting for a person to decide", 0, None)
        wait = partial(self.decisions.decided, waiting.request, until)
        async with caller.waiting():
            return await (caller.link(waiting, wait) if caller.link is not None and waiting.needs_link else wait())

    async def _evaluate(
        self, batch: Batch, caller: Caller, skip: Collection[int], said: SpanFacts, *, reads: bool = False
    ) -> Evaluation:
        """Evaluate the remaining calls of a batch. Without `reads`, skip the reads if the policy needs no facts.

        Raises a `FastnError` if the policy or the caller's scopes deny any of the calls.
        """
        for number, call in enumerate(batch.calls, 1):
            if number not in skip:
                caller.check(call.tool_name(), call.effective)
        evaluation = None if reads else await self._evaluator.at_once(batch, caller.principal)
        evaluation = evaluation or await self._evaluator.evaluate(batch, caller.principal, skip)
        for current in evaluation.calls.values():
            caller.check(current.call.tool_name(), current.effect)
        said |= _decided(evaluation.effect, evaluation.verdict)
        self._evaluator.raise_if_denied(evaluation)
        return evaluation

    async def _reevaluate(self, call: Call, caller: Caller) -> CallEvaluation:
        caller.check(call.tool_name(), call.effective)
        current = await self._evaluator.evaluate_call(call, caller.principal)
        caller.check(call.tool_name(), current.effect)
        if current.verdict.decision is Decision.DENY:
            raise self._evaluator.refused(call, current.verdict)
        return current

    def _delivered(self, call: Call, result: FastnObject) -> FastnObject:
        try:
            return result if self._delivery is None else self._delivery(call, result)
        except OSError as error:
            raise AppliedUnreadable(
                f"The key was created, but no file could be written for it ({type(error).__name__}).",
                "Revoke it with revoke_api_key, and tell the operator.",
                facts={"settle": {"tool": "list_api_keys", "arguments": {}}},
            ) from error

    def _span(self, call: Tool[Any]) -> AbstractContextManager[SpanFacts]:
        said: SpanFacts = {"operation": call.tool_name(), "effect": call.effective.value}
        return self._system.span("guard", call.tool_name(), said)

    @contextmanager
    def _fail_closed(self, call: Tool[Any], caller: Caller) -> Generator[None]:
        """Record each refusal, and turn any unexpected error into one. Nothing is sent within this block."""
        try:
            yield
        except Unwritten:
            raise
        except FastnError as error:
            self._recorder.not_sent(call, caller, error)
            raise
        except Exception as error:
            log.exception("the guard failed on %s", call.tool_name())
            raise Refused(
                f"Internal error in the guard ({type(error).__name__}).",
                "Tell the operator; the server log has the details.",
            ) from error


def _decided(effect: Effect, verdict: PolicyDecision) -> SpanFacts:
    return {"effect": effect.value, "decision": verdict.decision.value, "rule": verdict.rule}
