"""The files of an audit log: the current one and those that were rotated.

Whoever rotates, the chain goes on: the first entry of a file names the last one of the file before, and files belong
together by that alone, whatever they are called. They are looked for beside the log, as `audit.*`, `audit-*` or
`audit_*`, compressed by gzip or not.
"""

import gzip
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from fastn_mcp.guard.audit.chain import End, end_of, first_of

_BLOCK = 65_536
_LONGEST_FILE = 4 * 1024**3
"""Bytes of a compressed file that are read, once they are unpacked."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How large a log becomes before it is rotated, and how long rotated files are kept."""

    max_bytes: int | None = None
    days: int | None = None
    files: int | None = None

    def expired(self, rotated: list[Path], now: float) -> list[Path]:
        """Of the rotated files of a chain, the oldest first, those that are to be deleted."""
        by_number = len(rotated) if self.files is None else self.files
        kept = rotated[max(0, len(rotated) - by_number) :] if by_number else []
        if self.days is not None:
            oldest = now - self.days * 86_400
            # A chain is deleted from its beginning: a file stays if one before it stays.
            stays = (n for n, file in enumerate(kept) if file.stat().st_mtime >= oldest)
            kept = kept[next(stays, len(kept)) :]
        return rotated[: len(rotated) - len(kept)]


def opened(file: Path) -> BinaryIO:
    """A file of the log, unpacked. Raises `OSError`."""
    return cast("BinaryIO", gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


def lines_of(files: Iterable[Path]) -> Iterator[bytes]:
    """The lines of these files, one file after the other. Raises `OSError`."""
    for file in files:
        with opened(file) as lines:
            yield from lines


def log_files(log: Path) -> list[Path]:
    """The files of the chain that ends in `log`, the oldest first. Raises `OSError`."""
    ends = {file: end for file in _beside(log) if (end := _end(file)) is not None}
    files = [log] if log.exists() else []
    first = first_of(lines_of(files))
    if first is None and ends:  # nothing was written since the last rotation
        newest = max(ends, key=lambda file: file.stat().st_mtime)
        files.insert(0, newest)
        del ends[newest]
        first = first_of(lines_of([newest]))
    while first is not None and first.n > 0:
        same = [file for file, end in ends.items() if end.n == first.n]
        found = next((file for file in same if ends[file].head == first.head), next(iter(same), None))
        if found is None:
            break
        files.insert(0, found)
        del ends[found]
        first = first_of(lines_of([found]))
    return files


def moved_end(log: Path, known: End) -> End | None:
    """Where the chain of `log`, which holds no entry yet, ends in the files beside it. Raises `OSError`.

    `known` is an entry that it has had: whatever ends before is an older copy. Of the others the newest was moved last.
    """
    ends = [(file.stat().st_mtime_ns, end) for file in _beside(log) if (end := _end(file)) is not None]
    return max(
        ((time, end.n, end) for time, end in ends if end.n >= known.n),
        key=lambda found: found[:2],
        default=(0, 0, None),
    )[2]


def rotated_name(log: Path, last: int) -> Path:
    """A free name for the log once it is rotated, which ends with the entry `last`."""
    names = (log.with_name(f"{log.stem}.{last:09d}{more}{log.suffix}") for more in ("", *(f".{n}" for n in range(100))))
    return next(name for name in names if not name.exists())


def read_end(file: int, size: int) -> End:
    """Where the chain ends of an open file, read from its end: mostly its last block."""
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


def _beside(log: Path) -> list[Path]:
    found = log.parent.glob(f"{log.stem}[._-]*")
    return sorted(file for file in found if file.name != log.name and not file.is_symlink() and file.is_file())


def _end(file: Path) -> End | None:
    """Where the chain ends in a file; None where the file is none of a log."""
    try:
        if file.suffix == ".gz":
            end = End(torn=_tail(file))
            return end_of(end.torn)
        with file.open("rb") as data:
            end = read_end(data.fileno(), file.stat().st_size)
    except (OSError, EOFError):
        return None
    return end if end.n > 0 else None


def _tail(file: Path) -> bytes:
    """The last lines of a compressed file."""
    data, read = b"", 0
    with gzip.open(file, "rb") as lines:
        while read < _LONGEST_FILE and (block := lines.read(_BLOCK)):
            read += len(block)
            data = (data + block)[-4 * _BLOCK :]
    return data
