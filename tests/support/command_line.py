"""The program run in this process: arguments and an environment in, the exit code and both outputs out.

A process of its own imports for a quarter of a second. Tests of signals, terminals, pipes and start-up start one.
"""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from logging import Logger
from pathlib import Path
from types import ModuleType
from typing import TextIO

import pytest

from fastn_mcp.cli.exit import run as run_to_end
from fastn_mcp.cli.program import cli

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def run_command(
    arguments: Sequence[str], env: Mapping[str, str], cwd: Path | None = None, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run `fastn-mcp` to its end, without a terminal, with `given` as its standard input."""
    written, encoding = (io.BytesIO(), io.BytesIO()), env.get("PYTHONIOENCODING", "utf-8")
    stdout, stderr = (io.TextIOWrapper(output, encoding=encoding) for output in written)
    read = io.BytesIO(given.encode())
    read.name = "<stdin>"
    stdin = io.TextIOWrapper(read, encoding=encoding)
    with _as_process(arguments, dict(env), cwd, (stdin, stdout, stderr)), pytest.raises(SystemExit) as ended:
        run_to_end(cli)
    code = ended.value.code
    assert isinstance(code, int)
    stdout.flush()
    stderr.flush()
    return subprocess.CompletedProcess(arguments, code, *(output.getvalue().decode(encoding) for output in written))


def run_process(
    command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program as a process of its own to its end, without input."""
    return subprocess.run(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )


def error_line(done: "subprocess.CompletedProcess[str]", *parts: str, code: int = 2, stdout: str | None = "") -> str:
    """Check the exit code, stdout (None: any), and the only line on stderr, and return that line without its beginning.

    The line has all of the parts, and shows nothing that is marked as secret by C4N4RY.
    """
    assert done.returncode == code, done.stderr
    assert done.stdout == stdout or stdout is None
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastn-mcp: ")
    assert "C4N4RY" not in line
    assert [part for part in parts if part not in line] == [], line
    return line.removeprefix("fastn-mcp: ")


@contextmanager
def _as_process(
    arguments: Sequence[str], env: Mapping[str, str], cwd: Path | None, streams: tuple[TextIO, TextIO, TextIO]
) -> Generator[None]:
    """Give the program what a process of its own would have, and take back what it changes of this one."""
    before = sys.argv, (sys.stdin, sys.stdout, sys.stderr), dict(os.environ), Path.cwd()
    loggers = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, Logger)]
    logged = [(logger, logger.level, list(logger.handlers)) for logger in (logging.getLogger(), *loggers)]
    imported = _forget_keyring()
    try:
        _become(["fastn-mcp", *arguments], streams, env, cwd or before[3])
        yield
    finally:
        _become(*before)
        _forget_keyring()
        sys.modules.update(imported)
        logging.captureWarnings(False)
        for logger, level, handlers in logged:
            logger.setLevel(level)
            logger.handlers[:] = handlers


def _become(arguments: list[str], streams: tuple[TextIO, TextIO, TextIO], env: Mapping[str, str], folder: Path) -> None:
    sys.argv = arguments
    sys.stdin, sys.stdout, sys.stderr = streams
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)


def _forget_keyring() -> dict[str, ModuleType]:
    """Make the library choose its backend anew when it is imported; returns what was imported."""
    return {name: sys.modules.pop(name) for name in ("keyring", "keyring.core") if name in sys.modules}
