"""No answer has a row of a kind whose tools are disabled: every procedure, preview, resource and completion.

Each row of the sandbox's account has marks that no other row has. An answer may repeat the marks in its own arguments,
and those in rows that an enabled tool returns, such as the customer of a connection.
"""

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, PromptReference, ResourceTemplateReference
from pydantic_core import to_json
from support.direct_sandbox import Fastn
from support.sensible_calls import sensible
from support.world import World

from fastn_mcp.build.composition import disabled_tools, enabled_tools
from fastn_mcp.client.reads import Pages
from fastn_mcp.config.load import load
from fastn_mcp.procedures.overview.get_overview import SUBJECTS
from fastn_mcp.server import prompts
from fastn_mcp.server.handlers import build
from fastn_mcp.server.resources import RESOURCES
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect

KEY = {"FASTN_API_KEY": "k"}

READERS = {
    toolset: tuple(one.tool_name() for one in CATALOG if one.toolset() == toolset and one.effect is Effect.READ)
    for toolset in dict.fromkeys(one.toolset() for one in CATALOG if one.toolset() != "ai")
}
"""Tools that read, by toolset."""

SETTINGS: dict[str, dict[str, Any]] = {
    "without people": {
        "exclude_tools": "list_users,list_secrets,list_api_keys,list_executions,get_execution,query_audit_log"
    },
    "toolsets": {"toolsets": "customers,procedures"},
    "four tools": {"tools": "find,get_overview,diagnose,list_customers"},
    "read-only": {"toolsets": "customers,procedures", "read_only": True},
    **{f"without {toolset}": {"exclude_tools": ",".join(names)} for toolset, names in READERS.items()},
}

COLLECTIONS = {
    "customers": ("customers", ("name", "slug", "externalRef")),
    "connectors": ("connectors", ("name",)),
    "connections": ("connections", ("name", "userEmail")),
    "workflows": ("workflows", ("name", "slug")),
    "triggers": ("triggers", ("name",)),
    "executions": ("executions", ("error",)),
    "users": ("users", ("name", "email")),
    "roles": ("roles", ("name",)),
    "api_keys": ("apiKeys", ("name", "last4")),
    "secrets": ("secrets", ("name",)),
    "audit": ("audit", ("actor",)),
    "billing": ("billing", ("plan",)),
}
"""By toolset: the sandbox's collection, and the fields that are marked."""

_MIN_ID = 8
"""Characters from which on an id is a mark itself."""


@dataclass
class MarkedAccount:
    """An account whose rows are marked, and a client of a server with some tools."""

    world: World
    settings: Mapping[str, Any]
    calls: Mapping[str, Call]
    """A call of each operation, by name."""
    marks: dict[str, set[str]] = field(default_factory=dict)
    """Marks of the rows that no enabled tool returns, by toolset."""
    leaks: list[str] = field(default_factory=list)

    def look_for_marks(self, where: str, given: object, answer: object) -> None:
        text, own = to_json(answer, fallback=str).decode(), json.dumps(given, default=str)
        for toolset, marks in self.marks.items():
            found = sorted(mark for mark in marks if mark in text and mark not in own)
            self.leaks += [f"{where} {own[:160]}: {toolset} {found[:3]}"] if found else []


def mark_rows(world: World) -> dict[str, set[str]]:
    """Give each row marks, and return them by toolset, with the ids."""
    marks: dict[str, set[str]] = {}
    for toolset, (collection, fields) in COLLECTIONS.items():
        own = marks[toolset] = set()
        for number, row in enumerate(world.sandbox.state.rows[collection].values()):
            for name in fields:
                if row.get(name):
                    row[name] = mark = f"mark{toolset}{name}{number:03}z"
                    own.add(mark)
            if len(str(row["id"])) >= _MIN_ID:
                own.add(str(row["id"]))
    return marks


async def returned_rows(world: World, calls: Iterable[Call]) -> str:
    """Return everything that some lists and records contain, as JSON."""
    texts: list[bytes] = []
    for call in calls:
        if isinstance(call, List):
            pages = Pages(call.model_copy(update={"limit": 100}), world.client.send, 50)
            texts += [to_json([row async for page in pages for row in page.rows], fallback=str)]
        else:
            texts += [to_json(await world.client.send(call), fallback=str)]
    return b"".join(texts).decode()


@pytest.fixture(params=SETTINGS)
async def account(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[MarkedAccount]:
    world = World(tmp_path)
    settings = load(SETTINGS[request.param], KEY, None)
    disabled = disabled_tools(settings)
    calls = {call.tool_name(): call for call in sensible(Fastn(world.sandbox))}
    marks = mark_rows(world)
    readers = [name for names in READERS.values() for name in names if name not in disabled]
    shown = await returned_rows(world, map(calls.__getitem__, readers))
    hidden = {toolset for toolset, names in READERS.items() if all(name in disabled for name in names)}
    assert hidden
    kept = {toolset: {mark for mark in marks[toolset] if mark not in shown} for toolset in hidden}
    assert all(kept.values())
    world.disabled |= disabled
    yield MarkedAccount(world, SETTINGS[request.param], calls, kept)
    world.close()


def ids(world: World, kind: str) -> list[str]:
    collection = COLLECTIONS[f"{kind}s"][0]
    return [str(row["id"]) for row in world.sandbox.state.all(collection)]


def names(world: World, kind: str) -> list[str]:
    collection = COLLECTIONS[f"{kind}s"][0]
    return [str(row.get("name") or row["id"]) for row in world.sandbox.state.all(collection)]


def questions(world: World, calls: Mapping[str, Call]) -> list[tuple[str, dict[str, Any]]]:
    """Return calls of procedures about rows of each kind, by id and by name."""
    asked: list[tuple[str, dict[str, Any]]] = []
    kinds = ("customer", "connector", "connection", "workflow", "trigger", "user", "role", "api_key", "secret")
    for kind in kinds:
        for query in (*ids(world, kind)[:2], *names(world, kind)[:2], f"mark{kind}s", f"{kind}s", "sync orders"):
            asked.append(("find", {"query": query, "limit": 20}))
        asked.append(("find", {"query": "mark", "kind": kind}))
    asked += [("find", {"query": ids(world, "execution")[-1]}), ("find", {"query": "markcustomersname000"})]
    asked.append(("get_overview", {}))
    for about, table in SUBJECTS.items():
        asked += [("get_overview", {"about": about})]
        asked += [("get_overview", {"about": about, "order": order}) for order in ("name", "age", *table.orders)]
    asked.append(("diagnose", {}))
    for kind in ("customer", "connector", "workflow", "trigger"):
        asked += [("diagnose", {f"{kind}_id": one}) for one in (*ids(world, kind)[:4], names(world, kind)[0])]
    for kind in ("customer", "connector", "connection", "workflow", "secret", "trigger"):
        found = [*ids(world, kind)[:4], names(world, kind)[0]]
        asked += [("find_dependents", {"kind": kind, "id": one}) for one in found]
        asked.append(("find_dependents", {"kind": kind, "ids": found}))
    asked += [("wait_for_execution", {"execution_id": ids(world, "execution")[-1], "seconds": 1})]
    for one in CATALOG:
        if one.effect is Effect.READ and one.toolset() != "ai":
            given = calls[one.tool_name()].model_dump(exclude_unset=True)
            asked.append((one.tool_name(), given))
            if "detail" in one.model_fields:
                asked.append((one.tool_name(), {**given, "detail": "full", "limit": 20}))
            if "customer_id" in one.model_fields:
                asked.append((one.tool_name(), {**given, "customer_id": names(world, "customer")[0]}))
    return asked


async def test_no_answer_has_rows_of_a_disabled_kind(account: MarkedAccount) -> None:
    world = account.world
    failures: list[str] = []
    async with Client(build(world.dispatch, enabled_tools(load(account.settings, KEY, None)), {})) as agent:
        for name, given in questions(world, account.calls):
            result = await agent.call_tool(name, given)
            account.look_for_marks(name, given, result.structured_content)
            body = result.structured_content or {}
            if "Internal error" in str(body.get("message")):
                failures.append(f"{name} {given}: {body}")
    assert account.leaks == []
    assert failures == []


async def test_no_preview_or_question_has_rows_of_a_disabled_kind(account: MarkedAccount) -> None:
    world = account.world
    async with Client(build(world.dispatch, enabled_tools(load(account.settings, KEY, None)), {})) as agent:
        for call in account.calls.values():
            if call.effect is Effect.READ:
                continue
            given = call.model_dump(exclude_unset=True)
            preview = {"tool": call.tool_name(), "arguments": given}
            for name, arguments in (("preview_change", preview), (call.tool_name(), given)):
                result: CallToolResult = await agent.call_tool(name, arguments)
                if call.effect.rank < Effect.EXTERNAL.rank and name != "preview_change":
                    continue  # it was made: its answer is that of an enabled tool
                account.look_for_marks(name, arguments, result.structured_content)
        for name, arguments in (("get_overview", {"about": "approvals"}), ("get_overview", {}), ("list_changes", {})):
            result = await agent.call_tool(name, arguments)
            account.look_for_marks(name, arguments, result.structured_content)
    assert account.leaks == []


async def test_no_resource_or_completion_has_rows_of_a_disabled_kind(account: MarkedAccount) -> None:
    world = account.world
    tools = enabled_tools(load(account.settings, KEY, None))
    async with Client(build(world.dispatch, tools, {})) as agent:
        for spec in RESOURCES:
            keys = [""] if spec.parameter is None else ids(world, str(spec.kind))[:3]
            for key in keys:
                uri = spec.uri.replace(f"{{{spec.parameter}}}", key)
                try:
                    answer: object = (await agent.read_resource(uri)).model_dump()
                except MCPError as error:
                    answer = [str(error), error.error.data]
                account.look_for_marks("resource", uri, answer)
        refs: list[tuple[Any, str]] = [
            (ResourceTemplateReference(type="ref/resource", uri=spec.uri), spec.parameter)
            for spec in RESOURCES
            if spec.parameter and spec.reader in tools
        ]
        refs += [
            (PromptReference(type="ref/prompt", name=recipe.name), argument.name)
            for recipe in prompts.available(tools)
            for argument in recipe.arguments
        ]
        for ref, argument in refs:
            for typed in ("", "m", "mark"):
                completion = await agent.complete(ref, {"name": argument, "value": typed})
                account.look_for_marks("completion", [str(ref), argument], completion.model_dump())
    assert account.leaks == []
