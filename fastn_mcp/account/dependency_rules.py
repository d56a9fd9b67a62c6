"""Rules for dependents: which lists to read for a resource, how their rows refer to it, and what cannot be checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.client.absence import Filters, FiltersOf, references_of
from fastn_mcp.records.rows import FastnObject, Row, connector_keys, objects, row_of, started_workflows, text, word
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
    workflow: str | None = None
    """Id of the workflow whose triggers are listed: each stays active for the other workflows that it starts."""
    filters: Filters | None = None
    """Filters that leave few rows of a long list, all dependents among them; None if the list has none."""
    filters_of: FiltersOf | None = None
    """Filters of the same names for a known row, which prove them. None if it is documented that Fastn applies them."""
    looked_for: str = ""
    """Which rows of the kind may depend on the resource, if others may have to do with it: `triggers on its events`."""

    @property
    def whole(self) -> List[Any]:
        """The list without filters."""
        return self._with({})

    @property
    def wanted(self) -> Mapping[str, Any] | None:
        """The filters that leave the dependents; None if the list has none."""
        return self.reading.filters if self.depends is None else self.filters

    @property
    def filtered(self) -> List[Any] | None:
        """The list with these filters."""
        return None if self.wanted is None else self._with(self.wanted)

    def _with(self, filters: Mapping[str, Any]) -> List[Any]:
        return type(self.reading).model_validate({"limit": self.reading.limit, **filters})

    def answer_of(self, row: Row) -> bool | None:
        """Return whether a row depends on the resource; None if it does not tell."""
        if self.depends is not None:
            return self.depends(row)
        matching, unchecked = self.reading.matching_rows([row])
        return None if matching and unchecked else bool(matching)


@dataclass(frozen=True, slots=True)
class DependencyRules:
    """Rules for certain and for possible dependents, and the kinds that cannot be checked."""

    certain: tuple[DependencyRule, ...] = ()
    possible: tuple[DependencyRule, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()


def dependency_rules(kind: str, subject: str, target: FastnObject | None) -> DependencyRules:
    """Return the rules for dependents of the resource with the id `subject`. `target` is its record, if it was read."""
    row = row_of(target)
    match kind:
        case "customer":
            return DependencyRules(
                certain=(
                    _of_customer("connections", ListConnections(customer_id=subject, limit=100)),
                    _of_customer("secrets", ListSecrets(customer_id=subject, limit=100)),
                    DependencyRule("executions", ListExecutions(customer_id=subject, limit=100)),
                ),
                possible=(_of_customer("triggers", ListTriggers(customer_id=subject, limit=100)),),
            )
        case "connector":
            names = {subject, text(row, "slug") or subject}
            connections = ListConnections(connector_id=subject, limit=100)
            return DependencyRules(
                certain=(
                    DependencyRule("connections", connections, filters_of=references_of("connector_id")),
                    _of_workflows(_refers("connectors", names), text(row, "slug")),
                    _of_app_events("connectorId", names),
                )
            )
        case "connection":
            names = connector_keys(row)
            slug = text(row, "connectorSlug", "connector.slug")
            why = "Workflows name connectors, not connections, so whether one uses this connection is unknown."
            return DependencyRules(
                certain=(_of_app_events("connectionId", {subject}),),
                possible=(_of_workflows(_refers("connectors", names), slug),) if names else (),
                unchecked=(Unchecked("workflows", why),),
            )
        case "workflow":
            return DependencyRules(
                certain=(_started_by_triggers(subject),),
                unchecked=(Unchecked("other callers", "Callers through the API are unknown."),),
            )
        case "secret":
            name = text(row, "name")
            why = "Names that the code builds at run time are not visible."
            return DependencyRules(
                possible=(_of_workflows(_mentions(name)),) if name else (),
                unchecked=(Unchecked("workflows that read it", why),),
            )
        case "trigger":
            why = "Nothing in Fastn uses a trigger. Fastn does not know who calls a webhook or relies on its runs."
            return DependencyRules(unchecked=(Unchecked("who uses it", why),))
        case _:
            return DependencyRules(unchecked=(Unchecked("who uses it", "Fastn does not know."),))


def _of_customer(kind: str, reading: List[Any]) -> DependencyRule:
    return DependencyRule(kind, reading, filters_of=references_of("customer_id"))


def _of_workflows(depends: Depends, connector: str = "") -> DependencyRule:
    """Return the rule for workflows. With the slug of a connector, Fastn filters the list by it."""
    return DependencyRule(
        "workflows",
        ListWorkflows(limit=100),
        depends,
        detail=lambda key: GetWorkflow(workflow_id=key),
        filters={"connector_id": connector} if connector else None,
        filters_of=_connector_of,
    )


def _connector_of(workflow: Row) -> Filters | None:
    slugs = (text(each, "slug") for each in objects(workflow, "connectors"))
    slug = next(filter(None, slugs), None)
    return None if slug is None else {"connector_id": slug}


def _of_app_events(field: str, wanted: set[str]) -> DependencyRule:
    """Return the rule for triggers by a field that only app event triggers have."""
    depends = _refers(field, wanted, lambda row: None if "event" in (word(row, "type") or "event") else False)
    filters = {"type": "app_event"}
    return DependencyRule(
        "triggers",
        ListTriggers(limit=100),
        depends,
        filters=filters,
        filters_of=lambda _: None,
        looked_for="triggers on its events",
    )


def _started_by_triggers(workflow_id: str) -> DependencyRule:
    """Return the rule for the triggers that start a workflow; undecided is a trigger without readable routes."""

    def depends(row: Row) -> bool | None:
        routes = row.get("routes")
        started = started_workflows(row)
        return None if routes is None or (routes and not started) else workflow_id in started

    def filters_of(row: Row) -> Filters | None:
        other = next(iter(started_workflows(row)), None)
        return None if other is None else {"workflow_id": other}

    return DependencyRule(
        "triggers",
        ListTriggers(limit=100),
        depends,
        workflow=workflow_id,
        filters={"workflow_id": workflow_id},
        filters_of=filters_of,
    )


def _refers(field: str, wanted: set[str], if_missing: Depends = lambda _: None) -> Depends:
    """Match rows with a wanted text in a field. `if_missing` decides for a row without that field."""

    def depends(row: Row) -> bool | None:
        value = row.get(field)
        return if_missing(row) if value is None else not wanted.isdisjoint(texts_in(value))

    return depends


def _mentions(name: str) -> Depends:
    """Match workflows whose code contains a name."""

    def depends(row: Row) -> bool | None:
        code = row.get("code")
        return name in code if isinstance(code, str) else None

    return depends
