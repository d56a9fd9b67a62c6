"""Cursors carry their filters: with others they are refused, as rows would be skipped silently."""

from typing import Any

import pytest
from support.table_rows import rows_of
from support.world import World

from fastn_mcp.errors import NotSent
from fastn_mcp.procedures.catalog import ALL_TOOLS, TOOLS, parse
from fastn_mcp.server.tool_list import tool as listed
from fastn_mcp.tools.paging import List, Position
from fastn_mcp.tools.tool import AnyTool

PAGED = [tool for tool in ALL_TOOLS if "cursor" in tool.model_fields]
OTHER_CURSORS = {
    "get_overview": "1.1",
    "get_usage": Position(skip=50).encode(),
    "list_changes": "1",
    "diagnose": "1",
}
SHAPING = {"limit", "cursor", "fields", "detail"}
FILTERS = [(tool, name) for tool in PAGED for name in tool.model_fields if name not in SHAPING]


def cursor_of(tool: AnyTool, **arguments: Any) -> str:
    """A cursor that an answer of this tool would have."""
    position = Position(offset=1).encode() if issubclass(tool, List) else OTHER_CURSORS[tool.tool_name()]
    return tool.model_validate(arguments).sealed(position)


def sample(tool: AnyTool, name: str) -> Any:
    facts = tool.input_schema()["properties"][name]
    plain = {"string": facts.get("enum", ["one"])[0], "integer": 7, "boolean": True, "array": ["one"]}
    return plain[facts["type"]]


def test_tools_with_pages() -> None:
    assert {tool.tool_name() for tool in PAGED if not issubclass(tool, List)} == OTHER_CURSORS.keys()
    assert len(FILTERS) > 30


@pytest.mark.parametrize(("tool", "name"), FILTERS, ids=[f"{tool.tool_name()}-{name}" for tool, name in FILTERS])
def test_cursor_with_other_filters_is_refused_by_the_filter(tool: AnyTool, name: str) -> None:
    value = sample(tool, name)
    for before, now in (({}, {name: value}), ({name: value}, {})):
        with pytest.raises(
            NotSent, match=rf"cursor: the page that it continues had another {name}\. Repeat its arguments"
        ):
            parse(TOOLS, tool.tool_name(), {"cursor": cursor_of(tool, **before), **now})
        parse(TOOLS, tool.tool_name(), {"cursor": cursor_of(tool, **before), **before})


@pytest.mark.parametrize("tool", PAGED, ids=lambda tool: tool.tool_name())
def test_cursor_of_another_list_is_refused(tool: AnyTool) -> None:
    for other in PAGED:
        if other is not tool:
            with pytest.raises(NotSent, match="cursor: the page that it continues belongs to another tool"):
                parse(TOOLS, tool.tool_name(), {"cursor": cursor_of(other)})


@pytest.mark.parametrize("tool", PAGED, ids=lambda tool: tool.tool_name())
@pytest.mark.parametrize("cursor", ["", "~", "x~", "x~tool=0", "~tool=", "WyI~,=,", "\ud800~x", "~~"])
def test_invalid_cursor_is_refused(tool: AnyTool, cursor: str) -> None:
    with pytest.raises(NotSent):
        parse(TOOLS, tool.tool_name(), {"cursor": cursor})


@pytest.mark.parametrize("tool", PAGED, ids=lambda tool: tool.tool_name())
def test_schema_allows_the_cursors_of_answers(tool: AnyTool) -> None:
    assert "pattern" not in listed(tool).input_schema["properties"]["cursor"]
    assert "pattern" not in tool.input_schema()["properties"]["cursor"]


async def test_number_of_rows_and_columns_may_change_between_pages(world: World) -> None:
    whole = rows_of((await world.rendered_tool("list_executions", limit=100, status="failed"))["data"])
    first = await world.rendered_tool("list_executions", limit=4, status="failed")
    second = await world.rendered_tool(
        "list_executions", limit=3, status="failed", fields=["id", "status"], cursor=first["next_cursor"]
    )
    assert [row["id"] for row in (*first["data"], *second["data"])] == [row["id"] for row in whole[:7]]


async def test_page_that_was_cut_goes_on_with_its_filters(large_world: World) -> None:
    first = await large_world.rendered_tool("list_executions", limit=100, status="failed", detail="full")
    assert "did not fit" in first["left_out"]
    with pytest.raises(NotSent, match="another status"):
        await large_world.rendered_tool("list_executions", status="completed", cursor=first["next_cursor"])
    second = await large_world.rendered_tool("list_executions", status="failed", cursor=first["next_cursor"])
    assert {row["id"] for row in second["data"]}.isdisjoint(row["id"] for row in first["data"])
