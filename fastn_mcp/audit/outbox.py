"""Entries of an audit log that are not exported yet: those after a position, which is stored beside the log.

The log itself is the queue, so it survives this process. A position that cannot be read, or that the log does not
have, is the beginning: an entry is exported twice rather than never. Several processes can share a log; the one that
holds the lock of the position exports.
"""

import logging
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from fastn_mcp.audit.chain import End, first_of, link_of
from fastn_mcp.audit.files import (
    OPEN_FLAGS,
    end_in,
    lines_after,
    lines_of,
    newest_files,
    parsed,
    sync,
    try_lock,
    unlock,
)
from fastn_mcp.config.paths import make_private_folder
from fastn_mcp.errors import Refused

log = logging.getLogger(__name__)

MAX_WAIT = 60.0
"""Seconds for which an entry may wait for the collector before `fail-closed` refuses changes."""

POSITION = ".sent"
"""Suffix of the file of a position, in place of the log's suffix."""

_POSITION = re.compile(rb'\{"n":(\d{1,18}),"hash":"([0-9a-f]{64})"\} *\n')
_POSITION_BYTES = 110
"""Bytes of a stored position. All have the same number, so that one write replaces the position as a whole."""

_EPOCH = datetime.fromtimestamp(0, UTC)


class NotExported(Refused):
    """The collector has not accepted the audit log for too long, so no change is sent."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The audit log {why}. No change is sent until it is exported (audit_export).",
            "Reading still works. Call again later, and tell the operator; the server log has the details.",
        )


@dataclass(frozen=True, slots=True)
class Unsent:
    """An entry that is not exported yet."""

    line: bytes
    before: End
    end: End

    @property
    def time(self) -> datetime:
        """Time of the entry. One that cannot be read is older than any."""
        with suppress(ValueError):
            return datetime.fromisoformat(str((parsed(self.line) or {}).get("time"))).astimezone(UTC)
        return _EPOCH


class Outbox:
    """Entries of one audit log that the collector has not accepted."""

    def __init__(
        self, path: Path, limit: float | None = None, on_entry: Callable[[Path], object] = lambda _: None
    ) -> None:
        """`limit`: seconds for which an entry may wait before changes are refused; None if they never are.

        `on_entry` gets the path of the log when it has a new entry.
        """
        self.path = path
        self.file = path.with_suffix(POSITION)
        """File of the position."""
        self._limit = limit
        self.on_entry = on_entry

    def check(self, now: datetime) -> None:
        """Raise `NotExported` if an entry has waited for longer than the limit, or if that cannot be read."""
        if self._limit is None:
            return
        try:
            waiting = self.unsent(1)
        except OSError as error:
            raise NotExported(f"cannot be read ({error.strerror})") from error
        waited = (now - waiting[0].time).total_seconds() if waiting else 0.0
        if waited > self._limit:
            raise NotExported(f"has not been accepted by the collector for {waited:.0f} seconds")

    def sent(self) -> End:
        """Return the newest exported entry; the beginning if there is none. Raises `OSError`."""
        try:
            position = _POSITION.fullmatch(self.file.read_bytes())
        except FileNotFoundError:
            return End()
        return End() if position is None else End(int(position[1]), position[2].decode())

    def unsent(self, most: int) -> list[Unsent]:
        """Return the next entries to export, oldest first, at most `most`. Raises `OSError`."""
        sent = self.sent()
        entries = list(islice(self._after(sent.n), most))
        if sent.n and entries and entries[0].before.n > sent.n:  # the log may have been rotated while it was read
            entries = list(islice(self._after(sent.n), most))
        before = entries[0].before if entries else self._end()
        if sent.n == 0 or before in (sent, None):
            return entries
        if before.n > sent.n:
            if entries:  # else an entry is being written
                log.error("entries %s to %s of %s are gone, and were never exported", sent.n + 1, before.n, self.path)
            return entries
        log.warning(
            "the audit log %s lacks entry %s, which was exported: the whole log is exported again", self.path, sent.n
        )
        return list(islice(self._after(0), most))

    def _after(self, number: int) -> Iterator[Unsent]:
        """Yield the entries after the one of this number, oldest first."""
        files: list[Path] = []
        for file in newest_files(self.path):
            files.insert(0, file)
            first = first_of(lines_of([file]))
            if first is not None and first.n <= number:
                break
        for file in files:
            for line in lines_after(file, number):
                link = link_of(line)
                if link is not None and link[1].n > number and line.endswith(b"\n"):
                    yield Unsent(line[:-1], *link)

    def _end(self) -> End | None:
        """Return the end of the log; None if it has no entry."""
        for file in newest_files(self.path):
            end = end_in(file)
            if end is not None:
                return End(end.n, end.head)
        return None

    def accepted(self, entry: Unsent) -> None:
        """Store that the entries up to this one are exported. Requires the claim. Raises `OSError`."""
        file = os.open(self.file, OPEN_FLAGS, 0o600)
        try:
            position = b'{"n":%d,"hash":"%b"}' % (entry.end.n, entry.end.head.encode())
            os.write(file, position.ljust(_POSITION_BYTES - 1) + b"\n")
        finally:
            os.close(file)

    @contextmanager
    def claimed(self) -> Generator[bool]:
        """Lock the position while this process exports. Yields False if another one does. Raises `OSError`."""
        make_private_folder(self.path.parent)
        file = os.open(self.file, OPEN_FLAGS, 0o600)
        try:
            is_ours = try_lock(file)
            try:
                yield is_ours
            finally:
                if is_ours:
                    unlock(file)
        finally:
            os.close(file)

    def sync(self) -> None:
        """Wait until the log is on disk, so that a loss of power takes nothing that was exported. Raises `OSError`."""
        with suppress(FileNotFoundError), self.path.open("rb+") as file:
            sync(file.fileno())

    def exported(self, files: Iterable[Path]) -> list[Path]:
        """Return the first of these rotated files, up to one with an unsent entry. Raises `OSError`."""
        sent = self.sent()
        exported = list[Path]()
        for file in files:
            end = end_in(file)
            if end is not None and end.n > sent.n:
                log.warning("%s is kept, since some of its entries have not been exported", file)
                break
            exported.append(file)
        return exported
