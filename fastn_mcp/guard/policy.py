"""What may be sent, and what kind of approval it needs.

The most restrictive match wins, in the order deny, protected resources, budgets, windows, confirmations, allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from fastn_mcp.config.model import Mode
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect, FastnObject

if TYPE_CHECKING:
    from fastn_mcp.guard.plans.plan import Plan, PlannedCalls
    from fastn_mcp.guard.policy_rules.rules import FileRules


class Decision(Enum):
    """What the policy says of a call, from the loosest to the strictest."""

    ALLOW = "allow"
    CONFIRM = "confirm"
    TYPED = "typed"
    OUT_OF_BAND = "out_of_band"
    FOUR_EYES = "four_eyes"
    DENY = "deny"

    @property
    def rank(self) -> int:
        """How strict: 0 for allow."""
        return list(Decision).index(self)


# The order of Effect: read, write, external, spend, access, trash, destroy.
_A, _C, _T, _D = Decision.ALLOW, Decision.CONFIRM, Decision.TYPED, Decision.DENY
_TABLE: dict[Mode, tuple[Decision, ...]] = {
    "read-only": (_A, _D, _D, _D, _D, _D, _D),
    "guarded": (_A, _A, _C, _C, _C, _C, _T),
    "manual": (_A, _C, _C, _C, _C, _C, _T),
    # As manual, but there is nobody to ask: a plan answers, or else it is refused.
    "unattended": (_A, _C, _C, _C, _C, _C, _T),
    "auto": (_A, _A, _A, _A, _C, _C, _T),
}
MODES: Mapping[Mode, Mapping[Effect, Decision]] = {
    mode: dict(zip(Effect, decisions, strict=True)) for mode, decisions in _TABLE.items()
}
"""What each mode asks for, with a test key. Such a key is no sandbox, so this is no looser than it would be anyway."""

LIVE: Mapping[Effect, Decision] = {Effect.TRASH: _T}
"""What any mode asks for at least, with a live key: what stops in production is stopped by name."""


def least(mode: Mode, effect: Effect, *, live: bool) -> Decision:
    """What a mode asks for, with a live key or a test key."""
    decision = MODES[mode][effect]
    return max(decision, LIVE.get(effect, decision) if live else decision, key=lambda either: either.rank)


BREAKER = (5, 600.0)
"""Declines in a row after which changes rest, and for how many seconds, where no policy file says otherwise."""

DESTROY_RATE = (10, 300.0)
"""Approvals that destroy, and the seconds within which there are no more, where no policy file says otherwise."""

PLANNED = "plan"
"""The period in which the calls of a plan are counted: for as long as there is the plan."""


@dataclass(frozen=True, slots=True)
class Situation:
    """A call, and the facts by which it is decided. `None` means that a fact could not be read."""

    call: Operation[Any]
    effect: Effect
    now: datetime
    target: FastnObject | None = None
    dependents: int | None = None
    """How many others use the target."""
    own_key: bool = False
    """Whether it would revoke the key that this server uses."""
    spent: Mapping[Effect, int] = field(default_factory=dict[Effect, int])
    """Calls of each effect since the budget's period began."""
    spent_in_run: Mapping[Effect, int] = field(default_factory=dict[Effect, int])
    """The same since this process began."""
    declines: int = 0
    """Declines in a row, within the breaker's rest."""
    declined_at: datetime | None = None
    """When the last of them was."""
    live: bool = False
    """Whether it would be made with a live key; the policy says it."""
    permit: PlannedCalls | None = None
    """The entry of the plan that covers the call and is not used up."""
    used_up: PlannedCalls | None = None
    """One that covers it, and is."""
    destroyed: int = 0
    """Approvals that destroyed, within the time of `destroy_rate`."""


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """What is to happen with a call, by which rule, and why, in words for people and agents."""

    decision: Decision
    rule: str
    reason: str = ""
    permit: PlannedCalls | None = None
    """The entry of a plan by which it is allowed, which counts its calls."""


_OWN_KEY = (
    "This is the key that this server itself uses, or Fastn does not show enough of it to rule that out. "
    "A person can revoke it in the dashboard."
)


@dataclass(frozen=True, slots=True)
class Policy:
    """A mode, and the rules of a policy file, if there is one."""

    mode: Mode = "guarded"
    rules: FileRules | None = None
    plan: Plan | None = None
    live: bool = False
    """Whether calls are made with a live key, or with one that is not known to be a test key."""
    approval_lifetime: float = 600.0
    """Seconds in which a request can be answered, and the approved call made."""

    @property
    def key(self) -> Literal["live", "test"]:
        """The kind of key that it is for."""
        return "live" if self.live else "test"

    @property
    def digest(self) -> str:
        """Names exactly this policy: an approval under another one is void."""
        files = [part.digest if part else "" for part in (self.rules, self.plan)]
        return ":".join([self.mode, self.key, *files])

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask."""
        return self.mode != "unattended"

    @property
    def breaker(self) -> tuple[int, float]:
        """Declines in a row after which changes rest, and for how many seconds."""
        return self.rules.breaker if self.rules else BREAKER

    @property
    def destroy_rate(self) -> tuple[int, float] | None:
        """Approvals that destroy, and the seconds within which there are no more; None where nobody is asked."""
        if not self.asks:
            return None
        return self.rules.destroy_rate if self.rules else DESTROY_RATE

    def limit(self, effect: Effect) -> int | None:
        """How many calls of an effect a period allows; None for any number."""
        return self.rules.budget.get(effect) if self.rules else None

    def run_limit(self, effect: Effect) -> int | None:
        """How many calls of an effect one run allows besides; None for any number."""
        return self.rules.run_budget.get(effect) if self.rules else None

    def period(self, now: datetime) -> str:
        """The budget period that `now` lies in: a day in UTC, as 2026-03-29, or `run`."""
        return "run" if self.rules and self.rules.per == "run" else now.astimezone(UTC).strftime("%Y-%m-%d")

    def needs_facts(self, call: Operation[Any]) -> bool:
        """Whether the target must be read before anything can be said."""
        if call.effect is Effect.READ or self.mode == "read-only":
            return False
        return (
            bool(call.needs_person)
            or type(call).effect_on is not Operation[Any].effect_on
            or least(self.mode, call.effective, live=self.live) is not Decision.ALLOW
            or (self.rules is not None and self.rules.mentions(call))
        )

    def decide(self, situation: Situation) -> PolicyDecision:
        """Decide what is to happen with a call."""
        situation = replace(situation, live=self.live)
        if situation.effect is Effect.READ:
            return PolicyDecision(Decision.ALLOW, "reads", "Reads are always allowed.")
        if (denied := self._always_denied(situation)) is not None:
            return denied
        default = self._default(situation)
        said = self.rules.verdicts(situation, default) if self.rules else []
        verdict = max(said, key=lambda verdict: verdict.decision.rank) if said else default
        if verdict.decision is Decision.ALLOW and situation.call.needs_person:
            verdict = PolicyDecision(Decision.CONFIRM, "a person in every mode", situation.call.needs_person)
        return self._with_plan(self._with_budget_left(verdict, situation), situation)

    def _with_plan(self, verdict: PolicyDecision, situation: Situation) -> PolicyDecision:
        """Allow what an entry of the plan covers; deny what would need approval where nobody can be asked."""
        if verdict.decision in (Decision.ALLOW, Decision.DENY):
            return verdict
        permit = situation.permit
        # A plan was decided outside of the client, by as many people as have signed it.
        if permit is not None and (verdict.decision is not Decision.FOUR_EYES or permit.signers > 1):
            return PolicyDecision(Decision.ALLOW, permit.name, verdict.reason, permit)
        if self.asks:
            return verdict
        if permit is not None:
            why = f"It needs two people ({verdict.rule}), and one has signed the plan."
        elif situation.used_up is not None:
            why = f"No calls are left of {situation.used_up.name} (count = {situation.used_up.count})."
        else:
            why = f"Nobody can be asked ({verdict.rule}), and no plan covers this call."
        return PolicyDecision(Decision.DENY, "no plan", why)

    def _always_denied(self, situation: Situation) -> PolicyDecision | None:
        """Deny what no policy file can allow."""
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
        if decision is Decision.TYPED and situation.call.tool_name() == "delete_customer" and situation.dependents == 0:
            return PolicyDecision(
                Decision.CONFIRM, f"{rule}, nothing depends on it", "The customer has no connections and no runs."
            )
        if effect is Effect.SPEND and decision is Decision.CONFIRM and self.mode in ("guarded", "unattended"):
            # Inside a budget that somebody has set, spending needs no question.
            inside = self._left(situation) > 0
            return PolicyDecision(
                Decision.ALLOW if inside else decision, f"{rule}, {'inside' if inside else 'no'} budget"
            )
        return PolicyDecision(decision, rule)

    def _left(self, situation: Situation) -> int:
        """How many calls of its effect the budgets still allow; 0 where there is none."""
        left = [left for left, _, _ in self._budgets(situation)]
        return max(0, min(left, default=0))

    def _budgets(self, situation: Situation) -> list[tuple[int, int, str]]:
        """What is left of each budget of the call's effect, of how much, and for how long."""
        effect = situation.effect
        per = "in this run" if self.period(situation.now) == "run" else "today (UTC)"
        of_the_period, of_the_run = self.limit(effect), self.run_limit(effect)
        found: list[tuple[int, int, str]] = []
        if of_the_period is not None:
            found.append((of_the_period - situation.spent.get(effect, 0), of_the_period, per))
        if of_the_run is not None:
            found.append((of_the_run - situation.spent_in_run.get(effect, 0), of_the_run, "in this run"))
        return found

    def _with_budget_left(self, verdict: PolicyDecision, situation: Situation) -> PolicyDecision:
        if verdict.decision is Decision.DENY:
            return verdict
        if situation.destroyed and self.destroy_rate is not None:  # a budget that nobody has touched limits nobody yet
            most, seconds = self.destroy_rate
            left = f"{max(0, most - situation.destroyed)} of {most} approvals that destroy are left"
            said = f"{verdict.reason} {left} in {seconds / 60:g} minutes."
            verdict = replace(verdict, reason=said.strip())
        if self._left(situation) == 0:
            return verdict  # there is no budget, the file says itself that it is used up, or nothing uses it
        left, limit, per = min(self._budgets(situation))
        said = f"{left} of {limit} {situation.effect.value} calls are left {per}."
        return replace(verdict, reason=f"{verdict.reason} {said}".strip())
