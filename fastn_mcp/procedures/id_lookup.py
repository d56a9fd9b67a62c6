"""Recognise ids in a question by reading what they could be."""

import re
from typing import cast

import anyio

from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.fastn.directory import Entry, entry
from fastn_mcp.fastn.targets import Call, Send
from fastn_mcp.tools.connections import ListConnections
from fastn_mcp.tools.connectors import GetConnector
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.executions import GetExecution
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.triggers import GetTrigger
from fastn_mcp.tools.workflows import GetWorkflow

EXECUTION = "execution"
"""A kind without names: there are far too many, and each is found by its id alone."""

_HEX = "[0-9a-f]"
_UUID = f"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"
_ID = re.compile(
    rf"(?<![\w:.-])(?:(?P<connection>ucl:[\w:.@=+~-]*[\w])|(?P<execution>exec_\w+)|(?P<workflow>wf_\w+)"
    rf"|(?P<personal>(?:org|personal)_\w+)|(?P<uuid>{_UUID}))(?![\w-])",
    re.IGNORECASE,
)


async def look_up(text: str, kind: str | None, send: Send) -> tuple[Entry | None, dict[str, FastnError]]:
    """What the id in `text` is of, if it holds one that can be read by itself; and the kinds that could not be asked.

    With `kind`, only that one is asked.
    """
    found = _ID.search(text)
    if found is None:
        return None, {}
    reads = {asked: call for asked, call in _reads(found).items() if kind in (None, asked)}
    results: dict[str, Entry] = {}
    failures: dict[str, FastnError] = {}

    async def read(asked: str, call: Call) -> None:
        try:
            record = await send(call)
        except NotFound:
            return
        except FastnError as error:
            failures[asked] = error
            return
        if (match := _match(asked, record, found[0])) is not None:
            results[asked] = match

    async with anyio.create_task_group() as group:
        for asked, call in reads.items():
            group.start_soon(read, asked, call)
    return next((results[asked] for asked in reads if asked in results), None), failures


def names_execution(text: str) -> bool:
    """Whether it holds the id of an execution."""
    found = _ID.search(text)
    return found is not None and found.lastgroup == EXECUTION


def _reads(found: re.Match[str]) -> dict[str, Call]:
    """The reads that may show what an id is of, by kind."""
    name = found[0]
    match found.lastgroup:
        case "execution":
            return {EXECUTION: GetExecution(execution_id=name)}
        case "workflow":
            return {"workflow": GetWorkflow(workflow_id=name)}
        case "personal":
            return {"customer": GetCustomer(customer_id=name)}
        case "connection":
            # ucl:org:environment:connector:authentication:customer; there is no GET, but its parts filter the list.
            parts = name.split(":")
            connector, customer = (parts[3], parts[-1]) if len(parts) == 6 else (None, None)
            of = {"connector_id": connector, "customer_id": customer if customer != "default" else None}
            return {"connection": ListConnections.model_validate({"limit": 100} | of)} if connector else {}
        case _:
            return {
                "customer": GetCustomer(customer_id=name),
                "connector": GetConnector(connector_id=name),
                "trigger": GetTrigger(trigger_id=name),
            }


def _match(kind: str, record: FastnObject, wanted: str) -> Entry | None:
    """The answer as an entry, if it is of this id: nobody knows what Fastn answers to one that it does not know."""
    rows = cast("Listed[FastnObject]", record).items if kind == "connection" else [record]
    return next((found for row in rows if (found := entry(kind, row)).id.casefold() == wanted.casefold()), None)
