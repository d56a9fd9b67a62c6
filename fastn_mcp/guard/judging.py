"""A call, what is there, and what the policy says of it: fresh reads, no question, nothing sent."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.errors import NOTHING_SENT, FastnError, NotFound, NotSent
from fastn_mcp.guard.ai_sessions import AiSessions
from fastn_mcp.guard.journalling import Journalling
from fastn_mcp.guard.ledger import Ledger, bound_account, holder
from fastn_mcp.guard.policy import PLANNED, Decision, Permit, Policy, Situation, Verdict
from fastn_mcp.guard.preview import Preview, preview, state
from fastn_mcp.guard.question import FREE
from fastn_mcp.operation import Effect, Record, RefusedValue
from fastn_mcp.procedures.dependents import find_dependents
from fastn_mcp.procedures.target import Call, Send, no_such, read_label, read_target
from fastn_mcp.system import System

Ahead = Mapping[tuple[str, str], int]
"""What calls that are about to be made will spend: of which budget, in which period."""

_NOTHING: Ahead = {}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read of a call's target, and what follows from it."""

    target: Record | None
    effect: Effect
    verdict: Verdict
    preview: Preview
    is_unsettled: bool = False
    """Whether an earlier one of the same call may have happened."""

    @property
    def may_scope(self) -> bool:
        """What destroys or gives access, or may have happened already, is approved call by call, always."""
        return (
            not self.is_unsettled
            and self.effect not in (Effect.DESTROY, Effect.ACCESS)
            and self.verdict.decision is Decision.CONFIRM
        )


class Judge:
    """Judges calls on one account, which `account` names for people.

    `read` makes read calls only. `owns` says whether an API key's record is of the key that this server uses.
    `bound` names that key and where it is sent, without telling them.
    """

    def __init__(
        self,
        policy: Policy,
        account: str,
        ledger: Ledger,
        journalling: Journalling,
        system: System,
        read: Send,
        owns: Callable[[Record], bool],
        bound: str = "",
        run: str | None = None,
    ) -> None:
        """`run` names the run that budgets can be for, where it is more than this object's life."""
        self.policy = policy
        self.account = account
        self._ledger = ledger
        self._journalling = journalling
        self._system = system
        self._read = read
        self._owns = owns
        self._bound = bound
        self.bound_account = bound_account(account, bound)
        self.ai_sessions = AiSessions()
        self._run = run or system.token()

    async def at_once(self, call: Call, principal: str) -> Verdict | None:
        """The verdict where nothing has to be read for it; None where something has."""
        if call.effect is Effect.READ:
            return Verdict(Decision.ALLOW, "reads")
        if self.policy.needs_facts(call) or await self._unsettled(call, principal) is not None:
            return None
        verdict = self.policy.judge(await self._situation(call, principal, call.effective))
        return verdict if verdict.decision in (Decision.ALLOW, Decision.DENY) else None

    async def facts(self, call: Call, principal: str, ahead: Ahead = _NOTHING) -> Facts:
        """The verdict in view of the target and of what depends on it, as if `ahead` were spent already.

        Raises a `FastnError`.
        """
        try:
            target = self.ai_sessions.target(call) or await read_target(call, self._read)
            dependence = await find_dependents(call, target, self._read)
        except FastnError as error:
            raise NotSent(
                f"What it acts on could not be read first. {error.what}", error.next_step, facts=error.facts
            ) from None
        if target is None and call.target is not None:
            raise NotFound(*no_such(call), certainty=NOTHING_SENT)
        known = None if dependence.unchecked else dependence.count
        effect = call.effect_on(target, known)
        situation = replace(
            await self._situation(call, principal, effect, ahead),
            target=target,
            dependents=known,
            own_key=call.tool_name() == "revoke_api_key" and target is not None and self._owns(target),
        )
        verdict = self.policy.judge(situation)
        earlier = None if verdict.decision is Decision.DENY else await self._unsettled(call, principal)
        if earlier is not None and verdict.decision is Decision.ALLOW:
            decision = Decision.CONFIRM if self.policy.asks else Decision.DENY
            verdict = Verdict(decision, "outcome unknown", earlier)
        elif earlier is not None:
            verdict = replace(verdict, reason=f"{earlier} {verdict.reason}".rstrip())
        try:
            label = await read_label(call, target, self._read)
            shown = preview(call, effect, self.account, target, dependence, verdict.reason, label)
        except RefusedValue as error:
            raise NotSent(f"{error.argument}: {error.problem}.", "Correct the argument and call again.") from None
        return Facts(target, effect, verdict, shown, earlier is not None)

    def now(self) -> float:
        """In Unix seconds."""
        return self._system.now().timestamp()

    def limits(self, effect: Effect, principal: str) -> list[tuple[int, str]]:
        """The budgets that a call of an effect counts in: how many, and in which period."""
        of = (
            (self.policy.limit(effect), self.period(principal)),
            (self.policy.run_limit(effect), self.run_period(principal)),
        )
        return [(limit, period) for limit, period in of if limit is not None]

    def period(self, principal: str) -> str:
        """The budget period that it is now, of a caller on this account."""
        period = self.policy.period(self._system.now())
        return self.run_period(principal) if period == "run" else f"{period} {principal} {self.bound_account}"

    def run_period(self, principal: str) -> str:
        """The same for this run."""
        return f"run {self._run} {principal} {self.bound_account}"

    def destroy_budget(self, principal: str) -> str:
        """The budget in which approvals that destroy are counted."""
        return f"destroy {principal} {self.account}"

    async def allowance(self, principal: str) -> dict[str, JsonValue]:
        """What is left of the budgets and of the plan."""
        policy, budgets, entries = self.policy, list[JsonValue](), list[JsonValue]()
        for effect in Effect:
            per = "run" if policy.period(self._system.now()) == "run" else "day"
            for limit, period, of in (
                (policy.limit(effect), self.period(principal), per),
                (policy.run_limit(effect), self.run_period(principal), "run"),
            ):
                if limit is not None:
                    used = await self._ledger.spent(effect.value, period)
                    budgets.append({"effect": effect.value, "per": of, "left": max(0, limit - used), "of": limit})
        if policy.destroy_rate is not None and (used := await self._destroyed(principal)):
            most, seconds = policy.destroy_rate
            per = f"{seconds / 60:g} minutes"
            budgets.append({"effect": Effect.DESTROY.value, "per": per, "left": max(0, most - used), "of": most})
        for permit in policy.plan.permits if policy.plan else ():
            used = await self._ledger.spent(permit.budget, PLANNED)
            entries.append({"entry": permit.words(), "left": max(0, permit.count - used)})
        found: dict[str, JsonValue] = {"mode": policy.mode}
        if budgets:
            found["budgets"] = budgets
        if entries:
            found["plan"] = entries
        return found

    def digest(self, call: Call, principal: str) -> str:
        """Who calls what, with exactly which arguments, on which account, by which key."""
        parts = [principal, self.account, self._bound, call.tool_name(), call.arguments()]
        return hashlib.sha256(to_json(parts)).hexdigest()

    def binding(self, call: Call, principal: str, facts: Facts) -> str:
        """Digest of the call, its target's state and label, the policy, and whether it may have been made before."""
        parts = [
            self.digest(call, principal),
            state(facts.target),
            facts.preview.name,
            self.policy.digest,
            facts.effect.value,
            facts.is_unsettled,
        ]
        return hashlib.sha256(to_json(parts)).hexdigest()

    def similar(self, call: Call, principal: str, facts: Facts) -> str:
        """What a temporary approval binds: all of `call` but its free values, and neither the target's state nor more.

        Its first use changes the target, so that the state cannot be bound.
        """
        given = call.arguments()
        fixed = {name: value for name, value in given.items() if name not in FREE}
        parts = [principal, self.account, self._bound, call.tool_name(), sorted(given), fixed]
        return hashlib.sha256(to_json([*parts, self.policy.digest, facts.effect.value])).hexdigest()

    async def _unsettled(self, call: Call, principal: str) -> str | None:
        return await self._journalling.unsettled(call, self.digest(call, principal))

    async def _situation(self, call: Call, principal: str, effect: Effect, ahead: Ahead = _NOTHING) -> Situation:
        now = self._system.now()
        declines, last = await self._ledger.declines(holder(principal, self.bound_account))
        _, rest = self.policy.breaker
        resting = declines if now.timestamp() - last < rest else 0
        limited = self.policy.limit(effect) is not None
        spent = {effect: await self._spent(effect.value, self.period(principal), ahead)} if limited else {}
        in_run = self.policy.run_limit(effect) is not None
        run = {effect: await self._spent(effect.value, self.run_period(principal), ahead)} if in_run else {}
        declined_at = datetime.fromtimestamp(last, UTC) if resting else None
        permit, used_up = await self._permit(call, now, ahead)
        return Situation(
            call,
            effect,
            now,
            spent=spent,
            spent_in_run=run,
            declines=resting,
            declined_at=declined_at,
            permit=permit,
            used_up=used_up,
            destroyed=await self._destroyed(principal) if effect is Effect.DESTROY else 0,
        )

    async def _destroyed(self, principal: str) -> int:
        """Approvals that destroyed, within the time of the policy's `destroy_rate`."""
        if self.policy.destroy_rate is None:
            return 0
        _, seconds = self.policy.destroy_rate
        return len(await self._ledger.rate_uses(self.destroy_budget(principal), seconds, self.now()))

    async def _spent(self, budget: str, period: str, ahead: Ahead) -> int:
        return await self._ledger.spent(budget, period) + ahead.get((budget, period), 0)

    async def _permit(self, call: Call, now: datetime, ahead: Ahead) -> tuple[Permit | None, Permit | None]:
        """The entry of the plan that covers `call`, or else one that is used up."""
        used_up: Permit | None = None
        for permit in self.policy.plan.covering(call, now) if self.policy.plan else ():
            if await self._spent(permit.budget, PLANNED, ahead) < permit.count:
                return permit, None
            used_up = permit
        return None, used_up
