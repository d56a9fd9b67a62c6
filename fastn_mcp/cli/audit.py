"""`fastn-mcp audit`: read the audit log, rotated files included, verify that it is unchanged, report what was done."""

import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import anyio
import click
from typing_extensions import override

from fastn_mcp.audit.chain import FIRST_PREV, End, Report
from fastn_mcp.audit.log import FILE, recorded_time
from fastn_mcp.audit.log_copy import CopyComparison, StoredEntry, compare, stored
from fastn_mcp.audit.reader import AuditLog, Entry, LogFollower, following, parsed
from fastn_mcp.build.stores import audit_marks
from fastn_mcp.channels.terminal import wrapped
from fastn_mcp.cli.exit import WrongArgument
from fastn_mcp.cli.layout import CYAN, GREEN, ORANGE, columns_of, fit, say, tab_separated
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.config.paths import file_errors
from fastn_mcp.errors import FastnError
from fastn_mcp.ledger.identity import who
from fastn_mcp.records.formats import counted
from fastn_mcp.records.rows import parse_timestamp
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.report import writer
from fastn_mcp.report.collector import Tally
from fastn_mcp.runtime import System

_POLL_SECONDS = 0.5
_SEARCHED_ENTRIES = 200
"""Entries before the printed ones that `tail` searches for the names of targets."""


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """The log that the commands read, the setting of its ledger, and the command that reads this log at a shell."""

    log: AuditLog
    ledger: str | None
    program: CommandLine


@click.group(name="audit")
@click.option(
    "--file", type=click.Path(path_type=Path), help="Use this audit log instead of the one in your state folder."
)
@click.pass_context
def audit_group(ctx: click.Context, file: Path | None) -> None:
    """Read and verify the record of what was decided and sent.

    Rotated files in its folder are read too.
    """
    start: StartOptions = ctx.obj
    file_option = () if file is None else ("--file", str(file.absolute()))
    ctx.obj = AuditOptions(
        AuditLog(file or start.state() / FILE),
        start.ledger_settings().ledger,
        start.command_line().with_(("audit", *file_option)),
    )


@audit_group.command(name="tail")
@click.option("-n", "count", type=click.IntRange(0), default=20, show_default=True, help="Number of entries.")
@click.option("-f", "--follow", is_flag=True, help="Also print new entries as they are added, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.pass_obj
def tail_(options: AuditOptions, count: int, follow: bool, as_json: bool) -> None:
    """Print the newest entries, one line each, with times in UTC.

    On a terminal, targets have names and long lines are cut; audit show N prints all of an entry. In a pipe, lines are
    whole and tab-separated: n, time, event, principal, tool, target, name, decision, approved_by, outcome,
    duration_ms, message, principal_name.
    """
    log = options.log
    older = [file for file in log.files() if file != log.file]
    with closing(LogFollower(log.file)) as follower:
        newest = follower.lines()
        while older and len(newest) < count:
            newest[:0] = log.lines([older.pop()])
        first = max(0, len(newest) - count)
        _print_entries(
            parsed(newest[first:]), parsed(newest[max(0, first - _SEARCHED_ENTRIES) : first]), as_json=as_json
        )
        if follow:
            for line in following(follower.readline, lambda: time.sleep(_POLL_SECONDS)):
                _print_entries(parsed([line]), as_json=as_json)


@audit_group.command(name="show", short_help="Show one entry in full, and the other entries of its call.")
@click.argument("entry")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.pass_obj
def show_(options: AuditOptions, entry: str, as_json: bool) -> None:
    """Show one entry in full, by its number, and the other entries of its call."""
    call = options.log.with_related(entry)
    if call is None:
        raise WrongArgument(f"There is no entry {entry} in {options.log.file}.")
    selected, others = call
    if as_json:
        _print_entries([selected, *others], as_json=True)
        return
    columns = columns_of()
    for name, value in selected.items():
        text = sanitize(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        if columns is not None:
            text = wrapped(text, columns - _VALUE, indent=0)
        indented = text.replace("\n", "\n" + " " * _VALUE)
        click.echo(f"{name:>12}  {indented}")
    if others:
        click.echo("\nOther entries of the same call:")
        _print_entries(others, [selected])


def _print_entries(entries: Iterable[Entry], earlier: Iterable[Entry] = (), *, as_json: bool = False) -> None:
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry))
        return
    for line, color in _entry_lines(entries, columns_of(), earlier):
        click.secho(line, fg=color)


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

_WIDE = 100
"""Columns from which the full time is shown."""

_NARROW = 72
"""Columns below which an entry takes a second line."""


def _entry_lines(
    entries: Iterable[Entry], columns: int | None, earlier: Iterable[Entry] = ()
) -> Iterator[tuple[str, int | None]]:
    """Render entries, each line with its color. `earlier` ones are only searched for the names of targets."""
    entries = [*entries]
    if columns is None:
        yield from ((tab_separated(_field(entry, name) for name in TAIL_COLUMNS), None) for entry in entries)
        return
    named = (entry for entry in (*earlier, *entries) if entry.get("target") and entry.get("name"))
    names = {_field(entry, "target"): _field(entry, "name") for entry in named}
    for entry in entries:
        name = names.get(_field(entry, "target"), "")
        color = _COLORS.get(_field(entry, "event"))
        yield from ((line, color) for line in row(entry, _field(entry, "name") or name, columns))


def row(entry: Entry, name: str, columns: int) -> list[str]:
    """Render an entry within `columns`. Number, time and event are never cut; `name` is the name of its target."""
    time = _field(entry, "time")
    shown_time = f"{time[:10]} {time[11:19]}Z" if columns >= _WIDE else f"{time[5:10]} {time[11:16]}"
    head = f"{_field(entry, 'n'):>4} {sanitize(shown_time)}  {sanitize(_field(entry, 'event')):<9}  "
    about = quote(name, len(name)) if name else sanitize(_field(entry, "target"))
    subject = f"{sanitize(_field(entry, 'tool'))} {about}".rstrip()
    summary = sanitize(_summary(entry))
    remaining = columns - len(head)
    if columns >= _NARROW:
        return [head + fit(_fit_quoted(subject, remaining * 3 // 5) + "  " + summary, remaining).rstrip()]
    lines = [head + _fit_quoted(subject, remaining), fit(f"     {summary}", columns)]
    return [line for line in map(str.rstrip, lines) if line]


def _fit_quoted(text: str, width: int) -> str:
    """Fit a text with a quoted name at its end, so that the quotation mark closes where the name is cut."""
    fitted = fit(text, width)
    is_cut = text.endswith('"') and not fitted.rstrip().endswith('"')
    return fit(f'{fit(text, width - 1).rstrip()}"', width) if is_cut else fitted


def _summary(entry: Entry) -> str:
    """Summarize an entry: decision, approved_by, outcome, duration, message, and who decided and asked, if not
    `local`."""
    event = _field(entry, "event")
    outcome = _field(entry, "outcome")
    took = entry.get("duration_ms")
    principal = _field(entry, "principal")
    approver = _field(entry, "approver")
    parts = (
        ", ".join(filter(None, (_field(entry, "decision"), _field(entry, "approved_by")))),
        outcome if outcome != event else "",
        f"{took:.0f} ms" if isinstance(took, (int, float)) else "",
        _field(entry, "message"),
        f"by {who(approver, _field(entry, 'approver_name'))}" if approver else "",
        f"for {who(principal, _field(entry, 'principal_name'))}" if principal != "local" else "",
    )
    return " ".join(filter(None, parts))


def _field(entry: Entry, field: str) -> str:
    value = entry.get(field)
    return "" if value is None else str(value)


# --- verify ------------------------------------------------------------------------------------------------------


@audit_group.command(name="verify")
@click.option("--head", metavar="HASH", help="The head hash that you saved elsewhere.")
@click.argument("copies", metavar="[COPY]...", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def verify_(options: AuditOptions, head: str | None, copies: tuple[Path, ...]) -> None:
    """Check the hash chain over all files, and against the ledger. Exit code 0 if it is intact, 1 otherwise.

    With COPY, also compare the log with its copy: files in which a collector stored it (OTLP as JSON lines), or copied
    log files. No entry may be missing, altered or added on either side. Duplicate entries are allowed.
    """
    log = options.log
    exported = log.exported() if copies else None  # before the copy, and that before the log: neither looks older
    there = [entry for file in copies for entry in _stored(file)]
    if head is not None and re.fullmatch("[0-9a-f]{64}", head) is None:
        raise click.BadParameter("a hash is 64 of the characters 0-9 and a-f", param_hint="--head")
    marks: tuple[End | None, End | None] = (None, None)
    ledger_error: str | None = None
    try:
        # Before the log, so that entries added meanwhile are only in the log.
        logging.getLogger("fastn_mcp").addHandler(logging.NullHandler())  # the error below says it
        marks = anyio.run(audit_marks, options.ledger, log.file, System())
    except FastnError as error:
        ledger_error = str(error)
    if marks[0] is None:
        log.files()
    report = log.verify(head, *marks)
    say(*_finding_lines(report, head, marks[0], options.program))
    if ledger_error is not None:
        say(f"Whether entries were cut off at the end is unknown. {ledger_error}", err=True)
    intact = report.broken is None and not report.shortened and (head is None or report.noted is not None)
    if copies:
        comparison = compare(log.lines(log.files()), there, exported)
        say(*_comparison_lines(comparison))
        intact = intact and comparison.is_proven
    sys.exit(0 if intact and ledger_error is None else 1)


def _stored(file: Path) -> Iterator[StoredEntry]:
    try:
        yield from stored(AuditLog(file).lines([file]))
    except ValueError:
        raise WrongArgument(f"{file} has a line that is neither OTLP as JSON nor an audit entry.") from None


_MAX_LISTED = 5
"""Findings of one kind that are listed; the rest are counted."""


def _finding_lines(report: Report, head: str | None, newest: End | None, program: CommandLine) -> Iterator[str]:
    if report.broken is not None:
        yield f"Broken at {_place(report, report.broken.line)}: {report.broken.problem}."
        yield f"The {report.entries} entries before it are unchanged; later ones cannot be relied on."
    elif head is not None and report.noted is None:
        yield "Broken: no entry has the hash that you saved. Entries were cut off, or all were rewritten."
    elif report.shortened:
        yield f"Broken: the log was emptied or shortened before entry {', '.join(map(str, report.shortened))}."
        show = program.to("show", str(report.shortened[0]))
        yield f"{show} names the missing entries. The remaining entries are unchanged."
    else:
        files = f" in {len(report.files)} files" if len(report.files) > 1 else ""
        yield f"Intact: {report.entries - report.deleted} entries{files}. Head: {report.head}"
    if report.deleted:
        yield f"Entries 1 to {report.deleted} were deleted by the retention setting, as the ledger knows."
    if report.noted is not None:
        at = "the beginning" if head == FIRST_PREV else f"entry {report.noted}"
        yield f"The hash that you saved belongs to {at}; {report.entries - report.noted} came after it."
    if report.broken is None and newest is not None and newest.n:
        yield f"Entry {newest.n} matches the ledger."
    elif report.broken is None and head is None:
        yield "Entries removed from the end cannot be detected. Keep the head elsewhere; verify with --head HASH."
    torn = [
        f"L{_place(report, line)[1:]} is unfinished: its process ended, or the disk was full. The call was not sent."
        for line in report.torn
    ]
    yield from _limited("more lines are unfinished", torn)
    unfinished = [
        f"Entry {entry} has no outcome: the call is under way, or its process ended first. Check in Fastn whether it"
        f" was made; {program.to('show', str(entry))} shows the call."
        for entry in report.unfinished
    ]
    yield from _limited("more entries have none", unfinished)


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


_COMPARISONS = {
    "same": "Identical in the copy: {}.",
    "missing": "Missing from the copy: {}. They were lost there, or written after the copy was made.",
    "different": "Different in the copy: {}. Each side is intact by itself, so one of them was rewritten.",
    "extra": "In the copy but missing here: {}. They were cut off or removed here.",
    "deleted": "In the copy and older than this log: {}.",
    "waiting": "Not exported yet: {}.",
}
"""Sentences about the entries of each field of a comparison."""


def _comparison_lines(copy: CopyComparison) -> Iterator[str]:
    if not copy.same:
        yield "The copy has no entry of this log."
    for name, sentence in _COMPARISONS.items():
        numbers = getattr(copy, name)
        if numbers:
            yield sentence.format(_numbers(numbers))
    if copy.altered:
        yield f"Altered in the copy: {counted(copy.altered, 'record')} of this log."
    if copy.repeated:
        yield f"{counted(copy.repeated, 'record')} arrived more than once, which is fine."
    if copy.others:
        yield f"The copy has other logs too: {', '.join(quote(name) for name in copy.others)}."


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
    return f"{'entry' if len(numbers) == 1 else 'entries'} {', '.join(ranges)}{more}"


# --- report ------------------------------------------------------------------------------------------------------


class Since(click.ParamType[datetime]):
    """A timestamp, or an age such as 24h."""

    name = "when"
    _unit_seconds: ClassVar = {"m": 60, "h": 3_600, "d": 86_400}

    @override
    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        ago = re.fullmatch(r"(\d{1,5})([mhd])", value)
        if ago:
            return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * self._unit_seconds[ago[2]])
        return parse_timestamp(value) or self.fail("not a time such as 24h, 7d or 2026-11-25T09:00", param, ctx)


@audit_group.command(name="report", short_help="Report what was done, refused, declined or unknown.")
@click.option(
    "--since", type=Since(), help="Start at WHEN, for example 24h, 7d, 2026-11-25 or 2026-11-25T09:00 (UTC by default)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write FILE as JSON, and a readable copy as FILE.md.",
)
@click.pass_obj
def report_(options: AuditOptions, since: datetime | None, as_json: bool, output: Path | None) -> None:
    """Report what was done, refused, declined or unknown, from the audit log alone."""
    tally = Tally()
    for entry in options.log.entries():
        tally.entry(entry)
    newer = [a for a in tally.attempts if since is None or (a.settled or a.time) >= recorded_time(since)]
    accounts = ", ".join(dict.fromkeys(attempt.account for attempt in newer if attempt.account))
    about = writer.About(accounts, None, None, str(options.log.file))
    report = writer.document(about, newer, None, head=tally.head, began=since, ended=datetime.now(UTC))
    if output is not None:
        writer.check(output)
        with file_errors(output, "written"):
            writer.write(output, report)
    elif as_json:
        click.echo(json.dumps(report, indent=2))
    elif columns_of() is None:
        click.echo(writer.markdown(report), nl=False)
    else:
        say(*writer.lines(report))
