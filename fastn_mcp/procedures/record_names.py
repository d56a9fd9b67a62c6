"""Names and slugs in place of ids in calls that change something, looked up by fresh reads before the guard judges.

A name costs one search. The guard, the question and the approval know ids only, so that an approval holds for the
record that was shown, also if its name moves to another.
"""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import JsonValue, ValidationError

from fastn_mcp.account.entries import LISTS, Contents, Entry, entry
from fastn_mcp.account.short_ids import AnyCall
from fastn_mcp.client.reads import SHORT_PAGES, Pages
from fastn_mcp.client.targets import connection_filters
from fastn_mcp.errors import NOTHING_SENT, Disabled, FastnError, Invalid, InvalidArgument, NotFound, NotSent
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.lookup import KINDS_BY_ARGUMENT, fitting, is_id, names_not_looked_up, unresolved
from fastn_mcp.procedures.ranking import words_of
from fastn_mcp.records.rows import key_of, row_of, text
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.paging import MAX_LIMIT
from fastn_mcp.tools.tool import MAY_BE_ID, Effect, problems

_FIELDS: Mapping[str, Mapping[str, str]] = {
    "routes": {"routeId": "workflow"},
    "context": {"customerId": "customer", "workflowId": "workflow", "connectorId": "connector"},
}
"""Fields of objects that name records, with the kind of each, by argument."""

_LISTS_OF = {"customers": "customer"}
"""Arguments that are lists of records."""

_SLUGS_OF = {"connectors": "connector"}
"""Arguments that are lists of slugs. What looks like a slug is not looked up."""


async def with_ids(call: AnyCall, context: ProcedureContext) -> AnyCall:
    """Return a changing call with the ids of the records that its arguments name, and any other call as it is.

    Raises a `FastnError` if a name fits no record or several.
    """
    if call.effect is Effect.READ:
        return call
    names = _NameLookUp(context)
    arguments = call.model_dump(exclude_unset=True)
    if isinstance(call, ApplyChanges):
        resolved = arguments | {"changes": await _changes_with_ids(call, names)}
    else:
        resolved = await names.in_arguments(arguments)
    if not names.has_found:
        return call
    try:
        return type(call).model_validate(resolved)
    except ValidationError as error:  # such as two names of one record in a list
        raise InvalidArgument(f"{problems(type(call), error)}.", "Correct the arguments and call again.") from None


async def _changes_with_ids(call: ApplyChanges, names: "_NameLookUp") -> list[JsonValue]:
    changes: list[JsonValue] = []
    for number, inner in enumerate(call.inner_calls, 1):
        tool = inner.tool_name()
        try:
            arguments = await names.in_arguments(inner.model_dump(exclude_unset=True))
        except FastnError as error:
            what = f"Call {number}, {tool}: {error.what}"
            raise type(error)(what, error.next_step, certainty=error.known, facts=error.facts) from None
        changes.append({"tool": tool, "arguments": arguments})
    return changes


class _NameLookUp:
    """Looks up the names in the arguments of a call or a list of calls, each once."""

    def __init__(self, context: ProcedureContext) -> None:
        self._context = context
        self._records: dict[tuple[str, str], Entry | None] = {}

    @property
    def has_found(self) -> bool:
        return any(self._records.values())

    async def in_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of one call with ids in place of names."""
        resolved = dict[str, Any]()
        for name, value in arguments.items():
            if name in KINDS_BY_ARGUMENT:
                resolved[name] = await self._id_of(KINDS_BY_ARGUMENT[name], value)
            elif name in _LISTS_OF and value is not None:
                ids = [await self._id_of(_LISTS_OF[name], each) for each in value]
                resolved[name] = list(dict.fromkeys(ids))
            elif name in _SLUGS_OF and value is not None:
                resolved[name] = [await self._slug_of(_SLUGS_OF[name], each) for each in value]
            elif name in _FIELDS and isinstance(value, dict):
                resolved[name] = await self._in_fields(_FIELDS[name], cast("dict[str, Any]", value))
            elif name in _FIELDS and isinstance(value, list):
                objects = cast("list[dict[str, Any]]", value)
                resolved[name] = [await self._in_fields(_FIELDS[name], each) for each in objects]
            else:
                resolved[name] = value
        return resolved

    async def _in_fields(self, kinds: Mapping[str, str], fields: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: await self._id_of(kinds[name], value) if name in kinds else value for name, value in fields.items()
        }

    async def _id_of(self, kind: str, typed: Any) -> Any:
        """Return the id of what a text names; any other value, such as null, as it is."""
        if not isinstance(typed, str) or not words_of(typed):
            return typed
        found = await self._found(kind, typed)
        return typed if found is None else found.id

    async def _slug_of(self, kind: str, typed: str) -> str:
        if MAY_BE_ID.fullmatch(typed) and not is_id(typed):
            return typed
        found = await self._found(kind, typed, is_id_known=False)
        return typed if found is None else text(found.row, "slug") or typed

    async def _found(self, kind: str, typed: str, *, is_id_known: bool = True) -> Entry | None:
        if (kind, typed) not in self._records:
            found = None
            if not is_id_known and is_id(typed):
                found = await _record_with_id(kind, typed, self._context)
            else:
                found = await _record_named(kind, typed, self._context)
            self._records[kind, typed] = found
        return self._records[kind, typed]


async def _record_named(kind: str, typed: str, context: ProcedureContext) -> Entry | None:
    """Return the only record of a kind that a text names. None if the text is an id, or may be one of no listed record.

    Raises a `FastnError`: with the records if several are named so, or if not all could be looked through.
    """
    is_number_of_key = kind == "api_key" and typed.isdecimal()
    if is_id(typed) or is_number_of_key or (kind == "connection" and connection_filters(typed)):
        return None
    may_be_id = MAY_BE_ID.fullmatch(typed) is not None
    try:
        if may_be_id and await _record_with_id(kind, typed, context) is not None:
            return None
    except FastnError:
        return None  # which the guard meets as well
    try:
        contents = await _candidates(kind, typed, context)
    except Disabled as error:
        if may_be_id:
            return None
        raise names_not_looked_up(kind, error) from None
    if any(item.id == typed for item in contents.entries):
        return None
    matching = fitting(typed, contents.entries)
    if len(matching) == 1 and contents.complete and matching[0].id:
        return matching[0]
    if not matching and may_be_id:
        return None  # the guard reads it by this id, and says so if there is none
    error = unresolved(kind, typed, contents, matching)
    raise type(error)(error.what, error.next_step, certainty=NOTHING_SENT, facts=error.facts)


async def _record_with_id(kind: str, id_: str, context: ProcedureContext) -> Entry | None:
    """Read the record with this id. Returns None if there is none, or if its kind is only listed.

    Raises another `FastnError` if that is unclear.
    """
    operation = OPERATIONS.get(f"get_{kind}")
    if operation is None:
        return None
    reading: Any = operation.model_validate({f"{kind}_id": id_})
    try:
        row = row_of(await context.read(reading))
    except (NotFound, Invalid, NotSent):
        return None
    return entry(kind, {"id": id_, **row}) if key_of(row) in ("", id_) else None


async def _candidates(kind: str, typed: str, context: ProcedureContext) -> Contents:
    """Return the records that Fastn finds by a text; of a list without search, and where it is ignored, the first ones.

    Raises a `FastnError` if they cannot be read.
    """
    lister: Any = LISTS[kind]
    has_search = "search" in lister.model_fields
    listing = lister(limit=MAX_LIMIT, **({"search": typed} if has_search else {}))
    pages = Pages(listing, context.read, SHORT_PAGES)
    first = await anext(pages)
    is_filtered = has_search and first.received == len(first.rows)
    is_long = first.total is not None and first.total > SHORT_PAGES * MAX_LIMIT
    if not is_filtered and not is_long:
        await pages.read_rest()
    entries = tuple(entry(kind, row) for row in pages.rows)
    return Contents(entries, complete=pages.is_complete)
