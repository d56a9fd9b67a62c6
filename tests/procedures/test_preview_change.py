"""Tests of preview_change, which shows what a call of any other tool would do. Through a real client."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult
from support.direct_sandbox import Fastn
from support.sensible_calls import sensible
from support.world import World

from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.handlers import build
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.tool import AnyTool, Effect

CHANGING = [operation for operation in CATALOG if operation.effect is not Effect.READ]
READING = [tool for tool in ALL_TOOLS if tool.effect is Effect.READ]


def client(world: World, tools: Iterable[AnyTool] = ALL_TOOLS) -> Client:
    return Client(build(world.dispatch, tuple(tools), {"profile": "default", "host": "sandbox"}))


def answer(result: CallToolResult) -> dict[str, Any]:
    assert result.structured_content is not None
    return result.structured_content


@pytest.mark.parametrize("operation", CHANGING, ids=lambda operation: operation.tool_name())
async def test_every_change_is_previewed_and_nothing_is_sent(world: World, operation: AnyTool) -> None:
    """Also in read-only mode, except for Fastn's AI, which reads nothing; dry_run says the same of the same reads."""
    tools = ALL_TOOLS if operation.toolset() == "ai" else READING
    (call,) = (call for call in sensible(Fastn(world.sandbox)) if call.tool_name() == operation.tool_name())
    given = call.model_dump(exclude_unset=True)
    previewed = {"tool": call.tool_name(), "arguments": given}
    async with client(world, tools) as agent:
        await agent.call_tool("preview_change", previewed)
        shown = answer(await agent.call_tool("preview_change", previewed))
    async with client(world) as agent:
        assert answer(await agent.call_tool(call.tool_name(), {**given, "dry_run": True})) == shown
    assert (shown["status"], shown["message"]) == ("preview", "Nothing was sent.")
    assert (shown["preview"]["call"], shown["untrusted"]) == (call.tool_name(), True)
    assert world.changes == []


async def test_preview_change_is_a_read_and_no_schema_lists_dry_run(world: World) -> None:
    """Clients run it in plan modes, and dry_run costs tokens in no conversation."""
    async with client(world, READING) as agent:
        listed = {tool.name: tool for tool in (await agent.list_tools()).tools}
    hints = listed["preview_change"].annotations
    assert hints is not None
    assert (hints.read_only_hint, hints.destructive_hint) == (True, False)
    assert all("dry_run" not in tool.input_schema()["properties"] for tool in ALL_TOOLS)


async def test_preview_in_read_only_mode_says_that_the_call_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, Policy("read-only"))
    given = {"customer_id": world.id_of("customers", "acme-corp")}
    async with client(world, READING) as agent:
        shown = answer(await agent.call_tool("preview_change", {"tool": "delete_customer", "arguments": given}))
    assert shown["preview"]["approval"].startswith("refused by the policy (mode read-only")
    world.close()


APPROVAL: dict[str, tuple[str, Callable[[World], dict[str, Any]]]] = {
    "create_customer": ("none, since the policy allows it", lambda _: {"name": "Initech"}),
    "run_workflow": (
        "a person has to approve it",
        lambda world: {"workflow_id": world.id_of("workflows", "process-new-orders")},
    ),
    "delete_customer": (
        'a person has to approve it by typing "Katana"',
        lambda world: {"customer_id": world.id_of("customers", "katana-customer")},
    ),
}


@pytest.mark.parametrize("tool", APPROVAL)
async def test_preview_says_who_approves(world: World, tool: str) -> None:
    words, arguments = APPROVAL[tool]
    async with client(world) as agent:
        given = {"tool": tool, "arguments": arguments(world)}
        assert answer(await agent.call_tool("preview_change", given))["preview"]["approval"] == words


async def test_lists_and_undo_are_previewed(world: World) -> None:
    acme = world.id_of("customers", "acme-corp")
    given = {"customer_id": acme, "plan": "Free"}
    change = {"tool": "update_customer", "arguments": given}
    async with client(world) as agent:
        many = {"tool": "apply_changes", "arguments": {"changes": [change]}}
        shown = answer(await agent.call_tool("preview_change", many))["preview"]
        assert (shown["call"], [call["call"] for call in shown["calls"]]) == ("apply_changes", ["update_customer"])
        assert shown["approval"] == "none, since the policy allows it"
        made = answer(await agent.call_tool("update_customer", given))["receipt"]["change_id"]
        undo = {"tool": "undo_change", "arguments": {"change_id": made}}
        shown = answer(await agent.call_tool("preview_change", undo))["preview"]
        assert (shown["call"], shown["changes"]) == (
            "update_customer",
            [{"field": "plan", "from": "Free", "to": "Growth"}],
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tool": "list_customers"}, "list_customers changes nothing."),
        ({"tool": "preview_change"}, "preview_change changes nothing."),
        ({"tool": "delete_custmer"}, "There is no tool 'delete_custmer' (did you mean 'delete_customer'?)."),
        ({"tool": "delete_customer"}, "customer_id: is required (Id/name)."),
        ({"tool": "delete_customer", "arguments": []}, "arguments: "),
        ({}, "tool: is required (For example delete_customer)."),
        ({"tool": "delete_customer", "arguments": {"customer_id": "c", "dry_run": "no"}}, "dry_run: must be true"),
        ({"tool": "delete_secret", "arguments": {"secret_id": "s"}}, "delete_secret is disabled here"),
        (
            {
                "tool": "apply_changes",
                "arguments": {"changes": [{"tool": "delete_secret", "arguments": {"secret_id": "s"}}]},
            },
            "Call 1: delete_secret is disabled here",
        ),
    ],
)
async def test_call_that_cannot_be_previewed_is_refused_with_the_reason(
    world: World, given: dict[str, Any], message: str
) -> None:
    tools = [tool for tool in ALL_TOOLS if tool.toolset() != "secrets"]
    async with client(world, tools) as agent:
        refused = await agent.call_tool("preview_change", given)
    assert refused.is_error
    assert message in answer(refused)["message"]
    assert re.search(r"Nothing was sent\.$", answer(refused)["message"])
    assert world.sandbox.requests == []
