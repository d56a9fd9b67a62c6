"""The tool `find_dependents`: the resources that use others, as previews of their deletion show them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self, cast

from pydantic import BeforeValidator, Field, JsonValue, model_validator
from pydantic_core import to_json

from fastn_mcp.account.dependence import Dependence, Unchecked, by_reason
from fastn_mcp.account.dependency_rules import dependency_rules
from fastn_mcp.account.dependents import describe_dependents
from fastn_mcp.account.resolve import read_label
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.lookup import KINDS_BY_ARGUMENT, is_id, resolve
from fastn_mcp.procedures.reads import read_if_short
from fastn_mcp.records.formats import quoted
from fastn_mcp.records.rows import FastnObject, key_of
from fastn_mcp.tools.bounds import TextBound, parsed_json
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.fields import in_words
from fastn_mcp.tools.tool import CONTROL, Effect

Entry = dict[str, JsonValue]

MAX_RECORDS = 20
"""Maximum number of resources of one answer."""

_MAX_NAME = 256
"""Maximum number of characters of each of several ids or names, as of a single one."""

_NO_LONGER = ("kind", "id", "ids")
"""Arguments that stood for those that every other tool has."""


def _as_text(several: object) -> object:
    """Return a list as JSON text, as the schema has it: clients read unions badly."""
    return to_json(several).decode() if isinstance(several, list) else several


def _records(given: str) -> list[str]:
    """Return the ids or names in an argument: one, a JSON list, or ids with commas between."""
    several = parsed_json(given)
    if isinstance(several, list):
        return [str(each) for each in cast("list[object]", several)]
    parts = [part.strip() for part in given.split(",")]
    return parts if len(parts) > 1 and all(map(is_id, parts)) else [given]


_Records = Annotated[str, BeforeValidator(_as_text), TextBound(6_000)]


class ResourceDependents(FastnObject):
    """Resources that use another, and what could not be checked."""

    shape = (("used_by", "array"), ("not_checked", "array"))


class FindDependents(Procedure[ResourceDependents]):
    """Find what uses a resource, and what breaks without it."""

    effect = Effect.READ
    _control_characters = CONTROL

    customer_id: Annotated[_Records | None, Field(description='Or several: ["A","B"].')] = None
    connector_id: Annotated[_Records | None, Field(description="Likewise.")] = None
    connection_id: Annotated[_Records | None, Field(description="Likewise.")] = None
    workflow_id: Annotated[_Records | None, Field(description="Likewise.")] = None
    secret_id: Annotated[_Records | None, Field(description="Likewise.")] = None
    trigger_id: Annotated[_Records | None, Field(description="Likewise.")] = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_kind_and_id(cls, raw: object) -> object:
        if isinstance(raw, dict) and not raw.keys().isdisjoint(_NO_LONGER):
            raise ValueError(f"give {in_words(_ARGUMENTS)} in place of kind and id")
        return cast(object, raw)

    @model_validator(mode="after")
    def _names_one_kind(self) -> Self:
        values = [value for value in vars(self).values() if value is not None]
        records = _records(values[0]) if len(values) == 1 else []
        if not 1 <= len(records) <= MAX_RECORDS or not all(each.strip() for each in records):
            raise ValueError(f"give one of {in_words(_ARGUMENTS)}, with 1 to {MAX_RECORDS} ids or names")
        if any(len(each) > _MAX_NAME for each in records):
            raise ValueError(f"an id or name has at most {_MAX_NAME} characters")
        return self

    @property
    def _argument(self) -> tuple[str, str]:
        """Return the name and value of the argument that was given."""
        return next((name, value) for name, value in self if value is not None)

    @property
    def target(self) -> str | None:
        _, value = self._argument
        return value

    async def run(self, context: ProcedureContext) -> ResourceDependents:
        name, value = self._argument
        kind = KINDS_BY_ARGUMENT[name]
        records = list(dict.fromkeys(_records(value)))
        if len(records) > 1:
            answer = await _several(kind, records, context)
        else:
            of, dependence = await _dependents(kind, records[0], context)
            answer = {"of": {"kind": kind, **of}, "used_by": [], "not_checked": [], **dependence.data()}
            answer |= {"none": [*dependence.none]} if dependence.none else {}
        return ResourceDependents.model_validate(answer | context.look.age())


_ARGUMENTS = tuple(FindDependents.model_fields)


async def _several(kind: str, ids: Sequence[str], context: ProcedureContext) -> dict[str, JsonValue]:
    """Return in brief what uses each of these. Lists that are short are read once for all of them."""
    rules = dependency_rules(kind, ids[0], None)
    for rule in (*rules.certain, *rules.possible):
        if rule.depends is None:
            listing: Any = type(rule.reading)(limit=100)  # pyright: ignore[reportCallIssue]
            await read_if_short(listing, context.look, len(ids) - 1)
    rows: list[JsonValue] = []
    gaps: list[Unchecked] = []
    for typed in ids:
        try:
            of, dependence = await _dependents(kind, typed, context)
        except FastnError as error:
            rows.append({"id": typed, "error": str(error)})
            continue
        possible: list[JsonValue] = [use.brief() for use in dependence.possible]
        of["used_by"] = [use.brief() for use in dependence.certain]
        if possible:
            of["may_be_used_by"] = possible
        if dependence.none:
            of["none"] = [*dependence.none]
        rows.append(of)
        gaps += [Unchecked(f"{gap.what} of {quoted(str(of.get('name', typed)))}", gap.why) for gap in dependence.gaps]
    return {"kind": kind, "used_by": rows, "not_checked": [gap.data() for gap in by_reason(gaps)]}


async def _dependents(kind: str, typed: str, context: ProcedureContext) -> tuple[Entry, Dependence]:
    """Return the id and name of a resource, and what uses it. Raises `NotFound` if it does not exist."""
    resource = await resolve(kind, typed, context)
    operation = OPERATIONS[f"delete_{kind}"]  # as the guard would preview it
    deleting = operation.model_validate({operation.route.parameters[-1]: resource.id})
    target = FastnObject.model_validate(resource.row) if resource.row else None
    dependence = await describe_dependents(
        deleting, target, context.look, now=context.system.now(), report=context.report
    )
    of: Entry = {"id": key_of(resource.row) or resource.id}
    if target is not None:
        of["name"] = str(await read_label(deleting, target, context.look) or resource.id)
    unread = () if resource.error is None else (Unchecked("the resource itself", resource.error.what),)
    return of, replace(dependence, gaps=(*unread, *dependence.gaps))
