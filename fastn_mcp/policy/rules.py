"""Decide one call by a whole policy file, and parse the weekly hours in which effects may happen.

Hours are local wall-clock time: an hour that occurs twice when summer time ends is open twice.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo, available_timezones

from fastn_mcp.errors import nearest
from fastn_mcp.policy.decision import BREAKER, DESTROY_RATE, Decision, PolicyDecision, Situation, strictest
from fastn_mcp.policy.matching import PolicyRule, Protected, because_of
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.tool import Effect

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FORM = re.compile(
    r"(?P<days>[A-Za-z][A-Za-z, -]*?)\s+(?P<start>\d\d:\d\d)\s?-\s?(?P<end>\d\d:\d\d)(?:\s+(?P<zone>\S+))?"
)
_WHOLE_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours from `start` until before `end`, in minutes of the day. If `end` is not later, they end on the next day."""

    text: str
    days: frozenset[int]
    start: int
    end: int
    zone: ZoneInfo

    def open_at(self, now: datetime) -> bool:
        """Return whether `now` is within the hours."""
        local = now.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        today = local.weekday() in self.days
        if self.start < self.end:
            return today and self.start <= minute < self.end
        yesterday = (local.weekday() - 1) % 7 in self.days
        return (today and minute >= self.start) or (yesterday and minute < self.end)

    def next_after(self, now: datetime) -> datetime:
        """Return their next start, in their own time zone."""
        first = now.astimezone(self.zone).date()
        begin = time(self.start // 60, self.start % 60, tzinfo=self.zone)
        days = (datetime.combine(first + timedelta(days=ahead), begin) for ahead in count())
        return next(day for day in days if day.weekday() in self.days and day.timestamp() > now.timestamp())

    def __str__(self) -> str:
        return self.text


def hours(value: object) -> Hours:
    """Parse hours. Raises `ValueError`."""
    text = str(value)
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'{text!r} is not of the form "Mon-Thu 08:00-17:00 Europe/Berlin"')
    if match["zone"] is None:
        raise ValueError(f'{text!r} names no time zone, for example "Mon-Thu 08:00-17:00 Europe/Berlin"')
    start = _minute(match["start"])
    end = _minute(match["end"])
    if start in (end, _WHOLE_DAY):
        raise ValueError(f"{match['start']}-{match['end']} is not a time span; a whole day is 00:00-24:00")
    return Hours(text, days=_days(match["days"]), start=start, end=end, zone=_zone(match["zone"]))


def _minute(text: str) -> int:
    hour, minute = (int(part) for part in text.split(":"))
    if minute > 59 or hour * 60 + minute > _WHOLE_DAY:
        raise ValueError(f"{text!r} is not a time of day")
    return hour * 60 + minute


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        begin = _day(first)
        length = (_day(last) - begin) % 7 if dash else 0
        days |= {(begin + ahead) % 7 for ahead in range(length + 1)}
    return frozenset(days)


def _day(text: str) -> int:
    name = text.strip().capitalize()
    if name not in _DAYS:
        raise ValueError(f"unknown day {text.strip()!r}{nearest(name, _DAYS)}; use one of {', '.join(_DAYS)}")
    return _DAYS.index(name)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = available_timezones()
        if not known:
            raise ValueError("this machine has no time zones; install the package tzdata") from None
        raise ValueError(f"there is no time zone {name!r}{nearest(name, known)}") from None


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A `[[window]]`: its effects are refused outside of its hours."""

    name: str
    effects: frozenset[Effect]
    tools: frozenset[str] | None
    hours: tuple[Hours, ...]
    reason: str

    def covers(self, situation: Situation) -> bool:
        named = self.tools is None or bool(situation.resolved.tools & self.tools)
        return named and situation.effect in self.effects

    def open_at(self, now: datetime) -> bool:
        return any(hours.open_at(now) for hours in self.hours)

    def next_after(self, now: datetime) -> datetime:
        return min(hours.next_after(now) for hours in self.hours)

    def words(self) -> str:
        """Describe what it refuses, and outside of which hours. Its name has the effects, unless it has tools."""
        hours = " or ".join(map(str, self.hours))
        refused = f"refused except {hours}"
        if self.tools is None:
            return refused
        effects = ", ".join(effect.value for effect in Effect if effect in self.effects)
        return f"{effects} by {', '.join(sorted(self.tools))}: {refused}"


@dataclass(frozen=True, slots=True)
class FileRules:
    """Rules of one policy file. Defaults, rules and other parts are named by the file's name and their lines."""

    digest: str = ""
    defaults: Mapping[tuple[str, Effect], PolicyDecision] = field(
        default_factory=dict[tuple[str, Effect], PolicyDecision]
    )
    """By kind of key, `live` or `test`, or empty where it is for both."""
    protected: tuple[Protected, ...] = ()
    rules: tuple[PolicyRule, ...] = ()
    windows: tuple[TimeWindow, ...] = ()
    limits: Mapping[tuple[str, Effect], int] = field(default_factory=dict[tuple[str, Effect], int])
    """Number of calls by period, `day` or `run`."""
    budget_name: str = ""
    breaker: tuple[int, float] = BREAKER
    """Declines in a row after which changes are refused, and for how many seconds."""
    destroy_rate: tuple[int, float] = DESTROY_RATE

    def default(self, effect: Effect, *, live: bool) -> PolicyDecision | None:
        """Return the file's default for an effect; None if the mode's default applies."""
        return self.defaults.get(("live" if live else "test", effect)) or self.defaults.get(("", effect))

    def budgets(self, effect: Effect, now: datetime) -> dict[str, int]:
        """Return how many calls of an effect each period allows: a UTC day such as 2026-03-29, or `run`."""
        day = now.astimezone(UTC).strftime("%Y-%m-%d")
        return {"run" if per == "run" else day: limit for (per, of), limit in self.limits.items() if of is effect}

    @property
    def compares_customers(self) -> bool:
        """Whether a decision depends on the names of customers that a call touches. A rule that allows compares ids."""
        protects = any("customer" in each.resources for each in self.protected)
        asks = (rule for rule in self.rules if rule.then is not Decision.ALLOW)
        return protects or any("customer_id" in rule.conditions for rule in asks)

    def needs_owners(self, call: Call) -> bool:
        """Return whether the decision on a call depends on whose resources it touches."""
        ruled = (rule for rule in self.rules if "customer_id" in rule.conditions)
        return self.compares_customers or any(rule.looks_at_facts(call) for rule in ruled)

    def matches(self, situation: Situation) -> list[PolicyDecision]:
        """Return the decision of every rule, protection, budget and window that applies to a call, in file order."""
        parts = [*(each.match(situation) for each in (*self.protected, *self.rules))]
        return [each for each in (*parts, self._used_up(situation), self._closed(situation)) if each is not None]

    def verdicts(self, situation: Situation, default: PolicyDecision) -> list[PolicyDecision]:
        """Return the decisions that rules cannot loosen, and the rules' own decision. The first of equal ones is
        named."""
        ruled = self._ruled(situation, default)
        held = [each.match(situation) for each in self.protected]
        held += [self._used_up(situation), self._closed(situation)]
        strict = [each for each in held if each is not None]
        return [ruled, *strict] if ruled.decision is Decision.DENY else [*strict, ruled]

    def _ruled(self, situation: Situation, default: PolicyDecision) -> PolicyDecision:
        """Apply the strictest matching rule. A rule that allows loosens the default; any other can only tighten it."""
        matches = (rule.match(situation) for rule in self.rules)
        matching = [match for match in matches if match is not None]
        if not matching:
            return default
        ruled = strictest(matching)
        return default if default.decision.rank > ruled.decision.rank > Decision.ALLOW.rank else ruled

    def _used_up(self, situation: Situation) -> PolicyDecision | None:
        effect = situation.effect
        for period, limit in self.budgets(effect, situation.now).items():
            spent = situation.spent_in(period)
            if spent >= limit:
                tomorrow = situation.now.astimezone(UTC) + timedelta(days=1)
                until = "in this run" if period == "run" else f"until {tomorrow:%Y-%m-%d} 00:00 UTC"
                decision = Decision.CONFIRM if effect is Effect.SPEND else Decision.DENY
                left = limit - spent + situation.in_list.get(effect, 0)
                calls = f"{max(left, 0)} of {limit} {effect.value} calls left {until}"
                why = f"The list needs more than the {calls}." if left > 0 else f"The budget is used up: {calls}."
                return PolicyDecision(decision, self.budget_name, why)
        return None

    def _closed(self, situation: Situation) -> PolicyDecision | None:
        covering = [window for window in self.windows if window.covers(situation)]
        if not covering or any(window.open_at(situation.now) for window in covering):
            return None
        first = min(covering, key=lambda window: window.next_after(situation.now))
        opens = first.next_after(situation.now)
        when = f"{opens:%a %Y-%m-%d %H:%M} {opens.tzinfo}"
        closed = f"The window for {situation.effect.value} is closed until {when}."
        return PolicyDecision(Decision.DENY, first.name, f"{closed}{because_of(first.reason)}")

    def words(self) -> Iterator[str]:
        """Describe the file, a line for each part."""
        for (key, effect), default in self.defaults.items():
            yield f"Default for {effect.value}{f' with a {key} key' if key else ''}: {default.decision.value}."
        for resource in self.protected:
            yield f"{resource.name}: {resource.then.value}, whatever the rules allow.{because_of(resource.reason)}"
        for rule in self.rules:
            yield f"{rule.name}{rule.words()}.{because_of(rule.reason)}"
        for window in self.windows:
            yield f"{window.name}: {window.words()}.{because_of(window.reason)}"
        for (per, effect), limit in self.limits.items():
            then = "a person is asked" if effect is Effect.SPEND else "none"
            yield f"Budget: {limit} {effect.value} calls a {per}, then {then}."
        most, seconds = self.destroy_rate
        yield f"Budget: {most} approved deletions in {seconds / 60:g} minutes, then none."
        declined, rest = self.breaker
        yield f"Breaker: after {declined} declines in a row, no change is sent for {rest / 60:g} minutes."


CUSTOMERS_UNREADABLE = (
    "This key may not read customers, so the policy recognises them by their ids only, not by names or slugs."
    " Use a key that may, or protect customers by id."
)
"""Warning for rules that compare customers."""

NO_RULES = FileRules()
"""Rules without a policy file."""
