"""What the audit's chain shows."""

import hashlib
import json
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from support.values import not_none

from fastn_mcp.audit.chain import FIRST_PREV, BrokenLine, End, end_of, sealed, verify


def written(count: int) -> list[bytes]:
    end, lines = End(), list[bytes]()
    for number in range(1, count + 1):
        event = "intent" if number % 2 else "outcome"
        line, end = sealed(end, {"event": event, "tool": "delete_customer", "of": str(number - 1)})
        lines.append(line + b"\n")
    return lines


def test_hash_is_sha_256_of_the_line_without_it() -> None:
    line = written(3)[2].decode().rstrip("\n")
    before, _, own = line.rpartition(',"hash":"')
    assert hashlib.sha256((before + "}").encode()).hexdigest() == own.removesuffix('"}')


LINES = written(9)
BEFORE, FIFTH, AFTER = LINES[:4], LINES[4], LINES[5:]
UNLINKED, _ = sealed(End(4, FIRST_PREV), {"event": "intent"})
REWRITTEN, _ = sealed(End(4, json.loads(LINES[3])["hash"]), {"event": "intent", "tool": "get_customer"})


class TamperedLog(NamedTuple):
    name: str
    lines: list[bytes]
    line: int
    problem: str


EDITED = "it was edited: its content does not match its hash"
REPLACED = "it does not follow the line before it: one of the two was replaced"
TAMPERED = [
    TamperedLog("content", [*BEFORE, FIFTH.replace(b"delete_customer", b"delete_customar"), *AFTER], 5, EDITED),
    TamperedLog("hash", [*BEFORE, FIFTH[:-11] + b"00000000" + FIFTH[-3:], *AFTER], 5, EDITED),
    TamperedLog("missing", [*BEFORE, *AFTER], 5, "it is entry 6, and entry 5 should stand before it"),
    TamperedLog("first missing", LINES[1:], 1, "it is entry 2, and entry 1 should stand before it"),
    TamperedLog(
        "swapped", [*BEFORE, AFTER[0], FIFTH, *AFTER[1:]], 5, "it is entry 6, and entry 5 should stand before it"
    ),
    TamperedLog(
        "repeated", [*BEFORE, BEFORE[-1], FIFTH, *AFTER], 5, "it is entry 4, which does not belong after entry 4"
    ),
    TamperedLog("inserted", [*BEFORE, UNLINKED + b"\n", FIFTH, *AFTER], 5, REPLACED),
    TamperedLog("rewritten", [*BEFORE, REWRITTEN + b"\n", *AFTER], 6, REPLACED),
    TamperedLog("foreign", [*BEFORE, b"nothing of ours\n", FIFTH, *AFTER], 5, "it is not an audit entry"),
    TamperedLog("emptied", [*BEFORE, b"\n", *AFTER], 5, "it was cut"),
    TamperedLog("cut", [*BEFORE, FIFTH[:40] + b"\n", *AFTER], 5, "it was cut"),
    TamperedLog("joined", [*BEFORE, FIFTH.rstrip(b"\n") + AFTER[0], *AFTER[1:]], 5, EDITED),
]


@pytest.mark.parametrize("log", TAMPERED, ids=lambda log: log.name)
def test_changed_line_is_found(log: TamperedLog) -> None:
    report = verify(log.lines)
    assert (report.broken, report.torn) == (BrokenLine(log.line, log.problem), ())


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_changed_byte_is_found(at: int, change: int) -> None:
    lines = written(5)
    data, last = bytearray(b"".join(lines)), len(lines[-1])
    data[at % (len(data) - last)] ^= change
    assert verify(bytes(data).splitlines(keepends=True)).broken is not None


def test_truncation_is_found_by_the_noted_head() -> None:
    lines = written(9)
    head = verify(lines).head
    assert verify(lines[:7]).broken is None
    assert verify(lines[:7], head).noted is None
    assert verify(lines, head).noted == 9
    assert verify(lines, verify(lines[:7]).head).noted == 7
    assert verify(lines, FIRST_PREV).noted == 0


def test_log_is_compared_with_the_newest_entry_in_the_ledger() -> None:
    lines = written(4)
    anchor = End(4, verify(lines).head)
    assert verify(lines, anchor=anchor).broken is None
    assert verify(written(6), anchor=anchor).broken is None
    cut_off = BrokenLine(4, "entry 4 is missing at the end: the ledger has it, the log does not")
    assert verify(lines[:3], anchor=anchor).broken == cut_off
    end, anew = End(), list[bytes]()
    for _ in range(6):
        line, end = sealed(end, {"event": "intent", "tool": "get_customer"})
        anew.append(line + b"\n")
    assert verify(anew).broken is None
    rewritten = "it is not the entry that the ledger has under this number: the log was rewritten"
    assert verify(anew, anchor=anchor).broken == BrokenLine(4, rewritten)


def test_accounted_torn_line_is_intact() -> None:
    lines = written(4)
    data = b"".join(lines) + b'{"n":5,"event":"int'
    end = not_none(end_of(data))
    assert end.torn == b'{"n":5,"event":"int'
    line, _ = sealed(End(end.n, end.head, end.torn + b"\n"), {"event": "outcome", "of": "3"})
    whole = (data + b"\n" + line + b"\n").splitlines(keepends=True)
    report = verify(whole)
    assert (report.broken, report.torn, report.entries) == (None, (5,), 5)
    whole[4] = b'{"n":5,"event":"out\n'
    assert verify(whole).broken == BrokenLine(5, "it was cut")
    del whole[4]
    assert verify(whole).broken == BrokenLine(5, "an unfinished line before it is missing")


texts = st.text(max_size=20)
recorded = st.fixed_dictionaries({"event": texts, "arguments": st.dictionaries(texts, texts, max_size=3)})


@settings(max_examples=30)
@given(st.lists(recorded, max_size=5))
def test_every_entry_is_one_line_of_ascii(entries: list[dict[str, JsonValue]]) -> None:
    end, data = End(), b""
    for fields in entries:
        line, end = sealed(end, fields)
        data += line + b"\n"
    assert data.count(b"\n") == len(entries)
    assert all(32 <= byte < 127 or byte == 10 for byte in data)
    report = verify(data.splitlines(keepends=True))
    assert (report.broken, report.entries) == (None, len(entries))
