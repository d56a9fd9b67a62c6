"""Fixtures: a served sandbox, and an empty folder in which a shell runs the lines of a page."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.forkserver import forked
from support.server_process import KEY, Upstream

__all__ = ["Shell", "shell", "signed_in"]


@dataclass
class Shell:
    """A shell in an empty folder, which is its HOME, with `fastn-mcp` and no variables but PATH, HOME and
    `variables`."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        programs = self.folder / ".local" / "bin"
        programs.mkdir(parents=True)
        program = programs / "fastn-mcp"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(forked())} "$@"\n')
        program.chmod(0o755)
        self.path = f"{programs}:/usr/bin:/bin"

    def run(
        self, line: str, env: Mapping[str, str] | None = None, *, cwd: Path | None = None, given: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a line. `env` are all of its variables, if given."""
        if env is None:
            env = {"PATH": self.path, "HOME": str(self.folder), **self.variables}
        command = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in env.items()), "/bin/sh", "-c", line]
        return subprocess.run(
            command, cwd=cwd or self.folder, input=given, capture_output=True, text=True, timeout=300, check=False
        )

    def does(self, line: str, **more: str) -> str:
        """Run a line that has to succeed. Returns what it prints, on both outputs."""
        done = self.run(line, given=more.get("given", ""))
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @property
    def state(self) -> Path:
        return self.folder / ".local" / "state" / "fastn-mcp"

    @property
    def config(self) -> Path:
        return self.folder / ".config" / "fastn-mcp"


def signed_in(folder: Path, upstream: Upstream) -> Shell:
    """A shell of a person who has signed in to the served sandbox, with the key in a file."""
    if os.name == "nt" or sys.platform == "darwin":
        pytest.skip("the pages name the folders of Linux")
    made = Shell(folder / "home", {"FASTN_APPROVAL_WAIT_SECONDS": "0"})
    made.config.mkdir(parents=True, mode=0o700)
    (made.config / "config.toml").write_text(f'base_url = "{upstream.url}"\n')
    made.does("fastn-mcp login --file --stdin", given=KEY)
    return made


@pytest.fixture
def shell(tmp_path: Path, upstream: Upstream) -> Shell:
    return signed_in(tmp_path, upstream)
