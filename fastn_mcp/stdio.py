"""MCP over this process's own pipes. Every request gets an answer, and the process always ends.

The SDK's own transport drops what it cannot parse, without an answer; hangs on SIGINT; leaves on SIGTERM without
cleaning up; and cancels calls in flight when the input ends (python-sdk #2678). Hence a transport of our own, on the
SDK's streams.
"""

import os
import re
import signal
import stat
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from mcp.server import Server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import from_json, to_json

LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of one message. A longer line is answered by an error and dropped."""

DRAIN = 5.0
"""Seconds without an answer written after which, once the input has ended, nothing more is waited for."""

_WINDOWS = sys.platform == "win32"
_CHUNK = 256 * 1024
_HEAD = 4096
_ID = re.compile(rb'"id"\s*:\s*(-?\d{1,18}|"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]){0,200}")(?=\s*[,}])')


async def serve(server: Server[Any]) -> None:
    """Serve until the input ends, or until SIGINT or SIGTERM."""
    wire = _Wire()
    try:
        async with anyio.create_task_group() as tasks:
            if not _WINDOWS:
                tasks.start_soon(_stop_on_signal, tasks)
            await _serve(server, wire)
            tasks.cancel_scope.cancel()
    finally:
        wire.restore()


async def _stop_on_signal(tasks: TaskGroup) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            tasks.cancel_scope.cancel()
            return


async def _serve(server: Server[Any], wire: "_Wire") -> None:
    to_server, incoming = create_context_streams[SessionMessage | Exception](0)
    outgoing, from_server = create_context_streams[SessionMessage](0)
    unanswered = _Unanswered(wire)

    async def receive() -> None:
        async with to_server:
            async for line in wire.lines():
                message = await _parsed(line, wire)
                if message is not None:
                    unanswered.heard(message)
                    await to_server.send(SessionMessage(message))
            # As soon as its input closes, the SDK cancels what is in flight and answers it with an error.
            if not await unanswered.settled() and wire.stuck:
                tasks.cancel_scope.cancel()  # nobody would read that either

    async def send() -> None:
        async with from_server:
            async for outbound in from_server:
                message = outbound.message
                await wire.write(message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                unanswered.said(message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        tasks.start_soon(send)
        await server.run(incoming, outgoing, server.create_initialization_options())


class _Unanswered:
    """The requests that have no answer yet."""

    def __init__(self, wire: "_Wire") -> None:
        self._wire = wire
        self._ids: set[object] = set()
        self._none = anyio.Event()

    def heard(self, message: JSONRPCMessage) -> None:
        """A request counts until it is answered, or until the client says that it waits no more."""
        if isinstance(message, JSONRPCRequest) and message.method != "subscriptions/listen":
            self._ids.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            given = (message.params or {}).get("requestId")
            self._ids.discard(given if isinstance(given, (str, int)) else None)

    def said(self, message: JSONRPCMessage) -> None:
        """An answer has been written."""
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            self._ids.discard(message.id)
        if not self._ids:
            self._none.set()

    async def settled(self) -> bool:
        """Whether all are answered. A slow reader is waited for; a call that hangs, or a reader that does, is not."""
        self._none = anyio.Event()
        while self._ids:
            written = self._wire.written
            with anyio.move_on_after(DRAIN):
                await self._none.wait()
            if self._wire.written == written:
                break
        return not self._ids


async def _parsed(line: bytes, wire: "_Wire") -> JSONRPCMessage | None:
    """The message of a line; None where it is none, which has then been answered."""
    if not line.strip():
        return None
    with suppress(ValidationError, ValueError, RecursionError):
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        # A request whose id is none (null, 1.5, an object) is taken for a notification, which nobody answers.
        if not isinstance(message, JSONRPCNotification) or b'"id"' not in line or "id" not in from_json(line):
            return message
    try:
        body: object = from_json(line)
    except ValueError:
        await wire.write(_error(_id_in(line), PARSE_ERROR, "This is not JSON that can be read. Nothing was sent."))
        return None
    if isinstance(body, dict) and "method" not in body:
        return None  # a broken answer, which nobody waits for
    await wire.write(_error(_id_in(line), INVALID_REQUEST, "This is not a JSON-RPC 2.0 message. Nothing was sent."))
    return None


def _id_in(line: bytes) -> str | int | None:
    """The id of a message that cannot be parsed, where it can still be told."""
    found = _ID.findall(line)
    if len(found) != 1:
        return None
    value: str | int = from_json(found[0])
    return value


def _error(id_: str | int | None, code: int, message: str) -> bytes:
    return to_json({"jsonrpc": "2.0", "id": id_, "error": {"code": code, "message": message}}) + b"\n"


class _Wire:
    """File descriptors 0 and 1, taken away from everybody else.

    While it lives, fd 0 is empty and fd 1 goes to stderr: what a library prints cannot corrupt the wire.
    """

    def __init__(self) -> None:
        self._in, self._out = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._writing = anyio.Lock()
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
        """Whether a message is being written, and waits for the reader."""
        return self._writing.locked()

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
                    await self.write(_error(_id_in(too_long or line), PARSE_ERROR, problem))
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
        """Write whole messages only. A reader that has gone is no error of ours: it ends the input as well."""
        async with self._writing:
            view = memoryview(data)
            while view and not self._gone:
                try:
                    count = await self._write(view)
                except (BrokenPipeError, ConnectionResetError):
                    self._gone = True
                    self._idle.cancel()
                    return
                self.written += count
                view = view[count:]

    async def _write(self, view: memoryview) -> int:
        if not self._waits:
            return await anyio.to_thread.run_sync(os.write, self._out, view)
        while True:
            try:
                return os.write(self._out, view)
            except BlockingIOError:
                await anyio.wait_writable(self._out)


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


def _is_pipe(descriptor: int) -> bool:
    """Whether the event loop can wait for it."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
