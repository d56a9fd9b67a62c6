"""Files of an audit log: the current one and the rotated ones.

Any program may rotate the log: the first entry of a file refers to the last one of the previous file, and only this
links the files, whatever their names. They are searched for beside the log, as `audit.*`, `audit-*` or `audit_*`,
compressed by gzip or not.
"""

import gzip
import json
import os
import sys
import time
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count, takewhile
from pathlib import Path
from typing import BinaryIO, cast

from pydantic import JsonValue

from fastn_mcp.audit.chain import End, Report, end_of, first_of, link_of
from fastn_mcp.audit.chain import verify as verify_lines

_BLOCK = 65_536
_MAX_FILE = 4 * 1024**3
"""Maximum bytes read from a compressed file, after decompression."""

UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a file raises; the last two if it is compressed and damaged."""

OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
"""Flags of `os.open` for a log and for what is stored beside it. Python adds O_CLOEXEC (PEP 446)."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Rotation and retention: maximum size of the log, and the days for which rotated files are kept."""

    max_bytes: int | None = None
    days: int | None = None

    def expired(self, rotated: list[Path], now: float) -> list[Path]:
        """Return the files to delete: only from the start of the chain, so a file stays if an older one stays."""
        if self.days is None:
            return []
        oldest = now - self.days * 86_400
        return list(takewhile(lambda file: file.stat().st_mtime < oldest, rotated))


def lines_of(files: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of these files, decompressed, in order. Raises one of `UNREADABLE`."""
    for file in files:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            yield from lines


def has_entries(log: Path) -> bool:
    """Whether anything is in the files of the chain that ends in `log`. Raises `OSError`."""
    return any(file.stat().st_size for file in log_files(log))


def log_files(log: Path) -> list[Path]:
    """Return the files of the chain that ends in `log`, the oldest first. Raises `OSError`."""
    return [*newest_files(log)][::-1]


def newest_files(log: Path, *, with_compressed: bool = True) -> Iterator[Path]:
    """Yield the files of the chain that ends in `log`, the newest first. Raises `OSError`."""
    first = None
    if log.exists():
        first = first_of(lines_of([log]))
        yield log
    ends = _ends_beside(log, with_compressed=with_compressed)
    # Without a first entry, nothing was written since the last rotation.
    file = max(ends, key=lambda file: file.stat().st_mtime, default=None) if first is None else _before(first, ends)
    while file is not None:
        yield file
        del ends[file]
        first = first_of(lines_of([file]))
        file = None if first is None else _before(first, ends)


def _before(first: End, ends: Mapping[Path, End]) -> Path | None:
    same = [file for file, end in ends.items() if end.n == first.n]
    return next((file for file in same if ends[file].head == first.head), next(iter(same), None))


def moved_end(log: Path, known: End) -> End | None:
    """Return the end of the chain of `log`, which is still empty, from the files beside it. Raises `OSError`.

    `known` is an earlier entry of the chain: files that end before it are old copies. Of the others, the newest counts.
    """
    ends = {file: end for file, end in _ends_beside(log).items() if end.n >= known.n}
    newest = max(ends, key=lambda file: (file.stat().st_mtime_ns, ends[file].n), default=None)
    return None if newest is None else ends[newest]


def rotated_name(log: Path, last: int) -> Path:
    """Return an unused name for a rotated log whose last entry is `last`."""
    more = chain([""], (f".{n}" for n in count()))
    names = (log.with_name(f"{log.stem}.{last:09d}{suffix}{log.suffix}") for suffix in more)
    return next(name for name in names if not name.exists())


def read_end(file: int, size: int) -> End:
    """Return the end of the chain in an open file, read from its end: usually only the last block."""
    block = _BLOCK
    while True:
        start = max(0, size - block)
        os.lseek(file, start, os.SEEK_SET)
        data = b""
        while read := os.read(file, size - start - len(data)):
            data += read
        if start > 0:  # the first line may be incomplete
            data = data.partition(b"\n")[2]
        end = end_of(data)
        if end is not None:
            return end
        if start == 0:
            return End(torn=data)
        block *= 4


def _ends_beside(log: Path, *, with_compressed: bool = True) -> dict[Path, End]:
    """Return the ends of the log files beside `log`."""
    files = sorted(file for file in log.parent.glob(f"{log.stem}[._-]*") if with_compressed or file.suffix != ".gz")
    others = (file for file in files if file.name != log.name and not file.is_symlink() and file.is_file())
    ends = {file: end_in(file) for file in others}
    return {file: end for file, end in ends.items() if end is not None}


def seek_entry(data: BinaryIO, is_later: Callable[[bytes], bool | None]) -> int:
    """Seek the first entry of a log file that `is_later`, in few reads, or the end. Return where its line begins.

    `is_later` returns None for a line without an entry.
    """

    def from_line(position: int) -> int:
        data.seek(max(0, position - 1))
        if position:
            data.readline()
        return data.tell()

    def is_found(position: int) -> bool:
        from_line(position)
        for line in data:
            later = is_later(line)
            if later is not None:
                return later
        return True

    return from_line(bisect_left(range(data.seek(0, os.SEEK_END)), True, key=is_found))


def lines_after(file: Path, number: int) -> Iterator[bytes]:
    """Yield the lines of a log file after the entry of this number, or all of a compressed one. Raises `OSError`."""

    def is_later(line: bytes) -> bool | None:
        link = link_of(line)
        return None if link is None else link[1].n > number

    if file.suffix == ".gz":
        yield from lines_of([file])
        return
    with file.open("rb") as data:
        seek_entry(data, is_later)
        yield from data


def end_in(file: Path) -> End | None:
    """Return the end of the chain in a file; None if it is not a log file."""
    try:
        if file.suffix == ".gz":
            end = End(torn=_tail(file))
            return end_of(end.torn)
        with file.open("rb") as data:
            end = read_end(data.fileno(), file.stat().st_size)
    except UNREADABLE:
        return None
    return end if end.n > 0 else None


def _tail(file: Path) -> bytes:
    """Return the last lines of a compressed file."""
    data = b""
    read = 0
    with gzip.open(file) as lines:
        while read < _MAX_FILE and (block := lines.read(_BLOCK)):
            read += len(block)
            data = (data + block)[-4 * _BLOCK :]
    return data


def verify(path: Path, head: str | None = None, anchor: End | None = None, deleted: End | None = None) -> Report:
    """Verify the chain of a log over all its files. Raises `OSError`.

    `head` is a hash that was noted elsewhere; `anchor` and `deleted` are the newest entry and the newest deleted entry
    in the ledger.
    """
    files = log_files(path)
    first = first_of(lines_of(files))
    start = deleted if deleted and first and (deleted.n, deleted.head) == (first.n, first.head) else None
    counts = {file.name: 0 for file in files}

    def lines() -> Iterator[bytes]:
        for file in files:
            for line in lines_of([file]):
                counts[file.name] += 1
                yield line

    report = verify_lines(lines(), head, start=start, anchor=anchor)
    return replace(report, files=tuple(counts.items()))


def parsed(line: bytes) -> dict[str, JsonValue] | None:
    """Parse the entry of a line; return None if it is not an entry."""
    try:
        entry: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, JsonValue]", entry) if isinstance(entry, dict) and "event" in entry else None


_MAX_LOCK_ATTEMPTS = 10_000
"""Attempts to lock the file, half a millisecond apart."""

if sys.platform == "win32":
    import msvcrt

    # Windows locks are mandatory: lock one byte that nobody reads.
    _FAR = 1 << 40

    def _lock_at_once(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def unlock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

    sync = os.fsync

    def sync_folder(folder: Path) -> None:
        """NTFS journals file names."""
else:
    import fcntl

    def sync(file: int) -> None:
        """Wait until the file is on disk. fsync on macOS does not."""
        if sys.platform == "darwin":
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        else:
            os.fsync(file)

    def sync_folder(folder: Path) -> None:
        """Wait until the name of a new file is on disk."""
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)

    def _lock_at_once(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


def try_lock(file: int) -> bool:
    """Lock the file against other processes; False if one of them has it locked."""
    try:
        _lock_at_once(file)
    except (BlockingIOError, PermissionError):
        return False
    return True


def lock(file: int) -> None:
    """Lock the file against other processes. Raises `TimeoutError`."""
    for _ in range(_MAX_LOCK_ATTEMPTS):
        if try_lock(file):
            return
        time.sleep(0.0005)
    raise TimeoutError(0, "another process has locked it")
