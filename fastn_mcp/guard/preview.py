"""What a call would do, shown before it is done. Pure: the same card serves the question, the page and `dry_run`."""

import re
from dataclasses import dataclass
from typing import Any, Protocol, cast

from pydantic import JsonValue

from fastn_mcp.guard.show import LONGEST, name_of, show
from fastn_mcp.operation import Effect, Operation, Record
from fastn_mcp.procedures.dependents import Dependence, Dependents
from fastn_mcp.redaction import is_redacted, redact, redact_object
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.creating import Create
from fastn_mcp.tools.updating import Update

_CHANGES = 12
_LONGEST_IN_FORM = 1500
"""Characters of such a call that a form shows; what is longer is decided out-of-band."""

_OVERWRITES = "Its slug or name is taken: Fastn may overwrite what is there."
_MAY_OVERWRITE = "Whether its slug or name is taken could not be learnt: Fastn may overwrite something."
_WHOLE = 1 << 31
_REACHES = " It acts on connected systems, for real."
_UNDO = {
    "delete_customer": "Nothing of it can be restored: neither its connections and their credentials nor its secrets.",
    "delete_connector": "The credentials of its connections are lost for good; each customer would authorise anew.",
    "delete_connection": "The credentials are lost for good; the customer would have to authorise again.",
    "delete_trigger": "It can be created again, with another id and another webhook address.",
    "delete_workflow": "The dashboard can restore it from Trash, with its slug and history.",
    "delete_secret": "Its value was never readable; somebody would have to enter it again.",
    "revoke_api_key": "The key can never be used again; a new one has to be created and handed out.",
    "create_secret": "A secret of the same name and scope is overwritten, and its old value is lost.",
    "create_api_key": "It can be revoked with revoke_api_key.",
    "invite_user": "Only the dashboard can take the access back.",
    "create_role": "Only the dashboard can change or delete it.",
    "run_workflow": "What the run does elsewhere is not undone by anything here.",
    "create_connection": "It can be deleted with delete_connection.",
    "create_trigger": "It can be disabled or deleted; what it started meanwhile is not undone.",
    "ai_chat": "Credits are spent; what the agent changes has to be undone by hand.",
    "ai_build": "Credits are spent; what it builds can be deleted.",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One field of the target, as it is and as it would be."""

    field: str
    before: JsonValue
    after: JsonValue


class Shown(Protocol):
    """What a person is shown before they decide, of one call or of several."""

    @property
    def effect(self) -> Effect:
        """The one that wants the most care."""
        ...

    @property
    def name(self) -> str | None:
        """How people call the target, where there is one."""
        ...

    @property
    def expected(self) -> str:
        """What is to be typed, where typing is asked."""
        ...

    @property
    def fits_form(self) -> bool:
        """Whether all that has to be shown uncut has room in a client's form."""
        ...

    def dependents(self) -> dict[str, float | None]:
        """How many dependents there are by kind, as `Dependence.counts` says."""
        ...

    def lines(self) -> list[str]:
        """In words."""
        ...

    def data(self) -> dict[str, JsonValue]:
        """As data."""
        ...


@dataclass(frozen=True, slots=True)
class Preview:
    """All that a person needs to decide. Values are as Fastn has them: whoever shows them quotes them."""

    tool: str
    title: str
    arguments: dict[str, JsonValue]
    account: str
    effect: Effect
    target: str | None
    name: str | None
    does: str
    undo: str
    because: str
    """Why it is asked about, where the policy says more than its effect."""
    changes: tuple[Change, ...]
    dependence: Dependence
    left_out: int
    pending: tuple[JsonValue, ...] = ()
    """What Fastn's AI asked in the session that the call goes into."""

    @property
    def expected(self) -> str:
        """What is to be typed: the name, or the id where a name is too long to be shown whole."""
        name = self.name if self.name is not None and len(self.name) <= LONGEST and not is_redacted(self.name) else None
        return name or self.target or self.tool

    @property
    def fits_form(self) -> bool:
        return not self._is_whole or len(self.line()) <= _LONGEST_IN_FORM

    @property
    def _is_whole(self) -> bool:
        return self.effect in (Effect.ACCESS, Effect.DESTROY)

    def dependents(self) -> dict[str, float | None]:
        return self.dependence.counts()

    def lines(self) -> list[str]:
        """In words, each value quoted and cut; ours first. Some clients show no more than three rows of a question."""
        where = f"{self._where()} Account: {self.account}.".lstrip()
        return [self._call(), *filter(None, (self._impact(self.undo),)), where, *filter(None, (self.does,))]

    def line(self) -> str:
        """All of that in one line, as one of several calls on the same account."""
        undo = "" if self.effect is Effect.DESTROY else self.undo
        return " ".join(filter(None, (f"{self._call()}.", self._where(), self._impact(undo))))

    def _call(self) -> str:
        limit = _WHOLE if self._is_whole else LONGEST
        given = " ".join(
            f"{name}={show(value, limit, is_name=name in _PERMISSIONS)}" for name, value in self.arguments.items()
        )
        return f"{self.tool} {given}".rstrip()

    def _where(self) -> str:
        return f"Target: {show(self.name)}, id {show(self.target)}." if self.target is not None and self.name else ""

    def _impact(self, undo: str) -> str:
        """What would change, what depends on it, and whether it can be undone: what matters, at the beginning."""
        limit = _WHOLE if self._is_whole else 80
        changes = [f"{show(c.field, 60)}: {show(c.before, limit)} becomes {show(c.after, limit)}" for c in self.changes]
        more = [f"and {self.left_out} more fields"] if self.left_out else []
        changed = "; ".join([*changes, *more])
        found = ", ".join(_counted(found) for found in self.dependence.found)
        unchecked = ", ".join(self.dependence.unchecked)
        said = (
            "Cannot be undone." if self.effect is Effect.DESTROY else "",
            f"{changed}." if changed else "",
            f"With it: {found}." if found else "",
            f"Not checked: {unchecked}." if unchecked else "",
            # Never cut: nobody approves what they could not read.
            f"Pending there: {', '.join(show(item, _WHOLE) for item in self.pending)}." if self.pending else "",
            self.because,
            undo,
        )
        return " ".join(filter(None, said))

    def data(self) -> dict[str, JsonValue]:
        """As data, for `dry_run` and the page."""
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
        if self.changes:
            body["changes"] = [{"field": c.field, "from": c.before, "to": c.after} for c in self.changes]
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
        return redact_object(body)


def preview(
    call: Operation[Any],
    effect: Effect,
    account: str,
    target: Record | None,
    dependence: Dependence,
    because: str = "",
) -> Preview:
    """The preview of `call` on `target`."""
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
        name=name_of(target),
        does=(type(call).__doc__ or "").strip() + (_REACHES if effect is Effect.EXTERNAL else ""),
        undo=_UNDO.get(call.tool_name(), "It can be changed back; what it was is read before it is sent."),
        because=because,
        changes=tuple(changes[:_CHANGES]),
        dependence=dependence,
        left_out=max(0, len(changes) - _CHANGES),
        pending=_pending(call, target),
    )


def _pending(call: Operation[Any], target: Record | None) -> tuple[JsonValue, ...]:
    if not isinstance(call, (AiChat, AiBuild)) or target is None:
        return ()
    asked: JsonValue = getattr(target, "pending", None)
    if not isinstance(asked, list):
        return (asked,)
    return tuple(cast("list[JsonValue]", redact(asked))) or ("nothing, by the last answer that this server heard",)


_PERMISSIONS = ("permissions", "scopes")
_HARMLESS_VERBS = frozenset({"read", "view", "list", "get"})
_CHANGING_VERBS = frozenset({"create", "write", "update", "edit", "run", "execute", "delete", "manage"})
_ORDINARY = frozenset(
    {"customers", "connectors", "connections", "workflows", "triggers", "executions", "usage", "audit"}
)


def by_power(name: str, value: JsonValue) -> JsonValue:
    """Permissions, the most powerful first, so that none hides behind harmless ones; any other value as it is."""
    if isinstance(value, dict):
        return {inner: by_power(inner, found) for inner, found in value.items()}
    if isinstance(value, list) and name in _PERMISSIONS:
        return sorted(value, key=_rank)
    return value


def _rank(permission: JsonValue) -> int:
    """0 for everything, 3 for what is known to be harmless. A permission that is not known counts as powerful."""
    resource, _, verb = str(permission).casefold().replace(".", ":").rpartition(":")
    if "*" in str(permission):
        return 0
    if resource not in _ORDINARY or verb not in _HARMLESS_VERBS | _CHANGING_VERBS:
        return 1
    return 3 if verb in _HARMLESS_VERBS else 2


def _counted(found: Dependents) -> str:
    names = ", ".join(show(example, 60) for example in found.examples)
    kind = found.kind.removesuffix("s") if found.count == 1 and not found.more else found.kind
    return f"{'at least ' if found.more else ''}{found.count} {kind} ({names})"


def _changes(call: Operation[Any], target: Record | None) -> list[Change]:
    if not isinstance(call, (Update, Create)) or target is None or not target.model_dump():
        return []
    current = target.model_dump()
    body = call.model_copy(update=dict.fromkeys(call.secrets())).request().body or {}
    changed = {field: new for field, new in body.items() if current.get(field) != new}
    before, after = redact_object({field: current.get(field) for field in changed}), redact_object(changed)
    # In the same order, whatever of a name was hidden.
    return [Change(*each) for each in zip(after, before.values(), after.values(), strict=True)]


# What Fastn notes by itself, and which says nothing of what was approved.
_TELEMETRY = re.compile(r"(last|next)[A-Z_]\w*|consecutiveFailures|statusHistory|\w+Count")


def state(target: Record | None) -> dict[str, JsonValue] | None:
    """The target without what changes by itself: what an approval is bound to."""
    if target is None:
        return None
    fields = target.model_dump()
    return {name: value for name, value in fields.items() if not _TELEMETRY.fullmatch(name)}
