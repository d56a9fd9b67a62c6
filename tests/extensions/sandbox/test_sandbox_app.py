"""Tests of the sandbox over HTTP, in this process."""

import sys
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
from starlette.types import ASGIApp, Message
from support.command_line import run_process
from support.direct_sandbox import Fastn
from support.faulty_sandbox import FaultySandbox

from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.tools.connectors import DeleteConnection

HEADERS = {"x-fastn-api-key": KEY, "X-fastn-Test-Mode": "true"}
CUSTOMERS = "/api/v1/customers"


def client(sandbox: FaultySandbox) -> httpx2.AsyncClient:
    """Return a client of the app that `fastn-mcp sandbox` serves."""
    transport = httpx2.ASGITransport(app=create_app(sandbox))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=HEADERS)


async def test_app_answers_in_process(sandbox: FaultySandbox, fastn: Fastn) -> None:
    async with client(sandbox) as http:
        listed = await http.get(CUSTOMERS, params={"search": "ACME", "limit": 1})
        path = DeleteConnection(connection_id=fastn.connection("acme-corp", "xero")).request().path
        gone = await http.delete(path)

    assert [row["name"] for row in listed.json()["data"]] == ["John-Acme"]
    assert listed.headers["x-ratelimit-limit"] == "100000"
    assert listed.headers["x-request-id"]
    assert gone.status_code == 204
    assert "%3A" in path
    assert sandbox.requests[-1].tool == "delete_connection"


async def test_large_body_is_refused(sandbox: FaultySandbox) -> None:
    """Fastn's documentation: 413. Discarding the rest while it streams is ours."""

    async def stream() -> AsyncGenerator[bytes]:
        for _ in range(8):
            yield b"x" * 400_000

    async with client(sandbox) as http:
        answer = await http.post(CUSTOMERS, content=stream())

    assert answer.status_code == 413


async def send_messages(app: ASGIApp, scope: dict[str, Any], *messages: Message) -> list[Message]:
    """Return what an application sends in response to the messages."""
    coming, sent = list(messages), list[Message]()

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_app_supports_lifespan(sandbox: FaultySandbox) -> None:
    """ASGI: the lifespan protocol."""
    app = create_app(sandbox)

    sent = await send_messages(app, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})

    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_app_works_without_raw_path(sandbox: FaultySandbox) -> None:
    """ASGI: raw_path is optional."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": CUSTOMERS,
        "query_string": b"limit=1",
        "headers": [(name.encode(), value.encode()) for name, value in HEADERS.items()],
    }

    sent = await send_messages(create_app(sandbox), scope, {"type": "http.request"})

    assert sent[0]["status"] == 200


async def test_disconnected_client_is_not_answered(sandbox: FaultySandbox) -> None:
    """ASGI: http.disconnect."""
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}

    assert await send_messages(create_app(sandbox), scope, {"type": "http.disconnect"}) == []
    assert sandbox.requests == []


async def test_control_paths_of_tests_are_not_found(sandbox: FaultySandbox) -> None:
    async with client(sandbox) as http:
        answers = [await http.get("/__sandbox/requests"), await http.post("/__sandbox/reset")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert len(sandbox.requests) == 2


def test_package_imports_no_server_and_no_client() -> None:
    foreign = "[name for name in ('starlette', 'uvicorn', 'httpx2', 'mcp') if name in sys.modules]"
    result = run_process([sys.executable, "-c", f"import sys, fastn_mcp.extensions.sandbox; print({foreign})"])

    assert result.stdout.strip() == "[]"
