"""`fastn-mcp audit`: read the audit log, rotated files included, and verify that it is unchanged."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import anyio
import click
from pydantic import JsonValue

from fastn_mcp.audit import files as audit_files
from fastn_mcp.audit import log as audit
from fastn_mcp.audit.chain import BEGINNING, End, Report
from fastn_mcp.audit.outbox import Outbox
from fastn_mcp.audit.remote import CopyComparison, StoredEntry, compare, stored
from fastn_mcp.build.ledger import audit_name, file_of, ledger_at
from fastn_mcp.channels.terminal import wrapped
from fastn_mcp.cli import StartOptions
from fastn_mcp.cli.layout import columns_of, fit, say, tab_separated
from fastn_mcp.config.addresses import is_shared
from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.ledger.identity import who
from fastn_mcp.records.formats import counted
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.runtime import System

if TYPE_CHECKING:
    from fastn_mcp.report.collector import OutcomeGroup

_PAUSE = 0.5
_NAMED = 5
"""Findings of one kind that are listed; the rest are counted."""

_COLORS = {"refused": "yellow", "declined": "yellow", "expired": "yellow", "intent": "cyan", "approved": "green"}

_EARLIER = 200
"""Entries before the shown ones that `tail` searches for the names of targets."""

_VALUE = 14
"""Column at which `audit show` prints values."""

Entry = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class AuditLog:
    """An audit log, and the setting of the ledger that records its newest entry."""

    file: Path
    ledger: str | None
    program: CommandLine
    """Command that reads this log at a shell."""

    def files(self) -> list[Path]:
        """Return the files of the log, oldest first. Raises `SettingsError` if there are none."""
        with self._readable():
            found = audit_files.log_files(self.file)
        if not found:
            begins = "It begins with the first call that changes something."
            raise SettingsError(f"There is no audit log at {self.file}.", begins)
        return found

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, oldest first. Raises `SettingsError` if the log is missing or cannot be read."""
        yield from _parsed(self.lines(self.files()))

    def lines(self, files: Iterable[Path]) -> Iterator[bytes]:
        with self._readable():
            yield from audit_files.lines_of(files)

    @contextmanager
    def _readable(self) -> Generator[None]:
        try:
            yield
        except (OSError, EOFError) as error:
            raise SettingsError(f"{self.file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None

    def exported(self) -> int | None:
        """Return the number of the newest exported entry; None if nothing was exported from here."""
        outbox = Outbox(self.file)
        with self._readable():
            return outbox.sent().n if outbox.file.exists() else None

    def verified(self, head: str | None, marks: "tuple[End | None, End | None]") -> Report:
        with self._readable():
            return audit_files.verify(self.file, head, *marks)

    def marks(self) -> tuple[End | None, End | None]:
        """Return the newest entry in the ledger, and the newest that retention deleted. Raises `FastnError`."""
        folder = self.file.parent
        if self.file.name != audit.FILE or not (is_shared(self.ledger) or file_of(self.ledger, folder).exists()):
            return None, None

        async def read() -> list[tuple[int, str] | None]:
            ledger = ledger_at(self.ledger, folder, System())
            name = audit_name(self.ledger, folder)
            try:
                return [await ledger.audit_mark(each) for each in (name, audit.deleted_name(name))]
            finally:
                await ledger.aclose()

        newest, deleted = (None if mark is None else End(*mark) for mark in anyio.run(read))
        return newest, deleted


@click.group(name="audit")
@click.option("--file", type=click.Path(path_type=Path), help="An audit log other than the one in your state folder.")
@click.pass_context
def audit_group(ctx: click.Context, file: Path | None) -> None:
    """Read and verify the record of what was decided and sent.

    Rotated files that lie beside the log are read with it.
    """
    start: StartOptions = ctx.obj
    file_option = () if file is None else ("--file", str(file.absolute()))
    ctx.obj = AuditLog(
        file or start.state() / audit.FILE,
        start.ledger_settings().ledger,
        start.command_line().with_(("audit", *file_option)),
    )


@audit_group.command(name="tail")
@click.option("-n", "count", type=click.IntRange(0), default=20, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Follow new entries until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.pass_obj
def tail_(log: AuditLog, count: int, follow: bool, as_json: bool) -> None:
    """The newest entries, one line each, with times in UTC.

    A terminal shows the name of what a call is about, and cuts what does not fit: audit show N has all of it. A pipe
    gets whole lines, tab-separated: n, time, event, principal, tool, target, name, decision, approved_by, outcome,
    duration_ms, message, principal_name.
    """
    older = [file for file in log.files() if file != log.file]
    with closing(LogFollower(log.file)) as follower:
        newest = follower.lines()
        while older and len(newest) < count:
            newest[:0] = log.lines([older.pop()])
        first = max(0, len(newest) - count)
        shown = _parsed(newest[first:])
        if as_json:
            _print_json(shown)
        else:
            _print_entries(shown, _parsed(newest[max(0, first - _EARLIER) : first]))
        if follow:
            for line in following(follower.readline, lambda: time.sleep(_PAUSE)):
                (_print_json if as_json else _print_entries)(_parsed([line]))


class LogFollower:
    """Reads the lines appended to a log, across its rotation."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._file: BinaryIO | None = None
        self._open()

    def _open(self) -> None:
        self.close()
        self._file = None
        with suppress(FileNotFoundError):  # rotated, and nothing was written since
            self._file = self._log.open("rb")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def lines(self) -> list[bytes]:
        """Return the complete lines. A last line without a line break is still being written."""
        if self._file is None:
            return []
        data = self._file.read()
        end = data.rfind(b"\n") + 1
        self._file.seek(end)
        return data[:end].splitlines(keepends=True)

    def readline(self) -> bytes:
        """Return the next line, or the part of it that is written; empty if there is none yet."""
        line = b"" if self._file is None else self._file.readline()
        if not line:
            with suppress(FileNotFoundError):  # rotated away: the open file may still grow
                if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), self._log.stat()):
                    self._open()
        return line


def following(readline: Callable[[], bytes], pause: Callable[[], object]) -> Iterator[bytes]:
    """Yield each appended line once it is complete, until `pause` raises."""
    partial_line = b""
    while True:
        partial_line += readline()
        if partial_line.endswith(b"\n"):
            yield partial_line
            partial_line = b""
        else:
            pause()


@audit_group.command(name="show", short_help="One entry in full, and the others of the same call.")
@click.argument("entry")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.pass_obj
def show_(log: AuditLog, entry: str, as_json: bool) -> None:
    """All of one entry, by its number, and what belongs to the same call."""
    found = list(log.entries())
    selected = next((e for e in found if str(e.get("n")) == entry), None)
    if selected is None:
        raise click.ClickException(f"There is no entry {entry} in {log.file}.")
    others = [e for e in found if e is not selected and _is_same_call(selected, e)]
    if as_json:
        _print_json([selected, *others])
        return
    columns = columns_of()
    for name, value in selected.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        shown = sanitize(text)
        if columns is not None:
            shown = wrapped(shown, columns - _VALUE, indent=0)
        click.echo(f"{name:>12}  {shown.replace(chr(10), chr(10) + ' ' * _VALUE)}")
    if others:
        click.echo("\nOf the same call:")
        _print_entries(others, [selected])


@audit_group.command(name="verify")
@click.option("--head", metavar="HASH", help="The head hash that you noted elsewhere.")
@click.option(
    "--remote",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="A file in which a collector stored this log: OTLP as JSON lines. Repeatable.",
)
@click.pass_obj
def verify_(log: AuditLog, head: str | None, remote: tuple[Path, ...]) -> None:
    """Check the chain over all files, and with what the ledger knows. Exit code 0 where it is intact, 1 otherwise.

    With --remote also compare it with the copy that it was exported to: nothing missing, altered or added on either
    side. An entry that arrived twice is fine.
    """
    exported = log.exported() if remote else None  # before the copy, and that before the log: neither looks older
    there = [entry for file in remote for entry in _stored(file)]
    if head is not None and re.fullmatch("[0-9a-f]{64}", head) is None:
        raise click.BadParameter("a hash is 64 of the characters 0-9 and a-f", param_hint="--head")
    marks: tuple[End | None, End | None] = (None, None)
    ledger_error: str | None = None
    try:
        marks = log.marks()  # before the log, so that entries added meanwhile are only in the log
    except FastnError as error:
        ledger_error = str(error)
    if marks[0] is None:
        log.files()
    report = log.verified(head, marks)
    say("\n".join(_findings(report, head, marks[0], log.program)))
    if ledger_error is not None:
        say(f"Whether entries were cut off at the end is not known. {ledger_error}", err=True)
    intact = report.broken is None and not report.shortened and (head is None or report.noted is not None)
    if remote:
        compared = compare(log.lines(log.files()), there, exported)
        say("\n".join(_compared(compared)))
        intact = intact and compared.is_proven
    sys.exit(0 if intact and ledger_error is None else 1)


def _stored(file: Path) -> Iterator[StoredEntry]:
    try:
        yield from stored(audit_files.lines_of([file]))
    except (OSError, EOFError) as error:
        raise click.ClickException(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    except ValueError:
        raise click.ClickException(f"{file} has a line that is neither OTLP as JSON nor an audit entry.") from None


def _compared(found: CopyComparison) -> Iterator[str]:
    """Say how the log and its copy compare."""
    if not found.same:
        yield "The copy has no entry of this log."
    else:
        yield f"{_numbers(found.same)} {_are(found.same)} the same in the copy."
    if found.missing:
        yield f"Missing in the copy: {_numbers(found.missing)}. Lost there, or written after the copy was made."
    if found.altered:
        yield f"Altered in the copy: {counted(found.altered, 'record')} of this log."
    if found.different:
        yield f"Different: {_numbers(found.different)}. Both sides are intact in themselves: one of them was rewritten."
    if found.extra:
        yield f"Missing here: {_numbers(found.extra)}, which the copy has. They were cut off or removed here."
    if found.deleted:
        yield f"{_numbers(found.deleted)}, with which this log does not begin, {_are(found.deleted)} in the copy."
    if found.waiting:
        yield f"{_numbers(found.waiting)} {_are(found.waiting)} not exported yet."
    if found.repeated:
        yield f"{counted(found.repeated, 'record')} arrived more than once, which is fine."
    if found.others:
        yield f"The copy has other logs too: {', '.join(quote(name) for name in found.others)}."


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
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:_NAMED]]
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    return f"{'Entry' if len(numbers) == 1 else 'Entries'} {', '.join(shown)}{more}"


@audit_group.command(name="report", short_help="What was done, refused, declined and left open.")
@click.option("--since", metavar="WHEN", help="As 24h, 7d, 2026-11-25 or 2026-11-25T09:00; UTC where it is not said.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--output", type=click.Path(path_type=Path), help="Write both: FILE as JSON, FILE.md to read.")
@click.pass_obj
def report_(log: AuditLog, since: str | None, as_json: bool, output: Path | None) -> None:
    """What was done, refused, declined, unknown: the report of a run, from the audit alone."""
    from fastn_mcp.report import writer
    from fastn_mcp.report.collector import Tally

    now = datetime.now(UTC)
    began = None if since is None else parse_since(since, now)
    tally = Tally()
    for entry in log.entries():
        tally.entry(entry)
    newer = [a for a in tally.attempts if began is None or (a.settled or a.time) >= writer.moment(began)]
    accounts = ", ".join(dict.fromkeys(attempt.account for attempt in newer if attempt.account))
    about = writer.About(accounts, None, None, str(log.file))
    report = writer.document(about, newer, None, tally.head, began, now)
    if output is not None:
        writer.check(output)
        try:
            writer.write(output, report)
        except OSError as error:
            raise click.ClickException(f"{output} cannot be written: {error.strerror}.") from error
    elif as_json:
        click.echo(json.dumps(report, indent=2))
    elif columns_of() is None:
        click.echo(writer.markdown(report), nl=False)
    else:
        say("\n".join(_report_lines(cast("dict[str, Any]", report), writer.HEADINGS)))


def _report_lines(report: dict[str, Any], headings: "Mapping[OutcomeGroup, str]") -> Iterator[str]:
    """Render a report for a terminal: a few lines per call, in place of Markdown tables."""
    from fastn_mcp.report.writer import caller

    yield f"{sanitize(str(report['account']))}, {report['began']} to {report['ended']}"
    yield ", ".join(f"{count} {group.value}" for group in headings if (count := report["counts"][group.value]))
    for group, heading in headings.items():
        if calls := report["calls"][group.value]:
            yield f"\n{heading} ({len(calls)})"
        for call in calls:
            about = " ".join(filter(None, (call["tool"], call["target"]["name"] or call["target"]["id"])))
            newest = f"audit {call['audit'][-1]['n']}" if call["audit"] else ""
            facts = (caller(call), call["approved_by"], call["rule"], call["change_id"], newest)
            yield f"  {call['number']}. {sanitize(about)}, {_seconds(call['time'])}"
            yield f"     {sanitize(': '.join(filter(None, (call['outcome'], call['message']))))}"
            yield f"     {sanitize('; '.join(filter(None, facts)))}"


def _seconds(time: object) -> str:
    return f"{str(time).replace('T', ' ')[:19]}Z"


_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


def parse_since(when: str, now: datetime) -> datetime:
    """Parse a timestamp, or an age such as 24h before `now`. Raises `BadParameter`."""
    try:
        if ago := re.fullmatch(r"(\d{1,6})([mhd])", when):
            return now - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        time = datetime.fromisoformat(when)
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter("it is no time, as 24h, 7d or 2026-11-25T09:00", param_hint="--since") from None


def _findings(report: Report, head: str | None, newest: End | None, program: CommandLine) -> Iterator[str]:
    if report.broken is not None:
        yield f"Broken at {_place(report, report.broken.line)}: {report.broken.problem}."
        yield f"The {report.entries} entries before it are as they were written; what follows it cannot be relied on."
    elif head is not None and report.noted is None:
        yield "Broken: no entry has the hash that you noted. Entries were cut off, or all were written anew."
    elif report.shortened:
        yield f"Broken: the log was emptied or shortened before entry {', '.join(map(str, report.shortened))}."
        show = program.to("show", str(report.shortened[0]))
        yield f"{show} says what is missing. What is there is as it was written."
    else:
        files = f" in {len(report.files)} files" if len(report.files) > 1 else ""
        yield f"Intact: {report.entries - report.deleted} entries{files}. Head: {report.head}"
    if report.deleted:
        yield f"Entries 1 to {report.deleted} were deleted by the retention setting, as the ledger knows."
    if report.noted is not None:
        at = "the beginning" if head == BEGINNING else f"entry {report.noted}"
        yield f"The hash that you noted is that of {at}; {report.entries - report.noted} came after it."
    if report.broken is None and newest is not None:
        yield f"The ledger knows entry {newest.n}, which is as it was written."
    elif report.broken is None and head is None:
        yield "Entries cut off at the end leave no trace: note the head elsewhere, and give it with --head later."
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
    yield from lines[:_NAMED]
    if len(lines) > _NAMED:
        yield f"{len(lines) - _NAMED} {more}."


def _place(report: Report, line: int) -> str:
    """Convert a line number over all files into the file and the line in it."""
    if len(report.files) < 2:
        return f"line {line}"
    for name, count in report.files:
        if line <= count:
            return f"line {line} of {name}"
        line -= count
    return f"the end of {report.files[-1][0]}"


def _is_same_call(entry: Entry, other: Entry) -> bool:
    if entry.get("grant") is not None and entry.get("grant") == other.get("grant"):
        return True
    return str(entry["n"]) == other.get("of") or entry.get("of") == str(other["n"])


def _parsed(lines: Iterable[bytes]) -> Iterator[Entry]:
    return (entry for line in lines if (entry := audit_files.parsed(line)) is not None)


def _print_json(found: Iterable[Entry]) -> None:
    for entry in found:
        click.echo(json.dumps(entry))


def _print_entries(found: Iterable[Entry], earlier: Iterable[Entry] = ()) -> None:
    """Print entries. `earlier` ones are only searched for the names of targets."""
    columns = columns_of()
    names: dict[object, str] = {}
    for entry in earlier:
        _record_name(names, entry)
    for entry in found:
        _record_name(names, entry)
        if columns is None:
            click.echo(tab_separated(_field(entry, name) for name in TAIL_COLUMNS))
        else:
            color = _COLORS.get(str(entry.get("event")))
            for line in row(entry, names.get(entry.get("target")), columns):
                click.secho(line, fg=color)


TAIL_COLUMNS = (
    *("n", "time", "event", "principal", "tool", "target", "name", "decision", "approved_by", "outcome"),
    *("duration_ms", "message", "principal_name"),
)
"""Fields of a tab-separated line of `audit tail`, in order; empty if an entry does not have one."""

_WIDE, _NARROW = 100, 72
"""Columns from which the full time is shown, and below which an entry takes a second line."""


def row(entry: Entry, name: str | None, columns: int) -> list[str]:
    """Render an entry within `columns`. Number, time and event are never cut; `name` is the name of its target."""
    time = _field(entry, "time")
    shown_time = f"{time[:10]} {time[11:19]}Z" if columns >= _WIDE else f"{time[5:10]} {time[11:16]}"
    head = f"{_field(entry, 'n'):>4} {sanitize(shown_time)}  {sanitize(_field(entry, 'event')):<8}  "
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
    shown = fit(text, width)
    is_cut = text.endswith('"') and not shown.rstrip().endswith('"')
    return fit(f'{fit(text, width - 1).rstrip()}"', width) if is_cut else shown


def _summary(entry: Entry) -> str:
    """Summarize an entry: decision, approval, outcome, duration, message, and who decided and asked, if not `local`."""
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
