"""Preview of a call or a batch, for approval requests, the approval page and dry runs."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.fastn.dependents import Dependence, Dependents
from fastn_mcp.fastn.names import Label, counted, typed_id
from fastn_mcp.fastn.targets import own_label
from fastn_mcp.guard.undo import foreseen
from fastn_mcp.redaction import LONGEST_VALUE, quote, redact, redact_object
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.operation import Create, Operation, Update
from fastn_mcp.tools.tool import Effect, FastnObject

_CHANGES = 12
_LONGEST_IN_FORM = 1500
"""Characters of a call that changes access or destroys. A longer one is decided out-of-band, not in a form."""

_OVERWRITES = "Its slug or name is taken: Fastn may overwrite what is there."
_MAY_OVERWRITE = "It is unknown whether its slug or name is taken: Fastn may overwrite something."
_GO_WITH = ("connections", "secrets")
"""Kinds of dependents that are deleted together with the target. Other kinds only use it."""

_WHOLE = 1 << 31
_REACHES = " It acts on connected systems, for real."


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field of the target, before and after the call."""

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


@dataclass(frozen=True, slots=True)
class Preview:
    """Facts that a person needs to decide. Values are unescaped: quote them for display."""

    tool: str
    title: str
    arguments: dict[str, JsonValue]
    account: str
    effect: Effect
    target: str | None
    label: Label | None
    """Name of the target, or of the resource to be created."""
    does: str
    undo: str
    because: str
    """Reason for the approval request, if the policy gives more than the effect."""
    changes: tuple[FieldChange, ...]
    dependence: Dependence
    left_out: int
    pending: tuple[JsonValue, ...] = ()
    """Questions of Fastn's AI in the session that the call continues."""
    approval: str = ""
    """Whose approval the call needs, for the agent."""

    @property
    def expected(self) -> str:
        """Text to type: the target's name, or else a short, plain part that identifies it."""
        typed = self.label.typed(self.target) if self.label else self.target and typed_id(self.target)
        return typed or self.tool

    @property
    def name(self) -> str | None:
        return str(self.label) if self.label else None

    @property
    def fits_form(self) -> bool:
        return not self._is_whole or len(self.line()) <= _LONGEST_IN_FORM

    @property
    def _is_whole(self) -> bool:
        return self.effect in (Effect.ACCESS, Effect.DESTROY)

    def dependents(self) -> dict[str, float | None]:
        return self.dependence.counts()

    def lines(self) -> list[str]:
        """Describe the call, with each value quoted and cut; our text first. Some clients show only three rows."""
        call = f"{self._call()}. Account: {self.account}."
        return [self._title(), *filter(None, (self._impact(),)), call, *filter(None, (self.does,))]

    def line(self) -> str:
        """Describe the call in one line, as part of a batch on one account."""
        return " ".join(filter(None, (self._title(), self._impact(), f"{self._call()}.")))

    def _title(self) -> str:
        """Return the action, the target's name and its dependents, as `Delete customer "Acme", with 1 secret ("KEY").`

        The id is added if no argument has it.
        """
        name = f" {quote(self.name)}" if self.name else ""
        id_ = f", id {quote(self.target)}" if self.target and self.target not in self.arguments.values() else ""
        goes = [f for f in self.dependence.found if f.kind in _GO_WITH and self.effect is Effect.DESTROY]
        uses = [f for f in self.dependence.found if f not in goes]
        found = (f"with {_listed(goes)}" if goes else "", f"used by {_listed(uses)}" if uses else "")
        return f"{', '.join(filter(None, (self.title + name + id_, *found)))}."

    def _call(self) -> str:
        limit = _WHOLE if self._is_whole else LONGEST_VALUE
        given = " ".join(
            f"{name}={quote(value, limit, is_name=name in _PERMISSIONS)}" for name, value in self.arguments.items()
        )
        return f"{self.tool} {given}".rstrip()

    def _impact(self) -> str:
        """Describe the changes, the failed checks, and whether the call can be undone."""
        limit = _WHOLE if self._is_whole else 80
        changes = [change.words(limit) for change in self.changes]
        more = [f"and {counted(self.left_out, 'more field')}"] if self.left_out else []
        changed = "; ".join([*changes, *more])
        unchecked = ", ".join(self.dependence.unchecked)
        said = (
            f"{changed}." if changed else "",
            f"Not checked: {unchecked}." if unchecked else "",
            # Never cut: nobody can approve a text they could not read.
            f"Pending there: {', '.join(quote(item, _WHOLE) for item in self.pending)}." if self.pending else "",
            self.because,
            self.undo,
        )
        return " ".join(filter(None, said))

    def data(self) -> dict[str, JsonValue]:
        """Return the preview as JSON, for `dry_run` and the approval page."""
        body: dict[str, JsonValue] = {
            "call": self.tool,
            "arguments": self.arguments,
            "account": self.account,
            "effect": self.effect.value,
            "does": self.does,
            "undo": self.undo,
        }
        if self.because:
            body["because"] = self.because
        if self.target is not None:
            body["target"] = {"id": self.target, "name": self.name}
        elif self.name is not None:
            body["makes"] = self.name
        if self.changes:
            body["changes"] = [change.data() for change in self.changes]
        if self.pending:
            body["pending"] = list(self.pending)
        if self.left_out:
            body["more_changes"] = self.left_out
        if self.dependence.found:
            body["used_by"] = [
                {"kind": f.kind, "count": f.count, "at_least": f.more, "as": list(f.examples)}
                for f in self.dependence.found
            ]
        if self.dependence.unchecked:
            body["not_checked"] = list(self.dependence.unchecked)
        if self.approval:
            body["approval"] = self.approval
        return redact_object(body)


def preview(
    call: Operation[Any],
    effect: Effect,
    account: str,
    target: FastnObject | None,
    dependence: Dependence,
    because: str = "",
    label: Label | None = None,
) -> Preview:
    """Build the preview of `call` on `target`. The default `label` is made from the target."""
    changes = _changes(call, target)
    known = target is not None and bool(target.model_dump())
    if isinstance(call, Create) and target is not None:
        because = f"{_OVERWRITES if known else _MAY_OVERWRITE} {because}".strip()
    id_: object = getattr(target, "id", None) if isinstance(call, (Create, AiChat, AiBuild)) else None
    return Preview(
        tool=call.tool_name(),
        title=call.title(),
        arguments={name: by_power(name, value) for name, value in call.shown().items()},
        account=account,
        effect=effect,
        target=call.target or (str(id_) if id_ else None),
        label=label or own_label(call, target),
        does=(type(call).__doc__ or "").strip() + (_REACHES if effect is Effect.EXTERNAL else ""),
        undo=foreseen(call, target),
        because=because,
        changes=tuple(changes[:_CHANGES]),
        dependence=dependence,
        left_out=max(0, len(changes) - _CHANGES),
        pending=_pending(call, target),
    )


def _pending(call: Operation[Any], target: FastnObject | None) -> tuple[JsonValue, ...]:
    if not isinstance(call, (AiChat, AiBuild)) or target is None:
        return ()
    asked: JsonValue = getattr(target, "pending", None)
    if not isinstance(asked, list):
        return (asked,)
    return tuple(cast("list[JsonValue]", redact(asked))) or (
        "nothing, according to the last answer that this server saw",
    )


_PERMISSIONS = ("permissions", "scopes")
_HARMLESS_VERBS = frozenset({"read", "view", "list", "get"})
_CHANGING_VERBS = frozenset({"create", "write", "update", "edit", "run", "execute", "delete", "manage"})
_ORDINARY = frozenset(
    {"customers", "connectors", "connections", "workflows", "triggers", "executions", "usage", "audit"}
)


def by_power(name: str, value: JsonValue) -> JsonValue:
    """Sort permissions, the most powerful first so that none hides behind harmless ones. Leave other values as is."""
    if isinstance(value, dict):
        return {inner: by_power(inner, found) for inner, found in value.items()}
    if isinstance(value, list) and name in _PERMISSIONS:
        return sorted(value, key=_rank)
    return value


def _rank(permission: JsonValue) -> int:
    """Rank a permission from 0 (everything) to 3 (known to be harmless). An unknown one counts as powerful."""
    resource, _, verb = str(permission).casefold().replace(".", ":").rpartition(":")
    if "*" in str(permission):
        return 0
    if resource not in _ORDINARY or verb not in _HARMLESS_VERBS | _CHANGING_VERBS:
        return 1
    return 3 if verb in _HARMLESS_VERBS else 2


def _listed(found: Iterable[Dependents]) -> str:
    """List dependents, as `2 secrets ("KEY", "TOKEN")`."""
    return ", ".join(f"{each.words()} ({', '.join(quote(name, 60) for name in each.examples)})" for each in found)


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


# Fields that Fastn updates by itself, which do not affect an approval.
_TELEMETRY = re.compile(r"(last|next)[A-Z_]\w*|consecutiveFailures|statusHistory|\w+Count")


def state(target: FastnObject | None) -> dict[str, JsonValue] | None:
    """Return the target without fields that change by themselves. The approval is bound to this state."""
    if target is None:
        return None
    fields = target.model_dump()
    return {name: value for name, value in fields.items() if not _TELEMETRY.fullmatch(name)}


_GROUPS = 3
"""Maximum number of groups of calls to type by name; the rest is counted."""

_OF_THE_LIST = ("account", "does")
"""Fields shown once for the whole batch."""


@dataclass(frozen=True, slots=True)
class ListPreview:
    """Previews of the calls of a batch, by number, in order."""

    tool: str
    does: str
    of: Mapping[int, Preview]
    refused: Mapping[int, str]
    """Policy reasons for refused calls. With any refusal, no call of the batch is sent."""
    approval: str = ""
    """Whose approval the batch needs, for the agent."""

    name = None

    @property
    def effect(self) -> Effect:
        """The strictest effect in the batch."""
        return max((shown.effect for shown in self.of.values()), key=lambda effect: effect.rank)

    @property
    def expected(self) -> str:
        """Text to type."""
        return phrase((shown.tool, shown.effect) for shown in self.of.values())

    @property
    def fits_form(self) -> bool:
        return all(shown.fits_form for shown in self.of.values())

    def dependents(self) -> dict[str, float | None]:
        """Return the dependents of each call, with the call's number before the kind."""
        return {f"{n} {kind}": count for n, shown in self.of.items() for kind, count in shown.dependents().items()}

    def lines(self) -> list[str]:
        """Describe the batch, a line for each call; our text first."""
        account = next(iter(self.of.values())).account
        first = f"{self.expected}: {len(self.of)} calls in order, each once. Account: {account}."
        return [first, *(f"{number}. {shown.line()}" for number, shown in self.of.items())]

    def data(self) -> dict[str, JsonValue]:
        """Return the preview as JSON."""
        calls = [self._row(number, shown) for number, shown in self.of.items()]
        effects = sorted({shown.effect for shown in self.of.values()}, key=lambda effect: effect.rank)
        return {
            "call": self.tool,
            "sum": self.expected,
            "account": next(iter(self.of.values())).account,
            "effect": self.effect.value,
            "effects": [effect.value for effect in effects],
            "calls": [*calls],
            "does": self.does,
            **({"approval": self.approval} if self.approval else {}),
        }

    def _row(self, number: int, shown: Preview) -> JsonValue:
        row = {name: value for name, value in shown.data().items() if name not in _OF_THE_LIST}
        said: dict[str, JsonValue] = {"refused": self.refused[number]} if number in self.refused else {}
        return {"number": number} | row | said


Shown = Preview | ListPreview
"""Preview of one call or of a batch."""


def phrase(calls: Iterable[tuple[str, Effect]]) -> str:
    """Summarize calls by count, as DELETE 3 CUSTOMERS, the strictest effect first."""
    counted = Counter(calls)
    kinds = sorted(counted, key=lambda kind: -kind[1].rank)
    named = kinds if len(kinds) <= _GROUPS else kinds[: _GROUPS - 1]
    said = [_counted_calls(tool, counted[tool, effect]) for tool, effect in named]
    if others := sum(counted[kind] for kind in kinds[len(named) :]):
        said.append(f"MAKE {others} OTHER {'CHANGE' if others == 1 else 'CHANGES'}")
    return ", ".join(said[:-1]) + (" AND " if len(said) > 1 else "") + said[-1]


def _counted_calls(tool: str, count: int) -> str:
    verb, _, noun = tool.upper().partition("_")
    return f"{verb} {counted(count, noun.replace('_', ' ').lower())}".upper()
