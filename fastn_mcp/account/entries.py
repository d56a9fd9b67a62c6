"""Named resources of an account: their lists, and the names by which they are searched for."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.client.reads import GETS, MAX_LOOKUPS, read_names, read_page, read_pages
from fastn_mcp.errors import LeftOut
from fastn_mcp.records.rows import Row, connector_keys, key_of, owner_of, started_workflows, text
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import MAY_BE_ID

Kind = Literal["customer", "connector", "connection", "workflow", "trigger", "user", "role", "api_key", "secret"]
"""Kinds of named resources."""

LISTS = {kind: cast("type[List[Any]]", OPERATIONS[f"list_{kind}s"]) for kind in get_args(Kind)}
"""The operation that lists each kind."""

MAX_PAGES = 30
"""Maximum number of pages of 100 rows read for one kind."""

MAX_NAMED = 7
"""Maximum number of requests for the names of customers in one answer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A resource with the names by which it is searched for."""

    kind: str
    id: str
    name: str
    also: tuple[str, ...]
    """Other names: slug, reference, email; number and last letters of a key."""
    customer: str | None
    """Id of the customer that owns it."""
    row: Row
    """Its row, without code."""
    related: tuple[tuple[str, str], ...] = ()
    """Kind and id of each resource that it belongs to or starts."""

    @property
    def emails(self) -> list[str]:
        return [name for name in self.also if "@" in name]


@dataclass(frozen=True, slots=True)
class Contents:
    """Resources of one kind. Not `complete` if there are more than were read."""

    entries: tuple[Entry, ...]
    complete: bool
    unread: int = 0
    """How many more there are, where Fastn says so."""


async def read_contents(kind: str, reads: AnswerReads, most: float = math.inf) -> Contents:
    """Return the resources of a kind, up to `MAX_PAGES`. Raises a `FastnError` if they cannot be read.

    Only the first page is read of a list with more than `most` others, or that would take more than half of the
    requests that the answer may send.
    """
    listing = LISTS[kind](limit=100)
    await read_page(listing, reads)
    pages = MAX_PAGES if is_affordable(kind, reads, most) else 1
    result = await read_pages(listing, reads, pages)
    if result.error is not None and not isinstance(result.error, LeftOut):
        raise result.error

    def make() -> Contents:
        entries: dict[str, Entry] = {}
        for item in (entry(kind, row) for row in result.rows):
            if item.name:
                entries.setdefault(item.id or f"without id {len(entries)}", item)
        is_complete = result.is_complete and not result.lost_rows
        return Contents(tuple(entries.values()), is_complete, max(0, (result.total or 0) - len(result.rows)))

    return reads.snapshot.derived(kind, result.pages, make)


def is_affordable(kind: str, reads: AnswerReads, most: float = math.inf) -> bool:
    """Whether the rest of a kind whose first page was read may be read: in at most `most` and not too many requests."""
    return (reads.snapshot.pages_left(LISTS[kind](limit=100)) or 0) <= min(most, reads.affordable // 2)


async def read_many_labels(
    kind: str, ids: Collection[str], reads: AnswerReads, most: int = MAX_NAMED
) -> dict[str, str]:
    """Return the names of these ids, of the first `most` if there are many of the kind, as far as they are read.

    Their list is read if that takes no more requests. Raises a `FastnError` if it cannot be read.
    """
    listing = LISTS[kind](limit=100)
    names = await read_labels(kind, ids, reads, most=0)
    if len(ids) - len(names) > 1:
        await read_page(listing, reads)
        unnamed = len(ids) - len(await read_labels(kind, ids, reads, most=0))
        if (reads.snapshot.pages_left(listing) or 0) <= min(unnamed, most):
            await read_contents(kind, reads)
    return await read_labels(kind, ids, reads, most=most)


async def read_labels(kind: str, ids: Iterable[str], reads: AnswerReads, most: int = MAX_LOOKUPS) -> dict[str, str]:
    """Return the names of these ids: listed names, and up to `most` names that are read one by one."""
    wanted = list(dict.fromkeys(ids))
    listed: Mapping[str, Row] = reads.stored(LISTS[kind](limit=100)).by_id if wanted else {}
    names = {key: text(listed[key], *_NAMES) for key in wanted if key in listed}
    names = {key: name for key, name in names.items() if name}
    unnamed = [key for key in wanted if key not in names and MAY_BE_ID.fullmatch(key)] if kind in GETS else []
    stored = [key for key in unnamed if reads.snapshot.holds(GETS[kind].model_validate({f"{kind}_id": key}))]
    unread = [key for key in unnamed if key not in stored][: max(0, most - len(stored))]
    return names | (await read_names({kind: [*stored, *unread]}, reads)).get(kind, {})


_NAMES = ("name", "connectionName", "workflowName", "slug", "email", "id")
_EMAILS = ("email", "adminEmail", "customerAdmin.email", "userEmail")


def entry(kind: str, whole: Row) -> Entry:
    """Return a row as an entry. Any of its fields may be missing."""
    row = {name: value for name, value in whole.items() if name != "code"}
    key = key_of(row)
    also = [text(row, field) for field in ("slug", "externalRef", *_EMAILS)]
    if kind == "api_key":
        also += [f"key {key}", f"apikey {key}", text(row, "last4")]
    name = text(row, *_NAMES)
    customer = owner_of(row)
    references = {"customer": [customer], "workflow": started_workflows(row), "connector": connector_keys(row)}
    related = tuple((of, id_) for of, ids in references.items() for id_ in ids if id_)
    return Entry(kind, key, name, also=tuple(filter(None, also)), customer=customer, row=row, related=related)
