"""Resources read for one search, and how they belong together: what a trigger starts, what runs for a customer."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
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
from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.ranking import (
    EXACT_MATCH,
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
_MAX_WORDS = 8  # beyond which a query is taken sentence by sentence
_SENTENCE_END = re.compile(r"[.?!;]\s+|,\s+(?=and\b|then\b|but\b)")
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


class SearchRows:
    """Resources read for one search, their names, and which workflows run for which customers."""

    def __init__(self, snapshot: AccountSnapshot) -> None:
        self.contents: dict[str, Contents] = {}
        """Lists that were read, by kind."""
        self.names: defaultdict[str, dict[str, str]] = defaultdict(dict)
        """Names by kind and id."""
        self.runs_for: defaultdict[str, dict[str, Row | None]] = defaultdict(dict)
        """By workflow: the customers that it runs for, with the last run that was seen."""
        self.may_run_for: defaultdict[str, dict[str, Row | None]] = defaultdict(dict)
        """By workflow: the customers that have connected its apps, and were not seen to run it."""
        self._snapshot = snapshot
        self._entries: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self._is_extended = False
        """Whether there are entries or runs that only this query has."""
        self._index: Index | None = None
        """The index of what was read, until more is."""

    def of(self, kind: str) -> Iterable[Entry]:
        return self._entries[kind].values()

    def triggers_of(self, workflow: str) -> list[Entry]:
        """Return the triggers that start a workflow."""
        return [item for item in self.of("trigger") if workflow in started_workflows(item.row)]

    def keep(self, kind: str, contents: Contents) -> None:
        """Keep a list, and its entries and names. Entries that were kept already stay."""
        self.contents[kind] = contents
        self._keep(kind, contents.entries)

    def extend(self, kind: str, entries: Iterable[Entry]) -> None:
        """Keep entries beside those of the lists."""
        if added := [item for item in entries if item.id not in self._entries[kind]]:
            self._keep(kind, added)
            self._is_extended = True

    def add_runs(self, customer: str, runs: Mapping[str, Row | None]) -> None:
        """Keep the last runs for a customer by workflow, and the workflows that may run: their apps are connected."""
        for workflow, run in runs.items():
            self.runs_for[workflow][customer] = run
        own = (it.row for it in self.of("connection") if it.customer == customer)
        connected = {key for row in own for key in connector_keys(row)}
        for workflow in self.of("workflow"):
            apps = {text(app, "slug") for app in apps_of_customers(workflow.row)}
            if apps and apps <= connected and customer not in self.runs_for.get(workflow.id, ()):
                self.may_run_for[workflow.id][customer] = None
        self._is_extended, self._index = True, None

    def belongs(self, item: Entry, owner: Entry) -> bool:
        """Whether a resource belongs to another one, starts it or runs for it."""
        related = {key for _, key in item.related}
        return owner.id in related.union(self.runs_for.get(item.id, ()), self.may_run_for.get(item.id, ()))

    def titled(self, item: Entry) -> Entry:
        """Return an entry; a connection is named by its app and owner, as most are called "default"."""
        label = label_of("connection", item.row, self.names) if item.kind == "connection" else None
        return replace(item, name=str(label), also=(label.name,)) if label else item

    def ranking(self, query: str) -> Ranking:
        """Rank what was read. The index is kept for later queries if they would read the same."""
        if self._index is None:
            read, keep = sorted(self.contents), self._snapshot.derived
            contents = [self.contents[kind] for kind in read]
            self._index = self._build_index() if self._is_extended else keep(tuple(read), contents, self._build_index)
        return self._index.rank(query)

    def _keep(self, kind: str, entries: Iterable[Entry]) -> None:
        self._index = None
        keyed = {item.id or f"without id {place}": item for place, item in enumerate(entries)}
        self._entries[kind] = keyed | self._entries[kind]
        for item in keyed.values():
            keys = (item.id, text(item.row, "slug")) if kind == "connector" else (item.id,)
            self.names[kind] |= dict.fromkeys(filter(None, keys), item.name)

    def _build_index(self) -> Index:
        customers = self.names["customer"]

        def owners_of(item: Entry) -> dict[str, float]:
            names = (self.names[kind].get(key, key if kind == "connector" else "") for kind, key in item.related)
            owners = dict.fromkeys((customers.get(key, "") for key in self.may_run_for.get(item.id, ())), POSSIBLE)
            owners |= dict.fromkeys((customers.get(key, "") for key in self.runs_for.get(item.id, ())), OWNED)
            return owners | dict.fromkeys(names, OWNED)

        entries = [self.titled(item) for kind in self._entries for item in self.of(kind)]
        return Index(entries, owners_of, sum(contents.unread for contents in self.contents.values()))


class SearchData:
    """Reads what one search needs, with a record of failed or truncated reads, and ranks it."""

    def __init__(self, context: ProcedureContext, wanted: Sequence[str]) -> None:
        self._context = context
        self._wanted = wanted
        self._reads = AccountReads(context.look)
        self.rows = SearchRows(context.look.snapshot)
        self._most = _MAX_SEARCHES
        """Maximum number of further pages of a kind that is read whole, where Fastn could search it."""
        self._searched: set[str] = set()
        """Large kinds in which Fastn found what the query may mean."""
        self._runs: dict[str, str] = {}
        """Ids of the customers whose runs were read, by the name of the read."""
        self.last_runs: dict[str, Row] = {}
        """The last run of a workflow, by its id."""

    async def search(self, query: str) -> Matches:
        """Read what the query needs, in parallel and within bounds, and rank it."""
        self._most = min(_MAX_SEARCHES, len(self.rows.ranking(query).words) + 1)
        if not await self._is_name_of_asked(query):
            needed = [need for kind in self._wanted for need in (kind, *_NAMED_BY.get(kind, ()))]
            await self._read(kind for kind in needed if kind != "connection")
        if "workflow" in self._wanted and not any(not hit.lacking for hit in self._hits(query)[:1]):
            await self._read(["customer"])
        await self._search(query)
        # A long query is about what the first of its sentences is about that has a match.
        sentences = (query,) if len(words_of(query)) <= _MAX_WORDS else _SENTENCE_END.split(query)
        place = next((place for place, sentence in enumerate(sentences) if self._hits(sentence)), None)
        about = query if place is None else sentences[place]
        await self._read_belongings(about)
        matches = self._matches(query, about)
        later = sentences[place + 1 :] if place is not None else ()
        leading = {hit.key: hit for sentence in later for hit in leaders(self._hits(sentence))}
        besides = {hit.key: hit for hit in matches.besides}
        besides |= {key: hit for key, hit in leading.items() if hit.is_verbatim or not hit.lacking}
        return matches._replace(besides=[*besides.values()])

    def _asked(self, query: str) -> set[str]:
        """Return the kinds that are asked for."""
        return {*self._wanted} if len(self._wanted) == 1 else kinds_in(query)

    async def _is_name_of_asked(self, query: str) -> bool:
        """Read the kinds that are asked for, and return whether the query is the name of one such resource."""
        asked = self._asked(query)
        if not asked or "connection" in asked:  # a connection is named by what it belongs to
            return False
        await self._read(asked | ({"trigger"} if "workflow" in asked else set()))  # the answer says what starts it
        if len(words_of(query)) <= _MAX_WORDS:
            await self._search(query)
        return any(hit.entry.kind in asked and hit.is_whole for hit in self._hits(query)[:1])

    async def _search(self, query: str) -> None:
        """Let Fastn search large kinds for words of the query. A kind is read whole if that may have missed some.

        A word that neither Fastn finds nor any name has may be misspelt.
        """
        ranking, emails, searched = self.rows.ranking(query), _EMAIL.findall(query.casefold()), list[str]()
        words = [*emails, *ranking.words][:_MAX_SEARCHES]
        large = [kind for kind in self._incomplete() if "search" in LISTS[kind].model_fields]

        def is_named() -> bool:
            return any(hit.is_whole and (hit.score == EXACT_MATCH or not emails) for hit in self._hits(query)[:1])

        def is_each_known(kind: str) -> bool:
            return all(word in ranking.known or self._reads.rows(f"{kind} of {word}") for word in searched)

        for some in (words[:1], words[1:]):  # what has the whole name has its first word
            for kind in large:
                # Where a word may be misspelt, no further search does instead of reading the kind whole.
                if is_each_known(kind) or not is_affordable(kind, self._context.look, MAX_PAGES - 1):
                    await self._add(kind, "search", some)
            searched += some
            if is_named() and all(self._is_whole(f"{kind} of {word}") for kind in large for word in some):
                break
        for kind in large:
            has_more = all(self._reads.has_more(f"{kind} of {word}") for word in searched)
            if is_named() or (is_each_known(kind) and not has_more):
                self._searched.add(kind)
        await self._read([kind for kind in large if kind not in self._searched], whole=True)

    def _is_whole(self, name: str) -> bool:
        """Whether a list was read, and has no more rows."""
        return name in self._reads.lists and not self._reads.has_more(name)

    async def _read_belongings(self, query: str) -> None:
        """Read the runs and connections of the customers, or the connections of the connectors, that a query names."""
        ranking, asked = self.rows.ranking(query), self._asked(query)
        customers, connectors = (leaders(ranking.of([kind], least=0)) for kind in ("customer", "connector"))
        is_clear = any(hit.is_whole and hit.entry.kind != "customer" for hit in self._hits(query)[:1])
        if "workflow" in self._wanted and not is_clear:
            are_asked = not asked.isdisjoint(("workflow", "trigger"))
            named = [it.entry for it in customers if it.is_verbatim and (it.lacking or are_asked)]
            if not named and are_asked and len(customers) == 1 and not customers[0].lacking:
                named = [customers[0].entry]  # misspelt
            await self._read_runs(named)
        are_both = not asked and customers and connectors and connectors[0].is_verbatim
        are_both = are_both and {*customers[0].lacking}.isdisjoint(connectors[0].lacking)
        if "connection" in asked or ("connection" in self._wanted and are_both):
            owners = [hit.entry.id for hit in (customers or connectors)[:_MAX_OWNERS]]
            is_filtered = await self._add("connection", "customer_id" if customers else "connector_id", owners)
            if not is_filtered or (len(self._wanted) == 1 and not owners):
                await self._read(["connection"])

    async def _read_runs(self, customers: Sequence[Entry]) -> None:
        """Find the workflows that run for these customers, and those that may: all their apps are connected."""
        self._runs = {f"runs of {customer.name}": customer.id for customer in customers[:_MAX_CUSTOMERS]}
        await self._add("connection", "customer_id", self._runs.values())
        await self._list(ListExecutions, "customer_id", self._runs)
        for name, customer in self._runs.items():
            started = (it.row for it in self.rows.of("trigger") if it.customer == customer)
            runs: dict[str, Row | None] = dict.fromkeys(key for row in started for key in started_workflows(row))
            self.rows.add_runs(customer, runs | _last_runs(self._reads.rows(name)))

    def _matches(self, query: str, about: str) -> Matches:
        """Return what the query means: what it is `about`, and the names that it has besides."""
        hits = self._hits(about)
        best = leaders(hits)
        if UNFINISHED.isdisjoint(words_of(query)):
            best = [hit for hit in best if not is_unfinished(hit.entry.kind, hit.entry.row)] or best
        meant: list[Hit] = []
        for hit in best:
            item = hit.entry
            if not any(self.rows.belongs(item, it.entry) or self.rows.belongs(it.entry, item) for it in meant):
                meant.append(hit)
        candidates = {hit.key: hit for hit in self.rows.ranking(query).candidates if hit.entry.kind in self._wanted}
        besides, lacking = list[Hit](), candidates.get(meant[0].key, meant[0]).lacking if meant else ()
        for hit in candidates.values():
            if hit.is_verbatim and not {*lacking} <= {*hit.lacking}:
                besides.append(hit)
                lacking = tuple(word for word in lacking if word in hit.lacking)
        begun = words_of(query[: query.find(about) + len(about)])
        lacking = [word for word in lacking if word in begun]
        near = dict.fromkeys(hit.entry.name for hit in candidates.values() if hit.score >= MIN_SUGGESTION)
        return Matches(meant, besides, hits, lacking, [*near][:_MAX_NEAR])

    async def name_related(self, entries: Sequence[Entry]) -> None:
        """Read the names of what these entries belong to or start that no read list has."""
        related = [reference for item in entries for reference in item.related if reference[0] != "connector"]
        related += [("connector", text(item.row, "connectorId")) for item in entries if item.kind == "connection"]
        for kind in ("customer", "workflow", "connector"):
            unnamed = [key for of, key in related if of == kind and key and key not in self.rows.names[kind]]
            self.rows.names[kind] |= await read_labels(kind, unnamed, self._context.look)

    async def read_last_run(self, workflow: Entry) -> None:
        """Read the last run of a workflow, unless those of a customer were read."""
        if not self._runs:
            name = f"runs of {workflow.name}"
            await self._list(ListExecutions, "workflow_id", {name: workflow.id}, limit=2)
            self.last_runs |= {key: run for key, run in _last_runs(self._reads.rows(name)).items() if run}

    def gaps(self, *, is_answered: bool) -> list[str]:
        """Return what was not searched, or not whole, and why."""
        needed = LISTS.keys() - {*self._wanted}
        failed = {name: error for name, error in self._reads.failed.items() if name not in needed}
        reasons = by_reason(Unchecked(name, failure(error, error.outcome)) for name, error in failed.items())
        read = {name: len(self._reads.rows(name)) for name in self._runs if self._reads.has_more(name)}
        read |= {kind: len(self.rows.contents[kind].entries) for kind in self._incomplete()}
        gaps = [f"{it.what}: {it.why}" for it in reasons]
        gaps += [f"{name}: only the first {number}" for name, number in read.items()]
        if "connection" in self._wanted and not self.rows.of("connection") and not is_answered:
            gaps.append("connection: name its customer and connector, or give the kind")
        return gaps

    def _incomplete(self) -> list[str]:
        return [kind for kind, it in self.rows.contents.items() if not it.complete and kind not in self._searched]

    async def _read(self, wanted: Iterable[str], *, whole: bool = False) -> None:
        """Read these kinds in parallel, unless they were, or `whole` anyway; else of a long one only the first page."""

        async def read_kind(kind: str) -> None:
            is_searched = "search" in LISTS[kind].model_fields and not whole
            most = self._most if is_searched else math.inf
            self.rows.keep(kind, await read_contents(kind, self._context.look, most))

        tried = () if whole else self.rows.contents.keys() | self._reads.failed.keys()
        jobs = dict.fromkeys((kind for kind in wanted if kind not in tried), read_kind)
        await self._reads.run(jobs, self._context.report)

    async def _add(self, kind: str, argument: str, values: Collection[str]) -> bool:
        """Add the first rows of a list for each value of one argument. Return whether Fastn filtered all."""
        lists = {f"{kind} of {value}": value for value in values}
        await self._list(LISTS[kind], argument, lists)
        for name in lists:
            self.rows.extend(kind, [entry(kind, row) for row in self._reads.rows(name)])
        return all(len(self._reads.rows(name)) >= _PAGE_ROWS or not self._reads.has_more(name) for name in lists)

    async def _list(
        self, lister: type[List[Any]], argument: str, values: Mapping[str, str], limit: int = _PAGE_ROWS
    ) -> None:
        """Read the first rows of a list for each of these values of one argument, by the names of the reads."""
        calls: dict[str, Call] = {}
        for name, value in values.items():
            with suppress(ValueError):  # an id that cannot be sent
                calls[name] = cast(Call, lister.model_validate({"limit": limit, argument: value}))
        await self._reads.read(calls)

    def _hits(self, query: str) -> list[Hit]:
        return self.rows.ranking(query).of(self._wanted)


def _last_runs(rows: Sequence[Row]) -> dict[str, Row | None]:
    """Return the last run of each workflow in a list; None if Fastn does not list the newest first."""
    times = [time for row in rows if (time := timestamp(row, "createdAt", "startedAt"))]
    is_ordered = len(times) == len(rows) and times == sorted(times, reverse=True)
    return {key: row if is_ordered else None for row in reversed(rows) if (key := text(row, "workflowId"))}
