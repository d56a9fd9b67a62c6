"""Tests of the tools that read much: whichever single request fails, they answer with the rest, or with one error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.world import World

from fastn_mcp.client.exchange import Answer, Exchange
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.batch import Done
from fastn_mcp.procedures.catalog import TOOLS
from fastn_mcp.tools.operation import Request

pytestmark = pytest.mark.anyio

ACME = "c009d6af-1950-4428-ad06-a70af567801a"
READS: list[tuple[str, Mapping[str, Any]]] = [
    ("get_overview", {"hours": 300}),
    ("diagnose", {"hours": 300}),
    ("diagnose", {"customer_id": ACME}),
    ("find", {"query": "why did acme's hubspot sync fail last night?"}),
    ("find_dependents", {"kind": "customer", "id": ACME}),
]


class OneFails:
    """Refuses one request, by its number."""

    def __init__(self) -> None:
        self.number = self.heard = 0

    def around(self, inner: Exchange) -> "OneFails":
        self._inner = inner
        return self

    async def __call__(self, request: Request) -> Answer:
        self.heard += 1
        if self.heard == self.number:
            return Answer(403, {"content-type": "application/json"}, b'{"error": {"code": "NO", "message": "no"}}')
        return await self._inner(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.parametrize(("tool", "arguments"), READS, ids=lambda value: value if isinstance(value, str) else "")
async def test_any_single_request_may_fail(tool: str, arguments: Mapping[str, Any], tmp_path: Path) -> None:
    """An error of one of several parallel reads must not arrive as a group of exceptions."""
    one_fails = OneFails()
    world = World(tmp_path, exchange=one_fails.around)
    while one_fails.number <= one_fails.heard:
        one_fails.number += 1
        one_fails.heard = 0
        outcome = await world.call(TOOLS[tool].model_validate(arguments))
        assert isinstance(outcome, (Done, FastnError)), one_fails.number
        if tool == "get_overview":
            assert isinstance(outcome, Done)
            assert outcome.result.model_dump()["findings"]
    world.close()
    assert one_fails.number > 2
