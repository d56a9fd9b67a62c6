"""What may be sent, and what a person is asked first. Pure: no I/O, no clock.

The most restrictive match wins, in the order deny, protected resources, budgets, windows, confirmations, allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Literal, Protocol

from fastn_mcp.operation import Effect, Operation, Record

Mode = Literal["read-only", "guarded", "manual", "auto"]


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
    "auto": (_A, _A, _A, _A, _C, _C, _T),
}
MODES: Mapping[Mode, Mapping[Effect, Decision]] = {
    mode: dict(zip(Effect, decisions, strict=True)) for mode, decisions in _TABLE.items()
}


@dataclass(frozen=True, slots=True)
class Situation:
    """A call, and the facts by which it is judged. `None` means that a fact could not be learnt."""

    call: Operation[Any]
    effect: Effect
    now: datetime
    target: Record | None = None
    dependents: int | None = None
    """How many others use the target."""
    own_key: bool = False
    """Whether it would revoke the key that this server uses."""
    spent: Mapping[Effect, int] = field(default_factory=dict[Effect, int])
    """Calls of each effect since the budget's period began."""
    declines: int = 0
    """Declines in a row, within the breaker's rest."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to happen with a call, by which rule, and why, in words for people and agents."""

    decision: Decision
    rule: str
    reason: str = ""


class Rules(Protocol):
    """What a policy file adds to a mode."""

    digest: str

    def verdicts(self, situation: Situation, default: Verdict) -> list[Verdict]:
        """What each part of the file that matches says; the strictest of them holds. Empty: the default holds."""
        ...

    def limit(self, effect: Effect) -> int | None:
        """How many calls of an effect a period allows; None for any number."""
        ...

    @property
    def breaker(self) -> tuple[int, float]:
        """Declines in a row after which changes rest, and for how many seconds."""
        ...

    def period(self, now: datetime) -> str:
        """The budget period that `now` lies in."""
        ...

    def mentions(self, call: Operation[Any]) -> bool:
        """Whether it may say something of this call that depends on the facts."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """A mode, and the rules of a policy file, if there is one."""

    mode: Mode = "guarded"
    rules: Rules | None = None

    @property
    def digest(self) -> str:
        """Names exactly this policy: an approval under another one is void."""
        return f"{self.mode}:{self.rules.digest if self.rules else ''}"

    @property
    def breaker(self) -> tuple[int, float]:
        """Declines in a row after which changes rest, and for how many seconds."""
        return self.rules.breaker if self.rules else (5, 600.0)

    def limit(self, effect: Effect) -> int | None:
        """How many calls of an effect a period allows; None for any number."""
        return self.rules.limit(effect) if self.rules else None

    def period(self, now: datetime) -> str:
        """The budget period that `now` lies in."""
        return self.rules.period(now) if self.rules else now.strftime("%Y-%m-%d")

    def needs_facts(self, call: Operation[Any]) -> bool:
        """Whether the target must be read before anything can be said."""
        if call.effect is Effect.READ:
            return False
        return (
            (call.route.method == "PUT" and call.toolset() in _RAISED)
            or MODES[self.mode][call.effective] is not Decision.ALLOW
            or (self.rules is not None and self.rules.mentions(call))
        )

    def judge(self, situation: Situation) -> Verdict:
        """The verdict on a call."""
        default = self._default(situation)
        if situation.effect is Effect.READ or default.decision is Decision.DENY:
            return default
        said = self.rules.verdicts(situation, default) if self.rules else []
        return max(said, key=lambda verdict: verdict.decision.rank) if said else default

    def _default(self, situation: Situation) -> Verdict:
        effect = situation.effect
        decision = MODES[self.mode][effect]
        rule = f"mode {self.mode}: {effect.value}"
        if decision is Decision.DENY:
            return Verdict(decision, rule, f"The mode {self.mode} sends nothing but reads.")
        if situation.own_key:
            return Verdict(Decision.DENY, "own key", "This is the key that this server itself uses.")
        if decision is Decision.TYPED and situation.call.tool_name() == "delete_customer" and situation.dependents == 0:
            return Verdict(
                Decision.CONFIRM, f"{rule}, nothing depends on it", "The customer has no connections and no runs."
            )
        limit = self.rules.limit(effect) if self.rules else None
        if effect is Effect.SPEND and decision is Decision.CONFIRM and self.mode == "guarded":
            # Inside a budget that somebody has set, spending needs no question.
            inside = limit is not None and situation.spent.get(effect, 0) < limit
            return Verdict(Decision.ALLOW if inside else decision, f"{rule}, {'inside' if inside else 'no'} budget")
        return Verdict(decision, rule)


# Their updates act on live systems or not, which only the target tells.
_RAISED = ("workflows", "connectors", "triggers")
