"""The audit: one line of JSON for each decision and outcome, in a file that can only be added to.

A line is with the kernel when `record` returns, so that it outlives this process; an intent is on disk, so that it
outlives a loss of power. What cannot be written raises, and the caller does not send. Nothing is rotated, shortened or deleted: whoever moves the file away begins a new chain.
"""

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import JsonValue

from fastn_mcp.errors import NOTHING_SENT, Refused
from fastn_mcp.guard import audit_chain
from fastn_mcp.guard.audit_chain import End, Report, end_of, sealed
from fastn_mcp.guard.ledger import Grant
from fastn_mcp.offer import Offer
from fastn_mcp.redaction import redact_object, redact_text
from fastn_mcp.system import System

FILE = "audit.jsonl"
"""Its name in the folder of the state."""


class Event(Enum):
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
    SCOPE_REVOKED = "scope_revoked"
    ANSWER_REFUSED = "answer_refused"
    """Somebody sent an answer that decides nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is recorded of one event. What is None is left out."""

    event: Event
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
    """Who decided, where that was told by a credential."""
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
    """The audit cannot be written. What was to be sent is not sent."""


class Audit(Protocol):
    """Keeps a record of every decision and outcome."""

    def record(self, entry: Entry) -> str:
        """Record it, and name the entry. Raises where it cannot: the caller refuses the call."""
        ...


def about(event: Event, call: Offer[Any], principal: str, account: str) -> Entry:
    """An entry about a call; `dataclasses.replace` adds the rest."""
    return Entry(
        event=event,
        principal=principal,
        account=account,
        tool=call.tool_name(),
        target=call.target,
        arguments=showable(call.shown()),
        digest=digest(call.arguments()),
    )


def decided(event: Event, grant: Grant, by: str, message: str | None = None) -> Entry:
    """An entry about a grant on which a person decided, on the channel `by`."""
    arguments, effect = grant.card.get("arguments"), grant.card.get("effect")
    return Entry(
        event,
        grant.principal,
        grant.account,
        grant.tool,
        grant.target,
        arguments=showable(arguments) if isinstance(arguments, dict) else None,
        effect=effect if isinstance(effect, str) else None,
        decision=grant.asks,
        consent=by,
        grant=grant.id,
        message=message,
        name=named(name) if isinstance(name := _target(grant).get("name"), str) else None,
    )


def _target(grant: Grant) -> Mapping[str, JsonValue]:
    target = grant.card.get("target")
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
    return None if name is None else _text(redact_text(name), _LONGEST_NAME)


def _text(value: str, longest: int = _LONGEST) -> str:
    cut = len(value) - longest
    return f"{value[:longest]} [{cut} more characters]" if cut > 0 else value


def _cut(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return {name: _cut(item) for name, item in value.items()} if isinstance(value, dict) else value


# --- the file ----------------------------------------------------------------------------------------------------

_PATIENCE = 10_000
"""Attempts, half a millisecond apart, to get the file from another process."""

_BLOCK = 65_536


class AuditFile:
    """The audit in a file that several processes add to, opened when it is first needed.

    Owner-only, in a folder of the owner's. The lock is the system's own on the file itself: it ends with its process.
    """

    def __init__(
        self, path: Path, system: System, told: Callable[[Mapping[str, JsonValue]], object] | None = None
    ) -> None:
        """`told` hears of each entry, as its line has it, once it is written."""
        self.path = path
        self._told = told
        self._system = system
        self._thread = threading.Lock()
        self._file: int | None = None
        self._end = End()
        self._size = -1
        """How long the file was when `_end` was read; -1 where that is not known."""

    def record(self, entry: Entry) -> str:
        """Append the entry. Its name is its number in the file. Raises `Unwritten`."""
        try:
            fields = written(entry, self._system)
            with self._thread, self._locked() as file:
                return self._append(file, fields, is_synced=entry.event is Event.INTENT)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            self._size = -1
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise Unwritten(
                f"The audit cannot be written ({reason}).",
                "Until it can be, nothing that changes something is sent. "
                "A person has to mend the state folder, or name another: FASTN_STATE_DIR.",
                certainty="" if entry.event is Event.OUTCOME else NOTHING_SENT,
            ) from error

    def close(self) -> None:
        """Close the file, if it was ever opened."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._size = -1

    def _append(self, file: int, fields: Mapping[str, JsonValue], *, is_synced: bool) -> str:
        size = os.fstat(file).st_size
        if size != self._size:
            self._end = _read_end(file, size)
        before = b"" if size in (0, self._size) or _last_byte(file, size) == b"\n" else b"\n"
        torn = self._end.torn + before if self._end.torn else b""
        line, end = sealed(replace(self._end, torn=torn), fields)
        data = before + line + b"\n"
        self._size = -1
        written = 0
        while written < len(data):  # less is written where the disk is full; the next attempt says so
            written += os.write(file, data[written:])
        if is_synced:
            _sync(file)
        self._end, self._size = end, size + len(data)
        if self._told is not None:
            self._told({**fields, "n": end.n, "hash": end.head})
        return str(end.n)

    @contextmanager
    def _locked(self) -> Generator[int]:
        while True:
            if self._file is None:
                self._file = _open(self.path)
            _lock(self._file)
            try:
                if _same(self._file, self.path):
                    yield self._file
                    return
            finally:
                _unlock(self._file)
            self.close()  # moved away by somebody: go on in a new one


def written(entry: Entry, system: System) -> dict[str, JsonValue]:
    """An entry of now as its line has it, without its place in the chain."""
    now = system.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields: dict[str, JsonValue] = {"time": now, "event": entry.event.value}
    for name in Entry.__dataclass_fields__:
        value = getattr(entry, name)
        if name != "event" and value is not None:
            fields[name] = redact_text(value) if isinstance(value, str) else value
    if (trace := system.trace()) is not None:
        fields["trace"] = trace.split("-")[1]
    return fields


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    is_new = not path.exists()
    file = os.open(path, flags, 0o600)
    if is_new:
        _sync_folder(path.parent)
    return file


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _last_byte(file: int, size: int) -> bytes:
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1)


def _read_end(file: int, size: int) -> End:
    """Where the chain ends, read from the end of the file: mostly its last block."""
    block = _BLOCK
    while True:
        start = max(0, size - block)
        os.lseek(file, start, os.SEEK_SET)
        data = b""
        while len(data) < size - start and (read := os.read(file, size - start - len(data))):
            data += read
        if start > 0:  # the first line is perhaps not whole
            data = data[data.find(b"\n") + 1 :] if b"\n" in data else b""
        if (end := end_of(data)) is not None:
            return end
        if start == 0:
            return End(torn=data)
        block *= 4


if sys.platform == "win32":
    import msvcrt

    # Locks are mandatory there, so one byte is locked that nobody reads.
    _FAR = 1 << 40

    def _try_lock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

    _sync = os.fsync

    def _sync_folder(folder: Path) -> None:
        """NTFS journals the names of files."""
else:
    import fcntl

    def _sync(file: int) -> None:
        """Wait until the file is on disk. The fsync of macOS does not."""
        if sys.platform == "darwin":
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        else:
            os.fsync(file)

    def _sync_folder(folder: Path) -> None:
        """Wait until the name of a new file is on disk."""
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)

    def _try_lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file: int) -> None:
    for _ in range(_PATIENCE):
        try:
            return _try_lock(file)
        except (BlockingIOError, PermissionError):
            time.sleep(0.0005)
    raise TimeoutError(0, "another process keeps it locked")


# --- reading -----------------------------------------------------------------------------------------------------


def verify(path: Path, head: str | None = None) -> Report:
    """What the file's chain shows. `head` is a hash that was noted elsewhere. Raises `OSError`."""
    with path.open("rb") as lines:
        return audit_chain.verify(lines, head)


def entries(path: Path) -> Iterator[dict[str, JsonValue]]:
    """The entries of a file, in order; what is none is passed over. Raises `OSError`."""
    with path.open("rb") as lines:
        for line in lines:
            if (entry := parsed(line)) is not None:
                yield entry


def parsed(line: bytes) -> dict[str, JsonValue] | None:
    """The entry that a line holds."""
    try:
        entry: object = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, JsonValue]", entry) if isinstance(entry, dict) and "event" in entry else None
