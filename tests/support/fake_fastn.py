"""A scripted Fastn."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import anyio
import pytest
from pydantic_core import to_json

from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import Answer, UnreadableBody
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError
from fastn_mcp.tools.operation import Operation, Request
from support.clock import Clock

KEY = "fsk_live_canary-3f9a"

Step = Answer | Exception | Callable[[Request], Answer] | Literal["no answer"]


SILENT: Final = "no answer"
"""A step that waits until the request is cancelled."""


class Fastn:
    """Answers by a script, whose last step repeats, and records the requests."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.requests: list[Request] = []
        self.reached = anyio.Event()
        """Set at the first request that is not answered."""
        self.cancelled = 0
        """Number of requests that were given up."""
        self.closed = False

    async def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if step == SILENT:
            self.reached.set()
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled += 1
            raise AssertionError("It was not given up.")
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Answer) else step(request)

    async def aclose(self) -> None:
        self.closed = True


def reply(
    status: int, body: Any = None, headers: Mapping[str, str] | None = None, unreadable: UnreadableBody | None = None
) -> Answer:
    """Return an answer; `body` is JSON, or bytes as they are."""
    raw = body if isinstance(body, bytes) else b"" if body is None else to_json(body)
    return Answer(status, {name.lower(): value for name, value in (headers or {}).items()}, raw, unreadable)


async def error_of(sender: FastnClient, call: Operation[Any]) -> FastnError:
    """Return the error that a call ends with."""
    with pytest.raises(FastnError) as caught:
        await sender.send(call)
    return caught.value


def client(fastn: Fastn, clock: Clock | None = None, *, share: float = 0.5, **account: Any) -> FastnClient:
    """Return a client of this Fastn. Updates are partial by default, so that a call is one request."""
    settings: dict[str, Any] = {"base_url": "https://fastn.example", "api_key": KEY, "update": "partial"}
    return FastnClient(Settings(**(settings | account)), fastn, (clock or Clock()).system(share=share))
