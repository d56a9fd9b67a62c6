"""The tool `find`: names ranked against a query, with what belongs to the best matches, and the next calls."""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from fastn_mcp.account.directory import LISTS, Entry, Kind, entry
from fastn_mcp.account.targets import Call, Send
from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.ranking import EXACT, Hit, Ranking, kinds, words_of
from fastn_mcp.procedures.reads import AccountReads
from fastn_mcp.procedures.search_data import NAMED, SearchData, titled
from fastn_mcp.procedures.tables import ConciseRows
from fastn_mcp.records.formats import age
from fastn_mcp.records.rows import Row, connection_refers, key_of, short, text, timestamp, word
from fastn_mcp.records.states import STATES, State, failure_reason, is_pending, workflow_state
from fastn_mcp.tools.connectors import GetConnector, ListConnections
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.tool import Effect, FastnObject
from fastn_mcp.tools.triggers import GetTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow

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

_LONGEST_QUERY = 500
_LONGEST = 100
"""Maximum length of a name in the answer, in characters."""

_MAX_RELATED = 4
"""Maximum number of triggers shown of a workflow, and of workflows shown of a customer."""

_MAX_BESIDES = 4
"""Maximum number of names shown that the query has besides the best match."""

_MIN_BESIDES = 85
"""Lowest score of such a name."""

_COLUMNS = {
    "trigger": ("type", "schedule", "consecutiveFailures", "routes"),
    "api_key": ("mode", "permissions", "expiresAt", "lastUsed"),
}
"""Fields shown of a kind besides its names and status."""

_UNFINISHED = frozenset(["draft", "drafts", "unpublished", "pending", "invited", "activated", "activation"])
"""Words that may mean a workflow that was never published, or a customer that is not active yet."""


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
        if (found := _ID.search(self.query)) is not None:
            answer = await self._by_id(found, context)
            if answer is not None:
                return SearchResult.model_validate(answer)
        data = SearchData(context, (self.kind,) if self.kind else tuple(LISTS))
        ranking = await data.search(self.query)
        return SearchResult.model_validate(await self._answer(data, ranking, context))

    async def _by_id(self, found: re.Match[str], context: ProcedureContext) -> dict[str, JsonValue] | None:
        """Return the answer for an id that can be read directly, or is an execution's; else None."""
        single, failures = await _look_up(found, self.kind, context.read)
        if single is not None:
            data = SearchData(context, ())
            await data.name_owner(single)
            if single.kind == "workflow":
                await data.read_last_run(single)
            if single.kind == "connection":
                single = titled(single, data.names)
            rows = _Rows(data, context).all([Hit(single, EXACT, 1.0, ())])
            return {"found": rows, "next": _next([single])}
        if found.lastgroup != EXECUTION:
            return None
        answer: dict[str, JsonValue] = {"found": []}
        if failures:
            answer["not_searched"] = [f"{kind}: {error.outcome}" for kind, error in failures.items()]
        answer["next"] = ["list_executions(workflow_id, since)"]
        return answer

    async def _answer(self, data: SearchData, ranking: Ranking, context: ProcedureContext) -> dict[str, JsonValue]:
        meant, besides, lacking = self._matches(data, ranking)
        hits = _each_once((*meant, *besides, *ranking.hits))
        shown = hits[: self.limit]
        if len(meant) == 1 and meant[0].entry.kind == "workflow" and not data.runs:
            await data.read_last_run(meant[0].entry)
        rows = _Rows(data, context, detailed=[hit.entry for hit in meant])
        answer: dict[str, JsonValue] = {"found": rows.all(shown)}
        if (more := len(hits) - len(shown)) > 0:
            answer["more"] = more
        if len(meant) > 1:
            answer["ambiguous"] = f"The first {len(meant)} fit about equally well: ask which one is meant."
        if lacking:
            answer["first_lacks"] = [*lacking]
        if not shown:
            answer["did_you_mean"] = list(map(_cut, ranking.near))
        if gaps := data.gaps(is_answered=bool(shown) and not lacking):
            answer["not_searched"] = [*gaps]
        named = [hit.entry for hit in shown if hit in meant or hit in besides]
        following = _next(named) if shown else self._lists()
        if following:
            answer["next"] = following
        return answer

    def _matches(self, data: SearchData, ranking: Ranking) -> tuple[list[Hit], list[Hit], list[str]]:
        """Return what could be meant, the names that the query has besides, and its words that none of them has."""
        finished = [hit for hit in ranking.leaders if not _is_unfinished(hit.entry)]
        leaders = finished if finished and _UNFINISHED.isdisjoint(words_of(self.query)) else ranking.leaders
        meant: list[Hit] = []
        for hit in leaders:
            if not any(data.belongs(hit.entry, other.entry) for other in meant):
                meant.append(hit)
        lacking: Sequence[str] = meant[0].lacking if meant else ()
        besides: list[Hit] = []
        while lacking and len(besides) < _MAX_BESIDES:
            others = data.rank(" ".join(word for word in lacking if not word.isdigit())).leaders
            if not others or not _is_named(others[0]) or len(others[0].lacking) == len(lacking):
                break
            besides += others
            lacking = others[0].lacking
        for clause in data.other_clauses:
            besides += [hit for hit in data.rank(clause).leaders if _is_named(hit) or not hit.lacking]
        return meant, besides, [*data.lacking, *lacking]

    def _lists(self) -> list[JsonValue]:
        """Return the lists of the kinds that the query names, as nothing was found."""
        named = {self.kind} if self.kind else {kind for word in words_of(self.query) for kind in kinds(word)}
        return [f"{LISTS[kind].tool_name()}()" for kind in sorted(named)]


def _each_once(hits: Iterable[Hit]) -> list[Hit]:
    """Return the hits in order, of each resource the first one."""
    found: dict[tuple[str, str], Hit] = {}
    for hit in hits:
        found.setdefault((hit.entry.kind, hit.entry.id), hit)
    return [*found.values()]


class _Rows:
    """Rows of the answer. `detailed` ones are shown with what starts them, or what runs for them."""

    def __init__(self, data: SearchData, context: ProcedureContext, detailed: Sequence[Entry] = ()) -> None:
        self._data = data
        self._now = context.system.now()
        self._detailed = {found.id for found in detailed}
        self._shown: set[str] = set()

    def all(self, hits: Sequence[Hit]) -> list[JsonValue]:
        self._shown = {hit.entry.id for hit in hits}
        return [self._row(hit) for hit in hits]

    def _row(self, hit: Hit) -> dict[str, JsonValue]:
        found, names = hit.entry, self._data.names
        row: dict[str, JsonValue] = {"kind": found.kind, "id": found.id or None, "name": _cut(found.name)}
        slug = text(found.row, "slug")
        if slug and found.kind != "connection" and words_of(slug) != words_of(found.name):
            row["slug"] = _cut(slug)
        if found.kind == "user" and found.emails and found.emails[0] != found.name:
            row["email"] = _cut(found.emails[0])
        row |= _state(found)
        if found.customer and found.kind != "connection":  # a connection's name contains the customer's
            row["customer"] = self._named("customer", found.customer)
        if found.kind == EXECUTION and (workflow := text(found.row, "workflowId")):
            row["workflow_id"] = workflow
        columns = tuple(name for name in _COLUMNS.get(found.kind, ()) if found.row.get(name, 0) != 0)
        row |= ConciseRows(columns, names=names, now=self._now)(found.row)
        row |= self._relations(found)
        return row | {"score": hit.score}

    def _relations(self, found: Entry) -> dict[str, JsonValue]:
        """Return what starts a workflow, for whom it runs and how it last ended; and a customer's workflows."""
        data, row = self._data, dict[str, JsonValue]()
        if found.kind == "customer" and found.id in self._detailed:
            runs = {key: run for key, run in data.runs.get(found.id, {}).items() if key not in self._shown}
            row |= _first("runs", [self._named("workflow", key) | self._last(run) for key, run in runs.items()])
        if found.kind == "workflow":
            runs_for = [(key, runs[found.id]) for key, runs in data.runs.items() if found.id in runs]
            if runs_for:
                row["runs_for"] = [self._named("customer", key) | self._last(run) for key, run in runs_for]
            if may := [key for key, keys in data.able.items() if found.id in keys]:
                row["may_run_for"] = [self._named("customer", key) for key in may]
            row |= self._last(data.last_runs.get(found.id))
            if found.id in self._detailed:
                triggers = [trigger for trigger in data.triggers_of(found.id) if trigger.id not in self._shown]
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


def _is_named(hit: Hit) -> bool:
    """Whether the query that found it holds nearly nothing but its name."""
    return hit.share >= NAMED and hit.score >= _MIN_BESIDES


def _state(found: Entry) -> dict[str, JsonValue]:
    """Return the status of a resource, and its state unless the status says it."""
    status = text(found.row, "status")
    row: dict[str, JsonValue] = {"status": status} if status else {}
    state = STATES[f"{found.kind}s"](found.row) if f"{found.kind}s" in STATES else State.UNKNOWN
    is_plain = state is State.UNKNOWN or (state is State.LIVE and word(found.row, "status") == "active")
    return row if is_plain else row | {"state": state.value}


def _is_unfinished(found: Entry) -> bool:
    """Whether it is a workflow that was never published, or a customer that is not active yet."""
    if found.kind == "workflow":
        return workflow_state(found.row) is State.DRAFT
    return found.kind == "customer" and is_pending(found.row)


def _next(shown: Iterable[Entry]) -> list[JsonValue]:
    """Return the next calls for the first of each kind. Only a workflow that runs is offered to be run."""
    firsts: dict[str, Entry] = {}
    for found in shown:
        firsts.setdefault(found.kind, found)
    calls = [call for kind in firsts for call in NEXT[kind]]
    workflow = firsts.get("workflow")
    runs = workflow is not None and workflow_state(workflow.row) is State.LIVE
    return [*dict.fromkeys([*calls, *([RUN] if runs else [])])]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_HEX = "[0-9a-f]"
_UUID = f"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"
_ID = re.compile(
    rf"(?<![\w:.-])(?:(?P<connection>ucl:[\w:.@=+~-]*[\w])|(?P<execution>exec_\w+)|(?P<workflow>wf_\w+)"
    rf"|(?P<personal>(?:org|personal)_\w+)|(?P<uuid>{_UUID}))(?![\w-])",
    re.IGNORECASE,
)


async def _look_up(found: re.Match[str], kind: str | None, send: Send) -> tuple[Entry | None, dict[str, FastnError]]:
    """Return the resource with this id, if it can be read directly, and the kinds whose read failed.

    With `kind`, read only that one.
    """
    calls = {of: call for of, call in _reads(found).items() if kind in (None, of)}
    reads = AccountReads(send)
    await reads.read(calls)
    for of in calls:
        for row in (*reads.rows(of), reads.records.get(of, {})):
            # Fastn's answer to an unknown id is not documented: only a row with this very id counts.
            if key_of(row).casefold() == found[0].casefold():
                return entry(of, row), {}
    return None, {of: error for of, error in reads.failed.items() if not isinstance(error, NotFound)}


def _reads(found: re.Match[str]) -> dict[str, Call]:
    """Return the reads that may find an id, by kind."""
    key = found[0]
    match found.lastgroup:
        case "execution":
            return {EXECUTION: GetExecution(execution_id=key)}
        case "workflow":
            return {"workflow": GetWorkflow(workflow_id=key)}
        case "personal":
            return {"customer": GetCustomer(customer_id=key)}
        case "connection":
            refers = connection_refers(key)  # no GET; its parts filter the list
            of = {"connector_id": refers.get("connectorId"), "customer_id": refers.get("endOrgId")}
            return {"connection": ListConnections.model_validate({"limit": 100} | of)} if refers else {}
        case _:
            return {
                "customer": GetCustomer(customer_id=key),
                "connector": GetConnector(connector_id=key),
                "trigger": GetTrigger(trigger_id=key),
            }
