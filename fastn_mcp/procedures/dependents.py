"""What uses a resource, by bounded reads, and which kinds could not be checked. Reads by the sender it is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.operation import Record
from fastn_mcp.procedures.target import Call, Send
from fastn_mcp.tools.connections import DeleteConnection, ListConnections
from fastn_mcp.tools.connectors import DeleteConnector, UpdateConnector
from fastn_mcp.tools.customers import DeleteCustomer
from fastn_mcp.tools.executions import ListExecutions
from fastn_mcp.tools.listing import Listed
from fastn_mcp.tools.secrets import DeleteSecret, ListSecrets
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import DeleteWorkflow, ListWorkflows

PAGES = 3
"""Pages of a hundred rows that are read for one kind."""

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Dependents:
    """How many of a kind use the resource: at least `count`, exactly so unless `more`."""

    kind: str
    count: int
    examples: tuple[str, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Dependence:
    """All that was found, and the kinds of which nothing can be said."""

    found: tuple[Dependents, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return sum(dependents.count for dependents in self.found)


@dataclass(frozen=True, slots=True)
class _Look:
    """One kind that may depend on a resource: the list to read, and which of its rows do."""

    kind: str
    reading: Call
    depends: Callable[[Record], bool] = field(default=lambda _: True)


async def find_dependents(call: Call, target: Record | None, send: Send) -> Dependence:
    """What uses the target of `call`."""
    found: list[Dependents] = []
    looks, unchecked = _looks(call, target)
    for look in looks:
        try:
            dependents = await _count(look, send)
        except FastnError:
            unchecked.append(look.kind)
            continue
        if dependents.count:
            found.append(dependents)
        if dependents.more and not dependents.count:
            unchecked.append(look.kind)
    return Dependence(tuple(found), tuple(unchecked))


async def _count(look: _Look, send: Send) -> Dependents:
    rows: list[Record] = []
    total: int | None = None
    reading: Call = look.reading
    for _ in range(PAGES):
        page = cast("Listed[Record]", await send(reading))
        if page.not_checked:
            raise FastnError("the rows do not say what they belong to")
        rows += [row for row in page.items if look.depends(row)]
        total = page.total if look.depends is _every else None
        if page.next_cursor is None:
            return Dependents(look.kind, len(rows), _names(rows))
        reading = reading.model_copy(update={"cursor": page.next_cursor})
    count = max(len(rows), total or 0)
    return Dependents(look.kind, count, _names(rows), more=total is None)


def _every(_: Record) -> bool:
    return True


def _names(rows: list[Record]) -> tuple[str, ...]:
    return tuple(str(getattr(row, "name", None) or getattr(row, "id", "")) for row in rows[:_EXAMPLES])


def _looks(call: Call, target: Record | None) -> tuple[list[_Look], list[str]]:
    subject = call.target or ""
    match call:
        case DeleteCustomer():
            return [
                _Look("connections", ListConnections(customer_id=subject, limit=100), _every),
                _Look("secrets", ListSecrets(customer_id=subject, limit=100), _every),
                _Look("executions", ListExecutions(customer_id=subject, limit=100), _every),
            ], []
        case DeleteConnector() | UpdateConnector():
            slug = str(getattr(target, "slug", None) or subject)
            return [
                _Look("connections", ListConnections(connector_id=subject, limit=100), _every),
                _Look("workflows", ListWorkflows(limit=100), _mentions("connectors", {subject, slug})),
                _Look("triggers", ListTriggers(limit=100), _mentions("connectorId", {subject, slug})),
            ], []
        case DeleteConnection():
            # Workflows name connectors, not connections, so none can be said to use this one.
            return [_Look("triggers", ListTriggers(limit=100), _mentions("connectionId", {subject}))], ["workflows"]
        case DeleteWorkflow():
            return [_Look("triggers", ListTriggers(limit=100), _mentions("routes", {subject}))], ["other callers"]
        case DeleteSecret():
            return [], ["workflows that read it"]
        case _ if call.route.method == "DELETE":
            return [], ["whatever uses it"]
        case _:
            return [], []


def _mentions(name: str, wanted: set[str]) -> Callable[[Record], bool]:
    def depends(row: Record) -> bool:
        return bool(_texts(getattr(row, name, None)) & wanted)

    return depends


def _texts(value: JsonValue) -> set[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        return {value}
    inside: list[Any] = []
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, list):
        inside = value
    return {text for item in inside for text in _texts(item)}
