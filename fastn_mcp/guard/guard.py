"""The guard: the only code that changes an account. `execute` handles a call of an agent, or a list of calls;
`_send_once` sends each.

Fails closed: an error before a call is sent is a refusal; an unexpected error after that is an unknown outcome.
"""

import logging
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import JsonValue

from fastn_mcp.audit.log import Unwritten
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.reads import RecordedReads
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.approval.obtain import Approvals
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluation, denial, refusal
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.judge import Judge, rereads
from fastn_mcp.guard.key_files import CallSecrets
from fastn_mcp.guard.permission import Permission, new_change, target_changed
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.guard.result import CallOutcome, Done, ListResult
from fastn_mcp.ledger.change import MADE_OUTCOMES, Change
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.runtime import Report, SpanFacts, System, no_progress
from fastn_mcp.tools.operation import Call, Operation
from fastn_mcp.tools.tool import Effect, Tool

log = logging.getLogger(__name__)

WAITING_FOR_PERSON = "Waiting for a person to decide."
"""Beginning of the progress report that says where a person decides."""

_FRESH = 5.0
"""Seconds from the beginning of an evaluation after which a call of a list is evaluated again."""

_MERGE_WITHIN = 1.0
"""Seconds from the same moment after which an update reads its target again, which somebody else may have changed."""


class Guard:
    """Judges, approves, records and sends the calls on one account."""

    def __init__(
        self,
        judge: Judge,
        approvals: Approvals,
        recorder: Recorder,
        journal: ChangeJournal,
        client: FastnClient,
        secrets: CallSecrets,
        system: System,
    ) -> None:
        self.judge = judge
        self.tools = judge.tools
        self._approvals = approvals
        self._recorder = recorder
        self._journal = journal
        self._client = client
        self._secrets = secrets
        self._system = system
        self._permissions = approvals.permissions
        self.decisions = approvals.decisions

    async def execute(
        self, tool: Tool[Any], caller: Caller, report: Report = no_progress, undoes: Change | None = None
    ) -> Done | ListResult | PendingApproval:
        """Send a call, or the calls of a list, if they are permitted. Return the open approval request if not yet.

        1. Leave out the calls that an earlier call of the same list made; of a single call, none.
        2. Judge the others. Raise if the caller's scopes or the policy deny one of them.
        3. Obtain an approval: from the policy, a plan, a temporary approval or a person. While a person decides, wait,
           then judge again; return the request if it is still open.
        4. Check that the approval covers the calls as they are now.
        5. Send each call once (`_send_once`). If nothing was sent because other calls used up what allowed a single
           call, begin again: the policy may ask, refuse or allow it now.

        `undoes`: the earlier change that the call undoes. Raises a `FastnError` if no call was attempted, or if the
        single call failed.
        """
        began = self._system.timestamp()
        with _span(self._system, tool) as span, self._fail_closed(tool, caller):
            made = await self._made_before(tool, caller)
            if made.is_complete:
                return made
            if tool.inner_calls:
                span["calls"] = len(made.calls) - len(made.outcomes)
            await self._recorder.anchor()
            evaluation, permission = await self._permitted(
                tool, caller, report, made=made, undoes=undoes, began=began, span=span
            )
            if not isinstance(permission, Permission):
                return permission
            if not await self._permissions.still_covers(permission, evaluation):
                preview = (await self.judge.questions.with_question(evaluation)).agent_question.data_for_agent()
                raise target_changed("See the preview. Call again for a new approval request.", {"preview": preview})
            if evaluation.is_list and permission.request is not None and not permission.request.used:
                self._recorder.agreed(tool, permission.request, permission.by)
            span.update(_permission_facts(permission))
        if evaluation.is_list:
            await self._send_list(evaluation, permission, made, caller=caller, report=report)
            return made
        done = await self._send_once(evaluation, evaluation, permission, made=made, caller=caller)
        return done or await self.execute(tool, caller, report, undoes)

    async def _permitted(
        self,
        tool: Tool[Any],
        caller: Caller,
        report: Report,
        made: ListResult,
        undoes: Change | None,
        *,
        began: float,
        span: SpanFacts,
    ) -> tuple[Evaluation, Permission | PendingApproval]:
        """Judge the calls and obtain what permits them. Judge them again once a person has decided."""
        evaluation = await self._evaluate(tool, caller, made, undoes=undoes, span=span)
        obtained = await self._approvals.obtain(evaluation, caller)
        while isinstance(obtained, PendingApproval) and await self._wait_for_decision(obtained, began, caller, report):
            caller = replace(caller, form=None, link=None)  # the answer is in the ledger
            evaluation = await self._evaluate(tool, caller, made, undoes=undoes, span=span, must_read=True)
            obtained = await self._approvals.obtain(evaluation, caller)
        if isinstance(obtained, Permission):
            if obtained.has_waited:
                evaluation = await self._evaluate(tool, caller, made, undoes=undoes, span=span, must_read=True)
            return evaluation, obtained
        span["outcome"] = "approval_required"
        if obtained.request.out_of_band:
            self._recorder.waits(tool, caller, obtained.request.question)
        return evaluation, obtained

    async def _send_list(
        self, evaluation: Evaluation, permission: Permission, made: ListResult, caller: Caller, report: Report
    ) -> None:
        """Send the calls of a list, up to the first failure, and add their outcomes to `made`."""
        count = len(made.calls)
        for one in evaluation.calls:
            await report(f"{one.number} of {count}: {one.call.tool_name()}", one.number, count)
            try:
                done = await self._send_once(one, evaluation, permission, made=made, caller=caller)
            except FastnError as error:
                made.outcomes[one.id] = error
                if error.outcome not in MADE_OUTCOMES:
                    return
            else:
                if done is not None:
                    made.outcomes[one.id] = done

    async def _send_once(
        self, current: Evaluation, evaluation: Evaluation, permission: Permission, made: ListResult, caller: Caller
    ) -> Done | None:
        """Send one permitted call of an evaluation at most once, and record it before and after. Raises its error.

        `current` is the evaluation of this call; `evaluation` that of its list, or of the same call. A call of a list
        is judged again if its evaluation is not fresh, if a call before it was sent, which may have changed its
        target, or if other calls used up the budget or plan entry that allowed it. None if they did so for a single
        call.
        """
        call = current.call
        asker = caller.asker
        is_list = evaluation.is_list
        with (
            _span(self._system, call) if is_list else nullcontext(SpanFacts()) as span,
            self._fail_closed(call, caller),
        ):
            is_stale = is_list and self._system.timestamp() - current.began > _FRESH
            if is_stale or made.has_sent:
                reads = rereads(evaluation, current, self._client.send)
                current = await self._judge_again(current, caller, evaluation.id, reads)
            span.update(_decision_facts(current))
            stop_epoch = await self._permissions.check_stops(permission, asker)
            filled = await self._secrets.fill(call, current.resolved.typed, permission.request)
            change = await self._new_change(current, evaluation, permission, made=made, asker=asker)
            while not await self._permissions.begin(change, permission, current, evaluation, asker):
                if not is_list:
                    return None
                current = await self._judge_again(current, caller, evaluation.id)
                change = await self._new_change(current, evaluation, permission, made=made, asker=asker)
            span.update(_permission_facts(permission))
        intent = None
        began = self._system.monotonic()
        is_sent = False
        record = partial(self._recorder.outcome, current, change, asker, began=began)
        try:
            intent = self._recorder.intent(current, change, asker)
            await self._recorder.anchor()
            self.judge.ai_sessions.note(call, None)
            is_sent = True  # from here on, the request may have left this process
            check = partial(self._approvals.stops.check, asker, stop_epoch)
            is_fresh = self._system.timestamp() - current.began <= _MERGE_WITHIN
            result = await self._client.send(filled, check, current.resolved.target if is_fresh else None)
        except BaseException as error:
            outcome, message = _failure(error, is_sent=is_sent)
            if intent is not None:
                record(intent=intent, outcome=outcome, message=message)
            await self._journal.end(change, outcome, delivery=caller.delivery)
            if is_sent and isinstance(error, FastnError):
                await self._recorder.settle()
            raise
        self.judge.ai_sessions.note(call, result)
        if intent is not None:
            record(intent=intent, outcome="done", result=result)
        change = await self._journal.end(change, "done", result, caller.delivery)
        await self._recorder.settle()
        return Done(self._secrets.deliver(call, result), change)

    async def _new_change(
        self, current: Evaluation, evaluation: Evaluation, permission: Permission, made: ListResult, asker: Asker
    ) -> Change:
        """Return the change of a call that is about to begin, with the state before it."""
        return await new_change(
            current,
            permission,
            list_id=evaluation.id if evaluation.is_list else "",
            asker=asker,
            account=self._journal.account,
            read=self._client.send,
            deadline=self._client.deadline(current.call),
            system=self._system,
            stopped=await self._stopped_triggers(current, permission, made),
        )

    async def _stopped_triggers(self, current: Evaluation, permission: Permission, made: ListResult) -> tuple[str, ...]:
        """Return the live triggers that a deletion switches off, with the deletions of its list before it."""
        if current.call.route.method != "DELETE" or not current.binding:
            return ()
        gone: set[str | None] = set()
        for outcome in made.outcomes.values():
            change = outcome.change if isinstance(outcome, Done) else outcome
            if isinstance(change, Change) and change.outcome in MADE_OUTCOMES:
                gone.add(change.target)
        if permission.request is not None:
            return permission.request.question.call(current.number).stopped_triggers(gone)
        return (await self.judge.questions.with_question(current)).people_question.stopped_triggers(gone)

    async def preview(self, tool: Tool[Any], caller: Caller, undoes: Change | None = None) -> Evaluation | ListResult:
        """Judge a call or a list by fresh reads, without sending it. Return the outcomes if all calls were made."""
        made = await self._made_before(tool, caller)
        if made.is_complete:
            return made
        evaluation = await self.judge.judge(tool, caller.asker, made, undoes)
        is_stopped = await self._approvals.stops.facts(caller.asker) is not None
        return replace(await self.judge.questions.describe(evaluation), is_stopped=is_stopped)

    async def read(self, call: Call, caller: Caller) -> FastnObject:
        """Send a read call. Raises a `FastnError`."""
        self.check_read(call, caller)
        self._recorder.read()
        return await self._client.send(call)

    def check_read(self, call: Call, caller: Caller) -> None:
        """Raise a `FastnError` if the caller may not make this read, also if its answer is stored."""
        with self._fail_closed(call, caller):
            if call.effect is not Effect.READ:
                raise Refused(f"{call.tool_name()} is not a reading tool. Nothing was sent.")
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
        return self.judge.policy.asks and not (channel is not None and channel.capabilities.notifies)

    async def _made_before(self, tool: Tool[Any], caller: Caller) -> ListResult:
        """Return the calls that an earlier request made for the same list. They are not sent again."""
        list_id, call_ids = self.judge.list_ids(tool, caller.asker)
        outcomes: dict[str, CallOutcome] = {}
        if list_id:
            for change in await self._journal.changes_of(list_id):
                outcomes[change.call_id] = change
        return ListResult(list_id, call_ids, outcomes)

    async def _wait_for_decision(self, pending: PendingApproval, began: float, caller: Caller, report: Report) -> bool:
        """Wait until people have decided about a request, for as long as a call that `began` then may wait."""
        if not pending.request.out_of_band:
            return False
        until = min(began + self.judge.policy.approval_wait, pending.request.expires)
        leads = caller.link is not None and pending.needs_link
        if caller.undoes or self._system.timestamp() >= until or (pending.tells_first and not leads):
            return False
        await report(f"{WAITING_FOR_PERSON} {pending.where}", 0, None)
        wait = partial(self.decisions.decided, pending.request.id, caller.asker, until)
        async with caller.waiting():
            return await (caller.link(pending, wait) if caller.link is not None and leads else wait())

    async def _evaluate(
        self,
        tool: Tool[Any],
        caller: Caller,
        made: ListResult,
        undoes: Change | None,
        span: SpanFacts,
        *,
        must_read: bool = False,
    ) -> Evaluation:
        """Judge the calls that are not made yet. Unless it `must_read`, skip the reads if the policy needs no facts.

        Raises a `FastnError` if the policy or the caller's scopes deny any of the calls.
        """
        for number, call in enumerate(tool.inner_calls or (tool,)):
            if not made.calls or made.calls[number] not in made.outcomes:
                caller.check(call.tool_name(), call.effective)
        await self._approvals.stops.check(caller.asker)
        evaluation = None
        if isinstance(tool, Operation) and not must_read:
            evaluation = await self.judge.judge_by_arguments(tool, caller.asker, undoes)
        if evaluation is None:
            evaluation = await self.judge.judge(tool, caller.asker, made, undoes)
        for one in evaluation.calls:
            caller.check(one.call.tool_name(), *one.effects)
        span.update(_decision_facts(evaluation))
        if evaluation.verdict.decision is Decision.DENY:
            raise denial(evaluation, self.judge.policy)
        return evaluation

    async def _judge_again(
        self, earlier: Evaluation, caller: Caller, list_id: str, reads: RecordedReads | None = None
    ) -> Evaluation:
        """Judge a call of a list again, right before it is sent."""
        call = earlier.call
        current = await self.judge.judge_call(call, caller.asker, reads=reads, list_id=list_id)
        current = replace(current, number=earlier.number)
        caller.check(call.tool_name(), *current.effects)
        if current.verdict.decision is Decision.DENY:
            raise refusal(current, self.judge.policy)
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


def _decision_facts(evaluation: Evaluation) -> SpanFacts:
    verdict = evaluation.verdict
    return {"effect": evaluation.effect.value, "decision": verdict.decision.value, "rule": verdict.rule}


def _permission_facts(permission: Permission) -> SpanFacts:
    trace = None if permission.request is None else permission.request.trace
    return {"outcome": "admitted", "approved_by": permission.by, "asked": trace}


def _failure(error: BaseException, *, is_sent: bool) -> tuple[str, str]:
    """Return the outcome of a call that raised an error, and the message for the audit log."""
    if isinstance(error, FastnError):
        return error.outcome, error.what
    return ("unknown_outcome", type(error).__name__) if is_sent else ("cancelled", "")
