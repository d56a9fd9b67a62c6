"""`fastn-mcp audit`: read the audit log, rotated files included, and verify that it is unchanged."""

import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import click

from fastn_mcp.audit.chain import End
from fastn_mcp.audit.log import FILE, recorded_time
from fastn_mcp.audit.reader import AuditLog, Entry, LogFollower, following, parsed
from fastn_mcp.audit.remote import StoredEntry, compare, stored
from fastn_mcp.build.ledger import audit_marks
from fastn_mcp.cli import audit_layout
from fastn_mcp.cli.exit import WrongArgument
from fastn_mcp.cli.layout import columns_of, say
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.config.command_line import CommandLine
from fastn_mcp.config.paths import file_errors
from fastn_mcp.errors import FastnError
from fastn_mcp.records.rows import parse_timestamp
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
@click.option("--file", type=click.Path(path_type=Path), help="An audit log other than the one in your state folder.")
@click.pass_context
def audit_group(ctx: click.Context, file: Path | None) -> None:
    """Read and verify the record of what was decided and sent.

    Rotated files beside the log are read too.
    """
    start: StartOptions = ctx.obj
    file_option = () if file is None else ("--file", str(file.absolute()))
    ctx.obj = AuditOptions(
        AuditLog(file or start.state() / FILE),
        start.ledger_settings().ledger,
        start.command_line().with_(("audit", *file_option)),
    )


@audit_group.command(name="tail")
@click.option("-n", "count", type=click.IntRange(0), default=20, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Follow new entries until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.pass_obj
def tail_(options: AuditOptions, count: int, follow: bool, as_json: bool) -> None:
    """The newest entries, one line each, with times in UTC.

    A terminal shows the name of each target, and cuts long lines: audit show N has all of it. A pipe
    gets whole lines, tab-separated: n, time, event, principal, tool, target, name, decision, approved_by, outcome,
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


@audit_group.command(name="show", short_help="One entry in full, and the others of the same call.")
@click.argument("entry")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
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
    click.echo("\n".join(audit_layout.show_lines(selected, columns_of())))
    if others:
        click.echo("\nOf the same call:")
        _print_entries(others, [selected])


def _print_entries(entries: Iterable[Entry], earlier: Iterable[Entry] = (), *, as_json: bool = False) -> None:
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry))
        return
    for line, color in audit_layout.entry_lines(entries, columns_of(), earlier):
        click.secho(line, fg=color)


@audit_group.command(name="verify")
@click.option("--head", metavar="HASH", help="The head hash that you noted elsewhere.")
@click.option(
    "--remote",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="A file in which a collector stored this log: OTLP as JSON lines. Repeatable.",
)
@click.pass_obj
def verify_(options: AuditOptions, head: str | None, remote: tuple[Path, ...]) -> None:
    """Check the hash chain over all files, and against the ledger. Exit code 0 if it is intact, 1 otherwise.

    With --remote also compare it with its exported copy: nothing missing, altered or added on either
    side. An entry that arrived twice is fine.
    """
    log = options.log
    exported = log.exported() if remote else None  # before the copy, and that before the log: neither looks older
    there = [entry for file in remote for entry in _stored(file)]
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
    say(*audit_layout.finding_lines(report, head, marks[0], options.program))
    if ledger_error is not None:
        say(f"Whether entries were cut off at the end is not known. {ledger_error}", err=True)
    intact = report.broken is None and not report.shortened and (head is None or report.noted is not None)
    if remote:
        comparison = compare(log.lines(log.files()), there, exported)
        say(*audit_layout.comparison_lines(comparison))
        intact = intact and comparison.is_proven
    sys.exit(0 if intact and ledger_error is None else 1)


def _stored(file: Path) -> Iterator[StoredEntry]:
    try:
        yield from stored(AuditLog(file).lines([file]))
    except ValueError:
        raise WrongArgument(f"{file} has a line that is neither OTLP as JSON nor an audit entry.") from None


@audit_group.command(name="report", short_help="What was done, refused, declined and left open.")
@click.option("--since", metavar="WHEN", help="For example 24h, 7d, 2026-11-25 or 2026-11-25T09:00; UTC by default.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--output", type=click.Path(path_type=Path), help="Write both: FILE as JSON, FILE.md to read.")
@click.pass_obj
def report_(options: AuditOptions, since: str | None, as_json: bool, output: Path | None) -> None:
    """Report what was done, refused, declined or unknown, from the audit log alone."""
    from fastn_mcp.report import writer
    from fastn_mcp.report.collector import Tally

    now = datetime.now(UTC)
    began = None if since is None else parse_since(since, now)
    tally = Tally()
    for entry in options.log.entries():
        tally.entry(entry)
    newer = [a for a in tally.attempts if began is None or (a.settled or a.time) >= recorded_time(began)]
    accounts = ", ".join(dict.fromkeys(attempt.account for attempt in newer if attempt.account))
    about = writer.About(accounts, None, None, str(options.log.file))
    report = writer.document(about, newer, None, tally.head, began, now)
    if output is not None:
        writer.check(output)
        with file_errors(output, "written"):
            writer.write(output, report)
    elif as_json:
        click.echo(json.dumps(report, indent=2))
    elif columns_of() is None:
        click.echo(writer.markdown(report), nl=False)
    else:
        say(*audit_layout.report_lines(cast("dict[str, Any]", report), writer.HEADINGS))


_UNIT_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


def parse_since(when: str, now: datetime) -> datetime:
    """Parse a timestamp, or an age such as 24h before `now`. Raises `BadParameter`."""
    if ago := re.fullmatch(r"(\d{1,5})([mhd])", when):
        return now - timedelta(seconds=int(ago[1]) * _UNIT_SECONDS[ago[2]])
    if (time := parse_timestamp(when)) is None:
        raise click.BadParameter("not a time such as 24h, 7d or 2026-11-25T09:00", param_hint="--since")
    return time
