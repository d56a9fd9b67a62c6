"""MCP session on the SDK's streams: parse messages, reject invalid ones, end once every request is answered."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp import MCPError, types
from mcp.server import Server, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.runner import serve_dual_era_loop, serve_loop
from mcp.shared.message import SessionMessage
from pydantic import ValidationError
from pydantic_core import from_json
from typing_extensions import override

from fastn_mcp.errors import NOTHING_SENT
from fastn_mcp.server.context import ResponseDelivery
from fastn_mcp.server.pipes import PARSE_ERROR, Pipes, error_line, id_in
from fastn_mcp.tools.bounds import message_problem

DRAIN = 5.0
"""Seconds without written output, after the end of the input, until pending requests are abandoned."""


async def serve_session(
    server: Server[Any],
    pipes: Pipes,
    lines: AsyncIterator[bytes],
    replayed: Sequence[bytes] = (),
    answered: Iterable[object] = (),
) -> None:
    """Serve until the input ends. The lines in `replayed` come first; ids in `answered` get no second response."""
    options = server.create_initialization_options()
    serve = serve_dual_era_loop
    if _is_handshake(replayed):
        # The loop that tells the two eras of the protocol apart passes each message on by another task.
        server.middleware.append(_refuse_other_era)
        serve = serve_loop
    async with anyio.create_task_group() as tasks:
        streams = _Streams(pipes, lines, replayed, answered=answered, session=tasks.cancel_scope)
        await serve(server, streams, streams, lifespan_state=streams.deliveries, init_options=options)


def _is_handshake(lines: Sequence[bytes]) -> bool:
    """Whether a session begins with the handshake, as up to 2025-11-25."""
    with suppress(IndexError, ValueError, RecursionError):
        opening = types.jsonrpc_message_adapter.validate_json(lines[0], by_name=False)
        return isinstance(opening, types.JSONRPCRequest) and opening.method == "initialize"
    return False


async def _refuse_other_era(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Middleware that refuses a request as since 2026-07-28 in a session that began with the handshake."""
    if types.PROTOCOL_VERSION_META_KEY in (ctx.meta or {}):
        raise MCPError(
            types.INVALID_REQUEST,
            "This session began with the handshake of an earlier protocol version. Nothing was sent.",
        )
    return await call_next(ctx)


class _Streams(ObjectReceiveStream[SessionMessage], ObjectSendStream[SessionMessage]):
    """Read and write streams for the SDK, directly on the pipes, which saves a task switch per message.

    The SDK cancels calls in flight once its input ends. This stream therefore ends only when all requests are answered.
    """

    def __init__(
        self,
        pipes: Pipes,
        lines: AsyncIterator[bytes],
        replayed: Iterable[bytes],
        answered: Iterable[object],
        session: anyio.CancelScope,
    ) -> None:
        self._pipes = pipes
        self._lines = lines
        self._replayed = deque(replayed)
        self._answered = set(answered)
        self._session = session
        self._waiting: set[object] = set()
        """Ids of unanswered requests."""
        self._all_answered = anyio.Event()
        self.deliveries: dict[object, ResponseDelivery] = {}
        """Deliveries of the responses to tool calls, by id of the request, until each is decided."""

    @override
    async def aclose(self) -> None:
        """Keep the pipes open, since there may be more to write."""

    @override
    async def receive(self) -> SessionMessage:
        while True:
            line = self._replayed.popleft() if self._replayed else await anext(self._lines, None)
            if line is None:
                break
            message = await _parse(line, self._pipes)
            if message is not None:
                self._track(message)
                return SessionMessage(message)
        if not await self._drained() and self._pipes.is_blocked:
            self._session.cancel()  # the client would not read the error that the SDK writes
        raise anyio.EndOfStream

    def _track(self, message: types.JSONRPCMessage) -> None:
        """Track a request until it is answered or the client cancels it."""
        if isinstance(message, types.JSONRPCRequest) and message.method != "subscriptions/listen":
            self._waiting.add(message.id)
            if message.method == "tools/call":
                self.deliveries[message.id] = ResponseDelivery()
        elif isinstance(message, types.JSONRPCNotification) and message.method == "notifications/cancelled":
            request_id = (message.params or {}).get("requestId")
            cancelled = request_id if isinstance(request_id, (str, int)) else None
            self._waiting.discard(cancelled)
            late = self.deliveries.pop(cancelled, None)
            if late is not None:
                late.lost.set()

    @override
    async def send(self, item: SessionMessage) -> None:
        message = item.message
        id_ = getattr(item.message, "id", None)
        if isinstance(message, types.JSONRPCNotification) and self._pipes.ended.is_set():
            return  # the progress of a call that hangs must not pass for output that the client reads
        is_answer = isinstance(message, (types.JSONRPCResponse, types.JSONRPCError))
        try:
            if is_answer and id_ in self._answered:
                self._answered.discard(id_)
            else:
                await self._write(message)
        finally:
            if is_answer:
                self.deliveries.pop(id_, None)
        if is_answer:
            self._waiting.discard(id_)
        if not self._waiting:
            self._all_answered.set()

    async def _write(self, message: types.JSONRPCMessage) -> None:
        """Write a message. For a response, wait until it is read, since the client can still cancel until then."""
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        delivery = self.deliveries.get(message.id) if isinstance(message, types.JSONRPCResponse) else None
        await self._pipes.write(line)
        if delivery is not None:
            await delivery.written(lambda: self._pipes.has_unread, self._pipes.ended)

    async def _drained(self) -> bool:
        """Wait for pending responses while output is written. Return whether all requests are answered."""
        self._all_answered = anyio.Event()
        while self._waiting:
            written = self._pipes.written
            with anyio.move_on_after(DRAIN):
                await self._all_answered.wait()
            if self._pipes.written == written:
                break
        return not self._waiting


async def _parse(line: bytes, pipes: Pipes) -> types.JSONRPCMessage | None:
    """Parse a line. Answer an invalid one with an error and return None."""
    if not line.strip():
        return None
    problem = message_problem(line)
    if problem is not None:
        await pipes.write(error_line(id_in(line), types.INVALID_REQUEST, f"{problem} {NOTHING_SENT}"))
        return None
    with suppress(ValidationError, ValueError, RecursionError):
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        # A request with an invalid id (null, 1.5, an object) parses as a notification, which would get no answer.
        if not isinstance(message, types.JSONRPCNotification) or b'"id"' not in line or "id" not in from_json(line):
            return message
    try:
        body: object = from_json(line)
    except ValueError:
        await pipes.write(error_line(id_in(line), PARSE_ERROR, "This is not JSON that can be read. Nothing was sent."))
        return None
    if isinstance(body, dict) and "method" not in body:
        return None  # a malformed response, which gets no answer
    problem = "This is not a JSON-RPC 2.0 message. Nothing was sent."
    await pipes.write(error_line(id_in(line), types.INVALID_REQUEST, problem))
    return None
