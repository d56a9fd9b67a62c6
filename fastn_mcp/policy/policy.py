"""Policy decisions: whether a call may be sent, and what approval it needs.

The strictest decision wins. Of equal ones the first is named, in the order deny, protected resources, budgets,
windows, confirmations, allow.
"""

from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import Any, Literal

from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.config.model import Mode
from fastn_mcp.policy.decision import (
    CONFIRMED_IF_EMPTY,
    MODES,
    Decision,
    PolicyDecision,
    Situation,
    StepUp,
    effects_below,
    least,
    strictest,
)
from fastn_mcp.policy.plan import Plan
from fastn_mcp.policy.rules import NO_RULES, FileRules
from fastn_mcp.records.formats import counted
from fastn_mcp.tools.operation import Call, Create, Operation
from fastn_mcp.tools.tool import Effect

NO_PLAN = "no plan"
"""Rule of a refusal where nobody can be asked."""

_OWN_KEY = (
    "This is the key that this server itself uses, or Fastn does not show enough to rule that out. "
    "A person can revoke it in the dashboard."
)


@dataclass(frozen=True, slots=True)
class Policy:
    """A mode and the rules of a policy file, which are empty without a file."""

    mode: Mode = "guarded"
    rules: FileRules = NO_RULES
    plan: Plan | None = None
    live: bool = False
    """Whether the key is live, or not known to be a test key."""
    approval_lifetime: float = 600.0
    """Seconds in which a request can be answered and the approved call sent."""
    approval_wait: float = 0.0
    """Seconds for which a call waits, from its start, for the decision on its request."""
    step_up: StepUp | None = None
    """What a team requires of its approvers' sign-in."""

    @property
    def key(self) -> Literal["live", "test"]:
        """Kind of key that the policy applies to."""
        return "live" if self.live else "test"

    @property
    def digest(self) -> str:
        """Digest of this policy. An approval given under another policy is void."""
        files = [self.rules.digest, self.plan.digest if self.plan else ""]
        return ":".join([self.mode, self.key, *files, *([repr(self.step_up)] if self.step_up else [])])

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask for approval."""
        return self.mode != "unattended"

    @property
    def destroy_rate(self) -> tuple[int, float] | None:
        """Maximum number of destructive approvals per period in seconds; None if nobody can be asked."""
        return self.rules.destroy_rate if self.asks else None

    def needs_facts(self, call: Call) -> bool:
        """Return whether anything must be read before the call can be decided, whatever it refers to."""
        if call.effect is Effect.READ or self.mode == "read-only":
            return False
        return (
            bool(call.needs_person)
            or type(call).effect_on is not Operation[Any].effect_on
            or isinstance(call, Create)  # undo must not delete what it overwrites
            or least(self.mode, call.effective, live=self.live) is not Decision.ALLOW
            or any(rule.looks_at_facts(call) for rule in self.rules.rules)
        )

    def needs_records(self, resolved: ResolvedCall) -> bool:
        """Return whether records that the call refers to must be read before it can be decided."""
        if resolved.call.effect is Effect.READ or self.mode == "read-only" or not resolved.refers:
            return False
        return self.plan is not None or bool(self.rules.protected)

    def matches(self, situation: Situation) -> list[PolicyDecision]:
        """Return the decision of every rule that applies to a call, and of the mode. `decide` takes the strictest."""
        situation = replace(situation, live=self.live)
        matching = [] if situation.effect is Effect.READ else self.rules.matches(situation)
        return [*filter(None, (self._always_denied(situation),)), *matching, self._default(situation)]

    def decide(self, situation: Situation) -> PolicyDecision:
        """Decide what is to happen with a call."""
        situation = replace(situation, live=self.live)
        if situation.effect is Effect.READ:
            return PolicyDecision(Decision.ALLOW, "reads", "Reads are always allowed.")
        denied = self._always_denied(situation)
        if denied is not None:
            return denied
        call = situation.resolved.call
        verdict = self._by_rules(situation)
        # What raises an effect (an argument, a record in use, an open request) must not escape what the file says of
        # the lower ones. In a fixed order: of equally strict decisions, the first names its rule.
        below = effects_below(call, situation.effect)
        for lower in below:
            verdict = strictest((verdict, self._by_rules(replace(situation, effect=lower))))
        if verdict.decision is Decision.ALLOW and call.needs_person:
            verdict = PolicyDecision(Decision.CONFIRM, "a person in every mode", call.needs_person)
        verdict = self._with_plan(self._with_budget_left(verdict, situation), situation)
        effects = (situation.effect, *below)
        if self.step_up is None or not self.step_up.concerns(each.value for each in effects):
            return verdict
        is_asked = verdict.decision not in (Decision.ALLOW, Decision.DENY)
        reason = f"{verdict.reason} {self.step_up.elsewhere}".strip() if is_asked else verdict.reason
        return replace(verdict, step_up=self.step_up, reason=reason)

    def _by_rules(self, situation: Situation) -> PolicyDecision:
        """Return the strictest decision of the file, or else the mode's."""
        default = self._default(situation)
        if situation.asker.machine and default.decision is Decision.ALLOW:
            default = replace(default, decision=Decision.CONFIRM)  # its plan allows it, or a rule that names machines
        return strictest(self.rules.verdicts(situation, default))

    def _with_plan(self, verdict: PolicyDecision, situation: Situation) -> PolicyDecision:
        """Allow calls that a plan entry covers; deny calls that need approval if nobody can be asked."""
        if verdict.decision in (Decision.ALLOW, Decision.DENY):
            return verdict
        permit = situation.permit
        # A plan is decided out-of-band, by as many people as signed it.
        enough = verdict.decision is not Decision.FOUR_EYES or (permit is not None and permit.signers > 1)
        if permit is not None and enough:
            return PolicyDecision(Decision.ALLOW, permit.name, verdict.reason, permit)
        if self.asks:
            return verdict
        if permit is not None:
            why = f"It needs two people ({verdict.rule}), and only one has signed the plan."
        elif self.plan is not None and (out_of_time := self.plan.out_of_time(situation.now)):
            why = out_of_time
        elif self.plan is not None and (differing := self.plan.differing(situation.resolved)):
            why = f"The {differing} has changed since the plan was signed. Sign the plan again."
        elif situation.used_up is not None:
            why = f"All calls that {situation.used_up.name} allows have been made (count = {situation.used_up.count})."
        else:
            why = f"Nobody is asked ({verdict.rule}), and no plan covers this call."
        return PolicyDecision(Decision.DENY, NO_PLAN, why)

    def _always_denied(self, situation: Situation) -> PolicyDecision | None:
        """Deny calls that no policy file can allow."""
        if self.mode == "read-only":
            rule = f"mode {self.mode}: {situation.effect.value}"
            return PolicyDecision(Decision.DENY, rule, f"The mode {self.mode} allows only reads.")
        if situation.own_key:
            return PolicyDecision(Decision.DENY, "own key", _OWN_KEY)
        declined, rest = self.rules.breaker
        if situation.declines >= declined:
            until = (situation.declined_at or situation.now) + timedelta(seconds=rest)
            at = f"{until.astimezone(UTC):%H:%M:%S} UTC" + ("" if situation.declined_at else " at the latest")
            return PolicyDecision(
                Decision.DENY, "breaker", f"{situation.declines} declines in a row: only reads are sent until {at}."
            )
        return None

    def _default(self, situation: Situation) -> PolicyDecision:
        effect = situation.effect
        own = self.rules.default(effect, live=self.live)
        if own is not None:
            return own
        decision = least(self.mode, effect, live=self.live)
        rule = f"mode {self.mode}: {effect.value}"
        if decision is not MODES[self.mode][effect]:
            rule += ", live key"
        if (
            decision is Decision.TYPED
            and situation.resolved.call.tool_name() == CONFIRMED_IF_EMPTY
            and situation.resolved.dependents == 0
        ):
            return PolicyDecision(
                Decision.CONFIRM, f"{rule}, nothing depends on it", "The customer has no connections and no runs."
            )
        if effect is Effect.SPEND and decision is Decision.CONFIRM:
            # Spending within a configured budget needs no approval.
            inside = self._left(situation) is not None
            return PolicyDecision(
                Decision.ALLOW if inside else decision, f"{rule}, {'within' if inside else 'no'} budget"
            )
        return PolicyDecision(decision, rule)

    def _left(self, situation: Situation) -> tuple[int, int, str] | None:
        """Return how many calls the budgets still allow, with the limit and the period in words.

        None if no budget applies, or no call is left.
        """
        remaining = [
            (limit - situation.spent_in(period), limit, "in this run" if period == "run" else "today (UTC)")
            for period, limit in self.rules.budgets(situation.effect, situation.now).items()
        ]
        return min(remaining) if remaining and min(remaining)[0] > 0 else None

    def _with_budget_left(self, verdict: PolicyDecision, situation: Situation) -> PolicyDecision:
        if verdict.decision is Decision.DENY:
            return verdict
        # Before the first deletion, nothing is said about how many more are allowed.
        if situation.destroyed and self.destroy_rate is not None:
            most, seconds = self.destroy_rate
            left = counted(max(0, most - situation.destroyed), "more deletion")
            sentence = f"{verdict.reason} {left} can be approved in the next {seconds / 60:g} minutes."
            verdict = replace(verdict, reason=sentence.strip())
        remaining = self._left(situation)
        if remaining is None:
            return verdict  # there is no budget, the file itself reports it used up, or nothing uses it
        left, limit, per = remaining
        sentence = f"{left} of {limit} {situation.effect.value} calls are left {per}."
        return replace(verdict, reason=f"{verdict.reason} {sentence}".strip())
