"""The tool `find`: names ranked against a query, with what belongs to the best matches, and the next calls."""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from fastn_mcp.account.entries import LISTS, Entry, Kind, entry
from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.ranking import EXACT, Hit, kinds, words_of
from fastn_mcp.procedures.reads import AccountReads
from fastn_mcp.procedures.search_data import Matches, SearchData, titled
from fastn_mcp.procedures.tables import ConciseRows
from fastn_mcp.records.formats import age
from fastn_mcp.records.rows import FastnObject, Row, as_word, connection_refers, key_of, short, text, timestamp
from fastn_mcp.records.states import STATES, State, failure_reason, workflow_state
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.operation import Call, Send
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

_LONGEST_QUERY = 500  # characters
_LONGEST = 100  # characters of a name in the answer
_MAX_RELATED = 4  # triggers shown of a workflow, and workflows of a customer

_COLUMNS = {
    "trigger": ("type", "schedule", "consecutiveFailures", "routes"),
    "api_key": ("mode", "permissions", "expiresAt", "lastUsed"),
}
"""Fields shown of a kind besides its names and status."""


def _searchable(query: str) -> str:
    if len(query) > _LONGEST_QUERY:
        raise ValueError(f"at most {_LONGEST_QUERY} characters")
    if not any(map(str.isalnum, query)):
        raise ValueError("holds no letter or digit to look for")
    return query


class SearchResult(FastnObject):
    """Matches, best first, with the kinds that were not searched."""

    shape = (("found", "array"),)


class Find(Procedure[SearchResult]):
    """Find anything by name, slug, id or part, in a sentence or misspelt. Start here."""

    effect = Effect.READ

    query: Annotated[str, Field(description="As: the acme hubspot sync."), AfterValidator(_searchable)]
    kind: Annotated[Kind | None, Field(description="Only these.")] = None
    limit: Annotated[int, Field(ge=1, le=20, description="1-20, default 5.")] = 5

    async def run(self, context: ProcedureContext) -> SearchResult:
        if (key := _ID.search(self.query)) and (answer := await self._by_id(key, context)):
            return SearchResult.model_validate(answer)
        data = SearchData(context, (self.kind,) if self.kind else tuple(LISTS))
        matches = await data.search(self.query)
        return SearchResult.model_validate(await self._answer(data, matches, context))

    async def _by_id(self, key: re.Match[str], context: ProcedureContext) -> dict[str, JsonValue] | None:
        """Return the answer for an id that can be read directly, or is an execution's; else None."""
        single, failures = await _look_up(key, self.kind, context.look)
        if single is not None:
            data = SearchData(context, ())
            await data.name_owner(single)
            if single.kind == "workflow":
                await data.read_last_run(single)
            if single.kind == "connection":
                single = titled(single, data.names)
            return {"found": _Rows(data, context).all([Hit(single, EXACT)]), "next": _next([single])}
        if key.lastgroup != EXECUTION:
            return None
        answer: dict[str, JsonValue] = {"found": [], "next": ["list_executions(workflow_id, since)"]}
        if failures:
            answer["not_searched"] = [f"{kind}: {error.outcome}" for kind, error in failures.items()]
        return answer

    async def _answer(self, data: SearchData, matches: Matches, context: ProcedureContext) -> dict[str, JsonValue]:
        meant, named = matches.meant, (*matches.meant, *matches.besides)
        hits: dict[tuple[str, str], Hit] = {}
        for hit in (*named, *matches.ranking.hits):
            hits.setdefault((hit.entry.kind, hit.entry.id), hit)
        shown = [*hits.values()][: self.limit]
        if len(meant) == 1 and meant[0].entry.kind == "workflow" and not data.runs:
            await data.read_last_run(meant[0].entry)
        rows = _Rows(data, context, detailed=[hit.entry for hit in meant])
        answer: dict[str, JsonValue] = {"found": rows.all(shown)}
        if (more := len(hits) - len(shown)) > 0:
            answer["more"] = more
        if len(meant) > 1:
            answer["ambiguous"] = f"The first {len(meant)} fit about equally well: ask which one is meant."
        if matches.lacking:
            answer["first_lacks"] = [*matches.lacking]
        if not shown:
            answer["did_you_mean"] = list(map(_cut, matches.ranking.near))
        if gaps := data.gaps(is_answered=bool(shown) and not matches.lacking):
            answer["not_searched"] = [*gaps]
        if following := _next(hit.entry for hit in shown if hit in named) if shown else self._lists():
            answer["next"] = following
        return answer

    def _lists(self) -> list[JsonValue]:
        """Return the lists of the kinds that the query names, as nothing was found."""
        named = {self.kind} if self.kind else {kind for word in words_of(self.query) for kind in kinds(word)}
        return [f"{LISTS[kind].tool_name()}()" for kind in sorted(named)]


class _Rows:
    """Rows of the answer. `detailed` ones are shown with what starts them, or what runs for them."""

    def __init__(self, data: SearchData, context: ProcedureContext, detailed: Sequence[Entry] = ()) -> None:
        self._data = data
        self._now = context.system.now()
        self._detailed = {item.id for item in detailed}
        self._shown: set[str] = set()

    def all(self, hits: Sequence[Hit]) -> list[JsonValue]:
        self._shown = {hit.entry.id for hit in hits}
        return [self._row(hit) for hit in hits]

    def _row(self, hit: Hit) -> dict[str, JsonValue]:
        item = hit.entry
        row: dict[str, JsonValue] = {"kind": item.kind, "id": item.id or None, "name": _cut(item.name)}
        slug = text(item.row, "slug")
        if slug and item.kind != "connection" and words_of(slug) != words_of(item.name):
            row["slug"] = _cut(slug)
        if item.kind == "user" and item.emails and item.emails[0] != item.name:
            row["email"] = _cut(item.emails[0])
        row |= _state(item)
        if item.customer and item.kind != "connection":  # a connection's name contains the customer's
            row["customer"] = self._named("customer", item.customer)
        if item.kind == EXECUTION and (workflow := text(item.row, "workflowId")):
            row["workflow_id"] = workflow
        columns = [name for name in _COLUMNS.get(item.kind, ()) if item.row.get(name, 0) != 0]
        row |= ConciseRows(columns, names=self._data.names, now=self._now)(item.row)
        if item.kind == "workflow":
            row |= self._workflow(item.id)
        if item.kind == "customer" and item.id in self._detailed:
            runs = {key: run for key, run in self._data.runs.get(item.id, {}).items() if key not in self._shown}
            row |= _first("runs", [self._named("workflow", key) | self._last(run) for key, run in runs.items()])
        return row | {"score": hit.score}

    def _workflow(self, id_: str) -> dict[str, JsonValue]:
        """Return for whom a workflow runs, how it last ended and what starts it."""
        data, row = self._data, dict[str, JsonValue]()
        runs_for = {key: runs[id_] for key, runs in data.runs.items() if id_ in runs}
        if runs_for:
            row["runs_for"] = [self._named("customer", key) | self._last(run) for key, run in runs_for.items()]
        if may := [key for key, keys in data.able.items() if id_ in keys]:
            row["may_run_for"] = [self._named("customer", key) for key in may]
        row |= self._last(data.last_runs.get(id_))
        if id_ in self._detailed:
            triggers = [trigger for trigger in data.triggers_of(id_) if trigger.id not in self._shown]
            row |= _first("started_by", [{"id": it.id, "name": _cut(it.name)} | _state(it) for it in triggers])
        return row

    def _last(self, run: Row | None) -> dict[str, JsonValue]:
        """Return how a run ended, when and why it failed."""
        if run is None:
            return {}
        at = timestamp(run, "startedAt", "createdAt")
        ended = f"{text(run, 'status')} {age(at, self._now)}" if at else text(run, "status")
        error = failure_reason(run)
        return {"last_run": f"{ended}: {short(error)}" if error else ended}

    def _named(self, kind: str, key: str) -> dict[str, JsonValue]:
        name = self._data.names[kind].get(key)
        return {"id": key, "name": _cut(name)} if name else {"id": key}


def _first(name: str, items: Sequence[JsonValue]) -> dict[str, JsonValue]:
    """Return the first of some items under a name, and the number of the others; nothing if there are none."""
    row: dict[str, JsonValue] = {name: [*items[:_MAX_RELATED]]} if items else {}
    return row | ({f"more_{name}": len(items) - _MAX_RELATED} if len(items) > _MAX_RELATED else {})


def _state(item: Entry) -> dict[str, JsonValue]:
    """Return the status of a resource, and its state unless the status says it."""
    status = text(item.row, "status")
    state = STATES.get(f"{item.kind}s", lambda _: State.UNKNOWN)(item.row)
    row: dict[str, JsonValue] = {"status": status} if status else {}
    is_plain = state is State.UNKNOWN or (state is State.LIVE and as_word(status) == "active")
    return row if is_plain else row | {"state": state.value}


def _next(shown: Iterable[Entry]) -> list[JsonValue]:
    """Return the next calls for the first of each kind. Only a workflow that runs is offered to be run."""
    firsts: dict[str, Entry] = {}
    for item in shown:
        firsts.setdefault(item.kind, item)
    calls = [call for kind in firsts for call in NEXT[kind]]
    if "workflow" in firsts and workflow_state(firsts["workflow"].row) is State.LIVE:
        calls.append(RUN)
    return [*dict.fromkeys(calls)]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_HEX = "[0-9a-f]"
_UUID = f"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"
_ID = re.compile(
    rf"(?<![\w:.-])(?:(?P<connection>ucl:[\w:.@=+~-]*[\w])|(?P<execution>exec_\w+)|(?P<workflow>wf_\w+)"
    rf"|(?P<customer>(?:org|personal)_\w+)|{_UUID})(?![\w-])",
    re.IGNORECASE,
)
"""An id, in a group by the kind of resource; in none if it may be of several kinds."""

_OF_UUID = ("customer", "connector", "trigger")
"""Kinds with such ids that can be read by id."""


async def _look_up(key: re.Match[str], kind: str | None, send: Send) -> tuple[Entry | None, dict[str, FastnError]]:
    """Return the resource with this id, if it can be read directly, and the kinds whose read failed.

    With `kind`, read only that one.
    """
    id_, of = key[0], (key.lastgroup,) if key.lastgroup else _OF_UUID
    reads = AccountReads(send)
    await reads.read({each: call for each in of if kind in (None, each) and (call := _read_of(each, id_)) is not None})
    for each in (*reads.lists, *reads.records):
        for row in (*reads.rows(each), reads.records.get(each, {})):
            # Fastn's answer to an unknown id is not documented: only a row with this very id counts.
            if key_of(row).casefold() == id_.casefold():
                return entry(each, row), {}
    return None, {name: error for name, error in reads.failed.items() if not isinstance(error, NotFound)}


def _read_of(kind: str, id_: str) -> Call | None:
    """Return the read that may find an id; None if it cannot be one."""
    if kind != "connection":
        return OPERATIONS[f"get_{kind}"].model_validate({f"{kind}_id": id_})
    refers = connection_refers(id_)  # no GET; its parts filter the list
    of = {"connector_id": refers.get("connectorId"), "customer_id": refers.get("endOrgId")}
    return ListConnections.model_validate({"limit": 100} | of) if refers else None
