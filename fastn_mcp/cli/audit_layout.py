"""Text of `fastn-mcp audit`: entries, the result of a verification, the comparison with a copy, the report."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastn_mcp.audit.chain import FIRST_PREV, End, Report
from fastn_mcp.audit.reader import Entry
from fastn_mcp.audit.remote import CopyComparison
from fastn_mcp.channels.terminal import wrapped
from fastn_mcp.cli.layout import CYAN, GREEN, ORANGE, fit, tab_separated
from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.ledger.identity import who
from fastn_mcp.records.formats import counted
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.report.collector import OutcomeGroup
from fastn_mcp.report.writer import caller

_MAX_LISTED = 5
"""Findings of one kind that are listed; the rest are counted."""

_COLORS = {
    **dict.fromkeys(("refused", "declined", "withdrawn", "expired"), ORANGE),
    "intent": CYAN,
    "approved": GREEN,
}

_VALUE = 14
"""Column at which `audit show` prints values."""

TAIL_COLUMNS = (
    *("n", "time", "event", "principal", "tool", "target", "name", "decision", "approved_by", "outcome"),
    *("duration_ms", "message", "principal_name"),
)
"""Fields of a tab-separated line of `audit tail`, in order; empty if an entry does not have one."""

_WIDE, _NARROW = 100, 72
"""Columns from which the full time is shown, and below which an entry takes a second line."""


def entry_lines(
    entries: Iterable[Entry], columns: int | None, earlier: Iterable[Entry] = ()
) -> Iterator[tuple[str, int | None]]:
    """Render entries, each line with its color. `earlier` ones are only searched for the names of targets."""
    names: dict[object, str] = {}
    for entry in earlier:
        _record_name(names, entry)
    for entry in entries:
        _record_name(names, entry)
        if columns is None:
            yield tab_separated(_field(entry, name) for name in TAIL_COLUMNS), None
        else:
            color = _COLORS.get(str(entry.get("event")))
            yield from ((line, color) for line in row(entry, names.get(entry.get("target")), columns))


def row(entry: Entry, name: str | None, columns: int) -> list[str]:
    """Render an entry within `columns`. Number, time and event are never cut; `name` is the name of its target."""
    time = _field(entry, "time")
    shown_time = f"{time[:10]} {time[11:19]}Z" if columns >= _WIDE else f"{time[5:10]} {time[11:16]}"
    head = f"{_field(entry, 'n'):>4} {sanitize(shown_time)}  {sanitize(_field(entry, 'event')):<9}  "
    about = quote(name, len(name)) if name else sanitize(_field(entry, "target"))
    subject = f"{sanitize(_field(entry, 'tool'))} {about}".rstrip()
    summary = sanitize(_summary(entry))
    remaining = columns - len(head)
    if columns < _NARROW:
        return [
            head + _fit_quoted(subject, remaining).rstrip(),
            *([fit(f"     {summary}", columns).rstrip()] if summary else []),
        ]
    return [head + fit(_fit_quoted(subject, remaining * 3 // 5) + "  " + summary, remaining).rstrip()]


def _fit_quoted(text: str, width: int) -> str:
    """Fit a text with a quoted name at its end, so that the quotation mark closes where the name is cut."""
    fitted = fit(text, width)
    is_cut = text.endswith('"') and not fitted.rstrip().endswith('"')
    return fit(f'{fit(text, width - 1).rstrip()}"', width) if is_cut else fitted


def _summary(entry: Entry) -> str:
    """Summarize an entry: decision, approved_by, outcome, duration, message, and who decided and asked, if not
    `local`."""
    event, outcome, took = _field(entry, "event"), _field(entry, "outcome"), entry.get("duration_ms")
    principal, approver = _field(entry, "principal"), _field(entry, "approver")
    parts = (
        ", ".join(filter(None, (_field(entry, "decision"), _field(entry, "approved_by")))),
        outcome if outcome != event else "",
        f"{took:.0f} ms" if isinstance(took, (int, float)) else "",
        _field(entry, "message"),
        f"by {who(approver, _field(entry, 'approver_name'))}" if approver else "",
        f"for {who(principal, _field(entry, 'principal_name'))}" if principal != "local" else "",
    )
    return " ".join(filter(None, parts))


def _record_name(names: dict[object, str], entry: Entry) -> None:
    if isinstance(name := entry.get("name"), str) and isinstance(target := entry.get("target"), str):
        names[target] = name


def _field(entry: Entry, field: str) -> str:
    value = entry.get(field)
    return "" if value is None else str(value)


def show_lines(entry: Entry, columns: int | None) -> Iterator[str]:
    for name, value in entry.items():
        text = sanitize(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        if columns is not None:
            text = wrapped(text, columns - _VALUE, indent=0)
        yield f"{name:>12}  {text.replace(chr(10), chr(10) + ' ' * _VALUE)}"


def finding_lines(report: Report, head: str | None, newest: End | None, program: CommandLine) -> Iterator[str]:
    if report.broken is not None:
        yield f"Broken at {_place(report, report.broken.line)}: {report.broken.problem}."
        yield f"The {report.entries} entries before it are unchanged; later ones cannot be relied on."
    elif head is not None and report.noted is None:
        yield "Broken: no entry has the hash that you noted. Entries were cut off, or all were rewritten."
    elif report.shortened:
        yield f"Broken: the log was emptied or shortened before entry {', '.join(map(str, report.shortened))}."
        show = program.to("show", str(report.shortened[0]))
        yield f"{show} says what is missing. The remaining entries are unchanged."
    else:
        files = f" in {len(report.files)} files" if len(report.files) > 1 else ""
        yield f"Intact: {report.entries - report.deleted} entries{files}. Head: {report.head}"
    if report.deleted:
        yield f"Entries 1 to {report.deleted} were deleted by the retention setting, as the ledger knows."
    if report.noted is not None:
        at = "the beginning" if head == FIRST_PREV else f"entry {report.noted}"
        yield f"The hash that you noted is that of {at}; {report.entries - report.noted} came after it."
    if report.broken is None and newest is not None and newest.n:
        yield f"The ledger knows entry {newest.n}, which is unchanged."
    elif report.broken is None and head is None:
        yield "Entries removed from the end cannot be detected. Keep the head elsewhere; verify with --head HASH."
    yield from _limited("more lines are unfinished", [
        f"L{_place(report, line)[1:]} is unfinished: its process ended, or the disk was full. Nothing was sent on its"
        " account."
        for line in report.torn
    ])  # fmt: skip
    yield from _limited("more entries have none", [
        f"Entry {entry} has no outcome: the call is under way, or its process ended first. Look in Fastn whether it was"
        f" made; {program.to('show', str(entry))} names it."
        for entry in report.unfinished
    ])  # fmt: skip


def _limited(more: str, lines: list[str]) -> Iterator[str]:
    yield from lines[:_MAX_LISTED]
    if len(lines) > _MAX_LISTED:
        yield f"{len(lines) - _MAX_LISTED} {more}."


def _place(report: Report, line: int) -> str:
    """Convert a line number over all files into the file and the line in it."""
    if len(report.files) < 2:
        return f"line {line}"
    for name, count in report.files:
        if line <= count:
            return f"line {line} of {name}"
        line -= count
    return f"the end of {report.files[-1][0]}"


def comparison_lines(copy: CopyComparison) -> Iterator[str]:
    if not copy.same:
        yield "The copy has no entry of this log."
    else:
        yield f"{_numbers(copy.same)} {_are(copy.same)} the same in the copy."
    if copy.missing:
        yield f"Missing in the copy: {_numbers(copy.missing)}. Lost there, or written after the copy was made."
    if copy.altered:
        yield f"Altered in the copy: {counted(copy.altered, 'record')} of this log."
    if copy.different:
        yield f"Different: {_numbers(copy.different)}. Both sides are intact in themselves: one of them was rewritten."
    if copy.extra:
        yield f"Missing here: {_numbers(copy.extra)}, which the copy has. They were cut off or removed here."
    if copy.deleted:
        yield f"{_numbers(copy.deleted)}, with which this log does not begin, {_are(copy.deleted)} in the copy."
    if copy.waiting:
        yield f"{_numbers(copy.waiting)} {_are(copy.waiting)} not exported yet."
    if copy.repeated:
        yield f"{counted(copy.repeated, 'record')} arrived more than once, which is fine."
    if copy.others:
        yield f"The copy has other logs too: {', '.join(quote(name) for name in copy.others)}."


def _are(numbers: Sequence[int]) -> str:
    return "is" if len(numbers) == 1 else "are"


def _numbers(numbers: Sequence[int]) -> str:
    """Name entries by their numbers, consecutive ones as a range."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    ranges = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:_MAX_LISTED]]
    more = f" and {len(runs) - _MAX_LISTED} more" if len(runs) > _MAX_LISTED else ""
    return f"{'Entry' if len(numbers) == 1 else 'Entries'} {', '.join(ranges)}{more}"


def report_lines(report: dict[str, Any], headings: Mapping[OutcomeGroup, str]) -> Iterator[str]:
    """Render a report for a terminal: a few lines per call, in place of Markdown tables."""
    began = f"{report['began']} to" if report["began"] else "up to"
    yield f"{report['account']}, {began} {report['ended']}"
    yield ", ".join(f"{count} {group.value}" for group in headings if (count := report["counts"][group.value]))
    for group, heading in headings.items():
        if calls := report["calls"][group.value]:
            yield from ("", f"{heading} ({len(calls)})")
        for call in calls:
            about = " ".join(filter(None, (call["tool"], call["target"]["name"] or call["target"]["id"])))
            newest = f"audit {call['audit'][-1]['n']}" if call["audit"] else ""
            requests = "" if call["requests"] is None else f"requests {call['requests']}"
            facts = (caller(call), call["approved_by"], call["rule"], call["change_id"], requests, newest)
            yield f"  {call['number']}. {about}, {str(call['time']).replace('T', ' ')[:19]}Z"
            yield f"     {': '.join(filter(None, (call['outcome'], call['message'])))}"
            yield f"     {'; '.join(filter(None, facts))}"
