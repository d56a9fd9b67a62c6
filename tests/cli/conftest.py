"""The program as a person starts it: a process of its own, with an environment of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of this process's own environment, nothing that is a setting, nor that nobody is here; folders that are empty."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASTN_", "_FASTN_", "CI"))}
    folders = {name: str(tmp_path / name) for name in ("FASTN_CONFIG_DIR", "FASTN_STATE_DIR")}
    # Wide, so that no sentence is broken where a terminal would break it.
    return {**kept, **folders, "COLUMNS": "200"}


@pytest.fixture
def fastn(environment: dict[str, str]) -> Run:
    """Run it to its end, without a terminal."""

    def run(
        *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "fastn_mcp", *arguments],
            capture_output=True,
            text=True,
            env=environment | (env or {}),
            timeout=30,
            check=False,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        )

    return run
