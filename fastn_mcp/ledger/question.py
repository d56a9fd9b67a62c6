"""Questions: what people read about a call, or the calls of a list, before they decide.

Made once (`guard.questions`), redacted and sanitized, stored with its approval request, and printed by every channel.
Names and values of Fastn or the agent stand between double quotes, which our own words never contain.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue
from pydantic_core import from_json

from fastn_mcp.records.formats import counted
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.rows import Row, key_of, objects, text
from fastn_mcp.records.states import State
from fastn_mcp.redaction import MAX_VALUE, quote, redact_object, sanitize, texts_in
from fastn_mcp.tools.tool import Effect

UNCUT = 1 << 31

PERMISSION_ARGUMENTS = ("permissions", "scopes")
"""Arguments that hold permissions, whose names look like secrets and are none."""

_MAX_IN_FORM = 1500
"""Characters of a call that changes access or destroys. A longer one is decided out of band, not in a form."""

_MAX_FORM = 8_000
"""The same for any other call."""

_MAX_LIST_FORM = 24_000
"""The same for a list of calls."""

_MAX_CHANGED_VALUE = 80
"""Characters of a changed value, unless everything is shown."""

AGENT_EXAMPLES = 3
"""Dependents of each kind that the agent is shown. A person is shown all that were read."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What people read about a call, in the order of its fields; or about a list, with a question for each call."""

    title: str
    """What will happen, and to which thing."""
    button: str
    """Label of the button that approves it."""
    brief: str
    """The title for a list of questions: short, with the name last."""
    lost: str = ""
    """What exists now and cannot be had back. Empty unless something is permanently lost."""
    then: str = ""
    """What can be undone, and what happens at once."""
    unchecked: str = ""
    """What could not be checked."""
    costs: str = ""
    """Price and balance of a call that spends."""
    because: str = ""
    """Reason why a person is asked, if the policy gives more than the effect."""
    notes: tuple[str, ...] = ()
    """Sentences on the values of arguments that were not given, and on the state that matters."""
    facts: tuple[tuple[str, str], ...] = ()
    """Further facts: a name and a sentence each."""
    changes: tuple[FieldChange, ...] = ()
    more_changes: int = 0
    """Number of changed fields that `changes` leaves out."""
    tool: str = ""
    arguments: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """Arguments of the call, without secrets."""
    defaults: Mapping[str, str] = field(default_factory=dict[str, str])
    """Values of arguments that were not given."""
    pending: tuple[JsonValue, ...] = ()
    """Plan, requests and questions of Fastn's AI in the session that the call continues."""
    used_by: tuple[Mapping[str, JsonValue], ...] = ()
    """Dependents of each kind, as `Dependents.data` gives them."""
    may_be_used_by: tuple[Mapping[str, JsonValue], ...] = ()
    not_checked: tuple[Mapping[str, JsonValue], ...] = ()
    """What could not be checked of the dependents, with the reasons."""
    account: str = ""
    effect: Effect = Effect.DESTROY
    """Effect of the call; the most severe one of a list."""
    undo: str = ""
    """What an undo restores, and what it does not."""
    has_undo: bool = True
    """Whether a call undoes it, also if that does not restore everything."""
    kind: str = ""
    """Kind of the target, as `find_dependents` names it."""
    target: str | None = None
    """Id of the target."""
    name: str | None = None
    """Name of the target, or of the resource to be created."""
    expected: str = ""
    """Text to type: the target's name, or else a short, plain part that identifies it."""
    number: int = 1
    """Place of the call in its list, from 1."""
    refused: str = ""
    """Rule of the policy that refuses a call of a list, of which then none is sent."""
    approval: str = ""
    """Whose approval it needs, for the agent."""
    calls: tuple["Question", ...] = ()
    """Questions on the calls of a list, in order."""

    @property
    def effects(self) -> frozenset[str]:
        """Effects of the call, or of the calls of a list."""
        return frozenset(each.effect.value for each in self.calls or (self,))

    def call(self, number: int) -> "Question":
        """Return the question on the call of a list with this number, or else the question itself."""
        return next((call for call in self.calls if call.number == number), self)

    @property
    def fits_form(self) -> bool:
        """Whether it is short enough to be read in the form of a client."""
        if self.calls:
            fits = all(call.fits_form for call in self.calls)
            return fits and sum(map(len, self.lines())) <= _MAX_LIST_FORM
        return len(self.line()) <= (_MAX_IN_FORM if self._is_whole else _MAX_FORM)

    def lines(self) -> list[str]:
        """Return the text for a channel without parts: what will happen first, the exact calls, then the account."""
        if self.calls:
            first = f"{self.title} {self.then} Account: {self.account}.".replace("  ", " ")
            return [sanitize(first), *(f"{call.number}. {call.line()}" for call in self.calls)]
        lines = [*self._sentences(), f"{self._call()}. Account: {self.account}."]
        return [sanitize(line) for line in lines]

    def line(self) -> str:
        """Return the same on one line, without the account, as in a list of calls on one account."""
        return sanitize(" ".join((*self._sentences(), f"{self._call()}.")))

    def summary(self) -> list[str]:
        """Return the sentences without what is known besides: the title, what follows, and the facts."""
        facts = " ".join(f"{name}: {_in_text(sentence)}." for name, sentence in self.facts)
        follows = " ".join(filter(None, (self.lost, self.then, self.unchecked)))
        return [*filter(None, (self.title, follows, facts))]

    def _sentences(self) -> list[str]:
        """Return the title, what follows, the facts, and the changes that the title does not give; a line each."""
        facts = " ".join(f"{name}: {_in_text(sentence)}." for name, sentence in self.facts)
        follows = (self.lost, self.then, self.unchecked, self.costs, self.because, *self.notes)
        return [*filter(None, (self.title, " ".join(filter(None, follows)), facts, self._changed()))]

    @property
    def _is_whole(self) -> bool:
        """Whether no value is cut: of a call that changes access or destroys, people read every character."""
        return self.effect in (Effect.ACCESS, Effect.DESTROY)

    def _changed(self) -> str:
        limit = UNCUT if self._is_whole else _MAX_CHANGED_VALUE
        words = [change.words(limit) for change in self.changes if quote(change.after, UNCUT) not in self.title]
        if self.more_changes:
            words.append(f"and {counted(self.more_changes, 'more field')}")
        return f"{'; '.join(words)}." if words else ""

    def _call(self) -> str:
        limit = UNCUT if self._is_whole else MAX_VALUE
        words = [self.tool]
        for name, value in self.arguments.items():
            is_name = name in PERMISSION_ARGUMENTS
            words.append(f"{name}={quote(value, limit, is_name=is_name)}")
        return " ".join(words)

    def says(self) -> dict[str, JsonValue]:
        """Return the sentences as JSON, one by one."""
        return {
            "first": self.title,
            "button": self.button,
            "brief": self.brief,
            "lost": self.lost,
            "then": self.then,
            "unchecked": self.unchecked,
            "facts": [[name, sentence] for name, sentence in self.facts],
        }

    def data(self) -> dict[str, JsonValue]:
        """Return the question as JSON, with everything that a person reads."""
        return {**self._data(None), "says": self.says()}

    def data_for_agent(self) -> dict[str, JsonValue]:
        """Return the question as JSON for the agent: the first dependents of each kind, and the call that lists all."""
        return self._data(AGENT_EXAMPLES)

    def _data(self, examples: int | None) -> dict[str, JsonValue]:
        """Return everything but the sentences one by one, with this many dependents of each kind, or all."""
        if self.calls:
            return self._list_data(examples)
        body: dict[str, JsonValue] = {
            "call": self.tool,
            "arguments": dict(self.arguments),
            "account": self.account,
            "effect": self.effect.value,
            "does": f"{self.title} {self.lost}".rstrip(),
            "undo": self.undo,
        }
        further: dict[str, JsonValue] = {
            "then": self.then,
            "costs": self.costs,
            "because": self.because,
            "approval": self.approval,
            "target": None if self.target is None else {"id": self.target, "name": self.name},
            "makes": self.name if self.target is None else None,
            "changes": [change.data() for change in self.changes],
            "pending": [*self.pending],
            "more_changes": self.more_changes,
            "used_by": [_with_examples(dependents, examples) for dependents in self.used_by],
            "may_be_used_by": [_with_examples(dependents, examples) for dependents in self.may_be_used_by],
            "not_checked": [dict(gap) for gap in self.not_checked],
            "defaults": dict(self.defaults),
            "notes": [*self.notes],
        }
        if examples is not None and any(_has_more(each, examples) for each in (*self.used_by, *self.may_be_used_by)):
            further["dependents"] = {"tool": "find_dependents", "arguments": {f"{self.kind}_id": self.target}}
        return redact_object(body | {name: part for name, part in further.items() if part})

    def _list_data(self, examples: int | None) -> dict[str, JsonValue]:
        rows: list[JsonValue] = []
        for call in self.calls:
            data = call.data() if examples is None else call.data_for_agent()
            row: dict[str, JsonValue] = {"number": call.number} | data
            del row["account"]  # it is given once for the list
            if call.refused:
                row["refused"] = f"{call.refused}. {data.get('because', '')}".strip()
            rows.append(row)
        body: dict[str, JsonValue] = {
            "call": self.tool,
            "does": self.title,
            "account": self.account,
            "effect": self.effect.value,
            "effects": [effect.value for effect in Effect if effect.value in self.effects],
            "calls": rows,
        }
        return body | ({"approval": self.approval} if self.approval else {})

    def stopped_triggers(self, gone: Collection[str | None]) -> tuple[str, ...]:
        """Return name and id of the live triggers that a call stops, after other workflows are `gone`."""
        triggers = [each for each in (*self.used_by, *self.may_be_used_by) if each.get("kind") == "triggers"]
        rows = [row for dependents in triggers for row in _rows(dependents)]
        live = [
            f"{name_of(row)} ({key_of(row)})"
            for row in rows
            if text(row, "state") != State.OFF.value and {*texts_in(row.get("also_starts"))} <= {*gone}
        ]
        more = sum(int(text(dependents, "count") or 0) for dependents in triggers) - len(rows)
        return (*live, f"{more} more") if more > 0 else tuple(live)


def _in_text(sentence: str) -> str:
    """Return a fact for plain text: JSON without the quotation marks that keep it whole on a page."""
    if not (sentence.startswith('"{') and sentence.endswith('}"')):
        return sentence
    json = _ESCAPED.sub(r"\1", sentence[1:-1])
    try:
        from_json(json)
    except ValueError:  # it was cut or redacted
        return sentence
    return json


_ESCAPED = re.compile(r"\\(.)")


def _rows(dependents: Mapping[str, JsonValue]) -> list[Row]:
    """Return the dependents of one kind that are known by name: all of them, or the first ones."""
    return objects(dependents, "all") or objects(dependents, "examples")


def _has_more(dependents: Mapping[str, JsonValue], examples: int) -> bool:
    return len(_rows(dependents)) > examples


def _with_examples(dependents: Mapping[str, JsonValue], examples: int | None) -> dict[str, JsonValue]:
    """Return the dependents of one kind with this many of their rows, or with all."""
    if examples is None or not _has_more(dependents, examples):
        return dict(dependents)
    limited: dict[str, JsonValue] = {}
    for name, value in dependents.items():
        if name in ("all", "examples"):
            limited["examples"] = [dict(row) for row in _rows(dependents)[:examples]]
        else:
            limited[name] = value
    return limited
