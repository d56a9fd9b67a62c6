"""A session on the SDK's streams: parse messages, reject what is not one, end once everything is answered."""

from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import anyio
from mcp.server import Server, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import from_json

from fastn_mcp.guard.journal import ResponseDelivery, delivery
from fastn_mcp.server.stdio import PARSE_ERROR, Pipes, error_line, id_in

DRAIN = 5.0
"""Seconds without an answer written after which, once the input has ended, nothing more is waited for."""


async def converse(
    server: Server[Any],
    pipes: Pipes,
    lines: AsyncIterator[bytes],
    heard: Iterable[bytes] = (),
    answered: Iterable[object] = (),
) -> None:
    """Serve until the input ends. Lines that were `heard` before come first; ids in `answered` get no second answer."""
    server.middleware.append(_delivered)
    async with anyio.create_task_group() as tasks:
        streams = _Streams(pipes, lines, heard, answered, tasks.cancel_scope)
        await server.run(streams, streams, server.create_initialization_options())


async def _delivered(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Have the changes of a request settled by its delivery, which the response's writer finds in the same task."""
    delivery.set(ResponseDelivery())
    return await call_next(ctx)


class _Streams:
    """Both streams of the SDK, on the pipes themselves: streams between would cost a switch of tasks for each message.

    The SDK cancels what is in flight as soon as its input ends. This input ends once all requests are answered.
    """

    def __init__(
        self,
        pipes: Pipes,
        lines: AsyncIterator[bytes],
        heard: Iterable[bytes],
        answered: Iterable[object],
        conversation: anyio.CancelScope,
    ) -> None:
        self._pipes = pipes
        self._lines = lines
        self._heard = deque(heard)
        self._answered = set(answered)
        self._conversation = conversation
        self._waiting: set[object] = set()
        """The ids of requests that have no answer yet."""
        self._all_answered = anyio.Event()
        self._deliveries: dict[object, ResponseDelivery] = {}
        self._ended = anyio.Event()

    async def aclose(self) -> None:
        """Keep the pipes open: there may be more to write."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        while (line := self._heard.popleft() if self._heard else await anext(self._lines, None)) is not None:
            message = await _parsed(line, self._pipes)
            if message is not None:
                self._note(message)
                return SessionMessage(message)
        self._ended.set()
        if not await self._settled() and self._pipes.stuck:
            self._conversation.cancel()  # nobody would read the error that the SDK writes
        raise StopAsyncIteration

    async def receive(self) -> SessionMessage:
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    def _note(self, message: JSONRPCMessage) -> None:
        """A request counts until it is answered, or until the client says that it waits no more."""
        if isinstance(message, JSONRPCRequest) and message.method != "subscriptions/listen":
            self._waiting.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            given = (message.params or {}).get("requestId")
            cancelled = given if isinstance(given, (str, int)) else None
            self._waiting.discard(cancelled)
            if (late := self._deliveries.get(cancelled)) is not None:
                late.lost.set()

    async def send(self, item: SessionMessage, /) -> None:
        message, id_ = item.message, getattr(item.message, "id", None)
        is_answer = isinstance(message, (JSONRPCResponse, JSONRPCError))
        if is_answer and id_ in self._answered:
            self._answered.discard(id_)
        else:
            await self._write(message)
        if is_answer:
            self._waiting.discard(id_)
        if not self._waiting:
            self._all_answered.set()

    async def _write(self, message: JSONRPCMessage) -> None:
        """Write a message. A response waits until it was read: the client may say still that it waits no more."""
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        response = delivery.get()
        if not isinstance(message, JSONRPCResponse) or response is None:
            await self._pipes.write(line)
            return
        self._deliveries[message.id] = response
        try:
            await self._pipes.write(line)
            await response.written(lambda: self._pipes.unread, self._ended)
        finally:
            del self._deliveries[message.id]

    async def _settled(self) -> bool:
        """Whether all are answered. A slow reader is waited for; a call that hangs, or a reader that does, is not."""
        self._all_answered = anyio.Event()
        while self._waiting:
            written = self._pipes.written
            with anyio.move_on_after(DRAIN):
                await self._all_answered.wait()
            if self._pipes.written == written:
                break
        return not self._waiting


async def _parsed(line: bytes, pipes: Pipes) -> JSONRPCMessage | None:
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
        await pipes.write(error_line(id_in(line), PARSE_ERROR, "This is not JSON that can be read. Nothing was sent."))
        return None
    if isinstance(body, dict) and "method" not in body:
        return None  # a broken answer, which nobody waits for
    await pipes.write(error_line(id_in(line), INVALID_REQUEST, "This is not a JSON-RPC 2.0 message. Nothing was sent."))
    return None
