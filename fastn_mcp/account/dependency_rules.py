"""Rules for dependents: which lists to read for a resource, how their rows refer to it, and what cannot be checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.records.rows import FastnObject, Row, connector_keys, row_of, started_workflows, text, word
from fastn_mcp.redaction import texts_in
from fastn_mcp.tools.access import ListSecrets
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListExecutions, ListWorkflows

Depends = Callable[[Row], bool | None]
"""Whether a row depends on the resource; None if the row does not tell."""


@dataclass(frozen=True, slots=True)
class DependencyRule:
    """A kind that may depend on a resource. `detail` reads one row in full, as a list may omit fields."""

    kind: str
    reading: List[Any]
    depends: Depends | None = None
    """None if Fastn has filtered the list."""
    detail: Callable[[str], Call] | None = None
    also_starts: Callable[[Row], list[str]] | None = None
    """Return the ids of the other workflows that a trigger starts, for which it stays active. None for other rows."""


@dataclass(frozen=True, slots=True)
class DependencyRules:
    """Rules for certain and for possible dependents, and the kinds that cannot be checked."""

    certain: tuple[DependencyRule, ...] = ()
    possible: tuple[DependencyRule, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()


def dependency_rules(kind: str, subject: str, target: FastnObject | None) -> DependencyRules:
    """Return the rules for dependents of the resource with the id `subject`. `target` is its record, if it was read."""
    triggers, row = ListTriggers(limit=100), row_of(target)
    match kind:
        case "customer":
            return DependencyRules(
                certain=(
                    DependencyRule("connections", ListConnections(customer_id=subject, limit=100)),
                    DependencyRule("secrets", ListSecrets(customer_id=subject, limit=100)),
                    DependencyRule("executions", ListExecutions(customer_id=subject, limit=100)),
                ),
                possible=(DependencyRule("triggers", ListTriggers(customer_id=subject, limit=100)),),
            )
        case "connector":
            names = {subject, text(row, "slug") or subject}
            return DependencyRules(
                certain=(
                    DependencyRule("connections", ListConnections(connector_id=subject, limit=100)),
                    _of_workflows(_refers("connectors", names)),
                    DependencyRule("triggers", triggers, _app_event("connectorId", names)),
                )
            )
        case "connection":
            names = connector_keys(row)
            why = "They name connectors, not connections: none is known to use this one."
            return DependencyRules(
                certain=(DependencyRule("triggers", triggers, _app_event("connectionId", {subject})),),
                possible=(_of_workflows(_refers("connectors", names)),) if names else (),
                unchecked=(Unchecked("workflows", why),),
            )
        case "workflow":
            return DependencyRules(
                certain=(DependencyRule("triggers", triggers, _starts(subject), also_starts=_others(subject)),),
                unchecked=(Unchecked("other callers", "Callers through the API are unknown."),),
            )
        case "secret":
            name, why = text(row, "name"), "Names that the code builds at run time are not visible."
            return DependencyRules(
                possible=(_of_workflows(_mentions(name)),) if name else (),
                unchecked=(Unchecked("workflows that read it", why),),
            )
        case "trigger":
            why = "Nothing in Fastn uses a trigger. Fastn does not know who calls a webhook or relies on its runs."
            return DependencyRules(unchecked=(Unchecked("who uses it", why),))
        case _:
            return DependencyRules(unchecked=(Unchecked("who uses it", "Fastn does not know."),))


def _of_workflows(depends: Depends) -> DependencyRule:
    return DependencyRule("workflows", ListWorkflows(limit=100), depends, lambda key: GetWorkflow(workflow_id=key))


def _refers(field: str, wanted: set[str], if_missing: Depends = lambda _: None) -> Depends:
    """Match rows with a wanted text in a field. `if_missing` decides for a row without that field."""

    def depends(row: Row) -> bool | None:
        value = row.get(field)
        return if_missing(row) if value is None else not wanted.isdisjoint(texts_in(value))

    return depends


def _app_event(field: str, wanted: set[str]) -> Depends:
    """Match triggers by a field that only app event triggers have."""
    return _refers(field, wanted, lambda row: None if "event" in (word(row, "type") or "event") else False)


def _starts(workflow_id: str) -> Depends:
    """Match triggers that start a workflow; None for a trigger without readable routes."""

    def depends(row: Row) -> bool | None:
        routes, started = row.get("routes"), started_workflows(row)
        return None if routes is None or (routes and not started) else workflow_id in started

    return depends


def _others(workflow_id: str) -> Callable[[Row], list[str]]:
    return lambda row: [key for key in started_workflows(row) if key != workflow_id]


def _mentions(name: str) -> Depends:
    """Match workflows whose code contains a name."""

    def depends(row: Row) -> bool | None:
        code = row.get("code")
        return name in code if isinstance(code, str) else None

    return depends
