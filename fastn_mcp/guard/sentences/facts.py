"""The facts behind a question, and the words that all sentences share.

Names and values of Fastn or the agent stand between double quotes, which our own words never contain. Facts are those
that were read for the question; what could not be read is said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from fastn_mcp.account.dependence import Dependence, Dependents
from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.guard.undo import NotUndoable, Undo
from fastn_mcp.ledger.question import UNCUT, FieldChange, Question
from fastn_mcp.records.formats import field_in_words, kind_in_words, sentence
from fastn_mcp.records.labels import owner_name
from fastn_mcp.records.rows import Row, owner_of, row_of
from fastn_mcp.records.states import State
from fastn_mcp.redaction import quote
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.related_reads import documented_fields, kind_of
from fastn_mcp.tools.tool import Effect

MAX_ON_BUTTON = 40
"""Characters of a name on a button. A longer one is "this customer"."""
CHANGED_BACK = "It can be changed back."
"""What is said of a change whose fields can all be restored."""
MAX_FACTS = 5
MAX_HISTORY = 3
"""Number of facts on what this server did lately to the records."""


@dataclass(slots=True)
class Facts:
    """A call, and what was read for its question."""

    resolved: ResolvedCall
    effect: Effect
    arguments: Mapping[str, JsonValue]
    """Arguments of the call, without secrets."""
    undo: Undo | NotUndoable
    dependence: Dependence
    changes: Sequence[FieldChange] = ()
    pending: Sequence[JsonValue] = ()
    """Plan, requests and questions of Fastn's AI in the session that the call continues."""
    undoes: str = ""
    """The earlier change that this call undoes, in words."""
    history: tuple[tuple[str, str], ...] = ()
    """What this server did lately to the records of the call: a heading and a sentence each."""
    because: str = ""
    """Reason why a person is asked, if the policy gives more than the effect."""
    costs: str = ""
    """Price and balance of a call that spends."""
    defaults: Mapping[str, str] = field(default_factory=dict[str, str])
    """Values of arguments that were not given."""
    notes: tuple[str, ...] = ()
    """Sentences on the defaults, and on the state that matters."""
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
        label = self.resolved.label
        self.call = self.resolved.call
        self.row = row_of(self.resolved.target)
        self.kind = kind_in_words(kind_of(self.call))
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
        typed = self.resolved.typed
        if typed is None:
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
    facts: Facts,
    verb: str,
    *,
    title: str = "",
    button: str = "",
    lost: str = "",
    then: str = "",
    unchecked: str = "",
    further: Iterable[tuple[str, str]] = (),
) -> Question:
    """Return a question about the target: by default `Delete customer "Acme".`, and the same for button and list."""
    plain = f"{verb} {facts.kind} {facts.name}"
    return Question(
        title=title or f"{plain}.",
        button=button or f"{verb} {short_name(facts)}",
        brief=plain,
        lost=lost,
        then=then,
        unchecked=unchecked,
        facts=tuple(further),
    )


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


def unchecked_words(facts: Facts) -> str:
    """Say what could not be checked of the dependents; empty if everything was."""
    unchecked = [_UNCHECKED.get(each, each) for each in facts.dependence.unchecked]
    if not unchecked:
        return ""
    was = "was" if unchecked == [_USERS] else "were"
    return f"{sentence(series(unchecked))} {was} not checked."


_USERS = "what uses it"
_UNCHECKED = {"workflows": "workflows that use it", "who uses it": _USERS}
"""What could not be checked of dependents, as a sentence says it."""


def place(facts: Facts) -> str:
    """Return the environment that the call will have as ` in the live environment`; empty if none is named."""
    environments = facts.resolved.environment.values
    return in_place(environments[0]) if len(environments) == 1 else ""


def short_place(facts: Facts) -> str:
    """Return the same for a button, as ` in live`."""
    return place(facts).replace(" in the ", " in ").removesuffix(" environment")


def in_place(name: str) -> str:
    """Return an environment as ` in the live environment`; empty if there is none."""
    return f" in the {name if name in ('test', 'live') else quoted(name)} environment" if name else ""


def mapping(found: JsonValue) -> Mapping[str, JsonValue]:
    return found if isinstance(found, dict) else {}


def items(found: JsonValue) -> Sequence[JsonValue]:
    return found if isinstance(found, list) else []
