"""Stands between an agent and everything that changes something. Knows no HTTP and no MCP.

Fail closed: whatever goes wrong on the way to a consent, the call is not sent, and that is said.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic_core import to_json

from fastn_mcp.errors import Declined, FastnError, NotFound, Refused, TargetChanged
from fastn_mcp.guard.ledger import Grant, Ledger, State
from fastn_mcp.guard.policy import Decision, Policy
from fastn_mcp.guard.question import Answer, Asking, No, Nobody, Question, Yes, ask
from fastn_mcp.operation import Operation, Record
from fastn_mcp.system import System

Call = Operation[Any]
TargetOf = Callable[[Call], Awaitable[Record | None]]

LIFETIME = 600.0
"""Seconds in which a question can be answered, and the approved call made."""


class Channel(Protocol):
    """A way to reach a person."""

    name: str

    @property
    def resumed(self) -> tuple[str, Answer] | None:
        """The grant whose question this call answers, with the answer, where it does."""
        ...

    async def ask(self, question: Question) -> Answer | Asking:
        """Ask, and wait for the answer where that can be done."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and how a person can be asked about it. `channel` is None where nobody can be."""

    principal: str
    channel: Channel | None


@dataclass(frozen=True, slots=True)
class Consent:
    """By what right a call is sent."""

    by: str
    grant: str | None = None


class Guard:
    """Decides about calls of one account, named by `account` in questions."""

    def __init__(self, policy: Policy, account: str, ledger: Ledger, system: System) -> None:
        self._policy = policy
        self._account = account
        self._ledger = ledger
        self._system = system

    async def admit(self, call: Call, caller: Caller, target_of: TargetOf) -> Consent | Asking:
        """The consent under which `call` may be sent now, or the question that has gone out.

        `target_of` reads what a call acts on. Raises a `FastnError` where the call may not be sent.
        """
        try:
            return await self._admit(call, caller, target_of)
        except FastnError:
            raise
        except Exception as error:
            raise Refused(
                f"The guard failed ({type(error).__name__}).", "Tell the operator: the log says more."
            ) from error

    async def _admit(self, call: Call, caller: Caller, target_of: TargetOf) -> Consent | Asking:
        decision = self._policy.decide(call.effective)
        match decision:
            case Decision.ALLOW:
                return Consent("policy")
            case Decision.DENY:
                raise Refused(
                    f"The mode {self._policy.mode} does not allow {call.tool_name()}.",
                    "A person can start it otherwise.",
                )
            case Decision.CONFIRM | Decision.TYPED:
                pass
        channel = caller.channel
        if channel is None:
            raise Refused(
                f"{call.tool_name()} needs the approval of a person, and this client cannot ask one.",
                "Use a client that shows forms, or a terminal: fastn-mcp call " + call.tool_name(),
            )
        target = await self._target(call, target_of)
        binding = self._binding(call, caller, target)
        resumed = channel.resumed
        if resumed is not None:
            grant, answer = resumed
            await self._check(grant, binding)
            return await self._conclude(
                call, caller, self._question(grant, call, target, decision), answer, channel.name, target_of
            )
        question = self._question(self._system.token(), call, target, decision)
        expires = self._system.now().timestamp() + LIFETIME
        await self._ledger.open(Grant(question.grant, binding, expires))
        given = await channel.ask(question)
        if isinstance(given, Asking):
            return given
        return await self._conclude(call, caller, question, given, channel.name, target_of)

    async def _conclude(
        self,
        call: Call,
        caller: Caller,
        question: Question,
        answer: Answer,
        by: str,
        target_of: TargetOf,
    ) -> Consent:
        match answer:
            case No(note):
                await self._close(question.grant, State.DECLINED)
                said = {"note": note} if note else {}
                raise Declined("A person declined this call.", "Do not repeat it; ask what to do instead.", facts=said)
            case Nobody(reason):
                await self._close(question.grant, State.UNANSWERED)
                raise Refused(f"Nobody answered: {reason}.", "Call again when somebody is there to approve it.")
            case Yes(typed):
                if question.expected is not None and (typed or "").strip() != question.expected.strip():
                    await self._close(question.grant, State.DECLINED)
                    raise Declined("The name that was typed is not the target's.", "Ask the person, then call again.")
        # A person takes time: what was approved must still be what is there.
        binding = self._binding(call, caller, await self._target(call, target_of))
        await self._check(question.grant, binding)
        if not await self._close(question.grant, State.BURNT):
            raise Refused("This approval was used already, or has run out.", "Call again without it to ask anew.")
        return Consent(by, question.grant)

    def _question(self, grant: str, call: Call, target: Record | None, decision: Decision) -> Question:
        return ask(grant, call, call.effective, target, self._account, typed=decision is Decision.TYPED)

    async def _target(self, call: Call, target_of: TargetOf) -> Record | None:
        target = await target_of(call)
        if target is None and call.target is not None:
            raise NotFound(
                "There is nothing with this id.",
                "Look for the id with the list tool of the resource.",
                certainty="Nothing was sent.",
            )
        return target

    async def _check(self, grant: str, binding: str) -> None:
        found = await self._ledger.find(grant)
        if found is None:
            raise Refused("There is no such approval.", "Call again without it to ask anew.")
        if found.binding != binding:
            await self._close(grant, State.STALE)
            raise TargetChanged(
                "What was approved is no longer what is there, or the call is another one.",
                "Read the target again, then call again to ask anew.",
            )

    async def _close(self, grant: str, state: State) -> bool:
        return await self._ledger.close(grant, state, self._system.now().timestamp())

    def _binding(self, call: Call, caller: Caller, target: Record | None) -> str:
        """A digest of all that an approval is bound to: who, where, what exactly, on what state, by which policy."""
        state = None if target is None else target.model_dump()
        parts = [caller.principal, self._account, call.tool_name(), call.arguments(), state, self._policy.mode]
        return hashlib.sha256(to_json(parts)).hexdigest()
