"""Policy decisions: the facts that decide a call, the decision on it, and the decisions of each mode."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.config.model import Mode
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.permit import Permit
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.redaction import quote
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.tool import Effect


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
_A = Decision.ALLOW
_C = Decision.CONFIRM
_T = Decision.TYPED
_D = Decision.DENY
_TABLE: dict[Mode, tuple[Decision, ...]] = {
    "read-only": (_A, _D, _D, _D, _D, _D, _D),
    "guarded": (_A, _A, _C, _C, _C, _C, _T),
    # Nobody can be asked: a signed plan allows the call, or it is refused.
    "unattended": (_A, _C, _C, _C, _C, _C, _T),
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
    minimum = LIVE.get(effect, decision) if live else decision
    return minimum if minimum.rank > decision.rank else decision


CONFIRMED_IF_EMPTY = "delete_customer"
"""Tool whose call is approved without typing the name if the target has no dependents."""

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
    asker: Asker = field(default_factory=Asker)
    own_key: bool = False
    """Whether the call would revoke the key that this server uses."""
    spent: Mapping[Effect, Mapping[str, int]] = field(default_factory=dict[Effect, Mapping[str, int]])
    """Calls of its effect and of the lower ones from which it was raised, each by budget period (`FileRules.budgets`),
    with those before it in its list."""
    in_list: Mapping[Effect, int] = field(default_factory=dict[Effect, int])
    """Calls before it in its list, which are not sent yet, by each effect that they count as."""
    declines: int = 0
    """Consecutive declines within the breaker's period."""
    declined_at: datetime | None = None
    """Time of the last of these declines."""
    live: bool = False
    """Whether the call uses a live key. Set by the policy."""
    permit: Permit | None = None
    """Plan entry that covers the call and has calls left."""
    used_up: Permit | None = None
    """Plan entry that covers the call and is used up."""
    destroyed: int = 0
    """Destructive approvals within the period of `destroy_rate`."""

    def spent_in(self, period: str) -> int:
        """Return the calls of its effect in a budget period."""
        return self.spent.get(self.effect, {}).get(period, 0)


@dataclass(frozen=True, slots=True)
class StepUp:
    """How recent and how strong the sign-in of approvers has to be for calls with some effects.

    The approval page is the only place where such calls are approved.
    """

    page: str
    effects: tuple[str, ...]
    max_age: float
    """Seconds since the person was asked to sign in."""
    acr_values: tuple[str, ...] = ()
    """Accepted values of `acr`, `amr` or `acrs`: the ID token needs one. Empty: any sign-in is strong enough."""
    leeway: float = 0.0
    """Seconds by which the provider's clock may differ."""

    @property
    def values(self) -> str:
        return " or ".join(map(quote, self.acr_values))

    @property
    def needs(self) -> str:
        """The required sign-in, in words."""
        minutes = counted(int(self.max_age // 60), "minute")
        return f"a sign-in at most {minutes} old{f', by {self.values}' if self.acr_values else ''}"

    @property
    def elsewhere(self) -> str:
        return f"Approving it needs {self.needs}, at {self.page} and nowhere else."

    def concerns(self, effects: Iterable[str]) -> bool:
        return not set(effects).isdisjoint(self.effects)

    def problem(self, auth_time: float | None, acr: str, now: float) -> str | None:
        """Say what a sign-in lacks and what corrects it; None if it counts."""
        if auth_time is None:
            missing = "The identity provider did not say when you signed in: the ID token has no auth_time."
            return f"{missing} Tell the operator: the provider has to add it."
        if auth_time > now + self.leeway:
            return "The auth_time of your sign-in is in the future. Tell the operator: a clock is wrong."
        age = now - auth_time
        if age > self.max_age + self.leeway:
            ago = f"you last did {counted(int(age // 60), 'minute')} ago, and this needs {self.needs}"
            provider = "Tell the operator: the provider ignores max_age."
            return f"The identity provider did not ask you to sign in again: {ago}. {provider}"
        if self.acr_values and not {*acr.split()} & {*self.acr_values}:
            seen = f"acr and amr are {quote(acr)}" if acr else "the ID token has no acr and no amr"
            better = "Sign in with a second factor or a passkey. If you did, tell the operator"
            weak = f"The identity provider did not sign you in with {self.values}: {seen}."
            return f"{weak} {better}: the provider has to honour acr_values."
        return None


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """Decision on a call, the rule that made it, and the reason, in words for people and agents."""

    decision: Decision
    rule: str
    reason: str = ""
    permit: Permit | None = None
    """What allows the call and counts it, if that is a plan or a temporary approval."""
    matched: str = ""
    """What the rule matched, in words, unless that is what the call says."""
    step_up: StepUp | None = None
    """What an approval requires of the approver's sign-in, also of an allowed call, which may need one later."""

    @property
    def why(self) -> str:
        """What the rule matched, and the reason."""
        matched = f"{sentence(self.matched)}." if self.matched else ""
        return f"{matched} {sentence(self.reason)}".strip()


def strictest(decisions: Iterable[PolicyDecision]) -> PolicyDecision:
    """Return the strictest decision, the first of equals, with any step-up."""
    decided = list(decisions)
    chosen = max(decided, key=lambda each: each.decision.rank)
    step_up = next((each.step_up for each in decided if each.step_up is not None), None)
    return replace(chosen, step_up=step_up)


def effects_below(call: Call, effect: Effect) -> list[Effect]:
    """Return the lower effects that a call of this tool can have: one raised to `effect` may have each of them too."""
    return [each for each in (*call.raises_to, call.effect) if each.rank < effect.rank]
