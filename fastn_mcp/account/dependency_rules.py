"""Rules for dependents: which lists to read for a resource, how their rows refer to it, and what cannot be checked."""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

from fastn_mcp.account.targets import Call
from fastn_mcp.records.rows import Row, connector_keys, row_of, started_workflows, text, word
from fastn_mcp.redaction import texts_in
from fastn_mcp.tools.account import ListSecrets
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListExecutions, ListWorkflows

Depends = Callable[[Row], bool | None]
"""Whether a row depends on the resource; None if the row does not tell."""


def every(_: Row) -> bool:
    """Match every row, as Fastn has filtered the list."""
    return True


@dataclass(frozen=True, slots=True)
class DependencyRule:
    """A kind that may depend on a resource. `detail` reads one row in full, as a list may omit fields."""

    kind: str
    reading: Call
    depends: Depends = every
    detail: Callable[[str], Call] | None = None


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Something that could not be checked, and the reason. `kind` is that of the rows, if `what` says more."""

    what: str
    why: str
    kind: str = ""

    def data(self) -> dict[str, JsonValue]:
        return {"what": self.what, "why": self.why}


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
                possible=(DependencyRule("triggers", triggers, _belongs(subject)),),
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
            why = "They name connectors, not connections: none can be said to use this one."
            return DependencyRules(
                certain=(DependencyRule("triggers", triggers, _app_event("connectionId", {subject})),),
                possible=(_of_workflows(_refers("connectors", names)),) if names else (),
                unchecked=(Unchecked("workflows", why),),
            )
        case "workflow":
            return DependencyRules(
                certain=(DependencyRule("triggers", triggers, _starts(subject)),),
                unchecked=(Unchecked("other callers", "Callers through the API are unknown."),),
            )
        case "secret":
            name, why = text(row, "name"), "A name that the code builds at run time is not visible."
            return DependencyRules(
                possible=(_of_workflows(_mentions(name)),) if name else (),
                unchecked=(Unchecked("workflows that read it", why),),
            )
        case "trigger":
            why = "Nothing in Fastn uses a trigger; who calls a webhook's address, or counts on its runs, is not known."
            return DependencyRules(unchecked=(Unchecked("whatever uses it", why),))
        case _:
            return DependencyRules(unchecked=(Unchecked("whatever uses it", "Fastn does not say who does."),))


def _of_workflows(depends: Depends) -> DependencyRule:
    return DependencyRule("workflows", ListWorkflows(limit=100), depends, lambda key: GetWorkflow(workflow_id=key))


def _refers(field: str, wanted: set[str], if_missing: Depends = lambda _: None) -> Depends:
    """Match rows with a wanted text in a field. `if_missing` decides for a row without that field."""

    def depends(row: Row) -> bool | None:
        value = row.get(field)
        return if_missing(row) if value is None else not wanted.isdisjoint(texts_in(value))

    return depends


def _belongs(subject: str) -> Depends:
    """Match rows of a customer. The field is null if the row belongs to none."""
    return _refers("endOrgId", {subject}, lambda row: False if "endOrgId" in row else None)


def _app_event(field: str, wanted: set[str]) -> Depends:
    """Match triggers by a field that only app event triggers have."""
    return _refers(field, wanted, lambda row: None if "event" in (word(row, "type") or "event") else False)


def _starts(workflow_id: str) -> Depends:
    """Match triggers that start a workflow; None for a trigger without readable routes."""

    def depends(row: Row) -> bool | None:
        routes, started = row.get("routes"), started_workflows(row)
        return None if routes is None or (routes and not started) else workflow_id in started

    return depends


def _mentions(name: str) -> Depends:
    """Match workflows whose code contains a name."""

    def depends(row: Row) -> bool | None:
        code = row.get("code")
        return name in code if isinstance(code, str) else None

    return depends
