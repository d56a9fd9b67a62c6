"""The audit log: an append-only file with one JSON line for each decision and outcome.

When `record` returns, the kernel has the line, so it survives this process; an intent is on disk, so it survives a loss
of power. `record` raises if it cannot write, and the caller sends nothing. A file that is large or old enough is
rotated (`files`), and the chain continues in the next one.

`anchor` stores the number and hash of the newest entry in the ledger. A log that ends before it was emptied or
shortened: the next entry continues its numbers, and an extra entry records what is missing. The call is still sent:
refusing it would let anyone who can empty the log stop the server, and would record nothing.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue

from fastn_mcp.audit import chain
from fastn_mcp.audit.chain import FIRST_PREV, SHORTENED, End, sealed
from fastn_mcp.audit.files import (
    OPEN_FLAGS,
    Keeping,
    has_entries,
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
from fastn_mcp.audit.outbox import Outbox
from fastn_mcp.config.paths import make_private_folder
from fastn_mcp.errors import NOTHING_SENT, FastnError, Refused, os_reason
from fastn_mcp.policy.asker import Asker
from fastn_mcp.redaction import redact_object, redact_text, shorten
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Tool

log = logging.getLogger(__name__)

FILE = "audit.jsonl"
"""File name in the state folder."""

NEVER_SEEN = (
    "This ledger has never seen this log. Was it moved or copied without its ledger, or was the ledger replaced?"
)


class AuditEvent(Enum):
    INTENT = "intent"
    OUTCOME = "outcome"
    REFUSED = "refused"
    ASKED = "asked"
    APPROVED = "approved"
    AGREED = "agreed"
    """A list was approved. Each of its calls has its own entries, with grants that begin with this one."""
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    """An approval that was not used up was taken back."""
    EXPIRED = "expired"
    TEMPORARY_APPROVAL_REVOKED = "temporary_approval_revoked"
    STOPPED = "stopped"
    """A person stopped changes. With the id of an approval request: that made it void."""
    ALLOWED_AGAIN = "allowed_again"
    ANSWER_REFUSED = "answer_refused"
    """An answer was received that decides nothing."""
    LOG_SHORTENED = SHORTENED
    """Earlier entries are missing from the log."""
    LOG_DELETED = "log_deleted"
    FOREIGN_CODE = "foreign_code"
    """An account was opened with extensions that are not made by this project."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Record of one event. Fields that are None are omitted."""

    event: AuditEvent
    principal: str
    account: str
    tool: str
    target: str | None = None
    """Id of the target, or of the created resource."""
    name: str | None = None
    arguments: Mapping[str, JsonValue] | None = None
    digest: str | None = None
    """Digest of all arguments, untruncated. Secrets are redacted first: a short one could be guessed from it."""
    environment: str | None = None
    """Environment of the request, wherever it comes from; several with a comma."""
    customer: str | None = None
    """Id of the customer of the request, likewise."""
    effect: str | None = None
    decision: str | None = None
    rule: str | None = None
    approved_by: str | None = None
    """policy, client_form, local_page, terminal, verified, four_eyes or temporary_approval."""
    grant: str | None = None
    """Approval request or temporary approval that the event is about."""
    approver: str | None = None
    """Person who decided, as identified by a credential."""
    approver_name: str | None = None
    """Name and e-mail address of that person at the time, for people. It identifies nobody."""
    auth_time: float | None = None
    """When that person was asked to sign in, in Unix seconds, as the identity provider says."""
    acr: str | None = None
    """How they signed in: the values of `acr`, `amr` and `acrs`, separated by spaces."""
    principal_name: str | None = None
    """The same of the principal, if they signed in."""
    client: str | None = None
    """Id of the OAuth client of the principal."""
    client_name: str | None = None
    """What their client calls itself."""
    machine: str | None = None
    """Name of the principal in the team file, if it is a machine."""
    of: str | None = None
    outcome: str | None = None
    duration_ms: float | None = None
    requests: int | None = None
    """Requests sent to Fastn since the previous outcome of the same MCP request, or since it began."""
    message: str | None = None
    change: str | None = None


class Unwritten(Refused):
    """The audit log cannot be written, so the call is not sent."""


def about(event: AuditEvent, call: Tool[Any], asker: Asker, account: str) -> LogEntry:
    """Return an entry about a call; `dataclasses.replace` adds other fields."""
    return LogEntry(
        event=event,
        principal=asker.principal,
        account=account,
        tool=call.tool_name(),
        target=call.target,
        arguments=showable(call.shown()),
        digest=digest(call.shown()),
        principal_name=asker.person or None,
        client=asker.client or None,
        client_name=asker.client_name or None,
        machine=asker.machine or None,
    )


def foreign_code(distributions: Sequence[str]) -> LogEntry:
    """Return the entry that names the extensions of others with which an account was opened."""
    return _own(AuditEvent.FOREIGN_CODE, ", ".join(distributions))


def digest(arguments: Mapping[str, JsonValue]) -> str:
    """Digest of arguments, independent of their order."""
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# --- redaction ---------------------------------------------------------------------------------------------------

_MAX_TEXT = 1_000

_MAX_NAME = 200

_MAX_ARGUMENTS = 32_768
"""Maximum length of all arguments in an entry, in characters."""


def showable(arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return arguments for the log, with secrets redacted and long texts cut."""
    redacted = {name: _cut(value) for name, value in redact_object(arguments).items()}
    size = len(json.dumps(redacted))
    return redacted if size <= _MAX_ARGUMENTS else {"[left out]": f"{size} characters"}


def named(name: str | None) -> str | None:
    return None if name is None else shorten(redact_text(name), _MAX_NAME)


def _cut(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return shorten(value, _MAX_TEXT)
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return {name: _cut(item) for name, item in value.items()} if isinstance(value, dict) else value


# --- the file ----------------------------------------------------------------------------------------------------


class AuditMarks(Protocol):
    """Storage of the newest entry of each log, outside the log. A ledger satisfies it."""

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        """Store the number and hash of an entry of an audit log. A greater number is kept."""
        ...

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        """Return the stored number and hash of an audit log; None if there are none."""
        ...


class AuditFile:
    """Audit log in files that several processes append to, opened on first use.

    Files and folder are owner-only. The lock is the operating system's lock on the file: it ends with its process.
    """

    def __init__(
        self,
        path: Path,
        system: System,
        on_entry: Callable[[Mapping[str, JsonValue]], object] | None = None,
        *,
        marks: AuditMarks | None = None,
        name: str = FILE,
        keeping: Keeping | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        """Pass each written entry to `on_entry`. `name` identifies this log in `marks`.

        `outbox` knows which entries are exported, if they are: no other is deleted.
        """
        self.path = path
        self._on_entry = on_entry
        self._system = system
        self._marks = marks
        self._name = name
        self._keeping = keeping or Keeping()
        self._outbox = outbox
        self._thread = threading.Lock()
        self._known = End()
        """Newest entry known to this process or the ledger."""
        self._anchored = -1
        """Number of the entry stored in the ledger; -1 until read."""
        self._is_rotated = False
        self._forget_file()

    def _forget_file(self) -> None:
        self._file: int | None = None
        self._end = End()
        self._size = -1
        """File size when `_end` was read; -1 if unknown."""
        self._longest = 0
        """Largest file size that this process has seen."""
        self._begun: float | None = None

    def record(self, entry: LogEntry) -> str:
        """Append an entry and return its number in the log. Raises `Unwritten`."""
        try:
            fields = written(entry, self._system)
            with self._thread, self._locked() as file:
                return self._append(file, fields, is_synced=entry.event is AuditEvent.INTENT)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            self._size = -1
            reason = os_reason(error)
            certainty = "" if entry.event is AuditEvent.OUTCOME else NOTHING_SENT
            raise Unwritten(
                f"The audit log cannot be written ({reason}).",
                "Until then, no change is sent. A person has to fix the state folder, or set another: FASTN_STATE_DIR.",
                certainty=certainty,
            ) from error

    def check_exported(self) -> None:
        """Raise `NotExported` if entries are exported, and one has waited for longer than the setting allows."""
        if self._outbox is not None:
            self._outbox.check(self._system.now())

    async def anchor(self) -> None:
        """Store the number and hash of the newest entry in the ledger; delete expired rotated files.

        The file is synced first: after a loss of power, the ledger must not know entries that the log has lost.
        """
        if self._marks is None:
            return
        if self._anchored < 0:
            known = await self._marks.audit_mark(self._name)
            if known is None and not has_entries(self.path):  # its first process may be killed before it sends anything
                known = 0, FIRST_PREV
                await self._marks.mark_audit(self._name, *known)
            elif known is None and not self._known.n:
                log.warning("the audit log %s: %s", self.path, NEVER_SEEN)
            self._know(End() if known is None else End(*known))
            self._anchored = 0 if known is None else known[0]
            await self._delete_expired(self._marks)
        if self._is_rotated:
            self._is_rotated = False
            await self._delete_expired(self._marks)
        end = self._known
        if end.n > self._anchored:
            try:
                with self._thread:
                    if self._file is not None:
                        sync(self._file)
            except OSError as error:
                raise Unwritten(f"The audit log cannot be written to disk ({error.strerror}).") from error
            await self._marks.mark_audit(self._name, end.n, end.head)
            self._anchored = max(self._anchored, end.n)

    async def settle(self) -> None:
        """Call `anchor` if there are new entries. Failures are logged, and retried at the next call."""
        if self._known.n <= max(self._anchored, 0):
            return
        try:
            await self.anchor()
        except FastnError as error:
            log.error("the ledger does not know the newest entries of the audit log: %s", error.what)

    async def _delete_expired(self, marks: AuditMarks) -> None:
        if self._keeping.days is None:
            return
        rotated = [file for file in log_files(self.path) if file != self.path]
        expired = self._keeping.expired(rotated, self._system.timestamp())
        expired = expired if self._outbox is None else self._outbox.exported(expired)
        if not expired:
            return
        report = chain.verify(lines_of(expired[-1:]), start=chain.first_of(lines_of(expired[-1:])))
        if report.broken is not None:
            log.error("%s was changed after it was written; it and older files are not deleted", expired[-1])
            return
        # Update the ledger first, so that the remaining files can always be verified.
        await marks.mark_audit(deleted_name(self._name), report.entries, report.head)
        gone = [file.name for file in expired if _unlink(file)]
        if gone:
            message = f"Entries up to {report.entries} were deleted by the retention setting: {', '.join(gone)}."
            self.record(_own(AuditEvent.LOG_DELETED, message))

    def close(self) -> None:
        self._reopen()
        self._known = End()
        self._anchored = -1

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
        data = before
        end = replace(self._end, torn=torn)
        if lost is not None:
            log.error("the audit log %s: %s", self.path, lost)
            line, end = sealed(end, written(_own(AuditEvent.LOG_SHORTENED, lost), self._system))
            data += line + b"\n"
        line, end = sealed(end, fields)
        data += line + b"\n"
        self._size = -1
        written_bytes = 0
        while written_bytes < len(data):  # a full disk writes less; the next attempt raises
            written_bytes += os.write(file, data[written_bytes:])
        if is_synced:
            sync(file)
        self._end = end
        self._size = size + len(data)
        self._longest = self._size
        self._know(end)
        if self._outbox is not None:
            self._outbox.on_entry(self.path)
        if self._on_entry is not None:
            self._on_entry({**fields, "n": end.n, "hash": end.head})
        return str(end.n)

    def _read(self, file: int, size: int) -> str | None:
        """Read the end of the chain. Return a description of missing entries, if any."""
        end = read_end(file, size)
        known = self._known
        was = f"The log ended with entry {known.n} (hash {known.head})"
        lost = None
        if end.n == 0 and (moved := moved_end(self.path, known)) is not None:
            end = End(moved.n, moved.head, moved.torn + end.torn)
            if size < self._longest:
                lost = f"{was} and was emptied in place, as logrotate's copytruncate does. A copy is beside it."
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
            self._reopen()  # rotated by this or another process: continue in a new file

    def _rotate(self, file: int) -> bool:
        """Rename the file if it is large or old enough. Requires its lock."""
        size = os.fstat(file).st_size
        if size == 0 or not self._is_due(file, size):
            return False
        end = self._end if size == self._size else read_end(file, size)
        if end.n == 0 or end.torn:  # rotate after the next entry, which accounts for the torn line
            return False
        try:
            self.path.rename(rotated_name(self.path, end.n))
        except OSError as error:  # Windows cannot rename open files; the entry is more important
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
            match = _TIME.search(os.read(file, 200))
            begun = self._system.now() if match is None else datetime.fromisoformat(match[1].decode())
            self._begun = begun.timestamp()
        return self._system.timestamp() - self._begun >= _DAY_SECONDS


_DAY_SECONDS = 86_400
_TIME = re.compile(rb'"time":"([0-9T:.-]+Z)"')


def _own(event: AuditEvent, message: str) -> LogEntry:
    return LogEntry(event, "fastn-mcp", "", "audit", message=message)


def _unlink(file: Path) -> bool:
    """Delete a file. Return False if another process deleted it first, or if it cannot be deleted."""
    try:
        file.unlink()
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s cannot be deleted: %s", file, error.strerror)
        return False
    return True


def deleted_name(name: str) -> str:
    """Return the ledger's name for the newest deleted entry of a log."""
    return f"deleted of {name}"


def written(entry: LogEntry, system: System) -> dict[str, JsonValue]:
    """Serialize an entry with the current time, without its place in the chain."""
    fields: dict[str, JsonValue] = {"time": recorded_time(system.now()), "event": entry.event.value}
    for name in LogEntry.__dataclass_fields__:
        value = getattr(entry, name)
        if name != "event" and value is not None:
            fields[name] = redact_text(value) if isinstance(value, str) else value
    trace = system.trace()
    if trace is not None:
        fields["trace"] = trace.split("-")[1]
    return fields


def recorded_time(at: datetime) -> str:
    """Format a time as an entry has it: `2026-11-25T09:00:00.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _open(path: Path) -> int:
    make_private_folder(path.parent)
    is_new = not path.exists()
    file = os.open(path, OPEN_FLAGS | os.O_APPEND, 0o600)
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
