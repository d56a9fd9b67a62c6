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

MOST_ROWS = 50
MARGIN = 500
"""Entries on either side of a page that are read with it, since those of one call can lie apart."""
MOST_ENTRIES = 8_000
"""Entries after which a search ends and says how far it looked."""
_ENDINGS = ("expired", "withdrawn", "void", "stopped")
"""Ends of an approval request that a report does not tell apart."""
KINDS = {
    OutcomeGroup.DONE: "Done",
    OutcomeGroup.FAILED: "Failed or unknown",
    OutcomeGroup.UNKNOWN: "Failed or unknown",
    OutcomeGroup.WAITING: "Waiting or not used",
    OutcomeGroup.DECLINED: "Declined or expired",
    OutcomeGroup.REFUSED: "Refused",
}
EFFECTS = {"Cannot be undone": ("destroy", "trash"), "Gives access": ("access",), "Spends": ("spend",)}
_TEXTS = ("tool", "target", "name", "arguments", "message", "principal", "principal_name", "approver_name", "rule")


@dataclass(frozen=True, slots=True)
class Row:
    """One call, or the calls of one batch; none where lines of the log are damaged."""

    number: int
    """Number of its first entry, or of the one before the damage; 0 if it is in no log that is read here."""
    calls: Sequence[Attempt] = ()
    entries: Sequence[Entry] = ()
    """Those of the calls, or the last one before the damage."""

    @property
    def time(self) -> str:
        return self.calls[0].time if self.calls else str(self.entries[0].get("time", "")) if self.entries else ""


@dataclass(frozen=True, slots=True)
class Search:
    """Fields of the search form. An empty one does not restrict the rows. `until` is a date."""

    q: str = ""
    outcome: str = ""
    effect: str = ""
    until: str = ""
    tenant: str = ""

    def matches(self, row: Row) -> bool:
        """Whether a row fits. Damaged lines are shown where nothing is searched for."""
        if not row.calls:
            return self == Search(tenant=self.tenant)
        text = self.q.replace("_", " ").casefold().strip()
        kinds = {"Declined or expired" if call.outcome in _ENDINGS else KINDS.get(call.group) for call in row.calls}
        return (
            (not self.outcome or self.outcome in kinds)
            and (not self.effect or any(call.effect in EFFECTS.get(self.effect, ()) for call in row.calls))
            and (not self.until or row.time[:10] <= self.until)
            and (not text or any(text in _text_of(entry) for entry in row.entries))
        )

    def is_later(self, below: int | None) -> Callable[[Entry], bool] | None:
        """Return whether an entry lies too late to matter for the rows before entry `below`; None if none does."""
        if below is not None:
            return lambda entry: _number(entry) >= below + MARGIN
        # An hour more than the day, since a call can end after it.
        return (lambda entry: str(entry.get("time")) >= f"{self.until}T24:59") if self.until else None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some rows, newest first. Times are those of the log, in UTC."""

    rows: Sequence[Row]
    before: int | None
    """Number of the entry before which the log goes on; None if this reached its start."""
    since: str
    """Time of that entry, or empty."""
    changes: frozenset[str]
    """Ids of all changes of the log in this time."""
    read: int
    """Number of lines read."""


def read_page(
    log: Path, wanted: Callable[[Row], bool], search: Search, below: int | None = None, most: int = MOST_ROWS
) -> LogPage:
    """Read at most `most` rows of a log that are `wanted` and begin before entry `below`. Raises `OSError`.

    Reads until they are found, and at most `MOST_ENTRIES` lines.
    """
    lines = newest_first(log, search.is_later(below))
    entries, rows, oldest, size = list[Entry](), list[Row](), 0, (2 if below is None else 3) * MARGIN
    while True:
        block = [files.parsed(line) or {} for line in islice(lines, size)]
        entries += block
        is_start = len(block) < size
        # What begins among the oldest entries may have begun before them.
        numbers = [n for each in entries[:-MARGIN] if (n := _number(each))]
        oldest = 0 if is_start else min(numbers, default=0)
        joined = _rows(entries)
        rows = [row for row in joined if oldest <= row.number < (below or inf) and wanted(row)]
        if is_start or len(rows) > most or len(entries) >= MOST_ENTRIES:
            break
        size = MOST_ENTRIES - len(entries)
    before = rows[most - 1].number if len(rows) > most else None if is_start else oldest
    times = {_number(entry): str(entry.get("time", "")) for entry in entries}
    changes = frozenset(call.change for row in joined for call in row.calls if call.change)
    return LogPage(rows[:most], before, times.get(before or 0, ""), changes, len(entries))


class _Calls(Tally):
    """Calls, with what ended their approval requests."""

    def entry(self, line: Mapping[str, JsonValue]) -> None:
        super().entry(line)
        attempt, event = self._of_grant.get(str(line.get("grant"))), str(line.get("event"))
        if event in _ENDINGS and attempt is not None:
            self._update(attempt, line, event, str(line.get("message") or ""))


def _rows(entries: Sequence[Entry]) -> list[Row]:
    """Join entries, newest first, into rows, newest first. An empty entry is a damaged line."""
    calls, damaged, last, latest = _Calls(), dict[int, Row](), 0, Entry()
    for entry in reversed(entries):
        calls.entry(entry)
        last = _number(entry) or last
        if not entry:
            damaged[last] = Row(last, entries=(latest,))
        latest = entry or latest
    by_number = {_number(entry): entry for entry in entries}
    grouped: dict[int, list[Attempt]] = {}
    for call in calls.attempts:
        if call.audit:
            grouped.setdefault(call.audit[0].n, []).append(call)
    rows = [
        Row(number, each, [by_number[n] for n in dict.fromkeys(link.n for call in each for link in call.audit)])
        for number, each in grouped.items()
    ]
    return sorted([*rows, *damaged.values()], key=lambda row: row.number, reverse=True)


def _number(entry: Entry) -> int:
    n = entry.get("n")
    return n if isinstance(n, int) else 0


def _text_of(entry: Entry) -> str:
    """Return the text of an entry that is searched."""
    return " ".join(str(entry.get(name, "")) for name in _TEXTS).replace("_", " ").casefold()
