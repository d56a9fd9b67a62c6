"""Rows of the place Activity: calls joined from the entries of an audit log, read from its end, page by page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from pathlib import Path

from pydantic import JsonValue

from fastn_mcp.audit import files
from fastn_mcp.audit.reader import Entry, newest_first
from fastn_mcp.report.collector import Attempt, OutcomeGroup, Tally

MAX_ROWS = 50
CONTEXT_ENTRIES = 500
"""Entries on either side of a page that are read with it, since those of one call can lie apart."""
MAX_ENTRIES = 8_000
"""Entries after which a search ends and says how far it looked."""
ENDINGS = ("expired", "withdrawn", "void", "stopped", "allowed_again")
"""Events that end an approval request, or changes, and that a report does not tell apart."""
STOP = "stop"
"""In place of a tool, where a person stopped changes or allowed them again."""
OUTCOMES: Mapping[str, tuple[OutcomeGroup | str, ...]] = {
    "Done": (OutcomeGroup.DONE,),
    "Failed or unknown": (OutcomeGroup.FAILED, OutcomeGroup.UNKNOWN),
    "Waiting or not used": (OutcomeGroup.WAITING,),
    "Declined or expired": (OutcomeGroup.DECLINED, *ENDINGS),
    "Refused": (OutcomeGroup.REFUSED,),
}
EFFECTS = {"Cannot be undone": ("destroy", "trash"), "Gives access": ("access",), "Spends": ("spend",)}
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
            and (not self.outcome or ends.intersection(OUTCOMES.get(self.outcome, ())))
            and (not self.effect or any(call.effect in EFFECTS.get(self.effect, ()) for call in row.calls))
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
    entries, size = list[Entry](), (2 if below is None else 3) * CONTEXT_ENTRIES
    while True:
        block = [files.parsed(line) or {} for line in islice(lines, size)]
        entries += block
        is_start, joined = len(block) < size, _rows(entries)
        # What begins among the oldest entries may have begun before them.
        oldest = 0 if is_start else min((n for each in entries[:-CONTEXT_ENTRIES] if (n := _number(each))), default=0)
        rows = [row for row in joined if oldest <= row.number < (below or inf) and wanted(row)]
        if is_start or len(rows) > most or len(entries) >= MAX_ENTRIES:
            break
        size = MAX_ENTRIES - len(entries)
    before = rows[most - 1].number if len(rows) > most else None if is_start else oldest
    times = {_number(each): str(each.get("time", "")) for each in entries if _number(each) in (before, below)}
    changes = frozenset(call.change for row in joined for call in row.calls if call.change)
    return LogPage(rows[:most], before, times.get(before or 0, ""), times.get(below or 0, ""), changes, len(entries))


class _Calls(Tally):
    """Calls, with what ended their approval requests."""

    def entry(self, line: Mapping[str, JsonValue]) -> None:
        super().entry(line)
        attempt, event = self._of_grant.get(str(line.get("grant"))), str(line.get("event"))
        if line.get("tool") == STOP:
            attempt = self._begin(line)
        if attempt is not None and event in ENDINGS:
            self._update(attempt, line, event, str(line.get("message") or ""))


def _rows(entries: Sequence[Entry]) -> list[Row]:
    """Join entries, newest first, into rows, newest first. An empty entry is a damaged line."""
    calls, rows, latest = _Calls(), list[Row](), Entry()
    for entry in reversed(entries):
        calls.entry(entry)
        if not entry and not (rows and rows[-1].entries[0] is latest):
            rows.append(Row(_number(latest), (), (latest,)))
        latest = entry or latest
    by_number, grouped = {_number(entry): entry for entry in entries}, dict[int, list[Attempt]]()
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
