"""Fixtures that run the program in its own environment."""

import os
import subprocess
from pathlib import Path

import pytest
from support.command_line import Run, run_command


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment without settings of ours and CI's variables, and with empty folders."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FASTN_", "_FASTN_", "CI"))}
    folders = {name: str(tmp_path / name) for name in ("FASTN_CONFIG_DIR", "FASTN_STATE_DIR")}
    # Wide, so that no sentence is wrapped.
    return {**inherited, **folders, "COLUMNS": "200", "FASTN_APPROVAL_WAIT_SECONDS": "0"}


@pytest.fixture
def fastn(environment: dict[str, str]) -> Run:
    """Run the program to its end in this process, without a terminal."""

    def run(
        *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return run_command(arguments, environment | (env or {}), cwd)

    return run


@pytest.fixture
def home(tmp_path: Path, environment: dict[str, str]) -> Path:
    """Home folder with Cursor, and nothing else."""
    for name in ("XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "CODEX_HOME", "GEMINI_CLI_HOME"):
        environment.pop(name, None)
    environment |= {"HOME": str(tmp_path / "ann"), "PATH": "/usr/bin:/bin"}
    (tmp_path / "ann" / ".cursor").mkdir(parents=True)
    return tmp_path / "ann"
