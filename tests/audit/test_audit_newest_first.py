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
def test_log_is_read_backwards_over_all_its_files(tmp_path: Path, per_file: int | None) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 600, per_file=per_file)
    lines = [line.rstrip(b"\n") for line in lines_of(log_files(log))]
    assert list(newest_first(log)) == lines[::-1]


@pytest.mark.parametrize("per_file", [None, 50])
def test_reading_begins_before_any_entry(tmp_path: Path, per_file: int | None) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 120, per_file=per_file)
    last = max(int(str(entry["n"])) for entry in entries(log))
    for below in range(1, last + 3):
        assert numbers(log, below) == list(range(min(below - 1, last), 0, -1)), below


def test_unfinished_last_line_is_read_once_it_is_finished(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 3)
    whole = log.read_bytes()
    log.write_bytes(whole[:-1])
    assert numbers(log)[0] == len(whole.splitlines()) - 1
    log.write_bytes(whole)
    assert numbers(log)[0] == len(whole.splitlines())


def test_log_that_was_just_rotated_is_read_from_its_newest_file(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 30, per_file=10)
    newest = max(numbers(log))
    log.rename(tmp_path / "audit.latest.jsonl")
    assert numbers(log) == list(range(newest, 0, -1))


def test_reading_ends_at_a_compressed_file(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 35, per_file=10)
    oldest = tmp_path / "audit.000000010.jsonl"
    with gzip.open(f"{oldest}.gz", "wb") as packed:
        packed.write(oldest.read_bytes())
    oldest.unlink()
    assert min(numbers(log)) == 11


def test_damaged_lines_do_not_stop_the_search_for_an_entry(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    write_log(log, 100)
    lines = log.read_bytes().splitlines(keepends=True)
    lines[40:60] = [b"\0" * 500 + b"\n", b"[" * 100_000 + b"\n", b"\xff\xfe{}\n"]
    log.write_bytes(b"".join(lines))
    for below in (30, 45, 60, 80):
        expected = [n for n in range(below - 1, 0, -1) if not 40 < n <= 60]
        assert numbers(log, below) == expected


def test_lines_longer_than_a_block_are_whole(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    lines = [b'{"event":"%s"}' % (letter * 200_000) for letter in (b"a", b"b", b"c")]
    log.write_bytes(b"\n".join(lines) + b"\n")
    assert list(islice(newest_first(log), 3)) == lines[::-1]


def test_missing_log_has_no_lines(tmp_path: Path) -> None:
    assert list(newest_first(tmp_path / "audit.jsonl")) == []
