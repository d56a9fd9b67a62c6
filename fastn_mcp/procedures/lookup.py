"""Look up a resource by id, slug or name, or in a list, and complete ids from what was typed."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from fastn_mcp.account.entries import LISTS, Contents, Entry, entry, read_contents
from fastn_mcp.client.reads import read_page
from fastn_mcp.client.targets import connection_filters, find_listed
from fastn_mcp.errors import Disabled, Failed, FastnError, InvalidArgument, LeftOut, NotFound, NotSent
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.ranking import Index, words_of
from fastn_mcp.records.formats import quoted
from fastn_mcp.records.labels import distinction, label_of
from fastn_mcp.records.rows import FastnObject, Row, key_of, row_of, short, text
from fastn_mcp.records.states import status_and_state
from fastn_mcp.redaction import name_as_read
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.workflows import ListExecutions, ListWorkflows


@dataclass(frozen=True, slots=True)
class FoundResource:
    """A resource. Its row is empty if it could not be read, for the reason in `error`."""

    id: str
    row: Row
    error: FastnError | None = None


ID = re.compile(
    r"(?P<execution>exec_\w+)|(?P<workflow>wf_\w+)|(?P<customer>(?:org|personal)_\w+)"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    re.IGNORECASE,
)
"""An id, in a group by the kind of resource; in none if it may be of several kinds."""

_PREFIXED_ID = re.compile(r"[a-z]+_[0-9a-f]{8,}|sec_\w+")
"""Other ids of Fastn's, which begin with their kind."""

KINDS_BY_ARGUMENT = {f"{kind}_id": kind for kind in LISTS}
"""Kinds of the records that arguments name by id, slug or name."""

_MAX_SUGGESTIONS = 3
"""Maximum number of names suggested if none matches."""

_MAX_CANDIDATES = 10
"""Maximum number of resources of one name that are listed to choose from."""


def names_in(call: Operation[Any]) -> dict[str, str]:
    """Return the kinds of the resources that a reading call names other than by one of Fastn's ids, by argument."""
    kinds: dict[str, str] = {}
    for argument in filter(KINDS_BY_ARGUMENT.__contains__, type(call).model_fields):
        typed = getattr(call, argument)
        if typed and (_takes_slug(call) or not is_id(typed)):
            kinds[argument] = KINDS_BY_ARGUMENT[argument]
    return kinds


def _takes_slug(call: Operation[Any]) -> bool:
    """Whether a call needs the slug of the connector that it names: workflows name connectors so."""
    return isinstance(call, ListWorkflows)


async def ids_named(
    call: Operation[Any], unclear: Mapping[str, str], context: ProcedureContext, *, are_tried: bool
) -> dict[str, str]:
    """Return the ids of what these arguments name otherwise. Raises a `FastnError` if that is unclear.

    `are_tried`: a read by them as ids found nothing.
    """
    ids: dict[str, str] = {}
    for argument, kind in unclear.items():
        resource = await resolve(kind, getattr(call, argument), context, is_tried=are_tried)
        takes_slug = _takes_slug(call)
        if takes_slug and resource.error is not None:
            raise resource.error
        ids[argument] = text(resource.row, "slug") or resource.id if takes_slug else resource.id
    return {argument: id_ for argument, id_ in ids.items() if getattr(call, argument) != id_}


def is_id(typed: str) -> bool:
    """Whether it looks like one of Fastn's ids. Other ids are not known from a slug."""
    return ID.fullmatch(typed) is not None or _PREFIXED_ID.fullmatch(typed) is not None


async def resolve(
    kind: str, typed: str, context: ProcedureContext, *, fields: Collection[str] = (), is_tried: bool = False
) -> FoundResource:
    """Return the resource with this id, slug or name. Raises `NotFound` if there is none, `NotSent` if several.

    Raises `Disabled` for a name, if the settings switch off its list; an id is then taken as it is. `is_tried`: a read
    by it as an id found nothing. `fields`: the resource itself is read if the row of a list lacks one of these.
    """
    try:
        return await _resolve(kind, typed, context, fields, is_tried=is_tried)
    except Disabled as error:
        if is_id(typed) or (kind == "connection" and connection_filters(typed)):
            return FoundResource(typed, {}, error)
        raise names_not_looked_up(kind, error) from None


def names_not_looked_up(kind: str, error: Disabled) -> Disabled:
    """Return the error for a name, if the settings switch off the list of its kind."""
    return Disabled(f"Names of {kind}s are not looked up. {error.what}", "Give an id.")


async def _resolve(
    kind: str, typed: str, context: ProcedureContext, fields: Collection[str], *, is_tried: bool
) -> FoundResource:
    listing = LISTS[kind](limit=MAX_NAMES)
    candidates = tuple[Entry, ...]()
    is_complete = False
    known = _stored(kind, typed, listing, context)
    if known is not None:
        return await _with_fields(known, fields, context)
    if not is_id(typed):
        with suppress(FastnError):  # it may be readable by its id
            candidates, is_complete = await _search(kind, typed, context)
    is_name = is_tried or len(named(typed, candidates)) == 1
    resource = None if is_name else await _read_itself(kind, typed, context)
    if resource is not None and isinstance(resource.error, LeftOut) and not is_id(typed):
        raise resource.error  # it may be a name
    if resource is not None and not isinstance(resource.error, NotFound):
        return resource
    if resource is not None and resource.error is not None and is_id(typed):  # an id, which no resource has as its name
        if await _is_on_page(listing, typed, context):
            return resource  # it is listed, though it cannot be read
        raise resource.error
    contents = Contents(candidates, complete=True)
    if not (named(typed, candidates) or (candidates and is_complete)):  # Fastn's search may miss it
        contents = await read_contents(kind, context.look)
    matching = named(typed, contents.entries)
    if resource is not None and any(item.id == typed for item in matching):
        return resource  # it is listed, though it cannot be read
    if len(matching) == 1 and matching[0].id:
        return await _with_fields(matching[0], fields, context)
    raise unresolved(kind, typed, contents, matching)


def _stored(kind: str, typed: str, listing: List[Any], context: ProcedureContext) -> Entry | None:
    """Return the only entry that `typed` can mean among the rows of its list that were read already."""
    stored = [entry(kind, row) for row in context.look.stored(listing).rows]
    known = {item.id: item for item in named(typed, stored) if item.id}
    if len(known) == 1 and (typed in known or context.look.snapshot.pages_left(listing) == 0):
        return next(iter(known.values()))
    return None


async def _read_itself(kind: str, typed: str, context: ProcedureContext) -> FoundResource | None:
    """Read a resource as `read_by_id` does. Returns None also if that is disabled: its list may be enabled."""
    resource = await read_by_id(kind, typed, context)
    return None if resource is not None and isinstance(resource.error, Disabled) else resource


async def _is_on_page(listing: List[Any], id_: str, context: ProcedureContext) -> bool:
    """Whether a list may be read, and its first page has this id."""
    try:
        page = await read_page(listing, context.look)
    except Disabled:
        return False
    return any(key_of(row) == id_ for row in page.rows)


async def _with_fields(item: Entry, fields: Collection[str], context: ProcedureContext) -> FoundResource:
    """Return a listed resource, read itself if its row lacks one of these fields."""
    listed = FoundResource(item.id, item.row)
    read = None if item.row.keys() >= {*fields} else await read_by_id(item.kind, item.id, context)
    return listed if read is None or isinstance(read.error, (Disabled, LeftOut, NotFound)) else read


def unresolved(kind: str, typed: str, contents: Contents, matching: Sequence[Entry]) -> FastnError:
    """Return why it is not known which resource was meant, with the resources that may be meant."""
    if len(matching) == 1 and matching[0].id:
        return InvalidArgument(
            f"Not all {kind}s were looked through: others may have this name or slug too.",
            f"Give its id: {matching[0].id} ({quoted(_distinction(kind, matching[0]))})",
            facts={"untrusted": True},
        )
    if matching:
        candidates = "; ".join(f"{item.id} ({quoted(_distinction(kind, item))})" for item in matching[:_MAX_CANDIDATES])
        return InvalidArgument(
            f"{len(matching)} {kind}s have this name or slug.",
            f"Give the id of one: {candidates}",
            facts={"untrusted": True},
        )
    if not contents.complete:
        return Failed(
            f"Not all {kind}s were looked through, to keep within Fastn's rate limit.",
            "Give the id, or call again later.",
        )
    # A connection is called by its app and customer, by which find knows it; its own name is mostly `default`.
    most = 0 if kind == "connection" else _MAX_SUGGESTIONS
    near = ", ".join(_with_status(hit.entry) for hit in Index(contents.entries).rank(typed).candidates[:most])
    return NotFound(
        f"No {kind} has this id, slug or name, or the server's API key has no access to it.",
        f"Did you mean: {near}?" if near else "Search with find.",
        facts={"untrusted": True} if near else None,
    )


def _with_status(item: Entry) -> str:
    """Return the name of a resource with its status: `Nightly sync (inactive, switched off)`."""
    states = ", ".join(quoted(short(word)) for word in status_and_state(item.kind, item.row).values())
    name = quoted(short(item.name))
    return f"{name} ({states})" if states else name


def _distinction(kind: str, item: Entry) -> str:
    label = label_of(kind, item.row)
    return short(distinction(kind, item.row, label) or label.name) if label else ""


def named(typed: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with this id, name, slug or email: exactly as typed, or else in any case and punctuation."""
    matching = fitting(typed, entries)
    return [item for item in matching if typed.strip() in (item.id, item.name, *item.also)] or matching


def fitting(typed: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with this id, name, slug or email in any case and punctuation, also if one has it exactly."""
    id_ = typed.strip().casefold()
    words = words_of(typed)
    as_read = name_as_read(typed)

    def fits(item: Entry) -> bool:
        names = (item.name, *item.also)
        if item.id.casefold() == id_ or (words and words in map(words_of, names)):
            return True
        return bool(as_read) and as_read in map(name_as_read, names)

    return [item for item in entries if fits(item)]


async def read_by_id(kind: str, id_: str, context: ProcedureContext) -> FoundResource | None:
    """Read a resource by its id. Returns None if it cannot be an id, or has to be looked for in the whole list."""
    try:
        operation = OPERATIONS.get(f"get_{kind}")
        if operation is not None:
            reading: Any = operation.model_validate({f"{kind}_id": id_})
            row = row_of(await context.look(reading))
            return FoundResource(key_of(row) or id_, row)
        if kind == "connection" and (filters := connection_filters(id_)):  # its parts filter the list
            page = await read_page(ListConnections.model_validate({"limit": MAX_NAMES, **filters}), context.look)
            return next((FoundResource(id_, row) for row in page.rows if key_of(row) == id_), None)
    except Disabled as error:
        return FoundResource(id_, {}, error)
    except NotSent:
        return None
    except FastnError as error:
        return FoundResource(id_, {}, error)
    return None


async def _search(kind: str, typed: str, context: ProcedureContext) -> tuple[tuple[Entry, ...], bool]:
    """Return the first resources that Fastn finds by what was typed, and whether those are all; none without search."""
    lister: Any = LISTS[kind]
    if "search" not in lister.model_fields:
        return (), False
    page = await read_page(lister(search=typed, limit=MAX_NAMES), context.look)
    return tuple(entry(kind, row) for row in page.rows), page.next_cursor is None


class ReadRow(Procedure[FastnObject]):
    """Read one row of a list by its id."""

    effect = Effect.READ

    kind: Annotated[str, Field(description="As in LISTS.")]
    id: Annotated[str, Field(description="Its id.", min_length=1)]

    @property
    def target(self) -> str | None:
        return self.id

    async def run(self, context: ProcedureContext) -> FastnObject:
        lister: Any = LISTS[self.kind]
        found = await find_listed(lister, self.id, context.read)
        if found.row is not None:
            return lister.row_type().model_validate(found.row)
        if not found.is_settled:
            raise Failed(
                f"It is not among {found.looked_through}, and no more are looked through.",
                f"Look for it with {lister.tool_name()} and its filters.",
            )
        raise NotFound("There is no such id.", f"See {lister.tool_name()}.")


MAX_NAMES = 100
"""Maximum number of values in one completion, by the MCP specification."""

KINDS = (*LISTS, "execution")
"""Kinds that can be completed. Executions have no names: the newest are found by their workflows' names."""


class Ids(FastnObject):
    """Matching ids, best first."""

    values: list[str]
    total: int | None = None
    """Number of all matches, if everything was read."""
    more: bool = False


class CompleteId(Procedure[Ids]):
    """Complete an id from what was typed."""

    effect = Effect.READ

    kind: Annotated[str, Field(description="One of KINDS.")]
    typed: Annotated[str, Field(description="What was typed so far.")] = ""

    async def run(self, context: ProcedureContext) -> Ids:
        if self.kind == "execution":
            page = await read_page(ListExecutions(limit=MAX_NAMES), context.look)
            rows = ({**row, "name": row.get("workflowName"), "slug": row.get("workflowSlug")} for row in page.rows)
            contents = Contents(tuple(entry("execution", row) for row in rows), complete=page.next_cursor is None)
        else:
            contents = await read_contents(self.kind, context.look)
        matching = [entry.id for entry in ranked(self.typed, contents.entries) if entry.id]
        total = len(matching) if contents.complete else None
        return Ids(
            values=matching[:MAX_NAMES],
            total=total,
            more=len(matching) > MAX_NAMES or not contents.complete,
        )


def ranked(typed: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that match `typed`, best first."""
    query = " ".join(typed.casefold().split())
    if not query:
        return list(entries)
    ranks = [(_rank(query, item), item) for item in entries]
    matches = [(rank, item) for rank, item in ranks if rank is not None]
    return [item for _, item in sorted(matches, key=lambda pair: pair[0])]


def _rank(query: str, item: Entry) -> int | None:
    """Return 0 for a whole name or id, 1 for its beginning, 2 for a word's beginning, 3 for a part, else None."""
    names = [name.casefold() for name in (item.id, item.name, *item.also)]
    is_beginning = any(name.startswith(query) for name in names)
    ranks = query in names, is_beginning, any(f" {query}" in name for name in names), any(query in it for it in names)
    return ranks.index(True) if True in ranks else None
