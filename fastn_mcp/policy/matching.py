"""Match calls against policy rules and protected resources.

An unknown fact never loosens: where it would decide, rules that allow do not match, and all others do.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from fastn_mcp.account.resolved_call import (
    FOR_ALL_WITHOUT,
    REFERENCE_NAMES,
    Effective,
    Mention,
    Record,
    Relation,
    ResolvedCall,
    ValueSource,
    undocumented_texts,
)
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.conditions import ANYBODY, DERIVED, NAME, NEW_NAME, Choice, Glob, UserCount, Who, host_of, is_host
from fastn_mcp.policy.decision import Decision, PolicyDecision, Situation
from fastn_mcp.records.formats import kind_in_words, sentence
from fastn_mcp.records.rows import row_of
from fastn_mcp.redaction import quote
from fastn_mcp.tools.operation import Call, Create, plain
from fastn_mcp.tools.related_reads import kind_of
from fastn_mcp.tools.tool import Effect


def _first(globs: Iterable[Glob], mentions: Iterable[Mention]) -> tuple[Glob, Mention] | None:
    """Return the first mention that a pattern matches, as it reads, with the pattern."""
    listed = list(mentions)
    return next(((glob, each) for glob in globs for each in listed if glob(each.value, exact=False)), None)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A `[[rule]]`. A field that is None or empty does not restrict the match."""

    name: str
    tools: frozenset[str] | None
    effects: frozenset[Effect] | None
    targets: tuple[Glob, ...]
    dependents: UserCount | None
    conditions: Mapping[str, Choice]
    """By argument, or by what stands in its place: `DERIVED`, `NAME`, `NEW_NAME`."""
    then: Decision
    reason: str = ""
    key: str | None = None
    """Live or test. A key not known to be a test key counts as live."""
    who: Who = ANYBODY
    unless: Who = ANYBODY
    """Who is exempt from the rule."""

    @property
    def unconditional(self) -> bool:
        """Whether the rule matches every call of its tools with its effects."""
        conditions = (self.targets, self.conditions, self.key, self.who.facts, self.unless.facts)
        return self.dependents is None and not any(conditions)

    def asked_by(self, asker: Asker) -> str | None:
        """Return why the rule applies to who asks, in words; None if it does not."""
        loosens = self.then is Decision.ALLOW
        if loosens and asker.machine and "machine" not in self.who.facts:
            return None  # what people may do without being asked is not meant for machines
        if self.unless.facts and self.unless.match(asker, exact=not loosens) is not None:
            return None
        return self.who.match(asker, exact=loosens)

    def looks_at_facts(self, call: Call) -> bool:
        """Return whether a match with `call` can depend on records that have to be read."""
        named = self.tools is None or call.tool_name() in self.tools
        read = any(name in (*DERIVED, NAME) or plain(name) in REFERENCE_NAMES for name in self.conditions)
        derived = read and (self.then is not Decision.ALLOW or "customer_id" in self.conditions)
        return named and (bool(self.targets) or self.dependents is not None or derived)

    def match(self, situation: Situation) -> PolicyDecision | None:
        """Return the rule's decision, with what it matched in words; None if it does not match this call."""
        call = situation.resolved.call
        resolved = situation.resolved
        applies = (
            self._names(resolved)
            and (self.effects is None or situation.effect in self.effects)
            and self.key in (None, "live" if situation.live else "test")
            and (
                self.dependents is None
                or self.dependents.hold(resolved.dependents, if_unknown=self.then is not Decision.ALLOW)
            )
            # Who allows a call for its arguments has not allowed fields that nothing compares.
            and not (self.then is Decision.ALLOW and self.conditions and call.is_undocumented)
        )
        if not applies:
            return None
        matched: list[str] = []
        for condition in (self.asked_by(situation.asker), *self._matched(resolved)):
            if condition is None:
                return None
            matched.append(condition)
        words = "; ".join(filter(None, matched))
        return PolicyDecision(self.then, self.name, self.reason, matched=words)

    def _names(self, resolved: ResolvedCall) -> bool:
        """Return whether it is a rule for what the call does: a rule that allows, for all of it."""
        if self.tools is None:
            return True
        return resolved.tools <= self.tools if self.then is Decision.ALLOW else bool(resolved.tools & self.tools)

    def words(self) -> str:
        """Describe the conditions in words."""
        by = "target id" if self.then is Decision.ALLOW else "target"
        parts = [f"{by} {' or '.join(map(str, self.targets))}"] if self.targets else []
        parts += [str(self.dependents)] if self.dependents else []
        parts += [f"{name} {choice}" for name, choice in self.conditions.items()]
        parts += [f"a {self.key} key"] if self.key else []
        conditions = f" with {', '.join(parts)}" if parts else ""
        asker = f" by {self.who}" if self.who.facts else ""
        exempt = f" unless by {self.unless}" if self.unless.facts else ""
        return f"{conditions}{asker}{exempt}: {self.then.value}"

    def _matched(self, resolved: ResolvedCall) -> Iterator[str | None]:
        """Yield for each condition what fulfils it, in words; None for a condition that is not fulfilled."""
        if self.targets:
            yield self._target(resolved)
        test = self._loosens if self.then is Decision.ALLOW else self._tightens
        for name, choice in self.conditions.items():
            yield test(name, choice, resolved)

    def _target(self, resolved: ResolvedCall) -> str | None:
        if self.then is Decision.ALLOW:
            # Match the id that was read: an agent could change a name or a slug and so approve its own call.
            id_ = row_of(resolved.target).get("id")
            return "" if any(glob(id_, exact=True) for glob in self.targets) else None
        found = _first(self.targets, resolved.own_mentions)
        if found is not None:
            glob, mention = found
            return "" if glob.text == mention.value else f"{mention} matches {glob}"
        return "its target could not be read" if resolved.is_missing else None

    def _loosens(self, name: str, choice: Choice, resolved: ResolvedCall) -> str | None:
        """Match what the call says only, if what undocumented fields and settings add to the request matches too."""
        call = resolved.call
        argument = NAME if name == NEW_NAME else name
        argument_value: object = getattr(call, argument, None)
        takes = argument in type(call).model_fields and (argument != NAME or isinstance(call, Create) == (name == NAME))
        if name in call.unresolved or not takes or not choice(argument_value, exact=True):
            return None
        if name == "domain" and not is_host(argument_value):
            return None  # a pattern of hosts could match what follows the host
        for each in resolved.records if name == "customer_id" else ():
            if each.kind == "connection" and each.row is None:
                return None  # whose it is could not be read
            if each.kind == "customer" and not choice(each.id, exact=True):
                return None  # it names what belongs to another customer, such as a connection
        sent = DERIVED[name](resolved) if name in DERIVED else Effective()
        is_sent = sent.source in (ValueSource.ARGUMENT, ValueSource.SETTING)
        values = [*sent.values, *(each.id for each in resolved.named if f"{each.kind}_id" == name)]
        matches = sent.is_known and all(choice(value, exact=True) for value in values)
        return None if is_sent and not matches else ""

    def _tightens(self, name: str, choice: Choice, resolved: ResolvedCall) -> str | None:
        """Match what the call says, and what it will do: either is enough to refuse or to ask."""
        call = resolved.call
        if name in (NAME, NEW_NAME):
            return _has_name(choice, resolved, is_new=name == NEW_NAME)
        matched = _in_arguments(name, choice, call)
        if matched is not None:
            return matched
        if name in DERIVED:
            return _in_effect(name, choice, resolved)
        if name in call.unresolved:
            return f"its {name} is not known, since Fastn chooses it: give one"
        argument_value: object = getattr(call, name, None)
        is_word = plain(name) not in REFERENCE_NAMES and choice.is_word(argument_value)
        is_host_in_it = name == "domain" and choice(host_of(argument_value), exact=False)
        if is_word or is_host_in_it:
            return ""
        return _named(choice, argument_value, resolved)


def _in_arguments(name: str, choice: Choice, call: Call) -> str | None:
    """Match what the call says: an argument, the meaning of a missing argument, or a value in an undocumented field."""
    argument_value: object = getattr(call, name, None)
    if name in type(call).model_fields and name not in call.unresolved and choice(argument_value, exact=False):
        return ""
    if not str(argument_value or "").strip():
        missing = _missing_argument(name, choice, call)
        if missing is not None:
            return missing
    for text in undocumented_texts(call):
        if text.strip() and (choice(text, exact=False) or choice.is_word(text)):
            return f"an undocumented field holds {quote(text)}"
    return None


def _in_effect(name: str, choice: Choice, resolved: ResolvedCall) -> str | None:
    """Match the environment or the customer that the call will have, whoever names it. An unknown one matches."""
    effective = DERIVED[name](resolved)
    for value in effective.values:
        if choice(value, exact=False):
            return f"its {_WORDS[name]} is {quote(value)}, from {effective.source.value}"
    if name == "customer_id":
        touched = resolved.touched("customer")
        for mention in touched.mentions:
            if choice(mention.value, exact=False):
                return f"{mention.of}, by {mention}"
        return touched.gap or None
    if effective.is_known:
        return None
    way_out = ": name one" if name in type(resolved.call).model_fields else ", and Fastn chooses it"
    return f"its {_WORDS[name]} is not known, since the call names none{way_out}"


def _has_name(choice: Choice, resolved: ResolvedCall, *, is_new: bool) -> str | None:
    """Match a name of the target or of what is created, and the new name of an update; only the new one if `is_new`."""
    call = resolved.call
    fields = ("new name",) if is_new else _NAME_DETAILS
    mentions = [each for each in resolved.own_mentions if each.field in fields]
    mention = next((each for each in mentions if choice(each.value, exact=False)), None)
    if mention is not None:
        return "" if mention.field == "new name" else f"its name is {quote(str(mention.value))}"
    if NAME in type(call).model_fields and choice(getattr(call, NAME), exact=False):
        return ""  # a name that is not given
    return "its name could not be read" if not is_new and resolved.is_missing else None


def _named(choice: Choice, value: object, resolved: ResolvedCall) -> str | None:
    """Match a record that an argument names by its other names: a role is given by its name or by its id."""
    keys = set(map(str, cast("list[object]", value) if isinstance(value, list) else [value]))
    named = resolved.named
    target = resolved.call.target
    if target is not None:
        row = None if resolved.is_missing else row_of(resolved.target)
        named = [Record(kind_of(resolved.call), target, Relation.TARGET, row), *named]
    for record in named:
        if record.id in keys:
            if record.row is None and not record.is_forbidden:
                return f"{record.kind} {quote(record.id)} could not be read"
            if any(choice(value, exact=False) for value in record.identity().values()):
                return f"it is {record.kind} {quote(record.name)}"
    return None


def _missing_argument(name: str, choice: Choice, call: Call) -> str | None:
    """Match what a missing argument means: its default or, for an argument that names customers, all customers."""
    default = call.defaults.get(name)
    if default is not None and choice(default, exact=False):
        return f"its {name} is {quote(default)} by default"
    is_for_all = name not in DERIVED and name == FOR_ALL_WITHOUT.get(call.tool_name())
    return f"it names no {name}, so it is for all" if is_for_all else None


_NAME_DETAILS = ("name", "new name")
_WORDS = {"environment": "environment", "customer_id": "customer"}


@dataclass(frozen=True, slots=True)
class Protected:
    """A `[[protect]]`: protected resources of each kind, whatever the rules allow."""

    name: str
    resources: Mapping[str, tuple[Glob, ...]]
    then: Decision
    reason: str = ""

    def match(self, situation: Situation) -> PolicyDecision | None:
        """Return the decision if the call touches, or may touch, a protected resource."""
        for kind, globs in self.resources.items():
            touched = situation.resolved.touched(kind)
            match = _first(globs, touched.mentions)
            if match is not None:
                glob, mention = match
                is_named = quote(str(mention.value)) in mention.of
                why = f" ({glob})" if is_named else f": {mention} matches {glob}"
                return self._decision(f"{sentence(mention.of)} is protected{why}")
            if touched.gap:
                what = f"{sentence(kind_in_words(kind))}s matching {' or '.join(map(str, globs))} are protected"
                return self._decision(f"{what}, and {touched.gap}")
        return None

    def _decision(self, matched: str) -> PolicyDecision:
        reason = because_of(self.reason).lstrip()
        return PolicyDecision(self.then, self.name, reason, matched=matched)


def because_of(reason: str) -> str:
    """Return the reason of a rule as a sentence that follows another; empty if it has none."""
    return f" Reason: {reason.rstrip('.')}." if reason else ""
