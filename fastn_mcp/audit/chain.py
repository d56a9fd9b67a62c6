"""Hash chain of the audit log, and its verification.

Each line ends with the hash of its content, which includes the hash of the previous line. A changed, removed, inserted
or moved line breaks the chain, and verification names it. Only lines cut off at the end leave no trace in the chain:
the ledger therefore stores the newest number and hash, and a person can note the hash elsewhere.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

FIRST_PREV = "0" * 64
"""Hash that the first line has in place of a previous one."""

SHORTENED = "log_shortened"
"""Event of an entry that records that the log was emptied or shortened."""

_LINE = re.compile(rb'\{"n":([1-9]\d{0,17}),.*"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}')
_HASH = 66
"""Bytes of a line from its own hash on."""
_OWN_HASH = len(b',"hash":"') + _HASH


@dataclass(frozen=True, slots=True)
class End:
    """End of a chain. `torn` is an incomplete last line, left by a killed process."""

    n: int = 0
    head: str = FIRST_PREV
    torn: bytes = b""


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """First invalid line of a file, counted from 1."""

    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """Result of a verification. Entries up to `entries` are intact."""

    entries: int
    head: str
    broken: BrokenLine | None
    torn: tuple[int, ...]
    """Lines that a process did not finish writing. The next entry, if there is one, accounts for them."""
    unfinished: tuple[int, ...]
    """Intents without a recorded outcome."""
    noted: int | None
    """Entry whose hash is the `head` noted elsewhere."""
    shortened: tuple[int, ...] = ()
    """Entries that record that the log was emptied or shortened."""
    deleted: int = 0
    """Number of entries deleted from the start by the retention setting."""
    files: tuple[tuple[str, int], ...] = ()
    """Name and line count of each file read, the oldest first."""


def sealed(end: End, fields: Mapping[str, JsonValue]) -> tuple[bytes, End]:
    """Return the next line after `end`, without its line break, and the new end of the chain."""
    n = end.n + 1
    torn = {"torn": _sha256(end.torn)} if end.torn else {}
    # ASCII, so that an entry cannot manipulate the terminal that shows the file.
    body = json.dumps({"n": n, **fields, **torn, "prev": end.head}, separators=(",", ":"), allow_nan=False).encode()
    head = _sha256(body)
    return body[:-1] + b',"hash":"' + head.encode() + b'"}', End(n, head)


def end_of(data: bytes) -> End | None:
    """Return the end of a chain from its last bytes; None if they contain no whole line."""
    stop = len(data)
    while stop > 0:
        start = data.rfind(b"\n", 0, stop) + 1
        match = _LINE.fullmatch(data, start, stop)
        if match:
            return End(int(match[1]), match[3].decode(), data[stop + 1 :])
        stop = start - 1
    return None


def link_of(line: bytes) -> tuple[End, End] | None:
    """Return the ends of the chain before and after a line, as it says; None if it is not a whole entry."""
    match = _LINE.fullmatch(line.removesuffix(b"\n"))
    if match is None:
        return None
    n = int(match[1])
    return End(n - 1, match[2].decode()), End(n, match[3].decode())


def is_unaltered(line: bytes) -> bool:
    """Whether the content of a whole entry, without its line break, matches its own hash."""
    return _sha256(line[:-_OWN_HASH] + b"}") == line[-_HASH:-2].decode()


def first_of(lines: Iterable[bytes]) -> End | None:
    """Return the end of the chain before the first whole line of `lines`; None if there is none."""
    for line in lines:
        link = link_of(line)
        if link is not None:
            return link[0]
    return None


def verify(
    lines: Iterable[bytes], head: str | None = None, *, start: End | None = None, anchor: End | None = None
) -> Report:
    """Verify `lines`, with their line breaks.

    `head` is a hash that was noted elsewhere, `start` the end of the part deleted by retention, and `anchor` the newest
    entry in the ledger.
    """
    reader = _Reader(head, start or End(), anchor)
    number = 0
    for number, line in enumerate(lines, 1):
        broken = reader.problem(number, line)
        if broken is not None:
            break
    else:
        broken = reader.cut(number)
    torn = reader.torn if broken else reader.torn + reader.pieces
    return Report(
        entries=reader.end.n,
        head=reader.end.head,
        broken=broken,
        torn=tuple(torn),
        unfinished=tuple(reader.open.values()),
        noted=reader.noted,
        shortened=tuple(reader.shortened),
        deleted=reader.start.n,
    )


class _Reader:
    def __init__(self, head: str | None, start: End, anchor: End | None) -> None:
        self.start = self.end = start
        self.torn: list[int] = []
        self.pieces: list[int] = []
        """Torn lines that no entry has accounted for yet."""
        self.open: dict[str, int] = {}
        self.noted: int | None = 0 if head == FIRST_PREV else None
        self.shortened: list[int] = []
        self._head = head
        self._anchor = anchor

    def cut(self, lines: int) -> BrokenLine | None:
        if self._anchor is None or self._anchor.n <= self.end.n:
            return None
        first = self.end.n + 1
        last = self._anchor.n
        gone = f"entry {last} is" if first == last else f"entries {first} to {last} are"
        has = "it" if first == last else f"entry {last}"
        return BrokenLine(lines + 1, f"{gone} missing at the end: the ledger has {has}, the log does not")

    def problem(self, number: int, line: bytes) -> BrokenLine | None:
        end = self.end
        text = line.removesuffix(b"\n")
        link = link_of(line)
        if link is None:
            if not _begins(text, end.n + 1):
                return BrokenLine(number, "it is not an audit entry")
            self.pieces.append(number)
            self.end = End(end.n, end.head, end.torn + line)
            return None
        if not is_unaltered(text):
            return BrokenLine(number, "it was edited: its content does not match its hash")
        entry = cast("dict[str, Any]", json.loads(text))
        if entry.get("torn") != (_sha256(end.torn) if end.torn else None):
            cut = BrokenLine(self.pieces[0], "it was cut") if self.pieces else None
            return cut or BrokenLine(number, "an unfinished line before it is missing")
        before, after = link
        problem = _problem(end, after.n, before.head)
        if problem:
            return BrokenLine(number, problem)
        if self._anchor is not None and after.n == self._anchor.n and after.head != self._anchor.head:
            return BrokenLine(
                number, "it is not the entry that the ledger has under this number: the log was rewritten"
            )
        self.torn = self.torn + self.pieces
        self.pieces = []
        self._follow(entry, after)
        return None

    def _follow(self, entry: Mapping[str, Any], end: End) -> None:
        self.end = end
        if entry.get("event") == "intent":
            self.open[str(end.n)] = end.n
        elif entry.get("event") == "outcome":
            self.open.pop(str(entry.get("of")), None)
        elif entry.get("event") == SHORTENED:
            self.shortened.append(end.n)
        if end.head == self._head:
            self.noted = end.n


def _problem(end: End, n: int, prev: str) -> str | None:
    if n > end.n + 1:
        gone = f"entry {end.n + 1}" if n == end.n + 2 else f"entries {end.n + 1} to {n - 1}"
        return f"it is entry {n}, and {gone} should stand before it"
    if n <= end.n:
        return f"it is entry {n}, which does not belong after entry {end.n}"
    if prev != end.head:
        return "it does not follow the line before it: one of the two was replaced"
    return None


def _begins(piece: bytes, n: int) -> bool:
    """Return whether `piece` can be the beginning of entry `n`."""
    start = b'{"n":%d,' % n
    return piece.startswith(start) or start.startswith(piece)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
