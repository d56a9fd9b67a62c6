"""Match calls against policy rules and protected resources.

An unknown fact never loosens: where it would decide, rules that allow do not match, and all others do.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import cast

from fastn_mcp.fastn.resolve import EFFECTIVE, ResolvedCall, ValueSource
from fastn_mcp.fastn.rows import row_of
from fastn_mcp.fastn.targets import Call
from fastn_mcp.guard.policy import Decision, PolicyDecision, Situation
from fastn_mcp.redaction import name_as_read
from fastn_mcp.tools.tool import Effect


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern of `*`, `?` and `[...]`."""

    text: str
    _exact: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _loose: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_exact", re.compile(translate(self.text)))
        loose = (re.compile(translate(text)) for text in (self.text.casefold(), name_as_read(self.text)))
        object.__setattr__(self, "_loose", tuple(loose))

    def __call__(self, value: object, *, exact: bool) -> bool:
        """Return whether the pattern matches a text, or an id that is a number.

        Rules that allow match exactly. Rules that refuse or ask match any text that reads the same: case, width,
        invisible characters and surrounding blanks are ignored.
        """
        if isinstance(value, bool) or not isinstance(value, str | int):
            return False
        text = str(value)
        if exact:
            return self._exact.match(text) is not None
        plain, as_read = self._loose
        return plain.match(text.casefold()) is not None or as_read.match(name_as_read(text)) is not None

    def __str__(self) -> str:
        return self.text


def _fits(globs: Iterable[Glob], values: Iterable[object], *, exact: bool = False) -> bool:
    found = list(values)
    return any(glob(value, exact=exact) for glob in globs for value in found)


@dataclass(frozen=True, slots=True)
class UserCount:
    """Bounds on the number of dependents of the target."""

    least: int | None
    most: int | None

    def hold(self, dependents: int) -> bool:
        return (self.least is None or dependents >= self.least) and (self.most is None or dependents <= self.most)

    def __str__(self) -> str:
        parts = [f"{word} {n}" for word, n in (("at least", self.least), ("at most", self.most)) if n is not None]
        return f"dependents {' and '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Allowed values of an argument. An empty text matches an argument that was not given."""

    options: tuple[Glob | int, ...]

    def __call__(self, given: object, *, exact: bool) -> bool:
        """Return whether the value matches: every item of a list if `exact`, else any item, as it reads."""
        if given is None:
            return any(isinstance(option, Glob) and not option.text for option in self.options)
        if isinstance(given, list):
            fits = [self._one(item, exact) for item in cast("list[object]", given)]
            return bool(fits) and (all(fits) if exact else any(fits))
        return self._one(given, exact)

    def _one(self, value: object, exact: bool) -> bool:
        return any(
            option(value, exact=exact) if isinstance(option, Glob) else type(value) is int and option == value
            for option in self.options
        )

    def __str__(self) -> str:
        return " or ".join(str(option) or "not given" for option in self.options)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A `[[rule]]`. A field that is None or empty does not restrict the match."""

    name: str
    tools: frozenset[str] | None
    effects: frozenset[Effect] | None
    targets: tuple[Glob, ...]
    dependents: UserCount | None
    arguments: Mapping[str, Choice]
    then: Decision
    reason: str = ""
    key: str | None = None
    """Live or test. A key not known to be a test key counts as live."""

    @property
    def unconditional(self) -> bool:
        """Whether the rule matches every call of its tools with its effects."""
        return not self.targets and self.dependents is None and not self.arguments and self.key is None

    def looks_at_facts(self, call: Call) -> bool:
        """Return whether a match with `call` can depend on facts about its target."""
        named = self.tools is None or call.tool_name() in self.tools
        effective = not self.arguments.keys().isdisjoint(EFFECTIVE) and self.then is not Decision.ALLOW
        return named and (bool(self.targets) or self.dependents is not None or effective)

    def matches(self, situation: Situation) -> bool:
        """Return whether the rule matches this call."""
        call = situation.call
        return (
            (self.tools is None or call.tool_name() in self.tools)
            and (self.effects is None or situation.effect in self.effects)
            and self.key in (None, "live" if situation.live else "test")
            and self._fits_arguments(situation.resolved)
            and (not self.targets or self._fits_target(situation))
            and (self.dependents is None or self._fits_dependents(situation.resolved.dependents))
        )

    def verdict(self) -> PolicyDecision:
        return PolicyDecision(self.then, self.name, self.reason)

    def conditions(self) -> str:
        """Describe the conditions in words."""
        by = "target id" if self.then is Decision.ALLOW else "target"
        said = [f"{by} {' or '.join(map(str, self.targets))}"] if self.targets else []
        said += [str(self.dependents)] if self.dependents else []
        said += [f"{name} {choice}" for name, choice in self.arguments.items()]
        said += [f"a {self.key} key"] if self.key else []
        return f" with {', '.join(said)}" if said else ""

    def _fits_arguments(self, resolved: ResolvedCall) -> bool:
        return all(self._fits_argument(name, choice, resolved) for name, choice in self.arguments.items())

    def _fits_argument(self, name: str, choice: Choice, resolved: ResolvedCall) -> bool:
        call, allows = resolved.call, self.then is Decision.ALLOW
        if name in call.unresolved:
            return not allows
        takes, effective = name in type(call).model_fields, resolved.effective(name)
        given: object = getattr(call, name, None)
        if allows and effective is not None and effective.source is ValueSource.SETTING:
            given = list(effective.values)  # the server adds it to the request
        if allows or effective is None:
            return takes and choice(given, exact=allows)
        # What the call says, and what it will do: either is enough to refuse or to ask.
        values: list[object] = list(effective.values)
        values += resolved.touched("customer").names if name == "customer_id" else ()
        return not effective.is_known or (takes and choice(given, exact=False)) or choice(values, exact=False)

    def _fits_target(self, situation: Situation) -> bool:
        resolved = situation.resolved
        if self.then is Decision.ALLOW:
            # Match the id that was read: an agent could change a name or a slug and so approve its own call.
            return _fits(self.targets, [row_of(resolved.target).get("id")], exact=True)
        return _fits(self.targets, resolved.own_names) or resolved.is_missing

    def _fits_dependents(self, dependents: int | None) -> bool:
        assert self.dependents is not None  # noqa: S101 - asked only where there are bounds
        return self.then is not Decision.ALLOW if dependents is None else self.dependents.hold(dependents)


@dataclass(frozen=True, slots=True)
class Protected:
    """A `[[protect]]`: protected resources of each kind, whatever the rules allow."""

    name: str
    resources: Mapping[str, tuple[Glob, ...]]
    then: Decision
    reason: str = ""

    def verdict(self, situation: Situation) -> PolicyDecision | None:
        """Return the decision if the call touches, or may touch, a protected resource."""
        because = f": {self.reason.rstrip('.')}" if self.reason else ""
        for kind, globs in self.resources.items():
            what = f"The {kind.replace('_', ' ')} {' or '.join(map(str, globs))} is protected"
            touched = situation.resolved.touched(kind)
            if _fits(globs, touched.names):
                return PolicyDecision(self.then, self.name, f"{what}{because}.")
            if not touched.is_known:
                unread = "and not all that this call touches could be read"
                if situation.resolved.is_missing:
                    unread = "and the target of this call could not be read"
                return PolicyDecision(self.then, self.name, f"{what}, {unread}{because}.")
        return None
