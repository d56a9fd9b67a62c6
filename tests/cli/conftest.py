"""The program with an environment of its own."""

import os
import subprocess
from pathlib import Path

import pytest
from command_line import Run, run_command


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of this process's own environment, nothing that is a setting, nor that nobody is here; folders that are empty."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASTN_", "_FASTN_", "CI"))}
    folders = {name: str(tmp_path / name) for name in ("FASTN_CONFIG_DIR", "FASTN_STATE_DIR")}
    # Wide, so that no sentence is broken where a terminal would break it.
    return {**kept, **folders, "COLUMNS": "200"}


@pytest.fixture
def fastn(environment: dict[str, str]) -> Run:
    """Run it to its end, without a terminal, in this process."""

    def run(
        *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return run_command(arguments, environment | (env or {}), cwd)

    return run
