"""The audit log: an append-only file with one JSON line for each decision and outcome.

A line is with the kernel when `record` returns, so that it outlives this process; an intent is on disk, so that it
outlives a loss of power. What cannot be written raises, and the caller does not send. A file that is large enough is
rotated (`files`), and the chain goes on in the next one.

`anchor` keeps the number and hash of the newest entry in the ledger. A log that ends before it was emptied or
shortened: the next entry keeps its number, and an entry before it records what is missing. The call is sent all the
same: refusing would let whoever can empty the log stop the server, and would record nothing.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from fastn_mcp.config.paths import make_private_folder
from fastn_mcp.errors import NOTHING_SENT, FastnError, Refused
from fastn_mcp.guard.audit import chain
from fastn_mcp.guard.audit.chain import SHORTENED, End, sealed
from fastn_mcp.guard.audit.files import (
    Keeping,
    lines_of,
    lock,
    log_files,
    moved_end,
    read_end,
    rotated_name,
    sync,
    sync_folder,
    unlock,
)
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, Ledger, account_name
from fastn_mcp.redaction import redact_object, redact_text, shorten
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Tool

log = logging.getLogger(__name__)

FILE = "audit.jsonl"
"""Its name in the folder of the state."""


class AuditEvent(Enum):
    """What happened."""

    INTENT = "intent"
    """It is about to be sent."""
    OUTCOME = "outcome"
    REFUSED = "refused"
    ASKED = "asked"
    APPROVED = "approved"
    AGREED = "agreed"
    """The calls of a batch were approved together. Each has entries of its own, whose grant begins with this one."""
    DECLINED = "declined"
    EXPIRED = "expired"
    """Nobody answered a request in time."""
    SCOPE_REVOKED = "scope_revoked"
    ANSWER_REFUSED = "answer_refused"
    """Somebody sent an answer that decides nothing."""
    LOG_SHORTENED = SHORTENED
    """Entries that the log has had are gone from it."""
    LOG_DELETED = "log_deleted"
    """Rotated files were deleted, as the retention setting says."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What is recorded of one event. What is None is left out."""

    event: AuditEvent
    principal: str
    account: str
    tool: str
    target: str | None = None
    """What it acts on, or has made."""
    name: str | None = None
    """How people call that, where it is known."""
    arguments: Mapping[str, JsonValue] | None = None
    """As they may be shown."""
    digest: str | None = None
    """Of all arguments, secrets included."""
    effect: str | None = None
    decision: str | None = None
    rule: str | None = None
    consent: str | None = None
    """policy, client_form, local_page, terminal, verified, four_eyes or scope."""
    grant: str | None = None
    """The grant, or the scope, that it is about."""
    approver: str | None = None
    """Who decided, as a credential says."""
    approver_name: str | None = None
    """How people call them, where their identity provider says so."""
    of: str | None = None
    """The intent that an outcome belongs to."""
    outcome: str | None = None
    duration_ms: float | None = None
    message: str | None = None
    change: str | None = None
    """The change in the journal."""


class Unwritten(Refused):
    """The audit log cannot be written. What was to be sent is not sent."""


def about(event: AuditEvent, call: Tool[Any], principal: str, account: str) -> LogEntry:
    """An entry about a call; `dataclasses.replace` adds the rest."""
    return LogEntry(
        event=event,
        principal=principal,
        account=account,
        tool=call.tool_name(),
        target=call.target,
        arguments=showable(call.shown()),
        digest=digest(call.arguments()),
    )


def decided(event: AuditEvent, grant: ApprovalRequest, by: str | None, message: str | None = None) -> LogEntry:
    """An entry about a grant on which a person decided, on the channel `by`; or nobody, until it expired."""
    arguments, effect = grant.preview.get("arguments"), grant.preview.get("effect")
    return LogEntry(
        event,
        grant.principal,
        account_name(grant.account),
        grant.tool,
        grant.target,
        arguments=showable(arguments) if isinstance(arguments, dict) else None,
        effect=effect if isinstance(effect, str) else None,
        decision=grant.required,
        consent=by,
        grant=grant.id,
        message=message,
        name=named(name) if isinstance(name := _target(grant).get("name"), str) else None,
    )


def _target(grant: ApprovalRequest) -> Mapping[str, JsonValue]:
    target = grant.preview.get("target")
    return target if isinstance(target, dict) else {}


def digest(arguments: Mapping[str, JsonValue]) -> str:
    """Names exactly these arguments, in whatever order they were given."""
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# --- what may be shown -------------------------------------------------------------------------------------------

_LONGEST = 1_000
"""Characters of one text in an entry."""

_LONGEST_NAME = 200

_MOST = 32_768
"""Characters of all arguments in an entry."""


def showable(arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Arguments as they may be recorded: secrets hidden, long texts cut."""
    shown = {name: _cut(value) for name, value in redact_object(arguments).items()}
    size = len(json.dumps(shown))
    return shown if size <= _MOST else {"[left out]": f"{size} characters"}


def named(name: str | None) -> str | None:
    """A name as it may be recorded."""
    return None if name is None else shorten(redact_text(name), _LONGEST_NAME)


def _cut(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return shorten(value, _LONGEST)
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return {name: _cut(item) for name, item in value.items()} if isinstance(value, dict) else value


# --- the file ----------------------------------------------------------------------------------------------------


class AuditFile:
    """The audit log in files that several processes add to, opened when it is first needed.

    Owner-only, in a folder of the owner's. The lock is the system's own on the file itself: it ends with its process.
    """

    def __init__(
        self,
        path: Path,
        system: System,
        on_entry: Callable[[Mapping[str, JsonValue]], object] | None = None,
        *,
        ledger: Ledger | None = None,
        name: str = FILE,
        keeping: Keeping | None = None,
    ) -> None:
        """`on_entry` gets each entry once it is written. `name` is the log's in the ledger, which can hold several."""
        self.path = path
        self._on_entry = on_entry
        self._system = system
        self._ledger = ledger
        self._name = name
        self._keeping = keeping or Keeping()
        self._thread = threading.Lock()
        self._known = End()
        """The newest entry that this process or the ledger knows of."""
        self._anchored = -1
        """The number that the ledger has; -1 until it was asked."""
        self._is_rotated = False
        self._forget_file()

    def _forget_file(self) -> None:
        self._file: int | None = None
        self._end = End()
        self._size = -1
        """How long the file was when `_end` was read; -1 where that is not known."""
        self._longest = 0
        """How long this process has seen the file."""
        self._begun: float | None = None

    def record(self, entry: LogEntry) -> str:
        """Append the entry. Its name is its number in the log. Raises `Unwritten`."""
        try:
            fields = written(entry, self._system)
            with self._thread, self._locked() as file:
                return self._append(file, fields, is_synced=entry.event is AuditEvent.INTENT)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            self._size = -1
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            certainty = "" if entry.event is AuditEvent.OUTCOME else NOTHING_SENT
            raise Unwritten(
                f"The audit log cannot be written ({reason}).",
                "Until then, no change is sent. A person has to fix the state folder, or set another: FASTN_STATE_DIR.",
                certainty=certainty,
            ) from error

    async def anchor(self) -> None:
        """Keep the number and hash of the newest entry in the ledger; delete rotated files that have expired.

        The file is on disk before: after a loss of power the ledger must not know of entries that the log has lost.
        """
        if self._ledger is None:
            return
        if self._anchored < 0:
            known = await self._ledger.audit_mark(self._name)
            self._know(End() if known is None else End(*known))
            self._anchored = 0 if known is None else known[0]
            await self._delete_expired(self._ledger)
        if self._is_rotated:
            self._is_rotated = False
            await self._delete_expired(self._ledger)
        end = self._known
        if end.n > self._anchored:
            try:
                with self._thread:
                    if self._file is not None:
                        sync(self._file)
            except OSError as error:
                raise Unwritten(f"The audit log cannot be written to disk ({error.strerror}).") from error
            await self._ledger.mark_audit(self._name, end.n, end.head)
            self._anchored = max(self._anchored, end.n)

    async def settle(self) -> None:
        """As `anchor`, if there is anything new: what cannot be kept now is logged, and kept at the next call."""
        if self._known.n <= max(self._anchored, 0):
            return
        try:
            await self.anchor()
        except FastnError as error:
            log.error("the ledger does not know the newest entries of the audit log: %s", error)

    async def _delete_expired(self, ledger: Ledger) -> None:
        if self._keeping.days is None and self._keeping.files is None:
            return
        rotated = [file for file in log_files(self.path) if file != self.path]
        expired = self._keeping.expired(rotated, self._system.now().timestamp())
        if not expired:
            return
        report = chain.verify(lines_of(expired[-1:]), start=chain.first_of(lines_of(expired[-1:])))
        if report.broken is not None:
            log.error("%s is not as it was written; it and what is older are not deleted", expired[-1])
            return
        # First the ledger: what is left can be verified at any moment.
        await ledger.mark_audit(deleted_name(self._name), report.entries, report.head)
        gone = [file.name for file in expired if _unlink(file)]
        if gone:
            message = f"Entries up to {report.entries} were deleted by the retention setting: {', '.join(gone)}."
            self.record(_own(AuditEvent.LOG_DELETED, message))

    def close(self) -> None:
        """Close the file, if it was ever opened."""
        self._reopen()
        self._known, self._anchored = End(), -1

    def _reopen(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._forget_file()

    def _know(self, end: End) -> None:
        if end.n > self._known.n:
            self._known = End(end.n, end.head)

    def _append(self, file: int, fields: Mapping[str, JsonValue], *, is_synced: bool) -> str:
        size = os.fstat(file).st_size
        lost = self._read(file, size) if size != self._size else None
        before = b"" if size in (0, self._size) or _last_byte(file, size) == b"\n" else b"\n"
        torn = self._end.torn + before if self._end.torn else b""
        data, end = before, replace(self._end, torn=torn)
        if lost is not None:
            log.error("the audit log %s: %s", self.path, lost)
            line, end = sealed(end, written(_own(AuditEvent.LOG_SHORTENED, lost), self._system))
            data += line + b"\n"
        line, end = sealed(end, fields)
        data += line + b"\n"
        self._size = -1
        written_bytes = 0
        while written_bytes < len(data):  # less is written where the disk is full; the next attempt says so
            written_bytes += os.write(file, data[written_bytes:])
        if is_synced:
            sync(file)
        self._end, self._size = end, size + len(data)
        self._longest = self._size
        self._know(end)
        if self._on_entry is not None:
            self._on_entry({**fields, "n": end.n, "hash": end.head})
        return str(end.n)

    def _read(self, file: int, size: int) -> str | None:
        """Find where the chain ends. Returns what is missing from it, where something is."""
        end, known = read_end(file, size), self._known
        was = f"The log ended with entry {known.n} (hash {known.head})"
        lost = None
        if end.n == 0 and (moved := moved_end(self.path, known)) is not None:
            end = End(moved.n, moved.head, moved.torn + end.torn)
            if size < self._longest:
                lost = f"{was} and was emptied in place, as copytruncate of logrotate does. A copy is beside it."
        elif end.n < known.n:
            gone = f"entries {end.n + 1} to {known.n}"
            lost = f"{was}; {gone} are not in this folder: the log was emptied, shortened or moved elsewhere."
            end = End(known.n, known.head, end.torn)
        self._end = end
        return lost

    @contextmanager
    def _locked(self) -> Generator[int]:
        while True:
            if self._file is None:
                self._file = _open(self.path)
            lock(self._file)
            try:
                if _same(self._file, self.path) and not self._rotate(self._file):
                    yield self._file
                    return
            finally:
                unlock(self._file)
            self._reopen()  # rotated, by this process or by another: go on in a new one

    def _rotate(self, file: int) -> bool:
        """Rename the file where it is large or old enough. Called under its lock."""
        size = os.fstat(file).st_size
        if size == 0 or not self._is_due(file, size):
            return False
        end = self._end if size == self._size else read_end(file, size)
        if end.n == 0 or end.torn:  # the next entry accounts for what is torn; then it is rotated
            return False
        try:
            self.path.rename(rotated_name(self.path, end.n))
        except OSError as error:  # Windows renames no file that is open; an entry matters more
            log.warning("the audit log %s cannot be rotated: %s", self.path, error.strerror)
            return False
        self._know(end)
        self._is_rotated = True
        return True

    def _is_due(self, file: int, size: int) -> bool:
        if self._keeping.max_bytes is not None and size >= self._keeping.max_bytes:
            return True
        if self._keeping.days is None:
            return False
        if self._begun is None:
            os.lseek(file, 0, os.SEEK_SET)
            found = _TIME.search(os.read(file, 200))
            self._begun = self._system.now().timestamp() if found is None else _seconds(found[1].decode())
        return self._system.now().timestamp() - self._begun >= _DAY


_DAY = 86_400
_TIME = re.compile(rb'"time":"([0-9T:.-]+Z)"')


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _own(event: AuditEvent, message: str) -> LogEntry:
    """An entry about the log itself."""
    return LogEntry(event, "fastn-mcp", "", "audit", message=message)


def _unlink(file: Path) -> bool:
    """Whether it was there, and is no longer. Another process may delete it at the same time."""
    try:
        file.unlink()
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s cannot be deleted: %s", file, error.strerror)
        return False
    return True


def deleted_name(name: str) -> str:
    """What the ledger calls the newest deleted entry of a log."""
    return f"deleted of {name}"


def written(entry: LogEntry, system: System) -> dict[str, JsonValue]:
    """An entry of now as its line has it, without its place in the chain."""
    now = system.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, JsonValue] = {"time": now, "event": entry.event.value}
    for name in LogEntry.__dataclass_fields__:
        value = getattr(entry, name)
        if name != "event" and value is not None:
            fields[name] = redact_text(value) if isinstance(value, str) else value
    if (trace := system.trace()) is not None:
        fields["trace"] = trace.split("-")[1]
    return fields


def _open(path: Path) -> int:
    make_private_folder(path.parent)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    is_new = not path.exists()
    file = os.open(path, flags, 0o600)
    if is_new:
        sync_folder(path.parent)
    return file


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _last_byte(file: int, size: int) -> bytes:
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1)
