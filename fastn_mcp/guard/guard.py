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

from fastn_mcp.audit.log import Unwritten
from fastn_mcp.client.client import FastnClient
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.approval.obtain import Approvals
from fastn_mcp.guard.approval_form import PendingApproval, PendingForm
from fastn_mcp.guard.approval_use import Approval, change_of
from fastn_mcp.guard.batch import Batch, BatchResult, CallEvaluation, Done, Evaluation, NotDone, batch_refusal, refusal
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluator, rereads
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.key_files import CallSecrets
from fastn_mcp.guard.preview import stopped_triggers
from fastn_mcp.guard.recorder import Intent, Recorder
from fastn_mcp.ledger.change import MADE_OUTCOMES, Change
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.runtime import Report, SpanFacts, System, no_progress
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.tool import Effect, Tool

log = logging.getLogger(__name__)

WAITING_FOR_PERSON = "Waiting for a person to decide."
"""Beginning of the progress report that says where a person decides."""

_FRESH = 5.0
"""Seconds from the beginning of an evaluation after which a call of a list is evaluated again."""

_MERGE_WITHIN = 1.0
"""Seconds from the same moment after which an update reads its target again, which somebody else may have changed."""


class Guard:
    """Evaluates, approves, records and sends the calls on one account."""

    def __init__(
        self,
        evaluator: Evaluator,
        approvals: Approvals,
        recorder: Recorder,
        journal: ChangeJournal,
        client: FastnClient,
        secrets: CallSecrets,
        system: System,
    ) -> None:
        self.evaluator = evaluator
        self.tools = evaluator.tools
        self._approvals = approvals
        self._recorder = recorder
        self._journal = journal
        self._client = client
        self._secrets = secrets
        self._system = system
        self.decisions = approvals.decisions

    async def execute(
        self, batch: Batch, caller: Caller, report: Report = no_progress
    ) -> BatchResult | PendingForm | PendingApproval:
        """Send the permitted calls, or return the open approval request. Raises if no call was attempted.

        1. Resume: leave out the calls that an earlier request for the same list made.
        2. Evaluate the others. Raise if the caller's scopes or the policy deny one of them.
        3. Obtain an approval: from the policy, a plan, a temporary approval or a person. While a person decides, wait,
           then evaluate again; return the request if it is still open.
        4. Check that the approval covers the calls as they are now.
        5. Send each call once (`_send_once`). If nothing was sent because other calls used up what allowed a single
           call, begin again: the policy may ask, refuse or allow it now.
        """
        began = self._system.timestamp()
        with _span(self._system, batch.tool) as span, self._fail_closed(batch.tool, caller):
            execution = await self._resume(batch, caller)
            if len(execution.results) == len(batch.calls):
                return execution
            if batch.is_list:
                span["calls"] = len(batch.calls) - len(execution.results)
            await self._recorder.anchor()
            evaluation = await self._evaluate(batch, caller, execution.results, span)
            approval = await self._approvals.obtain(evaluation, caller)
            while isinstance(approval, PendingApproval) and await self._wait_for_decision(
                approval, began, caller, report
            ):
                caller = replace(caller, form=None, link=None)  # the answer is in the ledger
                evaluation = await self._evaluate(batch, caller, execution.results, span, reads=True)
                approval = await self._approvals.obtain(evaluation, caller)
            if not isinstance(approval, Approval):
                span["outcome"] = "approval_required"
                if isinstance(approval, PendingApproval):
                    self._recorder.waits(batch.tool, caller, approval.preview)
                return approval
            if approval.has_waited:
                evaluation = await self._evaluate(batch, caller, execution.results, span, reads=True)
            await self._approvals.uses.check(approval, evaluation)
            if batch.is_list and approval.request is not None and not approval.request.used:
                self._recorder.agreed(batch.tool, approval.request, approval.by)
            span.update(_approval_facts(approval.by, approval.request and approval.request.trace))
        if await self._send_each(evaluation, approval, execution, caller, report):
            return execution
        return await self.execute(batch, caller, report)

    async def _send_each(
        self, evaluation: Evaluation, approval: Approval, execution: BatchResult, caller: Caller, report: Report
    ) -> bool:
        """Send the calls of a batch, up to the first failure, and add their results to `execution`.

        False if nothing was sent, since other calls used up the budget or plan entry that allowed a single call.
        """
        batch = evaluation.batch
        for number, call in evaluation.calls.items():
            if batch.is_list:
                await report(f"{number} of {len(batch.calls)}: {call.call.tool_name()}", number, len(batch.calls))
            try:
                done = await self._send_once(number, evaluation, approval, execution, caller)
            except FastnError as error:
                execution.results[number] = NotDone(error)
                if error.outcome not in MADE_OUTCOMES and not batch.keep_going:
                    break
            else:
                if done is None:
                    return False
                execution.results[number] = done
        return True

    async def _send_once(
        self, number: int, evaluation: Evaluation, approval: Approval, execution: BatchResult, caller: Caller
    ) -> Done | None:
        """Send one approved call at most once, and record it before and after. Raises its error if it does not succeed.

        None if other calls used up the budget or plan entry that allowed a single call. A call of a list is then
        evaluated again, as it is if its evaluation is not fresh or others, which may change its target, were sent.
        """
        is_list, current, use = evaluation.batch.is_list, evaluation.calls[number], self._approvals.uses.use
        call = current.call
        with (
            _span(self._system, call) if is_list else nullcontext(SpanFacts()) as span,
            self._fail_closed(call, caller),
        ):
            is_stale = is_list and self._system.timestamp() - current.began > _FRESH
            if is_stale or any(not isinstance(each, Change) for each in execution.results.values()):
                reads = rereads(evaluation, number, self._client.send)
                current = await self._reevaluate(call, caller, evaluation.digest, reads)
            span.update(_decision_facts(current))
            filled = await self._secrets.fill(call, current.resolved.typed, approval.request)
            while (approved := await use(approval, number, current, evaluation, caller.asker)) is None:
                if not is_list:
                    return None
                current = await self._reevaluate(call, caller, evaluation.digest)
            span.update(_approval_facts(approved.by, approved.trace))
            account, deadline = self._journal.account, self._client.deadline(call)
            change = await change_of(approved, account, self._client.send, deadline, self._system)
            change = replace(change, stopped_triggers=_stopped_triggers(current, approval, number, execution))
            await self._journal.begin(change, evaluation.batch.undoes)
        intent, is_sent = None, False
        try:
            intent = self._recorder.intent(approved, change.id)
            await self._recorder.anchor()
            self.evaluator.ai_sessions.note(call, None)
            is_sent = True  # from here on, the request may have left this process
            check = partial(self._approvals.stops.check, caller.asker, approved.stops)
            is_fresh = self._system.timestamp() - current.began <= _MERGE_WITHIN
            result = await self._client.send(filled, check, current.resolved.target if is_fresh else None)
        except BaseException as error:
            await self._record_failure(error, change, intent, caller, is_sent=is_sent)
            raise
        self.evaluator.ai_sessions.note(call, result)
        self._recorder.outcome(intent, "done", result=result)
        change = await self._journal.end(change, "done", result, caller.delivery)
        await self._recorder.settle()
        return Done(self._secrets.deliver(call, result), change)

    async def _record_failure(
        self, error: BaseException, change: Change, intent: Intent | None, caller: Caller, *, is_sent: bool
    ) -> None:
        outcome, message = ("unknown_outcome", type(error).__name__) if is_sent else ("cancelled", "")
        if isinstance(error, FastnError):
            outcome, message = error.outcome, error.what
        self._recorder.outcome(intent, outcome, message)
        await self._journal.end(change, outcome, delivery=caller.delivery)
        if is_sent and isinstance(error, FastnError):
            await self._recorder.settle()

    async def preview(self, batch: Batch, caller: Caller) -> Evaluation | BatchResult:
        """Evaluate a batch by fresh reads, without sending it. Return the earlier results if all calls were made."""
        execution = await self._resume(batch, caller)
        if len(execution.results) == len(batch.calls):
            return execution
        evaluation = await self.evaluator.evaluate(batch, caller.asker, execution.results)
        is_stopped = await self._approvals.stops.facts(caller.asker) is not None
        return replace(await self.evaluator.describe(evaluation), is_stopped=is_stopped)

    async def read(self, call: Call, caller: Caller) -> FastnObject:
        """Send a read call. Raises a `FastnError`."""
        self.check_read(call, caller)
        self._recorder.read()
        return await self._client.send(call)

    def check_read(self, call: Call, caller: Caller) -> None:
        """Raise a `FastnError` if the caller may not make this read, also if its answer is stored."""
        with self._fail_closed(call, caller):
            if call.effect is not Effect.READ:
                raise Refused(f"{call.tool_name()} is not a read. Nothing was sent.")
            caller.check(call.tool_name(), call.effective)

    async def allowance(self, asker: Asker) -> dict[str, JsonValue]:
        """Return the mode, a stop, what is left of budgets and plans, and the caller's requests.

        Raises a `FastnError`.
        """
        try:
            return await self._approvals.allowance(asker)
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
        channel = self._approvals.channel
        return self.evaluator.policy.asks and not (channel is not None and channel.capabilities.notifies)

    async def _resume(self, batch: Batch, caller: Caller) -> BatchResult:
        """Return the calls that an earlier request made for the same list. They are not sent again."""
        if not batch.is_list:
            return BatchResult("", {})
        id_ = self.evaluator.batch_id(batch, caller.asker)
        return BatchResult(id_, {change.number: change for change in await self._journal.changes_of(id_)})

    async def _wait_for_decision(self, pending: PendingApproval, began: float, caller: Caller, report: Report) -> bool:
        """Wait until people have decided about a request, for as long as a call that `began` then may wait."""
        until = min(began + self.evaluator.policy.approval_wait, pending.until)
        leads = caller.link is not None and pending.needs_link
        if caller.undoes or self._system.timestamp() >= until or (pending.tells_first and not leads):
            return False
        await report(f"{WAITING_FOR_PERSON} {pending.where}", 0, None)
        wait = partial(self.decisions.decided, pending.request, caller.asker, until)
        async with caller.waiting():
            return await (caller.link(pending, wait) if caller.link is not None and leads else wait())

    async def _evaluate(
        self, batch: Batch, caller: Caller, skip: Collection[int], span: SpanFacts, *, reads: bool = False
    ) -> Evaluation:
        """Evaluate the remaining calls of a batch. Without `reads`, skip the reads if the policy needs no facts.

        Raises a `FastnError` if the policy or the caller's scopes deny any of the calls.
        """
        for number, call in enumerate(batch.calls, 1):
            if number not in skip:
                caller.check(call.tool_name(), call.effective)
        await self._approvals.stops.check(caller.asker)
        evaluation = None if reads else await self.evaluator.evaluate_without_reads(batch, caller.asker)
        evaluation = evaluation or await self.evaluator.evaluate(batch, caller.asker, skip)
        for current in evaluation.calls.values():
            caller.check(current.call.tool_name(), *current.effects)
        span.update(_decision_facts(evaluation))
        if evaluation.verdict.decision is Decision.DENY:
            raise batch_refusal(evaluation, self.evaluator.policy)
        return evaluation

    async def _reevaluate(self, call: Call, caller: Caller, request: str, reads: Send | None = None) -> CallEvaluation:
        """Evaluate a call of a list again, whose approval request is that of the digest `request`."""
        current = await self.evaluator.evaluate_call(call, caller.asker, reads=reads, request=request)
        caller.check(call.tool_name(), *current.effects)
        if current.verdict.decision is Decision.DENY:
            raise refusal(current, self.evaluator.policy)
        return current

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


def _span(system: System, call: Tool[Any]) -> AbstractContextManager[SpanFacts]:
    facts: SpanFacts = {"operation": call.tool_name(), "effect": call.effective.value}
    return system.span("guard", call.tool_name(), facts)


def _decision_facts(evaluation: Evaluation | CallEvaluation) -> SpanFacts:
    verdict = evaluation.verdict
    return {"effect": evaluation.effect.value, "decision": verdict.decision.value, "rule": verdict.rule}


def _stopped_triggers(
    current: CallEvaluation, approval: Approval, number: int, execution: BatchResult
) -> tuple[str, ...]:
    """Return the live triggers that a deletion switches off, with the deletions of its list before it."""
    if current.call.route.method != "DELETE" or current.preview is None:
        return ()
    made = (each.change if isinstance(each, Done) else each for each in execution.results.values())
    gone = {each.target for each in made if isinstance(each, Change) and each.outcome in MADE_OUTCOMES}
    return stopped_triggers(approval.request.preview if approval.request else current.preview.stored(), number, gone)


def _approval_facts(by: str, trace: str | None) -> SpanFacts:
    return {"outcome": "admitted", "approved_by": by, "asked": trace}
