"""The place Activity: rows of an audit log, which is read from its end page by page.

The ledger adds what it has about their requests and changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path
from urllib.parse import urlencode

from anyio import to_thread
from pydantic import JsonValue

from fastn_mcp.audit import files
from fastn_mcp.audit.reader import Entry, newest_first
from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.effects import EFFECTS, effect_words, loses_data
from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.channels.page.view import View
from fastn_mcp.errors import os_reason
from fastn_mcp.guard.approval.states import NOT_REPEATED, STATES, state_word
from fastn_mcp.guard.sentences.facts import mapping
from fastn_mcp.guard.stops import stopped_changes
from fastn_mcp.guard.undo import PERMITTED_BY, receipt
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.change import BEGUN, Change
from fastn_mcp.ledger.identity import account_name, who, without_issuers
from fastn_mcp.ledger.question import Question
from fastn_mcp.ledger.stop import EVERYBODY
from fastn_mcp.records.formats import counted, sentence, stamp
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.report.collector import MAY_HAVE_HAPPENED, OUTCOMES, UNKNOWN, Attempt, OutcomeGroup, Tally
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

MAX_ROWS = 50
CONTEXT_ENTRIES = 500
"""Entries on either side of a page that are read with it, since the entries of one call can lie apart."""
MAX_ENTRIES = 8_000
"""Entries after which a search ends and says how far it looked."""
ENDINGS = ("expired", "withdrawn", "void", "stopped", "allowed_again")
"""Events that end an approval request, or changes. A report counts them as refused or declined."""
STOP = "stop"
"""In place of a tool, where a person stopped changes or allowed them again."""
FILTERS: Mapping[str, tuple[OutcomeGroup | str, ...]] = {
    "Done": (OutcomeGroup.DONE,),
    "Failed or unknown": (OutcomeGroup.FAILED, OutcomeGroup.UNKNOWN),
    "Waiting or not used": (OutcomeGroup.WAITING,),
    "Not approved or ended": (OutcomeGroup.DECLINED, *ENDINGS),
    "Refused": (OutcomeGroup.REFUSED,),
}
KINDS = {words.kinds: effect.value for effect, words in EFFECTS.items() if effect is not Effect.READ}
"""Effects of changes, by what a search names them."""
_SEARCHED_FIELDS = ("tool", "target", "name", "arguments", "message", "principal", "rule")
_NAME_FIELDS = ("principal_name", "approver_name", "client_name")


@dataclass(frozen=True, slots=True)
class Row:
    """One call, or the calls of one batch; none where lines of the log are damaged. Its entries are in order."""

    number: int
    """Number of its first entry; 0 if it is not from a log."""
    calls: Sequence[Attempt]
    entries: Sequence[Entry]

    @property
    def time(self) -> str:
        return str(self.entries[0].get("time", ""))


@dataclass(frozen=True, slots=True)
class Search:
    """Fields of the search form. An empty field matches everything. `until` is a date."""

    q: str = ""
    outcome: str = ""
    effect: str = ""
    until: str = ""

    def matches(self, row: Row) -> bool:
        """Whether a row fits. Damaged lines fit where nothing is searched for."""
        text = self.q.replace("_", " ").casefold().strip()
        ends = {each for call in row.calls for each in ((call.outcome,) if call.outcome in ENDINGS else (call.group,))}
        return self == Search() or bool(
            row.calls
            and (not self.outcome or ends.intersection(FILTERS.get(self.outcome, ())))
            and (not self.effect or any(call.effect == KINDS.get(self.effect) for call in row.calls))
            and (not self.until or row.time[:10] <= self.until)
            and (not text or any(text in _text_of(entry) for entry in row.entries))
        )

    def is_later(self, below: int | None) -> Callable[[Entry], bool] | None:
        """Return whether an entry lies too late to matter for the rows before entry `below`; None if none does."""
        if below is not None:
            return lambda entry: _number(entry) >= below + CONTEXT_ENTRIES
        # A call can end on the next day.
        return (lambda entry: str(entry.get("time")) > f"{self.until}T99") if self.until else None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some rows, newest first."""

    rows: Sequence[Row] = ()
    before: int | None = None
    """Number of the entry before which the log goes on; None if this reached its start."""
    since: str = ""
    """Time of that entry."""
    until: str = ""
    """Time of the entry before which its rows begin; empty for the first page."""
    changes: frozenset[str] = frozenset()
    """Ids of all changes among the entries read."""
    read: int = 0
    """Number of lines read."""


def read_page(
    log: Path, wanted: Callable[[Row], bool], search: Search, below: int | None = None, most: int = MAX_ROWS
) -> LogPage:
    """Read at most `most` rows of a log that are `wanted` and begin before entry `below`. Raises `OSError`.

    Reads until they are found, and at most `MAX_ENTRIES` lines.
    """
    lines = newest_first(log, search.is_later(below))
    entries = list[Entry]()
    size = (2 if below is None else 3) * CONTEXT_ENTRIES
    while True:
        block = [files.parsed(line) or {} for line in islice(lines, size)]
        entries += block
        is_start = len(block) < size
        joined = _rows(entries)
        oldest = 0 if is_start else _oldest_beginning(entries)
        rows = [row for row in joined if oldest <= row.number < (below or inf) and wanted(row)]
        if is_start or len(rows) > most or len(entries) >= MAX_ENTRIES:
            break
        size = MAX_ENTRIES - len(entries)
    before = None if is_start else oldest
    if len(rows) > most:
        before = rows[most - 1].number
    times = {_number(each): str(each.get("time", "")) for each in entries if _number(each) in (before, below)}
    changes = frozenset(call.change for row in joined for call in row.calls if call.change)
    return LogPage(
        rows[:most],
        before,
        since=times.get(before or 0, ""),
        until=times.get(below or 0, ""),
        changes=changes,
        read=len(entries),
    )


def _oldest_beginning(entries: Sequence[Entry]) -> int:
    """Return the number of the oldest entry that surely begins its call; 0 if none does.

    What begins among the oldest entries may have begun before them.
    """
    numbers = map(_number, entries[:-CONTEXT_ENTRIES])
    return min((number for number in numbers if number), default=0)


class _Calls(Tally):
    """Calls, with what ended their approval requests."""

    def entry(self, line: Mapping[str, JsonValue]) -> None:
        super().entry(line)
        event = str(line.get("event"))
        if line.get("tool") == STOP and event in ENDINGS:
            self._update(self._begin(line), line, event, str(line.get("message") or ""))


def _rows(entries: Sequence[Entry]) -> list[Row]:
    """Join entries, newest first, into rows, newest first. An empty entry is a damaged line."""
    calls = _Calls()
    rows = list[Row]()
    latest = Entry()
    for entry in reversed(entries):
        calls.entry(entry)
        if not entry and not (rows and rows[-1].entries[0] is latest):
            rows.append(Row(_number(latest), (), (latest,)))
        latest = entry or latest
    by_number = {_number(entry): entry for entry in entries}
    grouped = dict[int, list[Attempt]]()
    for call in calls.attempts:
        if call.audit:
            grouped.setdefault(call.audit[0].n, []).append(call)
    for number, each in grouped.items():
        numbers = dict.fromkeys(link.n for call in each for link in call.audit)
        rows.append(Row(number, each, [by_number[n] for n in sorted(numbers)]))
    return sorted(rows, key=lambda row: row.number, reverse=True)


def _number(entry: Entry) -> int:
    n = entry.get("n")
    return n if isinstance(n, int) else 0


def _text_of(entry: Entry) -> str:
    return (
        " ".join(str(entry.get(name, "")) for name in (*_SEARCHED_FIELDS, *_NAME_FIELDS)).replace("_", " ").casefold()
    )


_MAX_CHANGES = 200
"""Changes of a page that are in the journal alone: from other servers, or from a log that is gone."""
_ENDED = {
    "expired": RequestState.UNANSWERED,
    "withdrawn": RequestState.WITHDRAWN,
    "void": RequestState.STALE,
    "stopped": RequestState.STOPPED,
    "target_changed": RequestState.STALE,
}
"""State of a request, by the event or outcome that ended it."""
_WORDS = {event: STATES[state].word for event, state in _ENDED.items()} | {"allowed_again": "Allowed again"}
_REFUSED = OUTCOMES[OutcomeGroup.REFUSED].word
_WAITING = OUTCOMES[OutcomeGroup.WAITING].word
_REASONS = {words.word: words.reason for words in STATES.values() if words.reason} | {
    _REFUSED: "refused by the policy",
    _WAITING: "",
}
_MARKS = {words.word: words.mark for words in OUTCOMES.values()}
_EVENT_WORDS = {
    "asked": "requested",
    "intent": "sent to Fastn",
    "outcome": "",
    "agreed": "list approved",
    "allowed_again": "allowed again",
}
"""What an event is called where its name is not a word."""
_STEP_FIELDS = ("event", "approver_name", "outcome", "message")
"""Fields that say what happened, and when."""
_LEFT_OUT = ("n", "time", "prev", "hash", "of", "digest", "trace", "torn", "tool", "grant", "approver", *_STEP_FIELDS)
"""Fields that are in the story, or say nothing to a person."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What one person may see of the activity of an account, with the audit `log` of this server."""

    inbox: Inbox
    account: InboxAccount
    log: Path
    now: float

    async def page(self, search: Search, below: int | None) -> View:
        """Return the template variables of the rows that begin before entry `below`."""
        read = LogPage()
        problem = None
        wanted = partial(self._is_wanted, search)
        try:
            read = await to_thread.run_sync(read_page, self.log, wanted, search, below)
        except OSError as error:
            problem = f"The audit log cannot be read ({os_reason(error)}). The rows are from the journal."
        rows = [*read.rows, *filter(wanted, await self._journal(read))]
        rows.sort(key=lambda row: row.time, reverse=True)
        views = [await self._view(row) if row.calls else self._place(row) for row in rows]
        return {"rows": views, "before": read.before, "since": _day(read.since, self.now), "problem": problem}

    async def one(self, entry: int, change: str) -> View | None:
        """Return the details of one row, by its first entry or its change; None if there is none that they may see."""
        if entry:
            read = await to_thread.run_sync(read_page, self.log, bool, Search(), entry + 1, 1)
            rows = [row for row in read.rows if row.number == entry and row.calls]
        else:
            known = await self.account.ledger.change(self.account.name or "", change)
            rows = [_of_journal(known)] if known else []
        seen = [row for row in rows if self._is_wanted(Search(), row)]
        return await self._view(seen[0], is_whole=True) if seen else None

    def _is_wanted(self, search: Search, row: Row) -> bool:
        effects = frozenset(call.effect or "" for call in row.calls)
        if not row.number:  # the journal does not say to which effect a call was raised
            operations = (OPERATIONS.get(call.tool, Operation) for call in row.calls)
            effects |= {each.value for operation in operations for each in operation.raises_to}
        is_for_all = not row.calls or row.calls[0].tool == STOP
        is_seen = is_for_all or self.inbox.sees(self.account.tenant, row.calls[0].principal or "", effects)
        return is_seen and search.matches(row)

    async def _journal(self, read: LogPage) -> list[Row]:
        """Return the changes in the time of a page that are not in its log."""
        if self.account.name is None:
            return []
        changes = await self.account.ledger.changes(self.account.name, _MAX_CHANGES, _seconds(read.until, inf))
        since = _seconds(read.since, 0.0)
        return [_of_journal(each) for each in changes if each.at >= since and each.id not in read.changes]

    async def _view(self, row: Row, *, is_whole: bool = False) -> View:
        call = row.calls[0]
        ledger = self.account.ledger
        request = await ledger.find(call.grant.partition(".")[0]) if call.grant else None
        request = request if request and self.account.has(request) else None
        change = await ledger.change(self.account.name or "", call.change) if call.change else None
        outcome = "Undone" if change and change.undone and len(row.calls) == 1 else _outcome(row, request, self.now)
        question = request.question if request else _question_of(row)
        asker = _asker(row, request)
        seen = {
            **self._place(row),
            "outcome": outcome,
            "kind": _MARKS.get(outcome, "unknown" if outcome[0].isdecimal() else "none"),
            "sign": _sign(call, request, change),
            "what": view.parts(question.title if is_whole else question.brief),
            "who": [sanitize(each) for each in (asker, self._how(call, outcome, request)) if each],
            "note": view.parts(_note(row, outcome, request)),
        }
        return seen | _details(row, question, change) if is_whole else seen

    def _how(self, call: Attempt, outcome: str, request: ApprovalRequest | None) -> str:
        """Return by whom or what a call was allowed, or was not."""
        verb = outcome.lower() if outcome in ("Declined", "Withdrawn") else "approved"
        if call.tool == STOP:
            return call.message or ""
        if outcome in _REASONS:
            return _REASONS[outcome]
        if call.approved_by == "plan" and call.rule:
            return call.rule
        if verb == "approved" and call.approved_by in ("policy", "plan", "temporary_approval"):
            return f"allowed by {PERMITTED_BY[call.approved_by]}"
        if verb == "approved" and call.approved_by is None:
            return ""
        votes = [vote for vote in (request.votes if request else ()) if vote.approves is (verb == "approved")]
        names = " and ".join(map(self.inbox.name_of, votes)) or "an approver"
        return f"{verb} by {names if self.inbox.tells_people_apart else 'you'}"

    def _place(self, row: Row) -> View:
        """Return when and where a row is."""
        at = {"entry": row.number} if row.number else {"change": row.calls[0].change}
        tenant = {"tenant": self.account.tenant} if self.account.tenant else {}
        day = _day(row.time, self.now)
        return {"time": row.time, "clock": sanitize(row.time[11:16]), "day": day, "address": urlencode(tenant | at)}


def _question_of(row: Row) -> Question:
    """Return the question of a row that no approval request is known of, by its entries."""
    call = row.calls[0]
    arguments = mapping(row.entries[0].get("arguments"))
    name = str(call.name or arguments.get("name") or arguments.get("email") or call.target or "")
    if call.tool == STOP:
        what = stopped_changes(call.target or "")
        verb = "allowed again" if call.outcome == "allowed_again" else "stopped"
        return Question(title=f"{what} were {verb}.", button=what, brief=what)
    what = f"{view.title(call.tool)} {quote(name, len(name)) if name else ''}".rstrip()
    if len(row.calls) > 1:
        what = f"Make {counted(len(row.calls), 'change')}"
    return Question(title=f"{what}.", button=what, brief=what)


def _asker(row: Row, request: ApprovalRequest | None) -> str:
    """Return who asked for the calls of a row; empty if that is the only person of this server."""
    call = row.calls[0]
    asker = (request and request.asked_by) or str(row.entries[0].get("client_name", ""))
    if not asker and call.principal != "local":
        asker = without_issuers(who(call.principal or "", call.principal_name))
    return asker


def _outcome(row: Row, request: ApprovalRequest | None, now: float) -> str:
    call = row.calls[0]
    total = len(request.calls) if request and "." in (call.grant or "") else len(row.calls)
    done = sum(each.group is OutcomeGroup.DONE for each in row.calls)
    if total > 1 and done < total:
        return f"{done} of {total} done"
    if call.group is not OutcomeGroup.WAITING:
        return _WORDS.get(call.outcome) or OUTCOMES[call.group].word
    if request is None:
        return STATES[RequestState.APPROVED if call.approved_by else RequestState.OPEN].word
    return STATES[RequestState.OPEN].word if request.state is RequestState.USED else state_word(request, now)


def _sign(call: Attempt, request: ApprovalRequest | None, change: Change | None) -> tuple[str, str]:
    """Return the mark of a call's effect, and the words for it; empty where it has no mark."""
    effect = next((each for each in Effect if each.value == call.effect), Effect.READ)
    is_lost = loses_data(effect, request.question if request else None, change)
    shown = effect_words(call.tool, effect, is_lost=is_lost)
    return ("", "") if shown.mark == "plain" else (shown.mark, shown.words)


def _note(row: Row, outcome: str, request: ApprovalRequest | None) -> str:
    failed = [call for call in row.calls if call.group is OutcomeGroup.FAILED and call.outcome not in _WORDS]
    if any(call.group is OutcomeGroup.UNKNOWN for call in row.calls):
        return MAY_HAVE_HAPPENED
    if outcome == STATES[RequestState.APPROVED].word:
        return NOT_REPEATED
    if request is not None and request.note:
        return f"Note: {quote(request.note, len(request.note))}"
    return failed[0].message or "" if failed else ""


def _details(row: Row, question: Question, change: Change | None) -> View:
    """Return what only the page of a row shows: all that is known."""
    known = {} if change is None else receipt(change)
    undo = "" if change is None else view.undo_words(change)
    changed = [(sanitize(name), mapping(values)) for name, values in mapping(known.get("changed")).items()]
    facts = {name: value for entry in row.entries for name, value in entry.items() if name not in _LEFT_OUT}
    return {
        "lost": view.parts(question.lost),
        "tool": sanitize(row.calls[0].tool),
        "undo": "It has been undone." if change and change.undone else undo,
        "changed": [(name, view.shown(each.get("from")), view.shown(each.get("to"))) for name, each in changed],
        "facts": [
            _fact(name, value, is_declined=row.calls[0].group is OutcomeGroup.DECLINED) for name, value in facts.items()
        ],
        "story": [(sanitize(str(entry.get("time"))[11:19]), view.parts(_said(entry))) for entry in row.entries],
    }


_DECLINED_BY = {"four_eyes": PERMITTED_BY["verified"]}
"""Who declined, where `PERMITTED_BY` would name all who would have had to approve."""


def _fact(name: str, value: JsonValue, *, is_declined: bool) -> tuple[str, str]:
    """Return a field of an entry, with its heading. A declined call was decided by somebody, and approved by nobody."""
    if name == "approved_by" and isinstance(value, str):
        words = PERMITTED_BY.get(value, value)
        if is_declined:
            return "Decided by", sanitize(_DECLINED_BY.get(value, words))
        return "Approved by", sanitize(words)
    heading = "Duration" if name == "duration_ms" else sentence(name.replace("_", " "))
    if name == "duration_ms":
        return heading, f"{view.shown(value)} ms"
    if name == "target" and value == EVERYBODY:
        return heading, "all changes"
    return heading, sanitize(value) if isinstance(value, str) else view.shown(value)


def _said(entry: Entry) -> str:
    """Say what happened by an entry."""
    event, *others = (str(entry.get(name, "")) for name in _STEP_FIELDS)
    approver, outcome, message = others
    words = (_EVENT_WORDS.get(event, event), approver, outcome.replace("_", " "), message)
    return ". ".join(sentence(each) for each in words if each)


def _of_journal(change: Change) -> Row:
    operation = OPERATIONS.get(change.tool)
    names = ("principal", "tool", "target", "name", "approved_by")
    entry = Entry(time=stamp(datetime.fromtimestamp(change.at, UTC)), event="sent", arguments={**change.arguments})
    entry |= {name: getattr(change, name) for name in names} | {"account": account_name(change.account)}
    call = Attempt(
        str(entry["time"]),
        change.tool,
        UNKNOWN if change.outcome == BEGUN else change.outcome,
        principal=change.principal,
        target=change.target,
        name=change.name,
        change=change.id,
        effect=operation and operation.effect.value,
        approved_by=change.approved_by.partition(":")[0] or None,
    )
    return Row(0, (call,), (entry,))


def _day(time: str, now: float) -> str:
    """Return a date in words: `Today, 28 November`, with the year where it is not this one."""
    day = datetime.fromtimestamp(_seconds(time, now), UTC).date()
    today = datetime.fromtimestamp(now, UTC).date()
    first = {0: "Today", 1: "Yesterday"}.get((today - day).days, f"{day:%A}")
    return f"{first}, {day.day} {day:%B}{f' {day.year}' if day.year != today.year else ''}"


def _seconds(time: str, default: float) -> float:
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return default
