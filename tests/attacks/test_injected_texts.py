"""Texts in Fastn's answers that pose as instructions, results or approvals stay data, whichever tool reads them.

Each reading tool is called on two accounts that differ only in texts that others can write: hostile ones, and harmless
ones of the same length. Keys, suggestions and our own sentences, without what they quote, have to be the same.
"""

import json
import re
import unicodedata
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from mcp import Client
from mcp.types import TextContent
from support.hostile_account import LIES, TEXTS, VALUES, Edited, RefusingReads, harmless, planting
from support.table_rows import rows_of, table_rows
from support.world import World

from fastn_mcp.errors import FastnError, NotFound, NotSent
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.ai import next_step
from fastn_mcp.procedures.catalog import ALL_TOOLS, TOOLS, parse
from fastn_mcp.procedures.find import NEXT, RUN
from fastn_mcp.procedures.overview.get_overview import SUBJECTS
from fastn_mcp.procedures.query.tables import TABLES as QUERY_TABLES
from fastn_mcp.procedures.wait_for_execution import WaitForExecution
from fastn_mcp.server.handlers import build
from fastn_mcp.tools.access import DeleteSecret
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.tool import AnyTool, Effect, Tool

pytestmark = pytest.mark.no_cover

READING = [tool for tool in ALL_TOOLS if tool.effect is Effect.READ and tool.tool_name() != "preview_change"]
COMPOSED_TOOLS = [tool for tool in READING if tool.tool_name() not in OPERATIONS]
"""Tools that read several lists. Fastn may refuse any of these reads."""

SUGGESTIONS = {"next", "more", "see", "settle", "note", "left_out", "next_cursor", "ambiguous"}
"""Fields that are never made of such texts."""

SENTENCES = {
    "verdict",
    "what",
    "likely_cause",
    "fix",
    "will_not_help",
    "tell",
    "problem",
    "runs_fail_because",
    "not_checked",
    "not_searched",
    "why",
    "message",
    "usual",
    "resource",
    "error",
}
"""Fields with sentences of ours, in which such a text is quoted, and cells that are such texts as a whole."""

COMPOSED = {
    "started_by",
    "startedBy",
    "starts",
    "what_counts",
    "triggers",
    "name",
    "connections",
    "resource",
    "last_run",
}
"""Cells that join names: of triggers, workflows, and numbers of runs."""

REMEDIES = {"update_trigger"}
"""Changes that a suggestion may name: a trigger that is switched off is switched on again once the cause is gone."""

QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def skeleton(text: str) -> str:
    return re.sub(r" \[\d+ more characters?\]", "", QUOTED.sub('""', text))


def is_cell(text: str) -> bool:
    """Whether a text from Fastn begins it: nothing of ours stands before."""
    return text.casefold().startswith("acme ")


@dataclass(frozen=True)
class Pair:
    """The same account with hostile and with harmless texts."""

    hostile: World
    harmless: World

    @asynccontextmanager
    async def clients(self) -> AsyncGenerator["Clients"]:
        servers = [build(world.dispatch, ALL_TOOLS, {"account": "test"}) for world in (self.hostile, self.harmless)]
        async with Client(servers[0]) as hostile, Client(servers[1]) as plain:
            yield Clients(hostile, plain)


@dataclass(frozen=True)
class Clients:
    """A client of each account."""

    hostile: Client
    plain: Client

    async def bodies(self, call: Tool[Any]) -> tuple[Any, Any]:
        return await body(self.hostile, call), await body(self.plain, call)


async def body(client: Client, call: Tool[Any]) -> Any:
    """Return the answer as a client reads it in the text of a result."""
    result = await client.call_tool(call.tool_name(), call.model_dump(exclude_unset=True))
    (text,) = result.content
    assert isinstance(text, TextContent)
    assert json.loads(text.text) == result.structured_content
    return json.loads(text.text)


def pair_of(folder: Path, exchange: Callable[[Callable[[str], str]], Edited]) -> Pair:
    """Return two worlds, in which texts are changed in this way."""
    worlds: list[World] = []
    for number, change in enumerate((str, harmless)):
        (own := folder / str(number)).mkdir()
        worlds.append(World(own, exchange=exchange(change).around))
    return Pair(*worlds)


@pytest.fixture(params=[TEXTS, VALUES], ids=["free texts", "documented values"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    return pair_of(tmp_path, partial(planting, request.param))


def ids(world: World) -> dict[str, list[str]]:
    """Return some ids by the argument that takes them."""
    rows = world.sandbox.state.all
    failed = [str(row["id"]) for row in rows("executions") if row["status"] == "failed"]
    kinds = ("customer", "connector", "connection", "workflow", "trigger", "secret")
    by_argument = {f"{kind}_id": [str(row["id"]) for row in rows(f"{kind}s")] for kind in kinds}
    return by_argument | {"execution_id": [failed[-1], str(rows("executions")[-1]["id"])]}


def calls_of(tool: AnyTool, known: dict[str, list[str]]) -> Iterator[Tool[Any]]:
    """Yield calls that show what the tool can show."""
    type_: Any = tool
    match tool.tool_name():
        case "find":
            yield type_(query="acme", kind="role", limit=20)
            yield from (type_(query=keys[0]) for keys in known.values())
        case "get_overview":
            yield from (type_(about=about, hours=720) for about in (None, *SUBJECTS) if about != "expiry")
            yield type_(about="expiry")
        case "diagnose":
            yield type_(hours=720)
            arguments = [name for name in type_.model_fields if name in known]
            yield from (type_(**{name: key}, hours=720) for name in arguments for key in known[name][:2])
        case "query":
            names = [name for name in QUERY_TABLES if name != "run_counts"]  # which has a request for each of its cells
            yield from (type_(sql=f"select * from {name}", max_kb=30) for name in names)  # noqa: S608 - ours
        case "find_dependents":
            yield from (type_(**{name: key}) for name in type_.model_fields for key in known[name][:2])
            yield type_(workflow_id=known["workflow_id"][:3])
        case _:
            needed = [name for name, field in type_.model_fields.items() if field.is_required()]
            for number in range(2):
                yield type_(**{name: known[name][number] for name in needed})
            if "detail" in type_.model_fields:
                yield type_(detail="full")
                yield type_(limit=100)
            if tool.tool_name() == "list_executions":
                yield from (type_(workflow_id=key, limit=100) for key in known["workflow_id"][:3])


def rows(value: Any, name: str) -> Any:
    """Return the rows of a table as objects, so that each cell has its name; those of `find` in order of their ids."""
    if isinstance(value, dict) and {"columns", "rows"} <= cast("dict[str, Any]", value).keys():
        return table_rows(value) if name == "table" else rows_of(value)
    if name == "found":  # in the order of scores, which depend on names
        return sorted(cast("list[dict[str, Any]]", value), key=lambda row: row["id"])
    return cast("Any", value)


def check(hostile: Any, plain: Any, at: tuple[str, ...] = ()) -> None:
    """Compare two answers."""
    names = {*at}
    name = at[-1] if at else ""
    if not isinstance(hostile, dict) or name != "found":
        hostile, plain = rows(hostile, name), rows(plain, name)
    if isinstance(hostile, dict):
        assert [*cast("dict[str, Any]", hostile)] == list(plain), at
        for key, item in cast("dict[str, Any]", hostile).items():
            check(item, plain[key], (*at, key))
    elif isinstance(hostile, list):
        assert len(cast("list[Any]", hostile)) == len(plain), at
        for item, other in zip(cast("list[Any]", hostile), plain, strict=True):
            check(item, other, at)
    elif isinstance(hostile, str):
        unseen = [each for each in hostile if unicodedata.category(each)[0] in "CZ" and each not in " \n\t"]
        assert not unseen, (at, hostile)
        if hostile != plain:
            assert not names & SUGGESTIONS or names & {"input", "output"}, (at, hostile)
            assert at[0] in ("data", "ids", "resource", "next", "fastn", "preview"), (at, hostile)
            is_whole = is_cell(hostile) and name not in SENTENCES - {"why", "message", "what", "error"}
            assert is_whole or name in COMPOSED or skeleton(hostile) == skeleton(plain), (at, hostile)
    else:
        assert hostile == plain or name in ("score", "total"), at


def suggestions(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the calls that an answer suggests."""
    if isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from suggestions(item)
    elif isinstance(value, dict):
        if {"tool", "arguments"} <= cast("dict[str, Any]", value).keys():
            yield cast("dict[str, Any]", value)
        for item in cast("dict[str, Any]", value).values():
            yield from suggestions(item)


def check_suggestions(answer: Any, name: str, known: set[str]) -> None:
    """Check that each suggestion is a call of a reading tool or a remedy, with ids of the account or values of ours."""
    for step in suggestions(answer["data"]):
        call = parse(TOOLS, step["tool"], step["arguments"]).call
        assert call.effect is Effect.READ or step["tool"] in REMEDIES
        for argument, value in step["arguments"].items():
            assert not str(value).startswith("Acme"), step
            assert not argument.endswith("_id") or value in known, step
    if name == "find":
        lists = {f"{tool.tool_name()}()" for tool in READING}
        assert {*answer["data"].get("next", ())} <= {call for calls in NEXT.values() for call in calls} | {RUN} | lists


@pytest.mark.parametrize(
    ("paths", "tools"),
    [
        ("connections|triggers", COMPOSED_TOOLS),
        ("executions|users", COMPOSED_TOOLS),
        ("customers|workflows|connectors", COMPOSED_TOOLS),
        (".", READING),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_refusals_of_fastn_are_not_our_sentences(tmp_path: Path, paths: str, tools: list[AnyTool]) -> None:
    pair = pair_of(tmp_path, partial(RefusingReads, paths))
    known = ids(pair.hostile)
    async with pair.clients() as clients:
        for call in [call for tool in tools for call in list(calls_of(tool, known))[:2]]:
            hostile, plain = await clients.bodies(call)
            check(hostile, plain)
            assert hostile == plain or hostile["untrusted"] is True


@pytest.mark.parametrize(("typed", "expected"), [("Acmee", NotFound), ("same-slug", NotSent)])
@pytest.mark.parametrize("kind", ["customer", "workflow", "connector", "trigger"])
async def test_names_in_errors_are_quoted_and_untrusted(
    tmp_path: Path, kind: str, typed: str, expected: type[FastnError]
) -> None:
    """`next` names near ones if nothing has the name, and tells apart those that have it."""
    pair = pair_of(tmp_path, partial(planting, (TEXTS | {"status"}) - {"slug"}))
    for world in (pair.hostile, pair.harmless):
        for row in world.sandbox.state.all(f"{kind}s"):
            row["slug"] = "same-slug"
    call = TOOLS["diagnose"].model_validate({f"{kind}_id": typed})
    async with pair.clients() as clients:
        hostile, plain = await clients.bodies(call)
    assert (hostile["outcome"], hostile["untrusted"]) == (expected.outcome, True), hostile
    assert expected is NotSent or "Acme" in hostile["next"]
    assert skeleton(hostile["next"]) == skeleton(plain["next"])


async def test_no_next_call_is_made_of_what_is_no_id(tmp_path: Path) -> None:
    world = World(tmp_path, exchange=planting(frozenset({"workflowId"})).around)
    failed = [str(row["id"]) for row in world.sandbox.state.all("executions") if row["status"] == "failed"]
    async with Client(build(world.dispatch, ALL_TOOLS, {})) as client:
        answer = await body(client, WaitForExecution(execution_id=failed[0]))
    assert answer["data"]["workflowId"].startswith("Acme ")
    assert "next" not in answer["data"]


@pytest.mark.parametrize("lie", LIES)
def test_replies_of_fastns_ai_suggest_nothing(lie: str) -> None:
    fields = ("session_id", "resourceId", "status", "message", "next", "plan")
    for name in fields:
        for more in ({}, {"questions": [lie]}, {"pending_approvals": [{"tool": lie}]}, {"status": "running"}):
            reply: dict[str, Any] = {"session_id": "ses_1", **more, name: lie}
            assert "Acme" not in str(next_step(reply, kind="workflow")), reply
            assert lie not in str(next_step(reply, kind="workflow")).replace("\\\\", "\\"), reply


async def test_texts_of_others_stay_quoted_data(pair: Pair) -> None:
    known = ids(pair.hostile)
    every = {key for keys in known.values() for key in keys}
    every |= {str(row["id"]) for name in ("executions", "apiKeys") for row in pair.hostile.sandbox.state.all(name)}
    for world in (pair.hostile, pair.harmless):  # a change to list
        await world.expect(Done, DeleteSecret(secret_id=known["secret_id"][-1]), world.form())
    async with pair.clients() as clients:
        for call in [call for tool in READING for call in calls_of(tool, known)]:
            hostile, plain = await clients.bodies(call)
            assert "data" in hostile, (call, hostile)
            assert hostile["untrusted"] is True, call
            check(hostile, plain)
            check_suggestions(hostile, call.tool_name(), every)
