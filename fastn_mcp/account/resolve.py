"""Resolve a call: read what it acts on, what it names, who owns that and what depends on it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

from pydantic import JsonValue

from fastn_mcp.account.dependent_rows import MAX_PAGES
from fastn_mcp.account.dependents import find_dependents
from fastn_mcp.account.resolved_call import (
    IDENTITY,
    KINDS,
    Effective,
    Record,
    Relation,
    ResolvedCall,
    Surroundings,
    ValueSource,
    customer_reference,
    customers_mentioned,
    identity,
    objects_in,
    pending_in,
    undocumented_in,
)
from fastn_mcp.account.typed_argument import typed_argument
from fastn_mcp.client.absence import control_by, finds_known_rows, read_filtered, text_in_other_case
from fastn_mcp.client.overwrites import read_overwritten
from fastn_mcp.client.reads import GETS, MAX_LIST_PAGES, MAX_LOOKUPS, Pages, read_each, read_names, read_page
from fastn_mcp.client.targets import find_listed, read_target
from fastn_mcp.errors import FastnError, InvalidArgument, NotFound, NotSent
from fastn_mcp.records.labels import Label, label_of, references
from fastn_mcp.records.rows import (
    FastnObject,
    Row,
    as_word,
    connection_refers,
    key_of,
    objects,
    owner_of,
    row_of,
    text,
)
from fastn_mcp.redaction import name_as_read, quote, texts_in
from fastn_mcp.tools.access import ListRoles
from fastn_mcp.tools.connectors import CreateConnection, ListConnections
from fastn_mcp.tools.customers import GetCustomer, ListCustomers
from fastn_mcp.tools.operation import UNKNOWN, Call, Create, Send, plain
from fastn_mcp.tools.related_reads import kind_of, labelled_row
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import RunWorkflow


async def resolve(
    call: Call,
    surroundings: Surroundings,
    send: Send,
    session: FastnObject | None = None,
    earlier: Send | None = None,
) -> ResolvedCall:
    """Resolve a call by fresh reads. `session` is the target of a message to Fastn's AI.

    `earlier` repeats the reads of an evaluation of the same call a short time ago.

    A target that does not exist `is_missing`. Raises `NotSent` if a setting contradicts an argument, and a `FastnError`
    if the target cannot be read.
    """
    check_settings(call, surroundings)
    sent = call
    if isinstance(call, CreateConnection) and call.customer_id is None and surroundings.customer is not None:
        # As the request has it: the setting names the customer of a new connection.
        sent = call.model_copy(update={"customer_id": surroundings.customer})
    target = session
    if target is None:
        is_create = isinstance(sent, Create)
        target = await (read_overwritten(sent, send, earlier) if is_create else read_target(sent, send))
    row = row_of(target)
    arguments = call.arguments()
    dependence = await find_dependents(call, target, send, earlier)
    records = await _read(_references(call, arguments, row, surroundings), send)
    connector = next((each.row for each in records if each.kind == "connector"), None)
    return ResolvedCall(
        call,
        environment=_environment(call, arguments, row, surroundings),
        customer=_customer(call, arguments, row, surroundings),
        target=target,
        records=records,
        dependence=dependence,
        dependents=None if dependence.unchecked else dependence.count,
        typed=None if call.person_types is None else typed_argument(call, connector),
    )


async def with_owners(resolved: ResolvedCall, send: Send) -> ResolvedCall:
    """Add the owners of what depends on the target or is named by arguments, and who already has its reference."""
    known = {each.id for each in resolved.records if each.kind == "customer"}
    owners = {owner for each in resolved.dependence.certain for owner in each.owners}
    for each in resolved.records:
        is_followed = each.relation is Relation.NAMED or each.kind == "connection"
        refers = _inside(each.row or {}, in_call=False) if is_followed else ()
        owners |= {key for kind, key, _ in refers if kind == "customer"}
    known |= {resolved.call.target or ""}
    owners -= known
    owner_records = await _read([Record("customer", owner, Relation.OWNER) for owner in sorted(owners)], send)
    mentioned = customers_mentioned(resolved.call, row_of(resolved.target))
    owner_records += await _customers_among([each for each in mentioned if each not in owners | known], send)
    reference = getattr(resolved.call, "external_ref", None) or ""
    holder = await _holder(reference, resolved.call.target, send) if name_as_read(reference) else None
    if holder is not None:
        owner_records += (holder,)
    return replace(resolved, records=(*resolved.records, *owner_records))


async def _customers_among(mentioned: Sequence[str], send: Send) -> tuple[Record, ...]:
    """Return the customers with these ids, names or references; without a row, the texts that may be of unread ones."""

    async def read(key: str) -> Record | None:
        try:
            return Record("customer", key, Relation.OWNER, row_of(await send(GetCustomer(customer_id=key))))
        except NotFound:
            return None
        except NotSent:  # it cannot be an id
            return await _customer_named(key, send)
        except FastnError as error:
            return Record("customer", key, Relation.OWNER, error=error)

    if not mentioned:
        return ()
    rows, is_complete = await _customers(send)
    wanted = {*map(name_as_read, mentioned)} - {""}
    records = [
        Record("customer", key_of(row), Relation.OWNER, row)
        for row in rows.values()
        if not wanted.isdisjoint(_names_as_read(row))
    ]
    if is_complete:
        return tuple(records)
    if len(mentioned) > MAX_LOOKUPS:
        return (*records, *(Record("customer", key, Relation.OWNER) for key in mentioned))
    return (*records, *filter(None, (await read_each(mentioned, read)).values()))


async def _customer_named(name: str, send: Send) -> Record | None:
    """Return the customer with this name, as Fastn searches for it. Without a row if it cannot tell."""
    if len(name) > _MAX_NAME:
        return None
    try:
        page = await read_page(ListCustomers(search=name, limit=100), send)
    except FastnError as error:
        return Record("customer", name, Relation.OWNER, error=error)
    row = next((row for row in page.rows if name_as_read(name) in _names_as_read(row)), None)
    if row is not None:
        return Record("customer", key_of(row), Relation.OWNER, row)
    return Record("customer", name, Relation.OWNER) if page.next_cursor or page.not_checked else None


_MAX_NAME = 256
"""Maximum length in characters of a text that may be the name of a customer."""


def _names_as_read(customer: Row) -> set[str]:
    """Return the id, names and reference of a customer, as `name_as_read` returns them."""
    return {name_as_read(str(each)) for each in (*identity(customer).values(), text(customer, "externalRef"))}


async def _holder(reference: str, besides: str | None, send: Send) -> Record | None:
    """Return the customer that has a reference, `besides` one; unknown if it is not certain that none has it.

    That is certain by a search that also finds the reference of a known customer, or else by the whole list.
    """
    pages = Pages(ListCustomers(limit=100), send, MAX_LIST_PAGES)

    def with_it(rows: Iterable[Row]) -> Row | None:
        wanted = name_as_read(reference)
        others = (row for row in rows if key_of(row) != besides)
        return next((row for row in others if name_as_read(text(row, "externalRef")) == wanted), None)

    try:
        row = with_it((await anext(pages)).rows)
        if row is None and pages.has_next:
            answer = await read_filtered(ListCustomers, {"search": reference}, send)
            row = with_it(answer.rows)
            is_empty = row is None and answer.is_filtered and answer.is_whole and reference.isascii()
            control = control_by(text_in_other_case("externalRef"), pages.rows)
            if is_empty and await finds_known_rows(ListCustomers, [control], send):
                return None
        while row is None and pages.has_next:
            row = with_it((await anext(pages)).rows)
    except FastnError as error:
        return Record("customer", reference, Relation.OWNER, error=error)
    if row is not None:
        return Record("customer", key_of(row), Relation.OWNER, row)
    return None if pages.is_complete else Record("customer", reference, Relation.OWNER)


def by_arguments(
    call: Call,
    surroundings: Surroundings | None = None,
    target: FastnObject | None = None,
    dependents: int | None = None,
    *,
    trusts_ids: bool = False,
) -> ResolvedCall:
    """Resolve a call without reads: other records are unknown, unless `trusts_ids` takes them to be their ids."""
    surroundings = surroundings or Surroundings()
    row = row_of(target)
    arguments = call.arguments()
    references = _references(call, arguments, row, surroundings)
    records = tuple(replace(each, row={"id": each.id}) if trusts_ids else each for each in references)
    environment = _environment(call, arguments, row, surroundings)
    customer = _customer(call, arguments, row, surroundings)
    return ResolvedCall(
        call, environment=environment, customer=customer, target=target, records=records, dependents=dependents
    )


def without_hidden(resolved: ResolvedCall, tools: EnabledTools, surroundings: Surroundings) -> ResolvedCall:
    """Return a call as an agent may see it: without rows that no enabled tool reads, and its dependents by number.

    Where its target is hidden, it is resolved by its arguments. Whether a create overwrites something is then unknown.
    """
    call = resolved.call
    shown = resolved
    if tools.hides(call.toolset()):
        shown = by_arguments(call, surroundings, UNKNOWN)
    records = [each for each in resolved.records if shown is resolved or each.relation is Relation.NAMED]
    readable = tuple(replace(each, row=None) if tools.hides(f"{each.kind}s") else each for each in records)
    return replace(shown, records=readable, dependence=resolved.dependence.counted(), typed=resolved.typed)


async def read_label(call: Call, target: FastnObject | None, send: Send) -> Label | None:
    """Return the label of what a call acts on or creates, with the names of the resources that it refers to."""
    row = labelled_row(call, target)
    kind = kind_of(call)
    return None if row is None else label_of(kind, row, await read_names(references(kind, row), send))


# --- effective values ---------------------------------------------------------------------------------------------


def check_settings(call: Call, surroundings: Surroundings) -> None:
    """Raise `NotSent` if a setting that is sent with every request contradicts an argument.

    In a run, the argument replaces the setting's header.
    """
    if isinstance(call, RunWorkflow):
        return
    for name, own, setting in (
        ("environment", surroundings.environment, "env"),
        ("customer_id", surroundings.customer, "end_org_id"),
    ):
        argument: object = getattr(call, name, None)
        if own and argument is not None and argument != own and name not in type(call).route.parameters:
            raise InvalidArgument(
                f"The argument {name} is {quote(str(argument))}, but this server sends {quote(own)} with every request"
                f" (setting {setting}).",
                f"Leave {name} out to use {quote(own)}, or tell the operator.",
            )


def _environment(call: Call, arguments: Row, row: Row, surroundings: Surroundings) -> Effective:
    own = surroundings.environment
    argument = arguments.get("environment")
    if isinstance(call, RunWorkflow) and argument is None:
        return Effective((own,), ValueSource.SETTING) if own else Effective((), ValueSource.FASTN, is_known=False)
    if isinstance(argument, str) and (isinstance(call, RunWorkflow) or as_word(argument) in ("test", "live")):
        effective = Effective((argument,), ValueSource.ARGUMENT)
    elif isinstance(call, (CreateTrigger, UpdateTrigger, DeleteTrigger)):
        effective = _of_routes(call, row)
    elif "environment" in type(call).model_fields:
        # A secret is for all, also where its environment is blank.
        effective = Effective(("test", "live"), ValueSource.FASTN, is_known=False)
    else:
        effective = _of_record(call, row)
    undocumented = [*_environments_in(call)]
    if undocumented:
        values = (*effective.values, *(value for each in undocumented for value in texts_in(each)))
        is_known = effective.is_known and all(isinstance(each, str) for each in undocumented)
        effective = Effective(values, ValueSource.ARGUMENT, is_known)
    return effective if isinstance(argument, str) else _with_setting(effective, own)


def _environments_in(call: Call) -> Iterator[JsonValue]:
    """Yield the environments that undocumented fields and the headers of routes name, at any depth.

    What is not a string may be any.
    """
    for fields in undocumented_in(call):
        for name, content in fields.items():
            if not _ENVIRONMENT.search(plain(name)):
                continue
            if isinstance(content, list):
                yield from content
            elif content is not None:
                yield content


_ENVIRONMENT = re.compile(r"environment|env(s|id|ids|name|names)?$")
"""Names of these fields, as `plain` returns them."""


def _of_record(call: Call, row: Row) -> Effective:
    """Return the environment of a connection or a secret; other records have none."""
    kind = kind_of(call)
    named = text(row, "environment") or text(connection_refers(call.target or ""), "environment")
    if named or kind not in ("connection", "secret"):
        return Effective((named,), ValueSource.RECORD) if named else Effective()
    # A secret without an environment is for all; a connection is in one, which Fastn chooses for a new one.
    source = ValueSource.FASTN if call.target is None else ValueSource.RECORD
    return Effective(("test", "live") if kind == "secret" else (), source, is_known=False)


def _of_routes(call: Call, row: Row) -> Effective:
    """Return the environments of a trigger's connection, of the routes that it gets, and of those that it has."""
    new_routes: object = getattr(call, "routes", None)
    held: object = [] if isinstance(call, CreateTrigger) else row.get("routes")
    lists = [held] if new_routes is None else [new_routes, held]
    if not all(isinstance(routes, list) for routes in lists):
        return Effective((), ValueSource.RECORD, is_known=False)
    places = [
        text(cast(Row, route), "environment") if isinstance(route, Mapping) else ""
        for routes in lists
        for route in cast("list[Any]", routes)
    ]
    connection = str(getattr(call, "connection_id", None) or text(row, "connectionId"))
    if connection:
        places.append(text(connection_refers(connection), "environment"))
    source = ValueSource.RECORD if new_routes is None else ValueSource.ARGUMENT
    return Effective(tuple(dict.fromkeys(filter(None, places))), source, all(places))


def _customer(call: Call, arguments: Row, row: Row, surroundings: Surroundings) -> Effective:
    argument = arguments.get("customer_id")
    if isinstance(argument, str) and call.target != argument:
        return Effective((argument,), ValueSource.ARGUMENT, is_known=customer_reference(call) is None)
    if "customer_id" in call.unresolved:
        return Effective((), ValueSource.FASTN, is_known=False)
    takes_one = "customer_id" in type(call).model_fields and call.target is None
    owner = None if takes_one or isinstance(call, RunWorkflow) else owner_of(row)
    effective = Effective((owner,), ValueSource.RECORD) if owner else Effective()
    return _with_setting(effective, surroundings.customer)


def _with_setting(effective: Effective, own: str | None) -> Effective:
    """Add a setting that is sent with the request: where it differs from the record, either may apply."""
    if not own or own in effective.values:
        return effective
    if not effective.values and effective.is_known:
        return Effective((own,), ValueSource.SETTING)
    return replace(effective, values=(*effective.values, own))


# --- records ------------------------------------------------------------------------------------------------------


def _references(call: Call, arguments: Row, row: Row, surroundings: Surroundings) -> list[Record]:
    """Return what a call, its target's row and the settings refer to, each once; what arguments name comes first."""
    parameters = type(call).route.parameters
    documented = {name: content for name, content in arguments.items() if name not in parameters}
    documented.pop("extra", None)
    if kind_of(call) == "connection":
        row = {**connection_refers(call.target or ""), **row}
    in_call = [each for fields in (documented, *undocumented_in(call)) for each in _inside(fields, in_call=True)]
    owned = [*_inside(row, in_call=False)]
    owned += [each for fields in objects_in(pending_in(call, row)) for each in _inside(fields, in_call=True)]
    connections = [connection_refers(key) for kind, key, _ in (*in_call, *owned) if kind == "connection"]
    # Only in a run does the argument replace the header; elsewhere both are sent.
    if surroundings.customer and not (isinstance(call, RunWorkflow) and "customer_id" in documented):
        connections.append({"customerId": surroundings.customer})
    owned += [each for fields in connections for each in _inside(fields, in_call=False)]
    references: dict[tuple[str, str], Record] = {}
    for kind, key, known in in_call:
        references.setdefault((kind, key), Record(kind, key, Relation.NAMED, known))
    for kind, key, known in owned:
        references.setdefault((kind, key), Record(kind, key, Relation.OWNER, known))
    return list(references.values())


_KINDS_IN_ROWS = {name: kind for kind, of in KINDS.items() for name in of.fields}
_KINDS_IN_CALLS = _KINDS_IN_ROWS | {name: kind for kind, of in KINDS.items() for name in of.arguments}
"""Kinds by the fields that refer to them, as `plain` returns them."""


class _Mentioned(NamedTuple):
    """What the fields of one kind hold: ids, and rows that are embedded in place of an id."""

    ids: list[str]
    rows: list[Row]


def _mentioned(row: Row, *, in_call: bool) -> dict[str, _Mentioned]:
    """Collect by kind what fields refer to: several may be of one resource, as `customerId` and `customer` are."""
    kinds = _KINDS_IN_CALLS if in_call else _KINDS_IN_ROWS
    by_kind: dict[str, _Mentioned] = {}
    for name, content in row.items():
        kind = kinds.get(plain(name))
        if kind is None:
            continue
        mentioned = by_kind.setdefault(kind, _Mentioned([], []))
        if isinstance(content, dict):
            mentioned.rows.append(content)
            continue
        for value in content if isinstance(content, list) else [content]:
            key = text(value, *IDENTITY) if isinstance(value, dict) else value
            if isinstance(key, (str, int)) and str(key).strip():
                mentioned.ids.append(str(key))
    return by_kind


def _inside(row: Row, *, in_call: bool) -> Iterator[tuple[str, str, Row | None]]:
    """Yield kind, id and, if it is whole, the record of each resource that the fields of a row or call refer to.

    Of each kind come the ids, those of embedded rows last; then what the routes of a trigger refer to.
    """
    for kind, mentioned in _mentioned(row, in_call=in_call).items():
        keys = dict.fromkeys([*mentioned.ids, *(key_of(each) for each in mentioned.rows)])
        ids = [key for key in keys if key]
        whole = [each for each in mentioned.rows if text(each, "name") and text(each, "slug")]
        is_one_record = len(ids) <= 1 and len(mentioned.rows) == len(whole) == 1
        # An argument only claims what a record is: it is read. So are customers, whom policies protect by name.
        if is_one_record and not in_call and kind != "customer":
            key = ids[0] if ids else text(whole[0], *IDENTITY)
            yield kind, key, {"id": key, **whole[0]}
            continue
        for key in ids or filter(None, (text(each, *IDENTITY) for each in mentioned.rows)):
            yield kind, key, None
    for route in objects(row, "routes"):
        yield from _inside(route, in_call=in_call)


async def _read(records: Sequence[Record], send: Send) -> tuple[Record, ...]:
    """Read the rows that records lack, up to `MAX_LOOKUPS` of each kind one by one, and more customers from their list.

    The others are unknown, as are those that cannot be read.
    """
    unread = list[tuple[str, str]]()
    rows: dict[tuple[str, str], Row] = {}
    errors: dict[tuple[str, str], FastnError] = {}
    for kind in KINDS:
        of_kind = [(kind, each.id) for each in records if each.kind == kind and each.row is None]
        if kind == "customer" and len(of_kind) > MAX_LOOKUPS:
            rows |= (await _customers(send))[0]
        else:
            unread += of_kind[:MAX_LOOKUPS]
    rows |= await read_each(unread, partial(_row, send, errors))
    return tuple(
        replace(each, row=each.row or rows.get((each.kind, each.id)), error=errors.get((each.kind, each.id)))
        for each in records
    )


async def _customers(send: Send) -> tuple[dict[tuple[str, str], Row], bool]:
    """Read the first customers of the list, and whether these are all. What cannot be read is left out."""
    pages = Pages(ListCustomers(limit=100), send, MAX_PAGES)
    with suppress(FastnError):
        await pages.read_rest()
    return {("customer", key_of(row)): row for row in pages.rows}, pages.is_complete


async def _row(send: Send, errors: dict[tuple[str, str], FastnError], resource: tuple[str, str]) -> Row:
    """Read one record. Raises a `FastnError`, which it adds to `errors`, or `ValueError`."""
    kind, key = resource
    try:
        if kind in GETS:
            return row_of(await send(GETS[kind].model_validate({f"{kind}_id": key})))
        if kind == "role":
            return await _role(key, send)
        if kind != "connection":
            raise ValueError(f"a {kind} is not read by its id")
        found = await find_listed(ListConnections, key, send)
    except FastnError as error:
        errors[resource] = error
        raise
    if found.row is None:
        raise ValueError(f"no such {kind}")
    return found.row


async def _role(key: str, send: Send) -> Row:
    """Read the role with this id or name. Raises `ValueError` unless exactly one has it.

    Anybody who may create a role can give it the id or the name of another, and Fastn chooses which it means.
    """
    pages = Pages(ListRoles(limit=100), send, MAX_PAGES)
    named = [(row, [*map(str, identity(row).values())]) async for page in pages for row in page.rows]
    alike = [(row, names) for row, names in named if name_as_read(key) in map(name_as_read, names)]
    if len(alike) != 1 or key not in alike[0][1] or not pages.is_complete:
        raise ValueError(f"{len(alike)} roles match")
    return alike[0][0]
