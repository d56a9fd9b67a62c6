"""Match calls against policy rules and protected resources.

An unknown fact never loosens: where it would decide, rules that allow do not match, and all others do.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any, cast

from fastn_mcp.fastn.targets import Call
from fastn_mcp.guard.policy import Decision, PolicyDecision, Situation
from fastn_mcp.redaction import name_as_read
from fastn_mcp.tools.tool import Effect, FastnObject


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
        return named and (bool(self.targets) or self.dependents is not None)

    def matches(self, situation: Situation) -> bool:
        """Return whether the rule matches this call."""
        call = situation.call
        return (
            (self.tools is None or call.tool_name() in self.tools)
            and (self.effects is None or situation.effect in self.effects)
            and self.key in (None, "live" if situation.live else "test")
            and self._fits_arguments(call)
            and (not self.targets or self._fits_target(situation))
            and (self.dependents is None or self._fits_dependents(situation.dependents))
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

    def _fits_arguments(self, call: Call) -> bool:
        allows = self.then is Decision.ALLOW
        return all(
            not allows
            if name in call.unresolved
            else name in type(call).model_fields and choice(getattr(call, name), exact=allows)
            for name, choice in self.arguments.items()
        )

    def _fits_target(self, situation: Situation) -> bool:
        if self.then is Decision.ALLOW:
            # Match the id that was read: an agent could change a name or a slug and so approve its own call.
            return _fits(self.targets, [_fields(situation.target).get("id")], exact=True)
        named = [*_target(situation), *_named(situation.call)]
        return _fits(self.targets, named) or _is_unknown(situation)

    def _fits_dependents(self, dependents: int | None) -> bool:
        assert self.dependents is not None  # noqa: S101 - asked only where there are bounds
        return self.then is not Decision.ALLOW if dependents is None else self.dependents.hold(dependents)


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind of resource: the tools that act on it, and the fields in which other resources refer to it."""

    toolset: str
    fields: frozenset[str]


# Names as `_plain` returns them.
KINDS: Mapping[str, ResourceKind] = {
    "customer": ResourceKind(
        "customers", frozenset({"customer", "customers", "customerid", "customerids", "endorg", "endorgid"})
    ),
    "connector": ResourceKind("connectors", frozenset({"connector", "connectorid"})),
    "connection": ResourceKind("connections", frozenset({"connection", "connectionid"})),
    "workflow": ResourceKind("workflows", frozenset({"workflow", "workflowid", "routeid"})),
    "trigger": ResourceKind("triggers", frozenset({"trigger", "triggerid"})),
    "api_key": ResourceKind("api_keys", frozenset({"apikeyid"})),
    "secret": ResourceKind("secrets", frozenset({"secretid"})),
}


@dataclass(frozen=True, slots=True)
class Protected:
    """A `[[protect]]`: protected resources of each kind, whatever the rules allow."""

    name: str
    resources: Mapping[str, tuple[Glob, ...]]
    then: Decision
    reason: str = ""

    def verdict(self, situation: Situation) -> PolicyDecision | None:
        """Return the decision if the call acts, or may act, on a protected resource."""
        because = f": {self.reason.rstrip('.')}" if self.reason else ""
        for kind, globs in self.resources.items():
            what = f"The {kind.replace('_', ' ')} {' or '.join(map(str, globs))} is protected"
            if _fits(globs, _resources(kind, situation)):
                return PolicyDecision(self.then, self.name, f"{what}{because}.")
            if _is_unknown(situation) or any(_plain(name) in KINDS[kind].fields for name in situation.call.unresolved):
                return PolicyDecision(
                    self.then, self.name, f"{what}, and the target of this call could not be read{because}."
                )
        return None


def _is_unknown(situation: Situation) -> bool:
    return situation.call.target is not None and situation.target is None


def _target(situation: Situation) -> list[object]:
    """Return the ids and names of the call's target."""
    return [situation.call.target, *_identity(_fields(situation.target))]


def _named(call: Call) -> list[object]:
    """Return the names given in the call: it may overwrite a secret or a workflow of the same name."""
    given = call.arguments()
    extra = given.get("extra")
    return [*_identity(given), *_identity(extra if isinstance(extra, dict) else {})]


def _identity(fields: Mapping[str, Any]) -> list[object]:
    return [fields.get(name) for name in ("id", "slug", "name")]


def _resources(kind: str, situation: Situation) -> Iterator[object]:
    """Yield the ids and names of resources of a kind that the call acts on, or that own its target."""
    if situation.call.toolset() == KINDS[kind].toolset:
        yield from _target(situation)
        yield from _named(situation.call)
    yield from _owners(situation.call.arguments(), KINDS[kind].fields)
    yield from _owners(_fields(situation.target), KINDS[kind].fields)


def _fields(record: FastnObject | None) -> dict[str, Any]:
    return record.model_dump() if record is not None else {}


def _owners(value: object, fields: frozenset[str]) -> Iterator[object]:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        for name, inner in mapping.items():
            if _plain(name) in fields:
                yield from _ids(inner)
            yield from _owners(inner, fields)
    elif isinstance(value, list):
        items = cast("list[object]", value)
        for inner in items:
            yield from _owners(inner, fields)


def _ids(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        yield from _identity(mapping)
    elif isinstance(value, list):
        items = cast("list[object]", value)
        for inner in items:
            yield from _ids(inner)
    else:
        yield value


def _plain(name: str) -> str:
    """Normalize a name: `customer_id`, `customerId` and `customer-id` are equal."""
    return name.replace("_", "").replace("-", "").casefold()
