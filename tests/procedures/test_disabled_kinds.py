"""No answer has a row of a kind whose tools are disabled: every procedure, preview, resource and completion.

Each row of the sandbox's account has marks that no other row has. An answer may repeat the marks in its own arguments,
and those in rows that an enabled tool returns, such as the customer of a connection.
"""

import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, cast

import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, PromptReference, ResourceTemplateReference
from pydantic import JsonValue
from pydantic_core import to_json
from support.direct_sandbox import Fastn
from support.sensible_calls import sensible
from support.world import World

from fastn_mcp.build.composition import disabled_tools, enabled_tools
from fastn_mcp.client.reads import Pages
from fastn_mcp.config.load import load
from fastn_mcp.errors import Disabled, NotFound, Refused, TargetChanged, UnknownOutcome
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.find_dependents import FindDependents
from fastn_mcp.procedures.overview.get_overview import SUBJECTS, GetOverview
from fastn_mcp.procedures.undo_change import ListChanges, UndoChange
from fastn_mcp.procedures.wait_for_execution import WaitForExecution
from fastn_mcp.server import prompts
from fastn_mcp.server.handlers import build
from fastn_mcp.server.resources import RESOURCES
from fastn_mcp.tools.access import CreateSecret, RevokeApiKey
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.customers import GetCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.workflows import DeleteWorkflow, ListExecutions

KEY = {"FASTN_API_KEY": "k"}

READERS = {
    toolset: tuple(one.tool_name() for one in CATALOG if one.toolset() == toolset and one.effect is Effect.READ)
    for toolset in dict.fromkeys(one.toolset() for one in CATALOG if one.toolset() != "ai")
}
"""Tools that read, by toolset."""


def without(toolsets: Iterable[str]) -> dict[str, str]:
    """Return the setting that disables the tools that read in these toolsets."""
    return {"exclude_tools": ",".join(name for toolset in toolsets for name in READERS[toolset])}


GROUPS = 6
PAIRS = dict(zip(READERS, combinations(range(GROUPS), 2), strict=False))
"""By toolset: the two groups in which it is disabled. Of any two toolsets, one group disables only the first."""

SETTINGS: dict[str, dict[str, Any]] = {
    "without people": {
        "exclude_tools": "list_users,list_secrets,list_api_keys,list_executions,get_execution,query_audit_log"
    },
    "toolsets": {"tools": "customers,procedures"},
    "four tools": {"tools": "find,get_overview,diagnose,list_customers"},
    "read-only": {"tools": "customers,procedures", "mode": "read-only"},
    **{f"group {n}": without(each for each, pair in PAIRS.items() if n in pair) for n in range(GROUPS)},
}
ALONE = {f"without {toolset}": without([toolset]) for toolset in READERS}

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
    marks: dict[str, set[str]]
    """Marks of the rows that no enabled tool returns, by toolset."""
    leaks: list[str] = field(default_factory=list[str])

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
            listing = cast("List[Any]", call).model_copy(update={"limit": 100})
            pages = Pages(listing, world.client.send, 50)
            texts += [to_json([row async for page in pages for row in page.rows], fallback=str)]
        else:
            texts += [to_json(await world.client.send(call), fallback=str)]
    return b"".join(texts).decode()


@pytest.fixture(params=[*SETTINGS, *(pytest.param(name, marks=pytest.mark.long) for name in ALONE)])
async def account(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[MarkedAccount]:
    world = World(tmp_path)
    chosen = (SETTINGS | ALONE)[request.param]
    settings = load(chosen, KEY, None)
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
    yield MarkedAccount(world, chosen, calls, kept)
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
        queries = (ids(world, kind)[0], names(world, kind)[0], f"mark{kind}s", f"{kind}s", "sync orders")
        asked += [("find", {"query": query, "limit": 20}) for query in queries]
        asked.append(("find", {"query": "mark", "kind": kind}))
    asked += [("find", {"query": ids(world, "execution")[-1]}), ("find", {"query": "markcustomersname000"})]
    asked.append(("get_overview", {}))
    for about, table in SUBJECTS.items():
        asked += [("get_overview", {"about": about})]
        asked += [("get_overview", {"about": about, "order": order}) for order in ("name", "age", *table.orders)]
    asked.append(("diagnose", {}))
    for kind in ("customer", "connector", "workflow", "trigger"):
        asked += [("diagnose", {f"{kind}_id": one}) for one in (*ids(world, kind)[:2], names(world, kind)[0])]
    for kind in ("customer", "connector", "connection", "workflow", "secret", "trigger"):
        found = [*ids(world, kind)[:2], names(world, kind)[0]]
        asked += [("find_dependents", {f"{kind}_id": one}) for one in found]
        asked.append(("find_dependents", {f"{kind}_id": found}))
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


def test_of_any_two_toolsets_one_group_disables_only_the_first() -> None:
    assert PAIRS.keys() == READERS.keys()
    for first, second in permutations(PAIRS, 2):
        assert set(PAIRS[first]) - set(PAIRS[second])


async def test_no_answer_has_rows_of_a_disabled_kind(account: MarkedAccount) -> None:
    world = account.world
    failures: list[str] = []
    async with Client(build(world.dispatch, enabled_tools(load(account.settings, KEY, None)), {})) as agent:
        for name, given in questions(world, account.calls):
            result = await agent.call_tool(name, given)
            account.look_for_marks(name, given, result.structured_content)
            if "Internal error" in str(result.structured_content):
                failures.append(f"{name} {given}: {result.structured_content}")
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


@pytest.fixture
def limited(world: World) -> Callable[..., World]:
    """Disable tools as the settings would."""

    def limit(**settings: Any) -> World:
        world.disabled |= disabled_tools(load(settings, KEY, None))
        return world

    return limit


WHY = "Disabled here by the setting exclude_tools."


async def test_kinds_left_out_are_named_with_the_setting(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_users,list_secrets,list_api_keys")
    found = await world.ask(Find(query="acme corp dana"))
    assert found["not_searched"][0] == f"user, api_key, secret: {WHY}"
    assert found["found"][0]["name"] == "Acme Corp"
    gaps = {gap["why"]: gap["what"] for gap in (await world.ask(GetOverview()))["not_checked"]}
    assert gaps[WHY] == "users, API keys, secrets"
    dependents = await world.ask(FindDependents(customer_id="acme-corp"))
    assert {"what": "secrets", "why": WHY} in dependents["not_checked"]
    assert [entry["kind"] for entry in dependents["used_by"]] == ["connections", "executions"]


async def test_name_of_a_disabled_kind_is_refused_and_its_id_taken(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="*_workflow,*_workflows")
    workflow = world.id_of("workflows", "sync-tiktok-orders-to-cin7-core")
    for ask in (Diagnose, ListExecutions):
        error = await world.expect(Disabled, ask(workflow_id="sync-tiktok-orders-to-cin7-core"))
        assert str(error) == f"Names of workflows are not looked up. {WHY} Nothing was sent. Give an id."
    assert (await world.ask(ListExecutions(workflow_id=workflow)))["items"]
    diagnosis = await world.ask(Diagnose(workflow_id=workflow))
    assert diagnosis["causes"]
    assert any(gap.endswith(WHY) for gap in diagnosis["not_checked"])
    dependents = await world.ask(FindDependents(workflow_id=workflow))
    assert dependents["of"] == {"kind": "workflow", "id": workflow}
    assert [entry["kind"] for entry in dependents["used_by"]] == ["triggers"]


async def test_record_is_found_in_its_list_if_only_its_own_read_is_disabled(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="get_customer,get_workflow")
    for typed in (world.id_of("customers", "acme-corp"), "Acme Corp"):
        assert (await world.ask(Diagnose(customer_id=typed)))["customer"]["name"] == "Acme Corp"
    assert await world.expect(NotFound, Diagnose(customer_id="org_0123456789abcdef"))


async def test_missing_id_is_not_found_if_only_its_list_is_disabled(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_workflows")
    assert await world.expect(NotFound, Diagnose(workflow_id="wf_0123456789ab"))


async def test_run_is_not_waited_for_if_reading_it_is_disabled(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="get_execution")
    before = world.clock.at
    await world.expect(Disabled, WaitForExecution(execution_id=ids(world, "execution")[-1]))
    assert world.clock.at == before


async def test_suggestions_name_enabled_tools_only(account: MarkedAccount) -> None:
    world = account.world
    named = re.compile(rf'"tool":"({"|".join(world.disabled)})"|"({"|".join(world.disabled)})\(')
    calls: list[tuple[str, dict[str, Any]]] = [
        ("find", {"query": "acme"}),
        ("find", {"query": "sync"}),
        ("get_overview", {}),
        ("diagnose", {}),
    ]
    async with Client(build(world.dispatch, enabled_tools(load(account.settings, KEY, None)), {})) as agent:
        for name, given in calls:
            result = await agent.call_tool(name, given)
            assert named.findall(to_json(result.structured_content).decode()) == [], name


async def test_error_does_not_point_to_disabled_tools(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_customers")
    error = await world.expect(NotFound, GetCustomer(customer_id="org_0123456789abcdef"))
    assert error.data()["next"] == "Find it with find or list_customers. Disabled here: list_customers."
    assert str(error).endswith("Disabled here: list_customers.")


async def test_agent_reads_numbers_where_the_person_reads_names(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_connections,list_triggers,get_trigger")
    pending = await world.expect(PendingApproval, world.deletion("Katana"))
    shown = pending.question.data_for_agent()
    assert "TikTok Shop of Katana" in str((await world.open_request()).question)
    assert "TikTok Shop of Katana" not in str(shown)
    used_by: Any = shown["used_by"]
    assert used_by[0] == {"kind": "connections", "count": 2, "states": {"broken": 2}}
    assert str(shown["does"]).endswith("Its 2 connections are permanently lost.")


async def test_hidden_target_is_known_by_its_arguments_only(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_api_keys,list_customers,get_customer")
    shown = (await world.preview(RevokeApiKey(api_key_id="4"))).data_for_agent()
    assert shown["target"] == {"id": "4", "name": None}
    assert shown["approval"] == "a person has to approve it by typing what the request asks for"
    update = (
        await world.preview(UpdateCustomer(customer_id=world.id_of("customers", "acme-corp"), plan="Free"))
    ).data_for_agent()
    assert "changes" not in update
    assert "Growth" not in str(update)


async def test_preview_of_a_create_does_not_tell_whether_a_hidden_name_is_taken(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_secrets")
    texts = set[str]()
    for name in ("SHOPIFY_API_TOKEN", "UNKNOWN_TOKEN"):
        texts.add(
            str((await world.preview(CreateSecret(name=name, value="s3cret"))).data_for_agent()).replace(name, "NAME")
        )
    assert len(texts) == 1


async def test_previews_with_disabled_kinds_send_no_further_request(limited: Callable[..., World]) -> None:
    world = limited()
    calls = [call for call in sensible(Fastn(world.sandbox)) if call.effect is not Effect.READ]

    async def requests() -> list[int]:
        sent: list[int] = []
        for call in calls:
            before = len(world.sandbox.requests)
            await world.preview(call)
            sent.append(len(world.sandbox.requests) - before)
        return sent

    world.refuse("/api/v1/triggers")
    usual = await requests()
    limited(exclude_tools="list_connections,list_secrets,*_customers,get_customer")
    assert await requests() == usual


async def test_change_of_a_hidden_kind_is_undone_without_showing_it(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_customers,get_customer")
    key = world.id_of("customers", "acme-corp")
    update = UpdateCustomer(customer_id=key, plan="Free")
    receipt = (await world.rendered(update, world.form()))["receipt"]
    assert ("name" in receipt, receipt["changed"]) == (False, {"plan": {"to": "Free"}})
    (row,) = (await world.ask(ListChanges()))["changes"]
    assert ("name" in row, row["changed"]) == (False, {"plan": {"to": "Free"}})
    world.sandbox.state.rows["customers"][key]["plan"] = "Enterprise"
    drifted = await world.expect(TargetChanged, UndoChange(change_id=row["change_id"]), world.form())
    assert drifted.facts == {}
    world.sandbox.state.rows["customers"][key]["plan"] = "Free"
    undone = (await world.expect(Done, UndoChange(change_id=row["change_id"]), world.form())).result.model_dump()
    assert undone["of"] == {"id": key, "name": None}
    assert world.sandbox.state.rows["customers"][key]["plan"] == "Growth"


async def test_receipt_counts_stopped_triggers_of_a_hidden_kind(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_triggers,get_trigger")
    deletion = DeleteWorkflow(workflow_id=world.id_of("workflows", "process-new-orders"))
    receipt = (await world.rendered(deletion, world.form()))["receipt"]
    assert receipt["stopped_triggers"] == ["1 trigger"]


async def test_refusal_does_not_name_a_hidden_record(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Acme*"\nreason = "ask sales"\n')
    call = UpdateCustomer(customer_id=world.id_of("customers", "acme-corp"), plan="Free")
    assert "Acme Corp" in str(await world.expect(Refused, call))
    world.disabled |= disabled_tools(load({"exclude_tools": "list_customers,get_customer"}, KEY, None))
    refused = str(await world.expect(Refused, call))
    assert "Acme Corp" not in refused
    assert "Reason: ask sales." in refused


async def test_completion_of_a_disabled_kind_is_empty(limited: Callable[..., World]) -> None:
    world = limited(exclude_tools="list_customers")
    tools = enabled_tools(load({"exclude_tools": "list_customers"}, KEY, None))
    async with Client(build(world.dispatch, tools, {})) as agent:
        ref = ResourceTemplateReference(type="ref/resource", uri="fastn://customers/{customer_id}")
        completion = await agent.complete(ref, {"name": "customer_id", "value": ""})
    assert completion.completion.values == []


async def test_question_suggests_enabled_tools_only(limited: Callable[..., World]) -> None:
    settings = {"exclude_tools": "find_dependents,list_executions"}
    world = limited(**settings)
    async with Client(build(world.dispatch, enabled_tools(load(settings, KEY, None)), {})) as agent:
        asked = await agent.call_tool("delete_customer", {"customer_id": world.id_of("customers", "Katana")})
    assert asked.structured_content is not None
    assert asked.structured_content["outcome"] == "approval_required"
    assert '"find_dependents"' not in to_json(asked.structured_content).decode()


def test_lost_response_is_not_settled_by_a_disabled_tool() -> None:
    settle: dict[str, JsonValue] = {"tool": "list_customers", "arguments": {}}
    error = UnknownOutcome("The connection broke.", facts={"settle": settle})
    EnabledTools({"list_users": "tools"}).note_disabled(error)
    assert error.facts == {"settle": settle}
    EnabledTools({"list_customers": "tools"}).note_disabled(error)
    assert error.facts == {}


async def test_run_suggests_no_disabled_tool(limited: Callable[..., World]) -> None:
    run = limited(exclude_tools="wait_for_execution").run().model_copy(update={"wait_seconds": 1})
    assert "next" not in (await limited().rendered(run, limited().form()))["data"]
