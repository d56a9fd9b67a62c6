"""What a call acts on: a fresh read of the target, and the read that settles a lost response."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any, Self, cast

import anyio
from pydantic import JsonValue

from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.fastn.names import Label, Names, label_of, references
from fastn_mcp.fastn.rows import row_of
from fastn_mcp.redaction import redact_object
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.connectors import GetConnector
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.operation import UNKNOWN, Create, Operation
from fastn_mcp.tools.paging import List, Listed
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.workflows import GetWorkflow, ListExecutions, RunWorkflow

Call = Operation[Any]
Send = Callable[[Call], Awaitable[FastnObject]]

_PAGES = 20
"""Pages of a hundred rows in which a resource without a read of its own is looked for."""

_READS = {operation.route.path: operation for operation in CATALOG if operation.route.method == "GET"}
"""The operations that read, by path."""


@cache
def _reader(operation: AnyOperation) -> AnyOperation | None:
    """The operation that shows what this one acts on: its own GET, or else the list it belongs to."""
    template, brace, _ = operation.route.path.partition("}")
    own = template + brace
    return _READS.get(own) or _READS.get(own.rpartition("/")[0])


class Pages:
    """Reads a list page by page, `most` pages at most."""

    def __init__(self, reading: Call, send: Send, most: int) -> None:
        self._reading: Call | None = reading
        self._send = send
        self._left = most

    @property
    def is_complete(self) -> bool:
        """Whether the last page was read."""
        return self._reading is None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Listed[FastnObject]:
        if self._reading is None or self._left == 0:
            raise StopAsyncIteration
        self._left -= 1
        page = cast("Listed[FastnObject]", await self._send(self._reading))
        following = self._reading.model_copy(update={"cursor": page.next_cursor})
        self._reading = None if page.next_cursor is None else following
        return page


async def find_row(
    lister: type[List[Any]], matches: Callable[[FastnObject], bool | None], send: Send
) -> tuple[FastnObject | None, int]:
    """The first row that matches; where there is none, how many rows were read if that leaves a doubt, else 0.

    A doubt is left by a row that does not say (None), and where there are more rows than are read.
    """
    seen, silent = 0, False
    pages = Pages(cast(Call, lister(limit=100)), send, _PAGES)
    async for page in pages:
        for row in page.items:
            if (answer := matches(row)) is True:
                return row, 0
            silent = silent or answer is None
        seen += len(page.items)
    return None, max(seen, 1) if silent or not pages.is_complete else 0


def has_id(id_: str) -> Callable[[FastnObject], bool]:
    """Whether a row has this id."""
    return lambda row: str(getattr(row, "id", "")) == id_


async def read_target(call: Call, send: Send) -> FastnObject | None:
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
    row, _ = await find_row(cast("type[List[Any]]", reader), has_id(call.target), send)
    return row


GETS: Mapping[str, AnyOperation] = {"customer": GetCustomer, "connector": GetConnector, "workflow": GetWorkflow}
"""The operations that read a resource for its name, by kind."""

LOOKUPS = 5
"""Resources of one kind that are read for their names, for one answer."""


def kind_of(call: Call) -> str:
    """The kind of resource that it acts on or makes: `customer`, `api_key`."""
    parameters = type(call).route.parameters
    return parameters[-1].removesuffix("_id") if parameters else call.tool_name().partition("_")[2]


def fields_sent(call: Call) -> dict[str, JsonValue]:
    """The body of its request by Fastn's names, without secrets. Raises a `RefusedValue`."""
    return redact_object(call.model_copy(update=dict.fromkeys(call.secrets())).request().body or {})


def own_label(call: Call, target: FastnObject | None, names: Names | None = None) -> Label | None:
    """The label of what it acts on, or of what it makes, as far as that says it. `names` are of what it refers to."""
    row = _labelled(call, target)
    return None if row is None else label_of(kind_of(call), row, names or {})


async def read_label(call: Call, target: FastnObject | None, send: Send) -> Label | None:
    """The same with the names of what it refers to, read where the row does not say them."""
    row = _labelled(call, target)
    return None if row is None else own_label(call, target, await read_names(references(kind_of(call), row), send))


def _labelled(call: Call, target: FastnObject | None) -> Mapping[str, JsonValue] | None:
    """The row whose label stands for a call; None for an AI session, which has none."""
    if call.toolset() == "ai":
        return None
    row = row_of(target)
    return row if row or call.target is not None else fields_sent(call)


async def read_names(wanted: Mapping[str, Sequence[str]], send: Send) -> dict[str, dict[str, str]]:
    """Names by kind and id, of `wanted` ids by kind: a few of each kind. What cannot be read is left out."""
    found: dict[str, dict[str, str]] = {kind: {} for kind, keys in wanted.items() if keys}
    if not found:
        return found

    async def look_up(kind: str, key: str) -> None:
        if (name := await read_name(kind, key, send)) is not None:
            found[kind][key] = name

    async with anyio.create_task_group() as group:
        for kind, keys in wanted.items():
            for key in list(dict.fromkeys(keys))[:LOOKUPS]:
                group.start_soon(look_up, kind, key)
    return found


async def read_name(kind: str, key: str, send: Send) -> str | None:
    """What the resource of this id is called; None where that cannot be read: a name is a courtesy."""
    try:
        record = await send(GETS[kind].model_validate({f"{kind}_id": key}))
    except (FastnError, ValueError):
        return None
    label = label_of(kind, row_of(record))
    return label.name if label else key


def no_such(call: Call) -> tuple[str, str]:
    """The message for an id that does not exist, and the next step."""
    kind = type(call).route.parameters[-1].removesuffix("_id").replace("_", " ").replace("api", "API")
    lister = f"list_{call.toolset()}"
    by_name = "" if call.toolset() == ListExecutions.toolset() else "find or "  # find knows no executions
    return f"No {kind} with this id, or this API key has no access to it.", f"Find it with {by_name}{lister}."


async def _overwritten(call: Create[Any], send: Send) -> FastnObject | None:
    """What may be overwritten. Every row is read: a search that Fastn makes may miss the slug."""
    lister = cast("type[List[Any]] | None", _reader(type(call)))
    if lister is None:
        return UNKNOWN
    try:
        row, doubtful = await find_row(lister, call.may_overwrite, send)
        if row is None:
            return UNKNOWN if doubtful else None
        start = f"{lister.route.path}/{{"
        detail = next((each for path, each in _READS.items() if path.startswith(start) and path.endswith("}")), None)
        if detail is None:
            return row
        id_ = getattr(row, "id", None)
        return await send(detail.model_validate({detail.route.parameters[-1]: id_})) if id_ else UNKNOWN
    except (FastnError, ValueError):
        return UNKNOWN


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
