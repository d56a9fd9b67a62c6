"""Resources read for one search, and how they belong together: what a trigger starts, what runs for a customer."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from fastn_mcp.account.dependence import Unchecked, by_reason
from fastn_mcp.account.entries import (
    LISTS,
    MAX_PAGES,
    Contents,
    Entry,
    entry,
    is_affordable,
    read_contents,
    read_labels,
)
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.ranking import (
    MIN_SUGGESTION,
    OWNED,
    POSSIBLE,
    UNFINISHED,
    Hit,
    Index,
    Ranking,
    kinds_in,
    leaders,
    words_of,
)
from fastn_mcp.procedures.reads import AccountReads, failure
from fastn_mcp.records.labels import label_of
from fastn_mcp.records.rows import Row, apps_of_customers, connector_keys, started_workflows, text, timestamp
from fastn_mcp.records.states import is_unfinished
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.workflows import ListExecutions

_NAMED_BY = {
    "connection": ("customer", "connector"),
    "trigger": ("customer", "connector", "workflow"),
    "secret": ("customer",),
    "workflow": ("trigger",),
}
"""Kinds whose names are part of the names of another kind, or of its row in the answer."""

_PAGE_ROWS = 100  # rows of a list
_MAX_SEARCHES = 3  # words searched for in Fastn, of a kind that takes more requests to read whole
_MAX_OWNERS = 5  # customers, or connectors, whose connections are listed
_MAX_CUSTOMERS = 2  # whose runs are read
_MAX_NEAR = 3  # similar names
_MAX_WORDS = 8  # beyond which a query is ranked by clauses
_CLAUSE_END = re.compile(r"[.?!;]\s+|,\s+(?=and\b|then\b|but\b)")

_EMAIL = re.compile(r"[^\s,;:<>()]+@[\w.-]*\w")


class Matches(NamedTuple):
    """Matches of a query."""

    meant: Sequence[Hit]
    """What could be meant: one hit, or several that fit about equally well."""
    besides: Sequence[Hit] = ()
    """Names that the query has besides."""
    others: Sequence[Hit] = ()
    """All matches, best first."""
    lacking: Sequence[str] = ()
    """Words of the query that none of those meant or besides has."""
    near: Sequence[str] = ()
    """Similar names, if nothing was found."""


@dataclass(frozen=True, slots=True)
class Use:
    """A workflow that runs for a customer, with the last run that was seen; or may, if it has connected the apps."""

    customer: str
    workflow: str
    is_certain: bool = True
    last_run: Row | None = None


class SearchData:
    """Resources read for one search, with a record of failed or truncated reads."""

    def __init__(self, context: ProcedureContext, wanted: Sequence[str]) -> None:
        self._context = context
        self._wanted = wanted
        self._reads = AccountReads(context.look)
        self._contents: dict[str, Contents] = {}
        self._entries: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self._most = _MAX_SEARCHES
        """Maximum number of further pages of a kind that is read whole, where Fastn could search it."""
        self._searched: set[str] = set()
        """Large kinds in which Fastn found what the query may mean."""
        self._is_extended = False
        """Whether there are entries or uses that only this query has."""
        self._own_index: Index | None = None
        """The index of what was read, until more is."""
        self.names: defaultdict[str, dict[str, str]] = defaultdict(dict)
        """Names by kind and id."""
        self._runs: dict[str, str] = {}
        """Reads of the runs of customers, with the customer's id."""
        self.uses: list[Use] = []
        self.last_runs: dict[str, Row] = {}
        """The last run of a workflow, by its id."""

    async def search(self, query: str) -> Matches:
        """Read what the query needs, in parallel and within bounds, and rank it."""
        self._most = min(_MAX_SEARCHES, len(self._rank(query).words) + 1)
        if not await self._is_name_of_asked(query):
            needed = [need for kind in self._wanted for need in (kind, *_NAMED_BY.get(kind, ()))]
            await self._read(kind for kind in needed if kind != "connection")
        clauses = [query] if len(words_of(query)) <= _MAX_WORDS else _CLAUSE_END.split(query)
        if len(clauses) > 1:
            await self._search(query)
        place = next((place for place, clause in enumerate(clauses) if self._hits(clause)), None)
        if place is None:
            clauses, place = [query], 0
        await self._read_belongings(clauses[place])
        matches = self._matches(clauses[place])
        leading = (hit for clause in clauses[place + 1 :] for hit in leaders(self._hits(clause)))
        besides = [*matches.besides, *(hit for hit in leading if hit.is_verbatim or not hit.lacking)]
        unread = [word for clause in clauses[:place] for word in self._rank(clause).words]
        return matches._replace(besides=besides, lacking=[*unread, *matches.lacking])

    async def _is_name_of_asked(self, query: str) -> bool:
        """Read the kinds that are asked for, and return whether the query is the name of one such resource."""
        asked = {*self._wanted} & kinds_in(query) if len(self._wanted) > 1 else {*self._wanted}
        if not asked or "connection" in asked:  # a connection is named by what it belongs to
            return False
        await self._read(asked | ({"trigger"} if "workflow" in asked else set()))  # the answer says what starts it
        if len(words_of(query)) <= _MAX_WORDS:
            await self._search(query)
        best = next(iter(self._hits(query)), None)
        return best is not None and best.entry.kind in asked and best.is_verbatim and not best.lacking

    async def _read_belongings(self, query: str) -> None:
        """Read what the query may mean of large kinds, runs of the customers that it names, and connections."""
        hits = self._hits(query)
        if "workflow" in self._wanted and not (hits and not hits[0].lacking):
            await self._read(["customer"])
        await self._search(query)
        hits, ranking = self._hits(query), self._rank(query)
        customers, connectors = (leaders(ranking.of((kind,), least=0)) for kind in ("customer", "connector"))
        kinds = kinds_in(query)
        is_clear = hits and hits[0].entry.kind != "customer" and hits[0].is_named and not hits[0].lacking
        if "workflow" in self._wanted and not is_clear:
            are_asked = not kinds.isdisjoint(("workflow", "trigger"))
            await self._read_uses([it.entry for it in customers if it.is_named and (it.lacking or are_asked)])
        are_both = customers and connectors and connectors[0].is_named
        are_both = are_both and {*customers[0].lacking}.isdisjoint(connectors[0].lacking)
        only = self._wanted == ("connection",)
        if only or ("connection" in self._wanted and ("connection" in kinds or (not kinds and are_both))):
            owners = [hit.entry for hit in (customers or connectors)[:_MAX_OWNERS]]
            is_filtered = await self._add([("connection", f"{owner.kind}_id", owner.id) for owner in owners])
            if not is_filtered or (only and not owners):
                await self._read(["connection"])

    async def _search(self, query: str) -> None:
        """Let Fastn search large kinds for the words of the query. A kind is read whole if that may have missed some.

        A word that neither Fastn finds nor any name has may be misspelt.
        """
        index = self._index()
        emails = [*map(str.casefold, _EMAIL.findall(query))]
        words = [*emails, *sorted(self._rank(query).words, key=index.has_word)][:_MAX_SEARCHES]
        large = [kind for kind in self._incomplete() if "search" in LISTS[kind].model_fields]
        searched: list[str] = []

        def is_named() -> bool:
            best = next(iter(self._hits(query)), None)
            if best is not None and emails:
                return not {*emails}.isdisjoint(map(str.casefold, best.entry.emails))
            return best is not None and best.is_verbatim and not best.lacking

        def is_each_known(kind: str) -> bool:
            return all(self._reads.rows(f"{kind} of {word}") or index.has_word(word) for word in searched)

        def may_find(kind: str) -> bool:
            """Whether a further search may do instead of reading the kind whole."""
            return is_each_known(kind) or not is_affordable(kind, self._context.look, MAX_PAGES - 1)

        for some in (words[:1], words[1:]):  # what has the whole name has its first word
            await self._add([(kind, "search", word) for kind in filter(may_find, large) for word in some])
            searched += some
            if is_named() and all(self._is_whole(f"{kind} of {word}") for kind in large for word in some):
                break
        for kind in large:
            lists = [f"{kind} of {word}" for word in searched]
            if is_named() or (is_each_known(kind) and not all(map(self._reads.has_more, lists))):
                self._searched.add(kind)
        await self._read([kind for kind in large if kind not in self._searched], whole=True)

    def _is_whole(self, name: str) -> bool:
        return name in self._reads.lists and not self._reads.has_more(name)

    def _matches(self, query: str) -> Matches:
        hits = self._hits(query)
        best = leaders(hits)
        if UNFINISHED.isdisjoint(words_of(query)):
            best = [hit for hit in best if not is_unfinished(hit.entry.kind, hit.entry.row)] or best
        meant: list[Hit] = []
        for hit in best:
            if not any(self._are_related(hit.entry, other.entry) for other in meant):
                meant.append(hit)
        besides, lacking = list[Hit](), meant[0].lacking if meant else ()
        candidates = [hit for hit in self._rank(query).candidates if hit.entry.kind in self._wanted]
        for hit in candidates:
            if hit.is_verbatim and not {*lacking} <= {*hit.lacking}:
                besides.append(hit)
                lacking = [word for word in lacking if word in hit.lacking]
        near = dict.fromkeys(hit.entry.name for hit in candidates if hit.score >= MIN_SUGGESTION)
        return Matches(meant, besides, hits, lacking, [*near][:_MAX_NEAR])

    async def name_owner(self, single: Entry) -> Entry:
        """Read the names of what a single entry refers to, and return it with its name."""
        await self.name_related([single])
        if single.kind == "connection":
            connector = filter(None, [text(single.row, "connectorId")])
            self.names["connector"] |= await read_labels("connector", connector, self._context.look)
        return _titled(single, self.names)

    async def name_related(self, entries: Sequence[Entry]) -> None:
        """Read the names of the customers and workflows of these entries that no read list has."""
        for kind in ("customer", "workflow"):
            related = [key for item in entries for of, key in item.related if of == kind]
            unnamed = [key for key in related if key not in self.names[kind]]
            self.names[kind] |= await read_labels(kind, unnamed, self._context.look)

    async def read_last_run(self, workflow: Entry) -> None:
        """Read the last run of a workflow, unless those of a customer were read.

        Nothing is recorded if Fastn does not list the newest first.
        """
        if self._runs:
            return
        name = f"runs of {workflow.name}"
        await self._list({name: (ListExecutions, "workflow_id", workflow.id)}, limit=2)
        rows = self._reads.rows(name)
        if rows and _is_newest_first(rows):
            self.last_runs[workflow.id] = rows[0]

    def gaps(self, *, is_answered: bool) -> list[str]:
        """Return what was not searched, or not whole, and why."""
        needed = LISTS.keys() - {*self._wanted}
        failed = {name: error for name, error in self._reads.failed.items() if name not in needed}
        reasons = by_reason(Unchecked(name, failure(error, error.outcome)) for name, error in failed.items())
        gaps = [f"{it.what}: {it.why}" for it in reasons]
        gaps += [f"{it}: only the first {len(self._reads.rows(it))}" for it in self._runs if self._reads.has_more(it)]
        gaps += [f"{kind}: only the first {len(self._contents[kind].entries)}" for kind in self._incomplete()]
        if "connection" in self._wanted and not self._entries["connection"] and not is_answered:
            gaps.append("connection: name its customer and connector, or give the kind")
        return gaps

    def triggers_of(self, workflow: str) -> list[Entry]:
        """Return the triggers that start a workflow."""
        return [item for item in self._of("trigger") if workflow in started_workflows(item.row)]

    def _are_related(self, one: Entry, other: Entry) -> bool:
        """Whether one of two resources belongs to the other, starts it or runs for it."""
        related = {(use.customer, use.workflow) for use in self.uses}
        related |= {(item.id, key) for item in (one, other) for _, key in item.related}
        return not related.isdisjoint([(one.id, other.id), (other.id, one.id)])

    def _incomplete(self) -> list[str]:
        return [kind for kind, it in self._contents.items() if not it.complete and kind not in self._searched]

    async def _read(self, wanted: Iterable[str], *, whole: bool = False) -> None:
        """Read these kinds in parallel, unless they were, or `whole` anyway; else of a long one only the first page."""

        async def read_kind(kind: str) -> None:
            is_searched = "search" in LISTS[kind].model_fields and not whole
            most = self._most if is_searched else math.inf
            self._contents[kind] = await read_contents(kind, self._context.look, most)
            self._keep(kind, self._contents[kind].entries)

        tried = () if whole else self._contents.keys() | self._reads.failed.keys()
        unread = (kind for kind in wanted if kind not in tried)
        jobs = dict.fromkeys(unread, read_kind)
        await self._reads.run(jobs, self._context.report)

    def _keep(self, kind: str, entries: Iterable[Entry]) -> None:
        """Keep entries and their names. Those that were kept already stay."""
        self._own_index = None
        keyed = {item.id or f"without id {place}": item for place, item in enumerate(entries)}
        self._entries[kind] = keyed | self._entries[kind]
        for item in keyed.values():
            keys = (item.id, text(item.row, "slug")) if kind == "connector" else (item.id,)
            self.names[kind] |= dict.fromkeys(filter(None, keys), item.name)

    async def _read_uses(self, customers: Sequence[Entry]) -> None:
        """Find the workflows that run for these customers, or may."""
        self._runs = {f"runs of {customer.name}": customer.id for customer in customers[:_MAX_CUSTOMERS]}
        await self._add([("connection", "customer_id", id_) for id_ in self._runs.values()])
        await self._list({name: (ListExecutions, "customer_id", id_) for name, id_ in self._runs.items()})
        for name, customer in self._runs.items():
            triggers = [item for item in self._of("trigger") if item.customer == customer]
            runs: dict[str, Row | None] = dict.fromkeys(key for it in triggers for key in started_workflows(it.row))
            rows = self._reads.rows(name)
            is_ordered = _is_newest_first(rows)
            for row in reversed(rows):
                runs[text(row, "workflowId")] = row if is_ordered else None
            self.uses += [Use(customer, workflow, last_run=run) for workflow, run in runs.items() if workflow]
            able = (workflow for workflow in self._able(customer) if workflow not in runs)
            self.uses += [Use(customer, workflow, is_certain=False) for workflow in able]
            self._is_extended, self._own_index = True, None

    def _able(self, customer: str) -> Iterator[str]:
        """Yield the workflows whose apps the customer has all connected."""
        own = (item.row for item in self._of("connection") if item.customer == customer)
        connected = {key for row in own for key in connector_keys(row)}
        for workflow in self._of("workflow"):
            apps = {text(app, "slug") for app in apps_of_customers(workflow.row)}
            if apps and apps <= connected:
                yield workflow.id

    async def _add(self, filters: Sequence[tuple[str, str, str]]) -> bool:
        """Add the first rows of lists, each filtered by one argument. Return whether Fastn filtered all."""
        named = {f"{kind} of {value}": (LISTS[kind], argument, value) for kind, argument, value in filters}
        await self._list({name: it for name, it in named.items() if name not in self._reads.lists})
        for name, (kind, *_) in zip(named, filters, strict=True):
            entries = [entry(kind, row) for row in self._reads.rows(name)]
            if added := [item for item in entries if item.id not in self._entries[kind]]:
                self._keep(kind, added)
                self._is_extended = True
        return all(len(self._reads.rows(name)) >= _PAGE_ROWS or not self._reads.has_more(name) for name in named)

    async def _list(self, filters: Mapping[str, tuple[type[List[Any]], str, str]], limit: int = _PAGE_ROWS) -> None:
        """Read the first rows of lists, each filtered by one argument."""
        calls: dict[str, Call] = {}
        for name, (lister, argument, value) in filters.items():
            with suppress(ValueError):  # an id that cannot be sent
                calls[name] = cast(Call, lister.model_validate({"limit": limit, argument: value}))
        await self._reads.read(calls)

    def _of(self, kind: str) -> Iterable[Entry]:
        return self._entries[kind].values()

    def _hits(self, query: str) -> list[Hit]:
        return self._rank(query).of(self._wanted)

    def _rank(self, query: str) -> Ranking:
        return self._index().rank(query)

    def _index(self) -> Index:
        """Return the index of what was read. It is kept for later queries if they would read the same."""
        if self._is_extended:
            self._own_index = self._own_index or self._build_index()
            return self._own_index
        read = tuple(sorted(self._contents))
        contents = [self._contents[kind] for kind in read]
        return self._context.look.snapshot.derived(read, contents, self._build_index)

    def _build_index(self) -> Index:
        owners: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for use in self.uses:
            owner = self.names["customer"].get(use.customer, "")
            owners[use.workflow][owner] = OWNED if use.is_certain else POSSIBLE

        def owners_of(item: Entry) -> dict[str, float]:
            names = (self.names[kind].get(key, key if kind == "connector" else "") for kind, key in item.related)
            return owners[item.id] | dict.fromkeys(names, OWNED)

        entries = [_titled(item, self.names) for kind in self._entries for item in self._of(kind)]
        return Index(entries, owners_of, sum(contents.unread for contents in self._contents.values()))


def _titled(item: Entry, names: Mapping[str, Mapping[str, str]]) -> Entry:
    """Return an entry; a connection is named by its app and owner, as most are called "default"."""
    label = label_of("connection", item.row, names) if item.kind == "connection" else None
    return replace(item, name=str(label), also=(label.name,)) if label else item


def _is_newest_first(rows: Sequence[Row]) -> bool:
    times = [time for row in rows if (time := timestamp(row, "createdAt", "startedAt"))]
    return len(times) == len(rows) and times == sorted(times, reverse=True)
