"""Stands between an agent and everything that changes something. Knows no HTTP and no MCP.

Fail closed: whatever goes wrong on the way to a consent, the call is not sent, and that is said.
"""

import hashlib
import logging
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.errors import Declined, FastnError, Refused, TargetChanged
from fastn_mcp.guard import four_eyes
from fastn_mcp.guard.audit import Unwritten
from fastn_mcp.guard.judging import Facts, Judge
from fastn_mcp.guard.ledger import Grant, Ledger, Scope, State
from fastn_mcp.guard.plans import would_allow
from fastn_mcp.guard.policy import PLANNED, Decision, Verdict
from fastn_mcp.guard.preview import Preview, state
from fastn_mcp.guard.question import (
    Answer,
    Asking,
    No,
    Nobody,
    Question,
    Waiting,
    Yes,
    expected,
    for_a_while,
    question,
)
from fastn_mcp.guard.recording import Consent, Recorder
from fastn_mcp.guard.rights import Rights
from fastn_mcp.operation import Effect, Operation, Record
from fastn_mcp.system import System

log = logging.getLogger(__name__)

Call = Operation[Any]

LIFETIME = 600.0
"""Seconds in which a question can be answered, and the approved call made."""

_TOO_FAST = 1.0
"""Seconds within which nobody reads a question: such an answer comes from a program."""

_DISTRUST = 900.0
"""Seconds that a channel is left alone after it was found not to reach a person."""

_ANY_NUMBER = 1 << 31

_ASKABLE = (State.OPEN, State.APPROVED)


class Form(Protocol):
    """The client's own way to ask its person."""

    name: str
    surely_seen: bool
    """Whether what is asked is in front of a person, so that even a quick answer is one."""

    @property
    def resumed(self) -> tuple[str, Answer] | None:
        """The grant whose question this call answers, with the answer, where it does."""
        ...

    async def ask(self, question: Question) -> Answer | Asking:
        """Ask, and wait for the answer where that can be done."""
        ...


class Desk(Protocol):
    """Where questions lie that no form can ask: the approval page, a terminal, a webhook."""

    verifies: bool
    """Whether it tells people apart by credentials of theirs, so that two can be known to be two."""

    async def show(self, grant: str) -> str:
        """Bring a question before a person, and say where it is answered. Never a secret."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and the client's form, where it has one."""

    principal: str
    form: Form | None
    rights: Rights | None = None
    """What their sign-in allows; None where nobody signs in, since whoever has this process has the account."""

    def check(self, tool: str, effect: Effect) -> None:
        """Raises `InsufficientScope` where they may not make a call of this effect."""
        if self.rights is not None:
            self.rights.check(tool, effect)


class Guard:
    """Decides about the calls on one account."""

    def __init__(self, judge: Judge, ledger: Ledger, recorder: Recorder, system: System, desk: Desk | None) -> None:
        self._judge = judge
        self._ledger = ledger
        self._recorder = recorder
        self._system = system
        self._desk = desk

    async def admit(self, call: Call, caller: Caller) -> Consent | Asking | Waiting:
        """The consent under which `call` may be sent now, or the question that has gone out.

        Raises a `FastnError` where the call may not be sent.
        """
        try:
            return await self._admit(call, caller)
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
        except Exception as error:
            log.exception("the budgets could not be read")
            raise Refused("The ledger could not be read.", "Tell the operator: the log says more.") from error

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask."""
        return self._judge.policy.asks

    async def lost(self, call: Call, caller: Caller) -> None:
        """Remember that the outcome of `call` is not known, so that it is not repeated unasked."""
        await self._judge.lost(call, caller.principal)

    async def judged(self, call: Call, principal: str = "local") -> tuple[Verdict, Preview]:
        """What the policy says of `call`, and what it would do: fresh reads, no question, nothing sent."""
        facts = await self._judge.facts(call, principal)
        return facts.verdict, facts.preview

    async def _admit(self, call: Call, caller: Caller) -> Consent | Asking | Waiting:
        caller.check(call.tool_name(), call.effective)
        if (verdict := await self._judge.at_once(call, caller.principal)) is not None:
            return await self._allowed(call, caller, verdict, call.effective)
        facts = await self._judge.facts(call, caller.principal)
        caller.check(call.tool_name(), facts.effect)
        if facts.verdict.decision in (Decision.ALLOW, Decision.DENY):
            return await self._allowed(call, caller, facts.verdict, facts.effect, facts.target)
        if facts.verdict.decision is Decision.FOUR_EYES and not (self._desk and self._desk.verifies):
            raise Refused(
                f"{call.tool_name()} needs two people ({facts.verdict.rule}), and this server can tell none apart.",
                "The operator can set up a webhook with approvers; or a person does it in the dashboard.",
                facts={"preview": facts.preview.data()},
            )
        return await self._asked(call, caller, facts)

    async def _allowed(
        self, call: Call, caller: Caller, verdict: Verdict, effect: Effect, target: Record | None = None
    ) -> Consent:
        if verdict.decision is Decision.DENY:
            raise self._refused(call, verdict)
        if verdict.permit is not None and not await self._ledger.spend(
            verdict.permit.budget, PLANNED, verdict.permit.count
        ):
            raise self._refused(call, Verdict(Decision.DENY, verdict.rule, "All calls of this entry were made."))
        await self._spend(effect, caller.principal)
        return Consent("policy" if verdict.permit is None else "plan", verdict, effect, target=target)

    def _refused(self, call: Call, verdict: Verdict) -> Refused:
        facts: dict[str, JsonValue] = {"rule": verdict.rule}
        if not self._judge.policy.asks:
            facts["would_allow"] = would_allow(call)
        return Refused(
            f"The policy refuses it ({verdict.rule}). {verdict.reason}".strip(),
            "Only a person can change the policy." if self._judge.policy.asks else "Go on with the rest; report this.",
            facts=facts,
        )

    async def _asked(self, call: Call, caller: Caller, facts: Facts) -> Consent | Asking | Waiting:
        now = self._system.now().timestamp()
        if caller.form is not None and (resumed := caller.form.resumed) is not None:
            return await self._resumed(call, caller, facts, *resumed)
        if (scope := await self._scope(call, caller, facts, now)) is not None:
            await self._spend(facts.effect, caller.principal)
            return Consent("scope", facts.verdict, facts.effect, scope.id, facts.target)
        form, why_not = caller.form, await self._why_no_form(caller, facts, now)
        if (earlier := await self._ledger.latest(self._digest(call, caller), now)) is not None:
            if form is None or why_not is not None or earlier.state is not State.OPEN:
                return await self._earlier(earlier, call, caller, facts)
            # The person is at a form now: what another client put elsewhere is not asked twice.
            await self._ledger.move(earlier.id, [State.OPEN], State.STALE, now, note="asked in a form instead")
        if form is None or why_not is not None:
            return await self._elsewhere(call, caller, facts, why_not or "")
        grant = self._grant(call, caller, facts, elsewhere=False)
        await self._open(grant, call, facts)
        given = await form.ask(_question(grant, facts))
        if isinstance(given, Asking):
            return given
        return await self._answered(call, caller, facts, grant, given)

    async def _why_no_form(self, caller: Caller, facts: Facts, now: float) -> str | None:
        """Why the client's form is not used, in words for the agent; None where it is."""
        if caller.form is None:
            return "This client cannot ask. "
        if facts.verdict.decision is Decision.OUT_OF_BAND:
            return "The policy wants it decided outside of the client. "
        if facts.verdict.decision is Decision.FOUR_EYES:
            return "The policy wants two people to approve it. "
        if await self._ledger.distrusted(caller.principal, caller.form.name, now):
            return "A form was closed lately before anybody could read it. "
        return None

    async def _resumed(
        self, call: Call, caller: Caller, facts: Facts, grant_id: str, answer: Answer
    ) -> Consent | Waiting:
        grant = await self._ledger.find(grant_id)
        if grant is None or grant.elsewhere or grant.call != self._digest(call, caller):
            raise Refused("There is no such approval of this call.", "Call again without it, to be asked anew.")
        return await self._answered(call, caller, facts, grant, answer)

    async def _answered(
        self, call: Call, caller: Caller, facts: Facts, grant: Grant, answer: Answer
    ) -> Consent | Waiting:
        """What follows from the answer that the client's form brought."""
        by = caller.form.name if caller.form else "client_form"
        now = self._system.now().timestamp()
        quick = now - grant.created < _TOO_FAST and not (caller.form and caller.form.surely_seen)
        if isinstance(answer, No) and quick:
            answer = Nobody("the form was declined faster than anybody reads")
        match answer:
            case Nobody(reason):
                await self._ledger.move(grant.id, _ASKABLE, State.UNANSWERED, now, by=by, note=reason)
                if quick or now >= grant.expires:
                    await self._ledger.distrust(caller.principal, by, now + _DISTRUST)
                return await self._elsewhere(call, caller, facts, f"Nobody answered: {reason}. ")
            case No(note):
                await self._decline(grant, now, by, note)
                raise _declined(note)
            case Yes(typed, minutes):
                if grant.expected is not None and typed != grant.expected:
                    await self._decline(grant, now, by, "another text was typed")
                    raise Declined("What was typed is not what was asked for.", "Ask the person, then call again.")
                if minutes and grant.scope and grant.target is not None:
                    await self._ledger.grant_scope(for_a_while(grant, self._system.token(), now, by))
        return await self._burn(call, caller, grant, by)

    async def _earlier(self, grant: Grant, call: Call, caller: Caller, facts: Facts) -> Consent | Waiting:
        """What became of a question that was put elsewhere."""
        if grant.state is State.DECLINED:
            raise _declined(grant.note or "")
        if grant.state is State.APPROVED:
            return await self._burn(call, caller, grant, grant.by or "elsewhere", facts)
        if not self._covers(grant, call, caller, facts):
            await self._ledger.move(grant.id, _ASKABLE, State.STALE, self._system.now().timestamp())
            return await self._elsewhere(call, caller, facts, "The target has changed since it was asked. ")
        return Waiting(facts.preview, "It still waits for an answer. " + await self._where(grant.id), grant.expires)

    async def _elsewhere(self, call: Call, caller: Caller, facts: Facts, why: str) -> Waiting:
        if self._desk is None:
            raise Refused(
                f"{why}{call.tool_name()} needs the approval of a person.",
                f"Use a client that shows forms, or a terminal: fastn-mcp call {call.tool_name()}",
                facts={"preview": facts.preview.data()},
            )
        grant = self._grant(call, caller, facts, elsewhere=True)
        await self._open(grant, call, facts)
        return Waiting(facts.preview, why + await self._where(grant.id), grant.expires)

    async def _open(self, grant: Grant, call: Call, facts: Facts) -> None:
        await self._ledger.open(grant)
        self._recorder.asked(call, grant.principal, facts.verdict, facts.effect, grant.id, facts.target)

    async def _where(self, grant: str) -> str:
        assert self._desk is not None  # noqa: S101 - only a desk opens what lies elsewhere
        return await self._desk.show(grant)

    async def _burn(self, call: Call, caller: Caller, grant: Grant, by: str, facts: Facts | None = None) -> Consent:
        """Spend an approval. A person takes time: what was approved must still be what is there."""
        facts = facts or await self._judge.facts(call, caller.principal)
        now = self._system.now().timestamp()
        if facts.verdict.decision is Decision.DENY:
            return await self._allowed(call, caller, facts.verdict, facts.effect)
        if not self._covers(grant, call, caller, facts) or await four_eyes.incomplete(grant, self._ledger):
            await self._ledger.move(grant.id, _ASKABLE, State.STALE, now)
            raise TargetChanged(
                "What was approved is no longer what is there.",
                "Look at the preview; call again to ask anew.",
                facts={"preview": facts.preview.data()},
            )
        if not await self._ledger.move(grant.id, _ASKABLE, State.BURNT, now, by=by):
            raise Refused("This approval was used already, or has run out.", "Call again to ask anew.")
        # Only now: repeats of one approval must not use up the budget of others.
        await self._spend(facts.effect, caller.principal)
        await self._ledger.note_answer(caller.principal, declined=False, now=now)
        return Consent(by, facts.verdict, facts.effect, grant.id, facts.target)

    async def _decline(self, grant: Grant, now: float, by: str, note: str) -> None:
        await self._ledger.move(grant.id, _ASKABLE, State.DECLINED, now, by=by, note=note or None)
        await self._ledger.note_answer(grant.principal, declined=True, now=now)

    async def _scope(self, call: Call, caller: Caller, facts: Facts, now: float) -> Scope | None:
        if call.target is None or not facts.may_scope:
            return None
        return await self._ledger.scope_of(caller.principal, self._judge.account, call.tool_name(), call.target, now)

    async def _spend(self, effect: Effect, principal: str) -> None:
        policy, judge = self._judge.policy, self._judge
        for limit, period in (
            (policy.limit(effect), judge.period(principal)),
            (policy.run_limit(effect), judge.run_period(principal)),
        ):
            if limit is None:
                continue
            # Beyond its budget, spending is asked about rather than refused: what was approved is counted and made.
            most = _ANY_NUMBER if effect is Effect.SPEND else limit
            if not await self._ledger.spend(effect.value, period, most):
                raise Refused(
                    f"The budget of {limit} calls that {effect.value} is used up.",
                    "A person can raise it in the policy.",
                )

    def _grant(self, call: Call, caller: Caller, facts: Facts, *, elsewhere: bool) -> Grant:
        now = self._system.now().timestamp()
        asks = facts.verdict.decision
        severe = asks in (Decision.OUT_OF_BAND, Decision.FOUR_EYES)
        typed = asks is Decision.TYPED or (severe and facts.effect is Effect.DESTROY)
        shown = facts.preview
        return Grant(
            id=self._system.token(),
            principal=caller.principal,
            account=self._judge.account,
            tool=call.tool_name(),
            target=call.target,
            call=self._digest(call, caller),
            binding=self._binding(call, caller, facts),
            asks=asks.value,
            expected=expected(shown) if typed else None,
            scope=facts.may_scope and call.target is not None,
            elsewhere=elsewhere,
            card=shown.data(),
            lines=tuple(shown.lines()),
            created=now,
            expires=now + LIFETIME,
        )

    def _digest(self, call: Call, caller: Caller) -> str:
        return self._judge.digest(call, caller.principal)

    def _covers(self, grant: Grant, call: Call, caller: Caller, facts: Facts) -> bool:
        """Whether a grant is still for this call on what is there, and asks no less than the policy wants now."""
        if four_eyes.less_than(grant.asks, facts.verdict.decision):
            return False
        return grant.binding == self._binding(call, caller, facts)

    def _binding(self, call: Call, caller: Caller, facts: Facts) -> str:
        """That, on which state of the target, under which policy."""
        return _sha256([self._digest(call, caller), state(facts.target), self._judge.policy.digest, facts.effect.value])


def _question(grant: Grant, facts: Facts) -> Question:
    return question(grant.id, facts.preview, Decision(grant.asks), scope=grant.scope)


def _declined(note: str) -> Declined:
    said = {"note": note} if note else {}
    return Declined("A person declined this call.", "Do not repeat it; ask what to do instead.", facts=said)


def _sha256(parts: object) -> str:
    return hashlib.sha256(to_json(parts)).hexdigest()
