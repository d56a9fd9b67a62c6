"""A session on the SDK's streams: parse messages, reject what is not one, end once everything is answered."""

from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import contextmanager, suppress
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
    """Until the input ends. What was `heard` before is heard again, without answering again the ids in `answered`."""
    server.middleware.append(_delivered)
    async with anyio.create_task_group() as tasks:
        unanswered = _Unanswered(pipes)
        outgoing = _Outgoing(pipes, unanswered, set(answered))
        incoming = _Incoming(_after(heard, lines), pipes, unanswered, tasks.cancel_scope)
        await server.run(incoming, outgoing, server.create_initialization_options())


async def _delivered(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Have the changes of a request settled by its delivery, which the response's writer finds in the same task."""
    delivery.set(ResponseDelivery())
    return await call_next(ctx)


async def _after(heard: Iterable[bytes], lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for line in heard:
        yield line
    async for line in lines:
        yield line


class _Stream:
    """What both ends have. They are the pipes themselves: streams between would cost a switch of tasks each."""

    async def aclose(self) -> None:
        """The pipes stay open: there may be more to say."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class _Incoming(_Stream):
    """The messages of the input, for the SDK to read."""

    def __init__(
        self, lines: AsyncIterator[bytes], pipes: Pipes, unanswered: "_Unanswered", conversation: anyio.CancelScope
    ) -> None:
        self._lines = lines
        self._pipes = pipes
        self._unanswered = unanswered
        self._conversation = conversation

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        async for line in self._lines:
            message = await _parsed(line, self._pipes)
            if message is not None:
                self._unanswered.heard(message)
                return SessionMessage(message)
        self._unanswered.ended.set()
        # As soon as its input closes, the SDK cancels what is in flight and answers it with an error.
        if not await self._unanswered.settled() and self._pipes.stuck:
            self._conversation.cancel()  # nobody would read that either
        raise StopAsyncIteration

    async def receive(self) -> SessionMessage:
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None


class _Outgoing(_Stream):
    """The messages of the SDK, onto the output."""

    def __init__(self, pipes: Pipes, unanswered: "_Unanswered", told: set[object]) -> None:
        self._pipes = pipes
        self._unanswered = unanswered
        self._told = told

    async def send(self, item: SessionMessage, /) -> None:
        message = item.message
        if isinstance(message, (JSONRPCResponse, JSONRPCError)) and message.id in self._told:
            self._told.discard(message.id)
        else:
            line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
            response = delivery.get()
            if isinstance(message, JSONRPCResponse) and response is not None:
                with self._unanswered.delivering(message.id, response):
                    await self._pipes.write(line)
                    await response.written(lambda: self._pipes.unread, self._unanswered.ended)
            else:
                await self._pipes.write(line)
        self._unanswered.said(message)


class _Unanswered:
    """The requests that have no answer yet."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._ids: set[object] = set()
        self._none = anyio.Event()
        self._deliveries: dict[object, ResponseDelivery] = {}
        self.ended = anyio.Event()
        """Set once the input has ended."""

    def heard(self, message: JSONRPCMessage) -> None:
        """A request counts until it is answered, or until the client says that it waits no more."""
        if isinstance(message, JSONRPCRequest) and message.method != "subscriptions/listen":
            self._ids.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            given = (message.params or {}).get("requestId")
            cancelled = given if isinstance(given, (str, int)) else None
            self._ids.discard(cancelled)
            if (late := self._deliveries.get(cancelled)) is not None:
                late.lost.set()

    @contextmanager
    def delivering(self, id_: object, response: ResponseDelivery) -> Generator[None]:
        """A response is written, and the client may say still that it waits no more."""
        self._deliveries[id_] = response
        try:
            yield
        finally:
            del self._deliveries[id_]

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
            written = self._pipes.written
            with anyio.move_on_after(DRAIN):
                await self._none.wait()
            if self._pipes.written == written:
                break
        return not self._ids


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
