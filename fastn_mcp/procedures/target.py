"""What a call acts on, read afresh, and the read that settles a lost answer. Reads by the sender it is given."""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, cast

from fastn_mcp.errors import NotFound
from fastn_mcp.operation import Operation, Record
from fastn_mcp.tools import CATALOG, AnyOperation
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
    """The record that `call` acts on; None where it names none, or there is none."""
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
