"""Approval requests and temporary approvals as the page's templates show them.

Whatever came from Fastn or from the agent goes through `shown`, whole: nobody approves what they could not read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.channels.page.access import Decided, PendingRequest
from fastn_mcp.fastn.names import counted
from fastn_mcp.guard.approval.request import may_scope, temporary
from fastn_mcp.guard.ledger.ledger import Grant, GrantState, Scope, account_name
from fastn_mcp.guard.quoting import show
from fastn_mcp.redaction import sanitize

_EFFECTS = {
    "write": "Changes the account",
    "external": "Acts on connected systems",
    "spend": "Spends credits",
    "access": "Gives access",
    "trash": "Moves to Trash",
    "destroy": "Destroys",
}
_BY = {
    "local_page": "on this page",
    "client_form": "in the client's form",
    "terminal": "at a terminal",
    "verified": "by an approver",
    "four_eyes": "by approvers",
    "scope": "by a temporary approval",
    "plan": "by a plan",
    "policy": "by the policy",
}
_KNOWN = {
    "call", "arguments", "account", "effect", "does", "undo", "target", "changes", "more_changes", "used_by",
    "not_checked", "calls", "sum", "effects", "number", "makes",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TimeView:
    """A time, for programs and for people."""

    iso: str
    words: str


@dataclass(frozen=True, slots=True)
class LabelledValue:
    """A value, with our name for it."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Changed:
    """One field of the target, now and afterwards. None is a field that is not there."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Used:
    """What uses the target: how many of a kind, and some of them."""

    count: str
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One of several calls that are decided together. `key` is its own on the page."""

    key: str
    number: str
    title: str
    tool: str
    arguments: tuple[LabelledValue, ...]
    target_name: str | None
    target_id: str | None
    undo: str
    changes: tuple[Changed, ...]
    more_changes: int
    used: tuple[Used, ...]
    not_checked: tuple[str, ...]
    also: tuple[LabelledValue, ...]


@dataclass(frozen=True, slots=True)
class RequestView:
    """One question, all of it. `key` is its own on the page; of several calls, `calls` are the parts."""

    id: str
    key: str
    title: str
    subject: str | None
    tool: str
    calls: tuple[Part, ...]
    arguments: tuple[LabelledValue, ...]
    principal: str
    account: str
    target_name: str | None
    target_id: str | None
    effect: str
    effect_words: str
    does: str
    undo: str
    changes: tuple[Changed, ...]
    more_changes: int
    used: tuple[Used, ...]
    not_checked: tuple[str, ...]
    also: tuple[LabelledValue, ...]
    expected: str | None
    barred: str | None
    so_far: str | None
    temporary: str | None
    asked: TimeView
    until: TimeView


@dataclass(frozen=True, slots=True)
class Running:
    """An approval that covers more calls for a while."""

    id: str
    tool: str
    target: str
    principal: str
    account: str
    extent: str
    until: TimeView


@dataclass(frozen=True, slots=True)
class DecidedView:
    """What became of a question."""

    key: str
    title: str
    subject: str | None
    good: bool | None
    outcome: str
    by: str
    note: str | None
    when: TimeView
    lines: tuple[str, ...]


def question(lying: PendingRequest, now: float) -> RequestView:
    """An open grant, as a question."""
    grant = lying.grant
    card = grant.card
    target = _mapping(card.get("target"))
    name = target.get("name")
    effect = _text(card.get("effect"))
    return RequestView(
        id=grant.id,
        key=grant.id,
        title=title(grant.tool),
        subject=_subject(grant),
        tool=grant.tool,
        calls=tuple(_part(grant.id, _mapping(row)) for row in _items(card.get("calls"))),
        arguments=tuple(LabelledValue(sanitize(k), shown(v)) for k, v in _mapping(card.get("arguments")).items()),
        principal=sanitize(grant.principal),
        account=sanitize(account_name(grant.account)),
        target_name=None if name is None else shown(name),
        target_id=None if target.get("id") is None else shown(target["id"]),
        effect=effect if effect in _EFFECTS else "unknown",
        effect_words=_EFFECTS.get(effect, "Unknown effect"),
        does=sanitize(_text(card.get("does"))),
        undo=sanitize(_text(card.get("undo"))),
        changes=tuple(_changed(_mapping(change)) for change in _items(card.get("changes"))),
        more_changes=_number(card.get("more_changes")),
        used=tuple(_used(_mapping(used)) for used in _items(card.get("used_by"))),
        not_checked=tuple(sanitize(_text(kind)) for kind in _items(card.get("not_checked"))),
        also=_also(card),
        expected=None if grant.expected is None else sanitize(grant.expected),
        barred=lying.barred,
        so_far=None if lying.so_far is None else sanitize(lying.so_far),
        temporary=sanitize(temporary(grant)) if may_scope(grant) else None,
        asked=TimeView(_iso(grant.created), ago(now - grant.created)),
        until=TimeView(_iso(grant.expires), left(grant.expires - now)),
    )


def _part(grant: str, card: Mapping[str, JsonValue]) -> Part:
    target = _mapping(card.get("target"))
    name, id_, tool = target.get("name"), target.get("id"), sanitize(_text(card.get("call")))
    number = str(_number(card.get("number")))
    return Part(
        key=f"{grant}-{number}",
        number=number,
        title=title(tool),
        tool=tool,
        arguments=tuple(LabelledValue(sanitize(k), shown(v)) for k, v in _mapping(card.get("arguments")).items()),
        target_name=None if name is None else shown(name),
        target_id=None if id_ is None else shown(id_),
        undo=sanitize(_text(card.get("undo"))),
        changes=tuple(_changed(_mapping(change)) for change in _items(card.get("changes"))),
        more_changes=_number(card.get("more_changes")),
        used=tuple(_used(_mapping(used)) for used in _items(card.get("used_by"))),
        not_checked=tuple(sanitize(_text(kind)) for kind in _items(card.get("not_checked"))),
        also=_also(card),
    )


def _also(card: Mapping[str, JsonValue]) -> tuple[LabelledValue, ...]:
    """What the card says besides what has a place of its own."""
    return tuple(LabelledValue(sanitize(k.replace("_", " ")), shown(v)) for k, v in card.items() if k not in _KNOWN)


def running(scope: Scope, now: float) -> Running:
    """A scope that holds."""
    until = TimeView(_iso(scope.expires), left(scope.expires - now))
    principal, account = sanitize(scope.principal), sanitize(account_name(scope.account))
    return Running(scope.id, scope.tool, shown(scope.target), principal, account, sanitize(scope.extent), until)


def past(decided: Decided, now: float) -> DecidedView:
    """A grant that was decided, or ran out."""
    grant = decided.grant
    good, outcome = _outcome(grant, now)
    when = grant.created if grant.decided is None else grant.decided
    return DecidedView(
        key=f"{grant.id}.{outcome}",
        title=title(grant.tool),
        subject=_subject(grant),
        good=good,
        outcome=outcome,
        by=_by(decided),
        note=_note(grant.note) if grant.note else None,
        when=TimeView(_iso(when), ago(now - when)),
        lines=tuple(sanitize(line) for line in grant.lines),
    )


def _by(decided: Decided) -> str:
    if decided.who is not None:
        return f"by {sanitize(decided.who)}"
    by = decided.grant.by
    return _BY.get(by, sanitize(by)) if by else ""


def _outcome(grant: Grant, now: float) -> tuple[bool | None, str]:
    match grant.state:
        case GrantState.BURNT:
            return True, "Approved and used"
        case GrantState.APPROVED if grant.expires > now:
            return True, "Approved, not used yet"
        case GrantState.APPROVED:
            return None, "Approved, expired unused"
        case GrantState.DECLINED:
            return False, "Declined"
        case GrantState.STALE:
            return None, "Void: the target changed"
        case GrantState.UNANSWERED if grant.by is not None:
            return None, "Nobody answered"
        case GrantState.OPEN | GrantState.UNANSWERED:
            return None, "Expired unanswered"


def what_became(grant: Grant | None) -> str:
    """Why a question cannot be decided any more, for whom tries."""
    if grant is None or not grant.elsewhere:
        return "There is no such approval request. Nothing was decided."
    if grant.state is GrantState.OPEN or (grant.state is GrantState.UNANSWERED and grant.by is None):
        return "This request has expired. Nothing was decided; the agent can ask again."
    became = {
        GrantState.APPROVED: "was approved already",
        GrantState.BURNT: "was approved already, and the call was made",
        GrantState.DECLINED: "was declined already",
        GrantState.STALE: "is void, since its target changed",
        GrantState.UNANSWERED: "was left unanswered",
    }[grant.state]
    return f"This question {became}. Nothing was decided now."


def title(tool: str) -> str:
    """A tool, for people: `create_api_key` is "Create API key"."""
    words = tool.replace("_", " ").replace("api", "API")
    return words.replace("ai ", "AI ", 1) if words.startswith("ai ") else words[:1].upper() + words[1:]


def shown(value: JsonValue) -> str:
    """A value, whole: text in quotes; anything with parts as JSON, a part to a line."""
    if isinstance(value, str):
        return show(value, len(value))
    if not isinstance(value, (dict, list)) or not value:
        return show(value, 1 << 20)
    lines = to_json(value, indent=2, inf_nan_mode="strings").decode().split("\n")
    return "\n".join(sanitize(line) for line in lines)


def ago(seconds: float) -> str:
    """How long ago, in words."""
    return "just now" if seconds < 60 else f"{_rough(seconds)} ago"


def left(seconds: float) -> str:
    """How long yet, in words."""
    return "less than a minute" if seconds < 60 else _rough(seconds)


def _rough(seconds: float) -> str:
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return counted(count, unit)
    raise AssertionError(seconds)


def _note(note: str) -> str:
    """Quoted as well: a client can have written it. Its lines stay lines, inside the quotes."""
    return '"' + "\n".join(sanitize(line) for line in note.split("\n")) + '"'


def _subject(grant: Grant) -> str | None:
    """What a call is about, as short as a heading has to be; all of it stands below."""
    target = _mapping(grant.card.get("target"))
    name = grant.card.get("sum") or target.get("name") or grant.target or grant.card.get("makes")
    return show(name, 80) if isinstance(name, str) else None


def _changed(change: Mapping[str, JsonValue]) -> Changed:
    return Changed(sanitize(_text(change.get("field"))), shown(change.get("from")), shown(change.get("to")))


def _used(used: Mapping[str, JsonValue]) -> Used:
    kind = sanitize(_text(used.get("kind"))).removesuffix("s")
    count = counted(_number(used.get("count")), kind, at_least=bool(used.get("at_least")))
    return Used(count, tuple(show(example, 120) for example in _items(used.get("as"))))


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _items(value: JsonValue) -> Iterable[JsonValue]:
    return value if isinstance(value, list) else []


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else "" if value is None else to_json(value).decode()


def _number(value: JsonValue) -> int:
    return int(cast(float, value)) if isinstance(value, (int, float)) else 0


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
