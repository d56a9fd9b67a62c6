"""MCP over the process's own pipes. Every request gets an answer, and the process always ends.

The SDK's own transport drops what it cannot parse, without an answer; hangs on SIGINT; leaves on SIGTERM without
cleaning up; and cancels calls in flight when the input ends (python-sdk #2678). Hence a transport of our own, on the
SDK's streams. The SDK itself is loaded once the introduction needs it.

A line that is too long is answered here, since nobody else may hold it. On pipes the event loop waits; from a file or
a terminal, for which it cannot, a thread reads.
"""

import os
import re
import signal
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus
from pydantic_core import from_json, to_json

from fastn_mcp.server.handshake import Introduction

if TYPE_CHECKING:
    from mcp.server import Server


LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of one message. A longer line is answered by an error and dropped."""

PARSE_ERROR = -32700

_WINDOWS = sys.platform == "win32"
_CHUNK = 256 * 1024
_HEAD = 4096
_ID = re.compile(rb'"id"\s*:\s*(-?\d{1,18}|"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]){0,200}")(?=\s*[,}])')


class Pipes:
    """File descriptors 0 and 1, taken away from everybody else.

    While it lives, fd 0 is empty and fd 1 goes to stderr: what a library prints cannot corrupt the wire.
    """

    def __init__(self) -> None:
        self._in, self._out = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._writing = anyio.Lock(fast_acquire=True)
        self._rest = b""
        self._gone = False
        self._idle = anyio.CancelScope()
        self.written = 0
        """Bytes. While it grows, somebody reads."""
        self._source = self._in if _WINDOWS or _is_pipe(self._in) else _piped(self._in)
        self._waits = _is_pipe(self._out) and not _WINDOWS
        if not _WINDOWS:
            os.set_blocking(self._source, False)
        if self._waits:
            os.set_blocking(self._out, False)

    @property
    def stuck(self) -> bool:
        """Whether a message waits for the reader."""
        return self._writing.locked() or bool(self._rest)

    @property
    def unread(self) -> bool:
        """Whether the client has not read all that was written to it. Where the system does not say, it has."""
        if self._gone or self.stuck:
            return True
        return self._waits and queued(self._out) > 0

    def restore(self) -> None:
        """Give the descriptors back."""
        if not _WINDOWS:
            os.set_blocking(self._source, True)
        if self._waits:
            os.set_blocking(self._out, True)
        os.dup2(self._in, 0)
        os.dup2(self._out, 1)

    async def lines(self) -> AsyncIterator[bytes]:
        """The lines of the input; one that is too long is answered and left out."""
        held = bytearray()
        too_long = b""  # the beginning of a line that is being left out
        while chunk := await self._read():
            *complete, rest = chunk.split(b"\n")
            for part in complete:
                line = bytes(held) + part
                held.clear()
                if too_long or len(line) > LONGEST_LINE:
                    problem = f"This message is longer than {LONGEST_LINE} bytes. Nothing was sent."
                    await self.write(error_line(id_in(too_long or line), PARSE_ERROR, problem))
                    too_long = b""
                    continue
                yield line
            if len(held) + len(rest) > LONGEST_LINE:
                too_long = too_long or bytes(held[:_HEAD]) or rest[:_HEAD]
                held.clear()
            else:
                held += rest
        if held:
            yield bytes(held)

    async def _read(self) -> bytes:
        """The next bytes; none once the input has ended, or nobody reads the answers any more."""
        if _WINDOWS:
            return await anyio.to_thread.run_sync(os.read, self._source, _CHUNK, abandon_on_cancel=True)
        while not self._gone:
            try:
                return os.read(self._source, _CHUNK)
            except BlockingIOError:
                with anyio.CancelScope() as self._idle:
                    await anyio.wait_readable(self._source)
            except ConnectionResetError:
                break
        return b""

    async def write(self, data: bytes) -> None:
        """Write whole messages only. A reader that has gone is no error of ours: it ends the input as well.

        What a cancelled writer has begun is ended by the next.
        """
        async with self._writing:
            left = memoryview(self._rest + data if self._rest else data)
            try:
                while left and not self._gone:
                    count = await self._write(left)
                    self.written += count
                    left = left[count:]
            except (BrokenPipeError, ConnectionResetError):
                self._gone = True
                self._idle.cancel()
            finally:
                self._rest = bytes(left)

    async def _write(self, view: memoryview) -> int:
        if not self._waits:
            return await anyio.to_thread.run_sync(os.write, self._out, view)
        while True:
            try:
                return os.write(self._out, view)
            except BlockingIOError:
                await anyio.wait_writable(self._out)


def id_in(line: bytes) -> str | int | None:
    """The id of a message that cannot be parsed, where it can still be told."""
    found = _ID.findall(line)
    if len(found) != 1:
        return None
    value: str | int = from_json(found[0])
    return value


def error_line(id_: str | int | None, code: int, message: str) -> bytes:
    return to_json({"jsonrpc": "2.0", "id": id_, "error": {"code": code, "message": message}}) + b"\n"


def _piped(descriptor: int) -> int:
    """A pipe that a thread fills from a file or a terminal, which the event loop cannot wait for.

    A daemon: one that waits for a terminal's next line must not keep the process from ending.
    """
    source, sink = os.pipe()

    def copy() -> None:
        with suppress(OSError):
            while chunk := os.read(descriptor, _CHUNK):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(sink, view) :]
        os.close(sink)

    threading.Thread(target=copy, daemon=True).start()
    return source


def queued(descriptor: int) -> int:
    """Bytes that were written to a pipe and not read, or to a socket and not received. 0 where only Linux would say."""
    if sys.platform != "linux":
        return 0
    import fcntl  # not on Windows
    import termios

    asks = termios.FIONREAD if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else termios.TIOCOUTQ
    return int.from_bytes(fcntl.ioctl(descriptor, asks, bytes(4)), sys.byteorder)


def _is_pipe(descriptor: int) -> bool:
    """Whether the event loop can wait for it."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def serve(begin: "Callable[[], Server[Any]]", introduction: Introduction | None = None) -> None:
    """Serve until the input ends, or until SIGINT or SIGTERM. `begin` makes the server, when it is first needed."""
    pipes = Pipes()
    try:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                await tasks.start(_stop_on_signal, tasks)  # before the first answer: a signal may follow it at once
            lines = pipes.lines()
            heard, answered = list[bytes](), set[object]()
            if introduction is None or await _introduce(introduction, lines, pipes, heard, answered):
                server = begin()
                from fastn_mcp.server.session import converse  # the SDK

                await converse(server, pipes, lines, heard, answered)
            tasks.cancel_scope.cancel()
    finally:
        pipes.restore()


async def _introduce(
    introduction: Introduction, lines: AsyncIterator[bytes], pipes: Pipes, heard: list[bytes], answered: set[object]
) -> bool:
    """Answer what can be answered beforehand, and note it. Whether the conversation goes on."""
    async for line in lines:
        heard.append(line)
        reply = introduction.reply(line)
        if reply is None:
            return True
        if reply.line:
            answered.add(reply.id)
            await pipes.write(reply.line)
        if reply.last:
            return True
    return False


async def _stop_on_signal(tasks: TaskGroup, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            tasks.cancel_scope.cancel()
            return
