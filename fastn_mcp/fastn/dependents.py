"""Dependents of a resource: which lists to read, how rows refer to it, and which kinds could not be checked."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.names import counted, example_name
from fastn_mcp.fastn.rows import connector_keys, owner_of, row_of, started_workflows, text, word
from fastn_mcp.fastn.targets import Call, Pages, Send, kind_of, own_label, read_names
from fastn_mcp.redaction import texts_in
from fastn_mcp.tools.account import ListSecrets
from fastn_mcp.tools.connectors import CreateConnector, ListConnections, UpdateConnector
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListExecutions, ListWorkflows

Depends = Callable[[FastnObject], bool | None]
"""Whether a row depends on the resource; None if the row does not tell."""


def every(_: FastnObject) -> bool:
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
    """A kind that could not be checked, and the reason."""

    what: str
    why: str


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

    def depends(row: FastnObject) -> bool | None:
        value = getattr(row, field, None)
        return if_missing(row) if value is None else not wanted.isdisjoint(texts_in(value))

    return depends


def _belongs(subject: str) -> Depends:
    """Match rows of a customer. The field is null if the row belongs to none."""
    return _refers("endOrgId", {subject}, lambda row: False if hasattr(row, "endOrgId") else None)


def _app_event(field: str, wanted: set[str]) -> Depends:
    """Match triggers by a field that only app event triggers have."""
    return _refers(field, wanted, lambda row: None if "event" in (word(row_of(row), "type") or "event") else False)


def _starts(workflow_id: str) -> Depends:
    """Match triggers that start a workflow; None for a trigger without readable routes."""

    def depends(row: FastnObject) -> bool | None:
        trigger = row_of(row)
        routes, started = trigger.get("routes"), started_workflows(trigger)
        return None if routes is None or (routes and not started) else workflow_id in started

    return depends


def _mentions(name: str) -> Depends:
    """Match workflows whose code contains a name."""

    def depends(row: FastnObject) -> bool | None:
        code = getattr(row, "code", None)
        return name in code if isinstance(code, str) else None

    return depends


MAX_PAGES = 3
"""Maximum number of pages of 100 rows read for one kind."""

_MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Dependents:
    """Dependents of one kind. `count` is exact, or a lower bound if `more`."""

    kind: str
    count: int
    examples: tuple[str, ...]
    more: bool = False

    @property
    def is_one(self) -> bool:
        """Whether there is exactly one."""
        return self.count == 1 and not self.more

    def words(self) -> str:
        """Return the count and the kind, such as `1 connection`."""
        return counted(self.count, self.kind.removesuffix("s"), at_least=self.more)


@dataclass(frozen=True, slots=True)
class Dependence:
    """Dependents of all kinds, and the kinds that could not be checked."""

    found: tuple[Dependents, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return sum(dependents.count for dependents in self.found)

    def counts(self) -> dict[str, float | None]:
        """Return the count by kind: plus 0.5 if it is a lower bound, None if the kind could not be checked."""
        found: dict[str, float | None] = {d.kind: d.count + (0.5 if d.more else 0) for d in self.found}
        return found | dict.fromkeys(self.unchecked)


@dataclass(frozen=True, slots=True)
class Uses:
    """Rows of one kind that use the resource. `count` is exact, or a lower bound if `more`."""

    rows: Sequence[FastnObject]
    count: int
    more: bool = False
    silent: int = 0
    """Number of rows that do not tell whether they use it."""

    @property
    def is_conclusive(self) -> bool:
        """Whether the rows read settle if there are any dependents."""
        return not self.silent and (self.count > 0 or not self.more)


async def find_dependents(call: Call, target: FastnObject | None, send: Send) -> Dependence:
    """Find the certain dependents of the target of `call`."""
    rules = _rules(call, target)
    found: list[Dependents] = []
    unchecked = [unchecked.what for unchecked in rules.unchecked]
    for rule in rules.certain:
        try:
            uses = await uses_of(rule, send)
        except FastnError:
            unchecked.append(rule.kind)
            continue
        if uses.count:
            examples = await _examples(rule.kind, uses, call, target, send)
            found.append(Dependents(rule.kind, uses.count, examples, uses.more))
        if not uses.is_conclusive:
            unchecked.append(rule.kind)
    return Dependence(tuple(found), tuple(unchecked))


def _rules(call: Call, target: FastnObject | None) -> DependencyRules:
    if call.route.method == "DELETE" or isinstance(call, UpdateConnector):
        return dependency_rules(call.toolset().removesuffix("s"), call.target or "", target)
    if isinstance(call, CreateConnector) and target is not None:
        id_ = getattr(target, "id", None)
        # Rules refer to the connector that may be overwritten by its id.
        return dependency_rules("connector", str(id_), target) if id_ else dependency_rules("unknown", "", None)
    return DependencyRules()


async def _examples(kind: str, uses: Uses, call: Call, target: FastnObject | None, send: Send) -> tuple[str, ...]:
    """Return the names of the first few rows. The target was read already and needs no look-up."""
    rows = [row_of(row) for row in uses.rows[:_MAX_EXAMPLES]]
    own = {kind_of(call): {call.target: label.name}} if call.target and (label := own_label(call, target)) else {}
    owners = filter(None, map(owner_of, rows)) if kind == "connections" else ()
    names = await read_names({"customer": [key for key in owners if key not in own.get("customer", {})]}, send) | own
    return tuple(example_name(kind, row, names) for row in rows)


async def uses_of(rule: DependencyRule, send: Send, details: int = 0) -> Uses:
    """Read the rows that match a rule, and up to `details` undecided rows one by one. Raises a `FastnError`."""
    rows: list[FastnObject] = []
    silent: list[FastnObject] = []
    total, more = 0, False
    filtered = rule.depends is every  # presumably by Fastn; its total then counts matching rows
    pages = Pages(rule.reading, send, MAX_PAGES)
    async for page in pages:
        if page.not_checked:
            raise FastnError("The rows do not say what they belong to.")
        for row in page.items:
            answer = rule.depends(row)
            if answer is None:
                silent.append(row)
            elif answer:
                rows.append(row)
        filtered = filtered and len(page.items) == 100
        if pages.is_complete:
            total, more = 0, False
        else:
            total, more = (page.total or 0, page.total is None) if filtered else (0, True)
    if rule.detail is not None and details:
        answers = await _answers(rule, rule.detail, silent[:details], send)
        rows += [row for row, answer in zip(silent, answers, strict=False) if answer]
        silent = [row for row, answer in zip(silent, answers, strict=False) if answer is None] + silent[details:]
    return Uses(rows, max(len(rows), total), more, len(silent))


async def _answers(
    rule: DependencyRule, detail: Callable[[str], Call], silent: Collection[FastnObject], send: Send
) -> list[bool | None]:
    """Read each row by itself and return whether it depends on the resource; None if it cannot be read."""
    answers: list[bool | None] = [None] * len(silent)

    async def read(number: int, row: FastnObject) -> None:
        with suppress(FastnError, ValueError):
            answers[number] = rule.depends(await send(detail(str(getattr(row, "id", "")))))

    async with anyio.create_task_group() as group:
        for number, row in enumerate(silent):
            group.start_soon(read, number, row)
    return answers
