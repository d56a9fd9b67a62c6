"""`_meta` of a result: the requests that were sent to Fastn for it, and the age of what was read."""

from pathlib import Path
from typing import Any

from mcp import Client
from mcp.types import InputRequiredResult
from support.local_page import globex, recording_browser
from support.server_process import (
    Person,
    Upstream,
    approving,
    body,
    each_transport_and_era,
    environment,
    served,
)
from support.world import World

from fastn_mcp.client.cost import spent
from fastn_mcp.client.exchange import Answer
from fastn_mcp.extensions.sandbox.server import InProcess
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.handlers import AGE_META, REQUESTS_META, build
from fastn_mcp.tools.operation import Request


@each_transport_and_era
async def test_each_result_names_its_requests(upstream: Upstream, tmp_path: Path, transport: str, era: str) -> None:
    """Also an error, a preview, and a call that waits for a person."""
    sent: list[int] = []
    env = environment(upstream) | {"BROWSER": recording_browser(tmp_path)[0]}
    async with served(env, transport, era) as client:

        async def call(tool: str, arguments: dict[str, Any]) -> tuple[str, int, int]:
            before = len(upstream.requests())
            result = await client.call_tool(tool, arguments)
            meta = result.meta or {}
            return str(body(result).get("outcome")), meta[REQUESTS_META], len(upstream.requests()) - before

        customer = (await globex(client))["id"]
        for outcome, tool, arguments in (
            ("None", "get_customer", {"customer_id": customer}),
            ("None", "get_overview", {}),
            ("not_found", "get_customer", {"customer_id": "nobody"}),
            ("not_sent", "create_customer", {}),
            ("None", "preview_change", {"tool": "delete_customer", "arguments": {"customer_id": customer}}),
            ("approval_required", "delete_customer", {"customer_id": customer}),
            ("None", "create_customer", {"name": "Initech"}),
        ):
            result = await call(tool, arguments)
            assert (tool, result[0]) == (tool, outcome)
            assert (tool, result[1]) == (tool, result[2])
            sent.append(result[1])
    assert sent[0] == 1
    assert sent[3] == 0
    assert min(sent[:3] + sent[4:]) > 0


async def test_age_of_an_earlier_read_is_named(tmp_path: Path) -> None:
    """From a second on. What the answer uses says when it was read."""

    class Earlier:
        age = 0.0

        def __init__(self, inner: InProcess) -> None:
            self._inner = inner

        async def __call__(self, request: Request) -> Answer:
            if (cost := spent.get()) is not None and self.age:
                cost.oldest = world.system.monotonic() - self.age
            return await self._inner(request)

        async def aclose(self) -> None: ...

    world = World(tmp_path, exchange=Earlier)
    ages: list[Any] = []
    async with Client(build(world.dispatch, ALL_TOOLS, {})) as client:
        for Earlier.age in (0.0, 1.0, 1.06, 42.34):
            result = await client.call_tool("get_billing")
            ages.append((result.meta or {}).get(AGE_META))
    assert ages == [None, None, 1.1, 42.3]


async def test_request_for_a_form_names_its_requests(tmp_path: Path) -> None:
    """2026-07-28: the form is a result of its own, and the answer to it comes with another request."""
    world = World(tmp_path)
    deletion = {"customer_id": world.id_of("customers", "Globex Exports")}
    server = build(world.dispatch, ALL_TOOLS, {})
    async with Client(server, mode="2026-07-28", elicitation_callback=Person(approving)) as client:
        asked = await client.session.call_tool("delete_customer", deletion, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    assert (asked.meta or {})[REQUESTS_META] == len(world.sandbox.requests) > 1
