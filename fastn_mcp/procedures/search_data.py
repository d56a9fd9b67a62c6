"""Resources read for one search, and how they belong together: what a trigger starts, what runs for a customer."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, NamedTuple, cast

from fastn_mcp.account.entries import LISTS, Contents, Entry, entry, read_contents, read_labels
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
from fastn_mcp.procedures.reads import AccountReads
from fastn_mcp.records.labels import app_of, label_of
from fastn_mcp.records.rows import (
    FastnObject,
    Row,
    apps_of_customers,
    connector_keys,
    started_workflows,
    text,
    timestamp,
)
from fastn_mcp.records.states import is_unfinished
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.paging import List, Listed
from fastn_mcp.tools.workflows import ListExecutions

_NEEDS = {
    "connection": ("customer", "connector"),
    "trigger": ("customer", "connector", "workflow"),
    "secret": ("customer",),
    "workflow": ("trigger",),
}
"""Kinds whose names are part of the names of another kind, or of its row in the answer."""

_PAGE = 100  # rows of a list
_MAX_SEARCHES = 3  # words searched for in Fastn, of a kind too large to read whole
_MAX_OWNERS = 5  # customers, or connectors, whose connections are listed
_MAX_CUSTOMERS = 2  # whose runs are read
_MAX_BESIDES = 4  # names that the query has besides the best match
_NAMED = 0.8  # share of a name from which on the query names it
_CLEAR = 85  # lowest score of a query that holds nearly nothing but a name
_MAX_WORDS = 8  # beyond which a query is ranked by clauses
_CLAUSE = re.compile(r"[.?!;]\s+|,\s+(?=and\b|then\b|but\b)")
_CONNECTIONS_LEFT = "connection: name its customer and connector, or give the kind"

_UNFINISHED = frozenset(["draft", "drafts", "unpublished", "pending", "invited", "activated", "activation"])
"""Words that may mean a workflow that was never published, or a customer that is not active yet."""


class Matches(NamedTuple):
    """Matches of a query."""

    meant: Sequence[Hit]
    """What could be meant: one hit, or several that fit about equally well."""
    besides: Sequence[Hit]
    """Names that the query has besides."""
    ranking: Ranking
    lacking: Sequence[str]
    """Words of the query that none of them has."""


class SearchData:
    """Resources read for one search, with a record of failed or truncated reads."""

    def __init__(self, context: ProcedureContext, wanted: Sequence[str]) -> None:
        self._context = context
        self._wanted = wanted
        self._reads = AccountReads(context.look)
        self._entries: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self._contents: dict[str, Contents] = {}
        self._truncated: list[str] = []
        self._added: dict[str, bool] = {}
        """Filters by which rows were added, and whether Fastn applied them."""
        self._index: Index | None = None
        self._is_extended = False
        """Whether there are entries or owners that only this query has."""
        self.names: defaultdict[str, dict[str, str]] = defaultdict(dict)
        """Names by kind and id."""
        self.runs: dict[str, dict[str, Row | None]] = {}
        """What runs for a customer: by its id and that of the workflow, the last run that was seen."""
        self.able: dict[str, set[str]] = {}
        """Workflows whose apps a customer has all connected, and which may run for it, by its id."""
        self.last_runs: dict[str, Row] = {}
        """The last run of a workflow, by its id."""

    async def search(self, query: str) -> Matches:
        """Read what the query needs, in parallel and within bounds, and rank it."""
        needed = [need for kind in self._wanted for need in (kind, *_NEEDS.get(kind, ()))]
        await self._read(kind for kind in needed if kind != "connection")
        (clause, *others), unread = self._clauses(query)
        ranking = self.rank(clause)
        if incomplete := [kind for kind in self._incomplete() if "search" in LISTS[kind].model_fields]:
            words = ranking.words[:_MAX_SEARCHES]
            await self._add([(kind, "search", word) for kind in incomplete for word in words])
            ranking = self.rank(clause)
        if "workflow" in self._wanted and not (ranking.hits and not ranking.hits[0].lacking):
            await self._read(["customer"])
        await self._read_belongings(clause, ranking)
        ranking = self.rank(clause) if self._is_extended else ranking
        return self._matches(query, ranking, others, unread)

    def _clauses(self, query: str) -> tuple[list[str], list[str]]:
        """Return the clauses of a long query for which something is found, and the words of those before them."""
        if len(words_of(query)) <= _MAX_WORDS:
            return [query], []
        rankings = {clause: self.rank(clause) for clause in _CLAUSE.split(query)}
        clauses = [clause for clause, ranking in rankings.items() if ranking.words and ranking.hits]
        if not clauses:
            return [query], []
        before = takewhile(lambda clause: clause != clauses[0], rankings)
        return clauses, [word for clause in before for word in rankings[clause].words]

    async def _read_belongings(self, query: str, ranking: Ranking) -> None:
        """Read the runs of the customers that the query names, and the connections that it may mean."""
        customers, connectors = (self.rank(query, (kind,), PART).leaders for kind in ("customer", "connector"))
        asked = {kind for word in words_of(query) for kind in kinds(word)}
        best = ranking.hits[0] if ranking.hits else None
        is_clear = best is not None and best.entry.kind != "customer" and _is_plain_name(best) and not best.lacking
        if "workflow" in self._wanted and not is_clear:
            are_asked = not asked.isdisjoint(("workflow", "trigger"))
            await self._read_runs([it.entry for it in customers if it.share >= _NAMED and (it.lacking or are_asked)])
        only_connections = self._wanted == ("connection",)
        are_meant = only_connections or "connection" in asked or (not asked and _are_all(customers, connectors))
        if "connection" in self._wanted and are_meant:
            owners = [hit.entry for hit in (customers or connectors)[:_MAX_OWNERS]]
            filters = [("connection", f"{owner.kind}_id", owner.id) for owner in owners]
            if await self._add(filters) or (only_connections and not owners):
                await self._read(["connection"])

    def _matches(self, query: str, ranking: Ranking, clauses: Sequence[str], unread: Sequence[str]) -> Matches:
        leaders: Sequence[Hit] = ranking.leaders
        if _UNFINISHED.isdisjoint(words_of(query)):
            leaders = [hit for hit in leaders if not is_unfinished(hit.entry.kind, hit.entry.row)] or leaders
        meant: list[Hit] = []
        for hit in leaders:
            if not any(self._are_related(hit.entry, other.entry) for other in meant):
                meant.append(hit)
        lacking = meant[0].lacking if meant else ()
        besides: list[Hit] = []
        while lacking and len(besides) < _MAX_BESIDES:
            named = self.rank(" ".join(word for word in lacking if not word.isdigit())).leaders
            if not named or not _is_plain_name(named[0]) or len(named[0].lacking) == len(lacking):
                break
            besides += named
            lacking = named[0].lacking
        for clause in clauses:
            besides += [hit for hit in self.rank(clause).leaders if _is_plain_name(hit) or not hit.lacking]
        return Matches(meant, besides, ranking, [*unread, *lacking])

    def rank(self, query: str, of: Sequence[str] = (), least: int = FOUND) -> Ranking:
        """Rank the resources of the kinds in `of`, or of all wanted kinds. `least` is the lowest score of a match."""
        if self._index is None and self._is_extended:
            self._index = self._build_index()
        elif self._index is None:
            read = tuple(sorted(self._contents))
            contents = [self._contents[kind] for kind in read]
            self._index = self._context.look.snapshot.derived(read, contents, self._build_index)
        return self._index.rank(query, of or self._wanted, least)

    async def name_owner(self, single: Entry) -> None:
        """Read the names of what a single entry refers to."""
        wanted = {"customer": [single.customer or ""], "workflow": started_workflows(single.row)}
        if single.kind == "connection":
            wanted["connector"] = [text(single.row, "connectorId")]
        for kind, ids in wanted.items():
            self.names[kind] |= await read_labels(kind, filter(None, ids), self._context.look)

    async def read_last_run(self, workflow: Entry) -> None:
        """Read the last run of a workflow. Nothing is recorded if Fastn does not list the newest first."""

        async def read(_: str) -> None:
            rows = (await self._list(ListExecutions, {"limit": 2, "workflow_id": workflow.id}))[0]
            if rows and _is_newest_first(rows):
                self.last_runs[workflow.id] = rows[0]

        await self._reads.run({f"runs of {workflow.name}": read})

    def gaps(self, *, is_answered: bool) -> list[str]:
        """Return what was not searched, or not whole, and why."""
        needed = LISTS.keys() - {*self._wanted}
        failed = [f"{name}: {error.outcome}" for name, error in self._reads.failed.items() if name not in needed]
        first = [f"{kind}: only the first {len(self._contents[kind].entries)}" for kind in self._incomplete()]
        left = "connection" in self._wanted and not self._entries["connection"] and not is_answered
        return [*failed, *self._truncated, *first, *([_CONNECTIONS_LEFT] if left else [])]

    def triggers_of(self, workflow: str) -> list[Entry]:
        """Return the triggers that start a workflow."""
        return [item for item in self._of("trigger") if workflow in started_workflows(item.row)]

    def _are_related(self, one: Entry, other: Entry) -> bool:
        """Whether one of two resources belongs to the other, starts it or runs for it."""

        def refers(item: Entry, id_: str) -> bool:
            apps = connector_keys(item.row) if item.kind == "connection" else ()
            runs, able = self.runs.get(item.id, ()), self.able.get(item.id, ())
            return id_ in (item.customer, *started_workflows(item.row), *runs, *able, *apps)

        return refers(one, other.id) or refers(other, one.id)

    def _incomplete(self) -> list[str]:
        return [kind for kind, contents in self._contents.items() if not contents.complete]

    async def _read(self, wanted: Iterable[str]) -> None:
        """Read these kinds in parallel, unless they were read already."""

        async def read_kind(kind: str) -> None:
            contents = await read_contents(kind, self._context.look)
            self._contents[kind], self._index = contents, None
            self._keep(kind, contents.entries)

        jobs = dict.fromkeys((kind for kind in wanted if kind not in self._contents), read_kind)
        await self._reads.run(jobs, self._context.report)

    def _keep(self, kind: str, entries: Iterable[Entry]) -> None:
        """Keep entries and their names. Those that were kept already stay."""
        keyed = {item.id or f"without id {place}": item for place, item in enumerate(entries)}
        self._entries[kind] = keyed | self._entries[kind]
        for item in keyed.values():
            keys = (item.id, text(item.row, "slug")) if kind == "connector" else (item.id,)
            self.names[kind] |= dict.fromkeys(filter(None, keys), item.name)

    async def _read_runs(self, customers: Sequence[Entry]) -> None:
        """Find the workflows that run for these customers."""
        named = {f"runs of {customer.name}": customer for customer in customers[:_MAX_CUSTOMERS]}
        await self._add([("connection", "customer_id", customer.id) for customer in named.values()])

        async def read(name: str) -> None:
            customer = named[name]
            triggers = [item for item in self._of("trigger") if item.customer == customer.id]
            runs: dict[str, Row | None] = dict.fromkeys(key for it in triggers for key in started_workflows(it.row))
            self.runs[customer.id] = runs
            rows, is_complete = await self._list(ListExecutions, {"customer_id": customer.id})
            if not is_complete:
                self._truncated.append(f"{name}: only the first {len(rows)}")
            is_ordered = _is_newest_first(rows)
            newest: dict[str, Row | None] = {}
            for row in rows:
                newest.setdefault(text(row, "workflowId"), row if is_ordered else None)
            newest.pop("", None)
            runs |= newest

        await self._reads.run(dict.fromkeys(named, read))
        for customer in named.values():
            self.able[customer.id] = {key for key in self._able(customer.id) if key not in self.runs[customer.id]}
            self._extend()

    def _able(self, customer: str) -> Iterable[str]:
        """Yield the workflows whose apps the customer has all connected."""
        own = (item.row for item in self._of("connection") if item.customer == customer)
        connected = {key for row in own for key in connector_keys(row)}
        for workflow in self._of("workflow"):
            apps = {text(app, "slug") for app in apps_of_customers(workflow.row)}
            if apps and apps <= connected:
                yield workflow.id

    async def _add(self, filters: Sequence[tuple[str, str, str]]) -> bool:
        """Add the first rows of lists, each filtered by one argument. Return whether Fastn did not filter one."""
        named = {f"{kind} of {wanted}": (kind, argument, wanted) for kind, argument, wanted in filters}

        async def add(name: str) -> None:
            kind, argument, wanted = named[name]
            self._added[name] = True
            rows, is_complete = await self._list(LISTS[kind], {argument: wanted})
            self._added[name] = is_complete or len(rows) >= _PAGE
            if rows:
                self._keep(kind, [entry(kind, row) for row in rows])
                self._extend()

        await self._reads.run({name: add for name in named if name not in self._added})
        return not all(self._added[name] for name in named)

    async def _list(self, lister: type[List[Any]], arguments: Row) -> tuple[Sequence[Row], bool]:
        """Return the first rows of a list, and whether these are all. Raises a `FastnError`."""
        try:
            call = cast(Call, lister.model_validate({"limit": _PAGE, **arguments}))
        except ValueError:
            return [], True  # an id that cannot be sent
        page = cast("Listed[FastnObject]", await self._context.look(call))
        return page.rows, page.next_cursor is None

    def _extend(self) -> None:
        self._is_extended, self._index = True, None

    def _of(self, kind: str) -> Iterable[Entry]:
        return self._entries[kind].values()

    def _build_index(self) -> Index:
        runs_for: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for share, of_customers in ((POSSIBLE, self.able), (OWNED, self.runs)):
            for customer, workflows in of_customers.items():
                for workflow in workflows:
                    runs_for[workflow][self.names["customer"].get(customer, "")] = share
        entries = (item for kind in self._entries for item in self._of(kind))
        return Index([_named(item, self.names, runs_for[item.id]) for item in entries])


def _named(item: Entry, names: Mapping[str, Mapping[str, str]], runs_for: Mapping[str, float]) -> NamedResource:
    """Return an entry with its names, and those of what it belongs to."""
    if item.kind == "connection":
        item = titled(item, names)
        return NamedResource(item, item.also)
    owners = [names["customer"].get(item.customer or "", "")]
    if item.kind == "trigger":
        owners += [names["connector"].get(key, key) for key in connector_keys(item.row)]
        owners += [names["workflow"].get(key, "") for key in started_workflows(item.row)]
    return NamedResource(item, (item.name, *item.also), {**runs_for, **dict.fromkeys(owners, OWNED)})


def titled(item: Entry, names: Mapping[str, Mapping[str, str]]) -> Entry:
    """Name a connection by its app and owner, as most are called "default"."""
    app = app_of(item.row, names)
    owner = names.get("customer", {}).get(item.customer or "", item.customer) or "Account"
    own = "" if item.name in ("default", item.id) else item.name
    name = str(label_of("connection", item.row, names) or item.name)
    return replace(item, name=name, also=(" / ".join(filter(None, (owner, app, own))),))


def _is_newest_first(rows: Sequence[Row]) -> bool:
    times = [time for row in rows if (time := timestamp(row, "createdAt", "startedAt"))]
    return len(times) == len(rows) and times == sorted(times, reverse=True)


def _are_all(customers: Sequence[Hit], connectors: Sequence[Hit]) -> bool:
    """Whether a query names a customer and a connector, and nothing else."""
    if not customers or not connectors or connectors[0].share < _NAMED:
        return False
    return set(customers[0].lacking).isdisjoint(connectors[0].lacking)


def _is_plain_name(hit: Hit) -> bool:
    """Whether the query that found it holds nearly nothing but its name."""
    return hit.share >= _NAMED and hit.score >= _CLEAR
