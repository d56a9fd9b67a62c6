"""Resources read for one search, and how they belong together: what a trigger starts, what runs for a customer."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import cast

import anyio

from fastn_mcp.account.directory import LISTS, Contents, Entry, entry
from fastn_mcp.account.targets import Call
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.ranking import (
    FOUND,
    OWNED,
    PART,
    POSSIBLE,
    Hit,
    Index,
    NamedResource,
    Ranking,
    kinds,
    words_of,
)
from fastn_mcp.records.labels import app_of, label_of
from fastn_mcp.records.rows import Row, apps_of_customers, connector_keys, started_workflows, text, timestamp
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.workflows import ListExecutions

_NEEDS = {
    "connection": ("customer", "connector"),
    "trigger": ("customer", "connector", "workflow"),
    "secret": ("customer",),
    "workflow": ("trigger",),
}
"""Kinds whose names are part of the names of another kind, or of its row in the answer."""

_SEARCHES = 3
"""Maximum number of words searched for in Fastn, for a kind too large to read whole."""

_OWNERS = 5
"""Maximum number of customers, and of connectors, whose connections are listed."""

_MAX_CUSTOMERS = 2
"""Maximum number of customers whose runs are read."""

NAMED = 0.8
"""Share of a customer's or connector's name from which on the query names it."""

_CONNECTIONS_LEFT = "connection: name its customer and connector, or give the kind"

_CLAUSE = re.compile(r"[.?!;]\s+|,\s+(?=and\b|then\b|but\b)")
_MAX_WORDS = 8
"""Number of words from which on a query is ranked by clauses."""


class SearchData:
    """Resources read for one search, with a record of failed or truncated reads."""

    def __init__(self, context: ProcedureContext, wanted: Sequence[str]) -> None:
        self._context = context
        self._wanted = wanted
        self._entries: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self._contents: dict[str, Contents] = {}
        self._incomplete: list[str] = []
        self._is_extended = False
        """Whether there are entries or owners that only this query has."""
        self._indexes: dict[tuple[str, ...], Index] = {}
        """Indexes of them, by kinds."""
        self.other_clauses: Sequence[str] = ()
        """Clauses of a long query after the one that was ranked."""
        self.lacking: Sequence[str] = ()
        """Words of clauses for which nothing was found."""
        self.names: defaultdict[str, dict[str, str]] = defaultdict(dict)
        """Names by kind and id."""
        self.runs: dict[str, dict[str, Row | None]] = {}
        """What runs for a customer: by its id and that of the workflow, the last run that was seen."""
        self.able: dict[str, set[str]] = {}
        """Workflows whose apps a customer has all connected, and which may run for it, by its id."""
        self.last_runs: dict[str, Row] = {}
        """The last run of a workflow, by its id."""
        self._gaps: list[str] = []
        """What could not be read, or not whole, and why."""

    async def search(self, query: str) -> Ranking:
        """Read what the query needs, in parallel and within bounds, and rank it."""
        needed = [need for kind in self._wanted for need in (kind, *_NEEDS.get(kind, ()))]
        await self._read(kind for kind in needed if kind != "connection")
        query, ranking = self._first_clause(query)
        if self._incomplete:
            await self._add_by_search(ranking.words)
            ranking = self.rank(query)
        is_covered = bool(ranking.hits) and not ranking.hits[0].lacking
        if "workflow" in self._wanted and not is_covered:
            await self._read(("customer",))
        customers, connectors = (self.rank(query, (kind,), PART).leaders for kind in ("customer", "connector"))
        if "workflow" in self._wanted:
            asks = any(not kinds(word).isdisjoint(("workflow", "trigger")) for word in words_of(query))
            await self._read_runs([hit.entry for hit in customers if hit.share >= NAMED and (hit.lacking or asks)])
        if "connection" in self._wanted:
            is_meant = self._wanted == ("connection",) or any("connection" in kinds(word) for word in words_of(query))
            if is_meant or _are_all(customers, connectors):
                await self._add_connections([hit.entry for hit in customers or connectors])
        return self.rank(query) if self._is_extended else ranking

    def _first_clause(self, query: str) -> tuple[str, Ranking]:
        """Return the first clause of a long query for which something is found, with its ranking."""
        clauses = _CLAUSE.split(query) if len(words_of(query)) > _MAX_WORDS else [query]
        rankings = {clause: ranking for clause in clauses if (ranking := self.rank(clause)).words}
        found = [clause for clause, ranking in rankings.items() if ranking.hits]
        if not found:
            return query, self.rank(query)
        first = found[0]
        missing = takewhile(lambda clause: clause != first, rankings)
        self.other_clauses = found[1:]
        self.lacking = [word for clause in missing for word in rankings[clause].words]
        return first, rankings[first]

    def rank(self, query: str, of: Sequence[str] = (), least: int = FOUND) -> Ranking:
        """Rank the entries of the kinds in `of`, or of all wanted kinds. `least` is the lowest score of a match."""
        of = tuple(of or self._wanted)
        if not self._is_extended:
            read = tuple(sorted(self._contents))
            contents = [self._contents[kind] for kind in read]
            return self._context.directory.derived(contents, (of, read), lambda: self._index(of)).rank(query, least)
        if of not in self._indexes:
            self._indexes[of] = self._index(of)
        return self._indexes[of].rank(query, least)

    async def name_owner(self, found: Entry) -> None:
        """Read the names of what a single entry refers to."""
        wanted = {"customer": [found.customer] if found.customer else [], "workflow": started_workflows(found.row)}
        if found.kind == "connection":
            wanted["connector"] = [text(found.row, "connectorId")]
        for kind, ids in wanted.items():
            self.names[kind] |= await self._context.directory.names(kind, filter(None, ids), self._context.read)

    async def read_last_run(self, workflow: Entry) -> None:
        """Read the last run of a workflow. Nothing is recorded if Fastn does not list the newest first."""
        rows, _ = await self._runs(workflow, limit=2)
        if rows and _is_newest_first(rows):
            self.last_runs[workflow.id] = rows[0]

    def gaps(self, *, is_answered: bool) -> list[str]:
        """Return what was not searched, or not whole, and why."""
        truncated = [f"{kind}: only the first {len(self._contents[kind].entries)}" for kind in self._incomplete]
        left = "connection" in self._wanted and not self._entries["connection"] and not is_answered
        return [*self._gaps, *truncated, *([_CONNECTIONS_LEFT] if left else [])]

    def triggers_of(self, workflow: str) -> list[Entry]:
        """Return the triggers that start a workflow."""
        return [found for found in self._of("trigger") if workflow in started_workflows(found.row)]

    def belongs(self, found: Entry, other: Entry) -> bool:
        """Whether one of two resources belongs to the other, starts it or runs for it."""
        return found.id in self._related(other) or other.id in self._related(found)

    def _related(self, found: Entry) -> set[str]:
        keys = {
            found.customer or "",
            *started_workflows(found.row),
            *self.runs.get(found.id, ()),
            *self.able.get(found.id, ()),
        }
        return keys | (connector_keys(found.row) if found.kind == "connection" else set())

    async def _read(self, wanted: Iterable[str]) -> None:
        """Read these kinds in parallel, unless they were read already."""
        needed = dict.fromkeys(kind for kind in wanted if kind not in self._contents)
        done = 0

        async def read_kind(kind: str) -> None:
            nonlocal done
            try:
                self._keep(kind, await self._context.directory.contents(kind, self._context.read))
            except FastnError as error:
                if kind in self._wanted:
                    self._gaps.append(f"{kind}: {error.outcome}")
            done += 1
            await self._context.report(f"Read: {kind}.", done, len(needed))

        async with anyio.create_task_group() as group:
            for kind in needed:
                group.start_soon(read_kind, kind)

    def _keep(self, kind: str, contents: Contents) -> None:
        self._contents[kind] = contents
        found = enumerate(contents.entries)
        self._entries[kind] = {entry.id or f"without id {place}": entry for place, entry in found}
        self._name(contents.entries)
        if not contents.complete:
            self._incomplete.append(kind)

    def _name(self, entries: Iterable[Entry]) -> None:
        for found in entries:
            keys = (found.id, text(found.row, "slug")) if found.kind == "connector" else (found.id,)
            self.names[found.kind] |= dict.fromkeys(filter(None, keys), found.name)

    async def _add_by_search(self, words: Sequence[str]) -> None:
        """Search Fastn for the first (rarest) of `words`, in the kinds too large to read whole."""
        searched = [kind for kind in self._incomplete if "search" in LISTS[kind].model_fields]
        await self._add((kind, "search", word) for kind in searched for word in words[:_SEARCHES])

    async def _read_runs(self, customers: Sequence[Entry]) -> None:
        """Find the workflows that run for these customers."""
        named = customers[:_MAX_CUSTOMERS]
        await self._add(("connection", "customer_id", customer.id) for customer in named)

        async def read(customer: Entry) -> None:
            triggers = [found for found in self._of("trigger") if found.customer == customer.id]
            rows, is_complete = await self._runs(customer, limit=100)
            if not is_complete:
                self._gaps.append(f"runs of {customer.name}: only the first {len(rows)}")
            runs: dict[str, Row | None] = {}
            for row in rows:
                runs.setdefault(text(row, "workflowId"), row if _is_newest_first(rows) else None)
            runs.pop("", None)
            started = [key for trigger in triggers for key in started_workflows(trigger.row)]
            self.runs[customer.id] = dict.fromkeys(started) | runs
            self.able[customer.id] = set(self._able(customer.id)) - self.runs[customer.id].keys()

        async with anyio.create_task_group() as group:
            for customer in named:
                group.start_soon(read, customer)
        self._extend(bool(named))

    def _able(self, customer: str) -> Iterable[str]:
        """Yield the workflows whose apps the customer has all connected."""
        own = (found.row for found in self._of("connection") if found.customer == customer)
        connected = {key for row in own for key in connector_keys(row)}
        for workflow in self._of("workflow"):
            apps = {text(app, "slug") for app in apps_of_customers(workflow.row)}
            if apps and apps <= connected:
                yield workflow.id

    async def _add_connections(self, owners: Sequence[Entry]) -> None:
        """List the connections of these customers or connectors; all of them if Fastn does not filter."""
        filters = [("connection", f"{owner.kind}_id", owner.id) for owner in owners[:_OWNERS]]
        if await self._add(filters) or (not filters and self._wanted == ("connection",)):
            await self._read(("connection",))

    async def _add(self, filters: Iterable[tuple[str, str, str]]) -> bool:
        """Add the first rows of lists, each filtered by one argument. Return whether Fastn did not filter one."""
        is_unfiltered = False

        async def add(kind: str, argument: str, wanted: str) -> None:
            nonlocal is_unfiltered
            try:
                call = cast(Call, LISTS[kind].model_validate({"limit": 100, argument: wanted}))
                page = cast("Listed[FastnObject]", await self._context.read(call))
            except FastnError as error:
                self._gaps.append(f"{kind} of {wanted}: {error.outcome}")
                return
            except ValueError:
                return  # an id that cannot be sent
            found = [entry(kind, row) for row in page.rows]
            is_unfiltered |= page.next_cursor is not None and len(found) < 100
            self._extend(bool(found))
            self._entries[kind] = {item.id: item for item in found} | self._entries[kind]
            self._name(found)

        async with anyio.create_task_group() as group:
            for each in dict.fromkeys(filters):
                group.start_soon(add, *each)
        return is_unfiltered

    def _extend(self, is_extended: bool) -> None:
        self._is_extended |= is_extended
        self._indexes.clear()

    async def _runs(self, of: Entry, limit: int) -> tuple[list[Row], bool]:
        """Return the first runs of a workflow or a customer, and whether these are all. Records a failure."""
        try:
            call = ListExecutions.model_validate({f"{of.kind}_id": of.id, "limit": limit})
            page = cast("Listed[FastnObject]", await self._context.read(call))
        except FastnError as error:
            self._gaps.append(f"runs of {of.name}: {error.outcome}")
            return [], True
        except ValueError:
            return [], True  # an id that cannot be sent
        return list(page.rows), page.next_cursor is None

    def _of(self, kind: str) -> Iterable[Entry]:
        return self._entries[kind].values()

    def _index(self, of: Sequence[str]) -> Index:
        names = self.names
        runs_for: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for share, of_customers in ((POSSIBLE, self.able), (OWNED, self.runs)):
            for customer, workflows in of_customers.items():
                for workflow in workflows:
                    runs_for[workflow][names["customer"].get(customer, "")] = share

        def named(found: Entry) -> NamedResource:
            """Return an entry with its names, and those of what it belongs to."""
            if found.kind == "connection":
                found = titled(found, names)
                return NamedResource(found, found.also)
            owners = [names["customer"].get(found.customer or "", "")]
            if found.kind == "trigger":
                owners += [names["connector"].get(key, key) for key in connector_keys(found.row)]
                owners += [names["workflow"].get(key, "") for key in started_workflows(found.row)]
            return NamedResource(found, (found.name, *found.also), runs_for[found.id] | dict.fromkeys(owners, OWNED))

        return Index([named(found) for kind in of for found in self._of(kind)])


def _is_newest_first(rows: Sequence[Row]) -> bool:
    times = [time for row in rows if (time := timestamp(row, "createdAt", "startedAt"))]
    return len(times) == len(rows) and times == sorted(times, reverse=True)


def _are_all(customers: Sequence[Hit], connectors: Sequence[Hit]) -> bool:
    """Whether a query names a customer and a connector, and nothing else."""
    if not customers or not connectors or connectors[0].share < NAMED:
        return False
    return set(customers[0].lacking).isdisjoint(connectors[0].lacking)


def titled(found: Entry, names: Mapping[str, Mapping[str, str]]) -> Entry:
    """Name a connection by its app and owner, as most are called "default"."""
    app = app_of(found.row, names)
    owner = names.get("customer", {}).get(found.customer or "", found.customer) or "Account"
    own = "" if found.name in ("default", found.id) else found.name
    name = str(label_of("connection", found.row, names) or found.name)
    return replace(found, name=name, also=(" / ".join(filter(None, (owner, app, own))),))
