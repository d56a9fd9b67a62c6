"""Template data for approval requests, what became of them, and temporary approvals.

Values from Fastn or the agent pass through `shown` untruncated, so that people can read everything they approve.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.account.typed_argument import TypedArgument, TypedField
from fastn_mcp.channels.page.effects import effect_words
from fastn_mcp.channels.page.inbox import DecidedRequest, PendingRequest
from fastn_mcp.guard.approval.states import STATES, state_word
from fastn_mcp.guard.approval_form import asker, temporary
from fastn_mcp.guard.journal import RECENT
from fastn_mcp.guard.sentences.facts import items, mapping
from fastn_mcp.guard.undo import NotUndoable, changed_fields, in_words, undo_of
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest, RequestState
from fastn_mcp.ledger.change import BEGUN, MADE_OUTCOMES, PERHAPS_MADE, Change
from fastn_mcp.ledger.identity import account_name, who, without_issuers
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.asker import LOCAL
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.report.collector import MAY_HAVE_HAPPENED, OUTCOMES, OutcomeGroup, group_of
from fastn_mcp.tools.fields import FIELD

_MAX_HEADING = 80
"""Characters of a first sentence in large type."""
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')

APPROVE_TEMPORARILY = f"'Approve for {TEMPORARY_MINUTES} minutes'"
"""The choice of the page, as its button says it."""
UNNAMED = "an unnamed caller"
"""Who asks where neither a person nor a client is named, as for an undo on this page."""
EVERY_AGENT = "every agent on this computer"
"""Whose calls a temporary approval covers where nobody signs in."""
_RECENT_HEADINGS = {heading for heading, _ in RECENT.values()}
_MAX_EXAMPLES = 5
"""Maximum number of dependents of one kind that are named."""

View = dict[str, Any]
"""Template variables by name."""


class Part(NamedTuple):
    """A part of a sentence: our words, or a name or value of Fastn or the agent."""

    text: str
    is_name: bool


def parts(sentence: str) -> list[Part]:
    """Split a sentence into our words and the quoted names and values, without their quotation marks."""
    split: list[Part] = []
    for number, text in enumerate(_QUOTED_NAME.split(sanitize(sentence))):
        if text or number % 2:
            split.append(Part(text.replace('\\"', '"') if number % 2 else text, bool(number % 2)))
    return split


def pending(pending: PendingRequest, now: float) -> View:
    request = pending.request
    typed = request.typed
    return {
        **_call(request.id, request.question),
        "id": request.id,
        "calls": [_call(f"{request.id}-{call.number}", call) for call in request.question.calls],
        "asked_by": asker(request) if request.asked_by or request.principal != LOCAL else UNNAMED,
        "account": sanitize(account_name(request.account)),
        "expected": None if request.expected is None else sanitize(request.expected),
        "typed": [] if typed is None else [(field, _label(typed, field)) for field in typed.fields],
        "barred": pending.barred,
        "needs_sign_in": pending.needs_sign_in,
        "progress": None if pending.progress is None else sanitize(pending.progress),
        "temporary": parts(temporary(request, APPROVE_TEMPORARILY)) if request.can_be_temporary else None,
        "until": time(request.expires, left(request.expires - now)),
        "asked": time(request.created, ago(now - request.created)),
        "presence": pending.presence,
        "told": [parts(each) for each in request.told],
    }


def _label(typed: TypedArgument, field: TypedField) -> str:
    """Return the label of a field that a person fills in. The names of Fastn's fields are left as they are."""
    prompt = typed.prompt(field)
    return sentence(prompt) if typed.is_whole else prompt


def grouped(waiting: Iterable[View]) -> list[tuple[str, list[View]]]:
    """Return the waiting requests by who asks, in the order of their oldest ones."""
    groups: dict[str, list[View]] = {}
    for each in waiting:
        groups.setdefault(each["asked_by"], []).append(each)
    return [*groups.items()]


def _effect(question: Question) -> tuple[str, str]:
    """Return the mark of a call and a few words for it."""
    effect = effect_words(question.tool, question.effect, is_lost=bool(question.lost))
    return effect.mark, effect.words


def _call(key: str, question: Question) -> View:
    """Return the template data of a call. `key` is unique on the page."""
    arguments = question.arguments
    recent = [fact for fact in question.facts if fact[0] in _RECENT_HEADINGS]
    others = [fact for fact in question.facts if fact not in recent]
    target = question.target
    return {
        "key": key,
        "number": str(question.number),
        "tool": question.tool,
        "effect": _effect(question),
        "recent": [(f"{name} {event.partition(',')[0]}", parts(f"{name} {event}.")) for name, event in recent],
        "first": parts(question.title),
        "is_long": len(question.title) > _MAX_HEADING,
        "plain": question.brief,
        "brief": parts(question.brief),
        "button": parts(question.button),
        "lost": parts(question.lost),
        "then": parts(question.then),
        "unchecked": parts(question.unchecked),
        "because": parts(question.because),
        "notes": parts(" ".join(filter(None, (question.costs, *question.notes)))),
        "facts": [{"name": name, "value": parts(event)} for name, event in others],
        "arguments": [_field(name, value) for name, value in arguments.items()],
        "target_id": None if target is None or target in arguments.values() else shown(target),
        "changes": [changed_field(change.data()) for change in question.changes],
        "more_changes": question.more_changes,
        "permissions": [shown(each) for each in items(arguments.get("permissions"))],
        "used": [_used(dependents) for dependents in question.used_by],
        "used_under": _by_heading(question),
        "may_use": [_used(dependents) for dependents in question.may_be_used_by],
        "also": [_field("pending", [*question.pending])] if question.pending else [],
    }


def temporary_approval(request: ApprovalRequest, now: float) -> View:
    """Return the template data of a request's active temporary approval."""
    brief = request.question.brief
    return {
        "id": request.id,
        "what": parts(brief),
        "plain": sanitize(brief),
        "principal": EVERY_AGENT if request.principal == LOCAL else sanitize(_person(request)),
        "account": sanitize(account_name(request.account)),
        "extent": parts(f"Covers {request.permit.extent}." if request.permit and request.permit.extent else ""),
        "until": time(request.permit_until, left(request.permit_until - now)),
    }


def _person(request: ApprovalRequest) -> str:
    return without_issuers(who(request.principal, request.person))


def title(tool: str) -> str:
    """Return the readable name of a tool: `create_api_key` is "Create API key"."""
    words = tool.replace("_", " ").replace("api", "API")
    return words.replace("ai ", "AI ", 1) if words.startswith("ai ") else words[:1].upper() + words[1:]


def shown(value: JsonValue) -> str:
    """Render an untruncated value: text in quotes, lists and objects as indented JSON."""
    if isinstance(value, str):
        return quote(value, len(value))
    if not isinstance(value, (dict, list)) or not value:
        return quote(value, 1 << 20)
    lines = to_json(value, indent=2, inf_nan_mode="strings").decode().split("\n")
    return "\n".join(sanitize(line) for line in lines)


def ago(seconds: float) -> str:
    return "just now" if seconds < 60 else f"{_rough(seconds)} ago"


def left(seconds: float) -> str:
    return "less than a minute" if seconds < 60 else _rough(seconds)


def _rough(seconds: float) -> str:
    size, unit = next(each for each in ((86_400, "day"), (3600, "hour"), (60, "minute")) if seconds >= each[0])
    return counted(int(seconds // size), unit)


def time(seconds: float, words: str) -> View:
    return {"iso": datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds"), "words": words}


def _field(name: str, value: JsonValue) -> View:
    return {"name": sanitize(name), "value": shown(value)}


def note_in_quotes(note: str) -> str:
    """Quote a note, since a client can have written it. Line breaks are kept inside the quotes."""
    return '"' + "\n".join(sanitize(line) for line in note.split("\n")) + '"'


def changed_field(change: Mapping[str, JsonValue]) -> View:
    """Return the template data of one changed field, before and after."""
    before = _bare(change["from"]) if "from" in change else None
    after = _bare(change.get("to"))
    field = _text(change.get("field"))
    return {"field": field if FIELD.fullmatch(field) else quote(field, len(field)), "before": before, "after": after}


def _bare(value: JsonValue) -> str:
    """Render an untruncated value for a box: text without quotation marks."""
    return "".join(part.text for part in parts(quote(value, len(value)))) if isinstance(value, str) else shown(value)


_DELETED_WITH = {"delete_customer": ("connections", "secrets"), "delete_connector": ("connections",)}
"""By tool: the kinds of dependents that are deleted with the target."""


def _by_heading(question: Question) -> list[tuple[str, list[View]]]:
    """Return the dependents under headings: what is deleted with the target, and what only depends on it."""
    kinds = _DELETED_WITH.get(question.tool, ())
    deleted = [_used(each) for each in question.used_by if each.get("kind") in kinds]
    depending = [_used(each) for each in question.used_by if each.get("kind") not in kinds]
    headed = [("Deleted with it", deleted), ("Depends on it", depending)]
    return [(heading, dependents) for heading, dependents in headed if dependents]


def _used(used: Mapping[str, JsonValue]) -> View:
    """Return the template data of one kind of dependents: their number and some examples."""
    kind = sanitize(_text(used.get("kind"))).removesuffix("s").replace("execution", "run")
    count = counted(_number(used.get("count")), kind, at_least=bool(used.get("at_least")))
    examples = [mapping(example) for example in items(used.get("examples") or used.get("all"))[:_MAX_EXAMPLES]]
    return {"count": count, "examples": [_example(example) for example in examples]}


def _example(example: Mapping[str, JsonValue]) -> list[Part]:
    """Return the name of a dependent, with its state and last run."""
    facts = ", ".join(_text(example[name]) for name in ("state", "last_run") if name in example)
    name = parts(quote(example.get("name", example.get("id")), 120))
    return [*name, Part(" ", is_name=False), Part(sanitize(facts), is_name=True)] if facts else name


def _text(value: JsonValue) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value).decode()


def _number(value: JsonValue) -> int:
    return int(cast(float, value)) if isinstance(value, (int, float)) else 0


_SENDING = 300.0
"""Seconds for which a call without an outcome counts as being sent: the longest deadline of one."""


def decided(entry: DecidedRequest, now: float) -> View:
    """Return the template data of a decided request."""
    request = entry.request
    later = [each for each in entry.changes if is_temporary(each)]
    direct = [each for each in entry.changes if each not in later]
    mark, words = outcome(request, direct, now)
    when = request.created if request.decided is None else request.decided
    changes = [change(each, now, may_undo=entry.may_undo) for each in entry.changes]
    is_unused = request.can_be_withdrawn(now)
    brief = request.question.brief
    return {
        "id": request.id,
        "key": f"{request.id}.{words}.{len(changes)}.{sum(each.undone for each in entry.changes)}",
        "what": parts(brief),
        "plain": sanitize(brief),
        "mark": mark,
        "outcome": words,
        "by": sanitize(entry.by),
        "note": note_in_quotes(request.note) if request.note else None,
        "hint": hint(request, direct, later),
        "when": time(when, ago(now - when)),
        "left": time(request.expires, left(request.expires - now)) if is_unused else None,
        "can_withdraw": is_unused,
        "changes": changes,
        "lines": request.question.lines(),
    }


def is_temporary(change: Change) -> bool:
    return change.approved_by.startswith("temporary_approval")


def outcome(request: ApprovalRequest, changes: Sequence[Change], now: float) -> tuple[str, str]:
    """Return a mark, and the outcome in a word or two."""
    count = len(request.calls)
    was_ended = request.state not in (RequestState.APPROVED, RequestState.USED)
    if count > 1 and request.used:
        done = sum(each.outcome in MADE_OUTCOMES for each in changes)
        ended = f", {STATES[request.state].word.casefold()}" if was_ended else ""
        return "done" if done == count else "unknown", f"{done} of {count} done{ended}"
    if request.state is RequestState.USED and changes:
        return _made(changes[-1], now)
    is_unused = request.state is RequestState.APPROVED and request.expires > now
    return "open" if is_unused else "none", state_word(request, now)


def _made(change: Change, now: float) -> tuple[str, str]:
    if change.undone:
        return "none", "Undone"
    if change.outcome == BEGUN and now - change.at < _SENDING:
        return "open", "Being sent"
    group = OutcomeGroup.UNKNOWN if change.outcome in PERHAPS_MADE else group_of(change.outcome)
    words = OUTCOMES[group if group in (OutcomeGroup.DONE, OutcomeGroup.UNKNOWN) else OutcomeGroup.FAILED]
    return words.mark, words.word


def hint(request: ApprovalRequest, changes: Iterable[Change], later: Sequence[Change] = ()) -> str:
    """Say what a person should know of the outcome; empty if nothing."""
    sentences: list[str] = []
    if any(each.outcome in PERHAPS_MADE for each in changes):
        sentences.append(MAY_HAVE_HAPPENED)
    if request.state is RequestState.STALE:
        sentences.append(STATES[request.state].sentence)
    if later:
        sentences.append(f"{counted(len(later), 'more call')} ran under its temporary approval.")
    return " ".join(sentences)


def change(record: Change, now: float, *, may_undo: bool) -> View:
    """Return the template data of a change: its receipt, and whether it can be undone here."""
    mark, outcome = _made(record, now)
    fields = changed_fields(record)
    undo = undo_words(record)
    number = f"{record.number}. " if record.number else ""
    of = f" {quote(record.name)}" if record.name else ""
    return {
        "id": record.id,
        "mark": mark,
        "outcome": outcome,
        "what": parts(f"{number}{title(record.tool)}{of}"),
        "is_temporary": is_temporary(record),
        "when": time(record.at, ago(now - record.at)),
        "fields": [changed_field({"field": name, **mapping(each)}) for name, each in fields.items()],
        "stopped": parts(", ".join(map(quote, record.stopped_triggers))),
        "undo": undo,
        "can_undo": bool(undo) and may_undo and not isinstance(undo_of(record), NotUndoable),
    }


def undo_words(record: Change) -> str:
    """Say what an undo of a change restores, or why it cannot be undone; empty if nothing was made, or it is undone."""
    if record.undone or record.outcome not in MADE_OUTCOMES:
        return ""
    return in_words(undo_of(record)).replace(" with undo_change", "")
