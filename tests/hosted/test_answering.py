"""In one piece where only the answer is wanted; and whoever leaves ends what was begun for them. Issue 9."""

import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from fastn_mcp.hosted.answering import Answering

pytestmark = pytest.mark.anyio

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "find", "arguments": {"query": "x"}}}
PROGRESS = {**CALL, "params": {"name": "find", "_meta": {"progressToken": 7}}}
LOGS = {**CALL, "params": {"name": "find", "_meta": {"io.modelcontextprotocol/logLevel": "info"}}}
LISTEN = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen"}


class Way:
    """One of the two ways: notes the bodies that come by it, or waits for good."""

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
    """What comes from a client, message by message; then nothing more, and it stays."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)

    async def receive(self) -> Message:
        if not self._messages:
            await anyio.sleep_forever()
        return self._messages.pop(0)


async def sent(_: Message) -> None:
    """Nobody listens."""


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def came(*messages: Message, method: str = "POST") -> tuple[list[bytes], list[bytes]]:
    streamed, whole = Way(), Way()
    with anyio.fail_after(5):
        await Answering(streamed, whole)({"type": "http", "method": method}, Client(messages).receive, sent)
    return streamed.bodies, whole.bodies


async def test_a_plain_request_is_answered_in_one_piece() -> None:
    """Ours: its body is what came."""
    body = json.dumps(CALL).encode()
    assert await came(part(body)) == ([], [body])


@pytest.mark.parametrize("wanted", [PROGRESS, LOGS, LISTEN], ids=["progress", "logs", "listen"])
async def test_whoever_wants_to_hear_more_gets_a_stream(wanted: dict[str, Any]) -> None:
    """MCP: progress and log messages come before the answer, and a listener has none."""
    body = json.dumps(wanted).encode()
    assert await came(part(body)) == ([body], [])


async def test_what_does_not_come_at_once_is_left_to_the_stream() -> None:
    """Ours: nothing is gathered here, so that its bounds stay where they are."""
    assert await came(part(b"{", more=True), part(b"}")) == ([b"{}"], [])
    assert await came({"type": "http.disconnect"}) == ([b""], [])
    assert await came(part(b""), method="GET") == ([b""], [])


async def test_a_client_that_leaves_ends_its_call() -> None:
    """DESIGN 4: a cancelled call cancels the request."""
    whole = Way(waits=True)
    client = Client([part(b"{}"), {"type": "http.disconnect"}])
    with anyio.fail_after(5):
        await Answering(Way(), whole)({"type": "http", "method": "POST"}, client.receive, sent)
    assert (whole.bodies, whole.cancelled) == ([b"{}"], True)
