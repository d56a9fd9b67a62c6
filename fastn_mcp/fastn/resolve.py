"""What a call will do: the values that the server or Fastn fills in, and every record that the call touches.

`resolve` makes one `ResolvedCall` per evaluation, by fresh reads. Policy, binding, label, sentences and preview derive
from it. What could not be read is unknown, and unknown is the stricter case.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.fastn.credentials import TypedArgument, typed_argument
from fastn_mcp.fastn.dependents import Dependence, find_dependents
from fastn_mcp.fastn.names import Label, Names, label_of
from fastn_mcp.fastn.rows import Row, connection_refers, key_of, owner_of, row_of, started_workflows, text
from fastn_mcp.fastn.targets import GETS, MAX_LOOKUPS, Call, Send, kind_of, own_label, read_each, read_target
from fastn_mcp.tools.connectors import CreateConnection, ListConnections
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import Effect, FastnObject
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import RunWorkflow


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind of resource: the tools that act on it, and the fields in which other resources refer to it."""

    toolset: str
    fields: frozenset[str]
    """Names as `_plain` returns them."""


KINDS: Mapping[str, ResourceKind] = {
    "customer": ResourceKind(
        "customers", frozenset({"customer", "customers", "customerid", "customerids", "endorg", "endorgid"})
    ),
    "connector": ResourceKind("connectors", frozenset({"connector", "connectorid"})),
    "connection": ResourceKind("connections", frozenset({"connection", "connectionid"})),
    "workflow": ResourceKind("workflows", frozenset({"workflow", "workflowid", "routeid"})),
    "trigger": ResourceKind("triggers", frozenset({"trigger", "triggerid"})),
    "api_key": ResourceKind("api_keys", frozenset({"apikeyid"})),
    "secret": ResourceKind("secrets", frozenset({"secretid"})),
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Settings of this server that calls depend on."""

    environment: str | None = None
    """Sent as `x-fastn-env`: environment of runs that name none."""
    key_folder: str | None = None
    """Folder of this machine where new API keys are written; None if they are returned."""
    customer: str | None = None
    """Sent as `x-end-org-id`: customer of calls that name none."""


class ValueSource(Enum):
    """Where an effective value comes from."""

    ARGUMENT = "the call"
    SETTING = "this server's settings"
    RECORD = "the record it acts on"
    FASTN = "Fastn's choice"
    NONE = "nothing"


@dataclass(frozen=True, slots=True)
class Effective:
    """A value that the request will have. Several values: it has all of them."""

    values: tuple[str, ...] = ()
    source: ValueSource = ValueSource.NONE
    is_known: bool = True

    def data(self) -> JsonValue:
        """Return it as an approval is bound to it."""
        return [list(self.values), self.source.value, self.is_known]


class Relation(Enum):
    """Why a record is touched."""

    NAMED = "named"
    """An argument names it: its whole state decides what the call does."""
    OWNER = "owner"
    """The target or a named record belongs to it or uses it, or a setting names it: only its identity matters."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record other than the target. `row` is None if it could not be read."""

    kind: str
    id: str
    role: Relation
    row: Row | None = None

    def identity(self) -> list[JsonValue]:
        """Return its id and names; the given id alone if it could not be read."""
        return [self.id, *((self.row.get(name) for name in _IDENTITY) if self.row is not None else ())]

    def bound(self) -> JsonValue:
        """Return what an approval is bound to."""
        found = self.identity() if self.role is Relation.OWNER or self.row is None else lasting(self.row)
        return [self.kind, self.id, self.role.value, self.row is not None, cast(JsonValue, found)]


_IDENTITY = ("id", "slug", "name")


@dataclass(frozen=True, slots=True)
class Touched:
    """Ids and names of the resources of one kind that a call touches. Not known: there may be others."""

    names: tuple[object, ...]
    is_known: bool


EFFECTIVE = {"environment": "environment", "customer_id": "customer"}
"""Arguments of rules that are compared with the effective value, by the field that holds it."""


@dataclass(frozen=True, slots=True)
class ResolvedCall:
    """A call with all that decides what it does. Made by `resolve`, or by `by_arguments` without reads."""

    call: Call
    environment: Effective = Effective()
    customer: Effective = Effective()
    target: FastnObject | None = None
    """Record that it acts on, or that a create may overwrite (`UNKNOWN` if not known), or an AI session."""
    records: tuple[Record, ...] = ()
    """Every other record that an argument names, and the owners of all."""
    dependence: Dependence = field(default_factory=Dependence)
    dependents: int | None = None
    """Number of resources that use the target; None if not known."""
    typed: TypedArgument | None = None
    """What a person types with their approval."""
    former: tuple[str, ...] = ()
    """What the target was called lately, in words. From the journal, so the guard adds it."""

    @property
    def is_missing(self) -> bool:
        """Whether its target does not exist."""
        return self.target is None and self.call.target is not None

    @property
    def refers(self) -> bool:
        """Whether it acts on a record or refers to one, so that who it touches has to be read."""
        return self.call.target is not None or bool(self.records) or bool(self.call.unresolved)

    @property
    def effect(self) -> Effect:
        return self.call.effect_on(self.target, self.dependents)

    @property
    def names(self) -> Names:
        """Names of the records by kind and id, for labels and sentences."""
        found: dict[str, dict[str, str]] = {}
        for each in self.records:
            if each.row is not None:
                label = label_of(each.kind, each.row)
                found.setdefault(each.kind, {})[each.id] = label.name if label else each.id
        return found

    @property
    def label(self) -> Label | None:
        """Label of the target, or of what is created."""
        return own_label(self.call, self.target, self.names)

    def record(self, kind: str, key: str | None = None) -> Record | None:
        """Return the first record of a kind, or that with an id."""
        return next((each for each in self.records if each.kind == kind and key in (None, each.id)), None)

    def effective(self, argument: str) -> Effective | None:
        """Return the effective value of an argument of rules; None if it is only what the call says."""
        return getattr(self, EFFECTIVE[argument]) if argument in EFFECTIVE else None

    @property
    def filled_in(self) -> dict[str, JsonValue]:
        """Arguments that this server's settings give to the request, as a plan compares them."""
        found = {name: self.effective(name) for name in EFFECTIVE}
        return {name: each.values[0] for name, each in found.items() if each and each.source is ValueSource.SETTING}

    @property
    def own_names(self) -> list[object]:
        """Id and names of its target, and those that it gives: a create may overwrite what has them."""
        given = self.call.arguments()
        extra = given.get("extra")
        names = [*_identity(given), *_identity(extra if isinstance(extra, dict) else {})]
        return [self.call.target, *_identity(row_of(self.target)), *names]

    def touched(self, kind: str) -> Touched:
        """Return the ids and names of all resources of a kind that the call touches."""
        resource, names = KINDS[kind], list[object]()
        if self.call.toolset() == resource.toolset:
            names += self.own_names
        names += _mentioned(self.call.arguments(), resource.fields)
        names += _mentioned(row_of(self.target), resource.fields)
        for each in self.records:
            if each.kind == kind:
                names += each.identity()
        unread = [each for each in self.records if each.row is None]
        is_known = (
            not self.is_missing
            and not any(each.kind == kind for each in unread)
            and not (kind == "customer" and any(each.kind == "connection" for each in unread))
            and not any(_plain(name) in resource.fields for name in self.call.unresolved)
        )
        return Touched(tuple(names), is_known)

    def bound(self) -> JsonValue:
        """Return all that an approval is bound to besides the arguments."""
        target = None if self.target is None else lasting(self.target.model_dump())
        records = sorted((each.bound() for each in self.records), key=repr)
        return [target, records, self.environment.data(), self.customer.data()]


# Fields that Fastn updates by itself, which do not affect an approval.
_TELEMETRY = re.compile(r"(last|next)[A-Z_]\w*|consecutiveFailures|statusHistory|\w+Count")


def lasting(row: Row) -> dict[str, JsonValue]:
    """Return a record without fields that change by themselves."""
    return {name: value for name, value in row.items() if not _TELEMETRY.fullmatch(name)}


async def resolve(call: Call, around: Surroundings, send: Send, session: FastnObject | None = None) -> ResolvedCall:
    """Resolve a call by fresh reads. Raises a `FastnError` if its target cannot be read.

    `session` is the target of a message to Fastn's AI. A target that does not exist `is_missing`.
    """
    target = session or await read_target(call, send)
    dependence = await find_dependents(call, target, send)
    records = await _read(_references(call, row_of(target), around), send)
    connector = next((each.row for each in records if each.kind == "connector"), None)
    return ResolvedCall(
        call,
        _environment(call, row_of(target), around),
        _customer(call, row_of(target), around),
        target,
        records,
        dependence,
        None if dependence.unchecked else dependence.count,
        typed_argument(call, connector if isinstance(call, CreateConnection) else None),
    )


def by_arguments(
    call: Call,
    around: Surroundings | None = None,
    target: FastnObject | None = None,
    dependents: int | None = None,
    *,
    trusts_ids: bool = False,
) -> ResolvedCall:
    """Resolve a call without reads: other records are unknown, unless `trusts_ids` takes them to be their ids."""
    around, row = around or Surroundings(), row_of(target)
    records = tuple(
        Record(kind, key, role, {"id": key} if trusts_ids else known)
        for kind, key, role, known in _references(call, row, around)
    )
    environment, customer = _environment(call, row, around), _customer(call, row, around)
    return ResolvedCall(call, environment, customer, target, records, dependents=dependents)


# --- effective values ---------------------------------------------------------------------------------------------


def _environment(call: Call, row: Row, around: Surroundings) -> Effective:
    given = call.arguments().get("environment")
    if isinstance(given, str):
        return Effective((given,), ValueSource.ARGUMENT)
    if isinstance(call, RunWorkflow):
        own = around.environment
        return Effective((own,), ValueSource.SETTING) if own else Effective((), ValueSource.FASTN, is_known=False)
    if "environment" in type(call).model_fields:
        return Effective(("test", "live"), ValueSource.FASTN)  # a secret is for both
    if isinstance(call, (CreateTrigger, UpdateTrigger, DeleteTrigger)):
        return _of_routes(call, row)
    named = text(row, "environment")
    return Effective((named,), ValueSource.RECORD) if named else Effective()


def _of_routes(call: Call, row: Row) -> Effective:
    given: object = getattr(call, "routes", None)
    routes: object = row.get("routes") if given is None else given
    if not isinstance(routes, list):
        return Effective((), ValueSource.RECORD, is_known=False)
    places = [
        text(cast(Row, route), "environment") if isinstance(route, Mapping) else ""
        for route in cast("list[Any]", routes)
    ]
    source = ValueSource.RECORD if given is None else ValueSource.ARGUMENT
    return Effective(tuple(filter(None, places)), source, all(places))


def _customer(call: Call, row: Row, around: Surroundings) -> Effective:
    given = call.arguments().get("customer_id")
    if isinstance(given, str):
        return Effective((given,), ValueSource.ARGUMENT)
    if "customer_id" in call.unresolved:
        return Effective((), ValueSource.FASTN, is_known=False)
    takes_one = "customer_id" in type(call).model_fields and call.target is None
    owner = None if takes_one or isinstance(call, RunWorkflow) else owner_of(row)
    if owner is not None:
        return Effective((owner,), ValueSource.RECORD)
    return Effective((around.customer,), ValueSource.SETTING) if around.customer else Effective()


# --- records ------------------------------------------------------------------------------------------------------

_Reference = tuple[str, str, Relation, "Row | None"]
"""Kind, id, role, and the record itself if the target's row holds enough of it."""


def _references(call: Call, row: Row, around: Surroundings) -> list[_Reference]:
    """Return what a call, its target's row and the settings refer to, each once; what arguments name comes first."""
    parameters = type(call).route.parameters
    given = {name: value for name, value in call.arguments().items() if name not in parameters}
    extra = given.pop("extra", None)
    named = {**(extra if isinstance(extra, dict) else {}), **given}
    row = {**connection_refers(call.target or ""), **row} if kind_of(call) == "connection" else row
    found: dict[tuple[str, str], _Reference] = {}
    wanted = [(Relation.NAMED, named), (Relation.OWNER, row)]
    wanted += [(Relation.OWNER, connection_refers(key)) for kind, key, _ in _inside(named) if kind == "connection"]
    # Only in a run does the argument replace the header; elsewhere both are sent.
    if around.customer and not (isinstance(call, RunWorkflow) and "customer_id" in given):
        wanted.append((Relation.OWNER, {"customerId": around.customer}))
    for role, fields in wanted:
        for kind, key, known in _inside(fields):
            found.setdefault((kind, key), (kind, key, role, known))
    return list(found.values())


def _inside(row: Row) -> Iterator[tuple[str, str, Row | None]]:
    """Yield kind, id and, if it is whole, the record of each resource that the fields of a row refer to."""
    for kind, resource in KINDS.items():
        keys, embedded = list[str](), dict[str, JsonValue]()
        for name, value in row.items():
            if _plain(name) in resource.fields:
                embedded |= value if isinstance(value, dict) else {}
                keys += _keys(value)
        if embedded and len(keys) <= 1 and text(embedded, "name") and text(embedded, "slug"):
            key = keys[0] if keys else text(embedded, *_IDENTITY)
            yield kind, key, {"id": key, **embedded}
        else:
            yield from ((kind, key, None) for key in keys or ([text(embedded, *_IDENTITY)] if embedded else []))
    yield from (("workflow", key, None) for key in started_workflows(row))


def _keys(value: object) -> list[str]:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    found = [text(cast(Row, each), *_IDENTITY) if isinstance(each, Mapping) else each for each in items]
    is_row = isinstance(value, Mapping)
    return [] if is_row else [str(key) for key in found if isinstance(key, (str, int)) and str(key).strip()]


async def _read(references: Iterable[_Reference], send: Send) -> tuple[Record, ...]:
    """Read records, up to `MAX_LOOKUPS` of each kind: the others are unknown, as are those that cannot be read."""
    every, unread = list(references), list[tuple[str, str]]()
    for kind in KINDS:
        unread += [(kind, key) for of, key, _, known in every if of == kind and known is None][:MAX_LOOKUPS]
    rows = await read_each(unread, partial(_row, send))
    return tuple(Record(kind, key, role, known or rows.get((kind, key))) for kind, key, role, known in every)


async def _row(send: Send, resource: tuple[str, str]) -> Row:
    kind, key = resource
    if kind in GETS:
        return row_of(await send(GETS[kind].model_validate({f"{kind}_id": key})))
    if kind != "connection":
        raise ValueError(f"a {kind} is not read by its id")
    of = connection_refers(key)
    reading = ListConnections.model_validate(
        {"connector_id": of.get("connectorId"), "customer_id": of.get("endOrgId"), "limit": 100}
    )
    page = cast("Listed[FastnObject]", await send(reading))
    for row in page.rows:
        if key_of(row) == key:
            return row
    raise ValueError("not on the first page")


# --- text ---------------------------------------------------------------------------------------------------------


def _identity(fields: Mapping[str, Any]) -> list[object]:
    return [fields.get(name) for name in _IDENTITY]


def _mentioned(value: object, fields: frozenset[str]) -> Iterator[object]:
    """Yield the ids and names at any depth in fields that refer to a kind, such as those of a run's input."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        for name, inner in mapping.items():
            if _plain(name) in fields:
                yield from _ids(inner)
            yield from _mentioned(inner, fields)
    elif isinstance(value, list):
        items = cast("list[object]", value)
        for inner in items:
            yield from _mentioned(inner, fields)


def _ids(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from _identity(cast("Mapping[str, Any]", value))
    elif isinstance(value, list):
        items = cast("list[object]", value)
        for inner in items:
            yield from _ids(inner)
    else:
        yield value


def _plain(name: str) -> str:
    """Normalize a name: `customer_id`, `customerId` and `customer-id` are equal."""
    return name.replace("_", "").replace("-", "").casefold()
