"""What may depend on a resource: which lists to read, and how their rows tell. Pure: the one table of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.operation import Record
from fastn_mcp.procedures.target import Call
from fastn_mcp.tools.connections import ListConnections
from fastn_mcp.tools.executions import ListExecutions
from fastn_mcp.tools.secrets import ListSecrets
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows

Depends = Callable[[Record], bool | None]
"""Whether a row depends on the resource; None where it does not say."""

_ABSENT = object()


def every(_: Record) -> bool:
    """The list was filtered: all of its rows do."""
    return True


@dataclass(frozen=True, slots=True)
class Look:
    """One kind that may depend on a resource. `detail` reads a row that does not say, as a list may show less."""

    kind: str
    reading: Call
    depends: Depends = every
    detail: Callable[[str], Call] | None = None


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Something of which nothing can be said, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Looks:
    """Where to look: what uses the resource, what perhaps does, and what nobody can see."""

    surely: tuple[Look, ...] = ()
    perhaps: tuple[Look, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()


def looks(kind: str, subject: str, target: Record | None) -> Looks:
    """Where to look for what uses this `kind` of resource. `target` is its record, as far as it could be read."""
    table = _TABLE.get(kind)
    return Looks(unchecked=(_OTHERS,)) if table is None else table(subject, target)


_OTHERS = Unchecked("whatever uses it", "Fastn does not say who does.")


def _customer(subject: str, _: Record | None) -> Looks:
    return Looks(
        surely=(
            Look("connections", ListConnections(customer_id=subject, limit=100)),
            Look("secrets", ListSecrets(customer_id=subject, limit=100)),
            Look("executions", ListExecutions(customer_id=subject, limit=100)),
        ),
        perhaps=(Look("triggers", ListTriggers(limit=100), _belongs("endOrgId", {subject})),),
    )


def _connector(subject: str, target: Record | None) -> Looks:
    names = {subject, str(getattr(target, "slug", None) or subject)}
    return Looks(
        surely=(
            Look("connections", ListConnections(connector_id=subject, limit=100)),
            Look("workflows", ListWorkflows(limit=100), _names("connectors", names), _workflow),
            Look("triggers", ListTriggers(limit=100), _app_event("connectorId", names)),
        )
    )


def _connection(subject: str, target: Record | None) -> Looks:
    connector: Any = getattr(target, "connector", None)
    slug = cast("dict[str, JsonValue]", connector).get("slug") if isinstance(connector, dict) else None
    names = {str(name) for name in (getattr(target, "connectorId", None), slug) if name}
    perhaps = Look("workflows", ListWorkflows(limit=100), _names("connectors", names), _workflow)
    return Looks(
        surely=(Look("triggers", ListTriggers(limit=100), _app_event("connectionId", {subject})),),
        perhaps=(perhaps,) if names else (),
        unchecked=(Unchecked("workflows", "They name connectors, not connections: none can be said to use this one."),),
    )


def _uses_of_workflow(subject: str, _: Record | None) -> Looks:
    return Looks(
        surely=(Look("triggers", ListTriggers(limit=100), _names("routes", {subject})),),
        unchecked=(Unchecked("other callers", "Whoever runs it through the API is not known before they do."),),
    )


def _secret(_: str, target: Record | None) -> Looks:
    name = getattr(target, "name", None)
    mentions = Look("workflows", ListWorkflows(limit=100), _mentions(name), _workflow) if _is_text(name) else None
    return Looks(
        perhaps=(mentions,) if mentions else (),
        unchecked=(Unchecked("workflows that read it", "A name that code puts together cannot be seen in it."),),
    )


def _trigger(_: str, __: Record | None) -> Looks:
    why = "Nothing in Fastn uses a trigger; who calls a webhook's address, or counts on its runs, is not known."
    return Looks(unchecked=(Unchecked("whatever uses it", why),))


_TABLE: dict[str, Callable[[str, Record | None], Looks]] = {
    "customer": _customer,
    "connector": _connector,
    "connection": _connection,
    "workflow": _uses_of_workflow,
    "secret": _secret,
    "trigger": _trigger,
}


def _workflow(key: str) -> Call:
    return GetWorkflow(workflow_id=key)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _names(field: str, wanted: set[str]) -> Depends:
    """By a field that every row has."""

    def depends(row: Record) -> bool | None:
        value = getattr(row, field, None)
        return None if value is None else bool(_texts(value) & wanted)

    return depends


def _belongs(field: str, wanted: set[str]) -> Depends:
    """By a field that is null where the row belongs to nobody."""

    def depends(row: Record) -> bool | None:
        value = getattr(row, field, _ABSENT)
        return None if value is _ABSENT else bool(_texts(cast(JsonValue, value)) & wanted)

    return depends


def _app_event(field: str, wanted: set[str]) -> Depends:
    """By a field that only triggers of app events have."""

    def depends(row: Record) -> bool | None:
        value = getattr(row, field, None)
        if value is not None:
            return bool(_texts(value) & wanted)
        return None if "event" in str(getattr(row, "type", None) or "event").casefold() else False

    return depends


def _mentions(name: object) -> Depends:
    """By the code."""

    def depends(row: Record) -> bool | None:
        code = getattr(row, "code", None)
        return str(name) in code if isinstance(code, str) else None

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
