"""The tool `find_dependents`: what uses a resource, with examples."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from fastn_mcp.errors import NOTHING_SENT, FastnError, NotFound
from fastn_mcp.fastn.dependents import DependencyRule, Unchecked, Uses, dependency_rules, every, uses_of
from fastn_mcp.fastn.names import example_name, label_of, references
from fastn_mcp.fastn.rows import Row, key_of, owner_of, row_of
from fastn_mcp.fastn.states import STATES, State
from fastn_mcp.fastn.targets import Call, no_such, read_names, read_target
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.tools.catalog import BY_NAME
from fastn_mcp.tools.tool import DRY_RUN, Effect, FastnObject

Kind = Literal["customer", "connector", "connection", "workflow", "secret", "trigger"]

EXAMPLES = {"connections": 10, "executions": 3}
"""Examples of kinds whose ids are long, or of which one says no more than another."""

MANY = 30
"""Examples of the other kinds."""

DETAILS = 30
"""Rows of one kind that are read one by one, where the list does not show enough."""


class Impact(FastnObject):
    """What uses a resource."""


class FindDependents(Procedure[Impact]):
    """Find what uses a resource, before you change or delete it."""

    effect = Effect.READ

    kind: Annotated[Kind, Field(description="Its kind.")]
    id: Annotated[str, Field(description="Its id.", min_length=1)]

    @property
    def target(self) -> str | None:
        return self.id

    async def run(self, context: ProcedureContext) -> Impact:
        deleting = self._deleting()
        target, doubts = await _record(deleting, context)
        where = dependency_rules(self.kind, self.id, target)
        used = await self._found(where.certain, context, doubts)
        perhaps = await self._found(where.possible, context, doubts)
        doubts += where.unchecked
        of: dict[str, JsonValue] = {"kind": self.kind, "id": self.id}
        if target is not None:
            names = await read_names(references(self.kind, row_of(target)), context.read)
            of["name"] = str(label_of(self.kind, row_of(target), names) or self.id)
        answer: dict[str, JsonValue] = {"of": of, "used_by": used}
        if perhaps:
            answer["may_be_used_by"] = perhaps
        answer["not_checked"] = [{"what": doubt.what, "why": doubt.why} for doubt in doubts]
        name = deleting.tool_name()
        answer["next"] = {"tool": name, "arguments": {**deleting.arguments(), DRY_RUN: True}}
        return Impact.model_validate(answer)

    def _deleting(self) -> Call:
        """The deletion of it: what the guard would preview."""
        operation = BY_NAME[f"delete_{self.kind}"]
        return operation.model_validate({operation.route.parameters[-1]: self.id})

    async def _found(
        self, where: tuple[DependencyRule, ...], context: ProcedureContext, doubts: list[Unchecked]
    ) -> list[JsonValue]:
        """What the looks find; adds what they leave open to `doubts`."""
        found: list[JsonValue] = []
        for number, look in enumerate(where):
            await context.report(f"Looking through {look.kind}", number, len(where))
            try:
                uses = await uses_of(look, context.read, DETAILS)
            except FastnError as error:
                doubts.append(Unchecked(look.kind, error.what))
                continue
            doubts += _open(look, uses)
            if uses.count:
                found.append(await _row(look, uses, context))
        return found


async def _record(deleting: Call, context: ProcedureContext) -> tuple[FastnObject | None, list[Unchecked]]:
    """The resource, or the doubt that is left where it cannot be read. Raises where it is not there."""
    try:
        target = await read_target(deleting, context.read)
    except NotFound:
        raise
    except FastnError as error:
        return None, [Unchecked("the resource itself", error.what)]
    if target is None:
        raise NotFound(*no_such(deleting), certainty=NOTHING_SENT)
    return target, []


def _open(look: DependencyRule, uses: Uses) -> list[Unchecked]:
    """What was left open."""
    if uses.silent:
        return [
            Unchecked(
                f"{uses.silent} {look.kind}",
                f"The list does not show what they use, and at most {DETAILS} are read one by one.",
            )
        ]
    if not uses.is_conclusive:
        return [Unchecked(look.kind, "There are more than are read, and none of the first uses it.")]
    return []


async def _row(look: DependencyRule, uses: Uses, context: ProcedureContext) -> dict[str, JsonValue]:
    rows = [row_of(row) for row in uses.rows[: EXAMPLES.get(look.kind, MANY)]]
    owners = filter(None, map(owner_of, rows)) if look.kind == "connections" else ()
    of = {"customer": await context.directory.names("customer", owners, context.read)}
    names = [example_name(look.kind, row, of) for row in rows]
    examples: list[JsonValue] = [_example(look.kind, row, name) for row, name in zip(rows, names, strict=True)]
    said: dict[str, JsonValue] = {"kind": look.kind, "count": uses.count}
    if uses.more:
        said["at_least"] = True
    said["examples"] = examples
    if len(examples) < uses.count and look.depends is every:
        wanted = {name: value for name, value in look.reading.arguments().items() if name != "limit"}
        said["more"] = {"tool": look.reading.tool_name(), "arguments": wanted}
    return said


def _example(kind: str, row: Row, name: str) -> dict[str, JsonValue]:
    """One that uses it, with its state where that is not the usual one."""
    said: dict[str, JsonValue] = {"id": key_of(row)}
    if name != key_of(row):
        said["name"] = name
    if kind in STATES and (state := STATES[kind](row)) is not State.LIVE:
        said["state"] = state.value
    return said
