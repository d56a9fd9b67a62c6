"""An audit log read from its end: over blocks and rotated files, from any entry, beside a process that writes."""

import gzip
from itertools import islice
from pathlib import Path

import pytest
from support.audit_entries import entries
from support.long_log import write_log

from fastn_mcp.audit.files import lines_of, log_files, parsed
from fastn_mcp.audit.reader import Entry, newest_first


def numbers(log: Path, below: int | None = None) -> list[int]:
    def is_later(entry: Entry) -> bool:
        return int(str(entry["n"])) >= (below or 0)

    lines = newest_first(log, None if below is None else is_later)
    return [int(str(entry["n"])) for line in lines if (entry := parsed(line)) is not None]


@pytest.mark.parametrize("per_file", [None, 7, 150])
def test_log_is_read_backwards_over_all_its_files(path: Path, per_file: int | None) -> None:
    write_log(path, 600, per_file=per_file)
    lines = [line.rstrip(b"\n") for line in lines_of(log_files(path))]
    assert list(newest_first(path)) == lines[::-1]


@pytest.mark.parametrize("per_file", [None, 50])
def test_reading_begins_before_any_entry(path: Path, per_file: int | None) -> None:
    write_log(path, 120, per_file=per_file)
    last = max(int(str(entry["n"])) for entry in entries(path))
    for below in range(1, last + 3):
        assert numbers(path, below) == list(range(min(below - 1, last), 0, -1)), below


def test_unfinished_last_line_is_read_once_it_is_finished(path: Path) -> None:
    write_log(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert numbers(path)[0] == len(whole.splitlines()) - 1
    path.write_bytes(whole)
    assert numbers(path)[0] == len(whole.splitlines())


def test_log_that_was_just_rotated_is_read_from_its_newest_file(path: Path) -> None:
    write_log(path, 30, per_file=10)
    newest = max(numbers(path))
    path.rename(path.with_name("audit.latest.jsonl"))
    assert numbers(path) == list(range(newest, 0, -1))


def test_reading_ends_at_a_compressed_file(path: Path) -> None:
    write_log(path, 35, per_file=10)
    oldest = path.with_name("audit.000000010.jsonl")
    with gzip.open(f"{oldest}.gz", "wb") as packed:
        packed.write(oldest.read_bytes())
    oldest.unlink()
    assert min(numbers(path)) == 11


def test_damaged_lines_do_not_stop_the_search_for_an_entry(path: Path) -> None:
    write_log(path, 100)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[40:60] = [b"\0" * 500 + b"\n", b"[" * 100_000 + b"\n", b"\xff\xfe{}\n"]
    path.write_bytes(b"".join(lines))
    for below in (30, 45, 60, 80):
        expected = [n for n in range(below - 1, 0, -1) if not 40 < n <= 60]
        assert numbers(path, below) == expected


def test_lines_longer_than_a_block_are_whole(path: Path) -> None:
    lines = [b'{"event":"%s"}' % (letter * 200_000) for letter in (b"a", b"b", b"c")]
    path.parent.mkdir()
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert list(islice(newest_first(path), 3)) == lines[::-1]


def test_missing_log_has_no_lines(path: Path) -> None:
    assert list(newest_first(path)) == []
