"""Resources loaded for one search, and those that an id in it names, with a record of failed or truncated reads."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import anyio
from pydantic import JsonValue

from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.fastn.directory import LISTS, Contents, Entry, entry
from fastn_mcp.fastn.names import label_of
from fastn_mcp.fastn.targets import Call, Send
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.find.ranking import Index, NamedResource, Ranking
from fastn_mcp.tools.connectors import GetConnector, ListConnections
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.triggers import GetTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow

ORDER = ("customer", "workflow", "connector", "connection", "trigger", "user", "role", "api_key", "secret")
"""Of two that fit equally, the one of the earlier kind comes first."""

_NEEDS = {
    "connection": ("customer", "connector"),
    "trigger": ("customer", "connector"),
    "secret": ("customer",),
}
"""The kinds whose names others go by."""

SEARCHES = 3
"""Words that Fastn is asked for where a kind holds more than is read."""

_OWNERS = 2
"""Customers, and connectors, whose rows are asked for where a kind holds more than is read and takes no search."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """All of some kinds, ready to be asked for."""

    things: Sequence[Entry]
    customers: Mapping[str, str]
    index: Index


@dataclass
class SearchData:
    """What was read for a question, and what could not be."""

    means: ProcedureContext
    wanted: Sequence[str]
    entries: dict[str, dict[str, Entry]] = field(default_factory=dict[str, dict[str, Entry]])
    failures: dict[str, FastnError] = field(default_factory=dict[str, FastnError])
    incomplete: list[str] = field(default_factory=list[str])
    things: Sequence[Entry] = ()
    customers: Mapping[str, str] = field(default_factory=dict[str, str])
    _contents: dict[str, Contents] = field(default_factory=dict[str, Contents])
    _added: bool = False

    async def read(self) -> None:
        """Read what is wanted, and what its names are made of, all at once."""
        needed = dict.fromkeys([*self.wanted, *(need for kind in self.wanted for need in _NEEDS.get(kind, ()))])
        done = 0

        async def take(kind: str) -> None:
            nonlocal done
            try:
                contents = await self.means.directory.contents(kind, self.means.read)
            except FastnError as error:
                self.failures[kind] = error
            else:
                self._put(kind, contents)
            done += 1
            await self.means.report(f"Read: {kind}.", done, len(needed))

        async with anyio.create_task_group() as group:
            for kind in needed:
                group.start_soon(take, kind)

    def rank(self, query: str, of: Sequence[str] | None = None) -> Ranking:
        """Rank what there is `of` these kinds, or of all that are wanted."""
        kinds = tuple(of or self.wanted)
        if self._added:  # by this question, for itself
            prepared = self._prepared(kinds)
        else:
            name = (kinds, tuple(sorted(self._contents)))
            contents = [self._contents[kind] for kind in name[1]]
            prepared = self.means.directory.made_of(contents, name, lambda: self._prepared(kinds))
        self.things, self.customers = prepared.things, prepared.customers
        return prepared.index.rank(query)

    async def add_by_search(self, words: Sequence[str]) -> None:
        """Ask Fastn for the rarest words among what is too much to be read whole."""
        await self._add(
            (kind, {"search": word})
            for kind in self.incomplete
            if "search" in LISTS[kind].model_fields
            for word in words[:SEARCHES]
        )

    async def add_by_owner(self, owners: Ranking) -> None:
        """Ask Fastn for what the likeliest customers and connectors have, of what takes no search."""
        best = [self.things[hit.place] for hit in owners.hits]
        likely = [
            found for kind in ("customer", "connector") for found in [e for e in best if e.kind == kind][:_OWNERS]
        ]
        await self._add(
            (kind, {f"{owner.kind}_id": owner.id})
            for kind in self.incomplete
            for owner in likely
            if "search" not in LISTS[kind].model_fields and f"{owner.kind}_id" in LISTS[kind].model_fields
        )

    def seen(self) -> dict[str, JsonValue]:
        """What was looked through, and what was not."""
        read: list[JsonValue] = [kind for kind in self.wanted if kind in self.entries]
        answer: dict[str, JsonValue] = {"searched": "all kinds" if read == list(LISTS) else read}
        if self.failures:
            answer["not_searched"] = {kind: error.outcome for kind, error in sorted(self.failures.items())}
        if self.incomplete:
            answer["incomplete"] = {kind: f"first {len(self.entries[kind])} read" for kind in self.incomplete}
        return answer

    async def _add(self, asked: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        async def ask(kind: str, by: Mapping[str, str]) -> None:
            try:
                call = cast(Call, LISTS[kind].model_validate({"limit": 100, **by}))
                page = cast("Listed[FastnObject]", await self.means.read(call))
            except (FastnError, ValueError):
                return  # that not all was read is said in any case
            for found in (entry(kind, row) for row in page.items):
                self._added |= self.entries[kind].setdefault(found.id, found) is found

        async with anyio.create_task_group() as group:
            for kind, by in asked:
                group.start_soon(ask, kind, by)

    def _put(self, kind: str, contents: Contents) -> None:
        self._contents[kind] = contents
        self.entries[kind] = {found.id or f"without id {place}": found for place, found in enumerate(contents.entries)}
        if not contents.complete:
            self.incomplete.append(kind)

    def _all(self, kind: str) -> Iterable[Entry]:
        return self.entries.get(kind, {}).values()

    def _prepared(self, kinds: Sequence[str]) -> _Prepared:
        customers = {found.id: found.name for found in self._all("customer")}
        connectors = {found.id: found for found in self._all("connector")}
        connectors |= {found.slug: found for found in self._all("connector") if found.slug}

        def connector_of(found: Entry) -> str:
            known = connectors.get(found.connector or "")
            return known.name if known else found.connector_name or found.connector or ""

        def titled(found: Entry) -> Entry:
            is_connection = found.kind == "connection"
            return connection_titled(found, customers, connector_of(found)) if is_connection else found

        def named(found: Entry) -> NamedResource:
            """An entry as it is found: by its names, and by those of what it belongs to."""
            if found.kind == "connection":
                return NamedResource(found.kind, found.id, found.also, title=found.name)
            around = (customers.get(found.customer or "", ""), connector_of(found) if found.connector else "")
            return NamedResource(found.kind, found.id, (found.name, *found.also), tuple(filter(None, around)))

        things = [titled(found) for kind in kinds for found in self._all(kind)]
        return _Prepared(things, customers, Index(list(map(named, things)), ORDER))


def connection_titled(found: Entry, customers: Mapping[str, str], connector: str) -> Entry:
    """Connections are mostly called "default": they go by app and owner, and are searched by the two apart."""
    row = {"connectorName": connector, "endOrgId": found.customer, "name": found.name, "id": found.id}
    label = label_of("connection", row, {"customer": customers})
    whose = customers.get(found.customer or "", found.customer) or "Account"
    own = "" if found.name in ("default", found.id) else found.name
    searched = " / ".join(filter(None, (whose, connector, own)))
    return replace(found, name=str(label), also=(searched,), slug=None)


EXECUTION = "execution"
"""A kind without names: there are far too many, and each is found by its id alone."""

_HEX = "[0-9a-f]"
_UUID = f"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"
_ID = re.compile(
    rf"(?<![\w:.-])(?:(?P<connection>ucl:[\w:.@=+~-]*[\w])|(?P<execution>exec_\w+)|(?P<workflow>wf_\w+)"
    rf"|(?P<personal>(?:org|personal)_\w+)|(?P<uuid>{_UUID}))(?![\w-])",
    re.IGNORECASE,
)


async def look_up(text: str, kind: str | None, send: Send) -> tuple[Entry | None, dict[str, FastnError]]:
    """What the id in `text` is of, if it holds one that can be read by itself; and the kinds that could not be asked.

    With `kind`, only that one is asked.
    """
    found = _ID.search(text)
    if found is None:
        return None, {}
    reads = {asked: call for asked, call in _reads(found).items() if kind in (None, asked)}
    results: dict[str, Entry] = {}
    failures: dict[str, FastnError] = {}

    async def read(asked: str, call: Call) -> None:
        try:
            record = await send(call)
        except NotFound:
            return
        except FastnError as error:
            failures[asked] = error
            return
        if (match := _match(asked, record, found[0])) is not None:
            results[asked] = match

    async with anyio.create_task_group() as group:
        for asked, call in reads.items():
            group.start_soon(read, asked, call)
    return next((results[asked] for asked in reads if asked in results), None), failures


def names_execution(text: str) -> bool:
    """Whether it holds the id of an execution."""
    found = _ID.search(text)
    return found is not None and found.lastgroup == EXECUTION


def _reads(found: re.Match[str]) -> dict[str, Call]:
    """The reads that may show what an id is of, by kind."""
    name = found[0]
    match found.lastgroup:
        case "execution":
            return {EXECUTION: GetExecution(execution_id=name)}
        case "workflow":
            return {"workflow": GetWorkflow(workflow_id=name)}
        case "personal":
            return {"customer": GetCustomer(customer_id=name)}
        case "connection":
            # ucl:org:environment:connector:authentication:customer; there is no GET, but its parts filter the list.
            parts = name.split(":")
            connector, customer = (parts[3], parts[-1]) if len(parts) == 6 else (None, None)
            of = {"connector_id": connector, "customer_id": customer if customer != "default" else None}
            return {"connection": ListConnections.model_validate({"limit": 100} | of)} if connector else {}
        case _:
            return {
                "customer": GetCustomer(customer_id=name),
                "connector": GetConnector(connector_id=name),
                "trigger": GetTrigger(trigger_id=name),
            }


def _match(kind: str, record: FastnObject, wanted: str) -> Entry | None:
    """The answer as an entry, if it is of this id: nobody knows what Fastn answers to one that it does not know."""
    rows = cast("Listed[FastnObject]", record).items if kind == "connection" else [record]
    return next((found for row in rows if (found := entry(kind, row)).id.casefold() == wanted.casefold()), None)
