"""Response modes: JSON or a stream, and cancellation when the client disconnects."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from httpx2 import ASGITransport, AsyncClient
from mcp import Client as Caller
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server, ServerRequestContext
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from fastn_mcp.server.http.mcp_endpoint import McpEndpoint, ResponseMode
from fastn_mcp.server.http.requests import body_message, read, replay

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "find", "arguments": {"query": "x"}}}
PROGRESS = {**CALL, "params": {"name": "find", "_meta": {"progressToken": 7}}}
LOGS = {**CALL, "params": {"name": "find", "_meta": {"io.modelcontextprotocol/logLevel": "info"}}}
LISTEN = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen"}


class FakeApp:
    """Fake app for one response mode. It records the bodies it gets, or blocks."""

    def __init__(self, *, waits: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.cancelled = False
        self._waits = waits

    async def __call__(self, _: Scope, receive: Receive, __: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        if self._waits:
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled = True


class Client:
    """A client that sends these messages and then stays connected."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)

    async def receive(self) -> Message:
        if not self._messages:
            await anyio.sleep_forever()
        return self._messages.pop(0)


async def sent(_: Message) -> None:
    """Discard a message."""


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def came(*messages: Message, method: str = "POST") -> tuple[list[bytes], list[bytes]]:
    streamed, whole = FakeApp(), FakeApp()
    with anyio.fail_after(5):
        await ResponseMode(streamed, whole)(
            {"type": "http", "method": method, "headers": []}, Client(messages).receive, sent
        )
    return streamed.bodies, whole.bodies


async def test_plain_request_gets_a_json_response() -> None:
    body = json.dumps(CALL).encode()
    assert await came(part(body)) == ([], [body])


@pytest.mark.parametrize("wanted", [PROGRESS, LOGS, LISTEN], ids=["progress", "logs", "listen"])
async def test_request_with_notifications_gets_a_stream(wanted: dict[str, Any]) -> None:
    """MCP: progress and log messages come before the response; a listener gets none."""
    body = json.dumps(wanted).encode()
    assert await came(part(body)) == ([body], [])


async def test_chunked_body_goes_to_the_stream() -> None:
    """The body is not collected here, so that the limits of the SDK apply."""
    assert await came(part(b"{", more=True), part(b"}")) == ([b"{}"], [])
    assert await came({"type": "http.disconnect"}) == ([b""], [])
    assert await came(part(b""), method="GET") == ([b""], [])


async def test_disconnect_cancels_the_call() -> None:
    whole = FakeApp(waits=True)
    client = Client([part(b"{}"), {"type": "http.disconnect"}])
    with anyio.fail_after(5):
        await ResponseMode(FakeApp(), whole)({"type": "http", "method": "POST", "headers": []}, client.receive, sent)
    assert (whole.bodies, whole.cancelled) == ([b"{}"], True)


async def test_server_ends_once_a_cancelled_call_has_recorded_its_outcome() -> None:
    recorded: list[str] = []

    async def whole(_: Scope, __: Receive, ___: Send) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)
                recorded.append("outcome")

    mode = ResponseMode(FakeApp(), whole)
    scope: Scope = {"type": "http", "method": "POST", "headers": []}
    with anyio.fail_after(5):
        async with mode.all_ended():
            request = asyncio.create_task(mode(scope, Client([part(b"{}")]).receive, sent))
            await anyio.wait_all_tasks_blocked()
            request.cancel()  # as uvicorn does
        assert recorded == ["outcome"]
        with pytest.raises(asyncio.CancelledError):
            await request
        async with mode.all_ended():
            pass


ERAS = {"2025-11-25": "legacy", "2026-07-28": "2026-07-28"}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("fails", [False, True])
async def test_slow_response_sends_keep_alives(fails: bool, era: str) -> None:
    """A proxy closes a silent connection, and the call with it."""
    pinged, kinds = anyio.Event(), list[str]()

    async def tool(_: ServerRequestContext[Any], __: CallToolRequestParams) -> CallToolResult:
        await pinged.wait()
        if fails:
            raise MCPError(INVALID_PARAMS, "late, and wrong")
        return CallToolResult(content=[TextContent(type="text", text="late, and here")])

    async def tools(_: ServerRequestContext[Any], __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="any", input_schema={"type": "object"})])

    server: Server[Any] = Server("slow", on_call_tool=tool, on_list_tools=tools)
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    endpoint = McpEndpoint(server, security, silence=0.01)

    async def heard(scope: Scope, receive: Receive, send: Send) -> None:
        async def hearing(message: Message) -> None:
            kinds.extend(value.decode() for name, value in message.get("headers", ()) if name == b"content-type")
            await send(message)
            if message.get("body") == b": ping\r\n\r\n":
                pinged.set()

        # in one message, as from a socket
        body = await read(Request(scope, receive), 100_000) if scope["method"] == "POST" else b""
        await endpoint.app(scope, replay(body_message(body), receive), hearing)

    async with endpoint.run(), AsyncClient(transport=ASGITransport(app=heard)) as http:
        transport = streamable_http_client("http://127.0.0.1/mcp", http_client=http)
        async with Caller(transport, mode=ERAS[era]) as client:
            with anyio.fail_after(20):
                if fails:
                    with pytest.raises(MCPError, match="late, and wrong"):
                        await client.call_tool("any", {})
                else:
                    (content,) = (await client.call_tool("any", {})).content
                    assert isinstance(content, TextContent)
                    assert content.text == "late, and here"
    assert "text/event-stream" in kinds


async def test_client_without_event_streams_gets_json() -> None:
    """MCP: Accept says what a client reads. One that accepts only JSON waits for it."""
    sent_: list[Message] = []

    async def slow(_: Scope, __: Receive, send: Send) -> None:
        await anyio.wait_all_tasks_blocked()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def hear(message: Message) -> None:
        sent_.append(message)

    scope: Scope = {"type": "http", "method": "POST", "headers": [(b"accept", b"application/json")]}
    await ResponseMode(slow, slow, silence=0.0)(scope, Client([part(b"{}")]).receive, hear)
    assert [message["type"] for message in sent_] == ["http.response.start", "http.response.body"]
    assert sent_[1]["body"] == b"{}"
