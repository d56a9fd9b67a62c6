"""What a person reads about a call, the facts behind it, and the words that all sentences share.

Names and values of Fastn or the agent stand between double quotes, which our own words never contain. Facts are those
that the preview read; what could not be read is said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.account.dependence import Dependence, Dependents
from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.guard.undo import NotUndoable, Undo
from fastn_mcp.records.formats import field_in_words, kind_in_words, sentence
from fastn_mcp.records.labels import owner_name
from fastn_mcp.records.rows import Row, owner_of, row_of
from fastn_mcp.records.states import State
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.related_reads import documented_fields, kind_of
from fastn_mcp.tools.tool import Effect

UNCUT = 1 << 31
MAX_ON_BUTTON = 40
"""Characters of a name on a button. A longer one is "this customer"."""
MAX_FACTS = 5
MAX_HISTORY = 3
"""Number of facts on what this server did lately to the records."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """What a person reads before a call or a batch, in this order."""

    first: str
    """What will happen, and to which thing."""
    button: str
    """Label of the button that approves it."""
    brief: str
    """The first sentence for a list: short, with the name last."""
    lost: str = ""
    """What exists now and cannot be had back. Empty unless something is lost for good."""
    then: str = ""
    """What can be undone, and what happens at once."""
    unchecked: str = ""
    """What could not be checked."""
    facts: tuple[tuple[str, str], ...] = ()
    """At most five further facts, by name."""

    @property
    def second(self) -> str:
        """What is lost, what follows and what could not be checked, on one line."""
        return " ".join(filter(None, (self.lost, self.then, self.unchecked)))

    def lines(self) -> list[str]:
        """Return everything but the button, for a channel that shows plain text."""
        facts = " ".join(f"{name}: {sentence}." for name, sentence in self.facts)
        return [*filter(None, (self.first, self.second, facts))]

    def data(self) -> dict[str, JsonValue]:
        """Return the sentences as JSON, as an approval request stores them."""
        facts: JsonValue = [[name, sanitize(sentence)] for name, sentence in self.facts]
        texts = {name: sanitize(sentence) for name, sentence in asdict(self).items() if isinstance(sentence, str)}
        return {**texts, "facts": facts}


def read(stored: Mapping[str, JsonValue]) -> Sentences | None:
    """Return the sentences of a stored approval request; None if it was stored without them."""
    says = cast("dict[str, Any] | None", stored.get("says"))
    if says is None:
        return None
    return replace(Sentences(**says), facts=tuple((name, sentence) for name, sentence in says["facts"]))


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field of the target, by Fastn's name, before and after the call."""

    field: str
    before: JsonValue
    after: JsonValue
    is_shown: bool = True
    """Whether Fastn showed the earlier value."""

    def words(self, limit: int) -> str:
        """Return the change in words, with values quoted and cut at `limit` characters."""
        before = f": {quote(self.before, limit)}" if self.is_shown else " (not shown by Fastn)"
        return f"{quote(self.field, 60)}{before} becomes {quote(self.after, limit)}"

    def data(self) -> dict[str, JsonValue]:
        """Return the change as JSON, without `from` if Fastn did not show the earlier value."""
        before = {"from": self.before} if self.is_shown else {}
        return {"field": self.field, **before, "to": self.after}


@dataclass(slots=True)
class Facts:
    """A call, and what was read for its preview."""

    resolved: ResolvedCall
    arguments: Mapping[str, JsonValue]
    """Arguments of the call, without secrets."""
    effect: Effect
    undo: Undo | NotUndoable
    dependence: Dependence
    changes: Sequence[FieldChange]
    pending: Sequence[JsonValue]
    """Plan, requests and questions of Fastn's AI in the session that the call continues."""
    undoes: str
    """The earlier change that this call undoes, in words."""
    history: tuple[tuple[str, str], ...] = ()
    """What this server did lately to the records of the call: a heading and a sentence each."""
    call: Call = field(init=False)
    row: Row = field(init=False)
    """Record of the target."""
    kind: str = field(init=False)
    """Kind of the target, in words."""
    plain: str = field(init=False)
    """Name of the target, or of what is created, or else its id."""
    name: str = field(init=False)
    """The same between quotes."""

    def __post_init__(self) -> None:
        self.call, label = self.resolved.call, self.resolved.label
        self.row, self.kind = row_of(self.resolved.target), kind_in_words(kind_of(self.call))
        self.plain = label.name if label else self.call.target or ""
        self.name = quoted(self.plain)

    @property
    def owner(self) -> str:
        """Name of the customer that the call or its target belongs to, quoted; empty if there is none."""
        if not self.resolved.customer.values:
            return ""
        key = self.resolved.customer.values[0]
        of_row = owner_name(self.row, self.resolved.names.get("customer", {})) if owner_of(self.row) == key else ""
        return quoted(self.name_of("customer", key) or of_row or key)

    def name_of(self, kind: str, key: str) -> str | None:
        """Return the name of a record that the call refers to; None if it is not known."""
        return self.resolved.names.get(kind, {}).get(key)

    @property
    def entered(self) -> str:
        """Sentence that tells the person what they type; empty if nothing."""
        if (typed := self.resolved.typed) is None:
            return ""
        return f" You enter its {typed.name}{'' if typed.is_certain else ', if it takes any'}."

    def dependents(self, kind: str) -> Dependents | None:
        return next((each for each in self.dependence.certain if each.kind == kind), None)

    def may_have_several(self, kind: str) -> bool:
        """Whether there may be more than one dependent of a kind."""
        dependents = self.dependents(kind)
        return kind in self.dependence.unchecked or (dependents is not None and not dependents.is_one)


def quoted(content: JsonValue) -> str:
    return quote(content if isinstance(content, str) else quote(content, UNCUT), UNCUT)


def look_alikes(email: JsonValue) -> str:
    """Point out letters of an address other than a to z, which can look like these; empty if there are none."""
    if not isinstance(email, str) or email.isascii():
        return ""
    local, _, domain = email.rpartition("@")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:  # it is no domain
        domain = domain.encode("ascii", "backslashreplace").decode()
    spelled = f"{local.encode('ascii', 'backslashreplace').decode()}@{domain}"
    return f"The address has letters that are not a to z and can look like them. Spelled out: {quoted(spelled)}."


def series(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def field_words(facts: Facts, wire: str) -> str:
    """Return a field of Fastn in words: `externalRef` is `external ref`. One that is not documented is quoted."""
    if wire not in documented_fields(facts.call):
        return quoted(wire)
    return field_in_words(wire)


def fields_in_words(facts: Facts, wires: Iterable[str]) -> str:
    return series(field_words(facts, wire) for wire in wires)


def listed(dependents: Dependents, prefix: str = "its") -> str:
    """List dependents: `its connection "A"`, `its secrets "A" and "B"`, `its 12 connections`."""
    if dependents.more:
        return f"{prefix} {dependents.kind} (at least {dependents.count:,})".lstrip()
    if len(dependents.examples) != dependents.count:
        return f"{prefix} {dependents.words()}".lstrip()
    kind = dependents.kind.removesuffix("s") if dependents.is_one else dependents.kind
    return f"{prefix} {kind} {series(map(quoted, dependents.examples))}".lstrip()


def stops(dependents: Dependents | None, prefix: str = "its", *, does: str = "stop") -> str:
    """Say that dependents stop which are not off already; empty if there are none."""
    if dependents is None:
        return ""
    rows = tuple(row for row in dependents.rows if row.get("state") not in _OFF)
    off = sum((dependents.states or {}).get(state, 0) for state in _OFF) or len(dependents.rows) - len(rows)
    dependents = replace(dependents, rows=rows, count=dependents.count - off)
    if not dependents.count:
        return ""
    return f"{sentence(listed(dependents, prefix))} {does}{'s' if dependents.is_one else ''}."


_OFF = (State.OFF.value, State.DRAFT.value)
"""States, in words, of what cannot stop any more."""


def joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def say(
    facts: Facts, verb: str, *, first: str = "", button: str = "", lost: str = "", then: str = "",
    unchecked: str = "", further: Iterable[tuple[str, str]] = (),
) -> Sentences:  # fmt: skip
    """Return sentences about the target: by default `Delete customer "Acme".`, and the same for button and list."""
    plain = f"{verb} {facts.kind} {facts.name}"
    label = button or f"{verb} {short_name(facts)}"
    return Sentences(first or f"{plain}.", label, plain, lost, then, unchecked, tuple(further))


def short_name(facts: Facts, noun: str = "") -> str:
    """Return the name for a button, after `noun` if that is given: `role "Auditor"`, or "this role" if it is long."""
    if len(facts.plain) > MAX_ON_BUTTON:
        return f"this {noun or facts.kind}"
    return f"{noun} {facts.name}".lstrip()


def undo_words(facts: Facts) -> str:
    """Say whether a deleted target can be created again, or else why the call cannot be undone."""
    if isinstance(facts.undo, Undo):
        return f"The {facts.kind} itself can be created again, under a new id."
    return facts.undo.why


def place(facts: Facts) -> str:
    """Return the environment that the call will have as ` in live`; empty if none is named."""
    environments = facts.resolved.environment.values
    return in_place(environments[0]) if len(environments) == 1 else ""


def in_place(name: str) -> str:
    """Return an environment as ` in live`; empty if there is none."""
    return f" in {name if name in ('test', 'live') else quoted(name)}" if name else ""


def mapping(found: JsonValue) -> Mapping[str, JsonValue]:
    return found if isinstance(found, dict) else {}


def items(found: JsonValue) -> Sequence[JsonValue]:
    return found if isinstance(found, list) else []
