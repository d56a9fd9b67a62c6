"""Resources that depend on another: which lists to read, how rows refer to it, and which kinds could not be checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import anyio

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.names import counted, example_name
from fastn_mcp.fastn.rows import connector_keys, owner_of, row_of, text, word
from fastn_mcp.fastn.targets import Call, Send, kind_of, own_label, read_names
from fastn_mcp.redaction import texts_in
from fastn_mcp.tools.account import ListSecrets
from fastn_mcp.tools.connectors import CreateConnector, ListConnections, UpdateConnector
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListExecutions, ListWorkflows

Depends = Callable[[FastnObject], bool | None]
"""Whether a row depends on the resource; None where it does not say."""


def every(_: FastnObject) -> bool:
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


def looks(kind: str, subject: str, target: FastnObject | None) -> Looks:
    """Where to look for what uses this `kind` of resource. `target` is its record, as far as it could be read."""
    table = _TABLE.get(kind)
    return Looks(unchecked=(_OTHERS,)) if table is None else table(subject, target)


_OTHERS = Unchecked("whatever uses it", "Fastn does not say who does.")


def _customer(subject: str, _: FastnObject | None) -> Looks:
    return Looks(
        surely=(
            Look("connections", ListConnections(customer_id=subject, limit=100)),
            Look("secrets", ListSecrets(customer_id=subject, limit=100)),
            Look("executions", ListExecutions(customer_id=subject, limit=100)),
        ),
        perhaps=(Look("triggers", ListTriggers(limit=100), _belongs(subject)),),
    )


def _connector(subject: str, target: FastnObject | None) -> Looks:
    names = {subject, text(row_of(target), "slug") or subject}
    return Looks(
        surely=(
            Look("connections", ListConnections(connector_id=subject, limit=100)),
            Look("workflows", ListWorkflows(limit=100), _refers("connectors", names), _workflow),
            Look("triggers", ListTriggers(limit=100), _app_event("connectorId", names)),
        )
    )


def _connection(subject: str, target: FastnObject | None) -> Looks:
    names = connector_keys(row_of(target))
    perhaps = Look("workflows", ListWorkflows(limit=100), _refers("connectors", names), _workflow)
    return Looks(
        surely=(Look("triggers", ListTriggers(limit=100), _app_event("connectionId", {subject})),),
        perhaps=(perhaps,) if names else (),
        unchecked=(Unchecked("workflows", "They name connectors, not connections: none can be said to use this one."),),
    )


def _uses_of_workflow(subject: str, _: FastnObject | None) -> Looks:
    return Looks(
        surely=(Look("triggers", ListTriggers(limit=100), _refers("routes", {subject})),),
        unchecked=(Unchecked("other callers", "Callers through the API are unknown."),),
    )


def _secret(_: str, target: FastnObject | None) -> Looks:
    name = text(row_of(target), "name")
    mentions = Look("workflows", ListWorkflows(limit=100), _mentions(name), _workflow)
    return Looks(
        perhaps=(mentions,) if name else (),
        unchecked=(Unchecked("workflows that read it", "A name that the code builds at run time is not visible."),),
    )


def _trigger(_: str, __: FastnObject | None) -> Looks:
    why = "Nothing in Fastn uses a trigger; who calls a webhook's address, or counts on its runs, is not known."
    return Looks(unchecked=(Unchecked("whatever uses it", why),))


_TABLE: dict[str, Callable[[str, FastnObject | None], Looks]] = {
    "customer": _customer,
    "connector": _connector,
    "connection": _connection,
    "workflow": _uses_of_workflow,
    "secret": _secret,
    "trigger": _trigger,
}


def _workflow(key: str) -> Call:
    return GetWorkflow(workflow_id=key)


def _refers(field: str, wanted: set[str], unsaid: Depends = lambda _: None) -> Depends:
    """By the texts in a field. `unsaid` answers for a row that has none."""

    def depends(row: FastnObject) -> bool | None:
        value = getattr(row, field, None)
        return unsaid(row) if value is None else not wanted.isdisjoint(texts_in(value))

    return depends


def _belongs(subject: str) -> Depends:
    """By the customer, which is null where the row belongs to none."""
    return _refers("endOrgId", {subject}, lambda row: False if hasattr(row, "endOrgId") else None)


def _app_event(field: str, wanted: set[str]) -> Depends:
    """By a field that only triggers of app events have."""
    return _refers(field, wanted, lambda row: None if "event" in (word(row_of(row), "type") or "event") else False)


def _mentions(name: str) -> Depends:
    """By the code."""

    def depends(row: FastnObject) -> bool | None:
        code = getattr(row, "code", None)
        return name in code if isinstance(code, str) else None

    return depends


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

    def words(self) -> str:
        """As `1 connection`."""
        return counted(self.count, self.kind.removesuffix("s"), at_least=self.more)


@dataclass(frozen=True, slots=True)
class Dependence:
    """All that was found, and the kinds of which nothing can be said."""

    found: tuple[Dependents, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return sum(dependents.count for dependents in self.found)

    def counts(self) -> dict[str, float | None]:
        """How many there are by kind: a half more where there are at least that many, None where it is not known."""
        found: dict[str, float | None] = {d.kind: d.count + (0.5 if d.more else 0) for d in self.found}
        return found | dict.fromkeys(self.unchecked)


@dataclass(frozen=True, slots=True)
class Uses:
    """The rows of a kind that use the resource. There are at least `count`, exactly so unless `more`."""

    rows: Sequence[FastnObject]
    count: int
    more: bool = False
    silent: int = 0
    """Rows that do not say whether they do."""

    @property
    def conclusive(self) -> bool:
        """Whether what was read answers the question whether there are any."""
        return not self.silent and (self.count > 0 or not self.more)


async def find_dependents(call: Call, target: FastnObject | None, send: Send) -> Dependence:
    """What surely uses the target of `call`."""
    where = _looks(call, target)
    found: list[Dependents] = []
    unchecked = [unchecked.what for unchecked in where.unchecked]
    for look in where.surely:
        try:
            uses = await uses_of(look, send)
        except FastnError:
            unchecked.append(look.kind)
            continue
        if uses.count:
            examples = await _examples(look.kind, uses, call, target, send)
            found.append(Dependents(look.kind, uses.count, examples, uses.more))
        if not uses.conclusive:
            unchecked.append(look.kind)
    return Dependence(tuple(found), tuple(unchecked))


async def _examples(kind: str, uses: Uses, call: Call, target: FastnObject | None, send: Send) -> tuple[str, ...]:
    """What the first of them are called. What is acted on is read already, and needs no look-up."""
    rows = [row_of(row) for row in uses.rows[:_EXAMPLES]]
    own = {kind_of(call): {call.target: label.name}} if call.target and (label := own_label(call, target)) else {}
    owners = filter(None, map(owner_of, rows)) if kind == "connections" else ()
    names = await read_names({"customer": [key for key in owners if key not in own.get("customer", {})]}, send) | own
    return tuple(example_name(kind, row, names) for row in rows)


async def uses_of(look: Look, send: Send, details: int = 0) -> Uses:
    """Where `look` leads. Of the rows that do not say, `details` are read one by one. Raises a `FastnError`."""
    rows: list[FastnObject] = []
    silent: list[FastnObject] = []
    reading = look.reading
    total: int | None = None
    more = False
    filtered = look.depends is every  # by Fastn, as far as can be seen: then its total is of what was asked for
    for _ in range(PAGES):
        page = cast("Listed[FastnObject]", await send(reading))
        if page.not_checked:
            raise FastnError("The rows do not say what they belong to.")
        for row in page.items:
            answer = look.depends(row)
            if answer is None:
                silent.append(row)
            elif answer:
                rows.append(row)
        if page.next_cursor is None:
            total, more = None, False
            break
        filtered = filtered and len(page.items) == 100
        total = page.total if filtered else None
        more = total is None
        reading = reading.model_copy(update={"cursor": page.next_cursor})
    if details and silent:
        silent = await _looked_into(look, silent, rows, send, details)
    return Uses(rows, max(len(rows), total or 0), more, len(silent))


async def _looked_into(
    look: Look, silent: list[FastnObject], rows: list[FastnObject], send: Send, details: int
) -> list[FastnObject]:
    """Read rows that did not say; adds those that depend to `rows`, and returns those that still do not say."""
    detail = look.detail
    if detail is None:
        return silent
    answers: dict[int, bool | None] = {}

    async def look_into(number: int, row: FastnObject) -> None:
        try:
            answers[number] = look.depends(await send(detail(str(getattr(row, "id", "")))))
        except (FastnError, ValueError):
            answers[number] = None

    async with anyio.create_task_group() as group:
        for number, row in enumerate(silent[:details]):
            group.start_soon(look_into, number, row)
    rows += [row for number, row in enumerate(silent) if answers.get(number)]
    return [row for number, row in enumerate(silent) if answers.get(number) is None]


def _looks(call: Call, target: FastnObject | None) -> Looks:
    if call.route.method == "DELETE" or isinstance(call, UpdateConnector):
        return looks(call.toolset().removesuffix("s"), call.target or "", target)
    if isinstance(call, CreateConnector) and target is not None:
        id_ = getattr(target, "id", None)
        # What it may overwrite is known by its id alone.
        return looks("connector", str(id_), target) if id_ else looks("unknown", "", None)
    return Looks()
