"""Calls with an argument of 900 kB hold up nobody else: each argument of each tool, by HTTP in a team and over
stdio."""

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import pytest
from support.oversized import MAX_ANSWER, SHAPES, every_argument, shape_as_json
from support.page_visitor import Visitor
from support.raw_client import Server, call, message, serving
from support.replica_pair import Replicas, two_replicas
from support.team_world import ALL, Caller, modern, reply_of, request

pytestmark = [pytest.mark.posix, pytest.mark.long]

LONGEST = 0.25
"""Seconds by which a call of somebody else may take longer than usual."""
ATTEMPTS = 5
"""A busy machine may delay any call once; what stands on the event loop delays it each time."""

NAMES = [f"name{number}" for number in range(60_000)]
OBJECT = dict.fromkeys(NAMES[:45_000], "value")
COSTLY: Mapping[str, tuple[str, dict[str, Any]]] = {
    "unknown statuses": ("list_executions", {"status": "failedd," * 600}),
    "commas": ("list_executions", {"status": "," * 20_000}),
    "permissions": ("create_role", {"name": "Role", "permissions": NAMES}),
    "previewed permissions": ("preview_change", {"tool": "create_role", "arguments": {"permissions": NAMES}}),
    "input": ("run_workflow", {"workflow_id": "wf_1", "input": OBJECT}),
    "extra": ("update_customer", {"customer_id": "org_1", "extra": OBJECT}),
    "context": ("ai_chat", {"message": "Hello", "context": OBJECT}),
    "fields": ("list_customers", {"fields": NAMES}),
    "routes": ("create_trigger", {"name": "Sync", "type": "webhook", "routes": [OBJECT]}),
    "id": ("get_customer", {"customer_id": "a" * 900_000}),
}
"""Calls of less than the largest body that took seconds of the event loop, or an answer of a megabyte."""


def in_shape(call_with: bytes, shape: str) -> bytes:
    """Return a call with the value of this shape in place of its only "VALUE"."""
    return call_with.replace(b'"VALUE"', shape_as_json(shape).encode())


def over_http(tool: str, name: str) -> bytes:
    return json.dumps(request(tool, {name: "VALUE"})).encode()


def over_stdio(tool: str, arguments: dict[str, Any]) -> bytes:
    return message("held", "tools/call", name=tool, arguments=arguments)


@dataclass
class Team:
    """A team's server with two callers and a person at the page of an approver, who could stop it."""

    caller: Caller
    sender: str
    other: str
    visitor: Visitor
    customer: str

    async def send(self, tool: str, body: bytes) -> httpx2.Response:
        return await self.caller.ask(self.sender, body, **modern(tool))

    async def call(self) -> None:
        answer = await self.caller.call(self.other, "get_customer", customer_id=self.customer)
        assert reply_of(answer)["result"]["structuredContent"]["data"]["id"] == self.customer

    async def look(self) -> None:
        await self.visitor.look("stop")

    async def slowest(self, act: Callable[[], Awaitable[object]] | None = None) -> float:
        """Return the seconds of the slowest call and look while something is done, and of one of each at least."""
        longest, done = 0.0, anyio.Event()

        async def probe(ask: Callable[[], Awaitable[None]]) -> None:
            nonlocal longest
            while True:
                began = time.monotonic()
                await ask()
                longest = max(longest, time.monotonic() - began)
                if done.is_set():
                    return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(probe, self.call)
            tasks.start_soon(probe, self.look)
            if act is not None:
                await act()
            done.set()
        return longest


@asynccontextmanager
async def a_team(replicas: Replicas) -> AsyncGenerator[Team]:
    anna, amir = (
        replicas.provider.token(sub=name, groups=["acme"], scope=ALL, aud="the-team") for name in ("anna", "amir")
    )
    async with (
        replicas.visitor("dana", replicas.one) as visitor,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{replicas.one}", timeout=300) as http,
    ):
        listed = await Caller(http).result(amir, "list_customers", limit=1)
        yield Team(Caller(http), anna, amir, visitor, listed["data"][0]["id"])


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Generator[Replicas]:
    folder = tmp_path_factory.mktemp("team")
    with two_replicas(folder, f"sqlite:{folder}/ledger.sqlite3") as made:
        yield made


async def hold_ups(team: Team, calls: Iterable[tuple[str, str, bytes]]) -> dict[str, float]:
    """Return the names of calls that hold others up, or are answered at length, with seconds or bytes."""
    usual = sorted([await team.slowest() for _ in range(40)])[-4]
    slow: dict[str, float] = {}
    for name, tool, body in calls:
        sizes: list[int] = []

        async def act(tool: str = tool, body: bytes = body, sizes: list[int] = sizes) -> None:
            sizes.append(len((await team.send(tool, body)).content))

        waits = list[float]()
        while len(waits) < ATTEMPTS and (not waits or waits[-1] > usual + LONGEST):
            waits.append(await team.slowest(act))
        if waits[-1] > usual + LONGEST:
            slow[name] = round(waits[-1] - usual, 2)
        if max(sizes) > MAX_ANSWER:
            slow[name] = max(sizes)
    return slow


@pytest.mark.parametrize("shape", SHAPES)
async def test_oversized_argument_holds_up_nobody_in_a_team(replicas: Replicas, shape: str) -> None:
    calls = ((f"{tool} {name}", tool, in_shape(over_http(tool, name), shape)) for tool, name in every_argument())
    async with a_team(replicas) as team:
        assert await hold_ups(team, calls) == {}


@pytest.mark.parametrize("name", COSTLY)
async def test_costly_argument_holds_up_nobody_in_a_team(replicas: Replicas, name: str) -> None:
    tool, arguments = COSTLY[name]
    async with a_team(replicas) as team:
        assert await hold_ups(team, [(name, tool, json.dumps(request(tool, arguments)).encode())]) == {}


async def test_body_of_brackets_holds_up_nobody_in_a_team(replicas: Replicas) -> None:
    """Nested beyond what a parser of JSON takes."""
    body = json.dumps(request("run_workflow", {"input": "VALUE"})).encode()
    brackets = b"[" * 450_000 + b"]" * 450_000
    async with a_team(replicas) as team:
        assert await hold_ups(team, [("brackets", "run_workflow", body.replace(b'"VALUE"', brackets))]) == {}


@pytest.fixture(scope="module")
def stdio_server(isolated: dict[str, str]) -> Generator[Server]:
    with serving(isolated, "--sandbox") as server:
        yield server


def lingering(server: Server, calls: Iterable[tuple[str, bytes]]) -> dict[str, float]:
    """Return the names of calls that hold up the following one, or are answered at length, with seconds or bytes."""
    listed = server.asked(call("list", "list_customers", limit=1))["result"]["structuredContent"]
    following = call("next", "get_customer", customer_id=listed["data"][0]["id"])

    def answered(*lines: bytes) -> tuple[float, int]:
        began, longest = time.monotonic(), 0
        server.send(*lines)
        for _ in lines:
            longest = max(longest, len(json.dumps(server.heard())))
        return time.monotonic() - began, longest

    usual = sorted(answered(following)[0] for _ in range(40))[-4]
    slow: dict[str, float] = {}
    for name, line in calls:
        waits, sizes = list[float](), list[int]()
        while len(waits) < ATTEMPTS and (not waits or waits[-1] > usual + LONGEST):
            waited, size = answered(line, following)
            waits.append(waited)
            sizes.append(size)
        if waits[-1] > usual + LONGEST:
            slow[name] = round(waits[-1] - usual, 2)
        if max(sizes) > MAX_ANSWER:
            slow[name] = max(sizes)
    return slow


@pytest.mark.parametrize("shape", SHAPES)
def test_oversized_argument_holds_up_no_following_call_over_stdio(stdio_server: Server, shape: str) -> None:
    calls = ((f"{tool} {name}", in_shape(over_stdio(tool, {name: "VALUE"}), shape)) for tool, name in every_argument())
    assert lingering(stdio_server, calls) == {}


@pytest.mark.parametrize("name", COSTLY)
def test_costly_argument_holds_up_no_following_call_over_stdio(stdio_server: Server, name: str) -> None:
    tool, arguments = COSTLY[name]
    assert lingering(stdio_server, [(name, over_stdio(tool, arguments))]) == {}


def entries() -> dict[str, bytes]:
    """Return the other requests that hold texts of a client."""
    key = {"type": "ref/prompt", "name": "rotate_api_key"}
    template = {"type": "ref/resource", "uri": "fastn://customers/{customer_id}"}
    return {
        "resource": message("uri", "resources/read", uri="VALUE"),
        "resource id": message("uri", "resources/read", uri="fastn://customers/VALUE"),
        "prompt": message("prompt", "prompts/get", name="rotate_api_key", arguments={"key": "VALUE"}),
        "prompt name": message("prompt", "prompts/get", name="VALUE"),
        "prompt argument": message("prompt", "prompts/get", name="rotate_api_key", arguments={"VALUE": "key"}),
        "completion": message("typed", "completion/complete", ref=key, argument={"name": "key", "value": "VALUE"}),
        "completion id": message(
            "typed", "completion/complete", ref=template, argument={"name": "customer_id", "value": "VALUE"}
        ),
        "completion argument": message(
            "typed", "completion/complete", ref=key, argument={"name": "VALUE", "value": "a"}
        ),
        "cursor": message("cursor", "tools/list", cursor="VALUE"),
        "tool": call("tool", "VALUE"),
    }


@pytest.mark.parametrize("entry", entries())
def test_oversized_text_of_another_request_is_refused_over_stdio(stdio_server: Server, entry: str) -> None:
    line = entries()[entry].replace(b"VALUE", b"a" * 900_000)
    assert lingering(stdio_server, [(entry, line)]) == {}
    assert "error" in stdio_server.asked(line)
