"""Approval at a real terminal, never through a pipe.

A program that can allocate a terminal can also type on it. This distinguishes a person from a pipe, not from a program.
"""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from getpass import getpass
from unicodedata import east_asian_width

import anyio
import anyio.to_thread

from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.guard.approval_form import (
    MAX_NOTE,
    Answer,
    Approve,
    Decline,
    NoAnswer,
    accepted_texts,
    form_lines,
    instruction,
    typed_noun,
    what_to_type,
)
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest
from fastn_mcp.redaction import sanitize


class TerminalChannel(Channel):
    """Channel for requests that wait for `fastn-mcp approvals` at any terminal of the state folder's owner."""

    name = "terminal"

    def __init__(self, command: str, computer: str = "on this computer") -> None:
        self._place = f"at a terminal {computer} (`{command}`)"

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(takes_secrets=True)

    async def ask(self, request: ApprovalRequest) -> Announcement:  # noqa: ARG002 - the same for every request
        return Announcement((self._place,))


def wrapped(text: str, columns: int, indent: int = 2, *, whole_words: bool = False) -> str:
    """Wrap text between words to at most `columns`.

    Continuation lines are indented by `indent` more than their first, so that no value can imitate the start of a line.
    With `whole_words`, words longer than a line are not split, so that a command or a path can be copied.
    """
    return "\n".join(
        each for line in text.split("\n") for each in _lines(line, columns, indent, whole_words=whole_words)
    )


def _lines(line: str, columns: int, indent: int, *, whole_words: bool) -> Iterator[str]:
    hanging = " " * (len(line) - len(line.lstrip(" ")) + indent)
    current = ""
    for word in re.findall(r" *[^ ]+", line):
        if current and _cells(current) + _cells(word) > columns:
            yield current
            word = hanging + word.lstrip(" ")
            current = ""
        current += word
        while not whole_words and _cells(current) > columns > max(2 * len(hanging), 1):  # a wide letter takes two
            fits = next(n for n in range(len(current), 0, -1) if _cells(current[:n]) <= columns)
            yield current[:fits]
            current = hanging + current[fits:]
    yield current


def _cells(text: str) -> int:
    """Upper bound of the terminal columns of a text."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


_CLOSED = NoAnswer("the terminal was closed")
_LEFT_WAITING = NoAnswer("it was left waiting")
_MAX_COLUMNS = 100
"""Maximum columns of a line, however wide the terminal is."""
_MAX_LINE = 4095 if sys.platform == "linux" else 1023
"""Bytes of a line from which on a terminal may have cut it."""
_ANSWER_COLUMNS = 10
"""Columns for the answer after a prompt."""


class Terminal(Channel):
    """Channel that asks at one terminal. `device` is its file descriptor, open for reading and writing."""

    name = "terminal"

    def __init__(self, device: int) -> None:
        self._device = device

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(notifies=True, takes_secrets=True, is_terminal=True)

    @classmethod
    def here(cls) -> "Terminal | None":
        """Return the controlling terminal if a person can be assumed to use it, or None.

        Both stdin and stderr have to be terminals, and the process has to be in the foreground.
        """
        if os.environ.get("CI") or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        if sys.platform == "win32":
            return cls(sys.stderr.fileno())
        try:
            # Raises OSError if stdin is not the controlling terminal.
            if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
                return None
            # Opened by its own name: macOS cannot poll /dev/tty.
            return cls(os.open(os.ttyname(sys.stdin.fileno()), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return None

    def say(self, text: str) -> None:
        """Print sanitized text, wrapped between words. It cannot move the cursor or hide anything."""
        lines = wrapped("\n".join(sanitize(line) for line in text.split("\n")), self._columns())
        data = f"{lines}\n".encode()
        while data:
            data = data[os.write(self._device, data) :]

    async def line(self, prompt: str, *, is_hidden: bool = False) -> str | None:
        """Read a line, stripped of surrounding spaces. Return None at Ctrl-D or if the terminal was closed."""
        question = f"{wrapped(f'{prompt} >', self._columns() - _ANSWER_COLUMNS)} ".encode()
        if is_hidden:
            return await self._hidden(question)
        os.write(self._device, question)
        typed = await self._typed()
        return typed.strip() if typed else None

    def _columns(self) -> int:
        try:
            columns = os.get_terminal_size(self._device).columns
        except OSError:
            columns = 0
        return min(columns or 80, _MAX_COLUMNS)

    async def ask(self, request: ApprovalRequest, *further: str, may_wait: bool = False) -> Answer:
        """Ask and wait for the answer, with `further` lines in the text.

        With `may_wait`, Enter alone leaves the request undecided: `NoAnswer`.
        """
        self._discard_input()
        lines = form_lines(request, str(TEMPORARY_MINUTES), *further)
        if request.expected is None:  # or the prompt says it
            lines.append(instruction(request))
        self.say("\n".join(["", *lines]))
        answer = await self._ask_decision(request, may_wait=may_wait)
        if isinstance(answer, Approve) and request.typed is not None:
            return await self._ask_secret(answer, request.typed)
        return answer

    async def _ask_secret(self, approved: Approve, secret: TypedArgument) -> Answer:
        """Ask for what an approval takes besides, without echo. It approves nothing until all of it is typed."""
        while True:
            typed: dict[str, str] = {}
            for field in secret.fields:
                end = "not shown as you type" if field.is_hidden else "shown"
                line = await self.line(f"the {secret.prompt(field)} ({end})", is_hidden=field.is_hidden)
                if line is None:
                    return self._unanswered()
                typed[field.name] = line
            try:
                return replace(approved, secret=secret.value(typed))
            except ValueError as problem:
                self.say(f"Nothing is approved yet: {problem}")
            if not any(typed.values()):
                return _LEFT_WAITING

    async def _ask_decision(self, request: ApprovalRequest, *, may_wait: bool) -> Answer:
        """Ask for a choice, or for what has to be typed to approve."""
        expected = request.expected
        minutes = str(TEMPORARY_MINUTES) if request.can_be_temporary else None
        noun = typed_noun(request)
        wrong = "That is not the name" if noun == "name" else f"Those are not the {noun}"
        again = f"{wrong}. Type it again, or n to decline."
        enter = "n to decline, or press Enter to leave it waiting" if may_wait else "or press Enter to decline"
        prompt = f"{what_to_type(request)}, {enter}" if expected is not None else ""
        if expected is None:
            again = "That is not one of the choices."
            temporarily = [] if minutes is None else [f"{minutes} = approve, and the same for {minutes} minutes"]
            enter = "Enter = leave it waiting" if may_wait else "Enter = decline"
            prompt = ", ".join(["y = approve", *temporarily, "n = decline", enter])
        while (typed := await self.line(prompt)) is not None:
            if not typed and may_wait:
                return _LEFT_WAITING
            match typed.casefold():
                case "" | "n" | "no":
                    return await self._decline()
                case "y" | "yes" if expected is None:
                    return Approve()
                case choice if expected is None and choice == minutes:
                    return Approve(is_temporary=True)
                # Spaces at either end of the line were stripped.
                case _ if expected is not None and typed in map(str.strip, accepted_texts(expected)):
                    return Approve(expected)
                case _:
                    self.say(again)
        return self._unanswered()

    def _unanswered(self) -> Answer:
        """Return the answer where a line has ended without one: Ctrl-D declines, a closed terminal answers nothing."""
        if not os.isatty(self._device):
            return _CLOSED
        os.write(self._device, b"\n")
        return Decline("")

    async def _decline(self) -> Answer:
        note = await self.line("A note for the agent, or Enter")
        return Decline((note or "")[:MAX_NOTE])

    if sys.platform == "win32":

        def _discard_input(self) -> None:
            import msvcrt

            while msvcrt.kbhit():
                msvcrt.getwch()

        async def _typed(self) -> str:
            return await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)

        async def _hidden(self, prompt: bytes) -> str | None:
            os.write(self._device, prompt)
            return await anyio.to_thread.run_sync(getpass, "", abandon_on_cancel=True)
    else:

        def _discard_input(self) -> None:
            """Drop input typed before the question was shown, since it does not answer it."""
            import termios

            termios.tcflush(self._device, termios.TCIFLUSH)

        async def _typed(self) -> str:
            # Poll and do not read in a thread, which would delay the exit of the process.
            typed = b""
            while not typed.endswith(b"\n"):
                await anyio.wait_readable(self._device)
                try:
                    read = os.read(self._device, 4096)
                except OSError:  # the terminal was closed
                    return ""
                if not read:
                    break
                typed += read
            return typed.decode(errors="replace")

        async def _hidden(self, prompt: bytes) -> str | None:
            """Read a line without echo. A line that the terminal may have cut is typed anew."""
            import termios

            before = termios.tcgetattr(self._device)
            silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
            termios.tcsetattr(self._device, termios.TCSAFLUSH, silent)
            try:
                while True:
                    os.write(self._device, prompt)
                    typed = await self._typed()
                    os.write(self._device, b"\n")
                    if len(typed.encode()) < _MAX_LINE:
                        return typed.rstrip("\r\n") if typed else None
                    self.say("A line at a terminal cannot be that long: use the approval page, or a shorter value.")
            finally:
                termios.tcsetattr(self._device, termios.TCSANOW, before)
