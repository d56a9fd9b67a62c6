"""Everything that leaves has a limit, however much Fastn answers, and what is large is worked on in a thread."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import (
    CompleteRequestParams,
    CompletionArgument,
    ReadResourceRequestParams,
    ResourceTemplateReference,
    TextResourceContents,
)
from pydantic import JsonValue
from pydantic_core import to_json
from support.fake_fastn import Fastn, client, error_of, reply
from support.hostile_account import Edited
from support.scripted_client import Program, connected
from support.sensible_calls import sensible_arguments
from support.world import World

from fastn_mcp.client import exchange
from fastn_mcp.errors import AppliedUnreadable, Failed, TooLarge
from fastn_mcp.procedures.catalog import ALL_TOOLS, TOOLS
from fastn_mcp.procedures.list_results import ListAnswer
from fastn_mcp.procedures.lookup import Ids
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.runtime import LARGE, work_on
from fastn_mcp.server.handlers import build
from fastn_mcp.server.rendering import BUDGET, MAX_PAGE, bounded, render, render_error
from fastn_mcp.server.resources import ResourceReader, complete
from fastn_mcp.tools.customers import CreateCustomer, GetCustomer, ListCustomers
from fastn_mcp.tools.operation import Request

LONG = "Acme, " * 1_500
HUGE = LONG * 10
KEPT = {"id", "endOrgId", "customerId", "connectorId", "workflowId", "routeId", "createdAt", "startedAt", "status"}


def padded(value: Any, name: str = "") -> Any:
    """Return JSON with a long text in place of each text that is no id, and with many further fields."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: padded(item, key) for key, item in fields.items()} | {f"more{n}": LONG for n in range(3)}
    if isinstance(value, list):
        return [padded(item, name) for item in cast("list[Any]", value)]
    return value + LONG if isinstance(value, str) and name not in KEPT else value


def answered(value: Any, status: int, request: Request) -> Any:  # noqa: ARG001
    return padded(value)


def refused(value: Any, status: int, request: Request) -> Any:  # noqa: ARG001
    if status < 300:
        return padded(value)
    error = {"code": LONG, "message": LONG, "details": {f"d{n}": LONG for n in range(9)}}
    return {"error": error, "requestId": LONG, "cursor": LONG}


ARGUMENTS = sensible_arguments()
PROCEDURES: dict[str, dict[str, Any]] = {
    "find": {"query": "acme"},
    "get_overview": {},
    "diagnose": {},
    "list_changes": {},
    "preview_change": {"tool": "delete_customer", "arguments": ARGUMENTS["delete_customer"]},
    "find_dependents": {"customer_id": ARGUMENTS["delete_customer"]["customer_id"]},
    "apply_changes": {
        "changes": [{"tool": "update_customer", "arguments": {**ARGUMENTS["get_customer"], "name": "A"}}],
    },
}
CALLS = PROCEDURES | {name: arguments for name, arguments in ARGUMENTS.items() if name in TOOLS}


@pytest.mark.parametrize(
    ("edit", "approves"),
    [
        (answered, True),
        (refused, False),
        pytest.param(answered, False, marks=pytest.mark.long),
        pytest.param(refused, True, marks=pytest.mark.long),
    ],
)
async def test_result_of_every_tool_is_within_its_limit(
    tmp_path: Path, edit: Callable[[Any, int, Request], Any], approves: bool
) -> None:
    world = World(tmp_path, exchange=Edited(edit).around)
    person = Program(world, lambda _: {"decision": "approve" if approves else "decline"})
    async with connected(world, "2025-11-25", person) as mcp:
        for tool, arguments in CALLS.items():
            result = await mcp.call_tool(tool, arguments)
            text = cast(Any, result.content[0]).text
            assert (tool, len(text.encode()) <= MAX_PAGE) == (tool, True)
            body = json.loads(text)
            assert body == result.structured_content
            assert not result.is_error or {"outcome", "message"} <= body.keys(), tool
    assert all(len(message) <= 24_000 for message in person.messages)


async def test_resources_completions_and_errors_are_within_their_limits(tmp_path: Path) -> None:
    world = World(tmp_path, exchange=Edited(refused).around)
    async with Client(build(world.dispatch, ALL_TOOLS, {})) as mcp:
        customer = ARGUMENTS["get_customer"]["customer_id"]
        for uri in ("fastn://overview", "fastn://billing", f"fastn://customers/{customer}"):
            (content,) = (await mcp.read_resource(uri)).contents
            assert isinstance(content, TextResourceContents)
            assert len(content.text.encode()) <= MAX_PAGE
        for uri in ("fastn://customers/nobody", f"fastn://{HUGE}"):
            with pytest.raises(MCPError) as caught:
                await mcp.read_resource(uri)
            assert len(to_json([caught.value.error.message, caught.value.error.data])) <= MAX_PAGE
        template = ResourceTemplateReference(type="ref/resource", uri="fastn://customers/{customer_id}")
        completed = await mcp.complete(template, {"name": "customer_id", "value": "a"})
        assert len(to_json(completed.completion.values)) <= MAX_PAGE
        with pytest.raises(MCPError) as caught:
            await mcp.call_tool(HUGE, {})
        assert len(caught.value.error.message) <= 300


async def test_completion_offers_no_id_that_cannot_be_sent_and_cuts_its_error() -> None:
    async def read(_: Any) -> FastnObject:
        return Ids(values=["c1", HUGE], total=2, more=False)

    async def fail(_: Any) -> FastnObject:
        raise Failed(HUGE)

    template = ResourceTemplateReference(type="ref/resource", uri="fastn://customers/{customer_id}")
    argument = CompletionArgument(name="customer_id", value="a")
    params = CompleteRequestParams(ref=template, argument=argument)
    assert (await complete(ALL_TOOLS, params, read)).completion.values == ["c1"]
    with pytest.raises(MCPError) as caught:
        await complete(ALL_TOOLS, params, fail)
    assert len(caught.value.error.message) <= 2_100


async def test_error_of_a_resource_is_cut(tmp_path: Path) -> None:
    async def fail(_: Any) -> FastnObject:
        raise Failed(HUGE, HUGE, facts={"fastn": HUGE})

    reader = ResourceReader(World(tmp_path).dispatch, ALL_TOOLS, {})
    context = cast(Any, SimpleNamespace(protocol_version="2025-11-25"))
    with pytest.raises(MCPError) as caught:
        await reader.read(context, ReadResourceRequestParams(uri="fastn://billing"), fail)
    assert len(caught.value.error.message) <= 2_100
    assert len(to_json(caught.value.error.data)) <= MAX_PAGE + 2_100


def test_outcome_message_and_next_step_of_a_long_error_are_whole() -> None:
    ours: dict[str, JsonValue] = {"outcome": "failed", "message": "It failed. " * 50, "next": "Look. " * 50}
    others: dict[str, Any] = {"fastn": {"details": HUGE}, "calls": [{"name": HUGE}] * 200, "rule": "x"}
    answer = render_error({**ours, **others})
    assert len(to_json(answer)) <= MAX_PAGE
    assert {name: answer[name] for name in ours} == ours
    assert (answer["rule"], answer["untrusted"]) == ("x", True)
    assert answer["left_out"] == "Cut to fit: fastn, calls."


def test_long_message_of_an_error_is_cut_and_its_next_step_is_not() -> None:
    answer = render_error({"outcome": "failed", "message": HUGE, "next": "Look."})
    assert len(to_json(answer)) <= MAX_PAGE
    assert str(answer["message"]).startswith("Acme, Acme")
    assert (answer["next"], answer["left_out"]) == ("Look.", "Cut to fit: message.")


def test_envelope_of_a_page_is_cut_and_its_cursor_is_not() -> None:
    page = ListAnswer(
        items=[{"id": "c1", "name": "Acme"}],
        not_checked=[HUGE] * 5,
        absent=[HUGE],
        ids={"customer": {f"c{number}": HUGE for number in range(50)}},
        gaps=[HUGE],
        next_cursor="c" * 300,
        total=7,
    )
    answer = render(ListCustomers(), page, {})
    assert len(to_json(answer)) <= BUDGET
    assert (answer["total"], answer["data"]) == (7, [{"id": "c1", "name": "Acme"}])
    assert "next_cursor" in answer
    assert "Cut to fit: not_checked, absent, ids." in str(answer["left_out"])


def test_answer_within_the_limit_is_left_as_it_is() -> None:
    answer: dict[str, JsonValue] = {"outcome": "failed", "message": "x" * 20_000}
    assert bounded(answer) is answer


@pytest.mark.parametrize(("size", "is_here"), [(LARGE - 1, True), (LARGE, False)])
async def test_large_work_is_done_in_a_thread(size: int, is_here: bool) -> None:
    assert (await work_on(size, threading.get_ident) == threading.get_ident()) is is_here


@pytest.mark.long
async def test_large_answer_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """The longest time for which nothing else was served: 4 s before there was a thread. 50 ms on a quiet machine."""
    log = "2026-01-01 12:00:01 ERROR step: failed to load key=value token=abc (x: y)\n" * 120_000
    body = reply(200, {"data": {"id": "c1", "name": "Acme", "log": log}})
    failure = reply(400, {"error": {"code": "X", "message": "It failed.", "details": [log[:19_000]] * 400}})
    page = reply(200, {"data": [{"id": f"c{number}", "log": log[:90_000]} for number in range(100)]})
    world = World(tmp_path, exchange=lambda _: Fastn(body, page, failure))
    blocks = [0.0]

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await anyio.sleep(0.002)
            blocks[-1] = max(blocks[-1], time.monotonic() - began)

    async with Client(build(world.dispatch, ALL_TOOLS, {})) as mcp:
        await mcp.call_tool("list_changes", {})  # what is imported and built once
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            for tool, arguments in (
                ("get_customer", {"customer_id": "c1"}),
                ("list_customers", {"detail": "full", "limit": 100}),
                ("get_customer", {"customer_id": "c1"}),
            ):
                blocks.append(0.0)
                await mcp.call_tool(tool, arguments)
            tasks.cancel_scope.cancel()
    assert max(blocks[1:]) < 0.5, blocks


async def test_body_of_too_many_values_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_VALUES", 100)
    body = reply(200, {"data": {"id": "c", "numbers": [1] * 101}})
    assert isinstance(await error_of(client(Fastn(body)), GetCustomer(customer_id="c")), TooLarge)
    assert isinstance(await error_of(client(Fastn(body)), CreateCustomer(name="c")), AppliedUnreadable)


@pytest.mark.parametrize("text", [",[{" * 101, '\\",' * 101, "a,b\n" * 101])
async def test_marks_within_a_text_are_not_values(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_VALUES", 100)
    record = await client(Fastn(reply(200, {"data": {"id": "c", "log": text}}))).send(GetCustomer(customer_id="c"))
    assert record.model_dump()["log"] == text


async def test_long_text_of_an_error_is_replaced_by_its_length() -> None:
    body = {"error": {"code": "X", "message": "x" * 20_001}}
    error = await error_of(client(Fastn(reply(400, body))), GetCustomer(customer_id="c"))
    assert error.facts["fastn"] == {"status": 400, "code": "X", "message": "[20001 characters]"}
