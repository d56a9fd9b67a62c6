"""A person before a program at a real terminal: sees what it shows, and types."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

import pytest

pytest.importorskip("pty", reason="Windows has no such terminals")
import pty

from support.forkserver import can_fork, forked

_PATIENCE = 120.0
"""Seconds. A busy machine takes half a minute to import an agent framework."""
_BEGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes the terminal the controlling one, as a login does, and becomes the program."""


class Person:
    """Sits at `terminal`, before `program`. What was shown is read once."""

    def __init__(self, program: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.program = program
        self.shown = ""
        """All that was shown so far."""
        self._terminal = terminal
        self._read = 0

    def sees(self, text: str) -> str:
        """Wait until `text` is shown; what was shown since the last look, up to its end."""
        until = time.monotonic() + _PATIENCE
        while (at := self.shown.find(text, self._read)) < 0:
            assert self._more(until), f"{text!r} was never shown, but this was:\n{self.shown[self._read :]}"
        begin, self._read = self._read, at + len(text)
        return self.shown[begin : self._read]

    def types(self, text: str) -> None:
        """Type; `\\r` is Enter, `\\x03` is Ctrl-C, `\\x04` ends the input."""
        os.write(self._terminal, text.encode())

    def answers(self, question: str, answer: str) -> str:
        """Wait until `question` is shown, and type the answer and Enter; what was shown up to the question's end."""
        shown = self.sees(question)
        self.types(f"{answer}\r")
        return shown

    def leaves(self) -> tuple[int, str]:
        """Wait for the end of the program: its exit code, and what was shown since the last look."""
        until = time.monotonic() + _PATIENCE
        while self._more(until):
            pass
        return self.program.wait(_PATIENCE), self.shown[self._read :]

    def gives_up(self, key: str = "\x03") -> tuple[int, str]:
        """Press `key` until the program ends. A Ctrl-C just before a read begins is noticed with the next (Python)."""
        until = time.monotonic() + _PATIENCE
        while self.program.poll() is None and time.monotonic() < until:
            self.types(key)
            while self._more(time.monotonic() + 5):
                pass
        return self.leaves()

    def _more(self, until: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], max(0.0, until - time.monotonic()))
        try:
            data = os.read(self._terminal, 65536) if ready else b""
        except OSError:  # how Linux says that nobody has the terminal open any more
            data = b""
        self.shown += data.decode().replace("\r\n", "\n")
        return data != b""


@contextmanager
def sitting(
    program: Sequence[str], env: Mapping[str, str] | None = None, stdout: IO[bytes] | None = None
) -> Generator[Person]:
    """A person at a new terminal on which `python PROGRAM...` runs, with its stdout there or in a file."""
    # Without site, which would measure coverage.
    command = [sys.executable, "-S", "-c", _BEGIN, sys.executable, *program]
    if program[:2] == ["-m", "fastn_mcp"] and "PYTHONPATH" not in (env or {}) and can_fork():  # it counts at a start
        command = forked(*program[2:])
    ours, theirs = pty.openpty()
    quiet = {name: value for name, value in os.environ.items() if name != "CI"}
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=stdout or theirs,
        stderr=theirs,
        start_new_session=True,
        env={**quiet, "TERM": "xterm", "COLUMNS": "200", **(env or {})},
    )
    os.close(theirs)
    try:
        yield Person(process, ours)
    finally:
        process.kill()
        process.wait(_PATIENCE)
        os.close(ours)
