"""The decision of a whole policy file for one call."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fastn_mcp.guard.policy import DESTROY_RATE, Decision, PolicyDecision, Situation
from fastn_mcp.guard.policy_rules.matching import Call, PolicyRule, Protected
from fastn_mcp.guard.policy_rules.time_window import Hours
from fastn_mcp.tools.tool import Effect


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A `[[window]]`: outside of its hours the effects do not happen."""

    name: str
    effects: frozenset[Effect]
    tools: frozenset[str] | None
    hours: tuple[Hours, ...]
    reason: str

    def covers(self, situation: Situation) -> bool:
        named = self.tools is None or situation.call.tool_name() in self.tools
        return named and situation.effect in self.effects

    def open_at(self, now: datetime) -> bool:
        return any(hours.open_at(now) for hours in self.hours)

    def next_after(self, now: datetime) -> datetime:
        return min(hours.next_after(now) for hours in self.hours)


@dataclass(frozen=True, slots=True)
class FileRules:
    """The rules of one file. `defaults`, rules and the rest are named by the file's name and their lines."""

    digest: str
    defaults: Mapping[Effect, PolicyDecision]
    protected: tuple[Protected, ...]
    rules: tuple[PolicyRule, ...]
    openings: tuple[TimeWindow, ...]
    budget: Mapping[Effect, int]
    budget_name: str
    per: str
    run_budget: Mapping[Effect, int]
    breaker: tuple[int, float]
    destroy_rate: tuple[int, float] = DESTROY_RATE
    live_defaults: Mapping[Effect, PolicyDecision] = field(default_factory=dict[Effect, PolicyDecision])
    """Over `defaults`, with a live key."""
    test_defaults: Mapping[Effect, PolicyDecision] = field(default_factory=dict[Effect, PolicyDecision])
    """The same with a test key."""

    def default(self, effect: Effect, *, live: bool) -> PolicyDecision | None:
        own = self.live_defaults if live else self.test_defaults
        return own.get(effect) or self.defaults.get(effect)

    def limit(self, effect: Effect) -> int | None:
        return self.budget.get(effect)

    def run_limit(self, effect: Effect) -> int | None:
        return self.run_budget.get(effect)

    def period(self, now: datetime) -> str:
        return "run" if self.per == "run" else now.astimezone(UTC).strftime("%Y-%m-%d")

    def mentions(self, call: Call) -> bool:
        acts_on_one = call.target is not None and bool(self.protected)
        return acts_on_one or any(rule.looks_at_facts(call) for rule in self.rules)

    def verdicts(self, situation: Situation, default: PolicyDecision) -> list[PolicyDecision]:
        """What holds whatever the rules allow, and what the rules make of the default. Of equals the first is named."""
        ruled = self._ruled(situation, default)
        held = [said for resource in self.protected if (said := resource.verdict(situation)) is not None]
        held += [said for said in (self._used_up(situation), self._closed(situation)) if said is not None]
        return [ruled, *held] if ruled.decision is Decision.DENY else [*held, ruled]

    def _ruled(self, situation: Situation, default: PolicyDecision) -> PolicyDecision:
        """The strictest matching rule holds. If it allows, it loosens the default; any other can only tighten it."""
        matching = [rule for rule in self.rules if rule.matches(situation)]
        if not matching:
            return default
        said = max(matching, key=lambda rule: rule.then.rank).verdict()
        return default if default.decision.rank > said.decision.rank > Decision.ALLOW.rank else said

    def _used_up(self, situation: Situation) -> PolicyDecision | None:
        effect = situation.effect
        limit, until = self.budget.get(effect), f"until {_midnight(situation.now)} UTC"
        if self.per == "run":
            until = "in this run"
        if limit is None or situation.spent.get(effect, 0) < limit:
            limit, until = self.run_budget.get(effect), "in this run"
            if limit is None or situation.spent_in_run.get(effect, 0) < limit:
                return None
        decision = Decision.CONFIRM if effect is Effect.SPEND else Decision.DENY
        return PolicyDecision(
            decision, self.budget_name, f"The budget is used up: 0 of {limit} {effect.value} calls left {until}."
        )

    def _closed(self, situation: Situation) -> PolicyDecision | None:
        covering = [opening for opening in self.openings if opening.covers(situation)]
        if not covering or any(opening.open_at(situation.now) for opening in covering):
            return None
        first = min(covering, key=lambda opening: opening.next_after(situation.now))
        opens = first.next_after(situation.now)
        when = f"{opens:%a %Y-%m-%d %H:%M} {opens.tzinfo}"
        because = f" {first.reason.rstrip('.')}." if first.reason else ""
        return PolicyDecision(
            Decision.DENY, first.name, f"It is closed for {situation.effect.value} until {when}.{because}"
        )

    def words(self) -> Iterator[str]:
        """What the file says, a line for each part."""
        for effect, said in self.defaults.items():
            yield f"By default, {effect.value}: {said.decision.value}."
        for key, defaults in (("live", self.live_defaults), ("test", self.test_defaults)):
            for effect, said in defaults.items():
                yield f"By default with a {key} key, {effect.value}: {said.decision.value}."
        for resource in self.protected:
            yield f"{resource.name}: {resource.then.value}, whatever the rules allow.{_because(resource.reason)}"
        for rule in self.rules:
            yield f"{rule.name}{rule.conditions()}: {rule.then.value}.{_because(rule.reason)}"
        for opening in self.openings:
            where = f" by {', '.join(sorted(opening.tools))}" if opening.tools is not None else ""
            effects = ", ".join(effect.value for effect in Effect if effect in opening.effects)
            hours = " or ".join(map(str, opening.hours))
            yield f"{opening.name}: {effects}{where} only {hours}.{_because(opening.reason)}"
        for per, budget in ((self.per, self.budget), ("run", self.run_budget)):
            for effect, limit in budget.items():
                then = "a question" if effect is Effect.SPEND else "none"
                yield f"Budget: {limit} {effect.value} calls a {per}, then {then}."
        most, seconds = self.destroy_rate
        yield f"Budget: {most} approvals that destroy in {seconds / 60:g} minutes, then none."
        declined, rest = self.breaker
        yield f"Breaker: after {declined} declines in a row, nothing that changes something for {rest / 60:g} minutes."


def _because(reason: str) -> str:
    return f" {reason.rstrip('.')}." if reason else ""


def _midnight(now: datetime) -> str:
    return (now.astimezone(UTC) + timedelta(days=1)).strftime("%Y-%m-%d 00:00")
