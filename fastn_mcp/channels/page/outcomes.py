"""What became of decided requests: an outcome in one word, and the changes that each allowed."""

from collections.abc import Iterable, Sequence

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.inbox import DecidedRequest
from fastn_mcp.channels.page.view import View
from fastn_mcp.guard.undo import NotUndoable, changed_fields, in_words, undo_of
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.change import BEGUN, MADE_OUTCOMES, PERHAPS_MADE, Change
from fastn_mcp.records.formats import counted
from fastn_mcp.redaction import quote, sanitize

_SENDING = 300.0
"""Seconds for which a call without an outcome counts as being sent: the longest deadline of one."""

MAY_HAVE_RUN = "It may have run. Look in Fastn before you repeat it."

STATES = {
    RequestState.OPEN: ("none", "Expired"),
    RequestState.UNANSWERED: ("none", "Expired"),
    RequestState.DECLINED: ("none", "Declined"),
    RequestState.WITHDRAWN: ("none", "Withdrawn"),
    RequestState.STALE: ("none", "Void"),
    RequestState.STOPPED: ("none", "Stopped"),
}
"""Mark and outcome of a request that is over, or expired."""


def decided(entry: DecidedRequest, now: float) -> View:
    """Return the template data of a decided request."""
    request, later = entry.request, [each for each in entry.changes if is_temporary(each)]
    direct = [each for each in entry.changes if each not in later]
    mark, words = outcome(request, direct, now)
    when = request.created if request.decided is None else request.decided
    changes = [change(each, now, may_undo=entry.may_undo) for each in entry.changes]
    is_unused = request.can_be_withdrawn(now)
    brief = view.sentences(request.tool, request.preview).brief
    return {
        "id": request.id,
        "key": f"{request.id}.{words}.{len(changes)}.{sum(each.undone for each in entry.changes)}",
        "what": view.parts(brief),
        "plain": sanitize(brief),
        "mark": mark,
        "outcome": words,
        "by": sanitize(entry.by),
        "note": view.note_in_quotes(request.note) if request.note else None,
        "hint": hint(request, direct, later),
        "when": view.time(when, view.ago(now - when)),
        "left": view.time(request.expires, view.left(request.expires - now)) if is_unused else None,
        "can_withdraw": is_unused,
        "changes": changes,
        "lines": [sanitize(line) for line in request.text],
    }


def is_temporary(change: Change) -> bool:
    return change.approved_by.startswith("temporary_approval")


def outcome(request: ApprovalRequest, changes: Sequence[Change], now: float) -> tuple[str, str]:
    """Return a mark, and the outcome in a word or two."""
    if request.state is RequestState.UNANSWERED and request.by is not None:
        return "none", "Nobody answered"
    count, is_over = len(request.calls), request.state in STATES
    if count > 1 and request.used:
        done = sum(each.outcome in MADE_OUTCOMES for each in changes)
        ended = f", {STATES[request.state][1].casefold()}" if is_over else ""
        return "done" if done == count else "unknown", f"{done} of {count} done{ended}"
    if is_over:
        return STATES[request.state]
    if request.state is RequestState.APPROVED:
        return ("open", "Not used yet") if request.expires > now else ("none", "Not used")
    return _made(changes[-1], now) if changes else ("none", "Used")


def _made(change: Change, now: float) -> tuple[str, str]:
    if change.undone:
        return "none", "Undone"
    if change.outcome in MADE_OUTCOMES:
        return "done", "Done"
    if change.outcome == BEGUN and now - change.at < _SENDING:
        return "open", "Being sent"
    return ("unknown", "Unknown") if change.outcome in PERHAPS_MADE else ("failed", "Failed")


def hint(request: ApprovalRequest, changes: Iterable[Change], later: Sequence[Change] = ()) -> str:
    """Say what a person should know of the outcome; empty if nothing."""
    sentences: list[str] = []
    if any(each.outcome in PERHAPS_MADE for each in changes):
        sentences.append(MAY_HAVE_RUN)
    if request.state is RequestState.STALE:
        sentences.append("Its target changed before it was sent. Nothing was sent.")
    if later:
        sentences.append(f"{counted(len(later), 'more call')} ran under its temporary approval.")
    return " ".join(sentences)


def change(record: Change, now: float, *, may_undo: bool) -> View:
    """Return the template data of a change: its receipt, and whether it can be undone here."""
    mark, outcome = _made(record, now)
    fields = changed_fields(record)
    undo, can_be = undo_of(record), record.outcome in MADE_OUTCOMES and not record.undone
    number, of = f"{record.number}. " if record.number else "", f" {quote(record.name)}" if record.name else ""
    return {
        "id": record.id,
        "mark": mark,
        "outcome": outcome,
        "what": view.parts(f"{number}{view.title(record.tool)}{of}"),
        "is_temporary": is_temporary(record),
        "when": view.time(record.at, view.ago(now - record.at)),
        "fields": [view.change({"field": name, **view.mapping(each)}) for name, each in fields.items()],
        "stopped": view.parts(", ".join(map(quote, record.stopped_triggers))),
        "undo": in_words(undo).replace(" with undo_change", "") if can_be else "",
        "can_undo": can_be and may_undo and not isinstance(undo, NotUndoable),
    }
