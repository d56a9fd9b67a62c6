"""The tool `find_dependents`: the resources that use another, with examples."""

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
"""Maximum number of examples by kind: fewer if ids are long, or if the examples hardly differ."""

MANY = 30
"""Maximum number of examples of the other kinds."""

DETAILS = 30
"""Maximum number of rows of one kind to read one by one, if the list does not show enough."""


class ResourceDependents(FastnObject):
    """Resources that use another, and what could not be checked."""

    shape = (("used_by", "array"), ("not_checked", "array"))


class FindDependents(Procedure[ResourceDependents]):
    """Find what uses a resource, before you change or delete it."""

    effect = Effect.READ

    kind: Annotated[Kind, Field(description="Its kind.")]
    id: Annotated[str, Field(description="Its id.", min_length=1)]

    @property
    def target(self) -> str | None:
        return self.id

    async def run(self, context: ProcedureContext) -> ResourceDependents:
        deleting = self._deleting()
        target, unchecked = await _record(deleting, context)
        rules = dependency_rules(self.kind, self.id, target)
        used_by = await self._dependents(rules.certain, context, unchecked)
        may_be_used_by = await self._dependents(rules.possible, context, unchecked)
        unchecked += rules.unchecked
        of: dict[str, JsonValue] = {"kind": self.kind, "id": self.id}
        if target is not None:
            names = await read_names(references(self.kind, row_of(target)), context.read)
            of["name"] = str(label_of(self.kind, row_of(target), names) or self.id)
        answer: dict[str, JsonValue] = {"of": of, "used_by": used_by}
        if may_be_used_by:
            answer["may_be_used_by"] = may_be_used_by
        answer["not_checked"] = [{"what": gap.what, "why": gap.why} for gap in unchecked]
        name = deleting.tool_name()
        answer["next"] = {"tool": name, "arguments": {**deleting.arguments(), DRY_RUN: True}}
        return ResourceDependents.model_validate(answer)

    def _deleting(self) -> Call:
        """Return the call that deletes the resource, as the guard would preview it."""
        operation = BY_NAME[f"delete_{self.kind}"]
        return operation.model_validate({operation.route.parameters[-1]: self.id})

    async def _dependents(
        self, rules: tuple[DependencyRule, ...], context: ProcedureContext, unchecked: list[Unchecked]
    ) -> list[JsonValue]:
        """Return the dependents that the rules find. Appends to `unchecked` what they could not check."""
        found: list[JsonValue] = []
        for number, rule in enumerate(rules):
            await context.report(f"Looking through {rule.kind}", number, len(rules))
            try:
                uses = await uses_of(rule, context.read, DETAILS)
            except FastnError as error:
                unchecked.append(Unchecked(rule.kind, error.what))
                continue
            unchecked += _unchecked(rule, uses)
            if uses.count:
                found.append(await _row(rule, uses, context))
        return found


async def _record(deleting: Call, context: ProcedureContext) -> tuple[FastnObject | None, list[Unchecked]]:
    """Return the resource, or a gap if it cannot be read. Raises `NotFound` if it does not exist."""
    try:
        target = await read_target(deleting, context.read)
    except NotFound:
        raise
    except FastnError as error:
        return None, [Unchecked("the resource itself", error.what)]
    if target is None:
        raise NotFound(*no_such(deleting), certainty=NOTHING_SENT)
    return target, []


def _unchecked(rule: DependencyRule, uses: Uses) -> list[Unchecked]:
    if uses.silent:
        return [
            Unchecked(
                f"{uses.silent} {rule.kind}",
                f"The list does not show what they use, and at most {DETAILS} are read one by one.",
            )
        ]
    if not uses.is_conclusive:
        return [Unchecked(rule.kind, "There are more than are read, and none of the first uses it.")]
    return []


async def _row(rule: DependencyRule, uses: Uses, context: ProcedureContext) -> dict[str, JsonValue]:
    rows = [row_of(row) for row in uses.rows[: EXAMPLES.get(rule.kind, MANY)]]
    owners = filter(None, map(owner_of, rows)) if rule.kind == "connections" else ()
    customers = {"customer": await context.directory.names("customer", owners, context.read)}
    names = [example_name(rule.kind, row, customers) for row in rows]
    examples: list[JsonValue] = [_example(rule.kind, row, name) for row, name in zip(rows, names, strict=True)]
    entry: dict[str, JsonValue] = {"kind": rule.kind, "count": uses.count}
    if uses.more:
        entry["at_least"] = True
    entry["examples"] = examples
    if len(examples) < uses.count and rule.depends is every:
        arguments = {name: value for name, value in rule.reading.arguments().items() if name != "limit"}
        entry["more"] = {"tool": rule.reading.tool_name(), "arguments": arguments}
    return entry


def _example(kind: str, row: Row, name: str) -> dict[str, JsonValue]:
    """Return the id and name of a dependent, and its state unless it is live."""
    example: dict[str, JsonValue] = {"id": key_of(row)}
    if name != key_of(row):
        example["name"] = name
    if kind in STATES and (state := STATES[kind](row)) is not State.LIVE:
        example["state"] = state.value
    return example
