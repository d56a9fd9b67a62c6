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
"""Seconds that calls in flight have to end once the input has ended."""

_CHUNK = 256 * 1024
_HEAD = 4096
_ID = re.compile(rb'"id"\s*:\s*(-?\d{1,18}|"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]){0,200}")(?=\s*[,}])')


async def serve(server: Server[Any]) -> None:
    """Serve until the input ends, or until SIGINT or SIGTERM."""
    wire = _Wire()
    try:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
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
    unanswered: set[str | int] = set()
    drained = anyio.Event()
    ended = False

    async def receive() -> None:
        nonlocal ended
        async with to_server:
            async for line in wire.lines():
                message = await _parsed(line, wire)
                if message is None:
                    continue
                if isinstance(message, JSONRPCRequest) and message.method != "subscriptions/listen":
                    unanswered.add(message.id)
                await to_server.send(SessionMessage(message))
            # The SDK cancels what is in flight as soon as its input closes.
            ended = True
            if unanswered:
                with anyio.move_on_after(DRAIN):
                    await drained.wait()

    async def send() -> None:
        async with from_server:
            async for outbound in from_server:
                message = outbound.message
                await wire.write(message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                if isinstance(message, (JSONRPCResponse, JSONRPCError)) and message.id is not None:
                    unanswered.discard(message.id)
                if ended and not unanswered:
                    drained.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        tasks.start_soon(send)
        await server.run(incoming, outgoing, server.create_initialization_options())


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
        self._waits = all(_is_pipe(fd) for fd in (self._in, self._out)) and sys.platform != "win32"
        if self._waits:
            os.set_blocking(self._in, False)
            os.set_blocking(self._out, False)

    def restore(self) -> None:
        """Give the descriptors back."""
        if self._waits:
            os.set_blocking(self._in, True)
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
        if not self._waits:
            return await anyio.to_thread.run_sync(os.read, self._in, _CHUNK, abandon_on_cancel=True)
        while True:
            try:
                return os.read(self._in, _CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._in)

    async def write(self, data: bytes) -> None:
        """Write whole messages only. A reader that has gone is no error of ours: the input ends as well."""
        async with self._writing:
            with suppress(BrokenPipeError):
                view = memoryview(data)
                while view:
                    view = view[await self._write(view) :]

    async def _write(self, view: memoryview) -> int:
        if not self._waits:
            return await anyio.to_thread.run_sync(os.write, self._out, view)
        while True:
            try:
                return os.write(self._out, view)
            except BlockingIOError:
                await anyio.wait_writable(self._out)


def _is_pipe(descriptor: int) -> bool:
    """Whether the event loop can wait for it: files and terminals are read by a thread instead."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
