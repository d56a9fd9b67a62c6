"""A person at a terminal, asked on the terminal itself and never through a pipe."""

import os
import sys
from typing import TextIO

import anyio.to_thread

from fastn_mcp.guard.question import Answer, No, Nobody, Question, Yes


class Terminal:
    """Asks on the controlling terminal of this process."""

    name = "terminal"
    resumed = None

    def __init__(self, reading: TextIO, writing: TextIO) -> None:
        self._reading = reading
        self._writing = writing

    @classmethod
    def here(cls) -> "Terminal | None":
        """The terminal, where a person can be taken to sit at one: input and output both are terminals."""
        if sys.stdin.isatty() and sys.stderr.isatty() and not os.environ.get("CI"):
            return cls(sys.stdin, sys.stderr)
        return None

    async def ask(self, question: Question) -> Answer:
        prompt = "> " if question.expected is not None else "[y/N] > "
        self._writing.write(f"\n{question.text}\n{prompt}")
        self._writing.flush()
        line = await anyio.to_thread.run_sync(self._reading.readline, abandon_on_cancel=True)
        if not line:
            return Nobody("the terminal was closed")
        if question.expected is not None:
            return Yes(line.strip())
        return Yes() if line.strip().casefold() in ("y", "yes") else No()
