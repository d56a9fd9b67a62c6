"""Tests of the sandbox over HTTP: in process, and served by uvicorn on a socket."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from starlette.types import ASGIApp, Message
from support.direct_sandbox import Fastn
from support.faulty_sandbox import FaultMoment, FaultySandbox, Reset
from support.served_sandbox import create_faulty_app

from fastn_mcp.sandbox.app import create_app
from fastn_mcp.sandbox.auth import KEY
from fastn_mcp.tools.connectors import DeleteConnection

pytestmark = pytest.mark.anyio

HEADERS = {"x-fastn-api-key": KEY, "X-fastn-Test-Mode": "true"}
CUSTOMERS = "/api/v1/customers"


def plain_client(sandbox: FaultySandbox) -> httpx2.AsyncClient:
    """Return a client of the app that `fastn-mcp sandbox` serves."""
    return client_of(create_app(sandbox))


def client(sandbox: FaultySandbox) -> httpx2.AsyncClient:
    return client_of(create_faulty_app(sandbox))


def client_of(app: ASGIApp) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=HEADERS)


async def test_app_answers_in_process(sandbox: FaultySandbox, fastn: Fastn) -> None:
    async with plain_client(sandbox) as http:
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

    async with plain_client(sandbox) as http:
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


async def test_app_refuses_websockets(sandbox: FaultySandbox) -> None:
    """ASGI: closing before accepting refuses."""
    assert await send_messages(create_app(sandbox), {"type": "websocket"}) == [
        {"type": "websocket.close", "code": 1000}
    ]


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


async def test_control_paths_work_if_enabled(sandbox: FaultySandbox) -> None:
    async with client(sandbox) as http:
        await http.get(CUSTOMERS)
        seen = (await http.get("/__sandbox/requests")).json()["requests"]
        assert [(heard["tool"], heard["headers"]["x-fastn-api-key"]) for heard in seen] == [
            ("list_customers", "[hidden-by-fastn-mcp]")
        ]
        assert (await http.delete("/__sandbox/requests")).status_code == 200
        assert sandbox.requests == []

        fault = {"kind": "status", "status": 503, "path": "/api/v1/*", "times": 2}
        assert (await http.post("/__sandbox/faults", json=fault)).status_code == 200
        assert (await http.get("/__sandbox/faults")).json()["faults"][0]["times"] == 2
        assert (await http.get(CUSTOMERS)).status_code == 503
        await http.delete("/__sandbox/faults")
        assert (await http.get(CUSTOMERS)).status_code == 200

        await http.post(CUSTOMERS, json={"name": "Initech"})
        assert (await http.post("/__sandbox/reset")).status_code == 200
        assert len((await http.get(CUSTOMERS)).json()["data"]) == 5


async def test_invalid_control_request_names_the_field(sandbox: FaultySandbox) -> None:
    async with client(sandbox) as http:
        unknown = await http.post("/__sandbox/faults", json={"kind": "status", "status": 503, "tims": 2})
        broken = await http.post("/__sandbox/faults", content=b"{")
        nowhere = await http.post("/__sandbox/nothing")
        web = await http.post("/__sandbox/reset", headers={"origin": "https://evil.example"})

    assert unknown.status_code == broken.status_code == 422
    assert unknown.json()["error"][0]["field"] == ["status", "tims"]
    assert [nowhere.status_code, web.status_code] == [404, 403]


async def test_control_paths_are_not_found_otherwise(sandbox: FaultySandbox) -> None:
    async with plain_client(sandbox) as http:
        answers = [await http.get("/__sandbox/requests"), await http.post("/__sandbox/reset")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert len(sandbox.requests) == 2


Raw = Callable[[bytes], Awaitable[tuple[bytes, BaseException | None]]]


@asynccontextmanager
async def served(sandbox: FaultySandbox) -> AsyncGenerator[Raw]:
    """Serve with uvicorn on a loopback socket. The client sees every byte, and how the connection ended."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_faulty_app(sandbox)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    running = asyncio.create_task(server.serve(sockets=[listening]))

    async def ask(request: bytes) -> tuple[bytes, BaseException | None]:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(request)
        got = bytearray()
        try:
            with anyio.fail_after(10):
                while chunk := await reader.read(65536):
                    got += chunk
        except ConnectionError as error:
            return bytes(got), error
        finally:
            writer.close()
        return bytes(got), None

    try:
        yield ask
    finally:
        server.should_exit = True
        await running


def creating() -> bytes:
    body = json.dumps({"name": "Initech"}).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    first = f"POST {CUSTOMERS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    return f"{first}{head}\r\n".encode() + body


def is_created(sandbox: FaultySandbox) -> bool:
    return sandbox.state.first("customers", "name", "Initech") is not None


async def test_served_app_answers(sandbox: FaultySandbox) -> None:
    async with served(sandbox) as ask:
        got, error = await ask(creating())

    assert error is None
    assert got.startswith(b"HTTP/1.1 201 Created\r\n")
    assert got.endswith(b"}}")


@pytest.mark.parametrize(
    ("fault", "changed"),
    [(Reset(), False), (Reset(moment=FaultMoment.AFTER), True)],
    ids=["before", "after"],
)
async def test_served_reset_sends_no_byte(
    sandbox: FaultySandbox, fault: Reset, changed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """TCP: the client cannot know from a reset whether the change was made."""
    sandbox.faults.add(fault)
    async with served(sandbox) as ask:
        got, error = await ask(creating())

    assert got == b""
    assert isinstance(error, ConnectionResetError)
    assert is_created(sandbox) is changed
    assert caplog.text == ""


def test_package_imports_no_server_and_no_client() -> None:
    foreign = "[name for name in ('starlette', 'uvicorn', 'httpx2', 'mcp') if name in sys.modules]"
    result = subprocess.run(
        [sys.executable, "-c", f"import sys, fastn_mcp.sandbox; print({foreign})"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.strip() == "[]"
