"""Pipes of a stdio server: whole lines in, whole messages out, and answers to lines that cannot be parsed.

An oversized line is answered here, so that it is never in memory as a whole. Pipes are polled by the event loop. Files
and terminals, which it cannot poll, are read by a thread.
"""

import asyncio
import os
import re
import stat
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import anyio.to_thread
from pydantic_core import from_json, to_json

from fastn_mcp.runtime import unread_bytes

MAX_LINE = 4 * 1024 * 1024
"""Maximum bytes of a message. A longer line is answered with an error and dropped."""

PARSE_ERROR = -32700

_WINDOWS = sys.platform == "win32"
_CHUNK = 256 * 1024
_HEAD = 4096
_ID = re.compile(rb'"id"\s*:\s*(-?\d{1,18}|"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]){0,200}")(?=\s*[,}])')


class Pipes:
    """Exclusive use of file descriptors 0 and 1.

    Meanwhile fd 0 is empty and fd 1 goes to stderr, so that a library that prints cannot corrupt the protocol.
    """

    def __init__(self) -> None:
        self._in = os.dup(0)
        self._out = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._writing = anyio.Lock(fast_acquire=True)
        self._unwritten = b""
        self._closed = False
        self.ended = asyncio.Event()
        """Set once the input has ended."""
        self.written = 0
        """Bytes written. While it grows, the client reads."""
        self._source = self._in if _WINDOWS or _is_pipe(self._in) else _pipe_from(self._in)
        self._is_pollable = _is_pipe(self._out) and not _WINDOWS
        if not _WINDOWS:
            os.set_blocking(self._source, False)
        if self._is_pollable:
            os.set_blocking(self._out, False)

    @property
    def is_blocked(self) -> bool:
        """Whether a message waits to be written."""
        return self._writing.locked() or bool(self._unwritten)

    @property
    def has_unread(self) -> bool:
        """Whether the client has unread output. False if the system cannot tell."""
        if self._closed or self.is_blocked:
            return True
        return self._is_pollable and unread_bytes(self._out) > 0

    def restore(self) -> None:
        if not _WINDOWS:
            os.set_blocking(self._source, True)
        if self._is_pollable:
            os.set_blocking(self._out, True)
        os.dup2(self._in, 0)
        os.dup2(self._out, 1)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines of the input. Oversized lines are answered with an error and skipped."""
        buffer = bytearray()
        too_long = b""  # the beginning of a line that is being skipped
        while chunk := await self._read():
            *complete, rest = chunk.split(b"\n")
            for part in complete:
                line = bytes(buffer) + part
                buffer.clear()
                if too_long or len(line) > MAX_LINE:
                    problem = f"This message is longer than {MAX_LINE} bytes. Nothing was sent."
                    await self.write(error_line(id_in(too_long or line), PARSE_ERROR, problem))
                    too_long = b""
                    continue
                yield line
            if len(buffer) + len(rest) > MAX_LINE:
                too_long = too_long or bytes(buffer[:_HEAD]) or rest[:_HEAD]
                buffer.clear()
            else:
                buffer += rest
        if buffer:
            yield bytes(buffer)
        self.ended.set()

    async def _read(self) -> bytes:
        """Read the next bytes. Return b"" once the input has ended or the output is closed."""
        if _WINDOWS:
            return await anyio.to_thread.run_sync(os.read, self._source, _CHUNK, abandon_on_cancel=True)
        while not self._closed:
            try:
                return os.read(self._source, _CHUNK)
            except BlockingIOError:
                with suppress(anyio.ClosedResourceError):  # the output was closed
                    await anyio.wait_readable(self._source)
            except ConnectionResetError:
                break
        return b""

    async def write(self, data: bytes) -> None:
        """Write whole messages only. A closed output is not an error; it ends the input too.

        If a writer is cancelled, the next one completes its message.
        """
        async with self._writing:
            remaining = memoryview(self._unwritten + data if self._unwritten else data)
            try:
                while remaining and not self._closed:
                    count = await self._write(remaining)
                    self.written += count
                    remaining = remaining[count:]
            except (BrokenPipeError, ConnectionResetError):
                self._closed = True
                anyio.notify_closing(self._source)
            finally:
                self._unwritten = bytes(remaining)

    async def _write(self, view: memoryview) -> int:
        if not self._is_pollable:
            return await anyio.to_thread.run_sync(os.write, self._out, view)
        while True:
            try:
                return os.write(self._out, view)
            except BlockingIOError:
                await anyio.wait_writable(self._out)


def id_in(line: bytes) -> str | int | None:
    """Return the id of an unparsable message, or None if it is not unambiguous."""
    ids = _ID.findall(line)
    if len(ids) != 1:
        return None
    value: str | int = from_json(ids[0])
    return value


def error_line(id_: str | int | None, code: int, message: str) -> bytes:
    return to_json({"jsonrpc": "2.0", "id": id_, "error": {"code": code, "message": message}}) + b"\n"


def _pipe_from(descriptor: int) -> int:
    """Return a pipe that a thread fills from a file or a terminal, which the event loop cannot poll.

    The thread is a daemon, so that it cannot delay the exit while it waits for a terminal.
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


def _is_pipe(descriptor: int) -> bool:
    """Whether the event loop can poll the descriptor."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
