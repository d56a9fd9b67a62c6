"""Output of commands fits the terminal, and a pipe gets whole lines."""

import pytest
from rich.cells import cell_len

from fastn_mcp.cli.layout import table

ROWS = [
    ("check", "verdict", "seen"),
    (
        "settings",
        "ok",
        "Set: api_key (the keyring). base_url https://live.fastn.ai, auth header, mode auto; no file",
    ),
    ("客户 list", "differs", "200 in {items}; the reference says {data}."),
]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_table_wraps_its_last_column_within_the_width(columns: int) -> None:
    header, settings, customers = table(ROWS, columns)
    assert header == "check      verdict  seen"
    assert customers.startswith("客户 list  differs  200 in {items}")
    first, *others = settings.split("\n")
    assert first.startswith("settings   ok       Set: api_key")
    assert bool(others) == (columns < 120)
    assert all(line.startswith(" " * 20) and line[20] != " " for line in others)
    assert all(cell_len(line) <= columns for text in table(ROWS, columns) for line in text.split("\n"))
    assert " ".join(settings.split()) == " ".join(" ".join(ROWS[1]).split())


def test_table_stacks_cells_if_columns_are_too_narrow() -> None:
    wide = [("profile", "host", "key"), ("acme", "a-rather-long-host-name.fastn.example", "the system's own keyring")]
    assert table(wide, 60) == [
        "", "acme\n  host: a-rather-long-host-name.fastn.example\n  key: the system's own keyring",
    ]  # fmt: skip


def test_table_in_a_pipe_escapes_line_breaks_and_tabs() -> None:
    assert table([("name", "value"), ("a\tb", "x" * 300 + "\n\x1b[2J")], None) == [
        "name\tvalue", "a\\u{9}b\t" + "x" * 300 + "\\u{a}\\u{1b}[2J",
    ]  # fmt: skip
