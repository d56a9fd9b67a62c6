"""`fastn-mcp audit`: read the audit, and check that it is as it was written."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import cast

import click
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastn_mcp.errors import SettingsError
from fastn_mcp.guard import audit, audit_chain
from fastn_mcp.guard.audit_chain import BEGINNING, Report
from fastn_mcp.redaction import sanitize

_PAUSE = 0.5
_NAMED = 5
"""How many of a kind are named before the rest is counted."""

_STYLES = {"refused": "yellow", "declined": "yellow", "expired": "yellow", "intent": "cyan", "approved": "green"}

Entry = dict[str, JsonValue]


@click.group(name="audit")
@click.option("--file", type=click.Path(path_type=Path), help="Another file than the one of your own state folder.")
@click.pass_context
def audit_group(ctx: click.Context, file: Path | None) -> None:
    """Read the record of what was decided and sent, and check that it is as it was written."""
    ctx.obj = file or ctx.obj.state() / audit.FILE


@audit_group.command(name="tail")
@click.option("-n", "count", type=click.IntRange(0), default=20, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.pass_obj
def tail_(file: Path, count: int, follow: bool, as_json: bool) -> None:
    """The newest entries, one line each."""
    put = _put_json if as_json else _put
    with _opened(file) as lines:
        data = lines.read()
        # A last line without its break is still being written.
        whole = data[: data.rfind(b"\n") + 1].splitlines()
        put(_parsed(whole[max(0, len(whole) - count) :]))
        if follow:
            lines.seek(data.rfind(b"\n") + 1)
            for line in following(lines.readline, lambda: time.sleep(_PAUSE)):
                put(_parsed([line]))


def following(readline: Callable[[], bytes], pause: Callable[[], object]) -> Iterator[bytes]:
    """Each line that is added, once it is whole, for as long as `pause` returns."""
    begun = b""
    while True:
        begun += readline()
        if begun.endswith(b"\n"):
            yield begun
            begun = b""
        else:
            pause()


@audit_group.command(name="show")
@click.argument("entry")
@click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
@click.pass_obj
def show_(file: Path, entry: str, as_json: bool) -> None:
    """All of one entry, by its number, and what belongs to the same call."""
    with _opened(file) as lines:
        found = list(_parsed(lines))
    one = next((e for e in found if str(e.get("n")) == entry), None)
    if one is None:
        raise click.ClickException(f"There is no entry {entry} in {file}.")
    others = [e for e in found if e is not one and _belongs(one, e)]
    if as_json:
        _put_json([one, *others])
        return
    console = _console()
    for name, value in one.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        console.print(Text.assemble((f"{name:>12}  ", "dim"), sanitize(text)), soft_wrap=True)
    if others:
        console.print("\nOf the same call:")
        _put(others)


@audit_group.command(name="verify")
@click.option("--head", metavar="HASH", help="The newest hash, as you noted it elsewhere.")
@click.pass_obj
def verify_(file: Path, head: str | None) -> None:
    """Check the chain. Exit code 0 where it is intact, 1 where it is broken."""
    if head is not None and re.fullmatch("[0-9a-f]{64}", head) is None:
        raise click.BadParameter("a hash is 64 of the characters 0-9 and a-f", param_hint="--head")
    with _opened(file) as lines:
        report = audit_chain.verify(lines, head)
    intact = report.broken is None and (head is None or report.noted is not None)
    click.echo("\n".join(_said(report, head)))
    sys.exit(0 if intact else 1)


@audit_group.command(name="report")
@click.option("--since", metavar="WHEN", help="As 24h, 7d, 2026-11-25 or 2026-11-25T09:00; UTC where it is not said.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--output", type=click.Path(path_type=Path), help="Write both: FILE as JSON, FILE.md to read.")
@click.pass_obj
def report_(file: Path, since: str | None, as_json: bool, output: Path | None) -> None:
    """What was done, refused, declined, unknown: the report of a run, from the audit alone."""
    from fastn_mcp.report import document, markdown, writing
    from fastn_mcp.report.tally import Tally

    now = datetime.now(UTC)
    began = None if since is None else moment_of(since, now)
    tally = Tally()
    with _opened(file) as lines:
        for entry in _parsed(lines):
            tally.entry(entry)
    newer = [a for a in tally.attempts if began is None or (a.settled or a.time) >= document.moment(began)]
    accounts = ", ".join(dict.fromkeys(attempt.account for attempt in newer if attempt.account))
    about = document.About(accounts, None, None, str(file))
    made = document.document(about, newer, None, tally.head, began, now)
    if output is not None:
        writing.check(output)
        try:
            writing.write(output, made)
        except OSError as error:
            raise click.ClickException(f"{output} cannot be written: {error.strerror}.") from error
    else:
        click.echo(json.dumps(made, indent=2) if as_json else markdown.markdown(made), nl=as_json)


_SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


def moment_of(when: str, now: datetime) -> datetime:
    """A time, or so long before `now`."""
    try:
        if ago := re.fullmatch(r"(\d{1,6})([mhd])", when):
            return now - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        time = datetime.fromisoformat(when)
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter("it is no time, as 24h, 7d or 2026-11-25T09:00", param_hint="--since") from None


def _said(report: Report, head: str | None) -> Iterator[str]:
    if report.broken is not None:
        yield f"Broken at line {report.broken.line}: {report.broken.problem}."
        yield f"The {report.entries} entries before it are as they were written; what follows it cannot be relied on."
    elif head is not None and report.noted is None:
        yield "Broken: no entry has the hash that you noted. Entries were cut off, or all were written anew."
    else:
        yield f"Intact: {report.entries} entries. Head: {report.head}"
    if report.noted is not None:
        at = "the beginning" if head == BEGINNING else f"entry {report.noted}"
        yield f"The hash that you noted is that of {at}; {report.entries - report.noted} came after it."
    elif head is None and report.broken is None:
        yield "Entries cut off at the end leave no trace: note the head elsewhere, and give it with --head later."
    for line in report.torn[:_NAMED]:
        yield f"Line {line} is unfinished: its process ended, or the disk was full. Nothing was sent on its account."
    if len(report.torn) > _NAMED:
        yield f"{len(report.torn) - _NAMED} more lines are unfinished."
    for entry in report.unfinished[:_NAMED]:
        yield (
            f"Entry {entry} has no outcome: the call is under way, or its process ended first. Look in Fastn whether"
            f" it was made; fastn-mcp audit show {entry} names it."
        )
    if len(report.unfinished) > _NAMED:
        yield f"{len(report.unfinished) - _NAMED} more entries have none."


def _belongs(one: Entry, other: Entry) -> bool:
    if one.get("grant") is not None and one.get("grant") == other.get("grant"):
        return True
    return str(one["n"]) == other.get("of") or one.get("of") == str(other["n"])


def _opened(file: Path) -> BufferedReader:
    try:
        return file.open("rb")
    except FileNotFoundError:
        begins = "It begins with the first call that changes something."
        raise SettingsError(f"There is no audit at {file}.", begins) from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None


def _parsed(lines: Iterable[bytes]) -> Iterator[Entry]:
    return (entry for line in lines if (entry := audit.parsed(line)) is not None)


def _put_json(found: Iterable[Entry]) -> None:
    for entry in found:
        click.echo(json.dumps(entry))


def _put(found: Iterable[Entry]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for width in (5, 20, 13):
        table.add_column(no_wrap=True, min_width=width)
    for _ in range(4):
        table.add_column(no_wrap=True, overflow="ellipsis")
    for entry in found:
        cells = (sanitize(cell) for cell in _cells(entry))
        table.add_row(*(Text(cell) for cell in cells), style=_STYLES.get(str(entry["event"]), ""))
    if table.row_count:
        _console().print(table)


def _cells(entry: Entry) -> Iterator[str]:
    def told(*names: str) -> str:
        return " ".join(str(entry[name]) for name in names if entry.get(name) is not None)

    yield told("n")
    yield told("time").replace("T", " ")[:19] + "Z"
    yield told("event")
    yield told("principal")
    yield told("tool", "target")
    yield ", ".join(part for part in (told("decision"), told("consent")) if part)
    took = entry.get("duration_ms")
    yield told("outcome", "message") + (f" {cast(float, took):.0f} ms" if took is not None else "")


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)
