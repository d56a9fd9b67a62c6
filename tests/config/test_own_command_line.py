"""How this program is started again at a shell. The lines themselves are run in tests/end_to_end and tests/cli."""

import shlex
import sys
from pathlib import Path

import pytest

from fastn_mcp.config.command_line import PROGRAM, CommandLine, kept_in, this_program, typed

HERE = CommandLine("/opt/venv/bin/fastn-mcp")


def test_shell_reads_a_command_line_as_it_was_built() -> None:
    program = CommandLine("/my tools/fastn-mcp", ("--sandbox-file", "it's $HOME"), (("FASTN_STATE_DIR", "/a b"),))
    words = ["FASTN_STATE_DIR=/a b", "/my tools/fastn-mcp", "--sandbox-file", "it's $HOME", "approvals"]
    assert shlex.split(program.with_(["approvals"]).line("linux")) == words
    shown = program.with_(["approvals"]).line("win32")
    assert shown == 'set "FASTN_STATE_DIR=/a b" && "/my tools/fastn-mcp" --sandbox-file "it\'s $HOME" approvals'


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_command_line_shows_no_password(platform: str) -> None:
    url = "valkeys://admin:C4N4RY@ledger.example"
    program = this_program(
        {"FASTN_LEDGER": url, "FASTN_API_KEY": "fsk_live_C4N4RY", "FASTN_STATE_SECRET": "C4N4RY" * 6}
    )
    shown = program.line(platform)
    assert "C4N4RY" not in shown
    assert shown.startswith('FASTN_LEDGER="${FASTN_LEDGER:?}" ') is (platform == "linux")


def test_command_line_carries_the_variables_of_account_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "FASTN_STATE_DIR": "state",
        "FASTN_PROFILE": "acme",
        "FASTN_LEDGER": "sqlite:a.db",
        "FASTN_MODE": "read-only",
    }
    program = this_program(given)
    carried = {"FASTN_STATE_DIR": f"{tmp_path}/state", "FASTN_PROFILE": "acme", "FASTN_LEDGER": f"{tmp_path}/a.db"}
    assert dict(program.variables) == carried
    assert dict(kept_in(program, tmp_path).variables) == {"FASTN_STATE_DIR": str(tmp_path)} | {
        "FASTN_LEDGER": f"{tmp_path}/a.db"
    }


@pytest.mark.posix
def test_program_is_named_without_a_path_only_if_any_shell_finds_it(tmp_path: Path) -> None:
    program = tmp_path / "venv" / "bin" / "fastn-mcp"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "fastn-mcp").symlink_to(program)
    here = CommandLine(str(program))
    assert typed(here, str(tmp_path / "fastn-mcp"), str(tmp_path / "venv")) == PROGRAM
    for found in (None, str(program), sys.executable):
        assert typed(here, found, str(tmp_path / "venv")) == here
