"""Tool calls that are answered without the SDK's session: as the SDK would answer them."""

import itertools
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, TextContent
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from fastn_mcp.server.http.mcp_endpoint import PlainCalls
from fastn_mcp.server.http.requests import body_message, read, replay

LARGEST = 4_000
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": "2025-11-25",
}
CALL: dict[str, Any] = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}


async def tool(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
    match params.name:
        case "refuse":
            raise MCPError(INVALID_PARAMS, "no such thing", {"outcome": "refused"})
        case "break":
            raise RuntimeError("a secret of the server")
        case "notify":
            await ctx.session.report_progress(1, 2, "half")
        case "ask":
            await ctx.session.send_ping()
        case _:
            pass
    assert ctx.request is not None
    said = json.dumps([params.arguments, ctx.protocol_version, ctx.request_id, ctx.request.headers["host"]])
    return CallToolResult(content=[TextContent(type="text", text=said)], is_error=params.name == "fail")


class Paths:
    """The SDK's own app, and ours before it. `left` counts the requests that ours left to the SDK."""

    def __init__(self, sdk: AsyncClient, ours: AsyncClient) -> None:
        self.sdk = sdk
        self.ours = ours
        self.left = 0

    async def both(self, body: bytes, headers: Mapping[str, str]) -> tuple[Response, Response]:
        with anyio.fail_after(10):
            sdk = await self.sdk.post("http://fastn.example/mcp", content=body, headers=headers)
            return sdk, await self.ours.post("http://fastn.example/mcp", content=body, headers=headers)


@asynccontextmanager
async def serving() -> AsyncGenerator[Paths]:
    server: Server[Any] = Server("any", on_call_tool=tool)
    security = TransportSecuritySettings(allowed_hosts=["fastn.example"], allowed_origins=["https://fastn.example"])
    manager = StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, security_settings=security, max_request_body_size=LARGEST
    )

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        paths.left += 1
        await manager.asgi_app(scope, receive, send)

    single = PlainCalls(server, security, LARGEST, counted)

    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        await single(scope, replay(body_message(await read(Request(scope, receive), 100_000)), receive), send)

    sdk, ours = (AsyncClient(transport=ASGITransport(app=app)) for app in (manager.asgi_app, whole))
    async with manager.run(), sdk, ours:
        paths = Paths(sdk, ours)
        yield paths


def same(sdk: Response, ours: Response) -> bool:
    kinds = [each.headers.get("content-type") for each in (sdk, ours)]
    return (sdk.status_code, sdk.content, kinds[0]) == (ours.status_code, ours.content, kinds[1])


VERSIONS = [None, "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]


async def test_plain_call_is_answered_as_by_the_sdk() -> None:
    calls = [(name, 7) for name in ("echo", "fail", "refuse", "notify", "ask")] + [("echo", "seven"), ("echo", "")]
    async with serving() as paths:
        for version, (name, id_) in itertools.product(VERSIONS, calls):
            headers = {name: value for name, value in HEADERS.items() if name != "MCP-Protocol-Version"}
            headers |= {} if version is None else {"MCP-Protocol-Version": version}
            call = CALL | {"id": id_, "params": {"name": name, "arguments": {"of": ["Ä", None, 12345678901234567890]}}}
            sdk, ours = await paths.both(json.dumps(call).encode(), headers)
            assert same(sdk, ours), (version, name, sdk.text, ours.text)
    assert paths.left == 0


LEFT: list[tuple[bytes, dict[str, str]]] = [
    (b"", {}),
    (b"{", {}),
    (b"[]", {}),
    (b"[" * 5_000, {}),
    (b"\xff", {}),
    (json.dumps([CALL]).encode(), {}),
    (json.dumps(CALL | {"id": None}).encode(), {}),
    (json.dumps(CALL | {"id": 1.5}).encode(), {}),
    (json.dumps(CALL | {"jsonrpc": "1.0"}).encode(), {}),
    (json.dumps(CALL | {"params": []}).encode(), {}),
    (json.dumps(CALL | {"method": "tools/list"}).encode(), {}),
    (json.dumps(CALL | {"method": "ping"}).encode(), {}),
    (json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode(), {}),
    (json.dumps({"jsonrpc": "2.0", "id": 7, "result": {}}).encode(), {}),
    (json.dumps(CALL).encode(), {"Content-Type": "text/plain"}),
    (json.dumps(CALL).encode(), {"Content-Type": "application/json-patch+json"}),
    (json.dumps(CALL).encode(), {"Accept": "text/html"}),
    (json.dumps(CALL).encode(), {"Host": "evil.example"}),
    (json.dumps(CALL).encode(), {"Origin": "https://evil.example"}),
    (json.dumps(CALL).encode(), {"MCP-Protocol-Version": "1999-01-01"}),
    (json.dumps(CALL).encode(), {"MCP-Protocol-Version": "2026-07-28"}),
    (json.dumps(CALL | {"params": {"name": "x" * LARGEST}}).encode(), {}),
]


async def test_anything_else_is_left_to_the_sdk() -> None:
    """No rule of the SDK is written a second time."""
    async with serving() as paths:
        for number, (body, headers) in enumerate(LEFT, 1):
            sdk, ours = await paths.both(body, HEADERS | headers)
            assert same(sdk, ours), (sdk.text, ours.text)
            assert paths.left == number, (body, headers)


@pytest.mark.parametrize(
    ("params", "code"), [({"name": "break"}, -32603), ({"name": 5}, INVALID_PARAMS), ({}, INVALID_PARAMS)]
)
async def test_internal_error_is_not_shown(params: dict[str, Any], code: int, caplog: pytest.LogCaptureFixture) -> None:
    """As the SDK does for requests of 2026-07-28. For earlier ones it shows the exception's text."""
    async with serving() as paths:
        _, ours = await paths.both(json.dumps(CALL | {"params": params}).encode(), HEADERS)
    assert (ours.status_code, ours.json()["id"], ours.json()["error"]["code"]) == (200, 7, code)
    assert "secret" not in ours.text
    assert paths.left == 0
    assert bool(caplog.records) == (code == -32603)


async def test_header_that_the_sdk_accepts_is_accepted() -> None:
    """MCP: a client may name a session although this server has none."""
    async with serving() as paths:
        for headers in ({"Accept": "*/*"}, {"Accept": "application/json"}, {"Mcp-Session-Id": "unknown"}):
            sdk, ours = await paths.both(json.dumps(CALL).encode(), HEADERS | headers)
            assert same(sdk, ours), (sdk.text, ours.text)
            assert (ours.status_code, paths.left) == (200, 0)
