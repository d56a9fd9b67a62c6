"""Comparison of an audit log with the copy that a collector stored."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.audit_entries import INTENT

from fastn_mcp.audit.chain import is_unaltered
from fastn_mcp.audit.log import AuditFile
from fastn_mcp.audit.log_copy import LOG, SCOPE, CopyComparison, StoredEntry, compare, stored
from fastn_mcp.runtime import System


def log(folder: Path, count: int = 5, principal: str = "local") -> list[bytes]:
    """Return the lines of a log."""
    audit = AuditFile(folder / "audit.jsonl", System())
    for _ in range(count):
        audit.record(replace(INTENT, principal=principal))
    audit.close()
    return (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)


@pytest.fixture
def lines(tmp_path: Path) -> list[bytes]:
    return log(tmp_path / "here")


def copy(lines: Iterable[bytes], name: str = "node:/audit.jsonl") -> list[StoredEntry]:
    return [StoredEntry(name, line.rstrip(b"\n")) for line in lines]


def edited(line: bytes) -> bytes:
    return line.replace(b"cus_1", b"cus_2")


AGREED = CopyComparison((1, 2, 3, 4, 5), (), (), (), (), (), 0, 0, ())


def test_complete_copy_is_proven_in_any_order(lines: list[bytes]) -> None:
    there = copy(lines)
    assert compare(lines, there, 5) == compare(lines, reversed(there), None) == AGREED
    twice = compare(lines, [*there, *there[1:3], there[1]], 5)
    assert (twice.same, twice.repeated, twice.is_proven) == (AGREED.same, 3, True)
    assert not compare(lines, [], 0).is_proven
    assert (compare(lines, [], 0).waiting, compare(lines, [], None).missing) == (AGREED.same, AGREED.same)
    assert (compare([], there, 0).same, compare([], there, 0).others) == ((), ("node:/audit.jsonl",))
    assert not compare([], [], None).is_proven


def test_missing_entries_are_named_by_side(lines: list[bytes]) -> None:
    there = copy(lines)
    comparison = compare(lines, [there[0], there[3]], 3)
    assert (comparison.same, comparison.missing, comparison.waiting) == ((1, 4), (2, 3), (5,))
    assert not comparison.is_proven
    tail = compare(lines, there[:3], 3)
    assert (tail.missing, tail.waiting, tail.is_proven) == ((), (4, 5), True)
    assert compare(lines, there[:3], 4).missing == (4,)
    assert compare(lines, there[:3], None).missing == (4, 5)
    cut = compare(lines[:3], there, 5)
    assert (cut.same, cut.extra, cut.is_proven) == ((1, 2, 3), (4, 5), False)
    hole = compare([*lines[:2], *lines[3:]], there, 5)
    assert (hole.extra, hole.is_proven) == ((3,), False)


def test_shortened_log_is_proven_by_its_full_copy(lines: list[bytes]) -> None:
    comparison = compare(lines[2:], copy(lines), 5)
    assert (comparison.same, comparison.deleted, comparison.extra, comparison.is_proven) == (
        (3, 4, 5),
        (1, 2),
        (),
        True,
    )


def test_rewritten_entries_are_found_on_either_side(lines: list[bytes], tmp_path: Path) -> None:
    there = copy(lines)
    altered = compare(lines, [*there[:2], StoredEntry(there[2].log, edited(there[2].line)), *there[3:]], 5)
    assert (altered.altered, altered.missing, altered.is_proven) == (1, (3,), False)
    also = compare(lines, [*there, StoredEntry(there[2].log, edited(there[2].line))], 5)
    assert (also.altered, also.missing, also.is_proven) == (1, (), False)
    anew = log(tmp_path / "anew", principal="another")
    forked = compare([*lines[:3], *anew[3:]], there, 5)
    assert (forked.same, forked.different, forked.is_proven) == ((1, 2, 3), (4, 5), False)
    before = compare(lines[2:], [*copy(anew[:2]), *there[2:]], 5)
    assert (before.different, before.deleted, before.is_proven) == ((2,), (1, 2), False)


def test_copy_of_another_log_is_left_out(lines: list[bytes], tmp_path: Path) -> None:
    other = copy(log(tmp_path / "there", 7, "another"), "other:/audit.jsonl")
    comparison = compare(lines, [*copy(lines[:3], "old:/a"), *copy(lines[2:], "new:/a"), *other], 5)
    assert (comparison.same, comparison.others, comparison.repeated, comparison.is_proven) == (
        AGREED.same,
        ("other:/audit.jsonl",),
        1,
        True,
    )
    none = compare(lines, other, 5)
    assert (none.same, none.missing, none.is_proven) == ((), (1, 2, 3, 4, 5), False)
    assert none.others == ("other:/audit.jsonl",)


def otlp(lines: Iterable[bytes], scope: str = SCOPE) -> bytes:
    """Return a request as the collector's file exporter writes it."""
    records = [
        {
            "timeUnixNano": "1764034835000000000",
            "severityNumber": 9,
            "body": {"stringValue": line.decode().rstrip("\n")},
            "attributes": [
                {"key": "fastn_mcp.audit.n", "value": {"intValue": "1"}},
                {"key": LOG, "value": {"stringValue": "node:/audit.jsonl"}},
            ],
            "traceId": "",
        }
        for line in lines
    ]
    logs = {"scope": {"name": scope, "version": "1"}, "logRecords": records}
    resource: dict[str, Any] = {"resource": {"attributes": []}, "scopeLogs": [logs], "schemaUrl": ""}
    return json.dumps({"resourceLogs": [resource]}).encode() + b"\n"


def test_collector_files_and_log_lines_are_read(lines: list[bytes]) -> None:
    """`otlp_json` of the collector's file exporter, and what is left of it once a pipeline took the lines out."""
    assert [*stored([otlp(lines[:2]), b"\n", otlp(lines[2:])])] == copy(lines)
    assert [*stored(lines)] == copy(lines, "")
    assert [*stored([otlp(lines, "fastn_mcp"), b'{"resourceLogs":[]}', b'{"resourceLogs":[{}]}'])] == []
    assert compare(lines, stored(lines), None) == AGREED


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b"null", b'{"resourceLogs":{}}', b'{"resourceSpans":[]}'])
def test_file_of_another_kind_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(stored([line]))


def test_record_without_text_or_name_is_altered() -> None:
    record: dict[str, Any] = {"body": {"kvlistValue": {}}, "attributes": [{"key": "x"}]}
    logs: dict[str, Any] = {"scope": {"name": SCOPE}, "logRecords": [record, {}]}
    assert [*stored([json.dumps({"resourceLogs": [{"scopeLogs": [logs]}]}).encode()])] == [StoredEntry("", b"")] * 2


def test_hash_covers_the_whole_line(lines: list[bytes]) -> None:
    line = lines[0].rstrip(b"\n")
    assert is_unaltered(line)
    assert not is_unaltered(edited(line))
    assert not is_unaltered(line.replace(b'"hash":"', b'"hash":"0')[:-2] + b'"}')
