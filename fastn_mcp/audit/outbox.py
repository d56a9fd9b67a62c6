"""Entries of an audit log that are not exported yet: those after a position, which is stored beside the log.

The log itself is the queue, so it survives this process. A position that cannot be read, or that the log does not
have, is the beginning: an entry is exported twice rather than never. Several processes can share a log; the one that
holds the lock of the position exports.
"""

import logging
import os
import re
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fastn_mcp.audit.chain import End, first_of, link_of
from fastn_mcp.audit.files import OPEN_FLAGS, end_in, lines_of, log_files, parsed, sync, try_lock, unlock
from fastn_mcp.config.paths import make_private_folder
from fastn_mcp.errors import Refused

log = logging.getLogger(__name__)

POSITION = ".sent"
"""Suffix of the file of a position, in place of that of the log."""

_POSITION = re.compile(rb'\{"n":(\d{1,18}),"hash":"([0-9a-f]{64})"\} *\n')
_POSITION_BYTES = 110
"""Bytes of a stored position. All have the same number, so that one write replaces the position as a whole."""

_HEAD = 64
"""First bytes of a log file, which hold the number of its first entry and so tell it from the other files."""

_EPOCH = datetime.fromtimestamp(0, UTC)


class NotExported(Refused):
    """The collector has not accepted the audit log for too long, so no change is sent."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The audit log {why}, and no change is made before that (audit_export).",
            "Reading still works. Call again later, and tell the operator: the server log says more.",
        )


_START = End()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to read on in the current file of the log."""

    head: bytes = b""
    offset: int = 0
    last: End = _START
    """Newest entry before it."""


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
        self._place = _Place()

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
            raise NotExported(f"was not accepted by the collector for {waited:.0f} seconds")

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
        entries = self._continued(sent, most)
        return self._searched(sent, most) if entries is None else entries

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
        """Return the first of these rotated files, those without an unsent entry. Raises `OSError`."""
        sent, exported = self.sent(), list[Path]()
        for file in files:
            if (end := end_in(file)) is not None and end.n > sent.n:
                log.warning("%s has entries that were not exported; it is kept", file)
                break
            exported.append(file)
        return exported

    def _continued(self, sent: End, most: int) -> list[Unsent] | None:
        """Read on from where the last reading ended; None if the files have to be searched."""
        place = self._place
        if place.offset == 0 or place.last.n > sent.n:
            return None
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            if file.read(_HEAD) == place.head:
                file.seek(place.offset)
                entries, self._place = _read(file, place, sent, most)
                if not entries or sent in (entries[0].before, End()):
                    return entries
        return None

    def _searched(self, sent: End, most: int) -> list[Unsent]:
        files: list[Path] = []
        first = None
        for file in reversed(log_files(self.path)):
            files.insert(0, file)
            first = first_of(lines_of([file]))
            if first is not None and first.n <= sent.n:
                break
        if first is None:
            return []
        entries, last = list[Unsent](), first
        for file in files:
            head = next(iter(lines_of([file])), b"")[:_HEAD]
            more, place = _read(lines_of([file]), _Place(head, last=last), sent, most - len(entries))
            entries, last = entries + more, place.last
            if file == self.path:
                self._place = place
            if len(entries) == most:
                break
        if sent.n == 0 or last == sent:
            return entries
        if last.n <= sent.n:
            log.warning(
                "the audit log %s does not have its exported entry %s: all of it is exported", self.path, sent.n
            )
            return self._searched(End(), most)
        log.error("entries %s to %s of %s are gone, and were never exported", sent.n + 1, last.n, self.path)
        return entries


def _read(lines: Iterable[bytes], place: _Place, sent: End, most: int) -> tuple[list[Unsent], _Place]:
    """Return the entries after `sent`, at most `most`, of lines that begin at `place`, and the place before them."""
    offset, entries = place.offset, list[Unsent]()
    for line in lines:
        if len(entries) == most or not line.endswith(b"\n"):  # an unfinished line may still be being written
            break
        offset += len(line)
        link = link_of(line)
        if link is not None and link[1].n > sent.n:
            entries.append(Unsent(line[:-1], *link))
        elif not entries:
            place = _Place(place.head, offset, place.last if link is None else link[1])
    return entries, place
