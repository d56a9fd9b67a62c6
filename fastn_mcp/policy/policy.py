"""Policy decisions: whether a call may be sent, and what approval it needs.

The most restrictive match wins, in the order deny, protected resources, budgets, windows, confirmations, allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.config.model import Mode
from fastn_mcp.records.formats import sentence
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

if TYPE_CHECKING:
    from fastn_mcp.policy.plan import Plan, PlannedCalls
    from fastn_mcp.policy.rules import FileRules


class Decision(Enum):
    """Policy decision on a call, from the loosest to the strictest."""

    ALLOW = "allow"
    CONFIRM = "confirm"
    TYPED = "typed"
    OUT_OF_BAND = "out_of_band"
    FOUR_EYES = "four_eyes"
    DENY = "deny"

    def __init__(self, _: str) -> None:
        self.rank = len(type(self).__members__)
        """Strictness, from 0 for allow."""


# The order of Effect: read, write, external, spend, access, trash, destroy.
_A, _C, _T, _D = Decision.ALLOW, Decision.CONFIRM, Decision.TYPED, Decision.DENY
_TABLE: dict[Mode, tuple[Decision, ...]] = {
    "read-only": (_A, _D, _D, _D, _D, _D, _D),
    "guarded": (_A, _A, _C, _C, _C, _C, _T),
    "manual": (_A, _C, _C, _C, _C, _C, _T),
    # As manual, but nobody can be asked: a signed plan allows the call, or it is refused.
    "unattended": (_A, _C, _C, _C, _C, _C, _T),
    "auto": (_A, _A, _A, _A, _C, _C, _T),
}
MODES: Mapping[Mode, Mapping[Effect, Decision]] = {
    mode: dict(zip(Effect, decisions, strict=True)) for mode, decisions in _TABLE.items()
}
"""Decision per mode and effect with a test key. A test key is not a sandbox, so it loosens nothing."""

LIVE: Mapping[Effect, Decision] = {Effect.TRASH: _T}
"""Minimum decision in every mode with a live key: stopping something in production needs its name typed."""


def least(mode: Mode, effect: Effect, *, live: bool) -> Decision:
    """Return the decision of a mode for an effect, with a live or a test key."""
    decision = MODES[mode][effect]
    return max(decision, LIVE.get(effect, decision) if live else decision, key=lambda either: either.rank)


BREAKER = (5, 600.0)
"""Default circuit breaker: declines in a row, and the seconds for which changes are then refused."""

DESTROY_RATE = (10, 300.0)
"""Default destroy rate: approvals that destroy, and the period in seconds within which no more are given."""

PLANNED = "plan"
"""Budget period of planned calls: the lifetime of the plan."""


@dataclass(frozen=True, slots=True)
class Situation:
    """A call and the facts that decide it. A fact that is `None` could not be read."""

    resolved: ResolvedCall
    effect: Effect
    now: datetime
    own_key: bool = False
    """Whether the call would revoke the key that this server uses."""
    spent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Calls of its effect, by budget period (`Policy.budgets`)."""
    declines: int = 0
    """Consecutive declines within the breaker's period."""
    declined_at: datetime | None = None
    """Time of the last of these declines."""
    live: bool = False
    """Whether the call uses a live key. Set by the policy."""
    permit: PlannedCalls | None = None
    """Plan entry that covers the call and has calls left."""
    used_up: PlannedCalls | None = None
    """Plan entry that covers the call and is used up."""
    destroyed: int = 0
    """Destructive approvals within the period of `destroy_rate`."""

    @property
    def call(self) -> Operation[Any]:
        return self.resolved.call


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """Decision on a call, the rule that made it, and the reason, in words for people and agents."""

    decision: Decision
    rule: str
    reason: str = ""
    permit: PlannedCalls | None = None
    """Plan entry that allows the call and counts it."""
    matched: str = ""
    """What the rule matched, in words, unless that is what the call says."""

    @property
    def why(self) -> str:
        """What the rule matched, and the reason."""
        matched = f"{sentence(self.matched)}." if self.matched else ""
        return f"{matched} {sentence(self.reason)}".strip()


_OWN_KEY = (
    "This is the key that this server itself uses, or Fastn does not show enough of it to rule that out. "
    "A person can revoke it in the dashboard."
)


@dataclass(frozen=True, slots=True)
class Policy:
    """A mode, with the rules of a policy file if there is one."""

    mode: Mode = "guarded"
    rules: FileRules | None = None
    plan: Plan | None = None
    live: bool = False
    """Whether the key is live, or not known to be a test key."""
    approval_lifetime: float = 600.0
    """Seconds in which a request can be answered and the approved call sent."""
    approval_wait: float = 0.0
    """Seconds for which a call waits, from its start, for the decision on its request."""

    @property
    def key(self) -> Literal["live", "test"]:
        """Kind of key that the policy applies to."""
        return "live" if self.live else "test"

    @property
    def digest(self) -> str:
        """Digest of this policy. An approval given under another policy is void."""
        files = [part.digest if part else "" for part in (self.rules, self.plan)]
        return ":".join([self.mode, self.key, *files])

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask for approval."""
        return self.mode != "unattended"

    @property
    def breaker(self) -> tuple[int, float]:
        """Declines in a row after which changes are refused, and for how many seconds."""
        return self.rules.breaker if self.rules else BREAKER

    @property
    def destroy_rate(self) -> tuple[int, float] | None:
        """Maximum number of destructive approvals per period in seconds; None if nobody can be asked."""
        if not self.asks:
            return None
        return self.rules.destroy_rate if self.rules else DESTROY_RATE

    def budgets(self, effect: Effect, now: datetime) -> Mapping[str, int]:
        """Return how many calls of an effect each period allows: a UTC day such as 2026-03-29, or `run`."""
        return self.rules.budgets(effect, now) if self.rules else {}

    @property
    def compares_customers(self) -> bool:
        """Whether any decision depends on whose resources a call touches."""
        return self.rules is not None and self.rules.compares_customers

    def needs_facts(self, resolved: ResolvedCall) -> bool:
        """Return whether anything must be read before the call can be decided."""
        call = resolved.call
        if call.effect is Effect.READ or self.mode == "read-only":
            return False
        return (
            bool(call.needs_person)
            or type(call).effect_on is not Operation[Any].effect_on
            or least(self.mode, call.effective, live=self.live) is not Decision.ALLOW
            or (self.rules is not None and self.rules.mentions(resolved))
            or (self.plan is not None and resolved.refers)
        )

    def matches(self, situation: Situation) -> list[PolicyDecision]:
        """Return the decision of every rule that applies to a call, and of the mode. `decide` takes the strictest."""
        situation = replace(situation, live=self.live)
        found = [] if situation.effect is Effect.READ or self.rules is None else self.rules.matches(situation)
        return [*filter(None, (self._always_denied(situation),)), *found, self._default(situation)]

    def decide(self, situation: Situation) -> PolicyDecision:
        """Decide what is to happen with a call."""
        situation = replace(situation, live=self.live)
        if situation.effect is Effect.READ:
            return PolicyDecision(Decision.ALLOW, "reads", "Reads are always allowed.")
        if (denied := self._always_denied(situation)) is not None:
            return denied
        verdict = self._by_rules(situation)
        if self.rules is not None and situation.effect is not situation.call.effective:
            # What raises an effect (a record in use, an open request) must not escape what the file says of the call.
            lower = self._by_rules(replace(situation, effect=situation.call.effective, spent={}))
            verdict = max(verdict, lower, key=lambda either: either.decision.rank)
        if verdict.decision is Decision.ALLOW and situation.call.needs_person:
            verdict = PolicyDecision(Decision.CONFIRM, "a person in every mode", situation.call.needs_person)
        return self._with_plan(self._with_budget_left(verdict, situation), situation)

    def _by_rules(self, situation: Situation) -> PolicyDecision:
        """Return the strictest decision of the file, or that of the mode."""
        default = self._default(situation)
        verdicts = self.rules.verdicts(situation, default) if self.rules else [default]
        return max(verdicts, key=lambda verdict: verdict.decision.rank)

    def _with_plan(self, verdict: PolicyDecision, situation: Situation) -> PolicyDecision:
        """Allow calls that a plan entry covers; deny calls that need approval if nobody can be asked."""
        if verdict.decision in (Decision.ALLOW, Decision.DENY):
            return verdict
        permit = situation.permit
        # A plan is decided out-of-band, by as many people as signed it.
        if permit is not None and (verdict.decision is not Decision.FOUR_EYES or permit.signers > 1):
            return PolicyDecision(Decision.ALLOW, permit.name, verdict.reason, permit)
        if self.asks:
            return verdict
        if permit is not None:
            why = f"It needs two people ({verdict.rule}), and one has signed the plan."
        elif self.plan is not None and (differing := self.plan.differing(situation.resolved)):
            why = f"The {differing} is not what it was when the plan was signed. Sign the plan again."
        elif situation.used_up is not None:
            why = f"No calls are left of {situation.used_up.name} (count = {situation.used_up.count})."
        else:
            why = f"Nobody can be asked ({verdict.rule}), and no plan covers this call."
        return PolicyDecision(Decision.DENY, "no plan", why)

    def _always_denied(self, situation: Situation) -> PolicyDecision | None:
        """Deny calls that no policy file can allow."""
        if self.mode == "read-only":
            rule = f"mode {self.mode}: {situation.effect.value}"
            return PolicyDecision(Decision.DENY, rule, f"The mode {self.mode} allows only reads.")
        if situation.own_key:
            return PolicyDecision(Decision.DENY, "own key", _OWN_KEY)
        declined, rest = self.breaker
        if situation.declines >= declined:
            until = (situation.declined_at or situation.now) + timedelta(seconds=rest)
            at = f"{until.astimezone(UTC):%H:%M:%S} UTC" + ("" if situation.declined_at else " at the latest")
            return PolicyDecision(
                Decision.DENY, "breaker", f"{situation.declines} declines in a row: only reads are sent until {at}."
            )
        return None

    def _default(self, situation: Situation) -> PolicyDecision:
        effect = situation.effect
        if self.rules is not None and (said := self.rules.default(effect, live=self.live)) is not None:
            return said
        decision = least(self.mode, effect, live=self.live)
        rule = f"mode {self.mode}: {effect.value}"
        if decision is not MODES[self.mode][effect]:
            rule += ", live key"
        if (
            decision is Decision.TYPED
            and situation.call.tool_name() == "delete_customer"
            and situation.resolved.dependents == 0
        ):
            return PolicyDecision(
                Decision.CONFIRM, f"{rule}, nothing depends on it", "The customer has no connections and no runs."
            )
        if effect is Effect.SPEND and decision is Decision.CONFIRM and self.mode in ("guarded", "unattended"):
            # Spending within a configured budget needs no approval.
            inside = self._left(situation) is not None
            return PolicyDecision(
                Decision.ALLOW if inside else decision, f"{rule}, {'inside' if inside else 'no'} budget"
            )
        return PolicyDecision(decision, rule)

    def _left(self, situation: Situation) -> tuple[int, int, str] | None:
        """Return how many calls the budgets still allow, with the limit and period in words; None if there are none."""
        found = [
            (limit - situation.spent.get(period, 0), limit, "in this run" if period == "run" else "today (UTC)")
            for period, limit in self.budgets(situation.effect, situation.now).items()
        ]
        return min(found) if found and min(found)[0] > 0 else None

    def _with_budget_left(self, verdict: PolicyDecision, situation: Situation) -> PolicyDecision:
        if verdict.decision is Decision.DENY:
            return verdict
        if situation.destroyed and self.destroy_rate is not None:  # an untouched budget limits nothing yet
            most, seconds = self.destroy_rate
            left = f"{max(0, most - situation.destroyed)} of {most} approvals that destroy are left"
            said = f"{verdict.reason} {left} in {seconds / 60:g} minutes."
            verdict = replace(verdict, reason=said.strip())
        if (found := self._left(situation)) is None:
            return verdict  # there is no budget, the file itself reports it used up, or nothing uses it
        left, limit, per = found
        said = f"{left} of {limit} {situation.effect.value} calls are left {per}."
        return replace(verdict, reason=f"{verdict.reason} {said}".strip())
