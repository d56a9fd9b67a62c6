"""A renamed tool keeps its old name for calls, policies and plans."""

import json
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from pydantic import JsonValue
from support.faulty_sandbox import HeardRequest
from support.world import World

from fastn_mcp import __version__
from fastn_mcp.config.strict_toml import TomlSource
from fastn_mcp.errors import NotSent
from fastn_mcp.policy.plan_file import plan
from fastn_mcp.policy.schema import named
from fastn_mcp.procedures.catalog import ALL_TOOLS, TOOLS, parse
from fastn_mcp.server.handlers import build
from fastn_mcp.tools.customers import DeleteCustomer, ListCustomers
from fastn_mcp.tools.parsing import ALIASES, Renamed
from fastn_mcp.tools.tool import DRY_RUN

pytestmark = pytest.mark.anyio

OLD = {
    "remove_client": Renamed("delete_customer", "0.3.0", "1.0.0"),
    "list_clients": Renamed("list_customers", "0.3.0", "1.0.0"),
}
SAID = "remove_client is delete_customer since 0.3.0. Use that; 1.0.0 forgets the old name."
ACCOUNT: dict[str, JsonValue] = {"profile": "test"}


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    opened = World(tmp_path)
    yield opened
    opened.close()


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_old_names_are_valid_until_a_future_version() -> None:
    """Expired names must be removed, and no alias points to another alias."""
    for old, alias in (ALIASES or OLD).items():
        assert old not in TOOLS
        assert alias.to in TOOLS
        assert version(alias.since) < version(alias.until)
        assert version(__version__) < version(alias.until)


async def test_old_name_is_not_listed(world: World) -> None:
    async with Client(build(world.dispatch, ALL_TOOLS, ACCOUNT, aliases=OLD)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == list(TOOLS)


async def test_call_by_an_old_name_works_and_returns_the_new_name(world: World) -> None:
    async with Client(build(world.dispatch, ALL_TOOLS, ACCOUNT, aliases=OLD)) as client:
        page = (await client.call_tool("list_clients", {"limit": 1})).structured_content
        assert page is not None
        assert page.pop("renamed") == "list_clients is list_customers since 0.3.0. " + SAID.split(". ")[1]
        assert page == (await client.call_tool("list_customers", {"limit": 1})).structured_content


async def test_call_by_an_old_name_passes_the_same_guard(world: World) -> None:
    """Nothing is sent before an approval, a preview is a preview, and an error holds both names."""
    target = {"customer_id": (await world.rows(ListCustomers()))[0].id}
    async with Client(build(world.dispatch, ALL_TOOLS, ACCOUNT, aliases=OLD)) as client:
        response = await client.call_tool("remove_client", target)
        shown = await client.call_tool("remove_client", {**target, DRY_RUN: True})
        wrong = await client.call_tool("remove_client", {"customer": "x"})
    answers: list[dict[str, Any]] = [answer.structured_content or {} for answer in (response, shown, wrong)]
    assert [answer["renamed"] for answer in answers] == [SAID] * 3
    assert answers[0]["status"] == "approval_required"
    assert (wrong.is_error, "unknown argument 'customer'" in str(answers[2])) == (True, True)
    nothing: list[HeardRequest] = []
    assert world.changes == nothing
    assert [entry["tool"] for entry in map(json.loads, world.audit_path.read_text().splitlines())] == [
        "delete_customer"
    ]


async def test_old_name_without_an_alias_is_unknown(world: World) -> None:
    async with Client(build(world.dispatch, ALL_TOOLS, ACCOUNT)) as client:
        with pytest.raises(MCPError, match="There is no tool 'remove_client'"):
            await client.call_tool("remove_client", {})


def test_disabled_tool_is_disabled_by_its_old_name() -> None:
    reads = {name: offer for name, offer in TOOLS.items() if name == "list_customers"}
    with pytest.raises(NotSent, match="delete_customer is disabled here"):
        parse(reads, "remove_client", {"customer_id": "c1"}, OLD)


@pytest.mark.parametrize("glob", ["remove_client", "remove_*", "Remove_*"])
def test_rule_for_an_old_name_applies_to_the_new_one(glob: str) -> None:
    """A rule that silently matches nothing would loosen the policy."""
    assert named(glob, OLD) == [DeleteCustomer]


def test_rule_for_the_old_name_of_a_read_is_refused() -> None:
    with pytest.raises(ValueError, match="names only tools that read"):
        named("list_clients", OLD)


def test_plan_for_an_old_name_permits_exactly_the_new_one() -> None:
    text = (
        'name = "night"\naccount = "test"\nuntil = 2026-11-26T00:00:00Z\n'
        '[[allow]]\ntool = "{}"\ntarget = "c1"\narguments = "any"\n'
    )
    source = TomlSource(Path("plan.toml"))
    old, new = (
        plan(tomllib.loads(text.format(name)), source, (), OLD) for name in ("remove_client", "delete_customer")
    )
    assert old == new
    assert [permit.tool for permit in old.permits] == ["delete_customer"]
