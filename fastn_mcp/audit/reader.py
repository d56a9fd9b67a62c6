"""Read an audit log: its entries over all files, the entries of one call, new entries as they are written."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import JsonValue

from fastn_mcp.audit import files
from fastn_mcp.audit.chain import End, Report
from fastn_mcp.audit.outbox import Outbox
from fastn_mcp.errors import SettingsError

Entry = dict[str, JsonValue]

_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class AuditLog:
    """An audit log with its rotated files. All methods raise `SettingsError` if it cannot be read."""

    file: Path

    def files(self) -> list[Path]:
        """Return the files of the log, oldest first. Raises `SettingsError` if there are none."""
        with self._readable():
            log_files = files.log_files(self.file)
        if not log_files:
            begins = "The first call that changes something creates it. Check the path."
            raise SettingsError(f"There is no audit log at {self.file}.", begins)
        return log_files

    def entries(self) -> Iterator[Entry]:
        return parsed(self.lines(self.files()))

    def lines(self, log_files: Iterable[Path]) -> Iterator[bytes]:
        with self._readable():
            yield from files.lines_of(log_files)

    def with_related(self, number: str) -> tuple[Entry, list[Entry]] | None:
        """Return an entry and the others of the same call; None if there is no entry with this number."""
        entries = list(self.entries())
        entry = next((each for each in entries if str(each.get("n")) == number), None)
        if entry is None:
            return None
        return entry, [each for each in entries if each is not entry and _is_same_call(entry, each)]

    def exported(self) -> int | None:
        """Return the number of the newest exported entry; None if nothing was exported from here."""
        outbox = Outbox(self.file)
        with self._readable():
            return outbox.sent().n if outbox.file.exists() else None

    def verify(self, head: str | None, newest: End | None, deleted: End | None) -> Report:
        """Verify the chain, with the newest entry in the ledger and the newest that retention deleted."""
        with self._readable():
            return files.verify(self.file, head, newest, deleted)

    @contextmanager
    def _readable(self) -> Generator[None]:
        try:
            yield
        except files.UNREADABLE as error:
            why = getattr(error, "strerror", None) or error
            raise SettingsError(f"{self.file} cannot be read: {why}.") from None


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


def newest_first(log: Path, is_later: Callable[[Entry], bool] | None = None) -> Iterator[bytes]:
    """Yield the lines of a log from its end, or from the newest entry that is not `is_later`, over its rotated files.

    Reads only the blocks that are needed. Ends at a compressed file. Raises `OSError`.
    """

    def is_later_line(line: bytes) -> bool | None:
        entry = None if is_later is None else files.parsed(line)
        return None if is_later is None or entry is None else is_later(entry)

    for file in files.newest_files(log, with_compressed=False):
        with file.open("rb") as data:
            end = data.seek(0, os.SEEK_END) if is_later is None else files.seek_entry(data, is_later_line)
            yield from _backwards(data, end)


def _backwards(data: BinaryIO, end: int) -> Iterator[bytes]:
    """Yield the lines before `end`, the last one first, without one that is still being written."""
    rest = b""
    is_last = True
    while end > 0:
        start = max(0, end - _BLOCK)
        data.seek(start)
        rest, *lines = (data.read(end - start) + rest).split(b"\n")
        if lines and is_last:
            lines = lines[:-1]
            is_last = False
        yield from filter(None, reversed(lines))
        end = start
    if rest and not is_last:
        yield rest


def parsed(lines: Iterable[bytes]) -> Iterator[Entry]:
    """Yield the entries of these lines. Skips lines without one."""
    for line in lines:
        entry = files.parsed(line)
        if entry is not None:
            yield entry


def _is_same_call(entry: Entry, other: Entry) -> bool:
    if entry.get("grant") is not None and entry.get("grant") == other.get("grant"):
        return True
    return str(entry["n"]) == other.get("of") or entry.get("of") == str(other["n"])
