"""Decide about calls before they are sent: evaluate, refuse, or obtain an approval. Knows no HTTP and no MCP.

Fail closed: whatever goes wrong on the way to a consent, the call is not sent, and that is said.
"""

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import JsonValue

from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.fastn.targets import Call
from fastn_mcp.guard.approval.batch import Agreed, BatchApproval, BatchCalls
from fastn_mcp.guard.approval.flow import ApprovalFlow, ApprovalRequest, Approved, Caller, OutOfBandChannel
from fastn_mcp.guard.approval.request import Asking, PendingApproval, extent
from fastn_mcp.guard.audit.log import Unwritten
from fastn_mcp.guard.audit.recorder import Consent, Recorder
from fastn_mcp.guard.changes import BatchStep
from fastn_mcp.guard.evaluation import BudgetCheck, Evaluator, Facts
from fastn_mcp.guard.ledger.ledger import Ledger, Scope
from fastn_mcp.guard.policy import Decision, PolicyDecision
from fastn_mcp.guard.preview import ListPreview, Preview
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect, FastnObject, Tool

log = logging.getLogger(__name__)


class Guard:
    """Decides about the calls on one account."""

    def __init__(
        self, judge: Evaluator, ledger: Ledger, recorder: Recorder, system: System, desk: OutOfBandChannel | None
    ) -> None:
        self._judge = judge
        self._ledger = ledger
        self._recorder = recorder
        self._system = system
        self._allowing = BudgetCheck(judge, ledger)
        self._asker = ApprovalFlow(judge.bound_account, ledger, recorder, system, desk, judge.policy.approval_lifetime)
        self._together = BatchApproval(judge, ledger, self._asker, self._allowing, recorder, system)

    async def admit(self, call: Call, caller: Caller) -> Consent | Asking | PendingApproval:
        """The consent under which `call` may be sent now, or the question that has gone out.

        Raises a `FastnError` where the call may not be sent.
        """
        with self._failing_closed(call, caller):
            if call.effect is not Effect.READ:
                await self._recorder.anchor()
            return await self._admit(call, caller)

    def several(self, offer: Tool[Any], calls: Sequence[Call], name: str | None, caller: Caller) -> BatchCalls:
        """The batch that these calls are, in whatever process."""
        return self._together.several(offer, calls, name, caller.principal)

    async def agree(
        self, several: BatchCalls, numbers: Sequence[int], caller: Caller
    ) -> Agreed | Asking | PendingApproval:
        """By what right these calls of a batch may be made, or the one question about them that has gone out.

        Raises a `FastnError` where they may not all be made.
        """
        with self._failing_closed(several.offer, caller):
            await self._recorder.anchor()
            for number in numbers:
                caller.check(several.calls[number - 1].tool_name(), several.calls[number - 1].effective)
            return await self._together.agree(several, numbers, caller)

    async def admit_one(self, several: BatchCalls, number: int, agreed: Agreed, caller: Caller) -> Consent:
        """The consent under which one of the calls that were agreed to may be sent now. Raises a `FastnError`."""
        call = several.calls[number - 1]
        with self._failing_closed(call, caller):
            caller.check(call.tool_name(), call.effective)
            return await self._together.admit(several, number, agreed[number], caller)

    async def progress(self, several: BatchCalls, caller: Caller) -> Mapping[int, BatchStep]:
        """What became of the calls of a batch before. Raises a `FastnError`."""
        with self._failing_closed(several.offer, caller):
            return {step.number: step for step in await self._ledger.steps(several.id)}

    async def ended(self, several: BatchCalls, number: int, outcome: str, change: str | None = None) -> None:
        """Note what became of a call of a batch. It is over: what cannot be noted is logged, and counts as unknown."""
        try:
            await self._ledger.end_step(several.id, number, outcome, change, self._system.now().timestamp())
        except Exception:
            log.exception("the outcome %s of call %s of %s could not be noted", outcome, number, several.id)

    async def judged_together(self, several: BatchCalls, numbers: Sequence[int], principal: str) -> ListPreview:
        """What these calls of a batch would do: fresh reads, no question, nothing sent."""
        return await self._together.preview(several, numbers, principal)

    @contextmanager
    def _failing_closed(self, call: Tool[Any], caller: Caller) -> Generator[None]:
        try:
            yield
        except Unwritten:
            raise
        except FastnError as error:
            self._recorder.not_sent(call, caller.principal, error)
            raise
        except Exception as error:
            log.exception("the guard failed on %s", call.tool_name())
            raise Refused(
                f"The guard failed ({type(error).__name__}).", "Tell the operator: the log says more."
            ) from error

    async def allowance(self, principal: str) -> dict[str, JsonValue]:
        """The mode, and what is left of the budgets and of the plan. Raises a `FastnError`."""
        try:
            return await self._judge.allowance(principal)
        except FastnError:
            raise
        except Exception as error:
            log.exception("the budgets could not be read")
            raise Refused("The ledger could not be read.", "Tell the operator: the log says more.") from error

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask."""
        return self._judge.policy.asks

    @property
    def approval_lifetime(self) -> float:
        """Seconds in which a request can be answered, and the approved call made."""
        return self._judge.policy.approval_lifetime

    def answered(self, call: Call, result: FastnObject | None) -> None:
        """Remember of an answer what later calls are judged by; None once `call` is sent and not yet answered."""
        self._judge.ai_sessions.note(call, result)

    def digest(self, call: Call, caller: Caller) -> str:
        """Names this call of this caller, with exactly these arguments, on this account."""
        return self._judge.digest(call, caller.principal)

    async def judged(self, call: Call, principal: str = "local") -> tuple[PolicyDecision, Preview]:
        """What the policy says of `call`, and what it would do: fresh reads, no question, nothing sent."""
        facts = await self._judge.facts(call, principal)
        return facts.verdict, facts.preview

    async def _admit(self, call: Call, caller: Caller) -> Consent | Asking | PendingApproval:
        caller.check(call.tool_name(), call.effective)
        if (verdict := await self._judge.at_once(call, caller.principal)) is not None:
            return await self._allowing.allowed(call, caller.principal, verdict, call.effective)
        facts = await self._judge.facts(call, caller.principal)
        caller.check(call.tool_name(), facts.effect)
        if facts.verdict.decision in (Decision.ALLOW, Decision.DENY):
            return await self._allowed(call, caller, facts)
        if (scope := await self._scope(call, caller, facts)) is not None:
            await self._allowing.spend(facts.effect, caller.principal)
            return Consent("scope", facts.verdict, facts.effect, scope.id, facts.target, facts.preview.name)
        await self._allowing.spend_rate(facts.effect, caller.principal, is_check=True)
        given = await self._asker.ask(self._matter(call, caller, facts), caller)
        return await self._approved(call, caller, facts, given) if isinstance(given, Approved) else given

    async def _approved(self, call: Call, caller: Caller, facts: Facts, given: Approved) -> Consent:
        """Spend an approval. What was approved must still be what is there."""
        if not given.fresh:
            facts = await self._judge.facts(call, caller.principal)
            if facts.verdict.decision is Decision.DENY:
                return await self._allowed(call, caller, facts)
        await self._asker.spend(given, self._matter(call, caller, facts))
        # Only now: repeats of one approval must not use up the budget of others.
        await self._allowing.spend(facts.effect, caller.principal)
        grant, name = given.grant, facts.preview.name
        return Consent(given.by, facts.verdict, facts.effect, grant.id, facts.target, name, grant.trace)

    async def _allowed(self, call: Call, caller: Caller, facts: Facts) -> Consent:
        return await self._allowing.allowed(
            call, caller.principal, facts.verdict, facts.effect, facts.target, facts.preview.name
        )

    async def _scope(self, call: Call, caller: Caller, facts: Facts) -> Scope | None:
        answered = caller.form is not None and caller.form.resumed is not None
        if call.target is None or not facts.may_scope or answered:
            return None
        now, similar = self._system.now().timestamp(), self._judge.similar(call, caller.principal, facts)
        return await self._ledger.scope_of(
            caller.principal, self._judge.bound_account, call.tool_name(), call.target, similar, now
        )

    def _matter(self, call: Call, caller: Caller, facts: Facts) -> ApprovalRequest:
        return ApprovalRequest(
            call,
            self._judge.digest(call, caller.principal),
            self._judge.binding(call, caller.principal, facts),
            facts.verdict,
            facts.effect,
            facts.preview,
            self._judge.similar(call, caller.principal, facts) if facts.may_scope else None,
            extent(call),
        )
