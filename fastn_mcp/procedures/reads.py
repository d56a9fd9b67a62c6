"""Reads side by side, with a record of those that failed; and one row of a kind that has only a list."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, cast

import anyio
from pydantic import Field

from fastn_mcp.errors import Failed, FastnError, NotFound
from fastn_mcp.fastn.directory import LISTS
from fastn_mcp.fastn.rows import Row, row_of
from fastn_mcp.fastn.targets import Call, Send, find_row
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import Effect, FastnObject


class ReadRecord:
    """The reads of one procedure, each under a name for people."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.found: dict[str, FastnObject] = {}
        self.failed: dict[str, FastnError] = {}
        self.bounds: list[str] = []
        """Where what was read is not all, or may not be what was asked for."""

    async def together(self, calls: Mapping[str, Call]) -> None:
        """Make these reads, as far as they succeed."""

        async def read(what: str, call: Call) -> None:
            try:
                self.found[what] = await self._send(call)
            except FastnError as error:
                self.failed[what] = error

        async with anyio.create_task_group() as group:
            for what, call in calls.items():
                group.start_soon(read, what, call)

    def row(self, what: str) -> Row | None:
        """What was read; None where it could not be."""
        return row_of(self.found[what]) if what in self.found else None

    def page(self, what: str) -> list[Row] | None:
        """The rows of a page; None where it could not be read."""
        if what not in self.found:
            return None
        page = cast("Listed[FastnObject]", self.found[what])
        if page.not_checked:
            self.bounds.append(f"{what}: the rows do not say their {', '.join(page.not_checked)}")
        return rows(page.items)

    def following(self, what: str) -> str | None:
        """The cursor of the next page; None where there is none."""
        return cast("Listed[FastnObject]", self.found[what]).next_cursor if what in self.found else None

    def not_checked(self) -> list[str]:
        """What could not be read, and what was read only in part."""
        return [*(f"{what}: {error.what}" for what, error in self.failed.items()), *dict.fromkeys(self.bounds)]


def rows(records: Iterable[Any]) -> list[Row]:
    """Records as they came."""
    return [row_of(record) for record in records]


class ReadRow(Procedure[FastnObject]):
    """Read one row of a list by its id."""

    effect = Effect.READ

    kind: Annotated[str, Field(description="As in LISTS.")]
    id: Annotated[str, Field(description="Its id.", min_length=1)]

    @property
    def target(self) -> str | None:
        return self.id

    async def run(self, means: ProcedureContext) -> FastnObject:
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
