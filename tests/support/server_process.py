"""The real server in its own process, a real client, and a sandbox over HTTP that counts its requests."""

import os
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CallToolResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
)

from support.forkserver import forked
from support.ports import free_port, running_program

KEY = "fsk_test_sandbox"
OUTSIDE = "x-outside"
"""Header of requests that do not come from the server."""
READING = 1.05
"""Seconds that a person takes to answer. The guard takes any answer within one second for a program's."""
HTTP_TOKEN = "a-token-of-the-tests-that-nobody-guesses"
BEARER = {"authorization": f"Bearer {HTTP_TOKEN}"}
ERAS = {"2025-11-25": "legacy", "2026-07-28": "2026-07-28"}
"""Protocol versions, with the modes of a client that speaks them."""
each_era = pytest.mark.parametrize("era", ERAS)
TLS = ssl.create_default_context()
"""Shared by all clients: to load the certificates takes longer than the requests of most tests."""
HTTP = httpx2.Client(verify=TLS, timeout=30, limits=httpx2.Limits(max_keepalive_connections=0))
"""Client of the tests' servers. No connection outlives its request."""

each_transport_and_era = pytest.mark.parametrize(
    ("transport", "era"),
    [
        ("stdio", "2025-11-25"),
        ("http", "2026-07-28"),
        pytest.param("http", "2025-11-25", marks=pytest.mark.long),
    ],
)
"""Each transport and each protocol version; in the long tests the pair too that has no way back to the client."""


@dataclass
class Upstream:
    """The sandbox, seen from outside."""

    url: str

    def control(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Send a request to a control path."""
        return HTTP.request(method, f"{self.url}/__sandbox/{path}", **more).raise_for_status()

    def ask(self, method: str, path: str, **content: object) -> Any:
        """Make a request as another client of the same account, and return its data."""
        headers = {"x-fastn-api-key": KEY, "x-fastn-test-mode": "true", OUTSIDE: "yes"}
        sent = content if method != "GET" else None
        answer = HTTP.request(method, f"{self.url}/api/v1/{path}", json=sent, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json().get("data")

    def requests(self) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self.control("GET", "requests").json()["requests"])

    def changes(self) -> list[str]:
        return [f"{r['method']} {r['path']}" for r in self.requests() if r["method"] != "GET"]

    def reset(self) -> None:
        self.control("POST", "reset")

    def fault(self, **what: Any) -> None:
        """Let this go wrong."""
        self.control("POST", "faults", json=what)


@dataclass
class Person:
    """Answers forms as configured, and records what was asked."""

    answer: Callable[[ElicitRequestFormParams], ElicitResult]
    asked: list[str] = field(default_factory=list[str])
    reading: float = READING
    """Seconds before the answer."""
    led: list[ElicitRequestURLParams] = field(default_factory=list[ElicitRequestURLParams])
    at_link: Callable[[], Awaitable[str]] | None = None
    """What they do when the client leads them to the page. Returns the client's answer, which is else to decline."""

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG002
        if isinstance(params, ElicitRequestURLParams):
            self.led.append(params)
            action = "decline" if self.at_link is None else await self.at_link()
            return ElicitResult.model_validate({"action": action})
        self.asked.append(params.message)
        await anyio.sleep(self.reading)
        return self.answer(params)


def typed(fields: dict[str, Any]) -> str | None:
    """Return the text to type, if the form asks for it."""
    if "name" not in fields:
        return None
    instruction = fields["name"]["description"]
    plain = re.fullmatch(r"Type (.+) to approve (this one call|these \d+ calls)\.", instruction)
    if plain is not None:
        return plain[1]
    (quoted,) = re.findall(r'between the quotes: "(.*)"$', instruction)
    return quoted


def approval(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the content that approves the form."""
    name = typed(fields)
    return {"decision": "approve"} if name is None else {"name": name}


def approving(params: ElicitRequestFormParams) -> ElicitResult:
    """Answer a form by reading it and typing what it asks for."""
    return ElicitResult(action="accept", content=approval(params.requested_schema["properties"]))


Connect = Callable[..., Client]


def stdio(env: dict[str, str], *arguments: str) -> StdioServerParameters:
    """Return a server over stdio in its own process."""
    command, *rest = forked(*arguments)
    return StdioServerParameters(command=command, args=rest, env=env)


def running(*arguments: str, port: int, env: dict[str, str]) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """Run a server over HTTP until the test ends; yields once it listens."""
    return running_program(forked(*arguments), port, env)


def started(
    *arguments: str, port: int, env: dict[str, str], module: str = "fastn_mcp"
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """Start a program as a process of its own that the test can look at; yields once it listens."""
    return running_program([sys.executable, "-m", module, *arguments], port, env)


@contextmanager
def running_sandbox() -> Generator[Upstream]:
    """Run the tests' sandbox in its own process."""
    port, env = free_port(), {"PYTHONPATH": str(Path(__file__).parents[1])}
    with started("--port", str(port), port=port, env=env, module="support.served_sandbox"):
        yield Upstream(f"http://127.0.0.1:{port}")


@asynccontextmanager
async def over_http(url: str, headers: dict[str, str] = BEARER) -> AsyncGenerator[Any]:
    """Connect a client over HTTP, with the token that `environment` sets."""
    timeout = httpx2.Timeout(30, read=300)
    async with (
        httpx2.AsyncClient(verify=TLS, headers=headers, timeout=timeout) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


def environment(upstream: Upstream) -> dict[str, str]:
    """Return variables with a key and separate state folders, so that tests do not affect each other."""
    state = tempfile.mkdtemp(prefix="fastn-mcp-")
    return {
        "FASTN_BASE_URL": upstream.url,
        "FASTN_API_KEY": KEY,
        "FASTN_HTTP_TOKEN": HTTP_TOKEN,
        "FASTN_CONFIG": os.devnull,
        "FASTN_CONFIG_DIR": state,
        "FASTN_STATE_DIR": state,
        # A test repeats the call once it has decided. Tests of waiting set a time of their own.
        "FASTN_APPROVAL_WAIT_SECONDS": "0",
    }


@asynccontextmanager
async def served(env: dict[str, str], transport: str, era: str, *extensions: Any) -> AsyncGenerator[Client]:
    """A client without forms, of a server in its own process."""
    if transport == "stdio":
        async with Client(stdio(env), mode=ERAS[era], extensions=extensions) as client:
            yield client
        return
    port = free_port()
    with running("--http", f"127.0.0.1:{port}", port=port, env=env):
        async with Client(over_http(f"http://127.0.0.1:{port}/mcp"), mode=ERAS[era], extensions=extensions) as client:
            yield client


def body(result: CallToolResult) -> dict[str, Any]:
    assert result.structured_content is not None
    return cast("dict[str, Any]", result.structured_content)


async def at_once(*calls: Callable[[], Awaitable[CallToolResult]]) -> list[dict[str, Any]]:
    """Make calls concurrently, and return their answers in the order in which they came."""
    answers: list[dict[str, Any]] = []

    async def make(call: Callable[[], Awaitable[CallToolResult]]) -> None:
        answers.append(body(await call()))

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(make, call)
    return answers
