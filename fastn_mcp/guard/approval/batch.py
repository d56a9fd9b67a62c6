"""One approval request for several calls, and one approval for each. The strictest decision applies.

A grant is as that of a single call: bound to the call and to the state of its target, burnt before it is sent. That a
call was begun is noted in the same breath, so that no other process, and no later one, begins it again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastn_mcp.errors import FastnError, NotSent, TargetChanged
from fastn_mcp.fastn.targets import Call
from fastn_mcp.guard.approval.flow import (
    ASKABLE,
    ApprovalFlow,
    ApprovalRequest,
    Approved,
    Caller,
    covers,
    sha256,
    used_up,
)
from fastn_mcp.guard.approval.request import Asking, PendingApproval
from fastn_mcp.guard.audit.recorder import Consent, Recorder
from fastn_mcp.guard.evaluation import BudgetCheck, Evaluator, Facts
from fastn_mcp.guard.ledger.ledger import Grant, GrantState, Ledger
from fastn_mcp.guard.policy import PLANNED, Decision, PolicyDecision
from fastn_mcp.guard.preview import ListPreview
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Tool


@dataclass(frozen=True, slots=True)
class BatchCalls:
    """The calls of a batch, numbered from 1. The `id` is the same in every process."""

    id: str
    offer: Tool[Any]
    calls: Sequence[Call]

    def named(self, number: int) -> str:
        return f"Call {number}, {self.calls[number - 1].tool_name()}: "


Agreed = Mapping[int, str | None]
"""The grant of each call; None for one that the policy allows by itself."""


class BatchApproval:
    """Has calls on one account approved together."""

    def __init__(
        self,
        judge: Evaluator,
        ledger: Ledger,
        asker: ApprovalFlow,
        allowing: BudgetCheck,
        recorder: Recorder,
        system: System,
    ) -> None:
        self._judge = judge
        self._ledger = ledger
        self._asker = asker
        self._allowing = allowing
        self._recorder = recorder
        self._system = system

    def several(self, offer: Tool[Any], calls: Sequence[Call], name: str | None, principal: str) -> BatchCalls:
        """The batch of these calls. Without a `name`, the same calls are always the same batch."""
        digests = [self._judge.digest(call, principal) for call in calls]
        return BatchCalls(f"batch_{sha256([digests, name])[:24]}", offer, calls)

    async def preview(self, several: BatchCalls, numbers: Sequence[int], principal: str) -> ListPreview:
        """What these calls would do: fresh reads, no question, nothing sent."""
        return _preview(several, await self._facts(several, numbers, principal))

    async def agree(
        self, several: BatchCalls, numbers: Sequence[int], caller: Caller
    ) -> Agreed | Asking | PendingApproval:
        """Have these calls agreed to, or ask. Raises a `FastnError` where they may not all be made."""
        facts = await self._facts(several, numbers, caller.principal)
        self._refuse(several, facts)
        if all(found.verdict.decision is Decision.ALLOW for found in facts.values()):
            return dict.fromkeys(numbers)
        if (held := await self._held(several, facts, caller)) is not None:
            return held
        destroys = max((found.effect for found in facts.values()), key=lambda effect: effect.rank)
        await self._allowing.spend_rate(destroys, caller.principal, is_check=True)
        given = await self._asker.ask(self._matter(several, facts, caller), caller)
        if not isinstance(given, Approved):
            return given
        if not given.fresh:
            facts = await self._facts(several, numbers, caller.principal)
            self._refuse(several, facts)
        await self._asker.spend(given, self._matter(several, facts, caller))
        await self._allowing.spend_rate(destroys, caller.principal)  # once for the whole list
        return await self._granted(several, facts, given, caller)

    async def admit(self, several: BatchCalls, number: int, grant: str | None, caller: Caller) -> Consent:
        """The consent under which one of them may be sent now. Raises a `FastnError`."""
        call = several.calls[number - 1]
        facts = await self._judge.facts(call, caller.principal)
        found = None if grant is None else await self._ledger.find(grant)
        self._still_agreed(call, facts, grant, found, caller)
        if not await self._ledger.begin_step(several.id, number, self._now()):
            raise NotSent(
                "It was begun already, by another process or by another call of the same batch.",
                "Call the batch again later to see what became of it.",
            )
        try:
            return await self._consent(call, facts, found, caller)
        except FastnError as error:
            await self._ledger.end_step(several.id, number, error.outcome, None, self._now())
            raise

    def _still_agreed(self, call: Call, facts: Facts, id_: str | None, grant: Grant | None, caller: Caller) -> None:
        if facts.verdict.decision is Decision.DENY:
            raise self._allowing.refused(call, facts.verdict)
        if id_ is None and facts.verdict.decision is not Decision.ALLOW:
            raise TargetChanged(
                f"It needs an approval now ({facts.verdict.rule}), which it did not when the batch was begun.",
                "Call the batch again: what is left of it is asked about.",
            )
        if id_ is not None and grant is None:
            raise used_up()
        binding = self._judge.binding(call, caller.principal, facts)
        if grant is not None and not covers(grant, binding, facts.verdict, facts.preview):
            raise TargetChanged(
                "What was approved is no longer what is there.",
                "Look at it; call the batch again to be asked anew about what is left.",
            )

    async def _consent(self, call: Call, facts: Facts, grant: Grant | None, caller: Caller) -> Consent:
        if grant is None:
            return await self._allowing.allowed(
                call, caller.principal, facts.verdict, facts.effect, facts.target, facts.preview.name
            )
        if not await self._ledger.move(grant.id, [GrantState.APPROVED], GrantState.BURNT, self._now()):
            raise used_up()
        await self._allowing.spend(facts.effect, caller.principal, is_counted=True)
        by, name = grant.by or "elsewhere", facts.preview.name
        return Consent(by, facts.verdict, facts.effect, grant.id, facts.target, name, grant.trace)

    async def _facts(self, several: BatchCalls, numbers: Sequence[int], principal: str) -> dict[int, Facts]:
        """Each call judged as if those before it were made: a budget or a plan that is too small is found at once."""
        ahead: Counter[tuple[str, str]] = Counter()
        found: dict[int, Facts] = {}
        for number in numbers:
            call = several.calls[number - 1]
            try:
                found[number] = facts = await self._judge.facts(call, principal, ahead)
            except FastnError as error:
                what = several.named(number) + error.what
                raise type(error)(what, error.next_step, certainty=error.known, facts=error.facts) from None
            if (permit := facts.verdict.permit) is not None:
                ahead[permit.budget, PLANNED] += 1
            for _, period in self._judge.limits(facts.effect, principal):
                ahead[facts.effect.value, period] += 1
        return found

    def _refuse(self, several: BatchCalls, facts: Mapping[int, Facts]) -> None:
        denied = {n: found.verdict for n, found in facts.items() if found.verdict.decision is Decision.DENY}
        if not denied:
            return
        first = next(iter(denied))
        error = self._allowing.refused(several.calls[first - 1], denied[first], several.named(first))
        if len(denied) > 1:
            error.facts["refused_calls"] = [*denied]
        if "would_allow" in error.facts:
            wanted = [
                self._allowing.refused(several.calls[n - 1], said).facts["would_allow"] for n, said in denied.items()
            ]
            error.facts["would_allow"] = "\n\n".join(map(str, wanted))
        raise error

    def _matter(self, several: BatchCalls, facts: Mapping[int, Facts], caller: Caller) -> ApprovalRequest:
        strictest = max((found.verdict for found in facts.values()), key=lambda verdict: verdict.decision.rank)
        calls = {n: several.calls[n - 1] for n in facts}
        shown = _preview(several, facts)
        return ApprovalRequest(
            several.offer,
            sha256([several.id, {n: self._judge.digest(call, caller.principal) for n, call in calls.items()}]),
            sha256({n: self._judge.binding(call, caller.principal, facts[n]) for n, call in calls.items()}),
            PolicyDecision(strictest.decision, strictest.rule, strictest.reason),
            shown.effect,
            shown,
        )

    async def _held(self, several: BatchCalls, facts: Mapping[int, Facts], caller: Caller) -> Agreed | None:
        """The grants that a person gave before, where each of these calls has one that holds for what is there now."""
        kept = {step.number: step.grant for step in await self._ledger.steps(several.id)}
        now = self._now()
        held: dict[int, str | None] = {}
        for number, found in facts.items():
            grant = None if (id_ := kept.get(number)) is None else await self._ledger.find(id_)
            if grant is None or grant.state is not GrantState.APPROVED or grant.expires <= now:
                return None
            binding = self._judge.binding(several.calls[number - 1], caller.principal, found)
            if not covers(grant, binding, found.verdict, found.preview):
                return None
            held[number] = grant.id
        return held

    async def _granted(
        self, several: BatchCalls, facts: Mapping[int, Facts], given: Approved, caller: Caller
    ) -> Agreed:
        """A grant for each call, of which the answer was for all."""
        now, asked = self._now(), given.grant
        for step in await self._ledger.steps(several.id):
            if step.grant is not None:  # of an earlier answer, which this one replaces
                await self._ledger.move(step.grant, ASKABLE, GrantState.STALE, now)
        grants: dict[int, str | None] = {}
        for number, found in facts.items():
            call = several.calls[number - 1]
            grant = Grant(
                id=f"{asked.id}.{number}",
                principal=asked.principal,
                account=asked.account,
                tool=call.tool_name(),
                target=call.target,
                call=self._judge.digest(call, caller.principal),
                binding=self._judge.binding(call, caller.principal, found),
                asks=asked.asks,
                expected=None,
                scope=False,
                elsewhere=False,
                card=found.preview.data(),
                lines=tuple(found.preview.lines()),
                created=now,
                expires=now + self._judge.policy.approval_lifetime,
                state=GrantState.APPROVED,
                by=given.by,
                decided=now,
                trace=asked.trace,
                dependents=found.preview.dependents(),
            )
            await self._ledger.open(grant)
            grants[number] = grant.id
        await self._ledger.hold_steps(several.id, {n: id_ for n, id_ in grants.items() if id_ is not None}, now)
        self._recorder.agreed(several.offer, asked, given.by)
        return grants

    def _now(self) -> float:
        return self._system.now().timestamp()


def _preview(several: BatchCalls, facts: Mapping[int, Facts]) -> ListPreview:
    refused = {
        number: f"{found.verdict.rule}. {found.verdict.reason}".strip()
        for number, found in facts.items()
        if found.verdict.decision is Decision.DENY
    }
    does = (type(several.offer).__doc__ or "").strip()
    return ListPreview(several.offer.tool_name(), does, {n: found.preview for n, found in facts.items()}, refused)
