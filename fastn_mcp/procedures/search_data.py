"""Resources read for one search, and how they belong together: what a trigger starts, what runs for a customer."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from fastn_mcp.procedures.ranking import EXACT_MATCH, UNFINISHED, Hit, Index, Ranking, kinds_in, leaders, words_of
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
_MAX_WORDS = 6  # beyond which a query is taken sentence by sentence
_SENTENCE_END = re.compile(r"[.?!;]\s+|,\s+(?=and\b|then\b|but\b)")
_EMAIL = re.compile(r"[^\s,;:<>()]+@[\w.-]*\w")


class Matches(NamedTuple):
    """Matches of a query: what may be meant, what it names besides, and all others, best first."""

    hits: Sequence[Hit]
    meant: int
    """Number of the first hits that fit about equally well."""
    named: int
    """Number of the first hits that the query names, those meant included."""
    lacking: Sequence[str] = ()
    """Words of the query that none of those named has."""


class SearchRows:
    """Resources read for one search, their names, and which workflows run for which customers."""

    def __init__(self, snapshot: AccountSnapshot) -> None:
        self.contents: dict[str, Contents] = {}
        """Lists that were read, by kind."""
        self.names: defaultdict[str, dict[str, str]] = defaultdict(dict)
        """Names by kind and id."""
        self.uses: defaultdict[str, dict[str, bool]] = defaultdict(dict)
        """By workflow: customers, with whether it was seen to run for them. Otherwise they have connected its apps."""
        self.last_runs: dict[tuple[str, str | None], Row | None] = {}
        """Last runs by the ids of workflow and customer; of any customer by None."""
        self._snapshot = snapshot
        self._entries: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self._extensions: list[object] = []
        """What only this query has beside the lists: entries and uses."""

    def of(self, kind: str) -> Collection[Entry]:
        return self._entries[kind].values()

    def keep(self, kind: str, entries: Sequence[Entry], contents: Contents | None = None) -> None:
        """Keep the entries of a list, or others that only this query has, with their names."""
        before = len(self.of(kind))
        for place, item in enumerate(entries):
            self._entries[kind].setdefault(item.id or f"without id {place}", item)
            keys = (item.id, text(item.row, "slug")) if kind == "connector" else (item.id,)
            self.names[kind] |= dict.fromkeys(filter(None, keys), item.name)
        if contents is not None:
            self.contents[kind] = contents
        elif len(self.of(kind)) > before:
            self._extensions.append(entries)

    def add_uses(self, customer: str, runs: Mapping[str, Row | None]) -> None:
        """Keep which workflows run for a customer, with their last `runs`, and which may."""
        own = (it.row for it in self.of("connection") if it.customer == customer)
        connected = {key for row in own for key in connector_keys(row)}
        for workflow in self.of("workflow"):
            apps = {text(app, "slug") for app in apps_of_customers(workflow.row)}
            if apps and apps <= connected:
                self.uses[workflow.id][customer] = False
        for key, run in runs.items():
            self.uses[key][customer] = True
            self.last_runs[key, customer] = run
        self._extensions.append(runs)

    def belongs(self, item: Entry, owner: Entry) -> bool:
        """Whether a resource belongs to another one, starts it or runs for it."""
        return owner.id in {*(key for _, key in item.related), *self.uses.get(item.id, ())}

    def titled(self, item: Entry) -> Entry:
        """Return an entry; a connection is named by its app and owner, as most are called "default"."""
        label = label_of("connection", item.row, self.names) if item.kind == "connection" else None
        return replace(item, name=str(label), also=(label.name,)) if label else item

    def ranking(self, query: str) -> Ranking:
        """Rank what was read. The index is kept for queries that read the same."""
        read = sorted(self.contents)
        extensions = self._extensions
        sources = [*(self.contents[kind] for kind in read), *extensions]
        return self._snapshot.derived((*read, len(extensions)), sources, self._build_index).rank(query)

    def _build_index(self) -> Index:
        entries = [self.titled(item) for kind in self._entries for item in self.of(kind)]
        return Index(entries, self._owners_of, sum(contents.unread for contents in self.contents.values()))

    def _owners_of(self, item: Entry) -> dict[str, bool]:
        """Return the names of what a resource belongs to, starts or runs for, with whether that is certain."""
        customers = self.names["customer"]
        uses = self.uses.get(item.id, {})
        owners = {customers.get(key, ""): is_seen for key, is_seen in uses.items()}
        return owners | {self.names[kind].get(key, ""): True for kind, key in item.related}


class SearchData:
    """Reads what one search needs, with a record of failed or truncated reads, and ranks it."""

    def __init__(self, context: ProcedureContext, wanted: Sequence[str], query: str) -> None:
        self._context = context
        self.wanted = wanted
        self._query = query
        self._asked = {*wanted} if len(wanted) == 1 else kinds_in(query)
        """Kinds that are asked for."""
        self._reads = AccountReads(context.look)
        self.rows = SearchRows(context.look.snapshot)
        self._most = _MAX_SEARCHES
        """Maximum number of further pages of a kind that is read whole, where Fastn could search it."""
        self._searched: set[str] = set()
        """Large kinds in which Fastn found what the query may mean."""
        self._runs: dict[str, str] = {}
        """Ids of the customers whose runs were read, by the name of the read."""

    async def search(self) -> Matches:
        """Read what the query needs, in parallel and within bounds, and rank it."""
        query = self._query
        self._most = min(_MAX_SEARCHES, len(self.rows.ranking(query).words) + 1)
        for kinds in self._steps(query):
            await self._read(kinds)
            await self._search(query)
        # A long query is about what the first of its sentences is about that has a match.
        sentences = [query] if len(words_of(query)) <= _MAX_WORDS else _SENTENCE_END.split(query)
        while len(sentences) > 1 and not self._hits(sentences[0]):
            del sentences[0]
        await self._read_belongings(sentences[0])
        return self._matches(sentences)

    def _steps(self, query: str) -> Iterator[Iterable[str]]:
        """Yield the kinds to read, step by step: first those asked for, and more unless the query names one of them."""
        if self._asked and "connection" not in self._asked:  # a connection is named by what it belongs to
            yield self._asked | ({"trigger"} if "workflow" in self._asked else set())  # the answer says what starts it
            if self._is_named(query, self._asked):
                return
        if self.rows.ranking(query).is_about_kinds:
            return
        needed = (need for kind in self.wanted for need in (kind, *_NAMED_BY.get(kind, ())))
        yield [kind for kind in needed if kind != "connection"]
        if "workflow" in self.wanted and all(hit.lacking for hit in self._hits(query)[:1]):
            yield ["customer"]

    async def _search(self, query: str) -> None:
        """Let Fastn search large kinds for words of the query. A kind is read whole if that may have missed some.

        A word that neither Fastn finds nor any name has may be misspelt.
        """
        ranking = self.rows.ranking(query)
        if ranking.is_about_kinds:
            return
        large = [kind for kind in self._incomplete() if "search" in LISTS[kind].model_fields]
        readable = {kind for kind in large if is_affordable(kind, self._context.look, MAX_PAGES - 1)}
        misspelt = set[str]()
        cut = {*large}

        for word in [*_EMAIL.findall(query.casefold()), *ranking.words][:_MAX_SEARCHES]:
            # Where a word may be misspelt, no further search does instead of reading the kind whole.
            kinds = [kind for kind in large if kind not in misspelt & readable]
            await self._add(kinds, "search", [word])
            cut -= {kind for kind in kinds if not self._reads.has_more(f"{kind} of {word}")}
            if self._is_named(query, self.wanted):
                break
            if not ranking.words.get(word):
                misspelt |= {kind for kind in kinds if not self._reads.rows(f"{kind} of {word}")}
        self._searched.update(large if self._is_named(query, self.wanted) else {*large} - misspelt - cut)
        await self._read([kind for kind in large if kind not in self._searched], whole=True)

    async def _read_belongings(self, query: str) -> None:
        """Read the runs and connections of the customers, or the connections of the connectors, that a query names."""
        ranking = self.rows.ranking(query)
        asked = self._asked
        customers, connectors = (
            self._alternatives(query, leaders(ranking.of([kind], least=0))) for kind in ("customer", "connector")
        )
        if "workflow" in self.wanted and not self._is_named(query, LISTS.keys() - {"customer"}):
            are_asked = not asked.isdisjoint(("workflow", "trigger"))
            await self._read_runs([it.entry for it in customers if (it.is_verbatim if it.lacking else are_asked)])
        are_both = not asked and customers and connectors and connectors[0].is_verbatim
        are_both = are_both and {*customers[0].lacking}.isdisjoint(connectors[0].lacking)
        if "connection" in asked or ("connection" in self.wanted and are_both):
            owners = [hit.entry.id for hit in (customers or connectors)[:_MAX_OWNERS]]
            is_filtered = await self._add(["connection"], "customer_id" if customers else "connector_id", owners)
            if not is_filtered or (len(self.wanted) == 1 and not owners):
                await self._read(["connection"])

    async def _read_runs(self, customers: Sequence[Entry]) -> None:
        """Find the workflows that run for these customers, and the workflows that may: all their apps are connected."""
        self._runs = {f"runs of {customer.name}": customer.id for customer in customers[:_MAX_CUSTOMERS]}
        await self._add(["connection"], "customer_id", self._runs.values())
        await self._list({name: (ListExecutions, {"customer_id": key}) for name, key in self._runs.items()})
        for name, customer in self._runs.items():
            started = (it.row for it in self.rows.of("trigger") if it.customer == customer)
            runs: dict[str, Row | None] = dict.fromkeys(key for row in started for key in started_workflows(row))
            self.rows.add_uses(customer, runs | _last_runs(self._reads.rows(name)))

    def _matches(self, sentences: Sequence[str]) -> Matches:
        """Return what the first sentence means, and what else is named."""
        hits = self._hits(sentences[0])
        meant = self._alternatives(sentences[0], leaders(hits))
        named = {hit.key: hit for hit in meant}
        lacking = meant[0].lacking if meant else ()
        ranking = self.rows.ranking(sentences[0])
        for hit in ranking.candidates:
            if hit.entry.kind in self.wanted and hit.is_verbatim and not {*lacking} <= {*hit.lacking}:
                named[hit.key] = hit
                lacking = tuple(word for word in lacking if word in hit.lacking)
        for hit in (hit for sentence in sentences[1:] for hit in leaders(self._hits(sentence))):
            if hit.is_verbatim or not hit.lacking:
                named.setdefault(hit.key, hit)
        every = {hit.key: hit for hit in (*named.values(), *hits)}
        return Matches([*every.values()], len(meant), len(named), lacking)

    def _alternatives(self, query: str, best: Sequence[Hit]) -> list[Hit]:
        """Return the hits that could be meant instead of each other."""
        if UNFINISHED.isdisjoint(words_of(query)):
            best = [hit for hit in best if not is_unfinished(hit.entry.kind, hit.entry.row)] or best
        meant: list[Hit] = []
        for hit in best:
            item = hit.entry
            if not any(self.rows.belongs(item, it.entry) or self.rows.belongs(it.entry, item) for it in meant):
                meant.append(hit)
        return meant

    async def name_related(self, entries: Sequence[Entry]) -> None:
        """Read the names of what these entries belong to or start that no read list has."""
        related = [reference for item in entries for reference in item.related if reference[0] != "connector"]
        related += [("connector", text(item.row, "connectorId")) for item in entries if item.kind == "connection"]
        for kind in ("customer", "workflow", "connector"):
            unnamed = [key for of, key in related if of == kind and key and key not in self.rows.names[kind]]
            self.rows.names[kind] |= await read_labels(kind, unnamed, self._context.look)

    async def read_last_run(self, workflow: Entry) -> None:
        """Read the last run of a workflow, unless a customer's runs were read."""
        if not self._runs:
            name = f"runs of {workflow.name}"
            await self._list({name: (ListExecutions, {"workflow_id": workflow.id, "limit": 2})})
            self.rows.last_runs[workflow.id, None] = _last_runs(self._reads.rows(name)).get(workflow.id)

    def gaps(self, *, is_answered: bool) -> list[str]:
        """Return what was not searched, or not whole, and why."""
        failed = self._reads.failed.items()
        reasons = by_reason(Unchecked(name, failure(error, error.outcome)) for name, error in failed)
        read = {name: len(self._reads.rows(name)) for name in self._runs if self._reads.has_more(name)}
        read |= {kind: len(self.rows.contents[kind].entries) for kind in self._incomplete()}
        gaps = [f"{it.what}: {it.why}" for it in reasons]
        gaps += [f"{name}: only the first {number}" for name, number in read.items()]
        if "connection" in self.wanted and not self.rows.of("connection") and not is_answered:
            is_disabled = self._context.tools.hides("connections")
            how = "disabled here" if is_disabled else "name its customer and connector, or give the kind"
            gaps.append(f"connection: {how}")
        return gaps

    def _incomplete(self) -> list[str]:
        return [kind for kind, it in self.rows.contents.items() if not it.complete and kind not in self._searched]

    async def _read(self, wanted: Iterable[str], *, whole: bool = False) -> None:
        """Read these kinds in parallel, unless they were, or `whole` anyway; else of a long one only the first page."""

        async def read_kind(kind: str) -> None:
            is_searched = "search" in LISTS[kind].model_fields and not whole
            most = self._most if is_searched else math.inf
            contents = await read_contents(kind, self._context.look, most)
            self.rows.keep(kind, contents.entries, contents)

        tried = () if whole else self.rows.contents.keys() | self._reads.failed.keys()
        await self._reads.run({kind: read_kind for kind in wanted if kind not in tried}, self._context.report)

    async def _add(self, kinds: Iterable[str], argument: str, values: Collection[str]) -> bool:
        """Add the first rows of lists for each value of one argument. Return whether Fastn filtered all."""
        kind_of = {f"{kind} of {value}": (kind, value) for kind in kinds for value in values}
        await self._list({name: (LISTS[kind], {argument: value}) for name, (kind, value) in kind_of.items()})
        for name, (kind, _) in kind_of.items():
            self.rows.keep(kind, [entry(kind, row) for row in self._reads.rows(name)])
        return all(len(self._reads.rows(name)) >= _PAGE_ROWS or not self._reads.has_more(name) for name in kind_of)

    async def _list(self, lists: Mapping[str, tuple[type[List[Any]], dict[str, Any]]]) -> None:
        """Read the first rows of lists with these arguments, by the names of the reads."""
        calls: dict[str, Call] = {}
        for name, (lister, arguments) in lists.items():
            with suppress(ValueError):  # an id that cannot be sent
                calls[name] = cast(Call, lister.model_validate({"limit": _PAGE_ROWS} | arguments))
        await self._reads.read(calls)

    def _hits(self, query: str) -> list[Hit]:
        return self.rows.ranking(query).of(self.wanted)

    def _is_named(self, query: str, kinds: Collection[str]) -> bool:
        """Whether a query is the name of a resource of these kinds: exactly, if it has an email address."""
        best = self._hits(query)[:1]
        least = EXACT_MATCH if "@" in query else 0
        whole = (hit for hit in best if hit.is_verbatim and not hit.lacking)
        return any(hit.entry.kind in kinds and hit.score >= least for hit in whole)


def _last_runs(rows: Sequence[Row]) -> dict[str, Row | None]:
    """Return the last run of each workflow in a list; None if Fastn does not list the newest first."""
    read = (timestamp(row, "createdAt", "startedAt") for row in rows)
    times = [time for time in read if time]
    is_ordered = len(times) == len(rows) and times == sorted(times, reverse=True)
    runs = {text(row, "workflowId"): row if is_ordered else None for row in reversed(rows)}
    runs.pop("", None)
    return runs
