"""The tool `find_dependents`: the resources that use others, as previews of their deletion show them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from fastn_mcp.account.dependence import Dependence, Unchecked, by_reason
from fastn_mcp.account.dependency_rules import dependency_rules
from fastn_mcp.account.dependents import describe_dependents
from fastn_mcp.account.resolve import read_label
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.lookup import resolve
from fastn_mcp.procedures.reads import read_if_short
from fastn_mcp.records.formats import quoted
from fastn_mcp.records.rows import FastnObject, key_of
from fastn_mcp.tools.bounds import JsonBound
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.fields import Texts
from fastn_mcp.tools.tool import CONTROL, Effect

Entry = dict[str, JsonValue]
Kind = Literal["customer", "connector", "connection", "workflow", "secret", "trigger"]

MAX_IDS = 20
"""Maximum number of resources of one answer."""


class ResourceDependents(FastnObject):
    """Resources that use another, and what could not be checked."""

    shape = (("used_by", "array"), ("not_checked", "array"))


class FindDependents(Procedure[ResourceDependents]):
    """Find which workflows and others use a resource, what breaks without it."""

    effect = Effect.READ
    _control_characters = CONTROL

    kind: Annotated[Kind, Field(description="Its kind.")]
    id: Annotated[str | None, Field(description="Id or name.", min_length=1)] = None
    ids: Annotated[Texts | None, Field(description="Several, in brief."), JsonBound(values=MAX_IDS, size=20_000)] = None

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        ids = [self.id] if self.ids is None else self.ids
        if (self.id and self.ids) or not all(ids) or not 1 <= len(ids) <= MAX_IDS:
            raise ValueError(f"give id, or 1 to {MAX_IDS} ids")
        return self

    @property
    def target(self) -> str | None:
        return self.id

    async def run(self, context: ProcedureContext) -> ResourceDependents:
        if self.id is None:
            answer = await _several(self.kind, list(dict.fromkeys(self.ids or ())), context)
        else:
            of, dependence = await _dependents(self.kind, self.id, context)
            answer = {"of": {"kind": self.kind, **of}, "used_by": [], "not_checked": [], **dependence.data()}
            answer |= {"none": [*dependence.none]} if dependence.none else {}
        return ResourceDependents.model_validate(answer | context.look.age())


async def _several(kind: Kind, ids: Sequence[str], context: ProcedureContext) -> dict[str, JsonValue]:
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


async def _dependents(kind: Kind, typed: str, context: ProcedureContext) -> tuple[Entry, Dependence]:
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
