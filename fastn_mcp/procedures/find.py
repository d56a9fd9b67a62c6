"""The tool `find`: names ranked against a query, with what belongs to the best matches, and the next calls."""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from fastn_mcp.account.entries import LISTS, Entry, Kind, entry
from fastn_mcp.client.reads import read_each
from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.list_results import ConciseRows
from fastn_mcp.procedures.lookup import ID, read_by_id
from fastn_mcp.procedures.ranking import EXACT_MATCH, Hit, kinds_in, words_of
from fastn_mcp.procedures.reads import failure
from fastn_mcp.procedures.search_data import Matches, SearchData
from fastn_mcp.records.formats import age
from fastn_mcp.records.platform import facts_about
from fastn_mcp.records.rows import FastnObject, Row, key_of, short, text, timestamp, without_empty
from fastn_mcp.records.states import (
    State,
    failure_reason,
    is_unfinished,
    run_state,
    status_and_state,
    workflow_state,
)
from fastn_mcp.tools.bounds import TextBound
from fastn_mcp.tools.tool import Effect

EXECUTION = "execution"
"""Kind without names: runs are too many to list, so they are found only by id."""

NEXT: dict[str, tuple[str, ...]] = {
    "customer": ("diagnose(customer_id)", "get_customer(customer_id)", "list_connections(customer_id)"),
    "connector": ("get_connector(connector_id)", "list_connections(connector_id)"),
    "connection": ("list_connections(customer_id)", "list_executions(customer_id)"),
    "workflow": ("diagnose(workflow_id)", "get_workflow(workflow_id)"),
    "trigger": ("diagnose(trigger_id)", "get_trigger(trigger_id)", "update_trigger(trigger_id)"),
    "user": ("query_audit_log(actor)",),
    "role": ("list_roles()",),
    "api_key": ("list_api_keys()", "query_audit_log(actor)"),
    "secret": ("list_secrets(customer_id)",),
    EXECUTION: ("get_execution(execution_id)", "diagnose(workflow_id)"),
}
"""Next calls by kind, each with the argument that it takes from the row. None of them deletes."""

RUN = "run_workflow(workflow_id)"
"""Next call of a workflow that runs."""

_MAX_IDS = 4  # of a query, that are read
_MAX_NAME = 101  # characters of a name in the answer, with the ellipsis of a longer one
_MAX_RELATED = 4  # triggers shown of a workflow, and workflows of a customer

_COLUMNS = {
    "trigger": ("type", "schedule", "consecutiveFailures", "routes"),
    "api_key": ("mode", "permissions", "expiresAt", "lastUsed"),
}
"""Fields shown of a kind besides its names and status."""


def _searchable(query: str) -> str:
    if not any(map(str.isalnum, query)):
        raise ValueError("holds no letter or digit to look for")
    return query


class SearchResult(FastnObject):
    """Matches, best first, with the kinds that were not searched."""

    shape = (("found", "array"),)


class Find(Procedure[SearchResult]):
    """Find anything by name, slug, id or part, in a sentence or misspelt. Start here."""

    effect = Effect.READ

    query: Annotated[
        str, Field(description="For example acme hubspot sync."), AfterValidator(_searchable), TextBound(500)
    ]
    kind: Annotated[Kind | None, Field(description="Only these.")] = None
    limit: Annotated[int, Field(ge=1, le=20, description="1-20, default 5.")] = 5

    async def run(self, context: ProcedureContext) -> SearchResult:
        keys = {key[0]: key for key in _ID.finditer(self.query)}
        answer = await self._by_ids([*keys.values()], context) if keys else None
        if answer is None:
            data = SearchData(context, [self.kind] if self.kind else [*LISTS], self.query)
            answer = await self._answer(await data.search(), data, context)
        facts = facts_about(self.query)
        return SearchResult.model_validate(({"not_done_here": facts} if facts else {}) | answer | context.look.age())

    async def _by_ids(self, keys: Sequence[re.Match[str]], context: ProcedureContext) -> dict[str, JsonValue] | None:
        """Return the answer for ids that can be read directly, or for one of an execution; else None."""
        entries = list[Entry]()
        unknown = list[str]()
        alone = "search for it alone"
        gaps = [f"{key[0]}: {alone}" for key in keys[_MAX_IDS:]]
        for key in keys[:_MAX_IDS]:
            own, errors = await self._by_id(key, context)
            entries += own[:1]
            if not own and (errors or not key.lastgroup):  # other kinds with such an id are not read here
                gaps.append(f"{key[0]}: {failure(errors[0], errors[0].outcome) if errors else alone}")
            elif not own:
                unknown.append(key[0])
        if entries:
            data = SearchData(context, (), self.query)
            await data.name_related(entries)
            hits = [Hit(data.rows.titled(item), EXACT_MATCH) for item in entries]
            return await self._answer(Matches(hits, 1, len(hits), unknown), data, context, gaps)
        if keys[0].lastgroup != EXECUTION:
            return None
        answer: dict[str, JsonValue] = {"found": [], "next": ["list_executions(workflow_id, since)"]}
        if gaps:
            answer["not_searched"] = [*gaps]
        return answer

    async def _by_id(self, key: re.Match[str], context: ProcedureContext) -> tuple[list[Entry], list[FastnError]]:
        """Return the resources with this very id, and why some could not be read."""
        kinds = (key.lastgroup,) if key.lastgroup else _OF_UUID
        wanted = [kind for kind in kinds if self.kind in (None, kind)]
        resources = await read_each(wanted, partial(read_by_id, id_=key[0], context=context))
        read = {kind: resource for kind, resource in resources.items() if resource is not None}
        # Fastn's answer to an unknown id is not documented: only a row with this very id counts.
        own = [entry(kind, it.row) for kind, it in read.items() if key_of(it.row).casefold() == key[0].casefold()]
        errors = [it.error for it in read.values() if it.error and not isinstance(it.error, NotFound)]
        return own, errors

    async def _answer(
        self, matches: Matches, data: SearchData, context: ProcedureContext, unread: Sequence[str] = ()
    ) -> dict[str, JsonValue]:
        meant = [hit.entry for hit in matches.hits[: matches.meant]]
        displayed = matches.hits[: self.limit]
        if len(meant) == 1 and meant[0].kind == "workflow" and not is_unfinished("workflow", meant[0].row):
            await data.read_last_run(meant[0])
        await data.name_related([hit.entry for hit in displayed])
        rows = _Rows(data, context, self.query, {item.id for item in meant}, {hit.entry.id for hit in displayed})
        ranking = data.rows.ranking(self.query)
        more = len(matches.hits) - len(displayed)
        gaps = data.gaps(is_answered=ranking.is_about_kinds or (bool(displayed) and not matches.lacking))
        kinds = {self.kind} if self.kind else kinds_in(self.query)
        if ranking.words:  # else it says nothing but the kinds
            kinds -= {hit.entry.kind for hit in displayed}
        lists = [f"{LISTS[kind].tool_name()}()" for kind in sorted(kinds)]
        doubt = f"The first {len(meant)} fit about equally well: ask which one is meant."
        facts: Row = {
            "more": more or None,
            "ambiguous": doubt if len(meant) > 1 else None,
            "first_lacks": [*matches.lacking],
            "did_you_mean": [] if displayed else [_named_with_status(item) for item in ranking.near(data.wanted)],
            "not_searched": [*gaps, *unread],
            "next": [*dict.fromkeys((*_next(hit.entry for hit in displayed[: matches.named]), *lists))],
        }
        found: dict[str, JsonValue] = {"found": [rows.row(hit) for hit in displayed]}
        return found | without_empty(facts)


class _Rows:
    """Rows of the answer. Those `meant` are shown with what starts them or runs for them, unless that has a row."""

    def __init__(
        self, data: SearchData, context: ProcedureContext, query: str, meant: set[str], displayed: set[str]
    ) -> None:
        self._rows = data.rows
        self._query = query.casefold()
        self._now = context.system.now()
        self._meant = meant
        self._displayed = displayed

    def row(self, hit: Hit) -> dict[str, JsonValue]:
        item = hit.entry
        row: dict[str, JsonValue] = {"kind": item.kind, "id": item.id or None, "name": short(item.name, _MAX_NAME)}
        slug = text(item.row, "slug")
        if slug and item.kind != "connection" and words_of(slug) != words_of(item.name):
            row["slug"] = short(slug, _MAX_NAME)
        found_by = [email for email in item.emails if email.casefold() in self._query]
        emails = found_by or (item.emails if item.kind == "user" else [])
        if emails and emails[0] != item.name:
            row["email"] = short(emails[0], _MAX_NAME)
        row |= status_and_state(item.kind, item.row)
        if item.customer and item.kind != "connection":  # a connection's name contains the customer's
            row["customer"] = self._named("customer", item.customer)
        if item.kind == EXECUTION and (workflow := text(item.row, "workflowId")):
            row["workflow_id"] = workflow
        columns = [name for name in _COLUMNS.get(item.kind, ()) if item.row.get(name, 0) != 0]
        row |= ConciseRows(columns, names=self._rows.names, now=self._now)(item.row)
        if item.kind == "workflow":
            row |= self._workflow(item.id, is_off=workflow_state(item.row) is State.OFF)
        if item.kind == "customer" and item.id in self._meant:
            uses = self._rows.uses.items()
            workflows = [key for key, seen in uses if seen.get(item.id) and key not in self._displayed]
            row |= _first("runs", [self._named("workflow", key) | self._last_run(key, item.id) for key in workflows])
        return row | {"score": hit.score}

    def _workflow(self, id_: str, *, is_off: bool) -> dict[str, JsonValue]:
        """Return for whom a workflow runs, how it last ended and what starts it."""
        row: dict[str, JsonValue] = {}
        for name, wanted in (("runs_for", True), ("may_run_for", False)):
            customers = [key for key, is_seen in self._rows.uses.get(id_, {}).items() if is_seen is wanted]
            uses: list[JsonValue] = [self._named("customer", key) | self._last_run(id_, key) for key in customers]
            row |= {name: uses} if uses else {}
        row |= self._last_run(id_)
        last = self._rows.last_runs.get((id_, None))
        if is_off and last is not None and not run_state(last).has_ended:
            row["last_run"] = f"{row['last_run']}, though it is {State.OFF.value}: run_workflow still starts it"
        if id_ in self._meant:
            triggers = [it for it in self._rows.of("trigger") if ("workflow", id_) in it.related]
            started_by = [
                self._named("trigger", it.id) | status_and_state("trigger", it.row)
                for it in triggers
                if it.id not in self._displayed
            ]
            row |= _first("started_by", started_by)
        return row

    def _last_run(self, workflow: str, customer: str | None = None) -> dict[str, JsonValue]:
        """Return how the last run ended, when and why it failed."""
        run = self._rows.last_runs.get((workflow, customer))
        if run is None:
            return {}
        at = timestamp(run, "startedAt", "createdAt")
        ended = f"{text(run, 'status')} {age(at, self._now)}" if at else text(run, "status")
        error = failure_reason(run)
        return {"last_run": f"{ended}: {short(error)}" if error else ended}

    def _named(self, kind: str, key: str) -> dict[str, JsonValue]:
        name = self._rows.names[kind].get(key)
        return {"id": key, "name": short(name, _MAX_NAME)} if name else {"id": key}


def _first(name: str, items: Sequence[JsonValue]) -> dict[str, JsonValue]:
    """Return the first of some items under a name, and the number of the others; nothing if there are none."""
    row: dict[str, JsonValue] = {name: [*items[:_MAX_RELATED]]} if items else {}
    return row | ({f"more_{name}": len(items) - _MAX_RELATED} if len(items) > _MAX_RELATED else {})


def _named_with_status(item: Entry) -> dict[str, JsonValue]:
    """Return which resource it is, and whether it runs, works or fires: names alone may be of several."""
    named: dict[str, JsonValue] = {"kind": item.kind, "id": item.id or None, "name": short(item.name, _MAX_NAME)}
    return named | status_and_state(item.kind, item.row)


def _next(shown: Iterable[Entry]) -> list[str]:
    """Return the next calls for the first of each kind. Only a workflow that runs is offered to be run."""
    firsts: dict[str, Entry] = {}
    for item in shown:
        firsts.setdefault(item.kind, item)
    calls = [call for kind in firsts for call in NEXT[kind]]
    if "workflow" in firsts and workflow_state(firsts["workflow"].row).is_usable:
        calls.append(RUN)
    return [*dict.fromkeys(calls)]


_ID = re.compile(rf"(?<![\w:.-])(?:{ID.pattern}|(?P<connection>ucl:[\w:.@=+~-]*\w))(?![\w-])", re.IGNORECASE)

_OF_UUID = ("customer", "connector", "trigger")
"""Kinds with such ids that can be read by id."""
