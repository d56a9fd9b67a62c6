"""Outlook on a call: the defaults that will be used, and the state that matters."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.account.dependents import run_in_words
from fastn_mcp.account.resolved_call import ResolvedCall, Surroundings
from fastn_mcp.client.reads import read_page
from fastn_mcp.client.targets import find_listed
from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.records.code_input import input_use
from fastn_mcp.records.cron import next_run
from fastn_mcp.records.formats import age, aged, counted, kind_in_words
from fastn_mcp.records.labels import label_of, name_of
from fastn_mcp.records.rows import (
    Row,
    apps_of_customers,
    as_word,
    connector_keys,
    inside,
    key_of,
    objects,
    parse_timestamp,
    row_of,
    short,
    text,
    value,
    word,
)
from fastn_mcp.records.states import (
    State,
    broken_since,
    connection_state,
    failure_reason,
    is_pending,
    run_state,
    workflow_state,
)
from fastn_mcp.redaction import name_as_read, quote, texts_in
from fastn_mcp.tools.access import CreateApiKey, CreateRole, InviteUser, ListApiKeys, ListRoles, ListUsers
from fastn_mcp.tools.connectors import CreateConnection, ListConnections, UpdateConnector
from fastn_mcp.tools.operation import UNKNOWN, Call, Send
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.related_reads import kind_of, reader_of
from fastn_mcp.tools.triggers import CreateTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import NO_ENVIRONMENT, UNNAMED_ENVIRONMENT, ListExecutions, RunWorkflow, UpdateWorkflow

_RUNS = 5
"""Number of runs read for the last outcome."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What helps to decide a call, besides its target, its changes and its dependents."""

    defaults: Mapping[str, str] = field(default_factory=dict[str, str])
    """Values of arguments that were not given."""
    notes: tuple[str, ...] = ()
    """Sentences on the defaults and on the state that matters, with values quoted."""

    def data(self) -> dict[str, JsonValue]:
        body: dict[str, JsonValue] = {"defaults": dict(self.defaults)} if self.defaults else {}
        if self.notes:
            body["notes"] = [*self.notes]
        return body


async def outlook_of(resolved: ResolvedCall, send: Send, now: datetime, around: Surroundings) -> Outlook:
    """Return the outlook on a call. Reads earlier runs for it; what cannot be read is said, not raised."""
    missing = [
        f"No {each.kind} has the id {quote(each.id)}, or the server's API key has no access to it. Fastn may refuse the"
        " call."
        for each in resolved.named
        if isinstance(each.error, NotFound)
    ]
    defaults = _defaults(resolved.call, around)
    where = _environment_words(defaults["environment"]) if "environment" in defaults else ""
    unread = await _unread_target(resolved, send)
    notes = (*missing, unread, where, *await _notes(resolved, send, now, around))
    return Outlook(defaults, tuple(filter(None, notes)))


def _environment_words(environment: str) -> str:
    return NO_ENVIRONMENT if environment == UNNAMED_ENVIRONMENT else f"Environment: {environment}."


async def _unread_target(resolved: ResolvedCall, send: Send) -> str:
    """Return how far the target was looked for in its list, if it was not found and may exist; else nothing."""
    call = resolved.call
    reader = reader_of(type(call))
    if call.target is None or resolved.target is not UNKNOWN or reader is None:
        return ""
    try:
        found = await find_listed(cast("type[List[Any]]", reader), call.target, send)
    except FastnError:
        return ""
    kind = kind_in_words(kind_of(call))
    return (
        f"Which {kind} this is was not checked. It is not among {found.looked_through}, and no more are looked through."
    )


def _defaults(call: Call, around: Surroundings) -> dict[str, str]:
    match call:
        case RunWorkflow(environment=None):
            own = around.environment
            return {"environment": f"{quote(own)}, by this server's settings" if own else UNNAMED_ENVIRONMENT}
        case CreateApiKey():
            role = f"{call.defaults['permissions']} (read-only)"
            standard = {**call.defaults, "permissions": role, "customers": "all"}
            return {name: default for name, default in standard.items() if getattr(call, name) is None}
        case _:
            return {}


async def _notes(resolved: ResolvedCall, send: Send, now: datetime, around: Surroundings) -> Sequence[str]:
    call = resolved.call
    row = row_of(resolved.target)
    match call:
        case RunWorkflow():
            return await _of_run(call, resolved, send, now)
        case CreateApiKey():
            return [*_of_new_key(call, now, around), await _namesake(call.name, ListApiKeys, send)]
        case CreateRole():
            return [await _namesake(call.name, ListRoles, send)]
        case InviteUser():
            return [await _namesake(call.email, ListUsers, send)]
        case CreateConnection():
            return [_auth_method(call, resolved)]
        case CreateTrigger() | UpdateTrigger():
            return [_next_run(call, row, now)]
        case UpdateConnector() if word(row, "origin", "badge") == "managed":
            return ["Fastn manages it, and managed connectors are read-only: the change will be refused."]
        case UpdateWorkflow() if as_word(call.status or "") == "inactive":
            return ["Its triggers no longer start it; it can still be run by hand."]
        case _:
            return ()


async def _of_run(call: RunWorkflow, resolved: ResolvedCall, send: Send, now: datetime) -> list[str]:
    workflow = row_of(resolved.target)
    notes = [_STATE_OF_RUN.get(workflow_state(workflow), ""), _input(call, workflow), _input_read(call, workflow)]
    if resolved.customer.values:
        notes.append(_customer(resolved.customer.values[0], resolved))
        notes += await _connections(workflow, resolved, send, now)
    elif call.customer_ref is None and (apps := apps_of_customers(workflow)):
        named = ", ".join(_app(dict(app)) for app in apps)
        notes.append(f"No customer is named, but it uses customers' connections: {named}.")
    return [*notes, await _last_runs(call, workflow, send, now)]


_STATE_OF_RUN = {
    State.DRAFT: f"It was {State.DRAFT.value}: Fastn refuses to run it.",
    State.OFF: f"It is {State.OFF.value}: its triggers do not start it, but this call may.",
    State.UNKNOWN: "Whether it is published is unknown.",
}


def _input(call: RunWorkflow, workflow: Row) -> str:
    values = call.input or {}
    required = value(inside(workflow, "inputSchema"), "required")
    missing = [name for name in required if name not in values] if isinstance(required, list) else []
    if missing:
        return f"Its input lacks what its schema requires: {', '.join(map(quote, missing))}."
    return "" if values else "Its input is empty."


def _input_read(call: RunWorkflow, workflow: Row) -> str:
    """Return which fields of the input the code reads, and where the given ones differ from these."""
    use = input_use(value(workflow, "code"))
    if use is None or (not use.fields and use.is_whole):
        return ""
    given = call.input or {}
    unread = [name for name in given if name not in use.fields]
    missing = [name for name in use.fields if name not in given]
    sentences = [f"Its code reads of the input: {_names(use.fields)}." if use.fields else "Its code reads no input."]
    if unread and not use.is_whole:
        sentences.append(f"It does not read {_names(unread)}.")
    if missing and given:
        sentences.append(f"The input lacks {_names(missing)}.")
    return " ".join(sentences)


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(quote, names))


def _customer(key: str, resolved: ResolvedCall) -> str:
    record = resolved.record("customer", key)
    if record is None or (customer := record.row) is None:
        return "Its customer could not be read."
    name = quote(name_of(customer))
    if is_pending(customer):
        return f"Customer {name} is pending: its integrations do not run."
    return ""


async def _connections(workflow: Row, resolved: ResolvedCall, send: Send, now: datetime) -> list[str]:
    """Return which apps the run cannot use for its customer, by one read of the customer's connections.

    Not checked are the account's own connections, a status that is not documented, and rows that do not tell.
    """
    apps = value(workflow, "connectors")
    if not apps or not isinstance(apps, list):
        return [] if apps == [] else ["Which connections it uses was not checked."]
    rows, is_whole = await _connections_of_customer(resolved, send)
    notes = list[str]()
    unchecked = list[str]()
    for app in apps:
        is_shared = isinstance(app, dict) and word(app, "scope") == "saas"
        own = [] if is_shared else [row for row in rows if connector_keys(row) & {*texts_in(app)}]
        states = {connection_state(row) for row in own}
        if any(state.is_usable for state in states):
            continue
        if State.UNKNOWN in states or not (is_whole and (own or app in apps_of_customers(workflow))):
            unchecked.append(_app(app))
        elif not own:
            notes.append(f"The customer has no connection to {_app(app)}: the run will fail where it calls it.")
        else:
            label = quote(str(label_of("connection", own[0], {"customer": resolved.names.get("customer", {})})))
            since = broken_since(own[0], now)
            status = f"{text(own[0], 'status').upper()}{' since' if since[0].isdigit() else ','} {since}"
            notes.append(f"{label} is {status}: the run will fail where it calls {_app(app)}.")
    return [*notes, f"Connections to {', '.join(unchecked)} were not checked."] if unchecked else notes


async def _connections_of_customer(resolved: ResolvedCall, send: Send) -> tuple[Sequence[Row], bool]:
    """Return the connections of the customer of a run, and whether they are all and tell their connector."""
    try:
        listing = ListConnections(customer_id=resolved.customer.values[0], limit=100)
        page = await read_page(listing, send)
    except (FastnError, ValueError):
        return [], False
    if page.not_checked:
        return [], False
    is_whole = not page.next_cursor and all(text(row, "connectorSlug", "connector.slug") for row in page.rows)
    return page.rows, is_whole


def _app(app: JsonValue) -> str:
    return quote(text(app, "slug", "name", "id") if isinstance(app, dict) else str(app))


async def _last_runs(call: RunWorkflow, workflow: Row, send: Send, now: datetime) -> str:
    """Return how the last run ended, with the cause of a failure."""
    try:
        id_ = key_of(workflow) or call.workflow_id
        reading = ListExecutions(workflow_id=id_, customer_id=call.customer_id, limit=_RUNS)
        runs = (await read_page(reading, send)).rows
    except (FastnError, ValueError):
        return "Its earlier runs could not be read."
    of = " for this customer" if call.customer_id else ""
    if not runs:
        return f"It has no earlier run{of}."
    sentence = f"Last run{of}: {run_in_words(runs[0], now)}"
    cause = short(failure_reason(runs[0]), 160)
    failed = sum(run_state(run).is_failure for run in runs)
    count = f" {failed} of the last {len(runs)} failed." if len(runs) > 1 and failed else ""
    return f"{sentence}{f': {quote(cause)}' if cause else ''}.{count}"


def _auth_method(call: CreateConnection, resolved: ResolvedCall) -> str:
    """Return a note if the connector does not have the auth method that the call names."""
    connector = resolved.record("connector", call.connector_id)
    methods = objects(connector.row or {}, "authMethods") if connector else []
    if connector is None or not methods or call.auth_method_id in (None, *map(key_of, methods)):
        return ""
    known = ", ".join(f"{quote(key_of(each))} ({quote(text(each, 'type'))})" for each in methods)
    return f"{quote(connector.name)} has no auth method {quote(call.auth_method_id)}; it has {known}."


async def _namesake(name: str, lister: type[List[Any]], send: Send) -> str:
    """Return a note on the row with the name or email that a new one is to have, from one page of the list."""
    try:
        page = await read_page(lister(limit=100), send)
    except FastnError:
        return f"Whether {quote(name)} already exists was not checked."
    wanted = name_as_read(name)
    same = (row for row in page.rows if wanted in (name_as_read(text(row, key)) for key in ("name", "email")))
    if (row := next(same, None)) is None:
        unread = f"Whether {quote(name)} already exists was not checked beyond the first {len(page.rows)}."
        return unread if page.next_cursor else ""
    kind = lister.toolset().removesuffix("s")
    facts = [text(row, key) for key in ("role", "status")]
    label = ", ".join(filter(None, (str(label_of(kind, row) or name), *facts)))
    return f"It already exists: {quote(label)}. Fastn may refuse another one."


_DAYS = {"d": 1, "y": 365}


def _of_new_key(call: CreateApiKey, now: datetime, around: Surroundings) -> list[str]:
    is_test = (call.mode or call.defaults["mode"]).casefold() == "test"
    return [
        "Requests with a Test key must send the X-fastn-Test-Mode header." if is_test else "",
        _expiry(call.expires or call.defaults["expires"], now),
        (
            f"The key is written to a file in {quote(around.key_folder)} on this server's machine and is not returned."
            if around.key_folder
            else "The key is returned once, in the result, and stays in the conversation."
        ),
    ]


def _expiry(expires: str, now: datetime) -> str:
    if expires.casefold() == "never":
        return "It never expires."
    period = re.fullmatch(r"(\d{1,4})([dy])", expires)
    at = now + timedelta(days=int(period[1]) * _DAYS[period[2]]) if period else parse_timestamp(expires)
    if at is None:
        return "Its expiry is not documented."
    left = f"in {counted(int(period[1]), {'d': 'day', 'y': 'year'}[period[2]])}" if period else age(at, now)
    return f"It expires on {at.astimezone(UTC).date().isoformat()} ({left})."


def _next_run(call: CreateTrigger | UpdateTrigger, trigger: Row, now: datetime) -> str:
    is_off = as_word(call.status or text(trigger, "status")) == "disabled"
    kind = call.type if isinstance(call, CreateTrigger) else text(trigger, "type")
    if call.schedule is None or is_off or as_word(kind) in ("webhook", "app event"):
        return ""
    try:
        at = next_run(call.schedule, call.timezone or text(trigger, "timezone") or "UTC", now)
    except ValueError as error:
        return f"Its next firing time is unknown: {error}. Fastn may refuse it."
    return f"It fires next at {aged(at.astimezone(UTC), now)}."
