"""The lines of the audit, and what their chain shows of a file. Pure.

A line ends with the hash of all that stands before it, and holds the hash of the line before: no line can be changed,
taken out, put in or moved without a break that names it. Only lines cut off at the end leave no trace, which is why
the newest hash, the head, is worth noting elsewhere.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

BEGINNING = "0" * 64
"""What the first line holds in place of the hash of a line before it."""

_LINE = re.compile(rb'\{"n":([1-9]\d{0,17}),.*"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}')
_OWN_HASH = len(b',"hash":""}') + 64


@dataclass(frozen=True, slots=True)
class End:
    """Where a chain ends. `torn` is what a killed process left behind its last whole line."""

    n: int = 0
    head: str = BEGINNING
    torn: bytes = b""


@dataclass(frozen=True, slots=True)
class Broken:
    """The first line of a file, counted from 1, that is not as it was written."""

    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a chain shows. All up to `entries` is as it was written."""

    entries: int
    head: str
    broken: Broken | None
    torn: tuple[int, ...]
    """Lines that a process did not finish writing, and that the next entry accounts for, if there is one."""
    unfinished: tuple[int, ...]
    """Entries of calls that were to be sent, and of which no outcome is recorded."""
    noted: int | None
    """The entry whose hash was the head that was noted elsewhere."""


def sealed(end: End, fields: Mapping[str, JsonValue]) -> tuple[bytes, End]:
    """The line that follows `end`, without its line break, and where the chain ends then."""
    n = end.n + 1
    torn = {"torn": _sha256(end.torn)} if end.torn else {}
    # ASCII: no terminal that shows the file can be led astray by what stands in it.
    body = json.dumps({"n": n, **fields, **torn, "prev": end.head}, separators=(",", ":"), allow_nan=False).encode()
    head = _sha256(body)
    return body[:-1] + b',"hash":"' + head.encode() + b'"}', End(n, head)


def end_of(data: bytes) -> End | None:
    """Where the chain ends whose last bytes are `data`; None where they hold no whole line."""
    stop = len(data)
    while stop > 0:
        start = data.rfind(b"\n", 0, stop) + 1
        if found := _LINE.fullmatch(data, start, stop):
            return End(int(found[1]), found[3].decode(), data[stop + 1 :])
        stop = start - 1
    return None


def verify(lines: Iterable[bytes], head: str | None = None) -> Report:
    """What `lines`, with their line breaks, show. `head` is a hash that was noted elsewhere."""
    reader = _Reader(head)
    broken: Broken | None = None
    for number, line in enumerate(lines, 1):
        if (broken := reader.problem(number, line)) is not None:
            break
    torn = reader.torn if broken else reader.torn + reader.pieces
    return Report(reader.end.n, reader.end.head, broken, tuple(torn), tuple(reader.open.values()), reader.noted)


class _Reader:
    """Follows a chain, line by line."""

    def __init__(self, head: str | None) -> None:
        self.end = End()
        self.torn: list[int] = []
        self.pieces: list[int] = []
        """Torn lines that no entry has accounted for yet."""
        self.open: dict[str, int] = {}
        self.noted: int | None = 0 if head == BEGINNING else None
        self._head = head

    def problem(self, number: int, line: bytes) -> Broken | None:
        """What is wrong with the next line, if anything is."""
        end, text = self.end, line.removesuffix(b"\n")
        found = _LINE.fullmatch(text)
        if found is None:
            if not _begins(text, end.n + 1):
                return Broken(number, "it is no entry of the audit")
            self.pieces.append(number)
            self.end = End(end.n, end.head, end.torn + line)
            return None
        if _sha256(text[:-_OWN_HASH] + b"}") != found[3].decode():
            return Broken(number, "it was edited: its content does not give its hash")
        entry = cast("dict[str, Any]", json.loads(text))
        if entry.get("torn") != (_sha256(end.torn) if end.torn else None):
            cut = Broken(self.pieces[0], "it was cut") if self.pieces else None
            return cut or Broken(number, "a torn line before it is gone")
        if problem := _problem(end, int(found[1]), found[2].decode()):
            return Broken(number, problem)
        self.torn, self.pieces = self.torn + self.pieces, []
        self._follow(entry, End(int(found[1]), found[3].decode()))
        return None

    def _follow(self, entry: Mapping[str, Any], end: End) -> None:
        self.end = end
        if entry.get("event") == "intent":
            self.open[str(end.n)] = end.n
        elif entry.get("event") == "outcome":
            self.open.pop(str(entry.get("of")), None)
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
    """Whether `piece` can be the beginning of entry `n`."""
    start = b'{"n":%d,' % n
    return piece.startswith(start) or start.startswith(piece)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
