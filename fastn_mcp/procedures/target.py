"""What a call acts on, read afresh, and the read that settles a lost answer. Reads by the sender it is given."""

import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, cast

from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.operation import UNKNOWN, Operation, Record
from fastn_mcp.tools import CATALOG, AnyOperation
from fastn_mcp.tools.creating import Create
from fastn_mcp.tools.executions import ListExecutions
from fastn_mcp.tools.listing import List, Listed
from fastn_mcp.tools.workflows import RunWorkflow

Call = Operation[Any]
Send = Callable[[Call], Awaitable[Record]]

# A resource without a read of its own is looked for in its list: at most this many pages of a hundred rows.
_PAGES = 20


@cache
def _reader(operation: AnyOperation) -> AnyOperation | None:
    """The operation that shows what this one acts on: its own GET, or else the list it belongs to."""
    template, brace, _ = operation.route.path.partition("}")
    own = template + brace
    wanted = (own, own.rpartition("/")[0])
    gets = {candidate.route.path: candidate for candidate in CATALOG if candidate.route.method == "GET"}
    return next((gets[path] for path in wanted if path in gets), None)


async def read_target(call: Call, send: Send) -> Record | None:
    """The record that `call` acts on; None where it names none, or there is none.

    For a create, the record that it may overwrite; `UNKNOWN` where that could not be learnt.
    """
    if isinstance(call, Create):
        return await _overwritten(call, send)
    reader = _reader(type(call))
    if call.target is None or reader is None:
        return None
    if not issubclass(reader, List):
        name = type(call).route.parameters[-1]
        try:
            return await send(reader.model_validate({name: call.target}))
        except NotFound:
            return None
    row, _ = await find_row(cast("type[List[Any]]", reader), call.target, send)
    return row


def no_such(call: Call) -> tuple[str, str]:
    """What is said where there is nothing with the id that `call` names, and the next step."""
    kind = type(call).route.parameters[-1].removesuffix("_id").replace("_", " ").replace("api", "API")
    lister = f"list_{call.toolset()}"
    by_name = "" if call.toolset() == ListExecutions.toolset() else "find or "  # find knows no executions
    return f"No {kind} with this id, or this API key has no access to it.", f"Find it with {by_name}{lister}."


async def _overwritten(call: Create[Any], send: Send) -> Record | None:
    """What may be overwritten. Every row is read: a search that Fastn makes may miss the slug."""
    lister = cast("type[List[Any]] | None", _reader(type(call)))
    if lister is None:
        return UNKNOWN
    try:
        row = await _row(lister, call.may_overwrite, send)
        if row is None or row is UNKNOWN:
            return row
        detail, id_ = _detail(lister), getattr(row, "id", None)
        if detail is None:
            return row
        return await send(detail.model_validate({detail.route.parameters[-1]: id_})) if id_ else UNKNOWN
    except (FastnError, ValueError):
        return UNKNOWN


async def _row(lister: type[List[Any]], wanted: Callable[[Record], bool | None], send: Send) -> Record | None:
    """The first row that is wanted; `UNKNOWN` where there is none, but not all was read or a row did not say."""
    cursor: str | None = None
    silent = False
    for _ in range(_PAGES):
        page = cast("Listed[Record]", await send(cast(Call, lister(limit=100, cursor=cursor))))
        for row in page.items:
            if (answer := wanted(row)) is True:
                return row
            silent = silent or answer is None
        if (cursor := page.next_cursor) is None:
            return UNKNOWN if silent else None
    return UNKNOWN


@cache
def _detail(lister: AnyOperation) -> AnyOperation | None:
    """The operation that reads one row of a list by its id."""
    own = re.compile(rf"{re.escape(lister.route.path)}/{{\w+}}")
    gets = (candidate for candidate in CATALOG if candidate.route.method == "GET")
    return next((candidate for candidate in gets if own.fullmatch(candidate.route.path)), None)


async def find_row(lister: type[List[Any]], wanted: str, send: Send) -> tuple[Record | None, int]:
    """The row of this id, and how many rows were looked at in vain where the list goes on behind them; else 0."""
    cursor: str | None = None
    seen = 0
    for _ in range(_PAGES):
        reading = cast(Call, lister(limit=100, cursor=cursor))
        page = cast("Listed[Record]", await send(reading))
        for row in page.items:
            if str(getattr(row, "id", "")) == wanted:
                return row, 0
        seen += len(page.items)
        if (cursor := page.next_cursor) is None:
            return None, 0
    return None, seen


def settling_read(call: Call) -> Call | None:
    """The read that shows whether `call` happened, to be made once its answer was lost."""
    if isinstance(call, RunWorkflow):
        return ListExecutions(workflow_id=call.workflow_id)
    reader = _reader(type(call))
    if reader is None:
        return None
    if reader.route.parameters:
        return reader.model_validate({reader.route.parameters[-1]: call.target})
    return reader()
