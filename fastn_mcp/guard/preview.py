"""Preview of a call or a batch, for approval requests, the approval page and dry runs."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.account.outlook import Outlook
from fastn_mcp.account.resolved_call import ResolvedCall
from fastn_mcp.guard.sentences.access import power
from fastn_mcp.guard.sentences.catalog import describe, describe_batch, phrase
from fastn_mcp.guard.sentences.facts import UNCUT, Facts, FieldChange, Sentences
from fastn_mcp.guard.undo import foreseen, in_words
from fastn_mcp.records.formats import counted
from fastn_mcp.records.labels import name_of, typed_id
from fastn_mcp.records.rows import FastnObject, key_of, objects, text
from fastn_mcp.records.states import State
from fastn_mcp.redaction import MAX_VALUE, quote, redact, redact_object, sanitize, texts_in
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.operation import Create, Operation, Update
from fastn_mcp.tools.related_reads import kind_of
from fastn_mcp.tools.tool import Effect

_CHANGES = 12
_MAX_EXAMPLES = 3
"""Dependents of each kind that the agent is shown. A person is shown all that were read."""
_MAX_IN_FORM = 1500
"""Characters of a call that changes access or destroys. A longer one is decided out-of-band, not in a form."""

_MAX_FORM = 8_000
"""The same for any other call."""

_MAX_LIST_FORM = 24_000
"""The same for a list of calls."""

_PERMISSIONS = ("permissions", "scopes")
"""Arguments that hold permissions."""

_NO_OUTLOOK = Outlook()


@dataclass(frozen=True)
class Preview:
    """Facts that a person needs to decide. Values are unescaped: quote them for display."""

    facts: Facts
    """What the sentences are made of."""
    account: str
    target: str | None
    name: str | None
    """Name of the target, or of the resource to be created."""
    expected: str
    """Text to type: the target's name, or else a short, plain part that identifies it."""
    because: str = ""
    """Reason for the approval request, if the policy gives more than the effect."""
    costs: str = ""
    """Price and balance of a call that spends."""
    approval: str = ""
    """Whose approval the call needs, for the agent."""
    outlook: Outlook = _NO_OUTLOOK
    for_agent: "Preview | None" = None
    """The preview without rows that the agent may not read; None if it may read all."""

    @property
    def expected_in_words(self) -> str:
        """The text to type, for the agent."""
        is_known = self.for_agent is None or self.for_agent.expected == self.expected
        return quote(self.expected) if is_known else "what the request asks for"

    @cached_property
    def says(self) -> Sentences:
        """What a person reads first."""
        return describe(self.facts)

    @property
    def effect(self) -> Effect:
        return self.facts.effect

    @property
    def fits_form(self) -> bool:
        return len(self.line()) <= (_MAX_IN_FORM if self._is_whole else _MAX_FORM)

    @property
    def _is_whole(self) -> bool:
        return self.effect in (Effect.ACCESS, Effect.DESTROY)

    def lines(self) -> list[str]:
        """Describe the call, with each value quoted and cut; our text first. Some clients show only three rows."""
        return [sanitize(line) for line in (*self._said(), f"{self._call()}. Account: {self.account}.")]

    def line(self) -> str:
        """Describe the call in one line, as part of a batch on one account."""
        return sanitize(" ".join((*self._said(), f"{self._call()}.")))

    def _said(self) -> list[str]:
        """Return the sentences, the reason of the request and the changes that the first sentence does not give."""
        first, second, *facts = self.says.lines()
        second = " ".join(filter(None, (second, self.costs, self.because, *self.outlook.notes)))
        return [first, second, *facts, *filter(None, (self._changed(),))]

    def _call(self) -> str:
        limit, arguments = UNCUT if self._is_whole else MAX_VALUE, self.facts.arguments.items()
        words = " ".join(f"{name}={quote(value, limit, is_name=name in _PERMISSIONS)}" for name, value in arguments)
        return f"{self.facts.call.tool_name()} {words}".rstrip()

    def _changed(self) -> str:
        limit, changes = UNCUT if self._is_whole else 80, self.facts.changes[:_CHANGES]
        words = [change.words(limit) for change in changes if quote(change.after, UNCUT) not in self.says.first]
        if left_out := len(self.facts.changes) - len(changes):
            words.append(f"and {counted(left_out, 'more field')}")
        return f"{'; '.join(words)}." if words else ""

    def stored(self) -> dict[str, JsonValue]:
        """Return the preview as an approval request stores it: with everything that a person reads."""
        return {**self._data(None), "says": self.says.data()}

    def data(self) -> dict[str, JsonValue]:
        """Return the preview as JSON, for the agent: the first dependents of each kind, and the call that lists all."""
        shown = self if self.for_agent is None else replace(self.for_agent, approval=self.approval)
        return shown._data(_MAX_EXAMPLES)

    def _data(self, examples: int | None) -> dict[str, JsonValue]:
        facts, says, dependence = self.facts, self.says, self.facts.dependence
        changes: list[JsonValue] = [change.data() for change in facts.changes[:_CHANGES]]
        further: dict[str, JsonValue] = {
            "then": says.then,
            "costs": self.costs,
            "because": self.because,
            "approval": self.approval,
            "target": None if self.target is None else {"id": self.target, "name": self.name},
            "makes": self.name if self.target is None else None,
            "changes": changes,
            "pending": [*facts.pending],
            "more_changes": len(facts.changes) - len(changes),
            **dependence.data(examples),
            **self.outlook.data(),
        }
        if examples is not None and dependence.has_more(examples):
            arguments: JsonValue = {"kind": kind_of(facts.call), "id": self.target}
            further["dependents"] = {"tool": "find_dependents", "arguments": arguments}
        body: dict[str, JsonValue] = {
            "call": facts.call.tool_name(),
            "arguments": dict(facts.arguments),
            "account": self.account,
            "effect": self.effect.value,
            "does": f"{says.first} {says.lost}".rstrip(),
            "undo": in_words(facts.undo),
        }
        return redact_object(body | {name: each for name, each in further.items() if each})


def preview(resolved: ResolvedCall, effect: Effect, account: str, because: str = "", undoes: str = "") -> Preview:
    """Build the preview of a call. `undoes`: the earlier change that it undoes, for people."""
    call, target, label = resolved.call, resolved.target, resolved.label
    arguments = {name: by_power(name, value) for name, value in call.shown().items()}
    pending = _pending(target) if isinstance(call, (AiChat, AiBuild)) else ()
    undo, changes = foreseen(call, target), _changes(call, target)
    facts = Facts(resolved, arguments, effect, undo, resolved.dependence, changes, pending, undoes)
    id_: object = getattr(target, "id", None) if isinstance(call, (Create, AiChat, AiBuild)) else None
    key = call.target or (str(id_) if id_ else None)
    expected = (label.typed(key) if label else key and typed_id(key)) or call.tool_name()
    return Preview(facts, account, key, str(label) if label else None, expected, because)


def as_agent_reads(shown: Preview, resolved: ResolvedCall, because: str) -> Preview:
    """Return a preview of the same call as `resolved`, which lacks what the agent may not read."""
    facts, call, label = shown.facts, resolved.call, resolved.label
    key, changes, undo = shown.target, facts.changes, facts.undo
    if resolved.target is not facts.resolved.target:
        key, changes = call.target, ()
        undo = foreseen(call, resolved.target) if isinstance(call, Create) else undo
    facts = replace(facts, resolved=resolved, dependence=resolved.dependence, changes=changes, undo=undo, history=())
    expected = (label.typed(key) if label else key and typed_id(key)) or call.tool_name()
    name = str(label) if label else None
    return replace(shown, facts=facts, target=key, name=name, expected=expected, because=because)


def by_power(name: str, value: JsonValue) -> JsonValue:
    """Sort permissions, the most powerful first so that none hides behind harmless ones. Leave other values as is."""
    if isinstance(value, dict):
        return {inner: by_power(inner, content) for inner, content in value.items()}
    if isinstance(value, list) and name in _PERMISSIONS:
        return sorted(value, key=power)
    return value


def _pending(target: FastnObject | None) -> tuple[JsonValue, ...]:
    if target is None:
        return ()
    pending: JsonValue = getattr(target, "pending", None)
    if not isinstance(pending, list):
        return (pending,)
    return tuple(cast("list[JsonValue]", redact(pending))) or (
        "nothing, according to the last answer that this server saw",
    )


def _changes(call: Operation[Any], target: FastnObject | None) -> list[FieldChange]:
    if not isinstance(call, (Update, Create)) or target is None or not target.model_dump():
        return []
    current = target.model_dump()
    body = call.model_copy(update=dict.fromkeys(call.secrets())).request().body or {}
    changed = {field: new for field, new in body.items() if current.get(field) != new}
    before, after = redact_object({field: current.get(field) for field in changed}), redact_object(changed)
    is_shown = [field in current for field in changed]
    # All have the same order, even where names are redacted.
    return [FieldChange(*each) for each in zip(after, before.values(), after.values(), is_shown, strict=True)]


@dataclass(frozen=True, slots=True)
class ListPreview:
    """Previews of the calls of a batch, by number, in order."""

    tool: str
    of: Mapping[int, Preview]
    refused: Mapping[int, str]
    """Policy rules that refuse calls. With any refusal, no call of the batch is sent."""
    approval: str = ""
    """Whose approval the batch needs, for the agent."""

    name = None

    @property
    def effect(self) -> Effect:
        """The strictest effect in the batch."""
        return max((preview.effect for preview in self.of.values()), key=lambda effect: effect.rank)

    @property
    def says(self) -> Sentences:
        """What a person reads first."""
        return describe_batch({number: preview.says for number, preview in self.of.items()})

    @property
    def expected(self) -> str:
        """Text to type: that of the only call that loses data for good, or else a short phrase."""
        losing = [preview for preview in self.of.values() if preview.says.lost or preview.effect is Effect.DESTROY]
        return losing[0].expected if len(losing) == 1 else phrase([preview.says for preview in losing], len(self.of))

    @property
    def expected_in_words(self) -> str:
        """The text to type, for the agent."""
        is_known = all(preview.expected_in_words == quote(preview.expected) for preview in self.of.values())
        return quote(self.expected) if is_known else "what the request asks for"

    @property
    def fits_form(self) -> bool:
        fits = all(preview.fits_form for preview in self.of.values())
        return fits and sum(map(len, self.lines())) <= _MAX_LIST_FORM

    def lines(self) -> list[str]:
        """Describe the batch, a line for each call; our text first."""
        account = next(iter(self.of.values())).account
        says = self.says
        first = f"{says.first} {says.then} Account: {account}.".replace("  ", " ")
        return [first, *(f"{number}. {preview.line()}" for number, preview in self.of.items())]

    def stored(self) -> dict[str, JsonValue]:
        """Return the preview as an approval request stores it: with everything that a person reads."""
        return {**self._data(Preview.stored), "says": self.says.data()}

    def data(self) -> dict[str, JsonValue]:
        """Return the preview as JSON."""
        return self._data(Preview.data)

    def _data(self, data_of: Callable[[Preview], dict[str, JsonValue]]) -> dict[str, JsonValue]:
        calls: list[JsonValue] = []
        for number, preview in self.of.items():
            row: dict[str, JsonValue] = {"number": number} | data_of(preview)
            del row["account"]  # shown once for the whole batch
            if number in self.refused:
                row["refused"] = f"{self.refused[number]}. {row.get('because', '')}".strip()
            calls.append(row)
        effects = sorted({preview.effect for preview in self.of.values()}, key=lambda effect: effect.rank)
        return {
            "call": self.tool,
            "does": self.says.first,
            "account": next(iter(self.of.values())).account,
            "effect": self.effect.value,
            "effects": [effect.value for effect in effects],
            "calls": calls,
            **({"approval": self.approval} if self.approval else {}),
        }


def stopped_triggers(stored: Mapping[str, JsonValue], number: int, gone: Collection[str | None]) -> tuple[str, ...]:
    """Return name and id of the live triggers that a call stops, from a stored preview, after others are `gone`."""
    one = next((call for call in objects(stored, "calls") if call.get("number") == number), stored)
    kinds = [entry for name in ("used_by", "may_be_used_by") for entry in objects(one, name)]
    entries = [entry for entry in kinds if entry.get("kind") == "triggers"]
    rows = [row for entry in entries for name in ("all", "examples") for row in objects(entry, name)]
    live = [
        f"{name_of(row)} ({key_of(row)})"
        for row in rows
        if text(row, "state") != State.OFF.value and {*texts_in(row.get("also_starts"))} <= {*gone}
    ]
    more = sum(int(text(entry, "count") or 0) for entry in entries) - len(rows)
    return (*live, f"{more} more") if more > 0 else tuple(live)


Shown = Preview | ListPreview
"""Preview of one call or of a batch."""
