"""The tool `find`: bounded reads of every kind, names ranked against a query, and the next calls."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, cast

import anyio
from pydantic import AfterValidator, Field, JsonValue

from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.fastn.directory import LISTS, Contents, Entry, entry
from fastn_mcp.fastn.names import label_of
from fastn_mcp.fastn.targets import Call, Send
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.ranking import EXACT, Index, NamedResource, Ranking, kinds, parts
from fastn_mcp.tools.connectors import GetConnector, ListConnections
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import Effect, FastnObject
from fastn_mcp.tools.triggers import GetTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow

Kind = Literal["customer", "connector", "connection", "workflow", "trigger", "user", "role", "api_key", "secret"]

EXECUTION = "execution"
"""Kind without names: runs are too many to list, so they are found only by id."""

NEXT: dict[str, tuple[str, ...]] = {
    "customer": ("get_customer(customer_id)", "list_connections(customer_id)", "list_executions(customer_id)"),
    "connector": ("get_connector(connector_id)", "list_connections(connector_id)"),
    "connection": ("list_connections(customer_id)", "list_executions(customer_id)"),
    "workflow": ("diagnose_workflow(workflow_id)", "get_workflow(workflow_id)", "run_workflow(workflow_id)"),
    "trigger": ("get_trigger(trigger_id)", "update_trigger(trigger_id)"),
    "user": ("list_users(search)",),
    "role": ("list_roles()",),
    "api_key": ("list_api_keys()", "revoke_api_key(api_key_id)"),
    "secret": ("list_secrets(customer_id)", "create_secret(name)"),
    EXECUTION: ("get_execution(execution_id)", "diagnose_workflow(workflow_id)"),
}
"""Next calls by kind, each with the argument that it takes from the row."""

_LONGEST_QUERY = 500
_LONGEST = 100
"""Maximum length of a name in the answer, in characters."""

_NEEDS = {
    "connection": ("customer", "connector"),
    "trigger": ("customer", "connector"),
    "secret": ("customer",),
}
"""Kinds whose names are part of the names of another kind."""

_SEARCHES = 3
"""Maximum number of words searched for in Fastn, for a kind too large to read whole."""

_OWNERS = 2
"""Maximum number of customers, and of connectors, to list by if such a kind has no search."""


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
        await data.read()
        ranking = data.rank(self.query)
        if data.incomplete:
            await data.add_by_search(ranking.words)
            await data.add_by_owner(data.rank(self.query, ("customer", "connector")))
            ranking = data.rank(self.query)
        return SearchResult.model_validate(self._answer(data, ranking))

    async def _by_id(self, found: re.Match[str], context: ProcedureContext) -> dict[str, JsonValue] | None:
        """Return the answer for an id that can be read directly, or is an execution's; else None."""
        single, failures = await _look_up(found, self.kind, context.read)
        if single is not None:
            customers = await context.directory.names("customer", filter(None, [single.customer]), context.read)
            if single.kind == "connection":
                of = single.connector or ""
                names = {of: single.connector_name} if single.connector_name else {}
                names = names or await context.directory.names("connector", filter(None, [of]), context.read)
                single = _titled(single, customers, names.get(of, of))
            return {"found": [_row(single, EXACT, customers)], "searched": [single.kind], **_next([single.kind])}
        if found.lastgroup != EXECUTION:
            return None
        answer: dict[str, JsonValue] = {"found": [], "did_you_mean": [], "searched": [] if failures else [EXECUTION]}
        if failures:
            answer["not_searched"] = {kind: error.outcome for kind, error in failures.items()}
        answer["next"] = {EXECUTION: ["list_executions(workflow_id, since)"]}
        return answer

    def _answer(self, data: "SearchData", ranking: Ranking) -> dict[str, JsonValue]:
        shown = ranking.hits[: self.limit]
        rows = [_row(hit.entry, hit.score, data.customers) for hit in shown]
        answer: dict[str, JsonValue] = {"found": [*rows]}
        if len(ranking.hits) > len(shown):
            answer["more"] = len(ranking.hits) - len(shown)
        if ranking.ambiguous > 1:
            answer["ambiguous"] = f"The first {ranking.ambiguous} fit about equally well: ask which one is meant."
        if rows and ranking.lacking:
            answer["first_lacks"] = list(ranking.lacking)
        if not rows:
            answer["did_you_mean"] = list(map(_cut, ranking.near))
        return answer | data.searched() | _next([hit.entry.kind for hit in shown] or self._kinds_named())

    def _kinds_named(self) -> list[str]:
        """Return the kinds that the query names, for the next calls when nothing was found."""
        words = (word for part in parts(self.query) for word in part)
        return [self.kind] if self.kind else sorted({kind for word in words for kind in kinds(word)})


def _row(found: Entry, score: int, customers: Mapping[str, str]) -> dict[str, JsonValue]:
    row: dict[str, JsonValue] = {"kind": found.kind, "id": found.id or None, "name": _cut(found.name)}
    if found.slug and parts(found.slug) != parts(found.name):
        row["slug"] = _cut(found.slug)
    if found.email and found.email != found.name:
        row["email"] = _cut(found.email)
    if found.status:
        row["status"] = found.status
    if found.customer:
        # A connection's name contains the customer's.
        owner = None if found.kind == "connection" else customers.get(found.customer)
        row["customer"] = {"id": found.customer, "name": _cut(owner)} if owner else {"id": found.customer}
    if found.workflow:
        row["workflow_id"] = found.workflow
    return row | {"score": score}


def _next(kinds_shown: Iterable[str]) -> dict[str, JsonValue]:
    steps: dict[str, JsonValue] = {kind: list(NEXT[kind]) for kind in dict.fromkeys(kinds_shown)}
    return {"next": steps} if steps else {}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class SearchData:
    """Resources loaded for one search, with a record of failed or truncated reads."""

    def __init__(self, context: ProcedureContext, wanted: Sequence[str]) -> None:
        self._context = context
        self._wanted = wanted
        self._entries: dict[str, dict[str, Entry]] = {}
        self._contents: dict[str, Contents] = {}
        self._has_added = False
        self.failures: dict[str, FastnError] = {}
        self.incomplete: list[str] = []

    async def read(self) -> None:
        """Read the wanted kinds, and those in `_NEEDS`, in parallel."""
        needed = dict.fromkeys([*self._wanted, *(need for kind in self._wanted for need in _NEEDS.get(kind, ()))])
        done = 0

        async def read_kind(kind: str) -> None:
            nonlocal done
            try:
                contents = await self._context.directory.contents(kind, self._context.read)
            except FastnError as error:
                self.failures[kind] = error
            else:
                self._contents[kind] = contents
                found = enumerate(contents.entries)
                self._entries[kind] = {entry.id or f"without id {place}": entry for place, entry in found}
                if not contents.complete:
                    self.incomplete.append(kind)
            done += 1
            await self._context.report(f"Read: {kind}.", done, len(needed))

        async with anyio.create_task_group() as group:
            for kind in needed:
                group.start_soon(read_kind, kind)

    @property
    def customers(self) -> dict[str, str]:
        """Names by id."""
        return {found.id: found.name for found in self._of("customer")}

    def rank(self, query: str, of: Sequence[str] = ()) -> Ranking:
        """Rank the entries of the kinds in `of`; of all wanted kinds if it is empty."""
        kinds = tuple(of or self._wanted)
        if self._has_added:  # entries that only this query has, so the index is not shared
            return self._index(kinds).rank(query)
        read = tuple(sorted(self._contents))
        contents = [self._contents[kind] for kind in read]
        return self._context.directory.derived(contents, (kinds, read), lambda: self._index(kinds)).rank(query)

    async def add_by_search(self, words: Sequence[str]) -> None:
        """Search Fastn for the first (rarest) of `words`, in the kinds too large to read whole."""
        await self._add(
            (kind, {"search": word})
            for kind in self.incomplete
            if "search" in LISTS[kind].model_fields
            for word in words[:_SEARCHES]
        )

    async def add_by_owner(self, owners: Ranking) -> None:
        """List the rows of the best-matching customers and connectors, in the kinds that have no search."""
        best = [hit.entry for hit in owners.hits]
        likely = [
            found for kind in ("customer", "connector") for found in [e for e in best if e.kind == kind][:_OWNERS]
        ]
        await self._add(
            (kind, {f"{owner.kind}_id": owner.id})
            for kind in self.incomplete
            for owner in likely
            if "search" not in LISTS[kind].model_fields and f"{owner.kind}_id" in LISTS[kind].model_fields
        )

    def searched(self) -> dict[str, JsonValue]:
        """Return which kinds were searched, not searched, or searched only in part."""
        read: list[JsonValue] = [kind for kind in self._wanted if kind in self._entries]
        answer: dict[str, JsonValue] = {"searched": "all kinds" if read == list(LISTS) else read}
        if self.failures:
            answer["not_searched"] = {kind: error.outcome for kind, error in sorted(self.failures.items())}
        if self.incomplete:
            answer["incomplete"] = {kind: f"first {len(self._entries[kind])} read" for kind in self.incomplete}
        return answer

    async def _add(self, filters: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        async def add(kind: str, by: Mapping[str, str]) -> None:
            try:
                call = cast(Call, LISTS[kind].model_validate({"limit": 100, **by}))
                page = cast("Listed[FastnObject]", await self._context.read(call))
            except (FastnError, ValueError):
                return  # the answer lists the kind as incomplete in any case
            for found in (entry(kind, row) for row in page.items):
                self._has_added |= self._entries[kind].setdefault(found.id, found) is found

        async with anyio.create_task_group() as group:
            for kind, by in filters:
                group.start_soon(add, kind, by)

    def _of(self, kind: str) -> Iterable[Entry]:
        return self._entries.get(kind, {}).values()

    def _index(self, of: Sequence[str]) -> Index:
        customers = self.customers
        connectors = {key: found.name for found in self._of("connector") for key in (found.id, found.slug or found.id)}

        def named(found: Entry) -> NamedResource:
            """Return an entry with its names, and those of its customer and connector."""
            connector = connectors.get(found.connector or "") or found.connector_name or found.connector or ""
            if found.kind == "connection":
                titled = _titled(found, customers, connector)
                return NamedResource(titled, titled.also)
            owners = (customers.get(found.customer or "", ""), connector if found.connector else "")
            return NamedResource(found, (found.name, *found.also), tuple(filter(None, owners)))

        return Index([named(found) for kind in of for found in self._of(kind)])


def _titled(found: Entry, customers: Mapping[str, str], connector: str) -> Entry:
    """Name a connection by its app and owner, as most are called "default"."""
    row = {"connectorName": connector, "endOrgId": found.customer, "name": found.name, "id": found.id}
    label = label_of("connection", row, {"customer": customers})
    owner = customers.get(found.customer or "", found.customer) or "Account"
    own = "" if found.name in ("default", found.id) else found.name
    return replace(found, name=str(label), also=(" / ".join(filter(None, (owner, connector, own))),), slug=None)


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
    reads = {of: call for of, call in _reads(found).items() if kind in (None, of)}
    results: dict[str, Entry] = {}
    failures: dict[str, FastnError] = {}

    async def read(of: str, call: Call) -> None:
        try:
            record = await send(call)
        except NotFound:
            return
        except FastnError as error:
            failures[of] = error
            return
        rows = cast("Listed[FastnObject]", record).items if of == "connection" else [record]
        # Fastn's answer to an unknown id is not documented: only a row with this very id counts.
        matches = (item for item in (entry(of, row) for row in rows) if item.id.casefold() == found[0].casefold())
        if (match := next(matches, None)) is not None:
            results[of] = match

    async with anyio.create_task_group() as group:
        for of, call in reads.items():
            group.start_soon(read, of, call)
    return next((results[of] for of in reads if of in results), None), failures


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
            # ucl:org:environment:connector:authentication:customer; no GET; its parts filter the list.
            parts = key.split(":")
            connector, customer = (parts[3], parts[-1]) if len(parts) == 6 else (None, None)
            of = {"connector_id": connector, "customer_id": customer if customer != "default" else None}
            return {"connection": ListConnections.model_validate({"limit": 100} | of)} if connector else {}
        case _:
            return {
                "customer": GetCustomer(customer_id=key),
                "connector": GetConnector(connector_id=key),
                "trigger": GetTrigger(trigger_id=key),
            }
