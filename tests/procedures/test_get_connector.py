"""Tests of get_connector: actions with their inputs, in few tokens, whatever Fastn's schemas look like."""

from typing import Any

import pytest
from pydantic import JsonValue
from support.world import World

from fastn_mcp.guard.batch import Done
from fastn_mcp.tools.connectors import GetConnector, UpdateConnector


async def actions_of(world: World, key: str) -> dict[str, Any]:
    return await world.ask(GetConnector(connector_id=key))


async def test_actions_are_listed_with_their_inputs(world: World) -> None:
    shopify = world.sandbox.state.named("connectors", "shopify")
    found = await actions_of(world, shopify["id"])
    assert found["actions"][1] == {
        "slug": "updateInventory",
        "method": "POST",
        "input": {"sku": "string*", "quantity": "integer*"},
    }
    assert found["actions_note"] == "input: type of each field, * if it is required."
    assert found["events"] == shopify["events"]


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        ({"slug": "a", "input_schema": {"properties": {"x": {"type": "array", "items": {"type": "string"}}}}},
         {"slug": "a", "input": {"x": "array of string"}}),
        ({"slug": "a", "parameters": {"properties": {"x": {"type": "object", "properties": {"id": {}, "no": {}}}}}},
         {"slug": "a", "input": {"x": "object {id, no}"}}),
        ({"slug": "a", "inputSchema": {"properties": {"x": {"enum": ["on", 1]}, "y": True, "z": {}}, "required": "x"}},
         {"slug": "a", "input": {"x": "on | 1", "y": "any", "z": "any"}}),
        ({"slug": "a", "inputSchema": {"type": "object"}, "description": "Do it."},
         {"slug": "a", "description": "Do it.", "input": {"type": "object"}}),
        ({"slug": "a", "inputSchema": "text"}, {"slug": "a"}),
        ({"other": 1}, {"other": 1}),
    ],
)  # fmt: skip
async def test_unexpected_schemas_are_tolerated(world: World, action: JsonValue, shown: JsonValue) -> None:
    row = world.sandbox.state.named("connectors", "gamma")
    world.sandbox.state.put("connectors", {**row, "actions": [action]})
    assert (await actions_of(world, row["id"]))["actions"] == [shown]


async def test_update_keeps_whole_actions(world: World) -> None:
    """The short form is only shown. An update sends back what Fastn sent."""
    row = world.sandbox.state.named("connectors", "gamma")
    await world.expect(Done, UpdateConnector(connector_id=row["id"], description="Decks"), world.form())
    assert world.sandbox.state.named("connectors", "gamma")["actions"] == row["actions"]
