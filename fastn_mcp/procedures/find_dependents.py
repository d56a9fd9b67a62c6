"""The tool `find_dependents`: the resources that use another, as previews of its deletion show them."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.account.dependents import describe_dependents
from fastn_mcp.account.resolve import read_label
from fastn_mcp.client.reads import read_target
from fastn_mcp.errors import NOTHING_SENT, FastnError, NotFound
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.related_reads import no_such
from fastn_mcp.tools.tool import Effect

Kind = Literal["customer", "connector", "connection", "workflow", "secret", "trigger"]


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
        operation = OPERATIONS[f"delete_{self.kind}"]  # as the guard would preview it
        deleting = operation.model_validate({operation.route.parameters[-1]: self.id})
        target, unread = await _record(deleting, context)
        found = await describe_dependents(deleting, target, context.look, context.system.now(), context.report)
        of: dict[str, JsonValue] = {"kind": self.kind, "id": self.id}
        if target is not None:
            of["name"] = str(await read_label(deleting, target, context.look) or self.id)
        gaps = [gap.data() for gap in (*unread, *found.gaps)]
        answer: dict[str, JsonValue] = {"of": of, "used_by": [], **found.data(), "not_checked": [*gaps]}
        return ResourceDependents.model_validate(answer | context.look.age())


async def _record(deleting: Call, context: ProcedureContext) -> tuple[FastnObject | None, list[Unchecked]]:
    """Return the resource, or a gap if it cannot be read. Raises `NotFound` if it does not exist."""
    try:
        target = await read_target(deleting, context.look)
    except NotFound:
        raise
    except FastnError as error:
        return None, [Unchecked("the resource itself", error.what)]
    if target is None:
        raise NotFound(*no_such(deleting), certainty=NOTHING_SENT)
    return target, []
