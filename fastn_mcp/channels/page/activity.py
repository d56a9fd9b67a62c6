"""The place Activity: rows of the audit log, with what the ledger has about their requests and changes."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import inf
from urllib.parse import urlencode

from anyio import to_thread

from fastn_mcp.audit.reader import Entry
from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.activity_log import LogPage, Row, Search, read_page
from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.channels.page.view import View
from fastn_mcp.errors import os_reason
from fastn_mcp.guard.sentences.facts import mapping
from fastn_mcp.guard.undo import approver, receipt
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.change import BEGUN, Change
from fastn_mcp.ledger.identity import account_name, who, without_issuers
from fastn_mcp.records.formats import counted, sentence, stamp
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.report.collector import UNKNOWN, Attempt, OutcomeGroup
from fastn_mcp.tools.catalog import OPERATIONS

_MOST_CHANGES = 200
"""Changes of a page that are in the journal alone: those of other servers, or of a log that is gone."""
_END = 1 << 60
"""Number of an entry after the end of any log."""
_WORDS = {"target_changed": "Void", **{each: each.capitalize() for each in ("expired", "withdrawn", "void", "stopped")}}
_STATES = {RequestState.APPROVED: "Not used", RequestState.DECLINED: "Declined", RequestState.STALE: "Void"}
_REASONS = {"Expired": "nobody answered", "Refused": "refused by policy", "Stopped": "changes are stopped"}
_ALLOWED = {"policy": "allowed by policy", "temporary_approval": "temporary approval"}
_SIGNS = {"destroy": "lost", "trash": "lost", "access": "access", "spend": "spend"}
_EVENTS = {"intent": "Sent to Fastn", "agreed": "Approved for all calls"}


@dataclass(frozen=True, slots=True)
class _Facts:
    """A row with calls, with what the ledger of its account has about it."""

    row: Row
    inbox: Inbox
    now: float
    request: ApprovalRequest | None
    change: Change | None

    @property
    def outcome(self) -> str:
        calls, request, call = self.row.calls, self.request, self.row.calls[0]
        if self.change is not None and self.change.undone:
            return "Undone"
        total = len(request.calls) if request and "." in (call.grant or "") else len(calls)
        done = sum(each.group is OutcomeGroup.DONE for each in calls)
        if total > 1 and done < total:
            return f"{done} of {total} done"
        if call.group is not OutcomeGroup.WAITING:
            return _WORDS.get(call.outcome) or call.group.value.capitalize()
        if request is None:
            return "Not used" if call.approved_by else "Expired"
        if request.expires > self.now and request.state in (RequestState.OPEN, RequestState.APPROVED):
            return "Waiting" if request.state is RequestState.OPEN else "Not used yet"
        return _STATES.get(request.state, "Expired")

    @property
    def how(self) -> str:
        """By whom or what the call was allowed, or was not."""
        by, outcome = self.row.calls[0].approved_by, self.outcome
        verb = outcome.lower() if outcome in ("Declined", "Withdrawn") else "approved"
        if outcome in _REASONS or (verb == "approved" and by in (None, *_ALLOWED)):
            return _REASONS.get(outcome) or _ALLOWED.get(by or "", "")
        if by == "plan":
            return self.row.calls[0].rule or by
        is_team = self.inbox.tells_people_apart
        votes = [each for each in (self.request.votes if self.request else ()) if each.approves is (verb == "approved")]
        names = " and ".join(map(self.inbox.name_of, votes)) or "an approver"
        return f"{verb} by {names if is_team else 'you'}"

    @property
    def what(self) -> str:
        """The call in a few words, with names in quotes."""
        call, request = self.row.calls[0], self.request
        if request is not None:
            return view.sentences(request.tool, request.preview).brief
        if len(self.row.calls) > 1:
            return f"Make {counted(len(self.row.calls), 'change')}"
        name = call.name or call.target or ""
        return f"{view.title(call.tool)} {quote(name, len(name)) if name else ''}".rstrip()

    @property
    def note(self) -> str:
        failed = [each for each in self.row.calls if each.group is OutcomeGroup.FAILED and each.outcome not in _WORDS]
        if any(each.group is OutcomeGroup.UNKNOWN for each in self.row.calls):
            return "It may have run. Look in Fastn before you repeat it."
        if self.outcome == "Not used":
            return "Approved, but the agent did not ask again in time."
        if self.request is not None and self.request.note:
            return f"Note: {quote(self.request.note, len(self.request.note))}"
        return failed[0].message or "" if failed else ""

    def view(self) -> View:
        call, outcome, asker = self.row.calls[0], self.outcome, self.request and self.request.asked_by
        if not asker and call.principal != "local":
            asker = without_issuers(who(call.principal or "", call.principal_name))
        bad = outcome in ("Failed", "Unknown") or outcome[0].isdecimal()
        return {
            "outcome": outcome,
            "kind": "bad" if bad else "tick" if outcome == "Done" else "none",
            "sign": _SIGNS.get(call.effect or "", ""),
            "what": view.parts(self.what),
            "who": [sanitize(each) for each in (asker, self.how) if each],
            "note": view.parts(self.note),
        }

    def details(self) -> View:
        """Return what only the page of the row shows."""
        call, request, change = self.row.calls[0], self.request, self.change
        entry = next((each for each in self.row.entries if each.get("arguments")), Entry())
        facts = {} if change is None else receipt(change)
        undo = " ".join(str(facts[name]) for name in ("restores", "lost", "why") if name in facts)
        known = {name: entry.get(name.lower()) for name in ("Account", "Environment", "Rule", "Target")}
        return {
            "says": request and view.sentences(request.tool, request.preview),
            "parts": view.parts,
            "tool": sanitize(call.tool),
            "arguments": [(sanitize(name), view.shown(each)) for name, each in mapping(entry.get("arguments")).items()],
            "facts": [(name, sanitize(str(value))) for name, value in known.items() if value],
            "changed": [
                (sanitize(name), [view.shown(each[side]) if side in each else "" for side in ("from", "to")])
                for name, each in ((name, mapping(each)) for name, each in mapping(facts.get("changed")).items())
            ],
            "undo": "It was undone." if change and change.undone else undo,
            "story": [(_clock(str(each.get("time"))), sanitize(_step(each))) for each in self.row.entries],
        }


def _step(entry: Entry) -> str:
    """Return what an entry says happened."""
    event, by = str(entry.get("event")), entry.get("approved_by")
    how = f"by {approver(str(by))}" if by and not entry.get("approver_name") else ""
    parts = (how, entry.get("approver_name"), entry.get("outcome"), entry.get("message"))
    return ": ".join([_EVENTS.get(event, sentence(event.replace("_", " "))), *(str(each) for each in parts if each)])


async def rows(inbox: Inbox, search: Search, cursor: str, now: float) -> View:
    """Return the template variables of a page of rows: the first one, or the one at the `cursor` of another."""
    upto, *before = cursor.split(",")
    starts = {tenant: int(n) for tenant, _, n in (each.partition(":") for each in before) if n.isdecimal()}
    pages, listed, problems = dict[str, LogPage](), list[tuple[str, Row, View]](), list[str]()
    async for account in inbox.accounts():
        tenant, limits = account.tenant, account.limits
        if limits is None or search.tenant not in ("", tenant) or (starts and tenant not in starts):
            continue
        wanted = partial(_is_wanted, inbox, tenant, search)
        try:
            page = await to_thread.run_sync(read_page, limits.audit, wanted, search, starts.get(tenant))
        except OSError as error:
            page = LogPage((), None, "", frozenset(), 0)
            problems.append(f"The audit log cannot be read ({os_reason(error)}). The rows are from the journal.")
        pages[tenant] = page
        for row in [*page.rows, *filter(wanted, await _journal(account, page, upto))]:
            listed.append((tenant, row, await _view(row, account, inbox, now)))
    # A row waits for the next page where rows of another tenant would be missing before it.
    cutoff = max((page.since for page in pages.values()), default="")
    shown = sorted((each for each in listed if each[1].time >= cutoff), key=lambda each: each[1].time, reverse=True)
    more = [cutoff]
    for tenant, page in pages.items():
        kept = [row.number for of, row, _ in shown if of == tenant and row.number]
        more.append(f"{tenant}:{page.before if page.since == cutoff else min(kept, default=starts.get(tenant, _END))}")
    return {
        "rows": [each for _, _, each in shown],
        "problems": problems,
        "more": ",".join(more) if cutoff else "",
        "back": _day(cutoff, now) if cutoff else "",
        "tenants": sorted(pages),
    }


async def row(inbox: Inbox, tenant: str, entry: int, change: str, now: float) -> View | None:
    """Return the template variables of one row, by its first entry or its change; None if they may not see it."""
    async for account in inbox.accounts():
        if account.tenant != tenant or account.limits is None:
            continue
        if entry:
            read = partial(read_page, account.limits.audit, lambda _: True, Search(), entry + 1, 1)
            page = await to_thread.run_sync(read)
            rows = [each for each in page.rows if each.number == entry and each.calls]
        else:
            known = await account.ledger.change(account.name or "", change)
            rows = [_of_journal(known)] if known else []
        for each in filter(partial(_is_wanted, inbox, tenant, Search()), rows):
            facts = await _facts(each, account, inbox, now)
            return _place(each, tenant, now) | facts.view() | facts.details()
    return None


def _is_wanted(inbox: Inbox, tenant: str, search: Search, row: Row) -> bool:
    effects = frozenset(call.effect or "" for call in row.calls)
    is_seen = not row.calls or inbox.sees_call(tenant, row.calls[0].principal or "", effects)
    return is_seen and search.matches(row)


async def _journal(account: InboxAccount, page: LogPage, upto: str) -> list[Row]:
    """Return the changes in the time of a page that are not in its log."""
    if account.name is None:
        return []
    since = _seconds(page.since, 0.0)
    changes = await account.ledger.changes(account.name, _MOST_CHANGES, _seconds(upto, inf))
    return [_of_journal(each) for each in changes if each.at >= since and each.id not in page.changes]


def _of_journal(change: Change) -> Row:
    operation = OPERATIONS.get(change.tool)
    call = Attempt(
        stamp(datetime.fromtimestamp(change.at, UTC)),
        change.tool,
        UNKNOWN if change.outcome == BEGUN else change.outcome,
        principal=change.principal,
        target=change.target,
        name=change.name,
        effect=operation.effect.value if operation else None,
        approved_by=change.approved_by.partition(":")[0] or None,
        change=change.id,
    )
    names = ("time", "tool", "target", "name", "principal")
    entry: Entry = {"event": "intent", "account": account_name(change.account), "arguments": {**change.arguments}}
    return Row(0, (call,), (entry | {name: getattr(call, name) for name in names},))


async def _facts(row: Row, account: InboxAccount, inbox: Inbox, now: float) -> _Facts:
    call, request, change = row.calls[0], None, None
    if call.grant:
        request = await account.ledger.find(call.grant.partition(".")[0])
    if call.change and len(row.calls) == 1:
        change = await account.ledger.change(account.name or "", call.change)
    return _Facts(row, inbox, now, request if request and account.has(request) else None, change)


async def _view(row: Row, account: InboxAccount, inbox: Inbox, now: float) -> View:
    return _place(row, account.tenant, now) | ((await _facts(row, account, inbox, now)).view() if row.calls else {})


def _place(row: Row, tenant: str, now: float) -> View:
    """Return when and where a row is."""
    at = {"entry": str(row.number)} if row.number else {"change": row.calls[0].change or ""}
    address = urlencode(({"tenant": tenant} if tenant else {}) | at)
    when = {"time": row.time, "clock": _clock(row.time), "day": _day(row.time, now)}
    return when | {"address": address, "tenant": tenant}


def _clock(time: str) -> str:
    return sanitize(time[11:16])


def _day(time: str, now: float) -> str:
    """Return a date in words: `Today, 28 November`, with the year where it is not this one."""
    day, today = datetime.fromtimestamp(_seconds(time, now), UTC).date(), datetime.fromtimestamp(now, UTC).date()
    first = {0: "Today", 1: "Yesterday"}.get((today - day).days, f"{day:%A}")
    return f"{first}, {day.day} {day:%B}{f' {day.year}' if day.year != today.year else ''}"


def _seconds(time: str, default: float) -> float:
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return default
