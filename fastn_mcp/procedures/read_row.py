"""Reads one resource of a kind that Fastn shows only in its list. Not offered as a tool: resources are read by it."""

from typing import Annotated, Any

from pydantic import Field

from fastn_mcp.errors import Failed, NotFound
from fastn_mcp.offer import Effect, Record
from fastn_mcp.procedures.directory import LISTS
from fastn_mcp.procedures.procedure import Means, Procedure
from fastn_mcp.procedures.target import find_row


class ReadRow(Procedure[Record]):
    """Read one row of a list by its id."""

    effect = Effect.READ

    kind: Annotated[str, Field(description="As in LISTS.")]
    id: Annotated[str, Field(description="Its id.", min_length=1)]

    @property
    def target(self) -> str | None:
        return self.id

    async def run(self, means: Means) -> Record:
        lister: Any = LISTS[self.kind]
        row, seen = await find_row(lister, self.id, means.send)
        if row is not None:
            return row
        if seen:
            raise Failed(
                f"It is not among the first {seen}, and no more are looked through.",
                f"Look for it with {lister.tool_name()} and its filters.",
            )
        raise NotFound("There is no such id.", f"See {lister.tool_name()}.")
