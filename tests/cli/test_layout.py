"""Output of commands fits the terminal, and a pipe gets whole lines."""

from collections.abc import Sequence

import click
import pytest
from rich.cells import cell_len

from fastn_mcp.cli.layout import print_table, say, warn

SETTINGS = "Set: api_key (the keyring). base_url https://live.fastn.ai, auth header, mode auto; no file"
ROWS = [
    ("check", "verdict", "finding"),
    ("settings", "ok", SETTINGS),
    ("客户 list", "differs", "200 in {items}; [bold]the reference[/] says {data}."),
]


def printed(rows: Sequence[Sequence[str]]) -> None:
    with click.Context(click.Command("table")):
        print_table(rows)


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_table_wraps_its_last_column_within_the_width(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastn_mcp.cli.layout.columns_of", lambda: columns)
    monkeypatch.setenv("COLUMNS", str(columns))
    printed(ROWS)
    lines = capsys.readouterr().out.splitlines()
    header, first, *others = lines
    assert header.rstrip() == "check      verdict  finding"
    assert first.startswith("settings   ok       Set: api_key")
    assert all(cell_len(line) <= columns for line in lines)
    wrapped = [line for line in others if not line.startswith("客户 list  differs  200 in {items}; [bold]the")]
    assert bool(wrapped) == (columns < 140)
    assert all(line.startswith(" " * 20) and line[20] != " " for line in wrapped)
    assert SETTINGS in " ".join(line[20:].strip() for line in lines)


def test_table_in_a_pipe_escapes_line_breaks_and_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    printed([("name", "value"), ("a\tb", "x" * 300 + "\n\x1b[2J")])
    assert capsys.readouterr().out == "name\tvalue\na\\u{9}b\t" + "x" * 300 + "\\u{a}\\u{1b}[2J\n"


def test_rows_of_a_narrow_terminal_stand_below_their_first_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastn_mcp.cli.layout.columns_of", lambda: 40)
    printed([("profile", "base_url", "env"), ("acme-production", "https://fastn.acme.example", "prod:key:eu")])
    assert capsys.readouterr().out == ("acme-production\n  base_url: https://fastn.acme.example\n  env: prod:key:eu\n")


def test_text_between_colons_is_no_emoji(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("fastn_mcp.cli.layout.columns_of", lambda: 80)
    printed([("profile", "env"), ("live", "prod:key:eu")])
    assert "prod:key:eu" in capsys.readouterr().out


def test_line_break_in_a_line_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    say("a name\nof two lines", "")
    warn("another\x1b[2J")
    assert capsys.readouterr() == ("a name\\u{a}of two lines\n\n", "fastn-mcp: another\\u{1b}[2J\n")
