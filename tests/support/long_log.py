"""A long audit log, as calls of many kinds leave it, written at once."""

from collections.abc import Iterator
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


def story(number: int) -> Iterator[LogEntry | None]:
    """Yield the entries of a call, one of seven stories. None stands for its intent's number."""
    grant = f"grant{number}"
    match number % 7:
        case 0:
            yield call(number, event=AuditEvent.REFUSED, outcome="refused", message="The policy refuses it.")
        case 1:
            yield call(number, grant=grant)
            yield call(number, event=AuditEvent.DECLINED, grant=grant, approved_by="local_page")
        case 2:
            yield call(number, grant=grant)
            yield call(number, event=AuditEvent.EXPIRED, grant=grant)
        case 3 | 4:
            yield call(number, grant=grant)
            yield call(number, event=AuditEvent.APPROVED, grant=grant, approved_by="local_page")
            yield call(number, event=AuditEvent.INTENT, grant=grant, approved_by="local_page")
            yield call(number, event=AuditEvent.OUTCOME, grant=grant, of="intent", outcome="done", arguments=None)
        case outcome:
            yield call(number, event=AuditEvent.INTENT, approved_by="policy", effect="write")
            how = "done" if outcome == 5 else "failed"
            yield call(number, event=AuditEvent.OUTCOME, of="intent", outcome=how, arguments=None, effect="write")


def write_log(file: Path, entries: int, *, per_file: int | None = None, first: int = 1) -> int:
    """Write at least so many entries, a second apart, in files of `per_file` lines. Return the number of calls."""
    file.parent.mkdir(parents=True, exist_ok=True)
    end, lines, number, intent = End(), list[bytes](), first - 1, ""
    while end.n < entries:
        number += 1
        for entry in story(number):
            assert entry is not None
            at = System(now=lambda n=end.n: START + timedelta(seconds=n))
            fields = written(replace(entry, of=intent if entry.of else None), at)
            line, end = sealed(end, fields)
            intent = str(end.n) if entry.event is AuditEvent.INTENT else intent
            lines.append(line + b"\n")
            if per_file is not None and end.n % per_file == 0:
                file.with_name(f"{file.stem}.{end.n:09d}{file.suffix}").write_bytes(b"".join(lines))
                lines.clear()
    file.write_bytes(b"".join(lines))
    return number - first + 1
