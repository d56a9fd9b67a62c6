"""A long audit log, as calls of many kinds leave it, written at once."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastn_mcp.audit.chain import End, sealed
from fastn_mcp.audit.log import AuditEvent, LogEntry, written
from fastn_mcp.runtime import System

START = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT = "default at live.fastn.ai"


def call(number: int, **facts: Any) -> LogEntry:
    """Return an entry about call `number`, to delete a customer of its own."""
    entry = LogEntry(
        AuditEvent.ASKED, "local", ACCOUNT, "delete_customer", target=f"cus_{number}", name=f"Customer {number}",
        arguments={"customer_id": f"cus_{number}"}, digest=f"digest {number}", effect="destroy",
        decision="confirm", rule="mode guarded: destroy",
    )  # fmt: skip
    return replace(entry, **facts)


def story(number: int) -> list[LogEntry]:
    """Return the entries of a call, by one of seven stories. The outcome is that of the last intent."""
    grant = f"grant{number}"
    asked = call(number, grant=grant)
    decided = replace(asked, approved_by="local_page")
    match number % 7:
        case 0:
            return [replace(asked, event=AuditEvent.REFUSED, grant=None, outcome="refused")]
        case 1:
            return [asked, replace(decided, event=AuditEvent.DECLINED)]
        case 2:
            return [asked, replace(asked, event=AuditEvent.EXPIRED)]
        case 3 | 4:
            sent = replace(decided, event=AuditEvent.INTENT)
            return [asked, replace(decided, event=AuditEvent.APPROVED), sent, _ended(sent, "done")]
        case which:
            sent = call(number, event=AuditEvent.INTENT, approved_by="policy", effect="write")
            return [sent, _ended(sent, "done" if which == 5 else "failed")]


def _ended(sent: LogEntry, outcome: str) -> LogEntry:
    return replace(sent, event=AuditEvent.OUTCOME, of="intent", outcome=outcome, arguments=None)


def write_entries(file: Path, entries: Iterable[LogEntry], *, per_file: int | None = None) -> None:
    """Write a log whose entries are a second apart, in files of `per_file` lines. `of="intent"` is the last intent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    end, lines, intent = End(), list[bytes](), ""
    for entry in entries:
        at = System(now=lambda n=end.n: START + timedelta(seconds=n))
        line, end = sealed(end, written(replace(entry, of=intent if entry.of == "intent" else entry.of), at))
        intent = str(end.n) if entry.event is AuditEvent.INTENT else intent
        lines.append(line + b"\n")
        if per_file is not None and end.n % per_file == 0:
            file.with_name(f"{file.stem}.{end.n:09d}{file.suffix}").write_bytes(b"".join(lines))
            lines.clear()
    file.write_bytes(b"".join(lines))


def write_log(file: Path, entries: int, *, per_file: int | None = None) -> int:
    """Write a log of at least so many entries, of whole calls. Return the number of calls."""
    stories, total = list[LogEntry](), 0
    while len(stories) < entries:
        total += 1
        stories += story(total)
    write_entries(file, stories, per_file=per_file)
    return total
